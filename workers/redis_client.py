"""A plain client of the broker, for whoever asks whether it is there."""

from __future__ import annotations

import redis

#: How Celery spells the address of a Unix socket, and how redis-py does.
_SOCKET, _UNIX = "redis+socket://", "unix://"


def client_of(url: str, patience: float) -> redis.Redis:
    """A client of the Redis at `url`, or of the first of several, that waits for `patience` seconds at most.

    Raises `ValueError` for an address that only Celery understands.
    """
    first = url.partition(";")[0]
    if first.startswith(_SOCKET):
        first = _UNIX + first.removeprefix(_SOCKET).replace("virtual_host=", "db=")
    return redis.Redis.from_url(first, socket_timeout=patience, socket_connect_timeout=patience)
