"""Two catalogs of a PostgreSQL database against each other: what is missing, what is new, what is another one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterator, Mapping

from larder.wording import hidden, plain

#: Definitions that are longer are known by their SHA-256 only.
LONGEST = 200

#: What those begin with.
_HASHED = "sha256:"

#: Names of what may hold a secret, or somebody's words, anywhere: known by its SHA-256 always.
_SHUT = "function "

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


def kept(name: str, definition: str) -> str:
    """What a fingerprint holds of the definition of `name` (`column public.a.b`): its text, or a hash of it."""
    if len(definition) <= LONGEST and not name.startswith(_SHUT):
        return hidden(name, definition)
    return _hash_of(definition)


def _hash_of(definition: str) -> str:
    return _HASHED + hashlib.sha256(plain(definition).encode()).hexdigest()


def differences(
    wanted: Mapping[str, str],
    found: Mapping[str, str],
    loose: Container[str],
    unsure: list[str],
    remade: Container[str] = (),
) -> Iterator[str]:
    """How one catalog, as it is kept, differs from another, of whole definitions; an object a line.

    Of those in `loose`, another version of the server may word the expressions in another way: where only that is
    different, it is added to `unsure`. Those in `remade` were made by the server itself.
    """
    for name in sorted({*wanted, *found}):
        if name not in found:
            yield f"{name} is missing"
            continue
        if name not in wanted:
            yield f"{name} is not in the backup"
            continue
        # Older fingerprints hold literals as they were.
        before, now = hidden(name, wanted[name]), kept(name, found[name])
        if _alike(name, before, found[name], remade=name in remade):
            continue
        if name in loose and _may_be_worded_anew(name, before, now):
            unsure.append(name)
        elif _HASHED in (before[:7], now[:7]):
            yield f"{name}: its definition is another one"
        else:
            yield f"{name}: expected {before}, found {now}"


def _alike(name: str, wanted: str, found: str, *, remade: bool) -> bool:
    """Whether a definition, as it is kept, and a whole one are one; of what was remade, as far as that can be known.

    One and the same may be kept as text and come back longer than that, or the other way about.
    """
    if wanted.startswith(_HASHED):
        return remade or wanted in (found, _hash_of(found))
    said = hidden(name, found)
    if remade:
        wanted, said = wanted.removesuffix(" NOT VALID"), said.removesuffix(" NOT VALID")
    return plain(wanted) == plain(said)


def _may_be_worded_anew(name: str, wanted: str, found: str) -> bool:
    """Whether two definitions may differ in their expressions only. Of a hash nobody knows."""
    return _HASHED in (wanted[:7], found[:7]) or _settled(name, wanted) == _settled(name, found)


def _settled(name: str, definition: str) -> tuple[str, ...] | None:
    pattern = _SETTLED.get(name.partition(" ")[0])
    match = None if pattern is None else pattern.fullmatch(definition)
    return None if match is None else tuple(plain(part or "") for part in match.groups())
