"""`larder console`: listens, and ends when it is told to."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace

import uvicorn

from console import output
from console.web.application import application
from larder.errors import ConfigurationError, LarderError
from larder.settings import Settings
from tasks import context
from workers import log

#: Seconds that open answers have once it is told to end.
_STOP_SECONDS = 5

#: And that its threads have after that.
_LAST_SECONDS = 1


def serve(host: str | None, port: int | None, flower_url: str | None, *, as_json: bool) -> int:
    """Serve the console at `host` and `port`, or where the configuration says, until somebody ends it.

    `flower_url` is where Flower is, unless the configuration says that too.
    """
    settings = context.settings()
    wanted = settings.console.model_copy(
        update={key: value for key, value in (("host", host), ("port", port)) if value is not None}
    )
    if settings.console.flower_url is None:
        shown = settings.console.model_copy(update={"flower_url": flower_url})
        settings = replace(settings, console=shown)
    see_that_it_is_safe(settings, wanted.host)
    log.configure(settings.log_format, logging.INFO)
    for name in ("uvicorn.error", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with listener(wanted.host, wanted.port) as ears:
        address = f"http://{wanted.host if ':' not in wanted.host else f'[{wanted.host}]'}:{wanted.port}/"
        if as_json:
            output.print_json({"url": address, "login": settings.console.has_login})
        else:
            output.err.print(f"the console is at {address}; Ctrl-C ends it")
        if settings.redis_url is not None:
            _can_send()
        config = uvicorn.Config(
            application(settings),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            http="h11",
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=_STOP_SECONDS,
            h11_max_incomplete_event_size=64 << 10,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn raises again what it was told to end by; it has ended in good order, and nothing is amiss.
            signal.signal(number, lambda *_: None)
        uvicorn.Server(config).run(sockets=[ears])
    _leave_behind()
    return 0


def _leave_behind() -> None:
    """End at once where a thread hangs, as in a ledger that is silent: Python would wait for it, for ever.

    What hangs only reads, or is a transaction that its database takes back.
    """
    deadline = time.monotonic() + _LAST_SECONDS
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(max(deadline - time.monotonic(), 0))
            if thread.is_alive():
                logging.getLogger("larder.console").warning("ended while something did not answer")
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)


def _can_send() -> None:
    """Have the cron endpoint, whatever thread it runs in, send messages by the application that workers listen with."""
    from workers.celery import app  # noqa: PLC0415 - makes folders, which is too early before it is sure to serve

    app.set_default()


def see_that_it_is_safe(settings: Settings, host: str) -> None:
    """Raise `ConfigurationError` where everybody could come in from elsewhere."""
    if settings.console.has_login or _is_loopback(host):
        return
    raise ConfigurationError(
        f"unable to listen at {host}: it can be reached from elsewhere, and there is no login",
        "set LARDER_CONSOLE_PASSWORD, or proxy_header in [console]; or listen at 127.0.0.1",
    )


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(address[0] == "::1" or str(address[0]).startswith("127.") for *_, address in found)


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises `LarderError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, UnicodeError) as error:
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        reason = (
            "somebody else listens there" if taken else getattr(error, "strerror", None) or "no such address"
        )
        raise LarderError(
            f"unable to listen at {host}:{port}: {reason.lower()}",
            "choose another port: larder console --port 8001"
            if taken
            else "see [console] host in larder.toml",
        ) from None
