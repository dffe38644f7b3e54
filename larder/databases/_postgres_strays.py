"""The processes of this machine, to find those among them that a throw-away server has left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from larder.process import Process

_PROCESSES = Path("/proc")

#: Seconds that `ps` may take.
_PROBE_SECONDS = 30


def everybody() -> Iterator[tuple[int, int, bytes]]:
    """Number, user and command line, in words with spaces between, of every process that can be seen."""
    if not (_PROCESSES / "self").exists():
        yield from _listed()
        return
    for folder in _PROCESSES.iterdir():
        try:
            if folder.name.isdecimal():
                said = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                yield int(folder.name), folder.stat().st_uid, said
        except OSError:
            continue


def _listed() -> Iterator[tuple[int, int, bytes]]:
    """The same by `ps`, where the system has no /proc."""
    columns = ["-o", "pid=", "-o", "uid=", "-o", "args="]
    with Process(["ps", "-A", "-w", "-w", *columns], stall_seconds=_PROBE_SECONDS) as process:
        said = b"".join(process.output())
        process.finish()
    for line in said.splitlines():
        pid, uid, rest = line.split(None, 2)
        yield int(pid), int(uid), rest


def variables(pid: int) -> list[bytes]:
    """The environment that a process was begun with; none where that can't be seen."""
    try:
        return (_PROCESSES / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
