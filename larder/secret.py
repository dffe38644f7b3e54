"""Secrets: which strings must never be printed, and the mask that takes their place.

The configuration registers each secret that it reads. Errors, log lines and the output of subprocesses pass
through `redact` before anybody sees them. This is the second line of defence; the first is that secrets are
`pydantic.SecretStr`, which print themselves masked, and are never put into a message or an argv.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote, quote_plus, unquote

MASK = "****"

#: Shorter ones are not masked where they stand alone: a password `a` would turn every log line into stars.
SHORTEST_MASKED = 4

#: Text between two blanks.
_WORD = re.compile(r"\S+")

#: What stands before a password in a URL.
_BEFORE_PASSWORD = re.compile(r"://[^/@:]*:")

#: How many blanks may stand around a sign is bounded, so that many blanks do not take the square of their time.
_KEYWORD = re.compile(
    r"""
    (?P<head>
        (?: password | passwd | secret | secret_access_key | api_?key | token ) ["']?
        (?: \s{0,8} = \s{0,8}  |  \s{0,8} : \s{0,8} (?=["'])  |  \s{1,8} (?=') )
    )
    (?: (?P<quote>["']) (?: (?!(?P=quote)) [^\\] | \\. )*+ (?P=quote)  |  [^\s&]+ )
    | (?P<bearer> \b bearer \s{1,8} ) [^\s"',]+
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

_known: set[str] = set()

#: The same, longest first, since a secret may be a part of another; sorted again once there are more.
_ordered: tuple[str, ...] = ()


def register(value: str) -> None:
    """Have `value`, and the ways that URLs, JSON and Python spell it, masked by every later `redact`."""
    spellings = {
        value,
        quote(value, safe=""),
        quote(value),
        quote_plus(value),
        unquote(value),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
    }
    _known.update(spelling for spelling in spellings if len(spelling) >= SHORTEST_MASKED)


def redact(text: str) -> str:
    """Give `text` back with every known secret, and everything that looks like one, masked.

    That is: the password in a URL, and the value of `password=`, `token=` and their like. Takes time in proportion
    to the text, whatever is in it.
    """
    for secret in _in_order():
        if secret in text:
            text = text.replace(secret, MASK)
    if "://" in text:
        text = _WORD.sub(_mask_url, text)
    return _KEYWORD.sub(_mask_value, text)


def _in_order() -> tuple[str, ...]:
    # Sorted when it is first needed: a thousand databases register a thousand passwords before anything is printed.
    global _ordered
    if len(_ordered) != len(_known):
        _ordered = tuple(sorted(_known.copy(), key=lambda known: (-len(known), known)))
    return _ordered


def _mask_url(word: re.Match[str]) -> str:
    """The password may hold `/`, `:` and `@`: it ends at the last `@` before a blank."""
    text = word[0]
    end = text.rfind("@")
    head = _BEFORE_PASSWORD.search(text, 0, max(end, 0))
    return f"{text[: head.end()]}{MASK}{text[end:]}" if head else text


def _mask_value(found: re.Match[str]) -> str:
    mark = found["quote"] or ""
    return f"{found['head'] or found['bearer']}{mark}{MASK}{mark}"
