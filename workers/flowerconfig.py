"""What Flower shows of backups, and to whom: `celery -A workers flower` reads this file by itself.

Flower takes from here whatever is called like one of its options, so nothing else may be (`logging`, `auth`, `db`). Its
command line goes before this file, and FLOWER_ADDRESS, FLOWER_BASIC_AUTH and FLOWER_AUTH with its OAuth do too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from tornado.options import options as given

from larder import secret
from larder.errors import ConfigurationError, LarderError
from larder.variables import FILE, SecretFileError, secret_in
from tasks import context

_LOCAL = ("127.0.0.1", "::1", "localhost")

_LOGIN = "FLOWER_BASIC_AUTH"


def format_task(task: Any) -> Any:
    """A task as it is shown: without secrets, whoever sent it, and with a result only where that says something."""
    for name in ("args", "kwargs", "result", "exception", "traceback"):
        text = getattr(task, name, None)
        if text is not None:
            setattr(task, name, secret.redact(str(text)))
    # Steps return nothing. What stands here while one runs is its progress.
    if task.result == "None":
        task.result = None
    return task


def _logins(given_already: Sequence[str]) -> list[str]:
    """Who may log in, as `user:password`: whom Flower's own settings name, or else who may see the console."""
    try:
        # Flower has read the variable by itself, but knows nothing of files.
        in_file = None if given_already else secret_in(_LOGIN, os.environ)
    except SecretFileError as error:
        raise ConfigurationError(f"unable to have people log in: {_LOGIN}{FILE} {error}") from None
    found = [in_file] if in_file else list(given_already)
    console = context.settings().console
    if not found and console.password is not None:
        found = [f"{console.user}:{console.password.get_secret_value()}"]
    for login in found:
        secret.register(login.partition(":")[2])
        if not login.isascii() or not login.partition(":")[2]:
            raise ConfigurationError(
                "unable to have people log in: Flower takes user:password in ASCII, with a password",
                f"set {_LOGIN}, or another LARDER_CONSOLE_PASSWORD",
            )
    return found


def _see_that_it_is_safe(host: str, *, login: bool) -> None:
    """Raise `ConfigurationError` where everybody could come in from elsewhere, or do more than look."""
    if not hasattr(given, "read_only"):
        raise ConfigurationError("unable to use this Flower: it has no read_only", "install 2.1 or newer")
    if not login and host not in _LOCAL:
        raise ConfigurationError(
            f"unable to listen at {host}: it can be reached from elsewhere, and there is no login",
            f"set LARDER_CONSOLE_PASSWORD, {_LOGIN}, or FLOWER_AUTH with its OAuth variables",
        )


# Nobody starts, revokes or stops anything from here; a restore would be refused without its token in any case.
read_only = True

# A link's argument is its run, which `larder watch RUN` takes; the first task's says which database. While a step runs,
# the result is how far it is.
tasks_columns = "name,args,kwargs,state,result,started,runtime,worker,uuid"

# Every worker sends its events by itself: asking all of them for it every five seconds brings nothing.
enable_events = False

# Seconds. Containers have another name each time, and the list of workers would only grow.
purge_offline_workers = 600

# The last ones of some thousand databases. What there is to be kept is in the ledger.
max_tasks = 10_000
persistent = False

# This machine only, unless somebody says otherwise.
address = given.address or "127.0.0.1"

try:
    basic_auth = [] if given.auth else _logins(given.basic_auth or [])
    _see_that_it_is_safe(address, login=bool(given.auth or basic_auth))
except LarderError as error:
    sys.stderr.write(f"larder: {error}\n")
    raise SystemExit(error.exit_code) from None
