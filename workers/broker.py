"""What is amiss in kombu 5.7 where Redis is away, and would cost a worker its life.

A consumer that has lost its connection closes it, and with it the channel, which gives messages back that were not
acknowledged. By then the connection has no client any more: that is an `AttributeError`, which Celery takes for the end
of the worker (`celery/worker/consumer/consumer.py`, `on_connection_error_after_connected`). Such messages wait for a
later time, and the ledger knows their runs: the guard sends them again.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import redis

logger = logging.getLogger("larder.broker")

_restore = redis.QoS.restore_unacked_once


def _restore_if_there(self: Any, stderr: Any = None) -> None:
    try:
        _restore(self, stderr)
    except AttributeError:
        logger.warning("messages that wait for a later time could not be given back: Redis is away")


def mend() -> None:
    """Have every channel of this process close, whether Redis is there or not."""
    redis.QoS.restore_unacked_once = _restore_if_there
