"""Processes for tests: a Redis, workers, and waiting for what they do."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.house import PATIENCE, House
from tests.servers import free_port
from workers.embedded import find_redis

Found = TypeVar("Found")


def eventually(look: Callable[[], Found | None]) -> Found:
    """What `look` finds, looked for until it finds something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        threading.Event().wait(0.1)
    raise AssertionError("it never came")


@contextmanager
def running(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Have a process end with the block."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def answers(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis with a password for the length of a block; gives its URL."""
    program, _ = find_redis()
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "red1s-pw"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    with running(server):
        eventually(lambda: answers(port))
        yield f"redis://:red1s-pw@127.0.0.1:{port}/0"


@contextmanager
def worker(house: House, *more: str) -> Iterator[Path]:
    """A running worker; gives its log."""
    log = house.folder / "worker.log"
    command = ["celery", "-A", "workers", "worker", "--concurrency", "2", "--loglevel", "DEBUG", *more]
    with running(house.start(*command, "--logfile", log)):
        eventually(lambda: log.exists() and "ready." in log.read_text())
        yield log
