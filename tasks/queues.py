"""The queues: which one a link of a run goes to, and how many messages wait in one."""

from __future__ import annotations

from celery import Task, current_app, current_task
from kombu.exceptions import ChannelError, OperationalError

from larder.errors import NotFoundError, UnreachableError
from larder.ledger.runs import Run
from tasks import context

#: Where backups are asked for, and where dumps go unless their database names another queue.
DEFAULT_QUEUE = "backup"

#: Where restores are asked for and begin, unless their database names another queue than the default.
RESTORE_QUEUE = "restore"

#: Where drills are asked for and begin.
DRILL_QUEUE = "drill"

#: Where the guard is asked for: it must not wait behind a flood of backups.
GUARD_QUEUE = "guard"


def host_queue(host: str) -> str:
    """The queue of everybody who can see `host`'s spool."""
    return f"host.{host}"


def at_hand(task: Task, run: Run) -> None:
    """Note whose step a task is at, or which run it has begun. The next link is sent a moment after that is committed,
    and goes by what is known then.
    """
    task.request.at_hand = run


def known(run_id: str) -> Run | None:
    """The run `run_id`, where this very task has it in hand: nobody else has it meanwhile."""
    run: Run | None = getattr(current_task.request, "at_hand", None) if current_task else None
    return run if run is not None and run.id == run_id else None


def queue_of(run: Run, step: str) -> str:
    """The queue that the link `step` of a run goes to: where its spool is, or where it begins.

    A restore into a file is its host's from the first link on.
    A failed run that never reached a host is told about by whoever takes the queue that it would have begun in.
    """
    if run.host and (run.kind == "restore" or step != run.steps[0].name):
        return host_queue(run.host)
    if run.kind == "drill":
        return DRILL_QUEUE
    try:
        queue = context.settings().database(run.database).queue
    except NotFoundError:
        queue = DEFAULT_QUEUE
    return RESTORE_QUEUE if run.kind == "restore" and queue == DEFAULT_QUEUE else queue


def waiting_in(queue: str) -> int:
    """How many messages wait in a queue for a worker; raises `UnreachableError` where the broker does not answer."""
    with current_app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0.2)
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
        except ChannelError:
            # Redis has no empty queues: there is none of that name.
            return 0
        except (OperationalError, *connection.recoverable_connection_errors) as error:
            raise away(error) from None


def see_that_broker_answers() -> None:
    """Raise `UnreachableError` where no message could be sent now."""
    try:
        with current_app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.2)
    except OperationalError as error:
        raise away(error) from None


def away(error: Exception) -> UnreachableError:
    """What people are told where the broker does not answer."""
    return UnreachableError(
        f"unable to reach the broker: {error}", "check REDIS_URL, and that Redis is running"
    )
