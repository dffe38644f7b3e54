"""dump: the database's own tool writes a consistent snapshot into the spool."""

from __future__ import annotations

from pathlib import Path

from larder.codecs import codec
from larder.databases import Dump, open_database
from larder.spool import Spool, run_folders
from tasks.step import Work, step

#: What a stream passes through on its way to the spool when its archive encoding is too slow to run beside a dump.
LIGHT = "zstd"


@step("dump")
def dump(work: Work) -> None:
    """Write a snapshot of the database into the spool, with its fingerprint."""
    _sweep(work)
    work.say(f"Starting database backup at {work.run.stamp}")
    database = open_database(work.database, work.settings.state_dir)
    wanted = codec(work.database.compression)
    passing = wanted if wanted.light and wanted.suffix else codec(LIGHT)

    def make(folder: Path) -> Dump:
        return database.dump(folder, passing, work.progress, work.say)

    made = work.spool.once("dump", work.lease.attempt, Dump, make)
    for warning in made.warnings:
        work.warn(warning)


def _sweep(work: Work) -> None:
    """Remove what runs that are over have left in this spool: their workers were killed."""
    folders = {path.name: path for path in run_folders(work.settings.spool_dir)}
    for run_id in work.ledger.runs.over(folders):
        Spool(work.settings.spool_dir, run_id).remove()
