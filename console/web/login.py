"""Login: who gets in. A password by HTTP Basic, or the word of a proxy where somebody has logged in already.

Without either the console is for this machine only; then a page from elsewhere must not reach it through the browser of
somebody who sits here, by a name that leads to this address (DNS rebinding): only known names are answered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import threading
import time
from collections import OrderedDict, deque
from ipaddress import ip_address, ip_network
from math import ceil

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from console.web.answers import Answer, refusal
from larder.settings import ConsoleSettings

#: Wrong tries that an address has, within `_WINDOW` seconds.
_TRIES = 10
_WINDOW = 60.0

#: How many addresses are remembered; the longest silent are forgotten.
_ADDRESSES = 10_000

#: What everybody may ask: probes, the stylesheet, and what has a secret of its own.
_OPEN = ("/api/live", "/api/ready", "/api/health", "/api/cron/backup")
_OPEN_FOLDER = "/static/"

_LOCAL = ("localhost", "127.0.0.1", "::1")


def same(given: str, wanted: str) -> bool:
    """Whether two words are the same, in a time that says nothing of where, nor of how long, they differ."""
    digests = (hashlib.sha256(word.encode("utf-8", "surrogateescape")).digest() for word in (given, wanted))
    return hmac.compare_digest(*digests)


class Tries:
    """The wrong tries of each address."""

    def __init__(self, most: int = _TRIES, seconds: float = _WINDOW) -> None:
        self._most = most
        self._seconds = seconds
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, address: str) -> int:
        """Seconds that `address` has to wait for its next try; 0 where it has not to."""
        with self._lock:
            wrong = self._wrong.get(address)
            if wrong is None or len(wrong) < self._most:
                return 0
            return max(ceil(wrong[0] + self._seconds - time.monotonic()), 0)

    def note(self, address: str) -> None:
        """Note a wrong try."""
        with self._lock:
            # The oldest of them makes room for this one: only the last few count.
            self._wrong.setdefault(address, deque(maxlen=self._most)).append(time.monotonic())
            self._wrong.move_to_end(address)
            if len(self._wrong) > _ADDRESSES:
                self._wrong.popitem(last=False)


class Login:
    """Lets those through who may come in, and tells the others why not."""

    def __init__(self, app: ASGIApp, settings: ConsoleSettings, tries: Tries) -> None:
        self._app = app
        self._settings = settings
        self._tries = tries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        answer = self._stopped(connection)
        await (answer or self._app)(scope, receive, send)

    def _stopped(self, connection: HTTPConnection) -> Answer | None:
        """What is said to whoever may not come in; None lets them through, and `scope["user"]` says who they are."""
        # Not that of `connection.url`, which is put together with what the client says that the host is.
        path: str = connection.scope["path"]
        is_open = path in _OPEN or path.startswith(_OPEN_FOLDER)
        if not self._settings.has_login:
            connection.scope["user"] = None if self._is_foreign(connection.headers) else ""
            if connection.scope["user"] is None:
                return refusal(
                    421,
                    "this console answers to localhost only",
                    "name others in larder.toml: [console] hosts = […]",
                )
            return None
        user, answer = self._who(connection)
        connection.scope["user"] = user
        wants_more = connection.query_params.get("detailed") == "true"
        if user is not None or (is_open and not wants_more):
            return None
        return answer or self._ask()

    def _is_foreign(self, headers: Headers) -> bool:
        name = headers.get("host", "")
        host = name[1:].partition("]")[0] if name.startswith("[") else name.rpartition(":")[0] or name
        return host.lower() not in (*_LOCAL, *(one.lower() for one in self._settings.hosts))

    def _who(self, connection: HTTPConnection) -> tuple[str | None, Answer | None]:
        """Who it is, or None; and what to say to that, where it is more than to ask for a login."""
        settings, peer = self._settings, connection.client.host if connection.client else ""
        if settings.proxy_header is not None and _is_in(peer, settings.proxies):
            names = connection.headers.getlist(settings.proxy_header)
            # Two of them: the proxy has added its own to one that came from elsewhere.
            if len(names) == 1 and names[0]:
                return names[0], None
        return self._basic(connection, address_of(connection, settings))

    def _basic(self, connection: HTTPConnection, address: str) -> tuple[str | None, Answer | None]:
        given = connection.headers.get("authorization", "")
        kind, _, value = given.partition(" ")
        if self._settings.password is None or kind.lower() != "basic":
            return None, None
        if wait := self._tries.wait(address):
            return None, too_many(wait)
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            user, password = "", ""
        # Both, always: which of them was wrong is nobody's business.
        good = same(user, self._settings.user) & same(password, self._settings.password.get_secret_value())
        if good:
            return user, None
        self._tries.note(address)
        return None, self._ask("the user or the password is wrong")

    def _ask(self, error: str = "this needs a login") -> Answer:
        if self._settings.password is None:
            return refusal(403, "this is reached through the proxy that one logs in at")
        return refusal(401, error, headers={"WWW-Authenticate": 'Basic realm="Larder", charset="UTF-8"'})


def address_of(connection: HTTPConnection, settings: ConsoleSettings) -> str:
    """Who asks: the other end, or whom a proxy that is believed names as its own other end.

    Of IPv6 the network: whoever has one address there has 2⁶⁴.
    """
    peer = connection.client.host if connection.client else ""
    named = ""
    if settings.proxy_header is not None and _is_in(peer, settings.proxies):
        named = connection.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return _network(named) or _network(peer) or peer


def _network(address: str) -> str | None:
    try:
        found = ip_address(address)
    except ValueError:
        return None
    return str(ip_network((found.packed, 64), strict=False)) if found.version == 6 else str(found)


def too_many(wait: int) -> Answer:
    """What is said to whoever has tried too often."""
    return refusal(429, "too many wrong tries", f"wait {wait} s", {"Retry-After": str(wait)})


def _is_in(peer: str, networks: tuple[str, ...]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in ip_network(network, strict=False) for network in networks)
