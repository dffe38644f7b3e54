"""Backups and their copies, as far as this ledger has seen them. The manifests in the stores are the truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from larder.ledger import tables
from larder.manifest import Manifest

_COLUMNS = (
    "id",
    "database",
    "engine",
    "created",
    "artifact",
    "size",
    "sha256",
    "raw_size",
    "proof",
    "pinned",
)


@dataclass(frozen=True)
class Copy:
    """One store's copy: the artifact's key there, and when it was last read back (UTC)."""

    key: str
    verified: datetime


@dataclass(frozen=True)
class Backup:
    """What the ledger knows of a backup. Sizes in bytes; copies by the store's name."""

    id: str
    database: str
    engine: str
    created: datetime
    artifact: str
    size: int
    sha256: str
    raw_size: int
    proof: str
    pinned: bool
    copies: dict[str, Copy]


class Backups:
    """All backups of a ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def record(self, connection: sa.Connection, manifest: Manifest, keys: dict[str, str]) -> None:
        """Write down that every copy of a backup was read back, inside the caller's transaction.

        `keys` gives each store's name and the artifact's key there. Recording twice is fine.
        """
        known = connection.execute(
            sa.select(tables.backups.c.id).where(tables.backups.c.id == manifest.backup)
        ).scalar()
        if known is None:
            connection.execute(
                tables.backups.insert().values(
                    id=manifest.backup,
                    database=manifest.database,
                    run=manifest.run,
                    engine=manifest.engine,
                    created=datetime.fromisoformat(manifest.created),
                    artifact=manifest.artifact.name,
                    size=manifest.artifact.size,
                    sha256=manifest.artifact.sha256,
                    raw_size=manifest.raw.size,
                    proof="stored",
                    pinned=False,
                )
            )
        now = datetime.now(UTC)
        connection.execute(
            tables.copies.delete().where(
                tables.copies.c.backup == manifest.backup, tables.copies.c.store.in_(keys)
            )
        )
        connection.execute(
            tables.copies.insert(),
            [
                {"backup": manifest.backup, "store": store, "key": key, "verified": now}
                for store, key in keys.items()
            ],
        )

    def forget(self, store: str, backup_ids: Iterable[str]) -> None:
        """Note that `store` no longer has these backups; one that no store has is forgotten."""
        gone = list(backup_ids)
        with self._engine.begin() as connection:
            connection.execute(
                tables.copies.delete().where(tables.copies.c.store == store, tables.copies.c.backup.in_(gone))
            )
            left = sa.select(tables.copies.c.backup)
            connection.execute(
                tables.backups.delete().where(tables.backups.c.id.in_(gone), tables.backups.c.id.not_in(left))
            )

    def get(self, backup_id: str) -> Backup | None:
        """The backup `backup_id`, or None where the ledger does not know it."""
        return self._load(tables.backups.c.id == backup_id).get(backup_id)

    def all(self, database: str | None = None) -> dict[str, Backup]:
        """Every backup, or every one of a database, by its id."""
        return self._load(*([] if database is None else [tables.backups.c.database == database]))

    def _load(self, *wanted: sa.ColumnElement[bool]) -> dict[str, Backup]:
        columns = [tables.backups.c[name] for name in _COLUMNS]
        joined = tables.backups.outerjoin(tables.copies, tables.copies.c.backup == tables.backups.c.id)
        query = (
            sa.select(*columns, tables.copies.c.store, tables.copies.c.key, tables.copies.c.verified)
            .select_from(joined)
            .where(*wanted)
            .order_by(tables.backups.c.created)
        )
        found: dict[str, Backup] = {}
        with self._engine.connect().execution_options(reads=True) as connection:
            for *values, store, key, verified in connection.execute(query):
                fields: dict[str, Any] = dict(zip(_COLUMNS, values, strict=True))
                backup = found.setdefault(fields["id"], Backup(**fields, copies={}))
                if store is not None:
                    backup.copies[store] = Copy(key, verified)
        return found
