"""What Celery's events say, and with them Flower: all of it, without secrets.

An event of a task that failed holds the error and its traceback as they are, and nobody can know what is in those.
"""

from __future__ import annotations

from typing import Any

from celery.app import events
from celery.events.dispatcher import EventDispatcher

from larder.secret import redact_within


class Dispatcher(EventDispatcher):
    """Sends events whose every text is masked."""

    def publish(self, type: str, fields: dict[str, Any], *arguments: Any, **options: Any) -> Any:  # noqa: A002
        """Send one event at once."""
        return super().publish(type, redact_within(fields), *arguments, **options)

    def send(self, type: str, *arguments: Any, **fields: Any) -> Any:  # noqa: A002
        """Send one event, at once or with others of its group."""
        return super().send(type, *arguments, **redact_within(fields))


class Events(events.Events):
    """The events of an application, sent by `Dispatcher`."""

    dispatcher_cls = Dispatcher
