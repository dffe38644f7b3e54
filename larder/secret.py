"""Secrets: which strings must never be printed, and the mask that takes their place.

The configuration registers each secret that it reads. Errors, log lines and the output of subprocesses pass
through `redact` before anybody sees them. This is the second line of defence; the first is that secrets are
`pydantic.SecretStr`, which print themselves masked, and are never put into a message or an argv.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "****"

#: Shorter ones are not masked where they stand alone: a password `a` would turn every log line into stars.
SHORTEST_MASKED = 4

#: Text between two blanks.
_WORD = re.compile(r"\S+")

#: A character of a URL that is percent-encoded.
_HEXADECIMAL = re.compile("%[0-9A-F]{2}")

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
    # A JSON Web Token, whatever stands around it: whoever holds an approval's can use it.
    | (?<![\w-]) (?-i:eyJ) [\w-]{8,}+ \. [\w-]{8,}+ \. [\w-]{8,}+
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

_known: set[str] = set()

#: The same, longest first, since a secret may be a part of another; sorted again once there are more.
_ordered: tuple[str, ...] = ()


def register(value: str) -> None:
    """Have `value`, each of its lines, and the ways that others spell them, masked by every later `redact`."""
    # A message may hold the first line only: of what a server says, that is the point.
    for part in {value, *value.splitlines()}:
        _known.update(spelling for spelling in _spellings(part) if len(spelling) >= SHORTEST_MASKED)


def _spellings(value: str) -> Iterator[str]:
    """A value as it is, and as URLs, JSON, Python, SQL, libpq, HTML and XML have it in a text."""
    yield from (value, unquote(value), value.replace("'", "''"))
    yield from (html.escape(value), html.escape(value, quote=False))
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
    for percent_encoded in (
        # The environment may hold bytes that are no text.
        quote(value, safe="", errors="surrogateescape"),
        quote(value, errors="surrogateescape"),
        quote_plus(value, errors="surrogateescape"),
    ):
        yield percent_encoded
        yield _HEXADECIMAL.sub(lambda found: found[0].lower(), percent_encoded)
    for escape in (_quoted, repr, ascii, _as_bytes):
        # Which of the quotes are escaped depends on the longer text that the value stands in.
        pieces = [escape(piece)[1:-1] for piece in value.split("'")]
        yield from ("'".join(pieces), "\\'".join(pieces))


def _quoted(text: str) -> str:
    return "'{}'".format(text.replace("\\", "\\\\"))


def _as_bytes(text: str) -> str:
    return repr(text.encode(errors="surrogateescape"))[1:]


def redact(text: str) -> str:
    """Give `text` back with every known secret, and everything that looks like one, masked.

    That is: the password in a URL, and the value of `password=`, `token=` and their like, and JSON Web Tokens.
    Takes time in proportion to the text, whatever is in it.
    """
    for secret in _in_order():
        if secret in text:
            text = text.replace(secret, MASK)
    if "://" in text:
        text = _WORD.sub(_mask_url, text)
    return _KEYWORD.sub(_mask_value, text)


def redact_within(value: Any) -> Any:
    """The same for every text in a document of dictionaries and lists, however deep; keys are texts too."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact_within(key): redact_within(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(redact_within, value))
    return value


def redact_end(output: bytes | bytearray, size: int) -> str:
    """The end of what a program wrote, of which the last `size` bytes were kept, masked.

    Half a secret is known to nobody: a line that was cut is left out, or its first word where there is no other line.
    """
    text = output.decode("utf-8", errors="replace")
    if len(output) >= size:
        first, line_end, rest = text.partition("\n")
        text = rest if line_end else first.partition(" ")[2]
    return redact(text)


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
    return f"{found['head'] or found['bearer'] or ''}{mark}{MASK}{mark}"
