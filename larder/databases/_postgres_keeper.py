"""The parent of a throw-away server, run as a program: it outlives the server, and nothing of the server outlives it.

Functions of a backup can start programs that leave every group and session, and clear their environment. On Linux
whoever loses their parent becomes a child of this one, so all of them are found. It runs as the worker's own user, whom
the server's, where that is another, cannot end; and takes only the standard library, since it starts for each step:

    python -I -S _postgres_keeper.py UID:GID /usr/lib/postgresql/18/bin/postgres -D …

`-` in the place of a user is the worker's own. It passes signals on, and exits with what the server has exited with.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWIPC = 0x08000000

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PASSED_ON = {signal.SIGINT, signal.SIGTERM, signal.SIGQUIT}


def main(owner: str, argv: list[str]) -> int:
    """Run the server `argv` as `owner` until it ends, and end whatever it leaves; gives its exit code."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # Takes root, and may be refused: shared memory that a killed server leaves goes with the last of its processes.
        _LIBC.unshare(_CLONE_NEWIPC)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    keeper = os.getpid()
    server = os.fork()
    if server == 0:
        try:
            _become(owner, keeper)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.execv(argv[0], argv)  # noqa: S606 - a list, and no shell
        except OSError as error:
            os.write(2, f"FATAL:  could not start {argv[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    code = _wait_for(server)
    _end_children()
    return code if code >= 0 else 128 - code


def _become(owner: str, keeper: int) -> None:
    """In the child: let go of what the worker may do, and end with the keeper."""
    if owner != "-":
        uid, gid = map(int, owner.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if _LIBC is not None:
        # After the change of user, with which the kernel forgets it.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)
    if os.getppid() != keeper:
        os._exit(1)


def _wait_for(server: int) -> int:
    """Pass signals on and reap whoever ends, until the server has ended; gives its exit code."""
    while True:
        came = signal.sigwait({*_PASSED_ON, signal.SIGCHLD})
        if came != signal.SIGCHLD:
            # It has not been reaped, so its number is its own.
            os.kill(server, came)
            continue
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == server:
                    return os.waitstatus_to_exitcode(ended[1])


def _end_children() -> None:
    """Kill the children, and whoever becomes one by it, until there is none."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    mine, found = str(os.getpid()).encode(), []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in brackets, may hold anything.
            _state, parent, *_ = path.read_bytes().rpartition(b")")[2].split()
            if parent == mine:
                found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
