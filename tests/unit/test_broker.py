"""A worker outlives a Redis that goes away while messages wait with it."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Connection
from kombu.transport import redis

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
