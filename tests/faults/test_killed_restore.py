"""A worker that is killed at any moment of a restore: the live database is all old or all new, and a worker goes on."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from larder.ledger.runs import RESTORE_STEPS, SAFETY_STEPS
from tests.house import House
from tests.processes import eventually, redis_server, running
from tests.restores import Approver, ask, run
from tests.servers import SAMPLE, Cluster, Clusters, contents

#: How often a worker is killed at a moment that nobody chose.
TIMES = int(os.environ.get("LARDER_TEST_KILLS", "20"))

#: Seconds within which such a kill falls; a restore takes about as long.
SPAN = 1.6

SEED = os.environ.get("LARDER_TEST_SEED") or str(random.SystemRandom().randrange(1 << 32))

STEPS = [*RESTORE_STEPS[:3], *SAFETY_STEPS, *RESTORE_STEPS[3:]]
POINTS = os.environ.get("LARDER_TEST_POINTS", "").split(",")
if POINTS == [""]:
    POINTS = [f"{step}:{moment}" for step in STEPS for moment in ("taken", "done", "committed")]

#: Tables that are worth being frozen as they come. Of a folder, each session has its own; the last they fill together.
LARGE = "".join(
    f"CREATE TABLE large{number} (n int PRIMARY KEY, t text);"
    f"INSERT INTO large{number} SELECT n, md5(n::text) FROM generate_series(1, 60000) n;"
    for number in range(3)
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


class Stand:
    """A database that has a backup and has lost its rows since, which every kill finds again as it was."""

    def __init__(self, house: House, server: Cluster, approver: Approver) -> None:
        self.house = house
        self.server = server
        self.approver = approver
        self.new = self.contents()
        done = house.larder("backup", "shop")
        assert done.returncode == 0, done.stderr
        server.execute('DELETE FROM "Order"; DROP TABLE guarded; DELETE FROM customers WHERE id > 3', "shop")
        self.old = self.contents()
        server.execute("CREATE DATABASE shop_as_it_was TEMPLATE shop")
        self.backup = self.backups()[0]

    def contents(self) -> dict[str, tuple[int, str]]:
        with psycopg.connect(self.server.socket_dsn("shop")) as connection:
            return contents(connection)

    def backups(self) -> list[str]:
        with self.ledger() as ledger:
            return [row[0] for row in ledger.execute("SELECT id FROM backups ORDER BY id")]

    def ledger(self) -> Any:
        return closing(sqlite3.connect(self.house.backups / ".larder" / "ledger.sqlite3", timeout=30))

    def state(self, request: str) -> str:
        with self.ledger() as ledger:
            found: str = ledger.execute("SELECT state FROM requests WHERE id = ?", [request]).fetchone()[0]
            return found

    def expire(self) -> None:
        """Have a minute pass for every lease."""
        with self.ledger() as ledger, ledger:
            ledger.execute(
                "UPDATE runs SET lease_until = '2020-01-01 00:00:00.000000' WHERE state IN ('queued', 'running')"
            )

    def reset(self) -> None:
        for name in self.server.databases():
            if name == "shop" or name.startswith("shop__"):
                self.server.dropdb(name)
        self.server.execute("CREATE DATABASE shop TEMPLATE shop_as_it_was")


@pytest.fixture(scope="module", params=["plain", "directory"])
def stand(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clusters: Clusters
) -> Iterator[Stand]:
    server, folder = clusters.get(16), tmp_path_factory.mktemp("kills")
    with redis_server(folder) as url, server.database("shop"):
        server.execute(SAMPLE + LARGE, "shop")
        if request.param == "directory":
            # A folder that holds any is pg_restore's.
            server.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata", "shop")
        house = House(folder, SHOP_URL=server.url("shop"), REDIS_URL=url)
        alice = Approver(house)
        house.configure(
            f'postgres_bin = ["{server.bin}"]\n[databases.shop]\nurl_env = "SHOP_URL"\n'
            f'format = "{request.param}"\n{alice.lines}'
        )
        with worker(house, "workers", "first.log"):
            made = Stand(house, server, alice)
        yield made
        for name in server.databases():
            if name.startswith("shop"):
                server.dropdb(name)


def worker(
    house: House, app: str, log: str, **environment: str
) -> AbstractContextManager[subprocess.Popen[Any]]:
    command = ["celery", "-A", app, "worker", "--loglevel", "INFO", "--concurrency", "1", "--logfile", log]
    return running(house.start(*command, **environment))


def killed_and_resumed(stand: Stand, when: str) -> str:
    """Kill a worker `when`, look, have another one go on, look again; says where it was killed."""
    stand.reset()
    house, marker = stand.house, stand.house.folder / "killed"
    marker.unlink(missing_ok=True)
    document = ask(house, stand.backup, "shop")
    token = stand.approver.approve(document)
    environment = {"LARDER_TEST_KILL": when, "LARDER_TEST_KILLED": str(marker), "PYTHONPATH": str(Path.cwd())}
    with worker(house, "tests.faults.deadly", "worker.log", **environment) as killed:
        assert run(house, document["request"], token, "--no-wait").returncode == 0
        eventually(lambda: marker.exists() or stand.state(document["request"]) in ("done", "failed"))
        if marker.exists():
            killed.wait(30)
    _see_that_nothing_works_on(house.folder)
    at = _open_step(stand, document["request"])
    found = stand.contents()
    assert found in (stand.old, stand.new), f"killed {when}: the live database is neither old nor new"
    where = f"{at}, live database {'old' if found == stand.old else 'new'}"
    stand.expire()
    with worker(house, "workers", "next.log") as next_one:
        called = house.start("celery", "-A", "workers", "call", "guard")
        called.communicate(timeout=60)
        ended = eventually(lambda: _ended(stand, document["request"]) or next_one.poll() is not None)
        assert ended == "done", (when, where, ended, _why(stand, document["request"]))
        # The request is closed a moment before its run.
        eventually(lambda: _open_step(stand, document["request"]) == "over")
    assert stand.contents() == stand.new, f"killed {when}: the restore said done, and is not"
    left = [name for name in stand.server.databases() if "__restore_" in name]
    assert not left, f"killed {when}: {left} is left over"
    spool = [path.name for path in (house.backups / ".larder" / "spool").iterdir() if path.is_dir()]
    assert not spool, f"killed {when}: {spool} is left in the spool"
    return where


def _ended(stand: Stand, request: str) -> str:
    state = stand.state(request)
    return state if state in ("done", "failed") else ""


def _open_step(stand: Stand, request: str) -> str:
    query = (
        "SELECT s.name, s.state FROM requests r JOIN runs u ON u.id = r.run OR u.parent = r.run"
        " JOIN steps s ON s.run = u.id WHERE r.id = ? AND s.state IN ('running', 'waiting', 'pending')"
        " ORDER BY s.state = 'pending', u.parent IS NULL, s.position"
    )
    with stand.ledger() as ledger:
        found = ledger.execute(query, [request]).fetchone()
    return f"{found[0]} {found[1]}" if found else "over"


def _why(stand: Stand, request: str) -> list[Any]:
    with stand.ledger() as ledger:
        return list(ledger.execute("SELECT state, note FROM requests WHERE id = ?", [request]))


def _see_that_nothing_works_on(folder: Path) -> None:
    """What a killed worker had started dies with it."""

    def ours() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") == str(folder) and process.name() not in ("redis-server",):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    eventually(lambda: not ours())


def test_killed_at_every_step(stand: Stand) -> None:
    for point in POINTS:
        sys.stdout.write(f"{point}: {killed_and_resumed(stand, point)}\n")


def test_killed_at_any_moment(stand: Stand) -> None:
    dice = random.Random(SEED)
    for number in range(TIMES):
        when = f"after:{dice.uniform(0, SPAN):.3f}"
        sys.stdout.write(f"seed {SEED}, kill {number}, {when}: {killed_and_resumed(stand, when)}\n")
