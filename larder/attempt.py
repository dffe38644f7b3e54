"""An attempt to tell somebody, which is waited for so long, and ended where it takes longer."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable


class Attempt(threading.Thread):
    """Work in a thread of its own. What it raises is kept in `error`."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self.error: Exception | None = None
        self._work = work
        self._gate = threading.Lock()
        self._over = False

    def run(self) -> None:
        """Do the work."""
        try:
            self._work()
        except SystemExit:
            return
        except Exception as error:  # noqa: BLE001 - whoever waits says what it was
            self.error = error
        finally:
            with self._gate:
                self._over = True

    def give_up(self) -> None:
        """Have the thread end as soon as what it waits for answers, or is over: it does nothing more.

        Where it went on, a message would arrive that was given up, and is sent again; and an answer that comes byte by
        byte, each of them in time, would keep it for ever.
        """
        with self._gate:
            if not self._over and self.ident is not None:
                # No library takes it for an error of its own, nor Python for a fault of the thread.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self.ident), ctypes.py_object(SystemExit)
                )
