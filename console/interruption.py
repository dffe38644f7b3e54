"""Ctrl-C and SIGTERM, as errors that unwind."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from larder.errors import InterruptedByOperator


def again(command: str, words: Iterable[str]) -> str:
    """The command as it was given: `larder backup shop`."""
    return shlex.join(["larder", command, *words])


@contextmanager
def interruptible(hint: str) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into an error that unwinds, so that everything that was started is ended."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise InterruptedByOperator(f"stopped by {signal.Signals(number).name}", hint)

    before: dict[int, Callable[..., Any] | int | None] = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
