"""admission: a dump begins where its server, its host and its spool have room; others wait, and are sent in turn."""

from __future__ import annotations

from larder import databases
from larder.config import DatabaseSettings, Settings
from larder.errors import ExhaustedError, NotFoundError
from larder.ledger.admission import Room, Wait
from larder.ledger.runs import Run
from larder.progress import human_size
from larder.spool import Spool, free_bytes, run_folders
from tasks import chain, context

#: How much more a backup may need in the spool than the one before.
_MORE = 1.1


def room_for(run: Run) -> Room | None:
    """What this host has for the dump of `run`; None where its database has left the configuration."""
    settings = context.settings()
    try:
        database = settings.database(run.database)
    except NotFoundError:
        return None
    used = {
        folder.name: Spool(settings.spool_dir, folder.name).size for folder in run_folders(settings.spool_dir)
    }
    return Room(
        server=databases.server_in(database.url.get_secret_value()),
        per_server=settings.dumps_per_server,
        per_host=settings.dumps_per_host,
        needed=_needed(database),
        free=_free(settings, sum(used.values())),
        used=used,
    )


def see_that_it_fits(settings: Settings, run: Run, spool: Spool) -> None:
    """Raise `ExhaustedError` where the spool has no room for what the run's dump was admitted with."""
    needed = run.spooled
    if needed is None:
        return
    used = sum(Spool(settings.spool_dir, folder.name).size for folder in run_folders(settings.spool_dir))
    free = _free(settings, used - spool.size)
    if needed <= free:
        return
    limited = settings.spool_limit is not None and free < free_bytes(settings.spool_dir)
    raise ExhaustedError(
        f"unable to begin the dump of '{run.database}': the last one took {human_size(needed / _MORE)} in the spool, "
        f"and {human_size(free)} are left of {'spool_limit' if limited else f'the disk of {settings.spool_dir}'}: "
        f"{human_size(needed - free)} are missing",
        "raise spool_limit" if limited else "free some space there, or move the spool with LARDER_STATE_DIR",
    )


def send_next(run: Run) -> None:
    """Send a dump that has waited for this one to end; whoever is not sent now, the guard sends."""
    admission, settings = context.ledger().admission, context.settings()
    if not admission.anybody_waits():
        return
    if run.server is not None:
        free = settings.dumps_per_server - admission.serves(run.server)
        _send("server", run.server, free)
    _send("host", None, 1)
    _send("spool", None, 1)


def send_waiting() -> int:
    """Send the dumps that may begin now, whatever became of the message that should have done it; gives how many."""
    admission, settings = context.ledger().admission, context.settings()
    admission.hold()
    sent = sum(
        _send("server", server, settings.dumps_per_server - serves)
        for server, serves in admission.servers().items()
    )
    return sent + _send("host", None, settings.dumps_per_host or 1) + _send("spool", None, 1)


def _send(wait: Wait, server: str | None, count: int) -> int:
    admission = context.ledger().admission
    sent = 0
    for run in admission.waiting(wait, server, limit=max(count, 0)):
        if admission.release(run):
            chain.send(run)
            sent += 1
    return sent


def _needed(database: DatabaseSettings) -> int | None:
    before = context.ledger().admission.expected(database.name)
    return None if before is None else int(before * _MORE)


def _free(settings: Settings, used: int) -> int:
    free = free_bytes(settings.spool_dir)
    return free if settings.spool_limit is None else min(free, max(settings.spool_limit - used, 0))
