"""Many small databases: Larder's worker with two processes, and the user's script run by `xargs -P2`."""

from __future__ import annotations

import shutil
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery import Celery

from benchmarks.contestants import Contestant, Taken, compete
from benchmarks.data import (
    Contents,
    fill_postgres_small,
    postgres_contents,
    process_of,
    sqlite_contents,
)
from benchmarks.fleet_parts import Fleet, fleet, small_databases
from benchmarks.part_backup import artifact, decoded
from benchmarks.peers import SCRATCH, USER_SCRIPT, compare, environment
from benchmarks.running import Failed, Place
from benchmarks.stage import Stage
from benchmarks.watching import Watch, size_of
from tests.processes import eventually
from tests.servers import Cluster, started

#: Seconds that one backup may take before the fleet counts as stuck.
PATIENCE = 10.0

#: Backups that are not counted: both of a worker's processes load what they need.
WARM_UP = 4

#: One turn of the script: `$1` is the database. Each has a folder, since two in one second would have one name.
TURN = 'BACKUP_DIR="by-script/$1" DATABASE_URL="$2$1$3" exec "$4"'


def run(stage: Stage, options: Namespace) -> dict[str, Any]:
    """SQLite databases, PostgreSQL databases, and what one costs in fleets of several sizes."""
    found: dict[str, Any] = {"contestants": [], "skipped": []}
    for document in (
        _sqlite(stage, options.fleet_sqlite, options.rounds),
        _postgres(stage, options.fleet_postgres, options.rounds, options.postgres),
    ):
        found["contestants"] += document["contestants"]
        found["skipped"] += document["skipped"]
    return {
        "settings": {
            "sqlite": options.fleet_sqlite,
            "postgres": options.fleet_postgres,
            "rounds": options.rounds,
        },
        **found,
        "scales": [_scale(stage, count) for count in options.scales],
    }


def _sqlite(stage: Stage, count: int, rounds: int) -> dict[str, Any]:
    with fleet(stage.folder) as here:
        names = small_databases(here.folder / "data", count, 1_000_000)
        expected = sqlite_contents(here.folder / "data" / f"{names[0]}.db")

        def check(place: Place, made: Path) -> None:
            decoded(place, made, expected)

        here.configure("\n".join(f'[databases.{name}]\nurl = "sqlite:///data/{name}.db"\n' for name in names))
        place = Place(stage.folder, {**stage.environment, "HOME": str(here.folder)})
        parts = (f"sqlite:///{here.folder}/data/", ".db")
        everybody = [
            Script(f"sqlite-{Script.kind}", names, parts, check),
            Worker("sqlite-larder", here, names, check),
        ]
        return compete(stage.chosen(everybody), rounds, place, stage.say)


def _postgres(stage: Stage, count: int, rounds: int, version: int) -> dict[str, Any]:
    cluster = started(version, as_it_comes=True)
    try:
        names = [f"p{number:04}" for number in range(count)]
        fill_postgres_small(cluster, names)
        expected = postgres_contents(cluster, names[0])

        def check(place: Place, made: Path) -> None:
            _into_scratch(cluster, place, made, expected)

        with fleet(stage.folder, BENCH_URL=cluster.url(names[0])) as here:
            here.configure(f'postgres_bin = ["{cluster.bin}"]\n' + "\n".join(
                f'[databases.{name}]\nurl = "{cluster.url(name)}"\n' for name in names
            ))  # fmt: skip
            place = Place(stage.folder, environment(cluster, names[0]), process_of(cluster))
            parts = (place.environment["DATABASE_URL"].removesuffix(names[0]), "")
            everybody = [
                Script(f"postgres-{Script.kind}", names, parts, check),
                Worker("postgres-larder", here, names, check),
            ]
            return compete(stage.chosen(everybody), rounds, place, stage.say)
    finally:
        cluster.remove()


def _into_scratch(cluster: Cluster, place: Place, made: Path, expected: Contents) -> None:
    with cluster.database(SCRATCH):
        here = replace(place, environment={**place.environment, "PGDATABASE": SCRATCH})
        here.shell('gunzip -c "$1" | psql -q -v ON_ERROR_STOP=1', made)
        compare(cluster, SCRATCH, expected)


def _scale(stage: Stage, count: int) -> dict[str, Any]:
    """What Larder takes for `count` databases of 50 kB."""
    with fleet(stage.folder) as here:
        names = small_databases(here.folder / "data", count)
        here.configure("\n".join(f'[databases.{name}]\nurl = "sqlite:///data/{name}.db"\n' for name in names))
        with here.worker(2):
            _send(here, names[:WARM_UP])
            seconds = _send(here, names)
    stage.say(f"{count:,} databases of 50 kB: {seconds:.2f} s, {seconds / count * 1000:.0f} ms each")
    return {"databases": count, "seconds": round(seconds, 3)}


class OfFleet(Contestant):
    """Each database once; the first, the middle and the last one's results are brought back."""

    def __init__(self, key: str, names: Sequence[str], check: Any) -> None:
        self.key = key
        self.names = names
        self._check = check

    def check(self, place: Place) -> None:
        for name in {self.names[0], self.names[len(self.names) // 2], self.names[-1]}:
            self._check(place, artifact(self.folder_of(place, name)))

    def folder_of(self, place: Place, name: str) -> Path:
        """Where the backups of a database lie."""
        raise NotImplementedError


class Script(OfFleet):
    label, kind = "the user's script, xargs -P2", "script"
    programs = ("xargs", "gzip", "sha256sum")

    def __init__(self, key: str, names: Sequence[str], parts: tuple[str, str], check: Any) -> None:
        super().__init__(key, names, check)
        self.parts = parts

    def run(self, place: Place) -> Taken:
        (place.folder / "names").write_text("\n".join(self.names) + "\n")
        first, last = self.parts
        line = f"xargs -a names -P2 -I NAME bash -euc '{TURN}' bash NAME '{first}' '{last}' \"$1\""
        done = place.shell(line, USER_SCRIPT)
        made = list(place.folder.glob("by-script/*/*.sha256"))
        if len(made) != len(self.names):
            raise Failed(f"{len(made)} of {len(self.names)} were made")
        return Taken.of(done, size_of(place.folder / "by-script"))

    def folder_of(self, place: Place, name: str) -> Path:
        return place.folder / "by-script" / name


class Worker(OfFleet):
    """A worker that is there already, as a service is; from the first message to the end of the last chain."""

    label, kind = "Larder, one worker, 2 processes", "larder"

    def __init__(self, key: str, here: Fleet, names: Sequence[str], check: Any) -> None:
        super().__init__(key, names, check)
        self.here = here

    def run(self, place: Place) -> Taken:
        with self.here.worker(2) as process:
            _send(self.here, self.names[:WARM_UP])
            with _watching(process, place) as watch:
                seconds = _send(self.here, self.names)
        return Taken(seconds, size_of(self.here.folder / "backups"), watch=watch)

    def folder_of(self, place: Place, name: str) -> Path:  # noqa: ARG002 - the script needs it
        return self.here.folder / "backups" / name

    def tidy(self) -> None:
        shutil.rmtree(self.here.folder / "backups", ignore_errors=True)
        shutil.rmtree(self.here.state)
        self.here.state.mkdir(mode=0o700)
        (self.here.folder / "worker.log").unlink(missing_ok=True)


@contextmanager
def _watching(process: int, place: Place) -> Iterator[Watch | None]:
    if not place.watched:
        yield None
        return
    with Watch(process, place.server) as watch:
        yield watch


def _send(here: Fleet, names: Sequence[str]) -> float:
    """Send one message a database, and wait until all are over; seconds, to the end of the last one in the ledger."""
    before = here.count("SELECT count(*) FROM runs") if (here.state / "ledger.sqlite3").exists() else 0
    with Celery(broker=here.redis_url) as app:
        began = time.time()
        for name in names:
            app.send_task("backup", kwargs={"database": name}, queue="backup", ignore_result=True)
    deadline = time.monotonic() + PATIENCE * (len(names) + 3)
    over = "SELECT count(*) FROM runs WHERE state IN ('stored', 'failed')"
    while time.monotonic() < deadline:
        if eventually(lambda: (here.state / "ledger.sqlite3").exists()) and here.count(over) - before >= len(
            names
        ):
            break
        time.sleep(0.2)
    if here.count("SELECT count(*) FROM runs WHERE state = 'stored'") - before != len(names):
        raise Failed(f"not all of {len(names)} databases were stored:\n{here.log('worker')[-1500:]}")
    return float(here.ask("SELECT (julianday(max(finished)) - 2440587.5) * 86400 FROM runs")[0][0]) - began
