"""The heartbeat: a worker tells the ledger itself that its host is there, whatever becomes of Redis or its pool.

And whoever watches over the process that it lives, by a file, whatever becomes of the ledger.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from larder.ledger.hosts import BEAT
from tasks import context

logger = logging.getLogger("larder.heartbeat")

#: Held while the ledger is used, and while a process of the pool is forked: one that is forked in the middle of that
#: would inherit locks that nobody in it ever releases.
_QUIET = threading.Lock()
os.register_at_fork(before=_QUIET.acquire, after_in_parent=_QUIET.release, after_in_child=_QUIET.release)


class Heartbeat:
    """Threads of a worker's main process that beat until they are stopped."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._away = False
        self._file = context.settings().heartbeat_file

    def start(self) -> None:
        """Beat from now on."""
        # A ledger that is silent may hold the first for minutes. A probe would have the worker killed for that.
        for beat in (self._beat, self._live):
            threading.Thread(target=beat, name="heartbeat", daemon=True).start()

    def stop(self) -> None:
        """Beat no more."""
        self._over.set()

    def _beat(self) -> None:
        while True:
            try:
                with _QUIET:
                    context.ledger().hosts.beat(context.host())
                if self._away:
                    logger.info("the ledger answers again")
                self._away = False
            except Exception as error:  # noqa: BLE001 - whatever it is, it may be over the next time
                if not self._away:
                    why = str(getattr(error, "orig", None) or error).strip()
                    logger.error("unable to tell the ledger that this host is there: %s", why)
                self._away = True
            if self._over.wait(BEAT.total_seconds()):
                return

    def _live(self) -> None:
        while self._file is not None:
            self._touch(self._file)
            if self._over.wait(BEAT.total_seconds()):
                return

    def _touch(self, file: Path) -> None:
        """Show whoever watches over this process that it lives."""
        try:
            file.touch()
        except OSError as error:
            logger.error("unable to touch %s: %s", file, error.strerror)
