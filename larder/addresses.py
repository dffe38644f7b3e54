"""Addresses of what Larder itself stands on: broker, ledger, Sentry: what is wrong with one, without calling there.

What is accepted here and cannot be used would end a run that has begun. No answer quotes the address, which may hold a
password.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

_BROKERS: Final = ("redis://", "rediss://", "redis+socket://")
_LEDGERS: Final = ("sqlite:///", "postgresql://", "postgres://")

#: What Celery's transport takes as parameters, beside those that begin with `ssl_`.
_BROKER_PARAMETERS: Final = ("virtual_host", "credential_provider")

_CERTIFICATES: Final = ("required", "optional", "none", "CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE")

_SENTRY: Final = ("https://", "http://")

_NO_ADDRESS: Final = "is no address: see its host and port, and quote / : @ in its password"


def problem_with_broker(url: str) -> str | None:
    """What is wrong with the address of a Redis, as a clause; None where it can be called."""
    # Several that stand in for each other are separated by semicolons.
    return next(filter(None, map(_problem_with_redis, url.split(";"))), None)


def problem_with_ledger(url: str) -> str | None:
    """What is wrong with the address of a ledger, as a clause; None where it can be opened."""
    if not url.startswith(_LEDGERS):
        return _starts(_LEDGERS)
    if not url.startswith("sqlite"):
        return None if _parts(url) else _NO_ADDRESS
    file, question, _ = url.removeprefix("sqlite:///").partition("?")
    if file in ("", ":memory:"):
        return "has to name a file, as sqlite:////var/lib/larder/ledger.sqlite3"
    return "takes no parameters" if question else None


def problem_with_sentry(url: str) -> str | None:
    """What is wrong with the address of a project of Sentry's, as a clause; None where it can be one."""
    parts = _parts(url)
    if parts is None or not url.startswith(_SENTRY):
        return _starts(_SENTRY)
    if not parts.username or not parts.hostname or not parts.path.rpartition("/")[2].isdecimal():
        return "has to be a project's DSN, as https://KEY@sentry.example/42"
    return None


def _problem_with_redis(url: str) -> str | None:
    if not url.startswith(_BROKERS):
        return _starts(_BROKERS)
    parts = _parts(url)
    if parts is None:
        return _NO_ADDRESS
    asked = dict(parse_qsl(parts.query))
    if not all(name in _BROKER_PARAMETERS or name.startswith("ssl_") for name in asked):
        return f"has a parameter that is not known; there are {', '.join(_BROKER_PARAMETERS)} and ssl_…"
    if asked.get("ssl_cert_reqs", "required") not in _CERTIFICATES:
        return f"has to have one of these as ssl_cert_reqs: {', '.join(_CERTIFICATES[:3])}"
    path = "" if parts.scheme == "redis+socket" else parts.path.removeprefix("/")
    if not all(
        number == "" or (number.isascii() and number.isdigit())
        for number in (path, asked.get("virtual_host", ""))
    ):
        return "has to end in the number of a database, as redis://host:6379/0"
    return None


def _parts(url: str) -> SplitResult | None:
    """The address's parts; None where it has no host, or no port, in the place of one."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _starts(words: tuple[str, ...]) -> str:
    return f"has to start with {' or '.join(words)}"
