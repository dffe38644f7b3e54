"""Subprocesses under supervision: they die with their worker, and are ended when nothing moves any more.

A `Process` runs one command in a session of its own, so that whatever it starts can be ended together with
it. Its standard error is kept as a tail, masked; its standard output is either read by the caller or thrown
away; its standard input is empty, or fed by the caller. However the block ends, the whole group is killed and
reaped by then.

A command is a list, never a shell's line. It sees a small environment, not that of the worker, which holds
secrets.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from larder.errors import ConfigurationError, LarderError, UnreachableError
from larder.secret import redact, redact_end
from larder.streams import CHUNK

#: How much of a command's standard error is kept, in bytes.
TAIL = 8192

#: Seconds between two looks at a command that moves nothing.
TICK = 0.5

#: Seconds that a pipe with room for 1 MiB is given to fill before it is read; one with less room, less.
GATHER = 0.001

#: What a command sees of the worker's environment: where things are, and Kerberos tickets; no secrets.
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH", "KRB5CCNAME", "KRB5_CONFIG")

_PR_SET_PDEATHSIG = 1
# Loaded here, because after a fork nothing may be loaded.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", None)
_F_GETPIPE_SZ = getattr(fcntl, "F_GETPIPE_SZ", None)
#: What pipes hold where the system does not say.
_SMALL_PIPE = 1 << 16


class ProcessError(LarderError):
    """A command ended with something else than 0."""

    def __init__(self, tool: str, code: int, tail: str) -> None:
        #: The command's own name: `pg_dump`.
        self.tool = tool
        #: What it exited with; negative: the signal that ended it.
        self.code = code
        #: The end of its standard error, masked.
        self.tail = redact(tail)
        said = f": {self.last_line}" if self.last_line else ""
        super().__init__(f"unable to finish {tool}: {self.how}{said}")
        self.args = (tool, code, self.tail)

    @property
    def how(self) -> str:
        """`exited with 1`, or `was ended by SIGKILL`."""
        if self.code >= 0:
            return f"exited with {self.code}"
        try:
            return f"was ended by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"was ended by signal {-self.code}"

    @property
    def last_line(self) -> str:
        """The last line of standard error that holds anything."""
        lines = [line.strip() for line in self.tail.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class StalledError(UnreachableError):
    """No byte has moved for too long; another try may fare better."""


@dataclass(frozen=True)
class Account:
    """A user of this machine that a command runs as: in their own group, and in no other."""

    name: str
    uid: int
    gid: int


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a command may see: where programs and the home folder are, messages in English, and `extra`."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"PATH": os.defpath, **passed, "LC_ALL": "C", **(extra or {})}


class Process:
    """One command, for the length of a `with` block.

    `env` is added to `environment()`. `stall_seconds` is how long nothing may move: no byte on standard
    output or input, or, for a command whose work shows elsewhere, no change of what `moved()` says. `watch()` is
    called about twice a second, and whatever it raises ends the command. With `output=False` standard output is
    thrown away; with `input=True` the command reads what `feed` is given. `death_signal` is what the command gets
    when the worker dies: SIGTERM lets it end children of its own. `folder` is where it works; else where we do.
    `account` is who it runs as, which takes root; else we do.

    Raises `ConfigurationError` where the command cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        stall_seconds: float,
        output: bool = True,
        input: bool = False,  # noqa: A002 - the other side of `output`
        moved: Callable[[], object] | None = None,
        watch: Callable[[], None] | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        folder: Path | None = None,
        account: Account | None = None,
    ) -> None:
        self.tool = os.path.basename(argv[0])  # noqa: PTH119 - a word for messages
        self._argv = list(argv)
        self._env = environment(env)
        self._stall_seconds = stall_seconds
        self._output = output
        self._input = input
        self._moved = moved
        self._watch = watch
        self._death_signal = death_signal
        self._folder = folder
        self._account = account
        self._tail = bytearray()
        self._ended = False
        self._watched_at = 0.0

    def __enter__(self) -> Self:
        parent = os.getpid()
        try:
            self._popen = subprocess.Popen(
                self._argv,
                env=self._env,
                cwd=self._folder,
                stdin=subprocess.PIPE if self._input else subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._output else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                user=self._account.uid if self._account else None,
                group=self._account.gid if self._account else None,
                extra_groups=[] if self._account else None,
                # Called after the change of user, with which the kernel forgets what it sets.
                preexec_fn=lambda: die_with(parent, self._death_signal),
            )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigurationError(
                f"unable to start {self._argv[0]}: {reason}", "see that it is installed and may be executed"
            ) from None
        try:
            if self._popen.stdout is not None:
                _enlarge(self._popen.stdout.fileno())
            if self._popen.stdin is not None:
                # Only whoever waits for the pipe can see that nothing moves any more.
                os.set_blocking(self._popen.stdin.fileno(), False)
            self._drain = threading.Thread(target=self._drain_stderr, name=f"{self.tool} stderr", daemon=True)
            self._drain.start()
            self._pidfd = _pidfd(self._popen.pid)
        except BaseException:
            self._popen.kill()
            self._popen.wait()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """The command's process id, which is its group's too."""
        return self._popen.pid

    @property
    def tail(self) -> str:
        """The end of what it wrote to standard error, masked."""
        return redact_end(self._tail, TAIL)

    @property
    def over(self) -> bool:
        """Whether it has exited, well or not."""
        return self._has_exited()

    def output(self) -> Iterator[bytes]:
        """Its standard output to the end, up to 1 MiB at a time.

        Raises `StalledError` when no byte came for `stall_seconds`.
        """
        if self._popen.stdout is None:
            raise ValueError("the standard output of this process is thrown away")
        pipe = self._popen.stdout.fileno()
        room = _room(pipe)
        poll = select.poll()
        poll.register(pipe, select.POLLIN | select.POLLHUP)
        while True:
            self._await(lambda: bool(poll.poll(TICK * 1000)))
            if _held(pipe) < room // 2:
                # Programs write a few kilobytes at a time. Whoever reads each of them by itself keeps a core busy with
                # nothing but waking up.
                time.sleep(GATHER * room / CHUNK)
            data = os.read(pipe, min(_held(pipe), CHUNK) or CHUNK)
            if not data:
                return
            yield data

    def feed(self, data: bytes | memoryview) -> None:
        """Have it read all of `data`, waiting while it does not; what it writes meanwhile is left in the pipe.

        Raises `ProcessError` where it has ended, and `StalledError` when it took no byte for `stall_seconds`.
        """
        pipe = self._stdin()
        poll = select.poll()
        poll.register(pipe, select.POLLOUT)
        view = memoryview(data).cast("B")
        while view:
            self._await(lambda: bool(poll.poll(TICK * 1000)))
            try:
                view = view[os.write(pipe, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                # It reads no more, so it is ending, or has ended: well or not, it did not take everything.
                self.finish()
                raise ProcessError(self.tool, 0, self.tail) from None

    def end_input(self) -> None:
        """Tell it that there is nothing more to read."""
        self._stdin()
        assert self._popen.stdin is not None  # noqa: S101 - for the type checker
        self._popen.stdin.close()

    def _stdin(self) -> int:
        if self._popen.stdin is None or self._popen.stdin.closed:
            raise ValueError("the standard input of this process is empty, or was ended")
        return self._popen.stdin.fileno()

    def finish(self) -> None:
        """Wait for its end, which has to be a good one.

        Raises `ProcessError` where the exit code is not 0, and `StalledError` when nothing moved for
        `stall_seconds`.
        """
        self._await(self._is_over)
        code = self._end()
        if code != 0:
            raise ProcessError(self.tool, code, self.tail)

    def _await(self, ready: Callable[[], bool]) -> None:
        """Call `ready`, which takes a tick at most, until it says yes; raise where nothing moves meanwhile."""
        if self._watched(ready):
            return
        since = time.monotonic()
        seen = self._moved() if self._moved else None
        while not self._watched(ready):
            if self._moved is not None and (now := self._moved()) != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since >= self._stall_seconds:
                raise StalledError(
                    f"unable to finish {self.tool}: no byte has moved for {self._stall_seconds:g} s"
                )

    def _watched(self, ready: Callable[[], bool]) -> bool:
        done = ready()
        if self._watch is not None and time.monotonic() - self._watched_at >= TICK:
            self._watched_at = time.monotonic()
            self._watch()
        return done

    def _is_over(self) -> bool:
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(TICK * 1000)
            return self._has_exited()
        # Standard error is closed when a command ends, a moment before it has ended.
        self._drain.join(TICK)
        if not self._drain.is_alive():
            time.sleep(0.01)
        return self._has_exited()

    def _has_exited(self) -> bool:
        """Whether it has exited, without reaping it: its number stays its own until its group is killed."""
        if self._ended:
            return True
        if not hasattr(os, "waitid"):
            return self._popen.poll() is not None
        return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _end(self) -> int:
        """Kill what is left of the group, reap the command, close the pipes; gives its exit code."""
        if not self._ended:
            self._ended = True
            if self._popen.returncode is None:
                try:
                    os.killpg(self._popen.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                except PermissionError:
                    # macOS says this of a group in which only the dead are left.
                    self._popen.kill()
            self._popen.wait()
            if self._pidfd is not None:
                os.close(self._pidfd)
            # What left the group can hold the pipe open; the thread is then left to it.
            self._drain.join(TICK)
            for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
                if pipe is not None and not (pipe is self._popen.stderr and self._drain.is_alive()):
                    pipe.close()
        return self._popen.returncode

    def _drain_stderr(self) -> None:
        assert self._popen.stderr is not None  # noqa: S101 - for the type checker
        pipe = self._popen.stderr.fileno()
        while data := os.read(pipe, 4096):
            self._tail += data
            del self._tail[:-TAIL]


#: What must be done wholly: where a signal's handler raises in the midst of it, a program is left that nobody ends.
WHOLE = frozenset({Process.__enter__.__code__, Process._end.__code__})


def die_with(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """In the child: be killed when the thread that started us is gone."""
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _pidfd(process: int) -> int | None:
    """What can be waited for, with a limit, until a child has exited; None where the system has no such thing."""
    try:
        return os.pidfd_open(process)
    except (AttributeError, OSError):
        return None


def _room(pipe: int) -> int:
    """Bytes that a pipe has room for."""
    return _SMALL_PIPE if _F_GETPIPE_SZ is None else fcntl.fcntl(pipe, _F_GETPIPE_SZ)


def _held(pipe: int) -> int:
    """Bytes that wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def _enlarge(pipe: int) -> None:
    """Let a pipe hold 1 MiB, so that the writer seldom waits. A system that refuses keeps its 64 KiB."""
    if _F_SETPIPE_SZ is None:
        return
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, CHUNK)
