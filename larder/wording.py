"""The words of definitions: what of them counts when two are compared, and what of them nobody should read.

Fingerprints keep definitions as a database words them. A literal in one may be a key, or somebody's name; and a server
words one and the same expression in another way once it has been dumped and loaded.
"""

from __future__ import annotations

import hashlib
import re

#: Quoted text and names, which count; casts; and white space and parentheses. A server words one and the same
#: expression with other casts and parentheses once it has been dumped and loaded.
_PARTS = re.compile(
    r"('(?:[^']|'')*')"
    r"|(::(?:\"(?:[^\"]|\"\")*\"|[a-z_][\w$]*)(?:\.(?:\"(?:[^\"]|\"\")*\"|[a-z_][\w$]*))?"
    r"(?: varying| precision| with(?:out)? time zone)?(?:\(\d+(?:,\s*\d+)?\))?(?: with(?:out)? time zone)?(?:\[\])*)"
    r"|(\"(?:[^\"]|\"\")*\")"
    r"|([\s()]+)"
)
#: White space that parts no two words.
_NEEDLESS = re.compile(r"\0+(?!\w)|(?<!\w)\0+")

#: A quoted name, which may hold a quote of the other kind; the name of a sequence or the like; or another literal.
_QUOTED = re.compile(r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'::regclass\b|'((?:[^']|'')*)'")
_HIDDEN = re.compile(r"sha256:[0-9a-f]{16}")

#: Hexadecimal digits of a literal's hash: enough to tell two apart.
_DIGITS = 16


def plain(definition: str) -> str:
    """A definition without casts and parentheses, and with white space only between words, outside of quotes."""
    marked = _PARTS.sub(lambda part: part[1] or part[3] or ("\0" if part[4] else ""), definition)
    return re.sub("\0+", " ", _NEEDLESS.sub("", marked))


def hidden(name: str, definition: str) -> str:
    """The definition of `name` (`column public.a.b`) with a hash in the place of each literal; of one that has it, the
    same again.

    The labels of an enum and the names of locales are what such an object is, and stay, as names of sequences do.
    """
    if name.startswith("collation ") or (name.startswith("type ") and definition.startswith("enum ")):
        return definition
    return _QUOTED.sub(_hashed, definition)


def _hashed(quoted: re.Match[str]) -> str:
    said = quoted[1]
    if said is None or _HIDDEN.fullmatch(said):
        return quoted[0]
    return f"'sha256:{hashlib.sha256(said.encode()).hexdigest()[:_DIGITS]}'"
