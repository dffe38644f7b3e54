"""What is asked of PostgreSQL's programs: one that was killed has said nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.databases._postgres_client import choose
from larder.errors import UnreachableError


def program(folder: Path, script: str) -> None:
    path = folder / "pg_dump"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_program_that_was_killed_is_there_all_the_same(tmp_path: Path) -> None:
    program(tmp_path, "kill -9 $$")
    with pytest.raises(UnreachableError):
        choose("18.1", [tmp_path])
    program(tmp_path, "echo 'pg_dump (PostgreSQL) 18.1'")
    assert choose("18.1", [tmp_path]).folder == tmp_path
