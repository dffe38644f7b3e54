"""PostgreSQL connection strings that are written down: without secrets, and with those of the same server again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from larder.databases._postgres_connection import parameters

_SECRET = ("password", "sslpassword")

#: What two connection strings have to agree in, so that one may use the other's password, with libpq's own defaults.
_LOGIN = {"host": "localhost", "hostaddr": "", "port": "5432", "user": ""}


def public_url(url: str) -> str:
    """The connection string as a URL, without its secrets, and without what only object mappers know."""
    return _spelt({key: value for key, value in parameters(url).items() if key not in _SECRET})


def with_secrets_of(url: str, others: Iterable[str]) -> str:
    """The same, with the password of the first of `others` that logs in as the same user to the same server."""
    found = parameters(url)
    if found.get("password"):
        return url
    for other in others:
        known = parameters(other)
        if known.get("password") and _login(known) == _login(found):
            return _spelt({**found, "password": known["password"]})
    return url


def _login(found: Mapping[str, str]) -> tuple[str, ...]:
    ports = set(found.get("port", "").split(","))
    # `port=5433` is the port of every host.
    given = {**found, "port": ports.pop() if len(ports) == 1 else found["port"]}
    return tuple(given.get(key) or default for key, default in _LOGIN.items())


def _spelt(found: Mapping[str, str]) -> str:
    """A URL, which object mappers take too: `post_restore` gets it, and libpq's keyword form is libpq's alone."""
    rest = dict(found)
    login = _quoted(rest.pop("user", ""))
    if password := rest.pop("password", ""):
        login += f":{_quoted(password)}"
    hosts = rest.pop("host", "").split(",")
    # Without a host there is no place for a port.
    ports = rest.pop("port", "").split(",") if hosts != [""] else []
    ports = ports * len(hosts) if len(ports) == 1 else ports or [""]
    places = (
        (f"[{host}]" if ":" in host else _quoted(host)) + (f":{port}" if port else "")
        for host, port in zip(hosts, ports, strict=False)
    )
    path = f"/{_quoted(rest.pop('dbname'))}" if "dbname" in rest else ""
    query = "&".join(f"{key}={_quoted(value)}" for key, value in rest.items())
    return f"postgresql://{login}{'@' if login else ''}{','.join(places)}{path}{'?' if query else ''}{query}"


def _quoted(text: str) -> str:
    return quote(text, safe="")
