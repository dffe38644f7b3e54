"""What is amiss in kombu 5.7: it costs a worker its life where Redis is away, and time where Redis is there.

A consumer that has lost its connection closes it, and with it the channel, which gives messages back that were not
acknowledged. By then the connection has no client any more: that is an `AttributeError`, which Celery takes for the end
of the worker (`celery/worker/consumer/consumer.py`, `on_connection_error_after_connected`). Such messages wait for a
later time, and the ledger knows their runs: the guard sends them again.

For every command that it gives Redis, a channel makes a client of redis-py, which takes as long as the command
itself: a table of 169 functions is made and thrown away. A client has no state of its own; its connections
are the pool's.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import redis

logger = logging.getLogger("larder.broker")

_restore = redis.QoS.restore_unacked_once
_create = redis.Channel._create_client


def _restore_if_there(self: Any, stderr: Any = None) -> None:
    try:
        _restore(self, stderr)
    except AttributeError:
        logger.warning("messages that wait for a later time could not be given back: Redis is away")


def _create_once(self: Any, asynchronous: bool = False) -> Any:
    """The client that this channel has for its pool of connections; what it waits for messages with is its own."""
    if asynchronous:
        return _create(self, asynchronous)
    pool, client = getattr(self, "larder_client", (None, None))
    if pool is not self.pool:
        client = _create(self)
        self.larder_client = self.pool, client
    return client


def mend() -> None:
    """Have every channel of this process close, whether Redis is there or not, and give its commands by one client."""
    redis.QoS.restore_unacked_once = _restore_if_there
    redis.Channel._create_client = _create_once
