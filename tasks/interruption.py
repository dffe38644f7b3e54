"""What ends a step from outside: its time is up, or the process that it runs in is to end.

Celery says both by signals, and raises wherever the process happens to be: in the middle of a commit, or where an
`except Exception` takes it for something else. Here it is raised while a step does its own work, and nowhere else, and
nothing takes it for an error. Where a program is being started or ended, it comes as soon as that is done; and where
Python throws it away, as it does with what is raised in a `__del__` or around a fork, it comes again.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from larder.process import WHOLE

#: What a worker sends to the processes of its pool when it ends and waits for them no longer.
LEAVE = signal.SIGUSR2

#: What Celery sends where a time limit has passed.
_TIME_IS_UP = signal.SIGUSR1

#: What Celery sends to a process whose task is to end at once; the second one where REMAP_SIGTERM says so.
_TERMINATE = (signal.SIGTERM, signal.SIGQUIT)

#: Seconds after which what could not be raised is tried again.
_AGAIN = 0.05


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
        #: What is to be raised in a moment.
        self.pending: type[Interrupted] | None = None
        #: What it was told when there was nothing to interrupt: `Leaving`, for good, or `Terminated`, for this step.
        self.told: type[Interrupted] | None = None


_process = _Process()


def listen() -> None:
    """Have this process of a pool hear what ends a step; to be called when it has its first task.

    Celery sets handlers of its own after everything that is called when such a process starts.
    """
    if _process.listens:
        return
    _process.listens = True
    signal.signal(_TIME_IS_UP, lambda _, frame: _interrupt(TimeIsUp, frame))
    signal.signal(LEAVE, lambda _, frame: _interrupt(Leaving, frame))
    signal.signal(signal.SIGALRM, lambda _, frame: _interrupt(_process.pending, frame))
    for number in _TERMINATE:
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, _terminate(before))
    sys.unraisablehook = _not_thrown_away(sys.unraisablehook)


@contextmanager
def at_work() -> Iterator[None]:
    """A step is in hand: until it is committed or given back, this process does not end by itself."""
    _process.busy = True
    try:
        yield
    finally:
        _process.busy = False
        if _process.told is Terminated:
            _process.told = None


@contextmanager
def interruptible(*, possible: bool = True) -> Iterator[None]:
    """For the length of the block an `Interrupted` may be raised: once, so that what cleans up after it can do so."""
    try:
        _process.open = possible
        _interrupt(_process.told, None)
        yield
    finally:
        _process.open = False
        if _process.pending:
            signal.setitimer(signal.ITIMER_REAL, 0)
            _interrupt(_process.pending, None)


def is_leaving() -> bool:
    """Whether this process is to end, or the step in hand, and what it is at could not be interrupted."""
    return _process.told is not None


def _interrupt(kind: type[Interrupted] | None, frame: FrameType | None) -> None:
    """Raise `kind` where a step may be interrupted, in a moment where that is in the midst of something; or note it."""
    if kind is None:
        return
    _process.pending = None
    if not _process.open:
        _note(kind)
    elif _is_whole(frame):
        _raise_later(kind)
    else:
        _process.open = False
        raise kind


def _note(kind: type[Interrupted]) -> None:
    if kind is Leaving or (kind is Terminated and _process.busy and _process.told is None):
        _process.told = kind


def _raise_later(kind: type[Interrupted]) -> None:
    _process.pending = kind
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)


def _is_whole(frame: FrameType | None) -> bool:
    """Whether what is being done must not be left half done."""
    while frame is not None:
        if frame.f_code in WHOLE:
            return True
        frame = frame.f_back
    return False


def _not_thrown_away(before: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Python's hook for what it throws away: an `Interrupted`, raised in a `__del__`, is raised again."""

    def hook(lost: Any) -> None:
        if isinstance(lost.exc_value, Interrupted):
            _process.open = True
            _raise_later(type(lost.exc_value))
        else:
            before(lost)

    return hook


def _terminate(before: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        if not _process.busy:
            before(number, frame)
        _interrupt(Terminated, frame)

    return handle
