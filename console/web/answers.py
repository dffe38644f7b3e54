"""Answers: JSON for programs, and errors that say what went wrong without saying what is secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from larder.errors import (
    BusyError,
    ConfigurationError,
    LarderError,
    NotAuthorisedError,
    NotFoundError,
    UnreachableError,
)
from larder.ledger import AwayError, CrowdedError

logger = logging.getLogger("larder.console")

#: What HTTP calls each error, by whose move it is to mend it; the first that fits.
_STATUS: tuple[tuple[type[LarderError], int], ...] = (
    (NotFoundError, 404),
    (BusyError, 409),
    (NotAuthorisedError, 403),
    (ConfigurationError, 500),
    (UnreachableError, 503),
)

Handler = Callable[[Request, Exception], Response | Awaitable[Response]]


class Answer(Response):
    """A JSON document, with times as every other door of Larder prints them."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The document's bytes."""
        return json.dumps(content, ensure_ascii=False, default=_plain).encode()


def refusal(status: int, error: str, hint: str = "", headers: dict[str, str] | None = None) -> Answer:
    """What an error looks like."""
    return Answer({"error": error, "hint": hint}, status, headers)


def flag(request: Request, name: str) -> bool:
    """Whether the query says `name=true`. Raises `HTTPException` where it says what is neither true nor false."""
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise HTTPException(400, f"{name} has to be true or false")
    return text == "true"


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)


def _of_larder(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LarderError)  # noqa: S101 - it is registered for no other
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return refusal(status, error.message, error.hint)


def _of_ledger(_request: Request, error: Exception) -> Response:
    logger.error("the ledger cannot be asked: %s", type(error).__name__)
    return refusal(503, "unable to ask the ledger", "see whether its database runs: larder doctor")


def of_http(request: Request, error: Exception) -> Response:
    """What is said at an address, or by a method, that there is not."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for no other
    words = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not for {request.url.path}",
    }
    message = words.get(error.status_code, error.detail)
    return refusal(error.status_code, message, headers=dict(error.headers or {}))


def unexpected(scope: Scope, error: Exception) -> Answer:
    """What is said of an error that nobody has thought of. The log has what it was."""
    logger.error("unable to answer %s %r", scope["method"], scope["path"], exc_info=error)
    return refusal(500, "internal error", "the console's log has more")


#: How errors of each kind are answered.
HANDLERS: dict[Any, Handler] = {
    LarderError: _of_larder,
    AwayError: _of_ledger,
    CrowdedError: _of_ledger,
    HTTPException: of_http,
}
