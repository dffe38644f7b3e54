"""How drills end: nothing that they have built stays, and none stays open."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from larder.config import DatabaseSettings
from larder.databases import open_scratch
from larder.drilling import Scratch
from larder.errors import BusyError, LarderError, NotFoundError
from larder.ledger.leases import LAST_STEP
from larder.ledger.runs import Run
from larder.spool import Spool, run_folders
from tasks import context, drill
from tasks.closing import SCRATCH
from tasks.step import logger

#: In the folder of a drill, as old as the last complaint about it, and how many seconds there are between two.
_COMPLAINED: Final = "complained"
_COMPLAIN_EVERY: Final = 3600


def scratch_for(run: Run) -> Scratch:
    """Where the drill that `run` is restores into; its folder in the spool need not be there.

    Raises `NotFoundError` where the database has left the configuration.
    """
    return _scratch(run, context.settings().database(run.database))


def _scratch(run: Run, database: DatabaseSettings) -> Scratch:
    ledger = context.ledger()
    backup = ledger.backups.get(ledger.drills.get(run.id).backup)
    engine = backup.engine if backup else database.engine
    return open_scratch(
        database, engine, run.id, Spool(context.settings().spool_dir, run.id).folder / SCRATCH
    )


def settle() -> None:
    """Close drills that people were told of, and that nobody has closed: somebody has sent that link by itself."""
    ledger = context.ledger()
    for open_drill in ledger.drills.unclosed():
        run = ledger.runs.get(open_drill.run)
        if run.over and run.step_named(LAST_STEP).state in ("done", "failed"):
            ledger.drills.close(run)


def clear_up() -> None:
    """Remove what drills that are over have left on this host: a folder in the spool says that there may be some."""
    ledger, spool_dir = context.ledger(), context.settings().spool_dir
    for folder in run_folders(spool_dir):
        try:
            run = ledger.runs.get(folder.name) if folder.name.isascii() else None
        except NotFoundError:
            continue
        if run is None or run.kind != "drill" or not run.over:
            continue
        database = context.settings().databases.get(run.database) or _unknown(run.database)
        try:
            _scratch(run, database).drop()
        except LarderError as error:
            _complain(folder, run, error)
            continue
        Spool(spool_dir, run.id).remove()
        logger.info("drill %s is over, and nothing of it is left", run.id)


def _complain(folder: Path, run: Run, error: LarderError) -> None:
    """Log what is left and why, not again with each pass of the guard: only somebody who comes may be able to help."""
    said = folder / _COMPLAINED
    with contextlib.suppress(OSError):
        if time.time() - said.stat().st_mtime < _COMPLAIN_EVERY:
            return
    with contextlib.suppress(OSError):
        said.touch()
    logger.error("what drill %s has left could not be removed: %s (%s)", run.id, error.message, error.hint)


def _unknown(name: str) -> DatabaseSettings:
    """Settings of a database that has left the configuration; where its drills have built, they have noted."""
    return DatabaseSettings(url=SecretStr("postgresql:///")).model_copy(update={"name": name})


def begin_due() -> None:
    """Begin the drills of databases that have been backed up `drill_every` times since their last one."""
    wanted = {
        name: database.drill_every
        for name, database in context.settings().databases.items()
        if database.drill_every is not None
    }
    since = context.ledger().standings.undrilled() if wanted else {}
    for name, every in wanted.items():
        if since.get(name, 0) < every:
            continue
        try:
            drill.start_one_of(name, drill.EVERY)
        except BusyError:
            continue
        except LarderError as error:
            logger.error("unable to begin the drill of '%s': %s", name, error.message)
