"""Workers that die at a chosen moment of a chosen step, as if the machine had: `celery -A tests.faults.deadly worker`.

LARDER_TEST_KILL says when: `swap:taken` (its lease is taken), `swap:done` (its work is done, and nothing is committed),
`swap:committed` (and the next link is not sent), or `after:1.5` (so many seconds after the first lease was taken). It
happens once: LARDER_TEST_KILLED names the file that remembers it.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from larder.ledger.leases import Lease, Leases
from workers.celery import app

__all__ = ["app"]

STEP, _, MOMENT = os.environ["LARDER_TEST_KILL"].partition(":")

_take, _finish = Leases.take, Leases.finish


def _die() -> None:
    try:
        os.close(os.open(os.environ["LARDER_TEST_KILLED"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    # The pool's process first, or it would notice that its parent is gone, and end in good order.
    parent = os.getppid()
    os.kill(parent, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _take_and_die(self: Leases, run_id: str, step: str, *more: Any, **options: Any) -> Any:
    found = _take(self, run_id, step, *more, **options)
    if isinstance(found, Lease):
        if (step, "taken") == (STEP, MOMENT):
            _die()
        if STEP == "after" and not any(thread.name == "deadly" for thread in threading.enumerate()):
            timer = threading.Timer(float(MOMENT), _die)
            timer.name, timer.daemon = "deadly", True
            timer.start()
    return found


def _finish_and_die(self: Leases, lease: Lease, **options: Any) -> None:
    if (lease.step, "done") == (STEP, MOMENT):
        _die()
    _finish(self, lease, **options)
    if (lease.step, "committed") == (STEP, MOMENT):
        _die()


Leases.take = _take_and_die  # type: ignore[method-assign]
Leases.finish = _finish_and_die  # type: ignore[method-assign]
