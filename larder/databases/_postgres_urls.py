"""PostgreSQL connection strings that are written down: without secrets, and with those of the same server again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from psycopg.conninfo import make_conninfo

from larder.databases._postgres_connection import parameters

_SECRET = ("password", "sslpassword")

#: What two connection strings have to agree in, so that one may use the other's password, with libpq's own defaults.
_LOGIN = {"host": "localhost", "hostaddr": "", "port": "5432", "user": ""}


def public_url(url: str) -> str:
    """The connection string in libpq's keyword form, without its secrets: `user=app dbname=shop host=db port=5432`."""
    return make_conninfo("", **{key: value for key, value in parameters(url).items() if key not in _SECRET})


def with_secrets_of(url: str, others: Iterable[str]) -> str:
    """The same, with the password of the first of `others` that logs in as the same user to the same server."""
    found = parameters(url)
    if found.get("password"):
        return url
    for other in others:
        known = parameters(other)
        if known.get("password") and _login(known) == _login(found):
            return make_conninfo("", **found, password=known["password"])
    return url


def _login(found: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(found.get(key) or default for key, default in _LOGIN.items())
