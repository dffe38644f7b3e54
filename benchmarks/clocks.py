"""Where the seconds of a small backup go: a worker whose engines, codecs, stores and ledger have clocks on them.

Started as a program it is Celery, with every function of those rooms measured. A clock runs while its room is the
innermost one that is at work, so that what an engine asks the ledger is the ledger's. What no clock has is the chain's
own: messages, folders, signatures, log lines.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import pkgutil
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from celery import signals
from celery.__main__ import main as celery

#: What is measured: rooms of the house, by the clock that they have. `work` is engine, codec, hash and store.
ROOMS = {
    "larder.ledger": "ledger",
    "larder.databases": "work",
    "larder.codecs": "work",
    "larder.stores": "work",
    "larder.artifact": "work",
    "larder.streams": "work",
}

#: The variable that says where the clocks' figures go: a line for each task.
FIGURES = "LARDER_BENCH_CLOCKS"

_seconds: dict[str, float] = defaultdict(float)
_rooms: list[str] = []
_since = 0.0


def clocked(room: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the room's clock running while it is at work; threads beside the task's have none."""

    @functools.wraps(function)
    def measured(*arguments: Any, **named: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return function(*arguments, **named)
        _enter(room)
        try:
            return function(*arguments, **named)
        finally:
            _leave()

    return measured


def _enter(room: str) -> None:
    _count()
    _rooms.append(room)


def _leave() -> None:
    _count()
    _rooms.pop()


def _count() -> None:
    """Give the time since the last change to whoever was at work."""
    global _since
    now = time.perf_counter()
    if _rooms:
        _seconds[_rooms[-1]] += now - _since
    _since = now


def put_on() -> int:
    """Put clocks on every function and method of the rooms; gives how many."""
    replaced: dict[int, Callable[..., Any]] = {}
    for name, room in ROOMS.items():
        for module in _modules(importlib.import_module(name)):
            for value in list(vars(module).values()):
                if getattr(value, "__module__", None) != module.__name__:
                    continue
                if _plain(value):
                    replaced[id(value)] = clocked(room, value)
                elif inspect.isclass(value):
                    for method, function in list(vars(value).items()):
                        if _plain(function) and not method.startswith("__"):
                            setattr(value, method, clocked(room, function))
    _rebind(replaced)
    return len(replaced)


def _modules(found: ModuleType) -> list[ModuleType]:
    below = pkgutil.iter_modules(getattr(found, "__path__", ()), found.__name__ + ".")
    return [found, *(importlib.import_module(one.name) for one in below if not one.ispkg)]


def _plain(value: Any) -> bool:
    """Whether it is a function that is over when it returns; one that yields works in others' time."""
    return (
        inspect.isfunction(value)
        and not inspect.isgeneratorfunction(value)
        and not hasattr(value, "__wrapped__")
    )


def _rebind(replaced: dict[int, Callable[..., Any]]) -> None:
    """Have every module that knows a function by name know the one with the clock."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("larder", "tasks", "workers"):
            for key, value in list(vars(module).items()):
                if id(value) in replaced:
                    setattr(module, key, replaced[id(value)])


def _begin(**_: Any) -> None:
    _seconds.clear()
    _rooms.clear()


def _end(sender: Any = None, args: Any = None, kwargs: Any = None, **_: Any) -> None:
    line = json.dumps({"task": sender.name, "args": args, "kwargs": kwargs, **_seconds}, default=str)
    with Path(os.environ[FIGURES]).open("a") as figures:
        figures.write(line + "\n")


if __name__ == "__main__":
    importlib.import_module("workers.celery")
    for one in pkgutil.iter_modules(importlib.import_module("tasks").__path__, "tasks."):
        importlib.import_module(one.name)
    signals.task_prerun.connect(_begin)
    signals.task_postrun.connect(_end)
    if not put_on():
        sys.exit(f"unable to measure: none of {', '.join(ROOMS)} has a function")
    celery()
