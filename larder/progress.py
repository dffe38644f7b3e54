"""Progress of long work: how far, how fast, how much is left.

Work adds the bytes that it has moved; whoever watches gets a report about twice a second. A watcher that
raises is ignored: progress never fails a backup.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from larder.pacing import Pacer

#: Seconds between two reports.
REPORT_EVERY = 0.5


@dataclass(frozen=True)
class Report:
    """One look at work under way. Sizes in bytes, times in seconds."""

    done: int
    total: int | None
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes a second since the work began."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def fraction(self) -> float | None:
        """Between 0 and 1, or None where the total is not known."""
        return min(self.done / self.total, 1.0) if self.total else None

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes at this rate, or None where nobody can say."""
        if not self.total or self.rate == 0 or self.done >= self.total:
            return None
        return (self.total - self.done) / self.rate

    def __str__(self) -> str:
        speed = f"{human_size(self.rate)}/s"
        if self.fraction is None:
            return f"{human_size(self.done)} · {speed}"
        moved = f"{human_size(self.done)} of {human_size(self.total or 0)}"
        left = f" · {human_seconds(self.left)} left" if self.left is not None else ""
        return f"{self.fraction * 100:.0f} % · {moved} · {speed}{left}"


class Progress:
    """Counts bytes and tells a watcher, not more often than `REPORT_EVERY`."""

    def __init__(self, watcher: Callable[[Report], None] | None = None, total: int | None = None) -> None:
        self.total = total
        self.done = 0
        self._watcher = watcher
        self._began = time.monotonic()
        self._told = self._began
        #: What holds up whoever counts, where bytes are to go no faster.
        self.pacer: Pacer | None = None

    def add(self, count: int) -> None:
        """Count `count` more bytes as moved."""
        self.done += count
        self._tell_if_due()
        self._pace(count)

    def reach(self, done: int) -> None:
        """Say that `done` bytes in all have been moved."""
        moved, self.done = done - self.done, done
        self._tell_if_due()
        self._pace(moved)

    def restart(self, total: int | None = None) -> None:
        """Begin a new phase of the same step at zero."""
        self.total = total
        self.done = 0
        self._began = time.monotonic()

    def _pace(self, moved: int) -> None:
        if self.pacer is not None and moved > 0:
            self.pacer.spend(moved)

    def _tell_if_due(self) -> None:
        now = time.monotonic()
        if self._watcher is None or now - self._told < REPORT_EVERY:
            return
        self._told = now
        try:
            self._watcher(Report(self.done, self.total, now - self._began))
        except Exception:  # noqa: BLE001, S110 - a watcher must never stop the work
            pass


def human_size(size: float) -> str:
    """`45.0 MB` for 45_000_000: decimal units, as disk makers and databases' own bills count."""
    for unit in ("B", "kB", "MB", "GB"):
        # As it is printed: 999.96 kB would read 1000.0 kB.
        if abs(round(size, 1)) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"


def human_seconds(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def short_size(size: float) -> str:
    """`45M` for 47_185_920: binary units without a space, as `du -h` and the log lines write them."""
    for unit in ("B", "K", "M", "G"):
        if round(size) < 1024:
            return f"{size:.1f}{unit}" if unit != "B" and round(size, 1) < 10 else f"{size:.0f}{unit}"
        size /= 1024
    return f"{size:.1f}T"
