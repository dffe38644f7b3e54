"""drop: the scratch database goes, whatever it was made for."""

from __future__ import annotations

from tasks.restoration import scratch_of
from tasks.step import Work, step


@step("drop", "drill")
def drop(work: Work) -> None:
    """Remove what `load` has built."""
    if scratch_of(work).drop():
        work.say("The scratch database was removed")
