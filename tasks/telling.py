"""Notices about runs: what those of every kind say alike."""

from __future__ import annotations

from typing import Any

from larder.ledger.backups import Backup
from larder.ledger.runs import Run
from larder.manifest_fields import TIME
from larder.notifiers import Notice


def notice_of(run: Run, made: Backup | None, /, **more: Any) -> Notice:
    """How `run` went, whose backup is `made`, where there is one; `more` are further fields of the notice."""
    told: dict[str, Any] = {
        "event": "failure" if run.state == "failed" else "success",
        "database": run.database,
        "run": run.id,
        "artifact": made.artifact if made else None,
        "size": made.size if made else None,
        "seconds": run.seconds,
        "created": (made.created if made else run.created).strftime(TIME),
        "proof": made.proof if made else None,
        "warnings": tuple(run.warnings),
        "step": run.failed_step,
        "error": run.error,
        "hint": run.hint,
    }
    return Notice(**(told | more))
