"""`larder drill`: a backup is restored into a scratch database and compared, and is proven or broken."""

from __future__ import annotations

from console import documents, output
from console.carrying import carry_out
from console.interruption import again, interruptible
from console.output import escape
from larder.errors import ConfigurationError, LarderError
from larder.ledger.drills import Drill
from larder.ledger.runs import Run
from larder.progress import human_seconds
from tasks import context


def drill(wanted: str | None, *, as_json: bool) -> int:
    """Drill `wanted`, a database or one backup, or the newest backup of every database; gives the exit code."""
    settings = context.settings()
    names = [wanted] if wanted is not None else list(settings.databases)
    if not names:
        raise ConfigurationError(
            "unable to find a database to drill", "set DATABASE_URL, or write larder.toml"
        )
    with interruptible(f"start it again with: {again('drill', names if wanted else ())}"):
        outcome = carry_out(settings, names, _start, _abandon)
    ledger = context.ledger()
    drills = [(run, ledger.drills.get(run.id)) for run in outcome.runs]
    if as_json:
        printed = [documents.of_drill(run, found, ledger) for run, found in drills]
        printed += [documents.of_refusal(name, error) for name, error in outcome.refused.items()]
        output.print_json(printed if wanted is None and len(names) > 1 else printed[0])
    else:
        for run, found in drills:
            _print(run, found)
    for error in outcome.refused.values():
        output.print_error(error)
    return outcome.exit_code


def _start(name: str) -> Run:
    from tasks.drill import start  # noqa: PLC0415 - brings Celery, which the other commands do without

    return start(name, "command")


def _abandon(run: Run, error: LarderError) -> None:
    """Close a drill whose worker was ended, so that nothing of it is left."""
    from tasks import drill_closing  # noqa: PLC0415 - brings Celery

    ledger = context.ledger()
    ledger.runs.abandon(run.id, error)
    ledger.drills.close(ledger.runs.get(run.id))
    drill_closing.clear_up()


def _print(run: Run, found: Drill) -> None:
    if run.state == "failed":
        output.print_error(LarderError(documents.failure_of(run), run.hint or ""))
        return
    count = f"{found.tables} table{'' if found.tables == 1 else 's'}"
    took = human_seconds(found.recovery_seconds or 0)
    output.out.print(
        f"[bold green]proven[/] {escape(found.backup)}  {escape(found.level or '')}: {count}, {found.rows} rows, "
        f"no difference; recovery took {took}"
    )
    for line in found.not_covered or []:
        output.out.print(f"  not covered: {escape(line)}")
    for warning in run.warnings:
        output.out.print(f"  [yellow]warning:[/] {escape(warning)}")
