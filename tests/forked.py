"""Commands in processes that are forked from one which has imported everything: a second less for each of a thousand.

A command runs in a process of its own all the same, with its own environment, folder and output. What differs from
starting it anew is that its modules are imported already.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import console
import tasks

#: Bytes of a request at most.
_LARGEST = 1 << 20

#: How many digits an answer has: a process's number, and then what it exited with.
_DIGITS = 16

#: Variables that Python and the C library read when a process starts, and never again.
_AT_START = ("PYTHON", "LC_", "LANG")


#: What a worker imports; `workers.celery` itself reads the configuration, which each command has of its own.
_WORKERS = (
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.log",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.worker.components",
    "celery.worker.consumer",
    "kombu.pidbox",
    "kombu.transport.redis",
    "workers.embedded",
    "workers.events",
)


def can_run(environment: dict[str, str]) -> bool:
    """Whether a forked process would see what one that was started anew sees."""
    return not any(name.startswith(_AT_START) for name in environment)


class Forker:
    """The process that commands are forked from, started when the first one is asked for."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""

    def run(
        self, command: list[str], folder: Path, environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `larder` with these arguments to its end."""
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            socket.socket(socket.AF_UNIX) as link,
        ):
            link.connect(self._started())
            link.settimeout(timeout)
            asked = {"argv": command, "folder": str(folder), "environment": environment}
            socket.send_fds(link, [json.dumps(asked).encode()], [out.fileno(), err.fileno()])
            link.shutdown(socket.SHUT_WR)
            pid = _number(link)
            try:
                code = _number(link)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(
                    command, timeout, _text(out).encode(), _text(err).encode()
                ) from None
            return subprocess.CompletedProcess(command, code, _text(out), _text(err))

    def _started(self) -> str:
        if self._process is None or self._process.poll() is not None:
            folder = tempfile.mkdtemp(prefix="larder-fork-")
            self._address = f"{folder}/socket"
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(self._address)
                listener.listen(64)
                listener.set_inheritable(True)
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.forked", str(listener.fileno())],
                    env={"PATH": os.environ["PATH"], "HOME": folder},
                    cwd=Path(__file__).resolve().parent.parent,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[listener.fileno()],
                )
            atexit.register(self._process.kill)
        return self._address


def _number(link: socket.socket) -> int:
    return int(link.recv(_DIGITS, socket.MSG_WAITALL))


def _text(file: Any) -> str:
    file.seek(0)
    content: bytes = file.read()
    return content.decode(errors="strict").replace("\r\n", "\n")


def _loaded() -> Any:
    """The command line, with all that commands, and the worker that they fork, import when they are called."""
    for package in (console, tasks):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            # The web's libraries are for servers, and `__main__` runs when it is imported.
            if module.name not in ("console.__main__", "console.up", "console.web"):
                importlib.import_module(module.name)
    for name in _WORKERS:
        importlib.import_module(name)
    return importlib.import_module("console.cli").main


def _serve(descriptor: int) -> None:
    main = _loaded()
    # Those that answer are reaped by nobody.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as listener:
        while True:
            link, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(link, main)
            link.close()


def _answer(link: socket.socket, main: Any) -> None:
    data, descriptors, *_ = socket.recv_fds(link, _LARGEST, 2)
    while more := link.recv(_LARGEST):
        data += more
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        link.close()
        _become(json.loads(data), descriptors, main)
    link.send(f"{pid:{_DIGITS}}".encode())
    _, status = os.waitpid(pid, 0)
    link.send(f"{os.waitstatus_to_exitcode(status):{_DIGITS}}".encode())
    os._exit(0)


def _become(asked: dict[str, Any], descriptors: list[int], main: Any) -> None:
    code = 1
    try:
        for number, descriptor in enumerate(descriptors, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(asked["folder"])
        # What Python sets for the C locale, and its children see.
        os.environ.clear()
        os.environ.update({"LC_CTYPE": "C.UTF-8", **asked["environment"]})
        sys.argv = asked["argv"]
        main(prog_name="larder")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
