"""A deploy's journey: a worker is told to end in the middle of a dump, and the next one goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from larder.ledger.leases import TTL
from tests.house import PATIENCE, House
from tests.processes import eventually, running
from tests.servers import Cluster, Clusters
from workers import farewell

pytestmark = pytest.mark.usefixtures("no_process_left")


@pytest.fixture
def server(clusters: Clusters) -> Cluster:
    return clusters.get(16)


@pytest.fixture
def house(tmp_path: Path, server: Cluster, redis_url: str) -> Iterator[House]:
    with server.database("shop") as name:
        server.execute("CREATE TABLE customers AS SELECT n FROM generate_series(1, 500) n", name)
        made = House(tmp_path, SHOP_URL=server.url(name), REDIS_URL=redis_url)
        configure(made, server)
        yield made


def configure(house: House, server: Cluster, *more: str) -> None:
    lines = [f'postgres_bin = ["{server.bin}"]', "[databases.shop]", 'url_env = "SHOP_URL"', *more]
    house.configure("\n".join(lines) + "\n")


#: `celery`, with another patience than its own; and before that, what makes it slow.
PATIENT = (
    "{1}; from workers import farewell; farewell.PATIENCE = {0}; from celery.__main__ import main; main()"
)

#: On a machine with too much to do, a program may run before who has started it does.
SLOW_TO_START = "import os, time; os.register_at_fork(after_in_parent=lambda: time.sleep(1))"


@contextmanager
def worker(
    house: House, name: str, patience: float = farewell.PATIENCE, slow: str = "pass"
) -> Iterator[subprocess.Popen[str]]:
    """A running worker, whose log is called after it."""
    log = house.folder / f"{name}.log"
    command = ["python", "-c", PATIENT.format(patience, slow), "-A", "workers", "worker", "-n", f"{name}@%h"]
    options = ["--concurrency", "2", "--loglevel", "INFO", "--logfile", str(log)]
    with running(house.start(*command, *options)) as process:
        eventually(lambda: log.exists() and "ready." in log.read_text())
        yield process


@contextmanager
def locked(server: Cluster) -> Iterator[psycopg.Connection]:
    """A table that nobody can read, so that a dump waits for it; what is given back lets go of it when it is closed."""
    with server.connect("shop") as connection:
        connection.execute("BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        yield connection


def ask(house: House) -> None:
    """Ask for a backup, and wait until it is being dumped."""
    asked = house.larder("backup", "shop", "--no-wait")
    assert asked.returncode == 0, asked.stderr
    eventually(lambda: dumps(house))


def dumps(house: House) -> list[psutil.Process]:
    """The pg_dumps of this house."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "pg_dump" and process.environ().get("HOME") == str(house.folder):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def runs(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(house.larder("runs", "--json").stdout)
    return found


def over(house: House) -> dict[str, Any] | None:
    (run,) = runs(house)
    return run if run["state"] in ("stored", "failed") and run["steps"][-1]["state"] == "done" else None


def states(house: House) -> list[tuple[str, str, int]]:
    (run,) = runs(house)
    return [(step["name"], step["state"], step["attempts"]) for step in run["steps"]]


def see_that_nothing_is_left(house: House) -> None:
    """No program that dumps, and no file half made."""
    assert not dumps(house)
    spool = house.backups / ".larder" / "spool"
    assert [path.name for path in spool.glob("*/*.*")] == []


def see_that_it_is_stored(house: House, dumped: int) -> None:
    """One backup, by steps that were begun once each, the dump `dumped` times; and nobody was told of a failure."""
    run = eventually(lambda: over(house))
    assert run["state"] == "stored", run
    assert [step["attempts"] for step in run["steps"]] == [dumped, 1, 1, 1, 1, 1]
    assert run["warnings"] == []
    listed = json.loads(house.larder("list", "--json").stdout)
    assert [one["backup"] for one in listed] == [run["backup"]]
    assert len(list(house.backups.rglob("*.manifest.json"))) == 1
    verified = house.larder("verify", "shop/latest")
    assert verified.returncode == 0, verified.stdout
    said = "".join(log.read_text() for log in house.folder.glob("*.log"))
    assert said.count("Backup completed successfully!") == 1
    for word in (" failed", "ERROR", "WorkerLost", "Traceback"):
        assert word not in said, said


def test_a_deploy_in_the_middle_of_a_dump(house: House, server: Cluster) -> None:
    with locked(server), worker(house, "old") as old:
        ask(house)
        old.terminate()
        old.wait(PATIENCE)
        assert old.returncode == 0
        see_that_nothing_is_left(house)
        assert states(house)[0] == ("dump", "waiting", 0)
    with worker(house, "new"):
        ready = time.monotonic()
        see_that_it_is_stored(house, dumped=1)
        assert time.monotonic() - ready < TTL.total_seconds() / 3, "it waited for the lease of the old worker"


def test_a_step_that_ends_in_time_is_committed_and_not_begun_again(house: House, server: Cluster) -> None:
    # On a machine that is busy with other tests, a dump may take a while.
    with worker(house, "old", patience=PATIENCE) as old:
        with locked(server):
            ask(house)
            old.terminate()
            eventually(lambda: "Warm shutdown" in (old.stdout.readline() if old.stdout else ""))
        old.wait(PATIENCE)
        assert states(house)[:2] == [("dump", "done", 1), ("compress", "pending", 0)]
    with worker(house, "new"):
        see_that_it_is_stored(house, dumped=1)


def _cold(old: subprocess.Popen[str]) -> None:
    old.send_signal(signal.SIGQUIT)


def _everybody(old: subprocess.Popen[str]) -> None:
    """What systemd does by itself: SIGTERM for every process, pg_dump too."""
    for process in [psutil.Process(old.pid), *psutil.Process(old.pid).children(recursive=True)]:
        # One that the first has told may be gone already.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ("end", "slow"),
    [(_cold, "pass"), (_cold, SLOW_TO_START), (_everybody, "pass")],
    ids=["cold", "cold while pg_dump is being started", "everybody"],
)
def test_a_cold_end_costs_an_attempt_and_no_time(house: House, server: Cluster, end: Any, slow: str) -> None:
    with locked(server), worker(house, "old", slow=slow) as old:
        ask(house)
        end(old)
        old.wait(PATIENCE)
        see_that_nothing_is_left(house)
        assert states(house)[0] == ("dump", "waiting", 1)
    with worker(house, "new"):
        see_that_it_is_stored(house, dumped=2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_kill_costs_the_time_of_a_lease(house: House, server: Cluster) -> None:
    with locked(server), worker(house, "old") as old:
        ask(house)
        for process in [*psutil.Process(old.pid).children(recursive=True), psutil.Process(old.pid)]:
            process.kill()
        old.wait(PATIENCE)
        eventually(lambda: not dumps(house))
        assert states(house)[0] == ("dump", "running", 1)
    with worker(house, "new"):
        ready = time.monotonic()
        see_that_it_is_stored(house, dumped=2)
        assert time.monotonic() - ready < 90


def test_another_worker_of_the_host_goes_on_at_once(house: House, server: Cluster) -> None:
    with locked(server) as lock, worker(house, "leaves", patience=1) as leaves:
        ask(house)
        with worker(house, "stays"):
            (first,) = dumps(house)
            leaves.terminate()
            eventually(lambda: [dump for dump in dumps(house) if dump.pid != first.pid])
            leaves.wait(PATIENCE)
            assert len(dumps(house)) == 1
            lock.close()
            see_that_it_is_stored(house, dumped=1)


def test_a_dump_that_hangs_ends_with_its_time_limit(house: House, server: Cluster) -> None:
    configure(house, server, 'time_limit = "10s"')
    with locked(server), worker(house, "worker"):
        ask(house)
        run = eventually(lambda: over(house))
        assert (run["state"], run["failed_step"]) == ("failed", "dump")
        assert run["error"] == "unable to finish step 'dump' of 'shop': it took longer than 10 s"
        assert "raise time_limit" in run["hint"]
        assert run["steps"][0]["attempts"] == 1
        see_that_nothing_is_left(house)
        assert run["seconds"] < 30
