"""`larder runs` and `larder watch`: what the ledger says is going on, and has been."""

from __future__ import annotations

from typing import Any

from console import documents, output
from console.follow import follow
from console.output import escape
from larder.ledger.runs import SAFETY_TRIGGER, Run
from larder.progress import human_seconds
from tasks import context


def print_runs(database: str | None, *, failed: bool, limit: int, as_json: bool) -> int:
    """Print the newest runs; gives the exit code."""
    if database is not None:
        context.settings().database(database)
    found = context.ledger().runs.latest(database, kind=None, failed=failed, limit=limit)
    if as_json:
        output.print_json([document_of(run) for run in found])
        return 0
    rows = [
        (
            run.id,
            _kind(run),
            run.database,
            run.state,
            output.moment(run.created),
            human_seconds(run.seconds),
            _what(run),
        )
        for run in found
    ]
    output.print_table(("run", "", "database", "state", "started (UTC)", ">time", ""), rows)
    for run in found:
        if run.state == "failed":
            output.out.print(
                f"[red]{run.id}[/] {escape(run.failed_step or 'start')}: {escape(run.error or '')}"
            )
    return 0


def watch(run_id: str, *, as_json: bool) -> int:
    """Follow a run to its end; gives the exit code that it ended with."""
    ledger = context.ledger()
    (run,) = follow(ledger, [ledger.runs.get(run_id).id])
    if as_json and run.kind == "restore":
        output.print_json(documents.of_restore(run, ledger.requests.of_run(run.id), ledger))
    elif as_json and run.kind == "drill":
        output.print_json(documents.of_drill(run, ledger.drills.get(run.id), ledger))
    elif as_json:
        output.print_json(documents.of_run(run, context.settings(), ledger))
    else:
        what = {"backup": run.backup, "restore": f"restore into {run.database}"}.get(
            run.kind, f"drill of {run.database}"
        )
        output.out.print(f"{escape(what)}: {run.state} after {human_seconds(run.seconds)}")
    return documents.exit_code(run)


def _kind(run: Run) -> str:
    """What people call it: a backup that is a part of a restore is its safety backup."""
    return SAFETY_TRIGGER if run.parent else run.kind


def _what(run: Run) -> str:
    if run.state == "failed":
        return f"at {run.failed_step or 'start'}"
    if run.kind == "restore" and run.state == "done":
        request = context.ledger().requests.of_run(run.id)
        return f"{request.backup}, request {request.id}"
    if run.kind == "drill" and run.state == "done":
        return f"{context.ledger().drills.get(run.id).backup} proven"
    if run.state in ("stored", "done"):
        return run.artifact or ""
    return " ".join(filter(None, [run.step, run.progress]))


def document_of(run: Run) -> dict[str, Any]:
    """A run as `larder runs --json` prints it. Times in seconds."""
    return {
        "run": run.id,
        "kind": run.kind,
        "backup": run.backup if run.kind == "backup" else None,
        "database": run.database,
        "trigger": run.trigger,
        "state": run.state,
        "step": run.step,
        "progress": run.progress,
        "created": run.created,
        "finished": run.finished,
        "seconds": round(run.seconds, 3),
        "host": run.host,
        "artifact": run.artifact,
        "failed_step": run.failed_step,
        "error": run.error,
        "hint": run.hint,
        "warnings": run.warnings,
        "steps": [
            {
                "name": step.name,
                **({"store": step.store} if step.store else {}),
                "state": step.state,
                "seconds": step.seconds,
                "attempts": step.attempts,
                "error": step.error,
            }
            for step in run.steps
        ],
    }
