"""Ten thousand databases that nobody works on just now: what configuration, beat, guard and commands take."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import sqlalchemy as sa

from benchmarks.fleet_parts import GUARD_SECONDS, Fleet, Targets, apart, fleet, guard_passes
from larder import config
from larder.ledger import schema, tables
from larder.ledger.runs import BACKUP_STEPS
from larder.naming import stamp_of
from tests.processes import eventually

#: Seconds of CPU, and the part of a core, that each may take.
LOAD_SECONDS, BEAT_SHARE = 5.0, 0.02

#: How many backups of each database the ledger has.
BACKUPS = 30

#: Seconds of beat's life that are measured.
BEAT_SECONDS = 120


def idle(count: int, targets: Targets) -> None:
    """Measure `count` configured databases, each with `BACKUPS` backups in the ledger."""
    print(f"\nidle: {count:,} configured databases, {BACKUPS} backups of each in the ledger")
    with fleet() as here:
        here.configure("\n".join(_table(number) for number in range(count)))
        os.environ.update(here.environment)
        loaded = apart(_load)
        targets.check("configuration, loaded: CPU", loaded["cpu"], LOAD_SECONDS, " s")
        targets.note("configuration, in memory", f"{loaded['memory'] / 1e6:.0f} MB")
        with _beat(here, targets):
            began = time.monotonic()
            build(here, count)
            size = (here.state / "ledger.sqlite3").stat().st_size
            targets.note(f"ledger, built in {time.monotonic() - began:.0f} s", f"{size / 1e6:.0f} MB")
        first, again = apart(guard_passes)
        targets.note("guard, a process's first pass: CPU", f"{first:.2f} s")
        targets.check("guard, a pass: CPU", again, GUARD_SECONDS, " s")
        for command in (("status", "--json"), ("list", "d00000")):
            _command(here, targets, *command)


def _table(number: int) -> str:
    """One database of many: on one of a hundred servers, once a day."""
    return (
        f"[databases.d{number:05}]\n"
        f'url = "postgresql://backup:pw-{number:06}@db{number % 100}.example/d{number:05}"\n'
        f'schedule = "{number % 60} {number // 60 % 24} * * *"\n'
        + ('drill = "0 12 * * 0"\n' if number % 10 == 0 else "")
        + ("drill_every = 7\n" if number % 10 == 1 else "")
    )


def _load() -> dict[str, float]:
    before, began = psutil.Process().memory_info().rss, time.process_time()
    settings = config.load()
    found = {"cpu": time.process_time() - began, "memory": psutil.Process().memory_info().rss - before}
    assert settings.databases
    return found


@contextmanager
def _beat(here: Fleet, targets: Targets) -> Iterator[None]:
    """Measure a beat while the block runs, and for `BEAT_SECONDS` at least."""
    with here.celery("beat", name="beat") as process:
        beat = psutil.Process(process)
        eventually(lambda: "Scheduler: Sending due task" in here.log("beat"))
        start = _cpu(beat)
        began = time.monotonic()
        yield
        time.sleep(max(0, BEAT_SECONDS - (time.monotonic() - began)))
        seconds, took = time.monotonic() - began, _cpu(beat) - start
        targets.note("beat, until its first message: CPU", f"{start:.2f} s")
        targets.check(f"beat, of a core, for {seconds:.0f} s", took / seconds, BEAT_SHARE)
        sent = here.log("beat").count("Scheduler: Sending due task")
        targets.note("beat, messages sent meanwhile", sent)
        targets.note("beat, memory", f"{beat.memory_info().rss / 1e6:.0f} MB")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def build(here: Fleet, count: int, backups: int = BACKUPS) -> None:
    """Fill the ledger as `count` databases would have, of which each was backed up once a day, and drilled lately."""
    engine = schema.open_engine(f"sqlite:///{here.state / 'ledger.sqlite3'}")
    now = datetime.now(UTC)
    names = sa.Table("fleet_names", sa.MetaData(), sa.Column("name", sa.String), prefixes=["TEMPORARY"])
    days = sa.Table(
        "fleet_days", sa.MetaData(), sa.Column("stamp", sa.String), sa.Column("created", tables.Moment),
        prefixes=["TEMPORARY"],
    )  # fmt: skip
    links = sa.Table(
        "fleet_links", sa.MetaData(), sa.Column("name", sa.String), sa.Column("store", sa.String),
        sa.Column("position", sa.Integer), prefixes=["TEMPORARY"],
    )  # fmt: skip
    created = [now - timedelta(days=day, hours=1) for day in range(backups)]
    with engine.begin() as connection:
        for table in (names, days, links):
            table.create(connection)
        connection.execute(names.insert(), [{"name": f"d{number:05}"} for number in range(count)])
        connection.execute(days.insert(), [{"stamp": stamp_of(one), "created": one} for one in created])
        steps = [(name, "local" if name == "upload" else "") for name in BACKUP_STEPS]
        connection.execute(
            links.insert(),
            [{"name": name, "store": store, "position": at} for at, (name, store) in enumerate(steps)],
        )
        run, moment = names.c.name + "." + days.c.stamp, days.c.created
        every = sa.join(names, days, sa.true())
        _fill(connection, tables.runs, every, id=run, kind="backup", database=names.c.name, stamp=days.c.stamp,
              holds=names.c.name, trigger="schedule", slot=moment, state="stored", step="notify", attempt=6,
              host="here-000000", lease_until=moment, created=moment, finished=moment, warnings=sa.text("'[]'"),
              artifact="backup_postgres_" + days.c.stamp + ".sql.gz", server="db.example:5432",
              spooled=50_000)  # fmt: skip
        _fill(connection, tables.steps, sa.join(every, links, sa.true()), run=run, name=links.c.name,
              store=links.c.store, position=links.c.position, state="done", attempts=1, started=moment,
              finished=moment, seconds=1.5)  # fmt: skip
        backup = names.c.name + "/" + days.c.stamp
        artifact = "backup_postgres_" + days.c.stamp + ".sql.gz"
        _fill(connection, tables.backups, every, id=backup, database=names.c.name, run=run, engine="postgres",
              created=moment, artifact=artifact, size=50_000, sha256="0" * 64, raw_size=200_000, manifest="0" * 64,
              proof=sa.case((moment < now - timedelta(days=3), "proven"), else_="stored"), pinned=False)  # fmt: skip
        _fill(connection, tables.copies, every, backup=backup, store="local", key=names.c.name + "/" + artifact,
              verified=moment)  # fmt: skip
        for line in range(12):
            _fill(connection, tables.lines, every, run=run, moment=moment, level="INFO",
                  text=f"Line {line} of a backup: " + artifact)  # fmt: skip
        weekly = sa.and_(
            days.c.stamp.in_([stamp_of(one) for one in created[3::7]]),
            sa.or_(names.c.name.like("%0"), names.c.name.like("%1")),
        )
        drill = names.c.name + ".d." + days.c.stamp
        _fill(connection, tables.runs, every, weekly, id=drill, kind="drill", database=names.c.name,
              stamp=days.c.stamp + "d", holds="drill " + names.c.name, trigger="schedule", state="done",
              attempt=6, lease_until=moment, created=moment, finished=moment,
              warnings=sa.text("'[]'"))  # fmt: skip
        _fill(connection, tables.drills, every, weekly, run=drill, backup=backup, database=names.c.name,
              trigger="schedule", store="local", created=moment, finished=moment, outcome="proven",
              recovery_seconds=12.5)  # fmt: skip
    engine.dispose()


def _fill(
    connection: sa.Connection, table: sa.Table, source: Any, *wanted: sa.ColumnElement[bool], **values: Any
) -> None:
    """One row for each of `source`: columns of it, and what is the same in all."""
    chosen = []
    for key, value in values.items():
        known = isinstance(value, sa.ColumnElement | sa.TextClause)
        chosen.append(value if known else sa.literal(value, table.c[key].type))
    query = sa.select(*chosen).select_from(source).where(*wanted)
    connection.execute(table.insert().from_select(list(values), query, include_defaults=False))


def _command(here: Fleet, targets: Targets, *arguments: str) -> None:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", "from console.cli import main; main()", *arguments],
        env=here.environment, cwd=here.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    targets.note(
        f"larder {' '.join(arguments)}: CPU",
        f"{took:.1f} s ({time.monotonic() - began:.1f} s on the clock, exit {done.returncode})",
    )
