"""`larder backup`: a run for each database named, followed to its end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from console import documents, output
from console.follow import follow
from console.interruption import interruptible
from console.output import escape
from larder.config import Settings
from larder.errors import ConfigurationError, LarderError
from larder.ledger.runs import Run
from larder.progress import human_seconds, short_size
from larder.spool import Spool
from tasks import context


@dataclass
class _Outcome:
    """How it went: runs that were begun, and databases whose run was refused."""

    runs: list[Run] = field(default_factory=list)
    refused: dict[str, LarderError] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        codes = [documents.exit_code(run) for run in self.runs]
        return max([*codes, *(error.exit_code for error in self.refused.values())], default=0)


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
    if not wait and settings.redis_url is None:
        raise ConfigurationError(
            "unable to leave a backup to workers: REDIS_URL is not set",
            "leave --no-wait out, or set REDIS_URL",
        )
    for warning in settings.warnings:
        output.err.print(f"[yellow]warning:[/] {escape(warning)}")
    with interruptible("start it again with: larder backup"):
        outcome = _on_workers(wanted, wait=wait) if settings.redis_url else _on_this_machine(settings, wanted)
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


def _on_workers(wanted: Sequence[str], *, wait: bool) -> _Outcome:
    outcome = _start(wanted)
    if wait and outcome.runs:
        outcome.runs = follow(context.ledger(), [run.id for run in outcome.runs])
    return outcome


def _on_this_machine(settings: Settings, wanted: Sequence[str]) -> _Outcome:
    from tasks.guard import tidy  # noqa: PLC0415 - only this mode needs it
    from workers.embedded import embedded  # noqa: PLC0415

    with embedded(settings, concurrency=min(len(wanted), os.cpu_count() or 1)) as stack:
        outcome = _start(wanted)
        try:
            if outcome.runs:
                outcome.runs = follow(context.ledger(), [run.id for run in outcome.runs], stack.raise_if_dead)
        except BaseException as error:
            stack.kill()
            _abandon(settings, outcome.runs, error)
            raise
        # Where no beat runs, nobody else lets go of what restores have kept.
        tidy()
    return outcome


def _start(wanted: Sequence[str]) -> _Outcome:
    from tasks.backup import start  # noqa: PLC0415 - brings Celery, which the other commands do without
    from workers.celery import app  # noqa: PLC0415

    app.set_current()
    outcome = _Outcome()
    for name in wanted:
        try:
            outcome.runs.append(start(name, "command"))
        except LarderError as error:
            outcome.refused[name] = error
    return outcome


def _abandon(settings: Settings, runs: Sequence[Run], error: BaseException) -> None:
    """Close the runs whose worker was ended, so that nothing half done is left and the next backup need not wait."""
    reason = error if isinstance(error, LarderError) else LarderError(f"stopped: {type(error).__name__}")
    for run in runs:
        context.ledger().runs.abandon(run.id, reason)
        Spool(settings.spool_dir, run.id).remove()


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
