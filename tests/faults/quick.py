"""Workers whose minutes are seconds, and who stop where a wire lies: `celery -A tests.faults.quick worker`.

LARDER_TEST_WIRES names the folder of the wires, LARDER_TEST_HOST the machine that they are on.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from larder import streams
from larder.ledger import hosts, leases, losses, runs, schema
from larder.ledger.leases import Lease, Leases
from larder.ledger.losses import Losses
from larder.stores import local
from tasks import keeping, step
from tests.faults.wires import Wires
from workers.celery import app

__all__ = ["app"]

WIRES, HOST = Wires(Path(os.environ["LARDER_TEST_WIRES"])), os.environ["LARDER_TEST_HOST"]

#: What Larder's times become: everything that waits for a loss, or after one.
_SHORT: list[tuple[Any, str, timedelta | float]] = [
    (leases, "TTL", timedelta(seconds=3)),
    (hosts, "BEAT", timedelta(seconds=0.5)),
    (hosts, "GAP", timedelta(seconds=2)),
    (hosts, "SETTLE", timedelta(seconds=1.2)),
    (hosts, "HOST_PATIENCE", timedelta(seconds=8)),
    (losses, "LYING", timedelta(seconds=2)),
    (runs, "SWAP_PATIENCE", timedelta(seconds=20)),
    (step, "LEDGER_WAIT", timedelta(seconds=3.5)),
    (step, "BACKOFF", 0.2),
    (step, "LONGEST_BACKOFF", 1.0),
    (keeping, "_PAUSE", 0.2),
    (keeping, "COMMIT_PATIENCE", 30),
    (schema, "BUSY_TIMEOUT", 2),
    (schema, "FROZEN", 3),
    (local, "STALE", 20),
]

_OURS = ("larder.ledger", "tasks", "workers")


def _shorten() -> None:
    """Give each constant its new value in every module that has its name from the one that it is of."""
    for home, name, value in _SHORT:
        old = getattr(home, name)
        for module in list(sys.modules.values()):
            if module is home or getattr(module, name, None) is old:
                setattr(module, name, value)


class _SetClock(datetime):
    """The clock of a machine on which somebody has set it."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(seconds=WIRES.clock(HOST))


def _set_clocks() -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith(_OURS) and getattr(module, "datetime", None) is datetime:
            module.datetime = _SetClock  # type: ignore[attr-defined]


_run, _take, _finish, _take_up = step._run, Leases.take, Leases.finish, Losses.take_up
_write = streams._WholeFile.write

#: The kind of chain that this process is at, and the bytes that it has written since its disk began to fail.
_kind = ""
_written = {0: 0}


def _run_at_step(task: Any, link: Any, run_id: str, store: str) -> None:
    # A process of the pool does one thing at a time.
    global _kind
    _kind = link.kind
    try:
        _run(task, link, run_id, store)
    finally:
        WIRES.end()


def _take_and_stop(self: Leases, run_id: str, step: str, *more: Any, **options: Any) -> Any:
    found = _take(self, run_id, step, *more, **options)
    if isinstance(found, Lease):
        WIRES.begin(f"{_kind}.{step}")
        WIRES.reach(f"{_kind}.{step}.taken")
    return found


def _finish_and_stop(self: Leases, lease: Lease, **options: Any) -> None:
    WIRES.reach(f"{_kind}.{lease.step}.done")
    _finish(self, lease, **options)
    WIRES.reach(f"{_kind}.{lease.step}.committed")


def _take_up_and_stop(self: Losses, run: Any) -> bool:
    claimed = _take_up(self, run)
    if claimed:
        WIRES.begin("guard")
        WIRES.reach("guard.claimed")
        WIRES.end()
    return claimed


def _write_and_fail(self: Any, data: Any) -> int:
    failing = WIRES.disk(HOST)
    if failing is not None:
        number, disk = failing
        size, before = memoryview(data).nbytes, _written.get(number, 0)
        _written[number] = before + size
        if before + size > disk.after:
            room = max(disk.after - before, 0)
            _write(self, memoryview(data).cast("B")[:room])
            WIRES.fail(HOST)
            raise OSError(disk.errno, os.strerror(disk.errno))
    return _write(self, data)


def _send_twice() -> None:
    send = app.amqp.send_task_message

    def sent(*arguments: Any, **options: Any) -> Any:
        if WIRES.doubled:
            send(*arguments, **options)
        return send(*arguments, **options)

    app.amqp.send_task_message = sent


app.loader.import_default_modules()
_shorten()
_set_clocks()
_send_twice()
step._run = _run_at_step
Leases.take = _take_and_stop  # type: ignore[method-assign]
Leases.finish = _finish_and_stop  # type: ignore[method-assign]
Losses.take_up = _take_up_and_stop  # type: ignore[method-assign]
streams._WholeFile.write = _write_and_fail  # type: ignore[method-assign]
