"""Pacing: bytes go no faster than somebody wants, so that a backup does not starve what runs beside it."""

from __future__ import annotations

import threading
import time


class Pacer:
    """Lets `rate` bytes a second pass, on the average of some seconds; from as many threads as there are."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        #: When the next byte may pass; no earlier than now, so that a pause is not made up for.
        self._next = time.monotonic()

    def spend(self, count: int) -> None:
        """Wait until `count` bytes that have been moved are paid for."""
        with self._lock:
            self._next = max(self._next, time.monotonic()) + count / self._rate
            wait = self._next - time.monotonic()
        if wait > 0:
            time.sleep(wait)
