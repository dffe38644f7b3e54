"""What a backup asks of ledger and disk, in counts, which need no quiet machine: whoever adds to them is told."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from larder import progress
from larder.ledger import tables
from tasks import backup, chain, context, keeping
from tasks import step as steps
from tasks.checksum import checksum
from tasks.compress import compress
from tasks.dump import dump
from tasks.notify import notify
from tasks.rotate import rotate
from tasks.upload import upload

#: What the chain of one small SQLite backup may ask, from its run's creation to its end.
STATEMENTS = 75
WRITING, READING = 14, 16
FSYNCS = 24

#: SQLite's own instructions are counted by so many.
_BY = 50

#: How much more a ledger of many may have to do than one of few.
_LIKE = 1.25

_NOW = datetime(2025, 10, 16, tzinfo=UTC)


@dataclass
class Counts:
    """What was asked."""

    statements: list[str] = field(default_factory=list)
    instructions: int = 0
    fsyncs: int = 0

    @property
    def writing(self) -> int:
        """Transactions that write."""
        return self.statements.count("BEGIN IMMEDIATE")

    @property
    def reading(self) -> int:
        """Transactions that only read."""
        return self.statements.count("BEGIN")

    def step(self) -> int:
        """SQLite's progress handler: it goes on."""
        self.instructions += _BY
        return 0


class Nobody:
    """Looks after no step: on a slow machine what goes on beside one would be counted too."""

    def add(self, _keeper: object) -> None:
        """Begin nothing."""

    def remove(self, _keeper: object) -> None:
        """End nothing."""


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Counts what this process asks."""
    found, fsync = Counts(), os.fsync

    def execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.statements.append(statement)

    def connect(connection: Any, _record: Any) -> None:
        connection.set_progress_handler(found.step, _BY)

    def count(descriptor: int) -> None:
        found.fsyncs += 1
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", count)
    monkeypatch.setattr(keeping, "_beside", Nobody())
    monkeypatch.setattr(steps, "_FRESH", timedelta(days=1))
    monkeypatch.setattr(progress, "REPORT_EVERY", timedelta(days=1).total_seconds())
    monkeypatch.setattr(chain, "send", lambda *_: None)
    sa.event.listen(sa.Engine, "before_cursor_execute", execute)
    sa.event.listen(sa.Engine, "connect", connect)
    yield found
    sa.event.remove(sa.Engine, "before_cursor_execute", execute)
    sa.event.remove(sa.Engine, "connect", connect)
    context.settings.cache_clear()
    context._ledger_of.cache_clear()


def house(folder: Path, monkeypatch: pytest.MonkeyPatch, databases: int) -> None:
    """A configuration of so many databases, one of which is there."""
    folder.mkdir()
    made = sqlite3.connect(folder / "d0.db")
    made.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, what TEXT)")
    made.executemany("INSERT INTO items (what) VALUES (?)", ((f"{n * 7919:032x}",) for n in range(1000)))
    made.commit()
    made.close()
    (folder / "larder.toml").write_text(
        "\n".join(f'[databases.d{n}]\nurl = "sqlite:///d{n}.db"\n' for n in range(databases))
    )
    for variable in ("DATABASE_URL", "BACKUP_DIR", "LARDER_STATE_DIR", "LARDER_LEDGER_URL", "REDIS_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LARDER_CONFIG", str(folder / "larder.toml"))
    context.settings.cache_clear()
    context._ledger_of.cache_clear()


def chain_of(database: str) -> str:
    """One whole backup, in this process; gives its run's id."""
    run = backup.start(database, "call")
    for link in (dump, compress, checksum):
        link(run.id)
    upload(run.id, "local")
    for link in (rotate, notify):
        link(run.id)
    return run.id


def measured(counts: Counts, others: int = 0) -> Counts:
    """What the second backup of a database asks: the first one finds nothing to be compared with.

    Beside it, so many others have backups.
    """
    chain_of("d0")
    if others:
        crowd(context.settings().state_dir / "ledger.sqlite3", others, 20)
    counts.statements.clear()
    counts.instructions = counts.fsyncs = 0
    run = chain_of("d0")
    found = Counts(counts.statements[:], counts.instructions, counts.fsyncs)
    assert context.ledger().runs.get(run).state == "stored"
    return found


def crowd(ledger_file: Path, databases: int, each: int) -> None:
    """Write down so many backups of each of many databases, which lie in the same store, and a run of each that waits
    for its turn.
    """
    engine = sa.create_engine(f"sqlite:///{ledger_file}")
    runs, copies, backups = [], [], []
    for name in (f"d{n}" for n in range(1, databases + 1)):
        for number in range(each + 1):
            created, is_queued = _NOW + timedelta(days=number), number == each
            stamp = f"{created:%Y%m%d_%H%M%S}"
            run = {
                "id": f"{name}.{number}", "kind": "backup", "database": name, "stamp": stamp, "trigger": "schedule",
                "state": "queued" if is_queued else "stored", "attempt": 6, "created": created, "warnings": [],
                "lease_until": datetime.now(UTC) + timedelta(days=1), "holds": name,
            }  # fmt: skip
            runs.append(run)
            if not is_queued:
                artifact = f"backup_sqlite_{stamp}.db.gz"
                backups.append({
                    "id": f"{name}/{stamp}", "database": name, "run": run["id"], "engine": "sqlite",
                    "created": created, "artifact": artifact, "size": 1, "sha256": "0" * 64, "raw_size": 1,
                    "proof": "stored", "pinned": False,
                })  # fmt: skip
                copies.append({"backup": f"{name}/{stamp}", "store": "local", "key": f"{name}/{artifact}"})
    with engine.begin() as connection:
        for table, rows in ((tables.runs, runs), (tables.backups, backups), (tables.copies, copies)):
            connection.execute(table.insert(), rows)
    engine.dispose()


def test_a_backup_asks_so_much_of_its_ledger_and_its_disk(
    tmp_path: Path, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    house(tmp_path / "house", monkeypatch, 3)
    found = measured(counts)
    assert len(found.statements) - found.writing - found.reading <= STATEMENTS
    assert found.writing <= WRITING
    assert found.reading <= READING
    assert found.fsyncs <= FSYNCS


def test_it_asks_no_more_where_there_are_a_hundred_times_as_many_databases(
    tmp_path: Path, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    house(tmp_path / "few", monkeypatch, 3)
    few = measured(counts)
    context.ledger().close()
    house(tmp_path / "many", monkeypatch, 300)
    many = measured(counts, others=300)
    assert many.statements == few.statements
    assert many.fsyncs == few.fsyncs
    assert many.instructions <= few.instructions * _LIKE
