"""Programs that a benchmark starts: each in a process group of its own, which ends with the benchmark in any case."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.watching import Watch
from larder.process import die_with

#: Seconds that a group has to end by itself before it is killed.
PATIENCE = 15

#: One word of a command.
Word = str | Path


class Failed(Exception):
    """A program did not end with 0; says what it wrote last."""


@dataclass(frozen=True)
class Done:
    """How long a program took, by the clock, what it wrote, and what was seen of it meanwhile."""

    seconds: float
    output: str
    watch: Watch | None


@dataclass(frozen=True)
class Place:
    """Where programs run: their folder, their environment, and whether somebody watches."""

    folder: Path
    environment: Mapping[str, str]
    #: The database server's main process, whose use of the machine is counted beside.
    server: int | None = None
    watched: bool = False
    #: Who runs them, where that is not who we are.
    user: int | None = None

    def run(self, *command: Word, spool: Path | None = None, stdout: IO[Any] | int | None = None) -> Done:
        """Run a program to its end."""
        with (self.folder / "complaints").open("w+b") as complaints:
            began = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout is None else stdout,
                stderr=complaints,
                start_new_session=True,
                user=self.user,
                preexec_fn=functools.partial(die_with, os.getpid()),
            )
            with ending(process):
                watch = Watch(process.pid, self.server, spool) if self.watched else None
                if watch is None:
                    answer, _ = process.communicate()
                else:
                    with watch:
                        answer, _ = process.communicate()
            seconds = time.monotonic() - began
            if process.returncode != 0:
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").strip() or (answer or b"").decode()
                raise Failed(f"{Path(command[0]).name} exited with {process.returncode}: {said[-600:]}")
        return Done(seconds, (answer or b"").decode(), watch)

    def shell(self, line: str, *arguments: Word) -> Done:
        """Run a line of bash that fails when any part of a pipe does; `$1` and so on are the arguments."""
        return self.run("bash", "-o", "pipefail", "-euc", line, "bash", *arguments)


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Have a process, and its group, end with the block."""
    try:
        yield
    finally:
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                pass
        # Those of its group that it left behind.
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], what: signal.Signals) -> None:
    try:
        os.killpg(process.pid, what)
    except ProcessLookupError:
        pass
