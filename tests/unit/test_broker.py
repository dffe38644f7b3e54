"""A worker outlives a Redis that goes away while messages wait with it, and gives commands by one client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from kombu.transport import redis

from tests.processes import redis_server
from workers import broker


def test_a_channel_closes_whose_connection_has_no_client_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(self: Any) -> None:
        raise AttributeError("'NoneType' object has no attribute 'hostname'")

    monkeypatch.setattr(redis.QoS, "restore_unacked_once", redis.QoS.restore_unacked_once)
    monkeypatch.setattr(redis.QoS, "restore_unacked", lose)
    broker.mend()
    with Connection("memory://") as connection:
        qos = redis.QoS(connection.channel())
        qos._delivered["tag"] = object()
        qos.restore_unacked_once()


def test_a_channel_gives_its_commands_by_one_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis.Channel, "_create_client", redis.Channel._create_client)
    broker.mend()
    with redis_server(tmp_path) as url, Connection(url) as connection:
        channel, other = connection.channel(), connection.channel()
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
            assert first.ping()
        assert channel.client is not first, "what waits for messages has connections of its own"
        with other.conn_or_acquire() as another:
            assert another is not first
        channel._disconnect_pools()
        with channel.conn_or_acquire() as later:
            assert later is not first
            assert later.ping()
