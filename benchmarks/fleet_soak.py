"""A long life: backups of one small database through one worker, one after the other, and what grows meanwhile."""

from __future__ import annotations

from celery import Celery

from benchmarks.fleet_flood import OVER, STORED
from benchmarks.fleet_parts import Targets, Watch, fleet, print_samples, small_databases
from larder.ledger import tables
from tests.processes import eventually

#: How much larger a process may be at the end than after its first tenth.
GROWTH = 1.10

#: Open files and threads more in the last tenth than in the first.
MORE = 0


def soak(count: int, targets: Targets) -> None:
    """Make `count` backups of one SQLite database with one worker of two processes."""
    print(
        f"\nsoak: {count:,} backups of one SQLite database of 50 kB, one after the other; one worker with 2 processes"
    )
    with fleet() as here:
        small_databases(here.folder / "data", 1)
        here.configure(
            '[databases.small]\nurl = "sqlite:///data/d00000.db"\nschedule = "0 0 1 1 *"\n[databases.small.retention]\n'
            "keep_last = 20\n"
        )
        with here.worker(2) as process, Celery(broker=here.redis_url) as app:
            with Watch(process, lambda: here.count(OVER), here.messages) as watch:
                for number in range(count):
                    app.send_task("backup", kwargs={"database": "small"}, queue="backup", ignore_result=True)
                    try:
                        eventually(lambda done=number: here.count(OVER) > done)
                    except AssertionError:
                        print(f"  backup {number + 1:,} does not end; the worker's last lines:")
                        print("\n".join(here.log("worker").splitlines()[-40:]))
                        raise
                watch.until(count, 30)
            first = here.size()
            print_samples(watch)
        targets.equal("stored", here.count(STORED), count)
        early, end = watch.at(0.1), watch.samples[-1]
        targets.check(
            "worker's memory, at the end against the first tenth", end.parent / early.parent, GROWTH
        )
        targets.check("a child's memory, at the end against the first tenth", end.child / early.child, GROWTH)
        (files, threads), (files_then, threads_then) = watch.at_rest(0, 0.1), watch.at_rest(0.9, 1)
        targets.check(
            "open files at rest, in the last tenth more than in the first", files_then - files, MORE
        )
        targets.check(
            "threads at rest, in the last tenth more than in the first", threads_then - threads, MORE
        )
        targets.note("ledger", f"{first / 1e6:.1f} MB, {first / count / 1e3:.1f} kB a backup")
        rows = ", ".join(
            f"{here.count(f'SELECT count(*) FROM {name}') / count:.1f} {name}"
            for name in (table.name for table in tables.metadata.sorted_tables)
            if here.count(f"SELECT count(*) FROM {name}") >= count
        )
        targets.note("its rows for each backup", rows)
