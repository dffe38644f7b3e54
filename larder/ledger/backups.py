"""Backups and their copies, as far as this ledger has seen them. The manifests in the stores are the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from larder.ledger import tables
from larder.ledger.newest import last_of_each, newest_of_each, parts
from larder.manifest import Manifest, Previous
from larder.naming import parse_backup_id

#: What a copy's problem says whose manifest was not in its store. It is none any more once the manifest is back.
GONE = "its manifest is gone, and nobody here removed it"

#: How many ids a query names at most: databases bound the number of parameters.
_AT_ONCE = 1000

_COLUMNS = (
    "id",
    "database",
    "engine",
    "created",
    "artifact",
    "size",
    "sha256",
    "raw_size",
    "manifest",
    "proof",
    "pinned",
    "drilled",
)


@dataclass(frozen=True)
class Copy:
    """One store's copy: the artifact's key there."""

    key: str
    #: When it was last read to its end (UTC); None where only its manifest vouches for it.
    verified: datetime | None
    #: What was wrong with it then.
    problem: str | None = None


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
    #: The SHA-256 of its manifest's bytes; None for one from before manifests were linked.
    manifest: str | None
    proof: str
    pinned: bool
    copies: dict[str, Copy]
    #: What its last drill found, `proven` or `broken`; None where none has found anything.
    drilled: str | None = None


@dataclass(frozen=True)
class Removal:
    """A copy that was deleted on purpose, when (UTC) and why."""

    backup: str
    store: str
    database: str
    moment: datetime
    reason: str


class Backups:
    """All backups of a ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def record(
        self,
        connection: sa.Connection,
        manifest: Manifest,
        keys: Mapping[str, str],
        *,
        verified: datetime | None,
    ) -> None:
        """Write down copies of a backup, inside the caller's transaction. Recording twice is fine.

        `keys` gives each store's name and the artifact's key there; `verified` says when they were read to their end,
        or that nobody has read them yet.
        """
        this = {"this_backup": manifest.backup}
        if connection.execute(_KNOWN, this).scalar() is None:
            connection.execute(tables.backups.insert(), _row(manifest))
        connection.execute(_DROP_COPIES, {**this, "these_stores": list(keys)})
        connection.execute(
            tables.copies.insert(),
            [
                {"backup": manifest.backup, "store": store, "key": key, "verified": verified}
                for store, key in keys.items()
            ],
        )

    def adopt(self, manifest: Manifest, keys: Mapping[str, str]) -> None:
        """Write down copies that were found in stores and that this ledger does not know yet."""
        with self._engine.begin() as connection:
            known = set(
                connection.execute(
                    sa.select(tables.copies.c.store).where(tables.copies.c.backup == manifest.backup)
                ).scalars()
            )
            missing = {store: key for store, key in keys.items() if store not in known}
            if missing:
                self.record(connection, manifest, missing, verified=None)

    def checked(self, backup_id: str, store: str, problem: str | None) -> None:
        """Note that a copy has been read to its end just now, and what was wrong with it.

        A backup whose every copy is wrong is `broken`; one that has a good copy again is what its last drill found, or
        `stored`.
        """
        with self._engine.begin() as connection:
            copy = sa.and_(tables.copies.c.backup == backup_id, tables.copies.c.store == store)
            connection.execute(
                tables.copies.update().where(copy).values(verified=datetime.now(UTC), problem=problem)
            )
            good = sa.exists().where(
                tables.copies.c.backup == tables.backups.c.id, tables.copies.c.problem.is_(None)
            )
            this = tables.backups.c.id == backup_id
            connection.execute(tables.backups.update().where(this, ~good).values(proof="broken"))
            connection.execute(
                tables.backups.update()
                .where(this, good, tables.backups.c.proof == "broken")
                .values(proof=sa.func.coalesce(tables.backups.c.drilled, "stored"))
            )

    def drilled(self, connection: sa.Connection, backup_id: str, outcome: str) -> None:
        """Note what a drill has found, `proven` or `broken`, inside the caller's transaction.

        One of which no good copy is known any more is `broken`, until a good one is found.
        """
        good = sa.exists().where(tables.copies.c.backup == backup_id, tables.copies.c.problem.is_(None))
        connection.execute(
            tables.backups.update()
            .where(tables.backups.c.id == backup_id)
            .values(drilled=outcome, proof=sa.case((good, outcome), else_="broken"))
        )

    def missed(self, backup_id: str, store: str) -> None:
        """Note that a copy is not where it should be. It counts as read as long ago as before."""
        with self._engine.begin() as connection:
            copy = sa.and_(tables.copies.c.backup == backup_id, tables.copies.c.store == store)
            connection.execute(tables.copies.update().where(copy).values(problem=GONE))

    def newest_keys(self, store: str, limit: int = 3) -> list[str]:
        """The keys of the newest artifacts that should be in `store`, of whatever database."""
        with self._engine.connect().execution_options(reads=True) as connection:
            return list(connection.execute(_NEWEST_KEYS, {"this_store": store, "count": limit}).scalars())

    def newest_manifest(self, database: str, before: str) -> Previous | None:
        """The database's newest backup that is older than the backup `before`, to be named by its manifest."""
        given = {"this_database": database, "before": before}
        with self._engine.connect().execution_options(reads=True) as connection:
            found = connection.execute(_NEWEST_MANIFEST, given).one_or_none()
        return Previous(*found) if found else None

    def forget(self, store: str, backup_ids: Iterable[str], reason: str = "by its retention policy") -> None:
        """Note that these backups were deleted from `store` on purpose; one that no store has is forgotten."""
        gone = list(backup_ids)
        with self._engine.begin() as connection:
            for backup_id in gone:
                _remember_removal(connection, backup_id, store, reason)
            connection.execute(
                tables.copies.delete().where(tables.copies.c.store == store, tables.copies.c.backup.in_(gone))
            )
            left = sa.select(tables.copies.c.backup)
            connection.execute(
                tables.backups.delete().where(tables.backups.c.id.in_(gone), tables.backups.c.id.not_in(left))
            )

    def leaves(self, store: str, backup_id: str, reason: str) -> None:
        """Note that a backup is about to be deleted from `store` on purpose."""
        with self._engine.begin() as connection:
            _remember_removal(connection, backup_id, store, reason)

    def set_pinned(self, backup_id: str, *, pinned: bool) -> None:
        """Note whether a store has the backup's pin; one that the ledger does not know is fine."""
        with self._engine.begin() as connection:
            connection.execute(
                tables.backups.update().where(tables.backups.c.id == backup_id).values(pinned=pinned)
            )

    def accept(self, database: str, moment: datetime) -> None:
        """Note that the size of the newest backup, made at `moment`, is right. What was accepted later stands."""
        this = tables.accepted.c.database == database
        with self._engine.begin() as connection:
            before = connection.execute(sa.select(tables.accepted.c.moment).where(this)).scalar()
            if before is None or before < moment:
                connection.execute(tables.accepted.delete().where(this))
                connection.execute(tables.accepted.insert().values(database=database, moment=moment))

    def accepted(self, database: str) -> datetime | None:
        """When the newest backup had been made as its size was last accepted; None where nobody has yet."""
        with self._engine.connect().execution_options(reads=True) as connection:
            found: datetime | None = connection.execute(_ACCEPTED, {"this_database": database}).scalar()
        return found

    def removed(self, database: str | None = None) -> set[tuple[str, str]]:
        """Backup and store of every copy that was deleted on purpose."""
        query = sa.select(tables.removed.c.backup, tables.removed.c.store)
        if database is not None:
            query = query.where(tables.removed.c.database == database)
        with self._engine.connect().execution_options(reads=True) as connection:
            return {(backup, store) for backup, store in connection.execute(query)}

    def removals(self, since: datetime) -> list[Removal]:
        """The copies that were deleted on purpose from `since` on, oldest first."""
        query = (
            sa.select(tables.removed)
            .where(tables.removed.c.moment >= since)
            .order_by(tables.removed.c.moment, tables.removed.c.backup, tables.removed.c.store)
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            return [Removal(**row) for row in connection.execute(query).mappings()]

    def between(self, start: datetime, end: datetime) -> list[Backup]:
        """The backups that were made from `start` on and before `end`, oldest first."""
        found = self._load(_LOAD.where(_BACKUPS.created >= start, _BACKUPS.created < end))
        return sorted(found.values(), key=lambda backup: (backup.created, backup.id))

    def known(self, backup_ids: Iterable[str]) -> set[str]:
        """Those of these backups that the ledger knows."""
        wanted, found = list(backup_ids), set[str]()
        with self._engine.connect().execution_options(reads=True) as connection:
            for at in range(0, len(wanted), _AT_ONCE):
                some = tables.backups.c.id.in_(wanted[at : at + _AT_ONCE])
                found.update(connection.execute(sa.select(tables.backups.c.id).where(some)).scalars())
        return found

    def get(self, backup_id: str) -> Backup | None:
        """The backup `backup_id`, or None where the ledger does not know it."""
        return self._load(_LOAD_ONE, {"this_backup": backup_id}).get(backup_id)

    def all(self, database: str | None = None) -> dict[str, Backup]:
        """Every backup, or every one of a database, by its id."""
        return self._load(_LOAD) if database is None else self._load(_LOAD_OF, {"this_database": database})

    def latest(self, database: str | None, limit: int, before: Backup | None = None) -> list[Backup]:
        """The newest backups, newest first: of one database, or older than the backup `before`."""
        row = tables.backups.c
        query = sa.select(row.id).order_by(row.created.desc(), row.id.desc()).limit(limit)
        if database is not None:
            query = query.where(row.database == database)
        if before is not None:
            older = sa.and_(row.created == before.created, row.id < before.id)
            query = query.where(sa.or_(row.created < before.created, older))
        return list(self._load(_LOAD.where(row.id.in_(query))).values())[::-1]

    def sizes(self, databases: Sequence[str], count: int) -> dict[str, list[tuple[datetime, float]]]:
        """When the last `count` backups of each of `databases` were taken, and their sizes in bytes, oldest first."""
        row = tables.backups.c
        found: dict[str, list[tuple[datetime, float]]] = {}
        with self._engine.connect().execution_options(reads=True) as connection:
            columns = [row.database, row.created, row.size]
            for name, created, size in last_of_each(connection, columns, databases, count):
                found.setdefault(name, []).append((created, float(size)))
        return found

    def newest(self) -> dict[str, Backup]:
        """The newest backup of each database, by the database's name."""
        with self._engine.connect().execution_options(reads=True) as connection:
            ids = [found for _, found in newest_of_each(connection, [tables.backups.c.id])]
        found = [
            backup
            for some in parts(ids)
            for backup in self._load(_LOAD.where(tables.backups.c.id.in_(some))).values()
        ]
        return {backup.database: backup for backup in found}

    def _load(self, query: sa.Select[Any], given: Mapping[str, object] | None = None) -> dict[str, Backup]:
        found: dict[str, Backup] = {}
        with self._engine.connect().execution_options(reads=True) as connection:
            for *values, store, key, verified, problem in connection.execute(query, given):
                fields: dict[str, Any] = dict(zip(_COLUMNS, values, strict=True))
                backup = found.setdefault(fields["id"], Backup(**fields, copies={}))
                if store is not None:
                    backup.copies[store] = Copy(key, verified, problem)
        return found


#: Made once: each backup needs them all, and a statement that is made anew takes longer than what it asks.
_BACKUPS, _COPIES = tables.backups.c, tables.copies.c

_LOAD = (
    sa.select(
        *(_BACKUPS[name] for name in _COLUMNS), _COPIES.store, _COPIES.key, _COPIES.verified, _COPIES.problem
    )
    .select_from(tables.backups.outerjoin(tables.copies, _COPIES.backup == _BACKUPS.id))
    .order_by(_BACKUPS.created, _BACKUPS.id)
)

_LOAD_ONE = _LOAD.where(_BACKUPS.id == sa.bindparam("this_backup"))
_LOAD_OF = _LOAD.where(_BACKUPS.database == sa.bindparam("this_database"))

_KNOWN = sa.select(_BACKUPS.id).where(_BACKUPS.id == sa.bindparam("this_backup"))
_DROP_COPIES = tables.copies.delete().where(
    _COPIES.backup == sa.bindparam("this_backup"),
    _COPIES.store.in_(sa.bindparam("these_stores", expanding=True)),
)

#: From the newest backup on until there are enough: a join would look through every copy that there is.
_KEY = (
    sa.select(_COPIES.key)
    .where(_COPIES.backup == _BACKUPS.id, _COPIES.store == sa.bindparam("this_store"))
    .correlate(tables.backups)
)
_NEWEST_KEYS = (
    sa.select(_KEY.scalar_subquery())
    .select_from(tables.backups)
    .where(_KEY.exists())
    .order_by(_BACKUPS.created.desc(), _BACKUPS.id.desc())
    .limit(sa.bindparam("count", type_=sa.Integer))
)

_NEWEST_MANIFEST = (
    sa.select(_BACKUPS.id, _BACKUPS.manifest)
    .where(
        _BACKUPS.database == sa.bindparam("this_database"),
        _BACKUPS.id < sa.bindparam("before"),
        _BACKUPS.manifest.is_not(None),
        _BACKUPS.proof != "broken",
    )
    .order_by(_BACKUPS.id.desc())
    .limit(1)
)

_ACCEPTED = sa.select(tables.accepted.c.moment).where(
    tables.accepted.c.database == sa.bindparam("this_database")
)


def _row(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.backup,
        "database": manifest.database,
        "run": manifest.run,
        "engine": manifest.engine,
        "created": manifest.created_at,
        "artifact": manifest.artifact.name,
        "size": manifest.artifact.size,
        "sha256": manifest.artifact.sha256,
        "raw_size": manifest.raw.size,
        "manifest": manifest.digest,
        "proof": "stored",
        "pinned": False,
    }


def _remember_removal(connection: sa.Connection, backup_id: str, store: str, reason: str) -> None:
    this = sa.and_(tables.removed.c.backup == backup_id, tables.removed.c.store == store)
    connection.execute(tables.removed.delete().where(this))
    connection.execute(
        tables.removed.insert().values(
            backup=backup_id,
            store=store,
            database=parse_backup_id(backup_id)[0],
            moment=datetime.now(UTC),
            reason=reason,
        )
    )
