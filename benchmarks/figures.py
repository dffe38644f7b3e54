"""Figures from what was measured: medians, spreads, ratios, and whether a target holds. Nothing here runs anything."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: What was measured, as the results file has it: a part's name, and its document.
Parts = dict[str, dict[str, Any]]

#: How an entry of a part is called by the parts that compare with it.
SCRIPT: Final = "script"
LIMIT: Final = "limit"


def median(values: Sequence[float]) -> float:
    """The middle value; of an even number, the mean of the two in the middle."""
    return float(statistics.median(values))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The least and the greatest value: `4.10–5.20`."""
    return f"{min(values):.{digits}f}–{max(values):.{digits}f}"


def entry(part: dict[str, Any], key: str) -> dict[str, Any] | None:
    """One contestant of a part; None where it did not take part."""
    return next((one for one in part.get("contestants", []) if one["key"] == key), None)


def ratio(part: dict[str, Any], key: str, base: str) -> float | None:
    """The median time of one contestant as a part of another's; None where one of them is not there."""
    mine, other = entry(part, key), entry(part, base)
    if mine is None or other is None or not mine["seconds"] or not other["seconds"]:
        return None
    return median(mine["seconds"]) / median(other["seconds"])


@dataclass(frozen=True)
class Target:
    """What one figure of one part has to keep to."""

    part: str
    #: What the figure is, in words that go into a table.
    what: str
    #: The figure, from the part's document; None where it was not measured.
    value: Callable[[dict[str, Any]], float | None]
    bound: float
    unit: str = ""
    #: Whether the figure has to be `bound` at least, not at most.
    least: bool = False
    #: Whose row of the part's table it belongs to, and which column.
    key: str = ""
    base: str = ""

    def holds(self, value: float) -> bool:
        """Whether a figure keeps to it, as it is printed: a second digit that nobody sees decides nothing."""
        shown = float(self.number(value))
        return shown >= self.bound if self.least else shown <= self.bound

    def number(self, value: float) -> str:
        """A figure with as many digits as the bound deserves."""
        digits = 0 if abs(self.bound) >= 10 else 2
        return f"{value:.{digits}f}"

    @property
    def wanted(self) -> str:
        """The bound, as a table shows it."""
        return f"{'≥' if self.least else '≤'} {self.number(self.bound)}{self.unit}"


@dataclass(frozen=True)
class Verdict:
    """A target, and what was measured."""

    target: Target
    value: float

    @property
    def good(self) -> bool:
        """Whether the target holds."""
        return self.target.holds(self.value)

    @property
    def shown(self) -> str:
        """The figure, as a table shows it."""
        return f"{self.target.number(self.value)}{self.target.unit}"


def _against(part: str, what: str, key: str, base: str, bound: float) -> Target:
    return Target(part, what, lambda found: ratio(found, key, base), bound, key=key, base=base)


def _figure(name: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda found: found.get("figures", {}).get(name)


def _largest_over_smallest(found: dict[str, Any]) -> float | None:
    peaks = [one["peak"] for one in found.get("sizes", [])]
    return max(peaks) / min(peaks) if len(peaks) > 1 else None


def _cost_grows_by(found: dict[str, Any]) -> float | None:
    costs = [one["seconds"] / one["databases"] for one in found.get("scales", [])]
    return costs[-1] / min(costs) if len(costs) > 1 else None


def _times_faster(prefix: str) -> Callable[[dict[str, Any]], float | None]:
    def value(found: dict[str, Any]) -> float | None:
        return ratio(found, f"{prefix}-{SCRIPT}", f"{prefix}-larder")

    return value


def _spool(found: dict[str, Any]) -> float | None:
    mine = entry(found, "larder-gzip")
    return mine["peak_spool"] / mine["raw"] if mine and mine.get("peak_spool") else None


def _memory(found: dict[str, Any]) -> float | None:
    peaks = [one["peak_memory"] for one in found.get("contestants", []) if one["kind"] == "larder"]
    return max(peaks) / 1e6 if peaks else None


#: What Larder has to keep to.
TARGETS: Final = (
    _against("backup", "plain, gzip: of the script", "larder-gzip", SCRIPT, 0.58),
    _against("backup", "plain, gzip: of `pg_dump` alone", "larder-gzip", LIMIT, 1.20),
    _against("backup", "plain, zstd: of `pg_dump` alone", "larder-zstd", LIMIT, 1.12),
    _against("backup", "directory: of the script", "larder-directory", SCRIPT, 0.45),
    Target("backup", "plain, gzip: spool at its fullest, of the raw dump", _spool, 0.30),
    Target("backup", "largest process", _memory, 200, " MB"),
    _against("sqlite", "of the script", "larder", SCRIPT, 0.25),
    _against("restore", "directory: of `gunzip -c … | psql`", "larder-directory", SCRIPT, 0.55),
    _against("restore", "plain: of `gunzip -c … | psql`", "larder-plain", SCRIPT, 0.80),
    Target("overhead", "SQLite: the chain itself", _figure("sqlite_overhead"), 60, " ms"),
    Target("overhead", "SQLite: ledger, of that", _figure("sqlite_ledger"), 25, " ms"),
    Target("overhead", "PostgreSQL: the chain itself", _figure("postgres_overhead"), 60, " ms"),
    Target("overhead", "PostgreSQL: ledger, of that", _figure("postgres_ledger"), 25, " ms"),
    Target(
        "fleet", "SQLite: times as many backups a second as the script", _times_faster("sqlite"), 5, least=True
    ),
    Target("fleet", "a database's cost in the largest fleet, of that in the cheapest", _cost_grows_by, 1.15),
    Target("memory", "largest process, at most, of that with the smallest database", _largest_over_smallest, 1.10),
    Target("idle", "worker, beat and console together, of a core", _figure("percent"), 1, " %"),
)  # fmt: skip


def verdicts(name: str, part: dict[str, Any]) -> list[Verdict]:
    """The targets of a part that can be judged by what was measured."""
    found = []
    for target in TARGETS:
        if target.part == name:
            value = target.value(part)
            if value is not None:
                found.append(Verdict(target, value))
    return found


def failures(parts: Parts) -> list[str]:
    """What is wrong, one line each: targets that are missed, and results of Larder's that do not restore."""
    wrong = []
    for name, part in parts.items():
        wrong += [
            f"{name}: {one.target.what}: {one.shown} (wanted {one.target.wanted})"
            for one in verdicts(name, part)
            if not one.good
        ]
        wrong += [
            f"{name}: {one['label']} does not restore: {one['restored']}"
            for one in part.get("contestants", [])
            if one["kind"] == "larder" and one["restored"] is not True
        ]
    return wrong
