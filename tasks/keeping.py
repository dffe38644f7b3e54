"""What goes on beside a step's work: its lease is renewed, and people see how far it is. Neither ever holds it up."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Any, Self

import sqlalchemy as sa
from celery import Task

from larder.errors import LeaseLostError
from larder.ledger import Ledger
from larder.ledger.leases import TTL, Lease
from larder.progress import Report
from tasks import interruption

logger = logging.getLogger("larder.run")

#: Seconds that a commit waits for a ledger that is away. What was made is made; then the message is put off.
COMMIT_PATIENCE = 15 * 60

#: Seconds between two tries to commit.
_PAUSE = 5

#: Seconds that the end of a step waits for what is still being reported.
_LAST_WORDS = 2


class Keeper:
    """Renews a lease for as long as the block runs. A lease that is lost shows at the commit."""

    def __init__(self, ledger: Ledger, lease: Lease) -> None:
        self._ledger = ledger
        self._lease = lease
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{lease.run}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join(_LAST_WORDS)

    def _keep(self) -> None:
        while not self._over.wait(TTL.total_seconds() / 4):
            try:
                self._ledger.leases.renew(self._lease)
            except LeaseLostError:
                return
            except Exception as error:  # noqa: BLE001 - it may be over before the lease runs out; the commit will tell
                logger.warning("unable to renew the lease of run %s: %s", self._lease.run, _said(error))


class Reporter:
    """Tells the ledger and Flower how far a step is, from a thread of its own: both may be slow, or away."""

    def __init__(self, task: Task, ledger: Ledger, lease: Lease) -> None:
        self._task = task
        # Celery knows a task's request in the thread that carries it out only.
        self._request = task.request
        self._ledger = ledger
        self._lease = lease
        self._latest: Report | None = None
        self._news = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._tell, name=f"progress-{lease.run}", daemon=True)

    def report(self, report: Report) -> None:
        """Tell of `report`, unless a later one comes first."""
        self._latest = report
        self._news.set()
        if not self._thread.is_alive() and not self._over:
            self._thread.start()

    def end(self) -> None:
        """Tell of nothing more."""
        self._over = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_WORDS)

    def _tell(self) -> None:
        self._task.request_stack.push(self._request)
        while True:
            self._news.wait()
            self._news.clear()
            if self._over:
                return
            # Progress never fails a step.
            with suppress(Exception):
                self._ledger.leases.report(self._lease, str(self._latest))
            with suppress(Exception):
                self._task.send_event("task-progress", retry=False, result=str(self._latest))


def commit(ledger: Ledger, lease: Lease, **what: Any) -> None:
    """`Leases.finish`, waiting for a ledger that is away; raises `LeaseLostError`, and what it raises in the end.

    A worker that ends does not wait: the next attempt finds what was made.
    """
    began = time.monotonic()
    while True:
        try:
            ledger.leases.finish(lease, **what)
        except sa.exc.OperationalError as error:
            if time.monotonic() - began > COMMIT_PATIENCE or interruption.is_leaving():
                raise
            logger.warning("unable to commit step %s of run %s yet: %s", lease.step, lease.run, _said(error))
            time.sleep(_PAUSE)
        else:
            return


def _said(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip() or type(error).__name__
