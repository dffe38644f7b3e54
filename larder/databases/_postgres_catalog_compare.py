"""Two catalogs of a PostgreSQL database against each other: what is missing, what is new, what is another one."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping

#: Definitions that are longer are known by their SHA-256 only.
LONGEST = 200

#: What those begin with.
_HASHED = "sha256:"

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

#: A quoted name, or one that needs no quotes; and several of them.
_NAME = r'(?:"(?:[^"]|"")*"|[^\s",]+)'
_NAMES = rf"{_NAME}(?:,{_NAME})*"

#: By kind what no server words in its own way, in the groups; between them are expressions.
_SETTLED = {
    # Type, collation, not null, identity; and whether there is a default, or how it comes about.
    "column": re.compile(r"(.*?)(?:(?<= )(default|generated) .*?)?((?<= )rights .*)?", re.DOTALL),
    "constraint": re.compile(
        r"(CHECK|EXCLUDE USING \w+) .*?((?: NO INHERIT| NOT VALID| NOT ENFORCED)*)", re.DOTALL
    ),
    "index": re.compile(
        rf"(on (?:{_NAME})+ using {_NAME}) .*?((?:, unique|, not valid|, clustered)*)", re.DOTALL
    ),
    "trigger": re.compile(r"(.*?) WHEN .*?( EXECUTE FUNCTION .*)", re.DOTALL),
    "policy": re.compile(rf"(\S+ \w+ {_NAMES}) .*", re.DOTALL),
    "type": re.compile(r"(.*?) default .*( owner .*)", re.DOTALL),
}


def plain(definition: str) -> str:
    """A definition without casts and parentheses, and with white space only between words, outside of quotes."""
    marked = _PARTS.sub(lambda part: part[1] or part[3] or ("\0" if part[4] else ""), definition)
    return re.sub("\0+", " ", _NEEDLESS.sub("", marked))


def differences(
    wanted: Mapping[str, str],
    found: Mapping[str, str],
    loose: Container[str],
    unsure: list[str],
    remade: Container[str] = (),
) -> Iterator[str]:
    """How one catalog differs from another, an object a line.

    Of those in `loose`, another version of the server may word the expressions in another way: where only that is
    different, it is added to `unsure`. Those in `remade` were made by the server itself.
    """
    for name in sorted({*wanted, *found}):
        if name not in found:
            yield f"{name} is missing"
        elif name not in wanted:
            yield f"{name} is not in the backup"
        elif _alike(wanted[name], found[name], remade=name in remade):
            continue
        elif name in loose and _may_be_worded_anew(name, wanted[name], found[name]):
            unsure.append(name)
        elif _HASHED in (wanted[name][:7], found[name][:7]):
            yield f"{name}: its definition is another one"
        else:
            yield f"{name}: expected {wanted[name]}, found {found[name]}"


def _alike(wanted: str, found: str, *, remade: bool) -> bool:
    """Whether two definitions are one; of what was remade, as far as that can be known."""
    if remade and _HASHED in (wanted[:7], found[:7]):
        return True
    if remade:
        wanted, found = wanted.removesuffix(" NOT VALID"), found.removesuffix(" NOT VALID")
    return plain(wanted) == plain(found)


def _may_be_worded_anew(name: str, wanted: str, found: str) -> bool:
    """Whether two definitions may differ in their expressions only. Of a hash nobody knows."""
    return _HASHED in (wanted[:7], found[:7]) or _settled(name, wanted) == _settled(name, found)


def _settled(name: str, definition: str) -> tuple[str, ...] | None:
    pattern = _SETTLED.get(name.partition(" ")[0])
    match = None if pattern is None else pattern.fullmatch(definition)
    return None if match is None else tuple(plain(part or "") for part in match.groups())
