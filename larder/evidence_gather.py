"""What a document of evidence says: all of it from the ledger and the configuration, and nothing secret.

The same ledger, configuration, period and time of making give the same document. What is gathered first is what changes
first: a backup that is stored or deleted meanwhile is never taken for one that somebody took away.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import larder
from larder import databases
from larder.approver_keys import fingerprint_of
from larder.errors import IntegrityError
from larder.evidence import FORMAT, Document, Period, shown
from larder.evidence_summary import summarise
from larder.ledger import Ledger
from larder.ledger.backups import Backup, Removal
from larder.ledger.drills import Drill
from larder.ledger.misses import Miss
from larder.ledger.requests import Request
from larder.ledger.runs import Passage
from larder.rotation import policy_of
from larder.secret import redact
from larder.settings import DatabaseSettings, Settings
from larder.stores import Store, open_store

#: What a drill has found and measured, as the ledger has it.
_FOUND: Final = (
    "outcome",
    "level",
    "tables",
    "rows",
    "differences",
    "not_covered",
    "seconds",
    "recovery_seconds",
)


def gather(ledger: Ledger, settings: Settings, period: Period, made: datetime, host: str) -> Document:
    """The document about `period`, as things stood at `made`, on `host`; without its report, and not signed yet."""
    runs = ledger.runs.between(period.start, period.end)
    backups = ledger.backups.between(period.start, period.end)
    stored = [run for run in runs if run.kind == "backup" and run.state == "stored"]
    gone = _gone(ledger, stored, {backup.id for backup in backups})
    removals = ledger.backups.removals(period.start)
    stores = {name: open_store(place) for name, place in settings.stores.items()}
    document: Document = {
        "format": FORMAT,
        "period": {"from": shown(period.start), "to": shown(period.end)},
        "made": shown(made),
        "host": host,
        "larder": larder.__version__,
        "databases": [_database(database, settings) for database in settings.databases.values()],
        "stores": [_store(store, settings) for store in stores.values()],
        "backups": [_backup(backup, stores) for backup in backups],
        "gone": _with_reasons(gone, removals),
        "deletions": [_removal(removal) for removal in removals if removal.moment < period.end],
        "runs": _runs(runs),
        "drills": [_drill(drill) for drill in _drills(ledger, period)],
        "restores": [
            _restore(request, ledger) for request in ledger.requests.between(period.start, period.end)
        ],
        "audit": _audit(ledger, period),
        "misses": [_miss(miss) for miss in ledger.misses.between(period.start, period.end)],
        "keys": _keys(ledger, settings),
    }
    return {**document, "summary": summarise(document)}


def _database(database: DatabaseSettings, settings: Settings) -> dict[str, Any]:
    return {
        "database": database.name,
        "engine": database.engine,
        "address": databases.address_in(database.url.get_secret_value(), database.base),
        "schedule": database.schedule,
        "timezone": database.timezone,
        "retention": policy_of(database).description,
        "stores": [store.name for store in settings.stores_of(database)],
        "min_copies": database.min_copies,
        "encrypt_to": list(database.encrypt_to),
        "exclude": list(database.exclude),
        "fingerprint": database.fingerprint_level,
        "drill": database.drill,
        "drill_every": database.drill_every,
        "rpo": database.rpo,
        "rto": database.rto,
    }


def _store(store: Store, settings: Settings) -> dict[str, Any]:
    place = settings.stores[store.name]
    return {"store": store.name, "type": place.type, "locks": place.locks}


def _backup(backup: Backup, stores: Mapping[str, Store]) -> dict[str, Any]:
    return {
        "backup": backup.id,
        "database": backup.database,
        "engine": backup.engine,
        "created": shown(backup.created),
        "artifact": backup.artifact,
        "size": backup.size,
        "sha256": backup.sha256,
        "raw_size": backup.raw_size,
        "manifest_sha256": backup.manifest,
        "proof": backup.proof,
        "drilled": backup.drilled,
        "pinned": backup.pinned,
        "copies": [
            {
                "store": name,
                "key": copy.key,
                # Nobody knows where a store is that is configured no more.
                "location": stores[name].location(copy.key) if name in stores else None,
                "verified": _at(copy.verified),
                "problem": _line(copy.problem),
            }
            for name, copy in sorted(backup.copies.items())
        ],
    }


def _gone(ledger: Ledger, stored: Iterable[Passage], kept: set[str]) -> list[Passage]:
    """The runs whose backups are in no store any more, as far as the ledger knows."""
    wanted = [run for run in stored if run.backup not in kept]
    # One that began in the period may have read its database after it.
    known = ledger.backups.known(run.backup for run in wanted)
    return [run for run in wanted if run.backup not in known]


def _with_reasons(gone: Iterable[Passage], removals: Iterable[Removal]) -> list[dict[str, Any]]:
    """What became of backups that are gone: none of `removed` where nobody here has deleted them."""
    by_backup: dict[str, list[Removal]] = defaultdict(list)
    for removal in removals:
        by_backup[removal.backup].append(removal)
    return [
        {
            "backup": run.backup,
            "database": run.database,
            "run": run.id,
            "made": shown(run.created),
            "removed": [_removal(removal) for removal in by_backup[run.backup]],
        }
        for run in gone
    ]


def _removal(removal: Removal) -> dict[str, Any]:
    return {
        "backup": removal.backup,
        "database": removal.database,
        "store": removal.store,
        "deleted": shown(removal.moment),
        "why": _line(removal.reason),
    }


def _runs(runs: Iterable[Passage]) -> dict[str, Any]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    failed, warned = [], []
    for run in runs:
        counts[run.kind][run.state] += 1
        facts = {
            "run": run.id,
            "kind": run.kind,
            "database": run.database,
            "trigger": run.trigger,
            "began": shown(run.created),
            "ended": _at(run.finished),
        }
        if run.state == "failed":
            failed.append({**facts, "step": run.failed_step, "error": _line(run.error)})
        if run.warnings:
            warned.append({**facts, "warnings": [_line(warning) for warning in run.warnings]})
    return {
        "counts": {kind: dict(sorted(states.items())) for kind, states in sorted(counts.items())},
        "failed": failed,
        "warned": warned,
    }


def _drills(ledger: Ledger, period: Period) -> list[Drill]:
    return sorted(
        ledger.drills.between(period.start, period.end), key=lambda drill: (drill.created, drill.run)
    )


def _drill(drill: Drill) -> dict[str, Any]:
    return {
        "run": drill.run,
        "backup": drill.backup,
        "database": drill.database,
        "trigger": drill.trigger,
        "store": drill.store,
        "began": shown(drill.created),
        "ended": _at(drill.finished),
        **{name: getattr(drill, name) for name in _FOUND},
        "error": _line(drill.error),
    }


def _restore(request: Request, ledger: Ledger) -> dict[str, Any]:
    document = request.document
    return {
        "request": request.id,
        "document_sha256": document.digest,
        "backup": request.backup,
        "artifact_sha256": document.wanted.sha256,
        "target": document.into.address,
        "description": document.into.description,
        "mode": document.mode,
        "tables": list(document.tables),
        "schemas": list(document.schemas),
        "reason": _line(document.reason),
        "requester": document.requester,
        "account": document.account,
        "requested": document.requested,
        "expires": document.expires,
        "state": request.state,
        "note": _line(request.note),
        "undoes": request.undoes,
        "approval": _approval(request, ledger),
        "run": request.run,
        "safety_backup": request.safety,
        "kept": request.kept.name if request.kept else None,
        "kept_until": _at(request.kept_until),
        "finished": _at(request.finished),
    }


def _approval(request: Request, ledger: Ledger) -> dict[str, Any] | None:
    granted = ledger.requests.granted(request.run) if request.run else None
    if granted is None:
        return None
    return {
        "approver": granted.approver,
        "key": granted.public_key,
        "fingerprint": _fingerprint(granted.public_key),
        "document_sha256": granted.document,
        "presented": shown(granted.presented),
        "spent": _at(granted.spent),
    }


def _audit(ledger: Ledger, period: Period) -> dict[str, Any]:
    """The trail's rows of the period, and how the whole trail stands: a row that was altered is told, and shown."""
    try:
        number, last = ledger.audit.verify()
        head, problem = {"number": number, "hash": last}, None
    except IntegrityError as error:
        head, problem = None, error.message
    return {"head": head, "problem": problem, "rows": ledger.audit.between(period.start, period.end)}


def _miss(miss: Miss) -> dict[str, Any]:
    return {
        "database": miss.database,
        "objective": miss.objective,
        "detail": _line(miss.detail),
        "since": shown(miss.since),
        "ended": _at(miss.ended),
    }


def _keys(ledger: Ledger, settings: Settings) -> dict[str, Any]:
    recipients: dict[str, list[str]] = defaultdict(list)
    for database in settings.databases.values():
        for recipient in database.encrypt_to:
            recipients[recipient].append(database.name)
    return {
        "signers": [{"name": name, "key": key} for name, key in settings.signer_keys.items()],
        "known_signers": [
            {"name": known.name, "key": known.public_key, "since": shown(known.since)}
            for known in ledger.signers.all()
        ],
        "approvers": [
            {"name": name, "key": key, "fingerprint": _fingerprint(key)}
            for name, key in settings.approver_keys.items()
        ],
        "recipients": [{"recipient": key, "databases": names} for key, names in recipients.items()],
    }


def _fingerprint(public_key: str) -> str | None:
    """As `ssh-keygen -l` shows it; None for what is no key, which somebody has written into the ledger by hand."""
    try:
        return fingerprint_of(public_key)
    except ValueError:
        return None


def _at(moment: datetime | None) -> str | None:
    return shown(moment) if moment else None


def _line(text: str | None) -> str | None:
    """A text that some host wrote; what this one knows to be secret is masked once more."""
    return redact(text) if text else text
