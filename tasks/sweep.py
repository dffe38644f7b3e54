"""sweep: what runs that are over have left in this host's spool goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from larder.errors import NotFoundError
from larder.ledger import Ledger
from larder.spool import Spool, run_folders
from tasks import context

#: Seconds after which a folder in the spool that no known run has is nobody's.
STRAY = 86400


def sweep() -> None:
    """Remove what runs that are over have left in this spool: their workers were killed.

    A folder of a run that this ledger does not know may be another ledger's, and in use: it goes once nothing in it has
    changed for a day.
    """
    ledger, spool_dir = context.ledger(), context.settings().spool_dir
    for folder in run_folders(spool_dir):
        if _is_over(ledger, folder):
            Spool(spool_dir, folder.name).remove()


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
