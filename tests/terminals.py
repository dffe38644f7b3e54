"""Programs at a terminal, with somebody who types what they are asked for."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Seconds until a program that neither asks nor ends is given up.
PATIENCE = 60


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str
    #: What the terminal showed: the questions, and what was typed and not hidden.
    screen: str


def run(
    arguments: Sequence[str],
    folder: Path,
    answers: list[tuple[str, str]] | None = None,
    *,
    stdin: bytes = b"",
    terminal: bool = True,
) -> Done:
    """Run a command of Larder's in `folder`, and to its end; each answer waits for its question."""
    master, slave = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        if terminal:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-c", "from console.cli import main; main()", *arguments],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)},
            stdin=given,
            stdout=out,
            stderr=err,
            pass_fds=(slave,),
            preexec_fn=take_terminal,
        )
        try:
            screen = ""
            for question, answer in answers or []:
                screen += _read_until(master, question, process)
                os.write(master, f"{answer}\n".encode())
            code = process.wait(PATIENCE)
            screen += _read_rest(master)
        finally:
            process.kill()
            process.wait()
            os.close(master)
            os.close(slave)
        out.seek(0)
        err.seek(0)
        return Done(code, out.read().decode(), err.read().decode(), screen)


def _read_until(master: int, question: str, process: subprocess.Popen[bytes]) -> str:
    seen = ""
    end = time.monotonic() + PATIENCE
    while question not in seen:
        if select.select([master], [], [], 0.1)[0]:
            seen += os.read(master, 4096).decode()
        elif process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"it never asked {question!r}, but: {seen!r}")
    return seen


def _read_rest(master: int) -> str:
    seen = ""
    while select.select([master], [], [], 0)[0]:
        seen += os.read(master, 4096).decode()
    return seen
