"""What happens to tasks is sent together, a moment later, and all of it before the worker has gone."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.asynchronous import Hub

from tests.processes import eventually, redis_server
from workers.events import Dispatcher


class Heard:
    """What arrives at whoever listens for events: the types of those that came together, message by message."""

    def __init__(self, client: redis.Redis) -> None:
        self.messages: list[list[str]] = []
        self._listening = client.pubsub(ignore_subscribe_messages=True)
        self._listening.psubscribe("*celeryev*")
        eventually(lambda: self._listening.subscribed and self._listening.get_message(timeout=0.05) is None)

    def look(self) -> list[list[str]]:
        """All messages so far."""
        while message := self._listening.get_message(timeout=0.05):
            body = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
            self.messages.append([one["type"] for one in (body if isinstance(body, list) else [body])])
        return self.messages


class Consumer:
    """What Celery's has of a loop."""

    def __init__(self) -> None:
        self.hub = Hub()

    def on_send_event_buffered(self) -> None:
        """Celery's own way, which nobody takes here."""
        raise AssertionError("sent at once")


@pytest.fixture
def consumer() -> Iterator[Consumer]:
    found = Consumer()
    yield found
    found.hub.close()


@contextmanager
def dispatching(folder: Path, **options: Any) -> Iterator[tuple[Dispatcher, Heard]]:
    with redis_server(folder) as url, Celery(broker=url, set_as_current=False) as app:
        app.conf.event_serializer = "json"
        with app.connection_for_write() as connection, redis.Redis.from_url(url) as client:
            heard = Heard(client)
            yield Dispatcher(connection, hostname="one", app=app, **options), heard


def gathering(consumer: Consumer) -> dict[str, Any]:
    """How Celery makes the dispatcher of a consumer with a loop."""
    return {"buffer_group": ["task"], "on_send_buffered": consumer.on_send_event_buffered}


def test_what_happens_to_tasks_goes_together(tmp_path: Path, consumer: Consumer) -> None:
    with dispatching(tmp_path, **gathering(consumer)) as (dispatcher, heard):
        for name in ("task-received", "task-started", "task-succeeded"):
            dispatcher.send(name, uuid="a")
        assert heard.look() == []
        eventually(lambda: consumer.hub.run_once() or heard.look())
        assert heard.messages == [["task-received", "task-started", "task-succeeded"]]
        dispatcher.send("task-received", uuid="b")
        eventually(lambda: consumer.hub.run_once() or len(heard.look()) == 2)


def test_it_goes_on_so_after_a_connection_was_lost(tmp_path: Path, consumer: Consumer) -> None:
    # What Celery does then. kombu takes it for the end of the loop.
    consumer.hub.reset()
    with dispatching(tmp_path, **gathering(consumer)) as (dispatcher, heard):
        dispatcher.send("task-received", uuid="a")
        eventually(lambda: consumer.hub.run_once() or heard.look() == [["task-received"]])


def test_a_worker_that_goes_has_said_all(tmp_path: Path, consumer: Consumer) -> None:
    with dispatching(tmp_path, **gathering(consumer)) as (dispatcher, heard):
        dispatcher.send("task-succeeded", uuid="a")
        dispatcher.send("worker-offline")
        assert heard.look() == [["task-succeeded"], ["worker-offline"]]


def test_without_a_loop_everything_is_sent_at_once(tmp_path: Path) -> None:
    with dispatching(tmp_path) as (dispatcher, heard):
        dispatcher.send("task-received", uuid="a")
        assert heard.look() == [["task-received"]]
