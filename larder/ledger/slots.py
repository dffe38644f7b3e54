"""Slots: what the clock has started, so that two schedulers start it once."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from larder.ledger import tables

#: How long a slot is remembered: much longer than any message can be late.
_REMEMBERED = timedelta(days=60)

#: What stands before the name of a task that is still to be started.
_OWED = "owed "


class Slots:
    """All slots of a ledger, beside those of runs."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def claim(self, task: str, slot: datetime) -> bool:
        """Take the slot for this caller; False where somebody was first."""
        try:
            with self._engine.begin() as connection:
                connection.execute(tables.slots.insert().values(task=task, slot=slot))
                connection.execute(
                    tables.slots.delete().where(
                        tables.slots.c.task == task, tables.slots.c.slot < slot - _REMEMBERED
                    )
                )
        except sa.exc.IntegrityError:
            return False
        return True

    def owe(self, task: str, slot: datetime) -> None:
        """Note that what a claimed slot should have started could not be started then. A later slot takes its place."""
        with self._engine.begin() as connection:
            connection.execute(tables.slots.delete().where(tables.slots.c.task == _OWED + task))
            connection.execute(tables.slots.insert().values(task=_OWED + task, slot=slot))

    def owed(self, prefix: str) -> list[tuple[str, datetime]]:
        """The tasks beginning with `prefix` that are owed, and their slots."""
        query = sa.select(tables.slots).where(tables.slots.c.task.startswith(_OWED + prefix, autoescape=True))
        with self._engine.connect().execution_options(reads=True) as connection:
            return [(row.task.removeprefix(_OWED), row.slot) for row in connection.execute(query)]

    def settle(self, task: str) -> None:
        """Note that a task is owed no more."""
        with self._engine.begin() as connection:
            connection.execute(tables.slots.delete().where(tables.slots.c.task == _OWED + task))
