"""The Celery application: how messages travel, so that none of them matters too much.

Measured on Celery 5.6 and 5.7 with Redis: late acknowledgement delivers a running task again after the visibility
timeout, and any other consumer with a shorter timeout sets that off. So a message is acknowledged when a
worker takes it, a worker takes only what it can start, and what is lost with a worker shows in the ledger.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from billiard.process import current_process
from celery import Celery
from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    task_prerun,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from beat_schedule import beat_schedule
from larder.config import Settings
from larder.errors import LarderError
from larder.ledger.hosts import SETTLE
from larder.ledger.leases import TTL
from larder.secret import MASK
from larder.spool import make_private
from tasks import context, interruption
from tasks.queues import DEFAULT_QUEUE, GUARD_QUEUE, host_queue
from workers import broker, errors, log, routing
from workers.farewell import Farewell
from workers.heartbeat import Heartbeat

#: Where Redis is when nobody says so.
DEFAULT_BROKER = "redis://localhost:6379/0"

#: The modules that hold the tasks.
TASK_MODULES = (
    "tasks.backup",
    "tasks.dump",
    "tasks.compress",
    "tasks.checksum",
    "tasks.upload",
    "tasks.rotate",
    "tasks.notify",
    "tasks.guard",
    "tasks.prune",
    "tasks.verify",
    "tasks.restore",
    "tasks.authorize",
    "tasks.fetch",
    "tasks.check",
    "tasks.safety",
    "tasks.load",
    "tasks.examine",
    "tasks.migrate",
    "tasks.swap",
    "tasks.restore_notify",
    "tasks.drill",
    "tasks.drill_examine",
    "tasks.drop",
    "tasks.drill_notify",
)


#: What stands in the place of a token wherever Celery shows a task's arguments.
_HIDDEN = "token"


class _App(Celery):
    """Celery, which never shows an approval's token: not in events, so not in Flower, and not in a log."""

    events_cls = "workers.events:Events"

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        if kwargs and _HIDDEN in kwargs:
            options.setdefault("kwargsrepr", repr({**kwargs, _HIDDEN: MASK}))
        if name == "restore" and args and len(args) > 1:
            options.setdefault("argsrepr", repr((args[0], MASK)))
        return super().send_task(name, args, kwargs, **options)


def make_app(settings: Settings) -> Celery:
    """The application for `settings`."""
    broker = settings.redis_url.get_secret_value() if settings.redis_url else DEFAULT_BROKER
    made = _App("larder", broker=broker, include=TASK_MODULES)
    made.conf.update(
        beat_schedule=beat_schedule(settings),
        beat_schedule_filename=str(settings.state_dir / "celerybeat-schedule"),
        **_delivery(),
        **_visibility(),
    )
    made.conf.task_queues = routing.queues(settings)
    made.conf.task_routes = (routing.route,)
    return made


def _delivery() -> dict[str, Any]:
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": DEFAULT_QUEUE,
        "task_acks_late": False,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        # A connection that Redis drops says nothing about a dump that runs; it goes on.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A Redis that takes a connection and says nothing must not hold a worker up for ever.
        "broker_transport_options": {
            "queue_order_strategy": "workers.routing:BegunFirst",
            "socket_keepalive": True,
            "socket_connect_timeout": 10,
            "socket_timeout": 60,
            "health_check_interval": 30,
        },
        # The ledger knows how a run went; a result in Redis would be a second, forgetful truth.
        "task_ignore_result": True,
        "timezone": "UTC",
        "enable_utc": True,
    }


def _visibility() -> dict[str, Any]:
    return {
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "task_track_started": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


@setup_logging.connect
def _configure_logging(loglevel: int | str | None = None, logfile: str | None = None, **_: Any) -> None:
    # Line by line, and for as long as the process lives.
    stream = Path(logfile).open("a", buffering=1) if logfile else None  # noqa: SIM115
    log.configure(context.settings().log_format, loglevel, stream)


@celeryd_after_setup.connect
def _consume_own_queue(sender: str, instance: Any, **_: Any) -> None:
    """Take the guard, and the later steps of runs whose dump lies in this host's spool, whatever `-Q` says."""
    for name in (GUARD_QUEUE, host_queue(context.host())):
        instance.app.amqp.queues.select_add(name)
    context.ledger()


broker.mend()
errors.listen()
_heartbeat = Heartbeat()
_farewell = Farewell()


@task_prerun.connect
def _hear_what_ends_a_step(**_: Any) -> None:
    # A pool without processes of its own has its tasks in the one that hears Celery's signals.
    if current_process().name != "MainProcess":
        interruption.listen()


@worker_ready.connect
def _say_that_it_is_there(sender: Any, **_: Any) -> None:
    _heartbeat.start()
    _farewell.start(lambda: sender.pool.info.get("processes", ()))


@worker_shutting_down.connect
def _say_farewell(**_: Any) -> None:
    _farewell.begin()


@worker_shutdown.connect
def _say_no_more(**_: Any) -> None:
    _heartbeat.stop()


@worker_ready.connect
def _take_up_lost_runs(sender: Any, **_: Any) -> None:
    """Have `guard` look once every lease has run out that was held here before this worker started.

    Until then nobody knows whether who holds one is alive.
    """
    host, runs = context.host(), context.ledger().runs
    if not runs.active_on(host):
        return
    until = runs.held_until(host)
    held = (until - datetime.now(UTC)).total_seconds() if until else 0
    patience = max(min(held, TTL.total_seconds()), SETTLE.total_seconds()) + 1
    sender.app.send_task("guard", countdown=patience, queue=host_queue(host))


# Whatever these processes write (beat's schedule, logs) is for their user alone.
os.umask(0o077)

# `celery -A workers flower` looks for a file of this name in the folder that it is started in.
os.environ.setdefault("FLOWER_CONF", str(Path(__file__).with_name("flowerconfig.py")))

try:
    # Beat keeps its schedule in there, and may be the first to start.
    make_private(context.settings().state_dir)
    app = make_app(context.settings())
except LarderError as error:
    # Celery imports this module for every command; a traceback would bury the list of mistakes.
    sys.stderr.write(f"larder: {error}\n")
    raise SystemExit(error.exit_code) from None
