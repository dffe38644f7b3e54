"""Whether a document of evidence is as it was signed, by whom, and whether what it says holds together.

Neither ledger, store nor configuration is needed: the file, the report beside it, and the keys that are trusted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from larder.errors import ConfigurationError, IntegrityError
from larder.evidence import FORMAT, Document, canonical, signed_part
from larder.evidence_summary import summarise
from larder.ledger.audit import problem_with
from larder.manifest import File
from larder.signing import Signature
from larder.streams import digest_file

_ALTERED: Final = "ask for the file again, by another way, from whoever made it"

_SIGNATURE: Final = TypeAdapter(Signature)
_REPORT: Final = TypeAdapter(File)
_TEXTS: Final = TypeAdapter(list[str])
_PERIOD: Final[TypeAdapter[dict[Literal["from", "to"], str]]] = TypeAdapter(dict[Literal["from", "to"], str])


@dataclass(frozen=True)
class Verified:
    """A document that is as it was signed, and what was found about it."""

    document: Document
    #: The public key that signed, in base64.
    key: str
    #: Whose key that is; None for a stranger's.
    name: str | None
    trusted: bool
    report: str
    #: `good`, `missing` (it does not lie beside the document), or `altered`.
    report_state: str
    #: What is wrong, a line each: a key that is not trusted, a report that is another, numbers that do not add up.
    problems: tuple[str, ...]


def verify(path: Path, trusted: Mapping[str, str]) -> Verified:
    """See that the document in `path` is as it was signed, and what else can be seen of it.

    `trusted` gives the owner's name of each trusted public key. Raises `IntegrityError` where the document was altered
    or is none, `ConfigurationError` where it cannot be read.
    """
    data = _read(path)
    document = _document(data)
    signature = _signature(document)
    if not signature.fits(signed_part(document)):
        raise IntegrityError(
            "unable to verify evidence: its signature does not fit: it was altered", _ALTERED
        )
    if canonical(document) != data:
        raise IntegrityError("unable to verify evidence: it is not in canonical form", _ALTERED)
    try:
        report = _REPORT.validate_python(document["report"])
        _PERIOD.validate_python(document["period"])
        _TEXTS.validate_python([document["made"], document["host"]])
        problems = [*_audit_problems(document["audit"]), *_sum_problems(document)]
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise IntegrityError(
            f"unable to verify evidence: it is signed, and is not whole: {type(error).__name__.lower()}",
            _ALTERED,
        ) from None
    state = _state_of(path.with_name(report.name), report)
    if state == "altered":
        problems.append(f"the report {report.name} is not the one that was signed with it")
    name = trusted.get(signature.key)
    if name is None:
        problems.append(f"it is signed by the key {signature.key}, which is not trusted here")
    # Its numbers are those that it lists: what it states of them may be anything.
    told = {**document, "summary": summarise(document)}
    return Verified(told, signature.key, name, name is not None, report.name, state, tuple(problems))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"unable to read {path}: {(error.strerror or 'input/output error').lower()}",
            "name the .json file that larder evidence wrote",
        ) from None


def _document(data: bytes) -> Document:
    try:
        found = json.loads(data.decode(), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            f"unable to read evidence: it is not JSON: {str(error).lower()[:200]}", _ALTERED
        ) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise IntegrityError(
            f"unable to read evidence: it is no document of format '{FORMAT}'",
            "name the .json file that larder evidence wrote, and use the version of Larder that wrote it, or later",
        )
    return found


def _signature(document: Mapping[str, Any]) -> Signature:
    try:
        return _SIGNATURE.validate_python(document.get("signature"))
    except ValidationError:
        raise IntegrityError("unable to verify evidence: it is not signed", _ALTERED) from None


def _audit_problems(audit: Mapping[str, Any]) -> list[str]:
    """The trail as it was made, and the hash of each row in it, calculated again."""
    found = [f"as it was made: {audit['problem']}"] if audit["problem"] else []
    rows = audit["rows"]
    previous = rows[0]["previous"] if rows else ""
    for number, row in enumerate(rows, start=rows[0]["number"] if rows else 1):
        what = problem_with(row, number, previous)
        if what:
            return [*found, f"row {row['number']} of the audit trail {what}"]
        previous = row["hash"]
    head = audit["head"]
    if rows and head and head["number"] == rows[-1]["number"] and head["hash"] != previous:
        found.append("the audit trail's last row is not the one that it names")
    return found


def _sum_problems(document: Document) -> list[str]:
    stated, found = document["summary"], summarise(document)
    return [f"its summary of {key} is not what it lists" for key in found if stated.get(key) != found[key]]


def _state_of(path: Path, report: File) -> str:
    try:
        found = digest_file(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        raise ConfigurationError(
            f"unable to read {path}: {(error.strerror or 'input/output error').lower()}",
            "it is the report that the document names: let it be read, or move it away",
        ) from None
    return "good" if (found.size, found.sha256) == (report.size, report.sha256) else "altered"


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that a document can hold")
    return number
