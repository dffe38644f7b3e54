"""Chains that a command asks for: begun for each name, and followed to their end, by workers there or of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from console import documents
from console.follow import follow
from larder.config import Settings
from larder.errors import ConfigurationError, LarderError
from larder.ledger.runs import Run
from tasks import context


@dataclass
class Outcome:
    """How it went: runs that were begun, and names whose run was refused."""

    runs: list[Run] = field(default_factory=list)
    refused: dict[str, LarderError] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """The worst of all."""
        codes = [documents.exit_code(run) for run in self.runs]
        return max([*codes, *(error.exit_code for error in self.refused.values())], default=0)


def carry_out(
    settings: Settings,
    wanted: Sequence[str],
    start: Callable[[str], Run],
    abandon: Callable[[Run, LarderError], None],
    *,
    wait: bool = True,
) -> Outcome:
    """Have `start` begin a run for each of `wanted`, and follow them all.

    With `REDIS_URL` the workers there do it. Without, Redis and a worker are started for this command, and where that
    is stopped on the way, `abandon` closes each run that it has begun.
    """
    if not wait and settings.redis_url is None:
        raise ConfigurationError(
            "unable to leave it to workers: REDIS_URL is not set", "leave --no-wait out, or set REDIS_URL"
        )
    if settings.redis_url is None:
        return _on_this_machine(settings, wanted, start, abandon)
    outcome = _started(wanted, start)
    if wait and outcome.runs:
        outcome.runs = follow(context.ledger(), [run.id for run in outcome.runs])
    return outcome


def _on_this_machine(
    settings: Settings,
    wanted: Sequence[str],
    start: Callable[[str], Run],
    abandon: Callable[[Run, LarderError], None],
) -> Outcome:
    from tasks.guard import tidy  # noqa: PLC0415 - only this mode needs it
    from workers.embedded import embedded  # noqa: PLC0415

    with embedded(settings, concurrency=min(len(wanted), os.cpu_count() or 1)) as stack:
        context.ledger().runs.alone = True
        outcome = _started(wanted, start)
        try:
            if outcome.runs:
                outcome.runs = follow(context.ledger(), [run.id for run in outcome.runs], stack.raise_if_dead)
        except BaseException as error:
            stack.kill()
            reason = (
                error if isinstance(error, LarderError) else LarderError(f"stopped: {type(error).__name__}")
            )
            for run in outcome.runs:
                abandon(run, reason)
            raise
        # Where no beat runs, nobody else lets go of what restores have kept.
        tidy()
    return outcome


def _started(wanted: Sequence[str], start: Callable[[str], Run]) -> Outcome:
    from workers.celery import app  # noqa: PLC0415 - brings Celery, which the other commands do without

    app.set_current()
    outcome = Outcome()
    for name in wanted:
        try:
            outcome.runs.append(start(name))
        except LarderError as error:
            outcome.refused[name] = error
    return outcome
