"""The JSON documents that commands print: a contract with the users' scripts."""

from __future__ import annotations

from typing import Any

from larder.config import Settings
from larder.errors import LarderError
from larder.ledger import Ledger
from larder.ledger.runs import Run
from larder.stores import open_store


def of_run(run: Run, settings: Settings, ledger: Ledger) -> dict[str, Any]:
    """What `backup --json` prints of a run. Sizes in bytes, times in seconds; null for what there is not (yet)."""
    backup = ledger.backups.get(run.backup)
    copies = backup.copies if backup else {}
    document: dict[str, Any] = {
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


def failure_of(run: Run) -> str:
    """A failed run in one sentence."""
    where = f" at step {run.failed_step}" if run.failed_step else ""
    return f"backup of '{run.database}' failed{where} (run {run.id}): {run.error}"


def exit_code(run: Run) -> int:
    """What a command exits with that asked for `run` and waited for it."""
    return (run.exit_code or 1) if run.state == "failed" else 0
