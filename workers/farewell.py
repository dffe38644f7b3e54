"""The farewell: a worker that is to end waits for the steps of its pool, but not for long."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from tasks import interruption

logger = logging.getLogger("larder.farewell")

#: Seconds that a step has for its end once its worker is to end; after that it is given back. Docker, which has the
#: least patience of those who start workers, kills after ten.
PATIENCE = 5


class Farewell:
    """A thread of a worker's main process that waits until the worker is to end."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._processes: Callable[[], Iterable[int]] = tuple

    def start(self, processes: Callable[[], Iterable[int]]) -> None:
        """Be ready; `processes` says which process ids the pool has."""
        self._processes = processes
        threading.Thread(target=self._wait, name="farewell", daemon=True).start()

    def begin(self) -> None:
        """Say that the worker is to end. May be called by a signal's handler."""
        self._asked.set()

    def _wait(self) -> None:
        self._asked.wait()
        # Nobody sets it: what ends this is the end of the process, when the pool is done before.
        threading.Event().wait(PATIENCE)
        logger.warning("steps that are not done after %d s are given back", PATIENCE)
        for process in self._processes():
            with suppress(ProcessLookupError):
                os.kill(process, interruption.LEAVE)
