"""What Celery's events say, and with them Flower: all of it, without secrets.

An event of a task that failed holds the error and its traceback as they are, and nobody can know what is in those.

Celery sends what happens to tasks once in each turn of its loop, which is a third of all that a busy worker's main
process does, and done before the next task is given to whoever is free. Here it goes together, a moment later.
"""

from __future__ import annotations

from typing import Any

from celery.app import events
from celery.events.dispatcher import EventDispatcher

from larder.secret import redact_within

#: Seconds that what happens to tasks waits for more of it.
GATHER = 0.1

#: The last that a worker says. What it has not sent by then nobody hears.
_FAREWELL = "worker-offline"


class Dispatcher(EventDispatcher):
    """Sends events whose every text is masked; those of tasks together, where there is a loop to send them later."""

    def __init__(self, *arguments: Any, on_send_buffered: Any = None, **options: Any) -> None:
        # Celery gives a method of the consumer, which knows the loop. kombu forgets it when a connection is lost.
        self._loop: Any = getattr(getattr(on_send_buffered, "__self__", None), "hub", None)
        self._gathering = False
        super().__init__(
            *arguments, on_send_buffered=self._gather if self._loop else on_send_buffered, **options
        )

    def _gather(self) -> None:
        if not self._gathering:
            self._gathering = True
            # From whatever thread: the loop's own is the one that may set its clock.
            self._loop.call_soon(self._loop.call_later, GATHER, self._send_gathered)

    def _send_gathered(self) -> None:
        self._gathering = False
        self.flush()

    def publish(self, type: str, fields: dict[str, Any], *arguments: Any, **options: Any) -> Any:  # noqa: A002
        """Send one event at once."""
        return super().publish(type, redact_within(fields), *arguments, **options)

    def send(self, type: str, *arguments: Any, **fields: Any) -> Any:  # noqa: A002
        """Send one event, at once or with others of its group."""
        if type == _FAREWELL:
            self.flush()
        return super().send(type, *arguments, **redact_within(fields))


class Events(events.Events):
    """The events of an application, sent by `Dispatcher`."""

    dispatcher_cls = Dispatcher
