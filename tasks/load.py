"""load: the new database is built beside the live one, which goes on as if nothing happened; or in a scratch place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.restoration import condemning, content_of, loader
from tasks.step import Work, step


@dataclass(frozen=True)
class Loaded:
    """What `load` has to say once it is done."""

    warnings: tuple[str, ...]


@step("load", "restore", "drill")
def load(work: Work) -> None:
    """Build the new database. What an attempt before this one left half-built is removed first."""
    build = loader(work)

    def make(_folder: Path) -> Loaded:
        content = content_of(work)
        work.progress.restart(content.source.raw_size)
        return Loaded(tuple(build(content, work.progress, work.say)))

    with condemning(work):
        loaded = work.spool.once("load", work.lease.attempt, Loaded, make)
    for warning in loaded.warnings:
        work.warn(warning)
