"""The heartbeat: a worker tells the ledger itself that its host is there, whatever becomes of Redis or its pool."""

from __future__ import annotations

import logging
import os
import threading

from larder.ledger.hosts import BEAT
from tasks import context

logger = logging.getLogger("larder.heartbeat")

#: Held while the ledger is used, and while a process of the pool is forked: one that is forked in the middle of that
#: would inherit locks that nobody in it ever releases.
_QUIET = threading.Lock()
os.register_at_fork(before=_QUIET.acquire, after_in_parent=_QUIET.release, after_in_child=_QUIET.release)


class Heartbeat:
    """A thread of a worker's main process that beats until it is stopped."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._away = False
        self._file = context.settings().heartbeat_file

    def start(self) -> None:
        """Beat from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._over.set()

    def _beat(self) -> None:
        while True:
            self._touch()
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

    def _touch(self) -> None:
        """Show whoever watches over this process that it lives, whatever has become of the ledger."""
        if self._file is None:
            return
        try:
            self._file.touch()
        except OSError as error:
            logger.error("unable to touch %s: %s", self._file, error.strerror)
