"""The audit trail: who did what about restores, in rows that are added and never changed.

Each row holds the hash of the one before it, so that a row that was altered, taken out or put in shows. What was cut
off at the end does not: whoever keeps the last hash elsewhere (`larder audit verify` prints it) sees that too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from larder.errors import IntegrityError
from larder.ledger import tables
from larder.secret import redact

#: What the first row has in the place of a hash before it.
GENESIS: Final = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One row of the trail. `moment` is UTC, ISO 8601, to the microsecond."""

    number: int
    moment: str
    event: str
    request: str | None
    actor: str
    facts: Mapping[str, Any]
    previous: str
    hash: str


class Audit:
    """The trail of a ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def write(self, event: str, request: str | None, actor: str, **facts: object) -> None:
        """Add a row. Secrets in the facts are masked."""
        with self._engine.begin() as connection:
            self.add(connection, event, request, actor, **facts)

    def add(
        self, connection: sa.Connection, event: str, request: str | None, actor: str, **facts: object
    ) -> None:
        """Add a row inside the caller's transaction: it is there exactly when what it tells of has happened."""
        if connection.dialect.name == "postgresql":
            # One after the other: each row names the one before it. SQLite has one writer at a time anyway.
            connection.execute(sa.text("LOCK TABLE audit IN EXCLUSIVE MODE"))
        last = connection.execute(
            sa.select(tables.audit.c.number, tables.audit.c.hash)
            .order_by(tables.audit.c.number.desc())
            .limit(1)
        ).one_or_none()
        number, previous = (last.number + 1, last.hash) if last else (1, GENESIS)
        row = {
            "number": number,
            "moment": datetime.now(UTC).isoformat(timespec="microseconds"),
            "event": event,
            "request": request,
            "actor": redact(actor),
            "facts": redact(json.dumps(facts, sort_keys=True, ensure_ascii=False, default=str)),
            "previous": previous,
        }
        connection.execute(tables.audit.insert().values(**row, hash=_hash_of(row)))

    def read(self, request: str | None = None) -> list[Entry]:
        """The rows, oldest first; those of one request, or all."""
        query = sa.select(tables.audit).order_by(tables.audit.c.number)
        if request is not None:
            query = query.where(tables.audit.c.request == request)
        return self._entries(query)

    def _entries(self, query: sa.Select[Any]) -> list[Entry]:
        with self._engine.connect().execution_options(reads=True) as connection:
            return [
                Entry(**{**row, "facts": _facts(row["facts"])})
                for row in connection.execute(query).mappings()
            ]

    def last(self, count: int) -> list[Entry]:
        """The last `count` rows, newest first."""
        query = sa.select(tables.audit).order_by(tables.audit.c.number.desc()).limit(count)
        return self._entries(query)

    def between(self, start: datetime, end: datetime) -> list[dict[str, Any]]:
        """The rows from the first to the last that was written from `start` on and before `end`, oldest first.

        They are as they are kept, facts in their text: each hash can be calculated again, see `problem_with`.
        """
        first, last = (moment.astimezone(UTC).isoformat(timespec="microseconds") for moment in (start, end))
        inside = sa.and_(tables.audit.c.moment >= first, tables.audit.c.moment < last)
        # Clocks of two hosts may differ: the rows between are wanted whole, or the chain would have gaps.
        bounds = sa.select(sa.func.min(tables.audit.c.number), sa.func.max(tables.audit.c.number)).where(
            inside
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            lowest, highest = connection.execute(bounds).one()
            if lowest is None:
                return []
            query = (
                sa.select(tables.audit)
                .where(tables.audit.c.number.between(lowest, highest))
                .order_by(tables.audit.c.number)
            )
            return [dict(row) for row in connection.execute(query).mappings()]

    def verify(self, expected: str | None = None) -> tuple[int, str]:
        """See that every row is as it was written; gives their number and the last one's hash.

        `expected` is the hash of a row that has to be there: one that was the last when somebody wrote it down. Raises
        `IntegrityError`, naming the first row that is not as it was written.
        """
        seen = expected is None
        number, previous = 0, GENESIS
        query = sa.select(tables.audit).order_by(tables.audit.c.number)
        with self._engine.connect().execution_options(reads=True) as connection:
            for row in connection.execute(query).mappings():
                number += 1
                what = problem_with(dict(row), number, previous)
                if what:
                    raise IntegrityError(
                        f"unable to verify the audit trail: row {row['number']} {what}",
                        "somebody has changed the ledger by hand: compare it with a backup of it",
                    )
                previous = row["hash"]
                seen = seen or previous == expected
        if not seen:
            raise IntegrityError(
                "unable to verify the audit trail: no row has the hash that was expected",
                "rows were taken off its end: compare the ledger with a backup of it",
            )
        return number, previous


def problem_with(row: Mapping[str, Any], number: int, previous: str) -> str | None:
    """What is wrong with a row that should be the `number`th, after one with the hash `previous`; None for nothing."""
    if row["number"] != number:
        return f"stands where row {number} should"
    if row["previous"] != previous:
        return "does not follow the row before it"
    if row["hash"] != _hash_of({key: row[key] for key in row if key != "hash"}):
        return "was altered"
    return None


def _hash_of(row: Mapping[str, Any]) -> str:
    text = json.dumps(dict(row), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _facts(text: str) -> dict[str, Any]:
    """What a row tells. One that was altered is read all the same: `verify` says so."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"unreadable": text}
