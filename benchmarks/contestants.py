"""What takes part in a comparison, and how it is run: in turn, round by round, so that a slow minute hits everybody."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.figures import LIMIT
from benchmarks.running import Done, Failed, Place
from benchmarks.watching import OWN, REDIS, SERVER, TOOLS, Use, Watch


class Different(Exception):
    """What came back is not what was backed up."""


@dataclass(frozen=True)
class Step:
    """One of Larder's steps: its seconds, and when it ran (seconds since 1970)."""

    name: str
    seconds: float
    started: float
    finished: float


@dataclass(frozen=True)
class Taken:
    """What one run of one contestant took. Sizes in bytes."""

    seconds: float
    size: int = 0
    raw: int = 0
    #: Of the whole command, where that is more than what is compared.
    command: float | None = None
    steps: Sequence[Step] = ()
    watch: Watch | None = None

    @classmethod
    def of(cls, done: Done, size: int = 0) -> Taken:
        """A run that is one program from its start to its end."""
        return cls(done.seconds, size, watch=done.watch)


class Contestant:
    """One way to do it. A run has a folder of its own, which is empty at first and gone after it."""

    key: str
    label: str
    #: `larder`, `script`, `limit` for what nothing can be faster than, or `peer`.
    kind: str = "peer"
    #: What a reader should know of it.
    note: str = ""
    programs: Sequence[str] = ()

    def missing(self) -> str | None:
        """Why it cannot take part; None when it can."""
        absent = [name for name in self.programs if shutil.which(name) is None]
        return f"{' and '.join(absent)} not installed" if absent else None

    def run(self, place: Place) -> Taken:
        """Do it once; what has to be there before is made first and not counted."""
        raise NotImplementedError

    def check(self, place: Place) -> None:
        """Bring back what the last run made, and compare; raises `Different` or `Failed`."""
        raise NotImplementedError

    def tidy(self) -> None:
        """Remove what a run has left outside its folder."""


@dataclass
class _Entry:
    contestant: Contestant
    taken: list[Taken] = field(default_factory=list)
    watched: Taken | None = None
    restored: bool | str = True


def compete(
    contestants: Sequence[Contestant], rounds: int, place: Place, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run everybody once to warm up, watched and with a look at the result; then `rounds` times for the figures."""
    entries, skipped = [], []
    for contestant in contestants:
        why = contestant.missing()
        if why is None:
            entries.append(_Entry(contestant))
        else:
            say(f"{contestant.label}: skipped, {why}")
            skipped.append({"label": contestant.label, "why": why})
    for entry in entries:
        _warm_up(entry, place, say)
    for number in range(1, rounds + 1):
        said = []
        for entry in entries:
            if entry.watched is None:
                continue
            with _folder(place) as here:
                try:
                    entry.taken.append(entry.contestant.run(here))
                finally:
                    entry.contestant.tidy()
            said.append(f"{entry.contestant.label} {entry.taken[-1].seconds:.2f} s")
        say(f"round {number} of {rounds}: " + " · ".join(said))
    return {"contestants": [_document(entry) for entry in entries], "skipped": skipped}


def _warm_up(entry: _Entry, place: Place, say: Callable[[str], None]) -> None:
    with _folder(replace(place, watched=True)) as here:
        try:
            entry.watched = entry.contestant.run(here)
            entry.contestant.check(replace(here, watched=False))
            restores = "" if entry.contestant.kind == LIMIT else ", and what it made restores"
            say(f"{entry.contestant.label}: {entry.watched.seconds:.2f} s{restores}")
        except (Different, Failed) as problem:
            entry.restored = in_one_line(str(problem))
            say(f"{entry.contestant.label}: DOES NOT RESTORE: {problem}")
        finally:
            entry.contestant.tidy()


def in_one_line(text: str) -> str:
    """What went wrong, as a cell of a table: the end of it, without the paths of this machine."""
    return re.sub(r"(?<!\S)(['\"(]?)/[^\s:'\"]+", r"\1…", " ".join(text.split()))[-200:]


@contextmanager
def _folder(place: Place) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=place.folder))
    try:
        yield replace(place, folder=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _document(entry: _Entry) -> dict[str, Any]:
    contestant, watched = entry.contestant, entry.watched
    found: dict[str, Any] = {
        "key": contestant.key,
        "label": contestant.label,
        "kind": contestant.kind,
        "note": contestant.note,
        "restored": entry.restored,
        "seconds": [_rounded(taken.seconds) for taken in entry.taken],
    }
    if watched is None or watched.watch is None:
        return found
    watch = watched.watch
    # Of a chain, not of the command around it.
    whole = (watched.steps[0].started, watched.steps[-1].finished) if watched.steps else (None, None)
    found |= {"size": watched.size, "peak_memory": watch.peak_memory, **_use(watch.used(*whole))}
    if watched.raw:
        found["raw"] = watched.raw
    if watch.peak_spool:
        found["peak_spool"] = watch.peak_spool
    commands = [_rounded(taken.command) for taken in entry.taken if taken.command is not None]
    if commands:
        found["command"] = commands
    found["steps"] = _steps(entry, watched.steps, watch)
    return found


def _steps(entry: _Entry, steps: Sequence[Step], watch: Watch) -> list[dict[str, Any]]:
    """Each step of a chain, and what passes between them, which is nobody's: messages on their way."""
    found = [
        {
            "name": step.name,
            "seconds": [_rounded(taken.steps[at].seconds) for taken in entry.taken],
            **_use(watch.used(step.started, step.finished)),
        }
        for at, step in enumerate(steps)
    ]
    if found:
        between: dict[str, Use] = {}
        for before, after in pairwise(steps):
            for role, use in watch.used(before.finished, after.started).items():
                between[role] = between.get(role, Use()) + use
        rest = [taken.seconds - sum(step.seconds for step in taken.steps) for taken in entry.taken]
        found.append(
            {"name": "between steps", "seconds": [_rounded(max(one, 0)) for one in rest], **_use(between)}
        )
    return found


def _use(used: dict[str, Use]) -> dict[str, Any]:
    whole = used.get(OWN, Use()) + used.get(TOOLS, Use())
    return {
        "cpu": {role: _rounded(used.get(role, Use()).cpu) for role in (OWN, TOOLS, SERVER, REDIS)},
        "read": whole.read,
        "written": whole.written,
    }


def _rounded(seconds: float) -> float:
    return round(seconds, 4)
