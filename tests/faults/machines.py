"""The machines of a world: a Redis that may die with or without its data, and hosts with a worker on each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import psutil

from tests.house import SCRIPTS, House
from tests.processes import answers, eventually
from tests.servers import free_port
from workers.embedded import find_redis

#: Where `tests` is imported from.
ROOT = Path(__file__).parents[2]


class Redis:
    """A Redis of one's own, which writes down each second what it holds."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        #: Held by whoever does something to it.
        self.lock = threading.Lock()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wiped: bool = False) -> None:
        """Start it, with what it had, or with nothing."""
        if wiped:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(exist_ok=True)
        program, _ = find_redis()
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "everysec"]
        self._process = subprocess.Popen(
            command, cwd=self._folder, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        eventually(lambda: answers(self.port))

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Host:
    """A machine: its own state folder and spool, the commands that are run there, and a worker with its pool."""

    def __init__(self, name: str, folder: Path, queues: str, **environment: str) -> None:
        folder.mkdir()
        self._queues = queues
        self.name = name
        self.folder = folder
        #: Held by whoever does something to the machine as a whole.
        self.lock = threading.Lock()
        self.house = House(folder, **environment)
        self.spool = Path(environment["LARDER_STATE_DIR"]) / "spool"
        self.worker: subprocess.Popen[bytes] | None = None
        self._log = folder / "worker.log"

    def start(self) -> None:
        """Start the worker, unless it runs."""
        if self.worker is not None and self.worker.poll() is None:
            return
        command = [str(SCRIPTS / "celery"), "-A", "tests.faults.quick", "worker", "--concurrency", "3"]
        command += [
            "--loglevel",
            "INFO",
            "--without-gossip",
            "--without-mingle",
            "-n",
            f"worker@{self.name}",
            "-Q",
            self._queues,
        ]
        environment = {"PYTHONPATH": str(ROOT), "LARDER_TEST_HOST": self.name, **self.house.environment}
        with self._log.open("ab") as log:
            self.worker = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def stop(self) -> None:
        """End it in good order, and what does not end so, at once."""
        if self.worker is not None:
            self.worker.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.worker.wait(15)
        self.kill()

    def kill(self) -> None:
        """Have the machine go down."""
        self.signal(signal.SIGKILL)
        if self.worker is not None:
            self.worker.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the machine."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on it: what has its home there."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("HOME") == str(
                    self.folder
                ):
                    found.append(process)
        return found

    def pool(self) -> list[int]:
        """The processes of the worker's pool."""
        if self.worker is None:
            return []
        with suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.worker.pid).children()]
        return []

    def strays(self) -> list[str]:
        """What runs on it beside the worker and its pool."""
        known = {self.worker.pid if self.worker else os.getpid(), *self.pool()}
        return [
            f"{process.pid} {' '.join(process.cmdline())[:200]}"
            for process in self.processes()
            if process.pid not in known and process.is_running()
        ]
