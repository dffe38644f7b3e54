"""Following a run to its end: its lines as they are written, and a bar for what is under way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from console.output import err, escape
from larder.ledger import Ledger
from larder.ledger.journal import Line
from larder.ledger.runs import Run, Step
from larder.progress import human_seconds

#: Seconds between two looks at the ledger.
LOOK_EVERY = 0.15

#: Seconds to wait for the notice of a run that is over to begin.
NOTICE_PATIENCE = 5

#: How long a run whose worker was lost is left to a worker that starts again and goes on with it.
RESTART_PATIENCE = timedelta(minutes=2)

_STYLES = {"INFO": "green", "WARN": "yellow", "ERROR": "red"}
_MARKS = {"done": "[green]✓[/]", "running": "[cyan]▸[/]", "waiting": "[yellow]…[/]", "failed": "[red]✗[/]"}


def follow(ledger: Ledger, run_ids: Sequence[str], check: Callable[[], None] = lambda: None) -> list[Run]:
    """Show the runs until all of them are over and told about; gives them back as they ended.

    `check` is called at each look and may raise, for instance when the worker is gone. A run whose worker was lost is
    closed as failed some time after its lease has run out, so that nobody waits for it for ever.
    """
    several = len(run_ids) > 1
    seen = dict.fromkeys(run_ids, 0)
    with _display(err) as display:
        while True:
            check()
            runs = [ledger.runs.get(run_id) for run_id in run_ids]
            for run in runs:
                for line in ledger.journal.read(run.id, after=seen[run.id]):
                    seen[run.id] = line.id
                    err.print(_shown(line, run.database if several else ""))
                if not run.over and run.lease_until + RESTART_PATIENCE < datetime.now(UTC):
                    ledger.runs.close_lost(run.holds or run.database)
            if all(_settled(run) for run in runs):
                return runs
            display.update([run for run in runs if not _settled(run)])
            time.sleep(LOOK_EVERY)


def _settled(run: Run) -> bool:
    if run.finished is None or not run.over:
        return False
    notice = run.step_named("notify").state
    # A run that was closed from outside, or while the broker was away, may have no notice on its way.
    overdue = (datetime.now(UTC) - run.finished).total_seconds() > NOTICE_PATIENCE
    return notice in ("done", "failed") or (notice != "running" and overdue)


def _shown(line: Line, database: str) -> str:
    where = f"{database}: " if database else ""
    return f"[{_STYLES[line.level]}]\\[{line.level}][/] {escape(where + line.text)}"


def _marked(step: Step) -> str:
    name = escape(" ".join(filter(None, [step.name, step.store])))
    if step.state == "pending":
        return f"[dim]· {name}[/]"
    return f"{_MARKS[step.state]} {name}"


class _Bars:
    """One line a run: its chain with the present step marked, and how far that step is."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def __enter__(self) -> _Bars:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update("")
        self._live.__exit__(kind, error, trace)

    def update(self, runs: Sequence[Run]) -> None:
        table = Table.grid(padding=(0, 2))
        for run in runs:
            steps = " ".join(_marked(step) for step in run.steps)
            table.add_row(
                f"[bold]{escape(run.database)}[/]", steps, run.progress or "", human_seconds(run.seconds)
            )
        self._live.update(table, refresh=True)


class _Silence:
    def update(self, runs: Sequence[Run]) -> None:
        """Nothing moves where nobody watches."""


def _display(console: Console) -> AbstractContextManager[_Bars | _Silence]:
    if not console.is_terminal:
        return nullcontext(_Silence())
    return _Bars(Live(console=console, auto_refresh=False, transient=True))
