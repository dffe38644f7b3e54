"""What ends a step from outside: its time is up, or the process that it runs in is to end.

Celery says both by signals, and raises wherever the process happens to be: in the middle of a commit, or where an
`except Exception` takes it for something else. Here it is raised while a step does its own work, and nowhere else, and
nothing takes it for an error.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: What a worker sends to the processes of its pool when it ends and waits for them no longer.
LEAVE = signal.SIGUSR2

#: What Celery sends where a time limit has passed.
_TIME_IS_UP = signal.SIGUSR1

#: What Celery sends to a process whose task is to end at once; the second one where REMAP_SIGTERM says so.
_TERMINATE = (signal.SIGTERM, signal.SIGQUIT)


class Interrupted(BaseException):
    """A step is to end, and did nothing wrong."""


class TimeIsUp(Interrupted):
    """It took longer than its time limit."""


class Leaving(Interrupted):
    """Its worker ends, and has waited for it."""


class Terminated(Interrupted):
    """Its process is to end at once: a cold shutdown, or somebody has revoked it."""


class _Process:
    """What this process is at."""

    def __init__(self) -> None:
        #: Whether it hears what ends a step.
        self.listens = False
        #: Whether a step may be interrupted now.
        self.open = False
        #: Whether it has a step in hand.
        self.busy = False
        #: Whether its worker has said that it ends when there was nothing to interrupt.
        self.leaving = False


_process = _Process()


def listen() -> None:
    """Have this process of a pool hear what ends a step; to be called when it has its first task.

    Celery sets handlers of its own after everything that is called when such a process starts.
    """
    if _process.listens:
        return
    _process.listens = True
    signal.signal(_TIME_IS_UP, lambda *_: _interrupt(TimeIsUp))
    signal.signal(LEAVE, lambda *_: _leave())
    for number in _TERMINATE:
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, _terminate(before))


@contextmanager
def at_work() -> Iterator[None]:
    """A step is in hand: until it is committed or given back, this process does not end by itself."""
    _process.busy = True
    try:
        yield
    finally:
        _process.busy = False


@contextmanager
def interruptible(*, possible: bool = True) -> Iterator[None]:
    """For the length of the block an `Interrupted` may be raised: once, so that what cleans up after it can do so."""
    try:
        _process.open = possible
        if _process.leaving:
            _leave()
        yield
    finally:
        _process.open = False


def is_leaving() -> bool:
    """Whether the worker of this process ends, and could not interrupt what it is at."""
    return _process.leaving


def _interrupt(kind: type[Interrupted]) -> None:
    if _process.open:
        _process.open = False
        raise kind


def _leave() -> None:
    _process.leaving = not _process.open
    _interrupt(Leaving)


def _terminate(before: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        if not _process.busy:
            before(number, frame)
        _interrupt(Terminated)

    return handle
