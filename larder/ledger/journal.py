"""The journal: the lines that a run wrote for people, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa

from larder.ledger import tables

Level = Literal["INFO", "WARN", "ERROR"]


@dataclass(frozen=True)
class Unwritten:
    """One line that is still to be written."""

    run: str
    moment: datetime
    level: Level
    text: str


@dataclass(frozen=True)
class Line:
    """One line of a run's journal. `id` grows with time."""

    id: int
    moment: datetime
    level: Level
    text: str


class Journal:
    """All lines of a ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def write(self, run_id: str, level: Level, text: str) -> None:
        """Add a line to the run's journal."""
        self.write_all([Unwritten(run_id, datetime.now(UTC), level, text)])

    def write_all(self, unwritten: Sequence[Unwritten]) -> None:
        """Add lines to the journals of their runs, in this order."""
        with self._engine.begin() as connection:
            insert(connection, unwritten)

    def last(self, run_id: str, count: int) -> list[Line]:
        """The last `count` lines of the run, oldest first."""
        lines = tables.lines.c
        query = sa.select(lines.id, lines.moment, lines.level, lines.text).where(lines.run == run_id)
        with self._engine.connect().execution_options(reads=True) as connection:
            found = connection.execute(query.order_by(lines.id.desc()).limit(count))
            return [Line(*row) for row in found][::-1]

    def read(self, run_id: str, after: int = 0) -> list[Line]:
        """The run's lines with an id larger than `after`, oldest first."""
        query = (
            sa.select(tables.lines.c.id, tables.lines.c.moment, tables.lines.c.level, tables.lines.c.text)
            .where(tables.lines.c.run == run_id, tables.lines.c.id > after)
            .order_by(tables.lines.c.id)
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            return [Line(*row) for row in connection.execute(query)]


#: Made once: each step needs it.
_INSERT = tables.lines.insert()


def insert(connection: sa.Connection, unwritten: Sequence[Unwritten]) -> None:
    """Write lines inside the caller's transaction."""
    if unwritten:
        connection.execute(_INSERT, [vars(line) for line in unwritten])
