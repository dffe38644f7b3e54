"""What is asked of PostgreSQL's programs: one that was killed has said nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.databases._postgres_client import Client, choose
from larder.errors import UnreachableError


def program(folder: Path, script: str) -> Client:
    path = folder / "pg_dump"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Client((18, 1), folder)


def test_a_program_that_was_killed_says_nothing_of_how_it_was_built(tmp_path: Path) -> None:
    client = program(tmp_path, "kill -9 $$")
    with pytest.raises(UnreachableError):
        client.compression()
    program(tmp_path, 'echo "pg_dump: error: this build does not support compression with zstd" >&2; exit 1')
    assert client.compression() == "1"


def test_a_program_that_was_killed_is_there_all_the_same(tmp_path: Path) -> None:
    program(tmp_path, "kill -9 $$")
    with pytest.raises(UnreachableError):
        choose("18.1", [tmp_path])
    program(tmp_path, "echo 'pg_dump (PostgreSQL) 18.1'")
    assert choose("18.1", [tmp_path]).folder == tmp_path


def test_one_that_gets_as_far_as_connecting_was_built_with_it(tmp_path: Path) -> None:
    client = program(tmp_path, 'echo "pg_dump: error: connection to server failed" >&2; exit 1')
    assert client.compression() == "zstd:1"
