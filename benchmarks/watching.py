"""Looks at processes while something runs: CPU seconds, bytes read and written, memory, by who they are.

Reads /proc itself, which takes a tenth of what a library's objects take. A process that is gone counts with what it
had at the last look before: at most a twenty-fifth of a second of it is lost.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

#: Seconds between two looks.
LOOK_EVERY: Final = 0.04

#: Looks between two measures of the spool, which takes longer.
SPOOL_EVERY: Final = 5

_TICK: Final = os.sysconf("SC_CLK_TCK")

#: Who a process is: Larder's own, the Redis that it brings, PostgreSQL's, and every other tool.
OWN, REDIS, SERVER, TOOLS = "own", "redis", "server", "tools"


class Use(NamedTuple):
    """What processes have used: seconds of CPU, and bytes that went through read and write calls, pipes included."""

    cpu: float = 0.0
    read: int = 0
    written: int = 0

    def __add__(self, other: Use) -> Use:  # type: ignore[override]
        return Use(self.cpu + other.cpu, self.read + other.read, self.written + other.written)

    def __sub__(self, other: Use) -> Use:
        return Use(self.cpu - other.cpu, self.read - other.read, self.written - other.written)


@dataclass
class Watch:
    """What the processes below `root`, and those of a database server, use; a context manager."""

    root: int
    server: int | None = None
    spool: Path | None = None
    #: The fullest that the spool was, and the largest that one of Larder's processes was; bytes.
    peak_spool: int = 0
    peak_memory: int = 0
    _seen: dict[tuple[int, int], tuple[str, Use]] = field(default_factory=dict)
    _moments: list[float] = field(default_factory=list)
    _series: list[dict[str, Use]] = field(default_factory=list)

    def __enter__(self) -> Watch:
        self._base = self._by_role(self._look())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._record()

    def used(self, start: float | None = None, end: float | None = None) -> dict[str, Use]:
        """By role, what was used between two moments (seconds since 1970), or all along."""
        last = self._at(end) if end is not None else self._series[-1]
        first = self._at(start) if start is not None else self._base
        return {role: use - first.get(role, Use()) for role, use in last.items()}

    def _at(self, moment: float) -> dict[str, Use]:
        """What had been used by then, between two looks in proportion."""
        after = bisect_right(self._moments, moment)
        if after == 0:
            return self._series[0]
        if after == len(self._moments):
            return self._series[-1]
        before, then = self._moments[after - 1], self._moments[after]
        share = (moment - before) / (then - before)
        earlier, later = self._series[after - 1], self._series[after]
        return {role: _between(earlier.get(role, Use()), use, share) for role, use in later.items()}

    def _watch(self) -> None:
        looks = 0
        while not self._over.wait(LOOK_EVERY):
            self._record()
            if self.spool is not None and looks % SPOOL_EVERY == 0:
                self.peak_spool = max(self.peak_spool, size_of(self.spool))
            looks += 1

    def _record(self) -> None:
        self._moments.append(time.time())
        self._series.append(self._by_role(self._look()))

    def _look(self) -> dict[tuple[int, int], tuple[str, Use]]:
        known = {
            int(one.name): stat
            for one in os.scandir("/proc")
            if one.name.isdigit() and (stat := _stat(one.name)) is not None
        }
        below: dict[int, list[int]] = {}
        for process, stat in known.items():
            below.setdefault(stat.parent, []).append(process)
        for process in _tree(self.root, below):
            if process in known:
                role = _role(known[process].name)
                self._see(process, known[process], role)
                if role == OWN:
                    self.peak_memory = max(self.peak_memory, _peak(process))
        for process in _tree(self.server, below) if self.server is not None else ():
            if process in known:
                self._see(process, known[process], SERVER)
        return self._seen

    def _see(self, process: int, stat: _Stat, role: str) -> None:
        read, written = _io(process)
        self._seen[process, stat.began] = (role, Use(stat.cpu, read, written))

    @staticmethod
    def _by_role(seen: dict[tuple[int, int], tuple[str, Use]]) -> dict[str, Use]:
        found: dict[str, Use] = {}
        for role, use in seen.values():
            found[role] = found.get(role, Use()) + use
        return found


class _Stat(NamedTuple):
    name: str
    parent: int
    cpu: float
    began: int


def _stat(process: str) -> _Stat | None:
    try:
        text = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name stands in brackets, and may hold some.
    name, _, rest = text.partition("(")[2].rpartition(")")
    words = rest.split()
    return _Stat(name, int(words[1]), (int(words[11]) + int(words[12])) / _TICK, int(words[19]))


def _io(process: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{process}/io").read_text().splitlines()
    except OSError:
        return 0, 0
    return int(lines[0].split()[1]), int(lines[1].split()[1])


def _peak(process: int) -> int:
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _role(name: str) -> str:
    if name.startswith("redis"):
        return REDIS
    return OWN if name.startswith(("python", "larder", "celery")) else TOOLS


def _tree(root: int, below: dict[int, list[int]]) -> list[int]:
    found, ahead = [], [root]
    while ahead:
        process = ahead.pop()
        found.append(process)
        ahead += below.get(process, [])
    return found


def _between(earlier: Use, later: Use, share: float) -> Use:
    grown = later - earlier
    return earlier + Use(grown.cpu * share, round(grown.read * share), round(grown.written * share))


def size_of(folder: Path) -> int:
    """Bytes of a folder's files; one with two names counts once, and holes not at all."""
    found: dict[int, int] = {}
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
            if path.is_file():
                found[status.st_ino] = min(status.st_size, status.st_blocks * 512)
        except FileNotFoundError:
            continue
    return sum(found.values())
