"""dump: the database's own tool writes a consistent snapshot into the spool."""

from __future__ import annotations

import os
import time
from pathlib import Path

from larder.codecs import codec
from larder.databases import Dump, open_database
from larder.encoding import encoding_of
from larder.errors import NotFoundError
from larder.ledger import Ledger
from larder.spool import Spool, run_folders
from tasks import context
from tasks.step import Work, step

#: Seconds after which a folder in the spool that no known run has is nobody's.
STRAY = 86400

#: What a stream passes through on its way to the spool when its compression is too slow to run beside a dump.
LIGHT = codec("zstd", level=1)


@step("dump", "backup")
def dump(work: Work) -> None:
    """Write a snapshot of the database into the spool, with its fingerprint."""
    _sweep(work)
    # A key that cannot be used shall not show after hours of dumping.
    context.signer()
    work.say(f"Starting database backup at {work.run.stamp}")
    database = open_database(work.database, work.settings.state_dir)
    # Encryption comes with compress: what is in the spool till then is plain to whoever is this user or root.
    wanted = encoding_of(work.database).compression
    passing = wanted if wanted and wanted.light else LIGHT

    def make(folder: Path) -> Dump:
        return database.dump(folder, passing, work.progress, work.say)

    made = work.spool.once("dump", work.lease.attempt, Dump, make)
    for warning in made.warnings:
        work.warn(warning)


def _sweep(work: Work) -> None:
    """Remove what runs that are over have left in this spool: their workers were killed.

    A folder of a run that this ledger does not know may be another ledger's, and in use: it goes once nothing in it has
    changed for a day.
    """
    for folder in run_folders(work.settings.spool_dir):
        if _is_over(work.ledger, folder):
            Spool(work.settings.spool_dir, folder.name).remove()


def _is_over(ledger: Ledger, folder: Path) -> bool:
    try:
        # The id of a run is plain; another name would be one that no ledger can be asked for.
        if folder.name.isascii():
            run = ledger.runs.get(folder.name)
            if run.kind == "drill":
                # It tells the guard that there may be a scratch database to be removed.
                return False
            if run.kind == "backup" or not run.over:
                return run.over
            # What a restore notes there may still have to tell of its exchange.
            request = ledger.requests.of_run(run.id)
            return request.state != "running" and not request.swapping
    except NotFoundError:
        pass
    return time.time() - _last_change(folder) > STRAY


def _last_change(folder: Path) -> float:
    """When anything in `folder` was changed last, as seconds since 1970. What goes meanwhile counts as long ago."""
    found = [_changed(folder)]
    for below, folders, files in os.walk(folder):
        found += [_changed(Path(below, name)) for name in (*folders, *files)]
    return max(found)


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0
