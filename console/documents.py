"""The JSON documents that commands print: a contract with the users' scripts."""

from __future__ import annotations

from typing import Any

from larder.config import Settings
from larder.errors import LarderError
from larder.ledger import Ledger
from larder.ledger.drills import Drill
from larder.ledger.requests import Request
from larder.ledger.runs import RESTORE_STEPS, SAFETY, Run
from larder.restore_plan import Outline
from larder.restore_target import address_of as target_address
from larder.stores import open_store


def of_run(run: Run, settings: Settings, ledger: Ledger) -> dict[str, Any]:
    """What `backup --json` prints of a run. Sizes in bytes, times in seconds; null for what there is not (yet)."""
    backup = ledger.backups.get(run.backup)
    copies = backup.copies if backup else {}
    return {
        "run": run.id,
        "backup": run.backup,
        "database": run.database,
        "state": run.state,
        "artifact": run.artifact,
        "size": backup.size if backup else None,
        "sha256": backup.sha256 if backup else None,
        "raw_size": backup.raw_size if backup else None,
        "stores": sorted(copies),
        "locations": {
            name: open_store(settings.stores[name]).location(copy.key)
            for name, copy in sorted(copies.items())
            if name in settings.stores
        },
        "proof": backup.proof if backup else None,
        "seconds": round(run.seconds, 3),
        **_passage(run),
    }


def of_refusal(database: str, error: LarderError) -> dict[str, Any]:
    """What `backup --json` prints of a database whose run was not begun."""
    return {
        "run": None,
        "backup": None,
        "database": database,
        "state": "refused",
        "error": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def of_drill(run: Run, drill: Drill, ledger: Ledger) -> dict[str, Any]:
    """What `drill --json` prints. Times in seconds; `seconds` is the whole drill, `recovery_seconds` its restore."""
    backup = ledger.backups.get(drill.backup)
    return {
        "run": run.id,
        "backup": drill.backup,
        "database": run.database,
        "state": run.state,
        "outcome": drill.outcome,
        "proof": backup.proof if backup else None,
        "level": drill.level,
        "store": drill.store,
        "tables": drill.tables,
        "rows": drill.rows,
        "differences": drill.differences or [],
        "not_covered": drill.not_covered or [],
        "seconds": round(run.seconds, 3),
        "recovery_seconds": drill.recovery_seconds,
        **_passage(run),
    }


def of_restore(run: Run, request: Request, ledger: Ledger) -> dict[str, Any]:
    """What `restore run --json` and `restore undo --json` print. Times in seconds."""
    return {
        **of_request(request, ledger),
        "run": run.id,
        "state": run.state,
        "seconds": round(run.seconds, 3),
        **_passage(run),
    }


def _passage(run: Run) -> dict[str, Any]:
    """The steps of a run, what it warned of, and why it failed."""
    document: dict[str, Any] = {
        "steps": [
            {
                "name": step.name,
                **({"store": step.store} if step.store else {}),
                "seconds": round(step.seconds or 0, 3),
                "attempts": step.attempts,
            }
            for step in run.steps
        ],
        "warnings": run.warnings,
    }
    if run.state == "failed":
        document |= {
            "error": run.error,
            "hint": run.hint,
            "failed_step": run.failed_step,
            "exit_code": exit_code(run),
        }
    return document


def of_request(request: Request, ledger: Ledger) -> dict[str, Any]:
    """What `restore list --json` prints of a request."""
    document = request.document
    granted = ledger.requests.granted(request.run) if request.run else None
    return {
        "request": request.id,
        "state": state_of(request),
        "backup": request.backup,
        "database": request.database,
        "target": document.into.address,
        "mode": document.mode,
        "reason": document.reason,
        "requester": document.requester,
        "account": document.account,
        "requested": document.requested,
        "expires": document.expires,
        "approver": granted.approver if granted else None,
        "undoes": request.undoes,
        "run": request.run,
        "safety_backup": request.safety,
        "kept": request.kept.name if request.kept else None,
        "undo_until": request.kept_until if request.undoable else None,
        "note": request.note,
    }


def state_of(request: Request) -> str:
    """A request's state; one that waited too long is `expired`."""
    return "expired" if request.expired else request.state


def of_plan(planned: Outline, settings: Settings, estimate: tuple[float, int] | None) -> dict[str, Any]:
    """What `restore plan --json` prints. Sizes in bytes, times in seconds."""
    manifest, found, wish = planned.manifest, planned.found, planned.wish
    return {
        "backup": manifest.backup,
        "created": manifest.created,
        "proof": planned.shelved.proof,
        "size": manifest.artifact.size,
        "raw_size": manifest.raw.size,
        "target": address_of(planned),
        "database": planned.target.name if planned.target.name in settings.databases else None,
        "mode": wish.mode,
        "exists": found.exists if found else None,
        "present_size": found.size if found else None,
        "free": found.free if found else None,
        "sessions": list(found.sessions) if found else [],
        "safety_backup": list(planned.safety_in),
        "steps": plan_steps(planned),
        "seconds": round(estimate[0], 1) if estimate else None,
        "earlier_restores": estimate[1] if estimate else 0,
        "approvers": list(settings.approvers),
        "warnings": list(planned.warnings),
        "refusals": [
            {"error": reason.message, "hint": reason.hint, "exit_code": reason.exit_code}
            for reason in planned.refusals
        ],
    }


def plan_steps(planned: Outline) -> list[str]:
    """The steps that a restore would pass through, by name."""
    steps = [step for step in RESTORE_STEPS if step != SAFETY or planned.safety_in]
    if not planned.beside:
        steps.remove("migrate")
        steps.insert(steps.index("swap") + 1, "migrate")
    return steps


def address_of(planned: Outline) -> str:
    """Where it would go."""
    return target_address(planned.target)


def failure_of(run: Run) -> str:
    """A failed run in one sentence."""
    where = f" at step {run.failed_step}" if run.failed_step else ""
    what = "restore into" if run.kind == "restore" else f"{run.kind} of"
    return f"{what} '{run.database}' failed{where} (run {run.id}): {run.error}"


def exit_code(run: Run) -> int:
    """What a command exits with that asked for `run` and waited for it."""
    return (run.exit_code or 1) if run.state == "failed" else 0
