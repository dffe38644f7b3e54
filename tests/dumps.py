"""What tests of PostgreSQL dumps do again and again."""

from __future__ import annotations

import stat
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from pydantic import SecretStr

from larder.codecs import codec
from larder.config import DatabaseSettings
from larder.databases import Database, Dump, open_database
from larder.progress import Progress
from tests.servers import PASSWORD, SAMPLE, Cluster, postgres_installs

BINARIES = tuple(postgres_installs().values())


@contextmanager
def filled(cluster: Cluster, statements: str = SAMPLE) -> Iterator[str]:
    with cluster.database(f"shop_{uuid.uuid4().hex[:8]}") as name:
        cluster.execute(statements, name)
        yield name


def opened(url: str, **options: Any) -> Database:
    options.setdefault("postgres_bin", BINARIES)
    return open_database(DatabaseSettings(name="shop", url=SecretStr(url), **options), Path("/nonexistent"))


def dumped(url: str, folder: Path, word: str = "none", **options: Any) -> Dump:
    return opened(url, **options).dump(folder, codec(word), Progress(), lambda _line: None)


@contextmanager
def role(cluster: Cluster, options: str = "") -> Iterator[str]:
    """A role that may connect, and nothing else."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    cluster.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {options}")
    try:
        yield name
    finally:
        cluster.execute(f"DROP ROLE {name}")


def fake(folder: Path, version: str, script: str = "exit 1") -> Path:
    """A folder with a pg_dump that says it is of `version`, and otherwise runs `script`."""
    folder.mkdir(exist_ok=True)
    path = folder / "pg_dump"
    asked = f"if [ \"$1\" = --version ]; then echo 'pg_dump (PostgreSQL) {version}'; exit; fi"
    path.write_text(f"#!/bin/sh\n{asked}\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder


def rows(cluster: Cluster, database: str, table: str) -> int:
    with cluster.connect(database) as connection:
        row = connection.execute(
            psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
        )
        return int((row.fetchone() or (0,))[0])


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something that nobody tells us of has come true."""
    clock = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        clock.wait(0.02)
    raise AssertionError("it did not come true")
