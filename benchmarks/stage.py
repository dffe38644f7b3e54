"""What a part of the suite is given: a folder, an environment with little in it, and somebody to tell."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants import Contestant


@dataclass(frozen=True)
class Stage:
    """One part's place."""

    name: str
    folder: Path
    began: float
    tell: Callable[[str], None]
    #: A pattern that the keys of contestants have to match, if only some are wanted.
    peers: str | None = None

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self.tell(f"[{time.monotonic() - self.began:6.0f} s] {self.name}: {text}")

    @property
    def environment(self) -> dict[str, str]:
        """What programs need to be found; nothing of the caller's own settings of Larder."""
        return {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(self.folder)}

    def chosen(self, everybody: Sequence[Contestant]) -> list[Contestant]:
        """Those of them that take part."""
        return [one for one in everybody if self.peers is None or re.search(self.peers, one.key)]
