"""`larder backup`: a run for each database named, followed to its end."""

from __future__ import annotations

from collections.abc import Sequence

from console import documents, output
from console.carrying import carry_out
from console.interruption import again, interruptible
from console.output import escape
from larder.config import Settings
from larder.errors import ConfigurationError, LarderError
from larder.ledger.runs import Run
from larder.progress import human_seconds, short_size
from larder.spool import Spool
from tasks import context


def back_up(names: Sequence[str], *, wait: bool, as_json: bool) -> int:
    """Back up the databases `names` (all of them where it is empty); gives the exit code.

    With `REDIS_URL` the workers there do it. Without, Redis and a worker are started for this command.
    """
    settings = context.settings()
    wanted = list(dict.fromkeys(settings.database(name).name for name in names)) or list(settings.databases)
    if not wanted:
        raise ConfigurationError(
            "unable to find a database to back up", "set DATABASE_URL, or write larder.toml"
        )
    for warning in settings.warnings:
        output.err.print(f"[yellow]warning:[/] {escape(warning)}")
    with interruptible(f"start it again with: {again('backup', names)}"):
        outcome = carry_out(settings, wanted, _start, _abandon, wait=wait)
    if as_json:
        printed = [documents.of_run(run, settings, context.ledger()) for run in outcome.runs]
        printed += [documents.of_refusal(name, error) for name, error in outcome.refused.items()]
        output.print_json(printed if len(wanted) > 1 else printed[0])
    else:
        for run in outcome.runs:
            _print(run, settings)
    for error in outcome.refused.values():
        output.print_error(error)
    return outcome.exit_code


def _start(name: str) -> Run:
    from tasks.backup import start  # noqa: PLC0415 - brings Celery, which the other commands do without

    return start(name, "command")


def _abandon(run: Run, error: LarderError) -> None:
    """Close a run whose worker was ended, so that nothing half done is left and the next backup need not wait."""
    context.ledger().runs.abandon(run.id, error)
    Spool(context.settings().spool_dir, run.id).remove()


def _print(run: Run, settings: Settings) -> None:
    if run.state == "queued":
        output.out.print(
            f"{escape(run.database)}: queued as run {run.id}; follow it with: larder watch {run.id}"
        )
        return
    if run.state != "stored":
        output.print_error(LarderError(documents.failure_of(run), run.hint or ""))
        return
    document = documents.of_run(run, settings, context.ledger())
    output.out.print(
        f"[bold green]stored[/] {escape(run.backup)}  {short_size(document['size'])} "
        f"(from {short_size(document['raw_size'])}) in {human_seconds(run.seconds)}"
    )
    for store, location in document["locations"].items():
        output.out.print(f"  {escape(store)}: {escape(location)}")
    for warning in run.warnings:
        output.out.print(f"  [yellow]warning:[/] {escape(warning)}")
