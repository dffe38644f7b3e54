"""Slots: what the clock has started, so that two schedulers start it once."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from larder.ledger import tables

#: How long a slot is remembered: much longer than any message can be late.
_REMEMBERED = timedelta(days=60)


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
