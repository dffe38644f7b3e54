"""What goes on beside a step's work: its lease is renewed, and people see how far it is. Neither ever holds it up."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Self

import sqlalchemy as sa
from celery import Task

from larder.errors import LeaseLostError
from larder.ledger import Ledger
from larder.ledger.journal import Level, Unwritten
from larder.ledger.leases import TTL, Lease
from larder.progress import Report
from tasks import interruption

logger = logging.getLogger("larder.run")

#: Seconds that a commit waits for a ledger that is away. What was made is made; then the message is put off.
COMMIT_PATIENCE = 15 * 60

#: Seconds between two tries to commit.
_PAUSE = 5

#: Seconds between two looks at what goes on beside steps, and after how many with nothing to see nobody looks.
_LOOK_EVERY = 0.5
_IDLE_LOOKS = 20

#: Seconds after which a lease is renewed.
_RENEW_EVERY = TTL.total_seconds() / 4

#: Seconds that the end of a step waits for what is still being reported.
_LAST_WORDS = 2


class Lines:
    """What a step says to people, on its way into the journal: with its commit, or within half a second.

    A transaction for each line would be a third of what a small backup asks of the ledger. What is lost with a process
    that is killed was said less than a moment before, and is in the log.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._unwritten: list[Unwritten] = []
        # Held while they are being written, so that they stay in order.
        self._writing = threading.Lock()

    def add(self, run_id: str, level: Level, text: str) -> None:
        """Say a line. What a database cannot hold is spelled out."""
        text = text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
        self._unwritten.append(Unwritten(run_id, datetime.now(UTC), level, text))

    def write(self, *, wait: bool = True) -> None:
        """Have the journal hold what was said so far. A ledger that is away keeps nobody from working.

        Whoever does not `wait` leaves it to somebody who is at it.
        """
        if not self._unwritten or not self._writing.acquire(blocking=wait):
            return
        try:
            with suppress(sa.exc.OperationalError), self._all() as lines:
                if lines:
                    self._ledger.journal.write_all(lines)
        finally:
            self._writing.release()

    @contextmanager
    def committed(self) -> Iterator[Sequence[Unwritten]]:
        """What the block writes with something else. They stay where it raises."""
        with self._writing, self._all() as lines:
            yield lines

    @contextmanager
    def _all(self) -> Iterator[Sequence[Unwritten]]:
        lines = self._unwritten[:]
        yield lines
        del self._unwritten[: len(lines)]


class Keeper:
    """Renews a lease for as long as the block runs, and has the journal hold what is said meanwhile.

    A lease that is lost shows at the commit.
    """

    def __init__(self, ledger: Ledger, lease: Lease, lines: Lines) -> None:
        self._ledger = ledger
        self._lease = lease
        self._lines = lines
        self._due = time.monotonic() + _RENEW_EVERY
        self._busy = threading.Lock()
        self._over = False

    def __enter__(self) -> Self:
        _beside.add(self)
        return self

    def __exit__(self, *_: Any) -> None:
        self._over = True
        _beside.remove(self)
        # Where the ledger is away, whoever commits finds out.
        if self._busy.acquire(timeout=_LAST_WORDS):
            self._busy.release()

    def look(self) -> None:
        """See to what is due, unless it is over."""
        with self._busy:
            if self._over:
                return
            try:
                self._lines.write(wait=False)
                if time.monotonic() >= self._due:
                    self._due = time.monotonic() + _RENEW_EVERY
                    self._ledger.leases.renew(self._lease)
            except LeaseLostError:
                self._due = math.inf
            except Exception as error:  # noqa: BLE001 - it may be over before the lease runs out; the commit will tell
                logger.warning("unable to renew the lease of run %s: %s", self._lease.run, _said(error))


class _Beside:
    """The one thread of a process that looks after its steps: most are over before it has looked once.

    It ends when there has been nothing to do for a while, and a step begins it anew.
    """

    def __init__(self) -> None:
        self._keepers: list[Keeper] = []
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, keeper: Keeper) -> None:
        with self._lock:
            self._keepers.append(keeper)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, name="beside-steps", daemon=True)
                self._thread.start()

    def remove(self, keeper: Keeper) -> None:
        with self._lock:
            self._keepers.remove(keeper)

    def _look(self) -> None:
        idle = 0
        while True:
            time.sleep(_LOOK_EVERY)
            with self._lock:
                keepers = self._keepers[:]
                idle = 0 if keepers else idle + 1
                if idle > _IDLE_LOOKS:
                    self._thread = None
                    return
            for keeper in keepers:
                keeper.look()


_beside = _Beside()


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


def commit(ledger: Ledger, lease: Lease, lines: Lines, **what: Any) -> None:
    """`Leases.finish`, waiting for a ledger that is away; raises `LeaseLostError`, and what it raises in the end.

    A worker that ends does not wait: the next attempt finds what was made.
    """
    began = time.monotonic()
    while True:
        try:
            with lines.committed() as unwritten:
                ledger.leases.finish(lease, lines=unwritten, **what)
        except sa.exc.OperationalError as error:
            if time.monotonic() - began > COMMIT_PATIENCE or interruption.is_leaving():
                raise
            logger.warning("unable to commit step %s of run %s yet: %s", lease.step, lease.run, _said(error))
            time.sleep(_PAUSE)
        else:
            return


def _said(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip() or type(error).__name__
