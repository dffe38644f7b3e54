"""Processes side by side: honcho's Manager, with what workers need: time for their end, and Redis there until the last.

Of honcho are the order of things, the prefixed lines and their colours. By itself it gives five seconds for the end,
and tells the whole group of a process, which costs every step of a worker's an attempt.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from multiprocessing import Queue
from typing import Any, TextIO

from honcho.manager import Manager
from honcho.printer import Message, Printer

from larder.errors import LarderError
from larder.process import die_with
from larder.secret import redact

#: Seconds that processes have for their end. docs/operations.md says why a worker may take more than its five.
PATIENCE = 60


class Supervisor(Manager):  # type: ignore[misc]
    """Runs processes until the first of them ends, or somebody asks for the end of all.

    SIGINT and SIGTERM ask; a second one ends what is left at once. So do the end of the terminal, and nobody there to
    read a line. `base` is the name of what the others stand on, if it is one of them: it ends last. `held` are files
    that are open as long as any of them runs, whatever becomes of us.
    """

    def __init__(self, base: str, stream: TextIO, held: Sequence[int] = ()) -> None:
        self._lines = _Lines(stream, colour="NO_COLOR" not in os.environ)
        super().__init__(self._lines)
        self._base = base
        self._process_ctor = partial(_Process, held=held)
        self._signals = 0
        self._hung_up = False
        self._asked_at: float | None = None
        self._base_asked = False
        #: What ended first, by itself, and its exit code; None where somebody has asked for the end.
        self.lost: tuple[str, int] | None = None
        #: Whether any had to be killed.
        self.killed = False

    def add(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Have a command run by that name: a list, never a shell's line."""
        self.add_process(name, list(command), env=dict(environment))

    def loop(self) -> None:
        """Start them, and come back when all have ended."""
        try:
            super().loop()
        finally:
            # Where that went wrong, some are left, and no system but Linux ends them with us.
            self._end(self._left(), os.killpg, signal.SIGKILL)

    def terminate(self) -> None:
        """Honcho's answer to the end of the first process."""
        if self._asked_at is None:
            self.lost = next(
                (name, found["returncode"])
                for name, found in self._processes.items()
                if "returncode" in found
            )
            self._ask()

    def kill(self) -> None:
        """Honcho's answer to five seconds more, which is too early."""

    def _start(self) -> None:
        # Before the first is started: honcho's own would end what is not there yet.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._count_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._hang_up)
        # Threads follow them, where honcho has a process beside each process, which would live longer than this one.
        for name, found in self._processes.items():
            try:
                found["pid"] = found["obj"].start().pid
            except OSError as error:
                raise LarderError(
                    f"unable to start {name}: {(error.strerror or 'no reason').lower()}"
                ) from None
            threading.Thread(target=found["obj"].follow, args=(self.events,), daemon=True).start()

    def _count_signal(self, _number: int, _frame: object) -> None:
        # In the middle of a line, maybe: what is to be done about it waits for the next turn.
        self._signals += 1

    def _hang_up(self, _number: int, _frame: object) -> None:
        # No second one: a shell tells its jobs what the system has told them already.
        self._hung_up = True

    def _all_stopped(self) -> bool:
        """Honcho asks this at each of its turns, ten a second or more."""
        self._turn()
        return bool(super()._all_stopped())

    def _turn(self) -> None:
        left = self._left()
        if self._asked_at is None:
            if self._signals or self._hung_up or self._lines.unread:
                self._system_print("ending what runs; asked again, it ends at once\n")
                self._ask()
            return
        if self._signals > 1 or time.monotonic() - self._asked_at > PATIENCE:
            if not self.killed:
                self.killed = True
                self._system_print(f"killing {', '.join(left)}\n")
                self._end(left, os.killpg, signal.SIGKILL)
        elif left == [self._base] and not self._base_asked:
            # Workers give back to it what they have not begun: it goes last.
            self._base_asked = True
            self._end(left, os.kill, signal.SIGTERM)

    def _ask(self) -> None:
        """Ask all that run to end, but what they stand on: the process itself, never its children."""
        self._asked_at = time.monotonic()
        self._end([name for name in self._left() if name != self._base], os.kill, signal.SIGTERM)

    def _left(self) -> list[str]:
        return [
            name for name, found in self._processes.items() if "pid" in found and "returncode" not in found
        ]

    def _end(self, names: Iterable[str], send: Any, number: signal.Signals) -> None:
        for name in names:
            try:
                send(self._processes[name]["pid"], number)
            except ProcessLookupError:
                # It has ended, and its end is still to be heard of.
                continue


class _Process:
    """One command, without a shell, in a group of its own: Ctrl-C in a terminal reaches us alone."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        colour: str,
        env: Mapping[str, str],
        held: Sequence[int],
        **_: Any,
    ) -> None:
        self._command = command
        self._name = name
        self._colour = colour
        self._environment = env
        self._held = held

    def start(self) -> subprocess.Popen[bytes]:
        """Begin; it is asked to end where we are killed."""
        us = os.getpid()
        self._child = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=self._held,
            preexec_fn=lambda: die_with(us, signal.SIGTERM),
        )
        return self._child

    def follow(self, events: Queue[Message]) -> None:
        """Hand on what it writes, to its end."""
        assert self._child.stdout is not None  # noqa: S101 - for the type checker
        with self._child.stdout as lines:
            for line in lines:
                events.put(self._message("line", line))
        events.put(self._message("stop", {"returncode": self._child.wait()}))

    def _message(self, kind: str, data: object) -> Message:
        return Message(type=kind, data=data, time=datetime.now(), name=self._name, colour=self._colour)  # noqa: DTZ005 - as clocks on walls


class _Lines(Printer):  # type: ignore[misc]
    """Lines with the name of who has written them; every line has its own time already."""

    #: Whether a line could not be written: the terminal is closed, or whoever has read them has gone.
    unread = False

    def write(self, message: Message) -> None:
        text = message.data.decode("utf-8", "replace") if isinstance(message.data, bytes) else message.data
        try:
            super().write(message._replace(data=redact(text)))
        except OSError:
            # What writes them is to end in good order all the same.
            self.unread = True
