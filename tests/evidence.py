"""A ledger that has seen a month: backups, drills, restores, misses, failures, at times that are always the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from larder import evidence
from larder.config import Settings, load
from larder.evidence import Document, Period
from larder.evidence_gather import gather
from larder.evidence_report import report_of
from larder.ledger import open_ledger, tables
from larder.ledger.schema import open_engine
from larder.manifest_fields import TIME
from larder.naming import stamp_of
from larder.signing import Signer
from tests.approvals import ALICE, REQUEST

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(b"s" * 32))

START = datetime(2026, 10, 1, tzinfo=UTC)
PERIOD = Period(START, datetime(2026, 11, 1, tzinfo=UTC))
MADE = datetime(2026, 11, 2, 8, 30, tzinfo=UTC)

#: A password that is in the configuration, and must be nowhere else.
PASSWORD = "correct-horse-battery"

#: What somebody who can write to the ledger would have a reader's browser do.
HOSTILE = "</td></table><script>alert('1')</script><img src=x onerror=alert(2)>\u202egnp.\x1b[31m"

TOML = f"""
[databases.shop]
url = "postgresql://backup:{PASSWORD}@db.example:5432/shop"
rto = "10m"
drill = "0 4 * * 0"
retention = {{ daily = 7, weekly = 4, monthly = 12 }}
[databases.crm]
url = "sqlite:////srv/crm.db"
[stores.local]
path = "backups"
[stores.nas]
path = "/mnt/nas"
[signers.web1]
public_key = "{SIGNER.public_key}"
[approvers.alice]
public_key = "{ALICE.public_key}"
"""


def settings_in(folder: Path) -> Settings:
    """The configuration that goes with it."""
    (folder / "larder.toml").write_text(TOML)
    return load({"LARDER_CONFIG": str(folder / "larder.toml"), "BACKUP_DIR": str(folder / "backups")})


@dataclass
class Month:
    """Fills a ledger with rows as its own methods write them, but for the times."""

    url: str
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, table: str, **row: Any) -> None:
        self.rows.setdefault(table, []).append(row)

    def run(self, database: str, began: datetime, state: str = "stored", **more: Any) -> str:
        """A run that took two minutes; gives its id."""
        stamp, kind = stamp_of(began), more.get("kind", "backup")
        run = hashlib.sha256(f"{kind} {database} {stamp}".encode()).hexdigest()[:12]
        row = {
            "id": run,
            "kind": kind,
            "database": database,
            "stamp": stamp,
            "trigger": "schedule",
            "state": state,
            "attempt": 1,
            "lease_until": began,
            "created": began,
            "finished": began + timedelta(minutes=2),
            "warnings": [],
            "failed_step": None,
            "error": None,
        }
        self.add("runs", **{**row, **more})
        return run

    def backup(
        self, database: str, created: datetime, size: int, proof: str = "stored", **copies: Any
    ) -> str:
        """A backup that a run has made, with a copy in each of `copies`, of which one may have a problem."""
        run = self.run(database, created)
        backup = f"{database}/{stamp_of(created)}"
        sha256 = hashlib.sha256(backup.encode()).hexdigest()
        artifact = f"backup_postgres_{stamp_of(created)}.sql.gz"
        drilled = proof if proof in ("proven", "broken") else None
        names = {"id": backup, "database": database, "run": run, "engine": "postgres", "artifact": artifact}
        facts = {"size": size, "sha256": sha256, "raw_size": size * 4, "manifest": sha256[::-1]}
        self.add("backups", **names, **facts, created=created, proof=proof, drilled=drilled, pinned=False)
        for store, problem in copies.items():
            verified = created + timedelta(minutes=1)
            key = f"{database}/{artifact}"
            self.add("copies", backup=backup, store=store, key=key, verified=verified, problem=problem)
        return backup

    def drill(self, backup: str, began: datetime, outcome: str, seconds: float, **more: Any) -> None:
        """A drill of a backup that took so many seconds."""
        database = backup.partition("/")[0]
        state = "failed" if outcome == "failed" else "done"
        run = self.run(database, began, state, kind="drill", error=more.get("error"), failed_step=None)
        row = {
            "run": run,
            "backup": backup,
            "database": database,
            "trigger": "schedule",
            "store": "nas",
            "created": began,
            "finished": began + timedelta(seconds=seconds),
            "outcome": outcome,
            "level": "rows",
            "tables": 41,
            "rows": 1_204_881,
            "differences": [],
            "not_covered": [],
            "seconds": {"fetch": 10.0, "check": 5.0, "load": seconds - 20, "examine": 5.0},
            "recovery_seconds": seconds,
            "error": None,
        }
        self.add("drills", **{**row, **more})

    def write(self) -> None:
        """Write all of it into the ledger."""
        engine = open_engine(self.url)
        with engine.begin() as connection:
            for table in tables.metadata.sorted_tables:
                rows = self.rows.get(table.name)
                if rows:
                    connection.execute(table.insert(), rows)
        engine.dispose()


def fill(url: str) -> None:
    """A month of `shop` and `crm`, with all that can happen in one."""
    month = Month(url)
    for day in range(31):
        at = START + timedelta(days=day, hours=2)
        if day in (9, 20):
            error = (
                "unable to dump database 'shop': pg_dump exited with 1: permission denied for table orders"
            )
            month.run("shop", at, "failed", failed_step="dump", error=error)
        else:
            copies = {
                "local": None,
                "nas": "it has another SHA-256 than its manifest says" if day == 15 else None,
            }
            proof = "broken" if day == 18 else "proven" if day % 7 == 3 else "stored"
            backup = month.backup("shop", at, 40_000_000 + day * 900_000, proof, **copies)
            if proof != "stored":
                more = {"differences": ["table public.orders: rows: expected 1204, found 1203"]}
                month.drill(
                    backup,
                    at + timedelta(hours=2),
                    proof,
                    380 + day * 9,
                    **(more if proof == "broken" else {}),
                )
        if day % 3 == 0:
            month.backup(
                "crm", at + timedelta(minutes=1, hours=1), 2_000_000 + day * 1000, local=None, old=None
            )
    month.drill(
        "crm/20261001_030100", START + timedelta(days=5), "failed", 40, error=HOSTILE, recovery_seconds=None
    )
    warnings = [f"no copy in nas: {HOSTILE}"]
    month.run("crm", START + timedelta(days=6), "stored", warnings=warnings)
    # The backup of that run is gone, and so are those of these, of which one was taken away by somebody else.
    month.run("shop", START + timedelta(days=2, hours=12))
    removed = f"shop/{stamp_of(START + timedelta(days=2, hours=12))}"
    for store in ("local", "nas"):
        moment = START + timedelta(days=12)
        month.add(
            "removed",
            backup=removed,
            store=store,
            database="shop",
            moment=moment,
            reason="by its retention policy",
        )
    month.add(
        "misses",
        database="shop",
        objective="rpo",
        detail="the newest backup is 26 hours old, and may be 24 hours",
        since=START + timedelta(days=10, hours=4),
        ended=START + timedelta(days=11, hours=2),
        told=True,
    )
    month.add(
        "misses",
        database="crm",
        objective="proof",
        detail=HOSTILE,
        since=START - timedelta(days=3),
        ended=None,
        told=True,
    )
    month.add("signers", public_key=SIGNER.public_key, name="web1-0a1b2c", since=START - timedelta(days=90))
    _restores(month)
    month.write()
    _trail(url)


def _restores(month: Month) -> None:
    asked = START + timedelta(days=14, hours=9)
    for number, state in enumerate(("done", "denied", "pending")):
        requested = asked + timedelta(days=number)
        document = replace(
            REQUEST,
            request=f"{number:012x}",
            wanted=replace(REQUEST.wanted, backup="shop/20261014_020000"),
            reason="orders of Monday are gone"
            if state == "done"
            else HOSTILE.replace("\u202e", "").replace("\x1b", ""),
            requested=requested.strftime(TIME),
            expires=(requested + timedelta(days=1)).strftime(TIME),
        )
        row = {
            "id": document.request,
            "backup": document.wanted.backup,
            "database": "shop",
            "document": document.to_bytes().decode(),
            "state": state,
            "requested": requested,
            "expires": document.expires_at,
            "run": None,
            "safety": None,
            "leftover": False,
            "swapping": False,
            "kept": None,
            "kept_until": None,
            "finished": None if state == "pending" else requested + timedelta(minutes=30),
            "note": "denied by bob: not today" if state == "denied" else None,
        }
        if state == "done":
            row["run"] = run = month.run("shop", requested + timedelta(minutes=5), "done", kind="restore")
            row["kept"] = {"name": "shop__before_20261015_090500", "identity": "16385", "size": 1000}
            row["kept_until"] = requested + timedelta(days=7)
            row["safety"] = "shop/20261015_090502"
            presented = requested + timedelta(minutes=5)
            month.add(
                "approvals",
                token_id="t1",
                token_hash="5" * 64,
                request=document.request,
                document=document.digest,
                approver="alice",
                public_key=ALICE.public_key,
                issued=presented - timedelta(minutes=1),
                expires=presented + timedelta(minutes=14),
                presented=presented,
                run=run,
                spent=presented + timedelta(seconds=2),
            )
        month.add("requests", **row)


def _trail(url: str) -> None:
    """Rows as `Audit` writes them, dated back: one before the period, two within, one after."""
    engine = open_engine(url)
    moments = [START - timedelta(days=1), *(START + timedelta(days=14, hours=hour) for hour in (9, 10)), MADE]
    previous = "0" * 64
    with engine.begin() as connection:
        for number, moment in enumerate(moments, start=1):
            row = {
                "number": number,
                "moment": moment.isoformat(timespec="microseconds"),
                "event": "requested",
                "request": f"{number:012x}",
                "actor": "Carol Müller",
                "facts": '{"reason": "orders of Monday are gone"}',
                "previous": previous,
            }
            row["hash"] = previous = _hash_of(row)
            connection.execute(tables.audit.insert().values(row))
    engine.dispose()


def _hash_of(row: dict[str, Any]) -> str:
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def gathered(url: str, settings: Settings) -> Document:
    """The document about the month."""
    ledger = open_ledger(url)
    try:
        return gather(ledger, settings, PERIOD, MADE, "web1-0a1b2c")
    finally:
        ledger.close()


def lay(document: Document, folder: Path, name: str = "evidence.json", signer: Signer = SIGNER) -> Path:
    """Sign a document and lay it into `folder`, with its report beside it."""
    report = report_of(document, signer.public_key, name)
    path = folder / name
    page = path.with_suffix(".html")
    page.write_bytes(report)
    path.write_bytes(evidence.sealed(document, page.name, report, signer))
    return path
