"""A flood: a great many databases that are due in the same minute, on one host, and on one database server."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from statistics import median

import psutil
import psycopg

from benchmarks.fleet_parts import (
    GUARD_SECONDS,
    Fleet,
    Targets,
    Watch,
    apart,
    fleet,
    guard_passes,
    print_samples,
    small_databases,
)
from larder.naming import MANIFEST_SUFFIX
from tests.processes import eventually
from tests.servers import Cluster, started

#: Seconds that one backup may take of the two cores before the flood counts as stuck.
PATIENCE = 3.0

#: How much larger a process may be at the end than in the middle.
GROWTH = 1.10

STORED = "SELECT count(*) FROM runs WHERE state = 'stored'"
OVER = "SELECT count(*) FROM runs WHERE state IN ('stored', 'failed')"

#: Seconds between two looks at who dumps.
LOOK_EVERY = 0.02


def flood(count: int, targets: Targets) -> None:
    """Have beat send `count` SQLite databases in one minute, and one worker with two processes back them up."""
    print(
        f"\nflood: {count:,} SQLite databases of 50 kB, due in the same minute; one worker with 2 processes"
    )
    with fleet() as here:
        names = small_databases(here.folder / "data", count)
        due = datetime.now(UTC) + timedelta(seconds=100)
        schedule = f"{due.minute} {due.hour} * * *"
        os.environ.update(here.environment)
        here.configure("\n".join(
            f'[databases.{name}]\nurl = "sqlite:///data/{name}.db"\nschedule = "{schedule}"\n' for name in names
        ))  # fmt: skip
        with here.worker(2) as process, here.celery("beat", name="beat") as beat:
            eventually(lambda: here.messages() or here.count("SELECT count(*) FROM runs"))
            _watched(here, targets, process, count)
            times = psutil.Process(beat).cpu_times()
            targets.note("beat, in all: CPU", f"{times.user + times.system:.1f} s")
        _all_stored_once(here, targets, names)


def servers(count: int, targets: Targets) -> None:
    """Have `count` PostgreSQL databases of one server backed up by four processes, two at a time."""
    print(f"\nservers: {count:,} PostgreSQL databases of one server, dumps_per_server = 2, 4 processes")
    cluster = started(16)
    names = [f"f{number:04}" for number in range(count)]
    try:
        _make(cluster, names)
        with fleet(FLEET_BIN=str(cluster.bin)) as here:
            os.environ.update(here.environment)
            here.configure(f'postgres_bin = ["{cluster.bin}"]\ndumps_per_server = 2\n' + "\n".join(
                f'[databases.{name}]\nurl = "{cluster.url(name)}"\nschedule = "0 0 1 1 *"\n' for name in names
            ))  # fmt: skip
            with here.worker(4) as process, _Dumps(cluster) as dumps:
                _send(here, names)
                _watched(here, targets, process, count)
            targets.equal("databases dumped at one moment, at most", dumps.most, 2)
            _all_stored_once(here, targets, names, trigger="call")
            targets.note("places that a dump came too late, at most", _out_of_order(here))
    finally:
        cluster.remove()


def _make(cluster: Cluster, names: list[str]) -> None:
    cluster.createdb("model")
    cluster.execute(
        "CREATE TABLE items AS SELECT n AS id, md5(n::text) FROM generate_series(1, 1000) n", "model"
    )
    for name in names:
        cluster.execute(f'CREATE DATABASE "{name}" TEMPLATE model')


def _send(here: Fleet, names: list[str]) -> None:
    """Send what beat would, one message a database, without waiting for a minute to begin."""
    from celery import Celery  # noqa: PLC0415 - not Larder's own application: that one reads the configuration

    with Celery(broker=here.redis_url) as app:
        app.conf.task_default_queue = "backup"
        for name in names:
            app.send_task("backup", kwargs={"database": name}, queue="backup", ignore_result=True)


def _watched(here: Fleet, targets: Targets, process: int, count: int) -> None:
    began = time.monotonic()
    with Watch(process, lambda: here.count(OVER), here.messages) as watch:
        watch.until(count // 3, PATIENCE * count)
        first, again = apart(guard_passes)
        watch.until(count, PATIENCE * count)
    seconds = time.monotonic() - began
    targets.note("all over after", f"{seconds:.0f} s, {count / seconds:.1f} backups a second")
    print_samples(watch)
    middle, end = watch.at(0.5), watch.samples[-1]
    targets.check("worker's memory, at the end against the middle", end.parent / middle.parent, GROWTH)
    targets.check("a child's memory, at the end against the middle", end.child / middle.child, GROWTH)
    # Beat's own guard, and the tidying that each of them asks for, come on top.
    most = max(sample.messages for sample in watch.samples)
    targets.check("messages in all queues, at most", most, count + 5)
    targets.check("guard, a pass beside the flood: CPU", max(first, again), GUARD_SECONDS, " s")
    passes = [
        float(one) for one in re.findall(r"Task guard\[.*?\] succeeded in ([\d.e-]+)s", here.log("worker"))
    ]
    targets.check("minutes without a guard", max(int(seconds // 60) - len(passes), 0), 1)
    if passes:
        targets.note(
            f"guard's {len(passes)} passes in the worker, on the clock",
            f"{median(passes):.2f} s in the median, {max(passes):.2f} s at most",
        )


def _all_stored_once(here: Fleet, targets: Targets, names: list[str], trigger: str = "schedule") -> None:
    count = len(names)
    targets.equal("runs", here.count("SELECT count(*) FROM runs"), count)
    targets.equal("of them stored", here.count(STORED), count)
    targets.equal(
        "databases",
        here.count(f"SELECT count(DISTINCT database) FROM runs WHERE trigger = '{trigger}'"),
        count,
    )
    kept = Counter(
        path.parent.name
        for path in (here.folder / "backups").glob("*/*")
        if path.name.endswith(MANIFEST_SUFFIX)
    )
    targets.equal("databases with one manifest in the store", sum(n == 1 for n in kept.values()), count)
    extra = here.count("SELECT count(*) FROM steps WHERE attempts > 1 AND name <> 'dump'")
    targets.equal("steps that were begun twice", extra, 0)


def _out_of_order(here: Fleet) -> int:
    """By how many places a dump began later than its run's turn, at most."""
    query = "SELECT run FROM steps JOIN runs ON runs.id = steps.run WHERE steps.name = 'dump' ORDER BY "
    turns = {run: place for place, (run,) in enumerate(here.ask(query + "runs.created"))}
    starts = [run for (run,) in here.ask(query + "steps.started")]
    return max(place - turns[run] for place, run in enumerate(starts))


class _Dumps:
    """Looks how many databases of a server are being dumped, until it is over."""

    def __init__(self, cluster: Cluster) -> None:
        self.most = 0
        self._cluster = cluster
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="dumps", daemon=True)

    def __enter__(self) -> _Dumps:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        query = "SELECT count(DISTINCT datname) FROM pg_stat_activity WHERE datname ~ '^f[0-9]+$'"
        with psycopg.connect(self._cluster.socket_dsn("postgres"), autocommit=True) as connection:
            while not self._over.wait(LOOK_EVERY):
                found = connection.execute(query).fetchone()
                self.most = max(self.most, found[0] if found else 0)
