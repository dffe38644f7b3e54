"""What the measurements of fleets share: a folder with a configuration, processes, samples of them, and tables."""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import redis

from larder.process import die_with
from tasks import context
from tasks.guard import guard
from tests.processes import eventually, redis_server, running

ROOT = Path(__file__).resolve().parent.parent

#: Seconds of CPU that one pass of the guard may take.
GUARD_SECONDS = 1.0

#: Seconds between two looks at the processes.
LOOK_EVERY = 0.5


@dataclass
class Targets:
    """What was measured against what was wanted."""

    missed: list[str] = field(default_factory=list)

    def check(self, what: str, value: float, most: float, unit: str = "") -> None:
        """Print a figure beside the most that it may be."""
        good = value <= most
        print(
            f"  {what:<58} {_number(value)}{unit}  (at most {_number(most)}{unit}){'' if good else '  MISSED'}"
        )
        if not good:
            self.missed.append(what)

    def note(self, what: str, value: object) -> None:
        """Print a figure that nothing is wanted of."""
        print(f"  {what:<58} {value}", flush=True)

    def equal(self, what: str, value: object, wanted: object) -> None:
        """Print a figure beside the one that it has to be."""
        print(f"  {what:<58} {value}{'' if value == wanted else f'  (wanted: {wanted})  MISSED'}")
        if value != wanted:
            self.missed.append(what)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"


class Fleet:
    """A folder with a configuration, and the processes that work by it."""

    def __init__(self, folder: Path, redis_url: str, **environment: str) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "BACKUP_DIR": str(folder / "backups"),
            "LARDER_STATE_DIR": str(self.state),
            "LARDER_CONFIG": str(folder / "larder.toml"),
            "REDIS_URL": redis_url,
            **environment,
        }
        self.state.mkdir(mode=0o700)

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / "state"

    def configure(self, text: str) -> None:
        """Write larder.toml."""
        (self.folder / "larder.toml").write_text(text)

    @contextmanager
    def celery(self, *arguments: str, name: str, launcher: Sequence[str] = ("-m", "celery")) -> Iterator[int]:
        """A running Celery process; gives its id. Its log is `NAME.log`."""
        command = [sys.executable, *launcher, "-A", "workers", *arguments, "--loglevel", "INFO"]
        with self._started(command, name) as process:
            yield process

    @contextmanager
    def console(self, port: int) -> Iterator[int]:
        """A running console; gives its id."""
        command = [sys.executable, "-m", "console", "console", "--port", str(port)]
        with self._started(command, "console") as process:
            yield process

    @contextmanager
    def _started(self, command: Sequence[str], name: str) -> Iterator[int]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for us, who end it then as at any other time.
                start_new_session=True,
                preexec_fn=functools.partial(die_with, os.getpid(), signal.SIGTERM),
            )
        with running(process):
            yield process.pid

    @contextmanager
    def worker(self, concurrency: int, launcher: Sequence[str] = ("-m", "celery")) -> Iterator[int]:
        """A running worker that is ready; gives the id of its main process."""
        with self.celery("worker", "-c", str(concurrency), name="worker", launcher=launcher) as process:
            eventually(lambda: "ready." in self.log("worker"))
            yield process

    def log(self, name: str) -> str:
        """What a process has written so far."""
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def ask(self, query: str) -> list[tuple]:
        """What a query finds in the ledger."""
        ledger = sqlite3.connect(f"file:{self.state / 'ledger.sqlite3'}?mode=ro", uri=True, timeout=30)
        try:
            return ledger.execute(query).fetchall()
        finally:
            ledger.close()

    def count(self, query: str) -> int:
        """The one number that a query finds in the ledger."""
        return int(self.ask(query)[0][0])

    def size(self) -> int:
        """Bytes of the ledger, without its journal, which is soon as long as it ever is."""
        return self.count("PRAGMA page_count") * self.count("PRAGMA page_size")

    def messages(self) -> int:
        """How many messages wait in all queues."""
        client = redis.Redis.from_url(self.redis_url)
        try:
            names = [key for key in client.keys("*") if client.type(key) == b"list"]
            return sum(int(client.llen(name)) for name in names)
        finally:
            client.close()


@contextmanager
def fleet(within: Path | None = None, **environment: str) -> Iterator[Fleet]:
    """A fleet in a folder of its own, with a Redis, for the length of a block."""
    folder = Path(tempfile.mkdtemp(prefix="larder-fleet-", dir=within))
    try:
        with redis_server(folder) as url:
            yield Fleet(folder, url, **environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def small_databases(folder: Path, count: int, size: int = 50_000) -> list[str]:
    """Make `count` SQLite databases of about `size` bytes in `folder`; gives their names."""
    folder.mkdir()
    names = [f"d{number:05}" for number in range(count)]
    first = folder / f"{names[0]}.db"
    database = sqlite3.connect(first)
    database.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, what TEXT)")
    database.executemany(
        "INSERT INTO items (what) VALUES (?)", ((f"{n * 7919:032x}",) for n in range(size // 45))
    )
    database.commit()
    database.close()
    for name in names[1:]:
        shutil.copy(first, folder / f"{name}.db")
    return names


@dataclass(frozen=True)
class Sample:
    """How a worker stood at one moment; sizes in bytes."""

    moment: float
    #: How much was done by then, in whatever is counted.
    done: int
    parent: int
    #: Of the largest child.
    child: int
    #: Open files and threads of the process that has most of them.
    files: int
    threads: int
    messages: int


class Watch:
    """Looks at a worker's processes, at the queues and at what is done, until it is over."""

    def __init__(self, process: int, done: Callable[[], int], messages: Callable[[], int]) -> None:
        self.samples: list[Sample] = []
        self._parent = psutil.Process(process)
        self._done = done
        self._messages = messages
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def until(self, done: int, patience: float) -> bool:
        """Wait until so much is done; False where it takes longer than `patience` seconds."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self.samples and self.samples[-1].done >= done:
                return True
            self._over.wait(LOOK_EVERY)
        return False

    def at(self, share: float) -> Sample:
        """The first sample at which this share of all was done."""
        wanted = share * self.samples[-1].done
        return next(sample for sample in self.samples if sample.done >= wanted)

    def at_rest(self, start: float, end: float) -> tuple[int, int]:
        """The fewest open files and threads there were between two shares of all: readers come and go."""
        first, last = (share * self.samples[-1].done for share in (start, end))
        some = [sample for sample in self.samples if first <= sample.done <= last]
        return min(sample.files for sample in some), min(sample.threads for sample in some)

    def _look(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            try:
                self.samples.append(self._sample())
            except (psutil.NoSuchProcess, sqlite3.OperationalError):
                continue

    def _sample(self) -> Sample:
        children = [child for child in self._parent.children() if child.status() != psutil.STATUS_ZOMBIE]
        everybody = [self._parent, *children]
        return Sample(
            time.monotonic(),
            self._done(),
            self._parent.memory_info().rss,
            max((child.memory_info().rss for child in children), default=0),
            max(one.num_fds() for one in everybody),
            max(one.num_threads() for one in everybody),
            self._messages(),
        )


def print_samples(watch: Watch, shares: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 1.0)) -> None:
    """Print how the worker stood on the way."""
    print(f"  {'done':>7} {'parent':>9} {'child':>9} {'files':>6} {'threads':>8} {'queued':>7}")
    for share in shares:
        one = watch.at(share)
        print(
            f"  {one.done:>7,} {one.parent / 1e6:>6.1f} MB {one.child / 1e6:>6.1f} MB {one.files:>6} {one.threads:>8} "
            f"{one.messages:>7,}"
        )


def apart(measure: Callable[[], Any]) -> Any:
    """What `measure` gives in a process of its own, which has loaded nothing yet."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure).result()


def guard_passes() -> tuple[float, float]:
    """CPU seconds of the first pass of a guard in a process, and of a later one."""
    from workers.celery import app  # noqa: PLC0415 - reads the configuration, which is there by now

    app.set_current()
    context.ledger().hosts.beat(context.host())
    found = []
    for _ in range(3):
        began = time.process_time()
        guard()
        found.append(time.process_time() - began)
    return found[0], found[-1]
