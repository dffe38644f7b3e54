"""Back up, destroy, restore, compare, undo, redo: SQLite files through real commands, a worker and an approver."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.house import House
from tests.restores import Approver, ask, back_up, restored, run, standing, trail, undone

Stand = tuple[House, Approver]

#: Journal modes of the databases, by name.
MODES = {"quiet": "delete", "busy": "wal"}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("stand")
    lines = "".join(f'[databases.{name}]\nurl = "sqlite:///{name}.db"\n' for name in [*MODES, "lost"])
    with standing(folder, lines) as made:
        yield made


def fill(path: Path, mode: str) -> None:
    """A database with rows, an index, a view, a trigger and settings of its own; in WAL mode its log is not settled."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.executescript(
            "PRAGMA application_id = 77; PRAGMA user_version = 12;"
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT NOT NULL, picture BLOB);"
            "CREATE TABLE customers (name TEXT PRIMARY KEY) WITHOUT ROWID; CREATE INDEX whats ON orders (what);"
            "CREATE VIEW longest AS SELECT max(length(what)) AS size FROM orders;"
            "CREATE TRIGGER no_delete BEFORE DELETE ON customers BEGIN SELECT RAISE(ABORT, 'never'); END;"
        )
        rows = ((f"Bestellung № {n}", n.to_bytes(4)) for n in range(300))
        connection.executemany("INSERT INTO orders (what, picture) VALUES (?, ?)", rows)
        connection.execute("INSERT INTO customers VALUES ('Ünïcode')")
        connection.commit()


def destroy(path: Path) -> dict[str, object]:
    """What happens at 3 a.m.; gives what is left."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DELETE FROM orders WHERE id % 3 = 0; DROP TRIGGER no_delete; DELETE FROM customers; DROP VIEW longest;"
            "PRAGMA user_version = 13; CREATE TABLE junk (a)"
        )
    return whole(path)


def whole(path: Path) -> dict[str, object]:
    """Everything in a file: equal when nothing tells two of them apart."""
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as connection:
        pragmas = ("journal_mode", "user_version", "application_id", "encoding", "page_size")
        found: dict[str, object] = {name: connection.execute(f"PRAGMA {name}").fetchone() for name in pragmas}
        return found | {"all": list(connection.iterdump())}


@pytest.mark.parametrize("name", MODES)
def test_destroyed_restored_undone_and_redone(stand: Stand, name: str) -> None:
    house, alice = stand
    path = house.folder / f"{name}.db"
    fill(path, MODES[name])
    before = whole(path)
    assert before["journal_mode"] == (MODES[name],)
    backup = back_up(house, name)
    destroyed = destroy(path)
    assert destroyed != before

    done = restored(house, alice, backup, name)
    assert whole(path) == before
    kept = Path(done["kept"])
    assert kept.name.startswith(f"{name}.db.before_restore_")
    assert whole(kept) == destroyed

    planned = house.larder("restore", "plan", f"{name}/latest", "--into", name).stdout
    assert f"this is the safety backup of restore {done['request']}" in planned

    undo = undone(house, done["request"])
    assert whole(path) == destroyed
    assert not kept.exists()
    assert house.larder("restore", "undo", done["request"], "--yes").returncode == 4

    redo = undone(house, undo["request"])
    assert whole(path) == before
    assert [row["event"] for row in trail(house, redo["request"])] == ["swapped", "done"]
    assert house.larder("audit", "verify").returncode == 0
    # What the undo of the undo keeps, and nothing half-built.
    assert {found.name for found in house.folder.glob(f"*{name}.db?*")} == {Path(redo["kept"]).name}


def test_a_new_file_by_its_address_and_one_that_was_lost(stand: Stand) -> None:
    house, alice = stand
    path, copy = house.folder / "lost.db", house.folder / "copy.db"
    fill(path, "wal")
    before = whole(path)
    backup = back_up(house, "lost")
    destroyed = destroy(path)
    new = restored(house, alice, backup, f"sqlite:///{copy}", "--mode", "new")
    assert whole(copy) == before
    assert whole(path) == destroyed
    done = house.larder("restore", "undo", new["request"], "--yes")
    assert done.returncode == 4
    assert "it replaced nothing" in done.stderr

    document = ask(house, backup, "lost")
    token = alice.approve(document)
    path.unlink()
    # What was approved is to replace a file, and there is none.
    assert run(house, document["request"], token).returncode == 4
    again = restored(house, alice, backup, "lost")
    assert whole(path) == before
    assert (again["kept"], again["safety_backup"]) == (None, None)
    assert house.larder("restore", "undo", again["request"], "--yes").returncode == 4
    # Nobody asked for it to be replaced.
    words = ("restore", "request", backup, "--into", f"sqlite:///{copy}", "--mode", "new", "--reason", "x")
    done = house.larder(*words)
    assert done.returncode == 6, done.stderr
    assert whole(copy) == before
