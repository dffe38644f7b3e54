"""The kinds of faults. Each is done to a world, at a moment at which a process of it is at a step.

A kind is a generator: what it does before its `yield` is the fault, what comes after that is the end of it. It ends at
once, without yielding, where it finds nothing to be done to.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
import redis

from tests.faults.cutting import Cutter
from tests.faults.machines import Host
from tests.faults.wires import Disk
from tests.faults.world import World


@dataclass
class Fault:
    """One fault: what is at hand when it is made."""

    world: World
    chance: random.Random
    #: The process of a pool that it is aimed at, and the host that it is on.
    pid: int
    host: Host
    #: Seconds between its beginning and its end, to be set before the `yield`.
    lasts: float = 0.0
    #: Whether it turned out at its end that nothing had come of it: it does not count.
    vain: bool = False


Kind = Callable[[Fault], Iterator[None]]


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_child(fault: Fault) -> Iterator[None]:
    """A process of a pool is gone, as when memory has run out."""
    if _signal(fault.pid, signal.SIGKILL):
        yield


def kill_worker(fault: Fault) -> Iterator[None]:
    """The worker's main process is gone; its pool notices."""
    with fault.host.lock:
        worker = fault.host.worker
        if worker is None or worker.poll() is not None:
            return
        worker.kill()
        worker.wait()
        fault.lasts = fault.chance.uniform(0, 2)
        yield
        fault.host.start()


def kill_tool(fault: Fault) -> Iterator[None]:
    """A program that a step has started is gone: pg_dump, psql, a throw-away server."""
    with suppress(psutil.NoSuchProcess):
        step, deadline = psutil.Process(fault.pid), time.monotonic() + 2
        while not (tools := step.children(recursive=True)):
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)
        fault.chance.choice(tools).kill()
        yield


def kill_host(fault: Fault) -> Iterator[None]:
    """A machine goes down, and comes back: at once, or after everybody has given it up."""
    with fault.host.lock:
        fault.host.kill()
        fault.lasts = fault.chance.choice([0.0, fault.chance.uniform(0, 3), 10.0])
        yield
        fault.host.start()


def stop_child(fault: Fault) -> Iterator[None]:
    """A process of a pool sleeps for longer than its lease, and wakes up as a zombie."""
    if _signal(fault.pid, signal.SIGSTOP):
        fault.lasts = fault.chance.uniform(3.5, 7)
        yield
        _signal(fault.pid, signal.SIGCONT)


def stop_host(fault: Fault) -> Iterator[None]:
    """A machine sleeps for longer than its leases, or until everybody has given it up, and wakes up."""
    with fault.host.lock:
        fault.host.signal(signal.SIGSTOP)
        fault.lasts = fault.chance.choice([fault.chance.uniform(3.5, 6), 10.0])
        yield
        fault.host.signal(signal.SIGCONT)


def term_worker(fault: Fault) -> Iterator[None]:
    """A deploy: the worker is asked to end, ends when it has done what it is at, and another one begins."""
    with fault.host.lock:
        worker = fault.host.worker
        if worker is None or worker.poll() is not None:
            return
        _signal(fault.pid, signal.SIGCONT)
        worker.terminate()
        yield
        try:
            worker.wait(20)
        except subprocess.TimeoutExpired:
            fault.host.kill()
        fault.host.start()


def kill_redis(fault: Fault) -> Iterator[None]:
    """Redis is gone, and comes back with what it had written down."""
    yield from _redis_gone(fault, wiped=False)


def wipe_redis(fault: Fault) -> Iterator[None]:
    """Redis is gone, and comes back with nothing."""
    yield from _redis_gone(fault, wiped=True)


def _redis_gone(fault: Fault, *, wiped: bool) -> Iterator[None]:
    with fault.world.redis.lock:
        fault.world.redis.kill()
        fault.lasts = fault.chance.uniform(0, 3)
        yield
        fault.world.redis.start(wiped=wiped)


def stop_redis(fault: Fault) -> Iterator[None]:
    """Redis takes connections, and says nothing."""
    with fault.world.redis.lock:
        fault.world.redis.signal(signal.SIGSTOP)
        fault.lasts = fault.chance.uniform(1, 5)
        yield
        fault.world.redis.signal(signal.SIGCONT)


def lock_ledger(fault: Fault) -> Iterator[None]:
    """Somebody holds the ledger's lock, for longer than anybody waits for it."""
    with fault.world.locked_ledger():
        fault.lasts = fault.chance.uniform(1, 6)
        yield


def fill_disk(fault: Fault) -> Iterator[None]:
    """The disk is full at a random byte, and stays so for a moment."""
    yield from _bad_disk(fault, errno.ENOSPC)


def break_disk(fault: Fault) -> Iterator[None]:
    """The disk fails at a random byte, and for a moment."""
    yield from _bad_disk(fault, errno.EIO)


def _bad_disk(fault: Fault, number: int) -> Iterator[None]:
    after = fault.chance.choice([0, fault.chance.randrange(2_000), fault.chance.randrange(200_000)])
    fault.world.wires.set_disk(fault.host.name, Disk(number, after))
    fault.lasts = fault.chance.uniform(0.2, 1.5)
    yield
    fault.vain = not fault.world.wires.mend_disk(fault.host.name)


def cut_database(fault: Fault) -> Iterator[None]:
    """The connection to a database server is cut after a random byte."""
    yield from _cut(fault, fault.chance.choice(list(fault.world.cutters.values())))


def cut_store(fault: Fault) -> Iterator[None]:
    """The connection to an object store is cut after a random byte of its answers: what was asked for may be done."""
    if fault.world.store_cutter is not None:
        yield from _cut(fault, fault.world.store_cutter)


def _cut(fault: Fault, cutter: Cutter) -> Iterator[None]:
    cutter.cut_after(fault.chance.choice([fault.chance.randrange(3_000), fault.chance.randrange(150_000)]))
    fault.lasts = 3
    yield
    fault.vain = not cutter.spare()


def double_messages(fault: Fault) -> Iterator[None]:
    """Every message comes twice: those that wait, and those that are sent for a while."""
    fault.world.wires.set_doubled(doubled=True)
    for queue, messages in _waiting(fault.world).items():
        with suppress(redis.RedisError):
            _client(fault.world).lpush(queue, *messages)
    # Not for long: what comes twice sends what comes after it twice, and each of those comes twice again.
    fault.lasts = fault.chance.uniform(0.2, 0.8)
    yield
    fault.world.wires.set_doubled(doubled=False)


def reorder_messages(fault: Fault) -> Iterator[None]:
    """The messages that wait are in another order."""
    with suppress(redis.RedisError):
        client, fault.vain = _client(fault.world), True
        for queue in _waiting(fault.world):
            with client.pipeline() as pipe:
                pipe.watch(queue)
                messages = pipe.lrange(queue, 0, -1)
                fault.vain &= len(messages) < 2
                fault.chance.shuffle(messages)
                pipe.multi()
                if messages:
                    pipe.delete(queue).rpush(queue, *messages)
                pipe.execute()
        yield


def set_clock(fault: Fault) -> Iterator[None]:
    """The clock of a host, or of both, is wrong by minutes or hours, and is set right later."""
    seconds = fault.chance.choice([-1, 1]) * fault.chance.choice([90, 600, 3600, 3 * 3600])
    hosts = fault.chance.choice([[fault.host], fault.world.hosts])
    for host in hosts:
        fault.world.wires.set_clock(host.name, seconds)
    fault.lasts = fault.chance.uniform(1, 6)
    yield
    for host in hosts:
        fault.world.wires.set_clock(host.name, 0)


def _client(world: World) -> redis.Redis:
    return redis.Redis(port=world.redis.port, socket_timeout=2)


def _waiting(world: World) -> dict[bytes, list[bytes]]:
    """The messages that wait, by queue."""
    with suppress(redis.RedisError):
        client = _client(world)
        return {key: client.lrange(key, 0, -1) for key in client.scan_iter(_type="list")}
    return {}


#: Every kind, by the words that the table has for it, and how often it is chosen.
KINDS: dict[str, tuple[Kind, int]] = {
    "SIGKILL of a pool's child": (kill_child, 4),
    "SIGKILL of a worker": (kill_worker, 2),
    "SIGKILL of pg_dump, psql, a server": (kill_tool, 3),
    "SIGKILL of a host": (kill_host, 2),
    "SIGSTOP of a pool's child": (stop_child, 3),
    "SIGSTOP of a host": (stop_host, 1),
    "SIGTERM of a worker": (term_worker, 2),
    "Redis killed": (kill_redis, 2),
    "Redis wiped": (wipe_redis, 2),
    "Redis stopped": (stop_redis, 1),
    "ledger locked": (lock_ledger, 2),
    "disk full": (fill_disk, 3),
    "disk failing": (break_disk, 2),
    "database connection cut": (cut_database, 3),
    "store connection cut": (cut_store, 2),
    "messages doubled": (double_messages, 2),
    "messages reordered": (reorder_messages, 1),
    "clock set": (set_clock, 2),
}

#: The steps at which a kind finds what it is done to.
PLACES: dict[str, tuple[str, ...]] = {
    "SIGKILL of pg_dump, psql, a server": ("backup.dump", "restore.load", "drill.load", "drill.examine"),
    "database connection cut": (
        "backup.dump",
        "restore.load",
        "restore.examine",
        "restore.swap",
        "drill.load",
    ),
    "store connection cut": ("backup.upload", "backup.rotate", "drill.fetch", "restore.fetch"),
}

#: The kinds that leave the process asleep that they are aimed at.
SLEEPING = ("SIGSTOP of a pool's child", "SIGSTOP of a host")
