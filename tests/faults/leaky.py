"""Workers in which something fails that nobody foresaw, in words full of secrets.

They are started with `celery -A tests.faults.leaky worker`.

The dump of database `odd` fails so; the task `leak` does, a thread of its own, and an object that is thrown away.
LARDER_TEST_LEAK holds the secret.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any, NoReturn

import sqlalchemy as sa

from larder.databases.sqlite import SqliteDatabase
from workers.celery import app

__all__ = ["app"]

SECRET = os.environ["LARDER_TEST_LEAK"]


def _fail() -> NoReturn:
    """An error with a secret in its text, in its parameters, and in those of its cause."""
    try:
        raise ConnectionAbortedError(f"the server said: {SECRET!r}")
    except ConnectionAbortedError as cause:
        parameters = {"password": SECRET, "other": [SECRET.encode()]}
        raise sa.exc.StatementError(
            f"about {SECRET}", "ALTER ROLE a PASSWORD :p", parameters, cause
        ) from cause


class _Thrown:
    def __del__(self) -> None:
        _fail()


@app.task(name="leak")
def leak(*_: Any, **__: Any) -> None:
    """Fail in every way at once."""
    thread = threading.Thread(target=_fail, name="leaking")
    thread.start()
    thread.join()
    thrown = _Thrown()
    del thrown
    try:
        _fail()
    except sa.exc.StatementError:
        logging.getLogger("larder.leak").exception("unable to use %s and %r", SECRET, {"it": SECRET})
    _fail()


_dump = SqliteDatabase.dump


def _dump_or_fail(self: SqliteDatabase, *arguments: Any, **options: Any) -> Any:
    if self.name == "odd":
        _fail()
    return _dump(self, *arguments, **options)


SqliteDatabase.dump = _dump_or_fail  # type: ignore[method-assign]
