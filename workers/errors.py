"""Errors for Sentry: what it is told, and that no secret is in it. Without `SENTRY_DSN` nothing is sent.

Told is a task that fails, and what a process logs with a traceback. An event holds the error's text and where in the
code it came from; never a task's arguments, a variable's value, a command line or what the process did before. Every
text in it passes through `larder.secret` as it leaves.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

import celery
from celery.signals import beat_init, task_failure, worker_init

import larder
from larder.errors import (
    BusyError,
    InterruptedByOperator,
    LarderError,
    LeaseLostError,
    NotAuthorisedError,
    NotFoundError,
)
from larder.secret import redact_within
from tasks import context
from workers import checkins

#: What somebody asked for and did not get, who has been told so: nothing has failed that should have gone well.
_MISTAKES = (BusyError, InterruptedByOperator, LeaseLostError, NotAuthorisedError, NotFoundError)

#: Loggers that repeat what the signal of a task's failure says.
_REPEATING = ("celery.app.trace", "celery.worker.request")

#: Seconds that an event may take: the process that had the error may be gone a moment later.
_PATIENCE = 2

#: The task of this thread whose error has been told already, as it was before it became a `LarderError`.
_told: ContextVar[str | None] = ContextVar("told", default=None)


def listen() -> None:
    """Have workers and beat tell Sentry, once they start; a command has a terminal to tell."""
    worker_init.connect(_start)
    beat_init.connect(_start)


def _start(**_: Any) -> None:
    dsn = context.settings().sentry_dsn
    if dsn is None:
        return
    import sentry_sdk  # noqa: PLC0415 - slow to import, and of no use without an address

    sentry_sdk.init(
        dsn=dsn.get_secret_value(),
        release=f"larder@{larder.__version__}",
        # What they add by themselves: argv, environment, addresses that were called, commands, arguments of tasks.
        default_integrations=False,
        auto_enabling_integrations=False,
        include_local_variables=False,
        max_breadcrumbs=0,
        auto_session_tracking=False,
        before_send=lambda event, _hint: redact_within(event),
    )
    for name in ("larder", "celery"):
        logging.getLogger(name).addHandler(_Unexpected(logging.ERROR))
    task_failure.connect(_tell_of_task)
    checkins.listen()


class _Unexpected(logging.Handler):
    """Tells of errors that somebody has logged with a traceback: nobody foresaw them."""

    def emit(self, record: logging.LogRecord) -> None:
        if not record.exc_info or record.name in _REPEATING:
            return
        task = celery.current_task
        _told.set(task.request.id if task else None)
        _send(record.exc_info, {"logger": record.name})


def _tell_of_task(sender: Any, task_id: str, exception: BaseException, **_: Any) -> None:
    if isinstance(exception, _MISTAKES) or _told.get() == task_id:
        return
    _send(exception, {"task": sender.name})


def _send(error: Any, tags: dict[str, str]) -> None:
    import sentry_sdk  # noqa: PLC0415 - see `_start`

    exception = error[1] if isinstance(error, tuple) else error
    with sentry_sdk.new_scope() as scope:
        scope.set_tags(tags)
        if isinstance(exception, LarderError):
            # A database that is away is one issue a step, whatever it is called.
            scope.fingerprint = ["larder", type(exception).__name__, *tags.values()]
        scope.capture_exception(error)
    sentry_sdk.flush(_PATIENCE)
