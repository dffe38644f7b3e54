"""Signers: the keys that this ledger's hosts sign manifests with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from larder.ledger import tables


@dataclass(frozen=True)
class Known:
    """A key (base64), who signs with it, and since when (UTC) it is known."""

    public_key: str
    name: str
    since: datetime


class Signers:
    """All keys that a ledger knows."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def remember(self, public_key: str, name: str) -> bool:
        """Note that `name` signs with `public_key` (base64); says whether that is news."""
        if public_key in self.known():
            return False
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    tables.signers.insert().values(
                        public_key=public_key, name=name[:80], since=datetime.now(UTC)
                    )
                )
        except sa.exc.IntegrityError:
            # Another process was faster.
            return False
        return True

    def known(self) -> dict[str, str]:
        """Who signs, by public key."""
        with self._engine.connect().execution_options(reads=True) as connection:
            return {row.public_key: row.name for row in connection.execute(_KNOWN)}

    def all(self) -> list[Known]:
        """Every key, in the order in which they became known."""
        query = sa.select(tables.signers).order_by(tables.signers.c.since, tables.signers.c.public_key)
        with self._engine.connect().execution_options(reads=True) as connection:
            return [Known(**row) for row in connection.execute(query).mappings()]


#: Made once: each backup asks several times.
_KNOWN = sa.select(tables.signers.c.public_key, tables.signers.c.name)
