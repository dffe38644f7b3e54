"""Secrets: which strings must never be printed, and the mask that takes their place.

The configuration registers each secret that it reads. Errors, log lines and the output of subprocesses pass
through `redact` before anybody sees them. This is the second line of defence; the first is that secrets are
`pydantic.SecretStr`, which print themselves masked, and are never put into a message or an argv.
"""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus, unquote

MASK = "****"

#: Shorter ones are not masked where they stand alone: a password `a` would turn every log line into stars.
SHORTEST_MASKED = 4

_URL_PASSWORD = re.compile(r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:]*:)(?P<password>[^\s]+)(?=@)")
_KEYWORD_PASSWORD = re.compile(
    r"(?P<head>\b(?:password|passwd|sslpassword|secret|token)\s*=\s*)(?P<value>'(?:[^'\\]|\\.)*'|[^\s&]+)",
    re.IGNORECASE,
)

_known: set[str] = set()


def register(value: str) -> None:
    """Have `value`, and its percent-encoded spellings, masked by every later `redact`."""
    if len(value) >= SHORTEST_MASKED:
        _known.update({value, quote(value, safe=""), quote(value), quote_plus(value), unquote(value)})


def redact(text: str) -> str:
    """Give `text` back with every known secret, and everything that looks like one in a URL, masked."""
    for secret in sorted(_known, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, MASK)
    text = _URL_PASSWORD.sub(rf"\g<head>{MASK}", text)
    return _KEYWORD_PASSWORD.sub(rf"\g<head>{MASK}", text)
