"""What goes wrong on the way of a restore: said plainly, at the step where it is, with the live database as it was."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.house import House
from tests.restores import (
    Approver,
    ask,
    back_up,
    command_lines,
    drop_all,
    restored,
    run,
    standing,
    trail,
    undone,
    whole,
)
from tests.servers import PASSWORD, Cluster, Clusters, started

#: The application's own command: where it is, a migration that works, and one that may not.
MIGRATION = """
import os, pathlib, sys, psycopg
with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
    pathlib.Path("migrated").write_text(connection.info.dbname)
    connection.execute("INSERT INTO customers VALUES (0, 'by post_restore')")
print("applied migration 1")
if pathlib.Path("broken").exists():
    sys.exit("migration 2 does not apply")
"""

CUSTOMERS = (
    "CREATE TABLE customers AS SELECT n AS id, 'customer ' || n AS name FROM generate_series(1, 500) n;"
    "CREATE TABLE orders AS SELECT n AS id FROM generate_series(1, 300) n"
)


@dataclass(frozen=True)
class Stand:
    house: House
    alice: Approver
    server: Cluster
    #: One that is stopped while somebody restores into it.
    gone: Cluster


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, clusters: Clusters) -> Iterator[Stand]:
    server, gone, folder = clusters.get(16), started(16), tmp_path_factory.mktemp("stand")
    (folder / "migrate.py").write_text(MIGRATION)
    lines, environment = (
        f'postgres_bin = ["{server.bin}"]\n[databases.files]\nurl = "sqlite:///files.db"\n',
        {},
    )
    for name, more in {
        "checked": 'checks = ["SELECT count(*) = 500 FROM customers", "SELECT count(*) > 300 FROM orders"]\n',
        "migrated": f'post_restore = ["{sys.executable}", "migrate.py"]\n',
        "broken": "",
        "gone": "",
    }.items():
        environment[f"URL_{name}"] = (gone if name == "gone" else server).url(f"shop_{name}")
        lines += f'[databases.{name}]\nurl_env = "URL_{name}"\n{more}'
    try:
        with standing(folder, lines, **environment) as (house, alice):
            yield Stand(house, alice, server, gone)
    finally:
        gone.remove()


@contextmanager
def shop(server: Cluster, name: str) -> Iterator[str]:
    with server.database(name):
        server.execute(CUSTOMERS, name)
        try:
            yield name
        finally:
            drop_all(server, name)


def destroy(server: Cluster, name: str) -> dict[str, object]:
    server.execute("DELETE FROM customers WHERE id > 3; TRUNCATE orders", name)
    return whole(server, name)


def failed(stand: Stand, backup: str, into: str, *options: str) -> dict[str, Any]:
    """What `restore run --json` prints of a restore that fails."""
    document = ask(stand.house, backup, into, *options)
    done = run(stand.house, document["request"], stand.alice.approve(document))
    return said_of(stand, document["request"], done)


def said_of(stand: Stand, request: str, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The same, of a restore that was run; the audit trail says so too."""
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["state"] == "failed"
    assert done.returncode == found["exit_code"] != 0
    entry = trail(stand.house, request)[-1]
    assert entry["event"] == "failed"
    assert found["error"] in entry["facts"]["error"]
    return found


def test_a_check_that_is_not_true_stops_it_before_anything_is_replaced(stand: Stand) -> None:
    with shop(stand.server, "shop_checked") as name:
        backup = back_up(stand.house, "checked")
        destroyed = destroy(stand.server, name)
        found = failed(stand, backup, "checked")
        assert (found["failed_step"], found["exit_code"]) == ("examine", 5)
        assert "check is not true: SELECT count(*) > 300 FROM orders" in found["error"]
        assert "500" not in found["error"]
        assert "nothing was replaced" in found["hint"]
        assert whole(stand.server, name) == destroyed
        assert [one for one in stand.server.databases() if one.startswith("shop")] == [name]
        assert found["undo_until"] is None


def test_post_restore_runs_before_the_swap_and_stops_it_where_it_fails(stand: Stand) -> None:
    house, server = stand.house, stand.server
    with shop(server, "shop_migrated") as name:
        backup = back_up(house, "migrated")
        destroyed = destroy(server, name)
        (house.folder / "broken").touch()
        found = failed(stand, backup, "migrated")
        assert (found["failed_step"], found["exit_code"]) == ("migrate", 1)
        assert found["error"] == (
            "unable to run post_restore: python exited with 1: migration 2 does not apply; it said: applied migration 1"
        )
        assert "nothing was replaced" in found["hint"]
        assert whole(server, name) == destroyed
        assert [one for one in server.databases() if one.startswith("shop")] == [name]

        (house.folder / "broken").unlink()
        with command_lines() as seen:
            done = restored(house, stand.alice, backup, "migrated")
        assert (house.folder / "migrated").read_text() == f"{name}__restore_{done['request']}"
        with server.connect(name) as connection:
            query = "SELECT count(*), min(name) FILTER (WHERE id = 0) FROM customers"
            assert connection.execute(query).fetchone() == (501, "by post_restore")
        assert any(b"migrate.py" in line for line in seen)
        assert not any(PASSWORD.encode() in line for line in seen)
        assert "post_restore: applied migration 1" in house.larder("watch", done["run"]).stderr


def test_a_database_that_is_too_broken_for_a_safety_backup(stand: Stand) -> None:
    house, server = stand.house, stand.server
    with shop(server, "shop_broken") as name:
        before = whole(server, name)
        backup = back_up(house, "broken")
        with server.connect(name) as connection:
            connection.execute("CHECKPOINT")
            row = connection.execute("SELECT pg_relation_filepath('orders')").fetchone()
        assert row is not None
        (server.data / row[0]).unlink()

        found = failed(stand, backup, "broken")
        assert found["failed_step"] == "safety"
        assert found["error"].startswith("its safety backup failed: ")
        assert "--no-safety-backup" in found["hint"]
        with server.connect(name) as connection:
            assert connection.execute("SELECT count(*) FROM customers").fetchone() == (500,)
        assert [one for one in server.databases() if one.startswith("shop")] == [name]

        done = restored(house, stand.alice, backup, "broken", "--no-safety-backup")
        assert whole(server, name) == before
        assert done["safety_backup"] is None
        # Whoever would look into what is left of it can still do so.
        undone(house, done["request"])
        with server.connect(name) as connection:
            assert connection.execute("SELECT count(*) FROM customers").fetchone() == (500,)


def orders(path: Path, statement: str = "") -> int:
    """How many orders a SQLite file has, after `statement`."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statement)
        return int(connection.execute("SELECT count(*) FROM orders").fetchone()[0])


THREE_ORDERS = "CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1), (2), (3)"


def test_a_backup_that_was_altered_after_the_approval_is_not_used(stand: Stand) -> None:
    house = stand.house
    path = house.folder / "files.db"
    orders(path, THREE_ORDERS)
    backup = back_up(house, "files")
    orders(path, "DELETE FROM orders")
    document = ask(house, backup, "files")
    token = stand.alice.approve(document)
    (artifact,) = (house.backups / "files").glob("*.db.gz")
    data = bytearray(artifact.read_bytes())
    data[len(data) // 2] ^= 1
    artifact.chmod(0o600)
    artifact.write_bytes(data)
    found = said_of(stand, document["request"], run(house, document["request"], token))
    assert (found["failed_step"], found["exit_code"]) == ("fetch", 5)
    assert "are wanted" in found["error"]
    assert orders(path) == 0
    # Nothing was begun: neither a safety backup nor a new file.
    assert len(json.loads(house.larder("list", "files", "--json").stdout)) == 1
    assert not list(house.folder.glob("*.restore_*"))


def test_an_encrypted_backup_takes_a_worker_with_identities(tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    key = tmp_path / "age.key"
    key.write_text(f"{identity}\n")
    key.chmod(0o600)
    # Without a Redis, so that every command has a worker of its own, by the configuration of that moment.
    house = House(tmp_path)
    alice = Approver(house)
    lines = f'[databases.files]\nurl = "sqlite:///files.db"\nencrypt_to = ["{identity.to_public()}"]\n'
    house.configure(lines + alice.lines)
    path = tmp_path / "files.db"
    orders(path, THREE_ORDERS)
    backup = back_up(house, "files")
    orders(path, "DELETE FROM orders")
    refused = house.larder("restore", "plan", backup, "--into", "files")
    assert refused.returncode == 2
    assert "identities" in refused.stdout
    whole_lines = f'identities = ["{key}"]\n{lines}{alice.lines}'
    house.configure(whole_lines)
    document = ask(house, backup, "files")
    token = alice.approve(document)
    # The worker's configuration has lost it meanwhile.
    house.configure(lines + alice.lines)
    done = run(house, document["request"], token)
    found = json.loads(done.stdout)
    assert (found["state"], found["failed_step"]) == ("failed", "check")
    assert done.returncode == found["exit_code"] != 0
    assert "identities" in found["hint"]
    assert orders(path) == 0
    assert len(json.loads(house.larder("list", "files", "--json").stdout)) == 1
    house.configure(whole_lines)
    restored(house, alice, backup, "files")
    assert orders(path) == 3


def test_a_server_that_is_away_costs_no_approval(stand: Stand) -> None:
    house, server = stand.house, stand.gone
    server.createdb("shop_gone")
    server.execute(CUSTOMERS, "shop_gone")
    before = whole(server, "shop_gone")
    backup = back_up(house, "gone")
    destroyed = destroy(server, "shop_gone")
    document = ask(house, backup, "gone")
    token = stand.alice.approve(document)
    server.stop()
    planned = house.larder("restore", "plan", "gone/latest", "--into", "gone", "--json")
    assert planned.returncode == 6
    assert "127.0.0.1" in json.loads(planned.stdout)["refusals"][0]["error"]
    done = run(house, document["request"], token)
    assert done.returncode == 6, done.stderr
    assert "connection refused" in json.loads(done.stdout)["error"]
    assert PASSWORD not in done.stdout + done.stderr
    server.start()
    assert whole(server, "shop_gone") == destroyed
    assert server.databases() == ["postgres", "shop_gone", "template0", "template1"]
    assert run(house, document["request"], token).returncode == 0
    assert whole(server, "shop_gone") == before
