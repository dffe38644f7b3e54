"""Posting: one request by HTTP, whose answer is looked at and never believed too much.

It goes where it was addressed and nowhere else: an answer that leads elsewhere is a refusal. Of an answer's body, a few
bytes are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.message import Message
from typing import IO, Annotated, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydantic import AfterValidator, SecretStr

import larder
from larder.errors import RefusedError, UnreachableError
from larder.notifiers import TooEarlyError

#: Bytes of an answer that are read.
_READ = 200

#: What a server says when it refuses: `no_service`. Others repeat the address in a page of their own.
_WORDS = re.compile(r"[a-z_ ]{1,60}")

#: Answers after which the same request may be taken: too slow, too early, too many.
_LATER = (408, 425, 429)


class _GoNowhere(HTTPRedirectHandler):
    """Leaves a redirection an answer."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """There is no other request."""


def _usable(value: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(value.get_secret_value())
        usable = parts.scheme in {"https", "http"} and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("has to be a webhook's address, https://…")
    return value


#: An address to post to, which is a secret: whoever has it can post there.
Webhook = Annotated[SecretStr, AfterValidator(_usable)]


def post(url: str, body: bytes, headers: Mapping[str, str], seconds: float, hint: str) -> None:
    """Post `body`, and see that it was taken; by the proxy that the environment names, if any.

    Raises `RefusedError` with `hint` where another try would be answered the same, `TooEarlyError` where the server
    said when to try again, `UnreachableError` where it may answer otherwise the next time; and whatever urllib raises,
    whose text may hold the address.
    """
    sent = {"User-Agent": f"larder/{larder.__version__}", **headers}
    request = Request(url, data=body, headers=sent, method="POST")  # noqa: S310 - a `Webhook`'s scheme is http or https
    opener = build_opener(_GoNowhere)
    try:
        with opener.open(request, timeout=seconds) as answer:
            answer.read(_READ)
    except HTTPError as refusal:
        with refusal:
            said = refusal.read(_READ).decode("utf-8", errors="replace").strip()
            raise _error(refusal.code, said, refusal.headers, hint) from None


def _error(status: int, said: str, headers: Message | Mapping[str, Any], hint: str) -> UnreachableError:
    message = f"it answered {status} {said if _WORDS.fullmatch(said) else ''}".rstrip()
    if status // 100 == 3:
        return RefusedError(f"{message}, which leads elsewhere", "write the address that it leads to")
    if status // 100 == 4 and status not in _LATER:
        return RefusedError(message, hint)
    after = str(headers.get("Retry-After", ""))
    if not after.isdecimal():
        return UnreachableError(message)
    early = TooEarlyError(message)
    early.seconds = float(after[:9])
    return early
