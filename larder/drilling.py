"""Drills: a backup is restored into a scratch database, which is nobody else's and gone afterwards, and compared.

The contract of a `Scratch`, which `tests/contracts` hold every engine to:

- `refusals` says what a drill could not do here (no server program that is new enough, an extension that is missing,
  too little space), before anything is made. What cannot be proven is no proof that the backup is broken.
- `load` builds the scratch database from nothing, whatever an earlier attempt has left; `examine` compares it with the
  backup's fingerprint. Different processes may call them, one after the other: no process of theirs is left when they
  return or raise, or when their worker is killed.
- `drop` removes everything that `load` has made, whatever it came to. It can be called at any time, twice, and by a
  process that has made none of it.
- Nothing of a drill touches the live database, or a server that was not named for drills.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from larder.errors import LarderError
from larder.progress import Progress
from larder.restoring import Content, Source

if TYPE_CHECKING:
    from larder.config import DatabaseSettings


@dataclass(frozen=True)
class Examination:
    """What a scratch database holds, against the backup's fingerprint."""

    #: How closely was compared: `schema`, `rows`, `content`.
    level: str
    tables: int
    rows: int
    #: By object, expected against found; a line each. None: what came back is what was there.
    differences: tuple[str, ...]
    #: The `checks` of the configuration that are not true, a line each. They may ask for what was never there.
    failed_checks: tuple[str, ...]
    #: What was not compared, and so is not proven; a line each.
    not_covered: tuple[str, ...]


class Scratch(ABC):
    """Where one drill restores into."""

    def __init__(self, settings: DatabaseSettings, drill: str, folder: Path) -> None:
        #: Those of the database whose backup it is: checks, jobs, stall_timeout, scratch_url, postgres_bin.
        self.settings = settings
        self.name = settings.name
        #: The run's id, which names of what is made hold.
        self.drill = drill
        #: A private folder in the run's spool, which need not be there yet.
        self.folder = folder

    @abstractmethod
    def refusals(self, source: Source) -> list[LarderError]:
        """Every reason why `source` could not be restored here; none where it can."""

    @abstractmethod
    def load(self, content: Content, progress: Progress, say: Callable[[str], None]) -> list[str]:
        """Build the scratch database; gives warnings. `progress` counts bytes of `source.raw_size`."""

    @abstractmethod
    def examine(self, content: Content, progress: Progress) -> Examination:
        """Compare what `load` has built with the backup's fingerprint, and run the database's `checks`."""

    @abstractmethod
    def drop(self) -> bool:
        """Remove whatever `load` has made, processes included; says whether there was anything."""
