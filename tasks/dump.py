"""dump: the database's own tool writes a consistent snapshot into the spool."""

from __future__ import annotations

from pathlib import Path

from larder.codecs import codec
from larder.databases import Dump, open_database
from larder.encoding import encoding_of
from tasks import context, telling
from tasks.admission import see_that_it_fits
from tasks.step import Work, step
from tasks.sweep import sweep

#: What a stream passes through on its way to the spool when its compression is too slow to run beside a dump.
LIGHT = codec("zstd", level=1)


@step("dump", "backup")
def dump(work: Work) -> None:
    """Write a snapshot of the database into the spool, with its fingerprint."""
    # Nobody else does where no guard runs, and the space is needed now.
    sweep()
    # A key that cannot be used shall not show after hours of dumping.
    context.signer()
    see_that_it_fits(work.settings, work.run, work.spool)
    work.pace()
    work.say(f"Starting database backup at {work.run.stamp}")
    if work.lease.tries == 1 and work.run.parent is None:
        for problem in telling.begun(work.settings, work.run):
            work.mention(problem)
    database = open_database(work.database, work.settings.state_dir)
    # Encryption comes with compress: what is in the spool till then is plain to whoever is this user or root.
    wanted = encoding_of(work.database).compression
    passing = wanted if wanted and wanted.light else LIGHT

    def make(folder: Path) -> Dump:
        return database.dump(folder, passing, work.progress, work.say)

    made = work.spool.once("dump", work.lease.attempt, Dump, make)
    for warning in made.warnings:
        work.warn(warning)
