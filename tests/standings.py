"""Backups and drills that a ledger knows, of whatever day, without a chain that has made them."""

from __future__ import annotations

from datetime import UTC, datetime

from larder.ledger import Ledger, tables
from larder.ledger.drills import Finding, Outcome
from larder.ledger.leases import Lease
from larder.ledger.runs import DRILL_STEPS
from larder.manifest import Content, File, Manifest
from larder.manifest_fields import TIME
from larder.naming import backup_id, moment_of, stamp_of


def manifest_of(backup: str) -> Manifest:
    """A manifest of the backup that is called so."""
    database, _, stamp = backup.partition("/")
    return Manifest(
        backup=backup,
        database=database,
        engine="sqlite",
        created=moment_of(stamp).strftime(TIME),
        artifact=File(f"backup_sqlite_{stamp}.db", 1, "0" * 64),
        raw=Content(1, "0" * 64),
        encoding=(),
        form="file",
        suffix=".db",
        server_version="3",
        tool="sqlite3",
        fingerprint={},
        run="r",
        host="h",
        larder="0.1.0",
    )


def keep(ledger: Ledger, database: str, created: datetime) -> str:
    """A backup with one copy, in the store `nas`; gives its id."""
    manifest = manifest_of(backup_id(database, stamp_of(created)))
    ledger.backups.adopt(manifest, {"nas": manifest.artifact.name})
    return manifest.backup


def drill(
    ledger: Ledger,
    backup: str,
    outcome: Outcome,
    recovery_seconds: float | None = None,
    *,
    created: datetime | None = None,
    trigger: str = "schedule",
    error: str | None = None,
) -> str:
    """A drill that is over, of when it says; gives its run's id."""
    run = ledger.drills.begin(backup.partition("/")[0], backup, "nas", trigger)
    finding = Finding(
        outcome, "rows", 2, 1500, ("table public.orders: 3 rows, found 2",) * (outcome == "broken"), ()
    )
    for name in DRILL_STEPS:
        lease = ledger.leases.take(run.id, name, "host-1")
        assert isinstance(lease, Lease)
        if name == "examine":
            ledger.leases.finish(
                lease, also=lambda connection: ledger.drills.record(connection, run.id, backup, finding)
            )
        else:
            ledger.leases.finish(lease)
    ledger.drills.close(ledger.runs.get(run.id))
    with ledger._engine.begin() as connection:
        connection.execute(
            tables.drills.update()
            .where(tables.drills.c.run == run.id)
            .values(
                created=created or datetime.now(UTC),
                recovery_seconds=recovery_seconds if outcome == "proven" else None,
                error=error,
            )
        )
    return run.id
