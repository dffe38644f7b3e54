"""Evidence: one signed document for an auditor, which says what was backed up, proven and restored in a period.

The document is JSON in canonical form (keys sorted, two spaces, a newline at the end), signed as manifests are: over
the text without its signature. It names the report beside it, for people, by size and SHA-256, so that one signature
covers both. docs/evidence.md tells all of it.

| module | decides |
|---|---|
| `evidence_gather` | what the document says, from the ledger and the configuration |
| `evidence_summary` | its numbers, which a reader calculates again |
| `evidence_check` | whether a document is as it was signed, and by whom |
| `evidence_report` and its parts | what it looks like to people |
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from larder.errors import ConfigurationError
from larder.manifest_fields import TIME
from larder.naming import BARE_NAME
from larder.signing import Signer
from larder.spool import disk_error, make_private
from larder.streams import durable_file, fsync_folder

#: What this version writes, and all that it reads.
FORMAT: Final = "larder-evidence/1"

#: A document as JSON has it.
Document: TypeAlias = dict[str, Any]

_SUFFIX: Final = ".json"
_REPORT_SUFFIX: Final = ".html"


@dataclass(frozen=True)
class Period:
    """From `start` on and before `end`, in UTC, to the second."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ConfigurationError(
                f"unable to gather evidence: from {shown(self.start)} to {shown(self.end)} is no time at all",
                "--from is the first moment that counts, --to the first that does not any more",
            )

    @property
    def name(self) -> str:
        """`2026-10-01_2026-11-01`: what its files are named after."""
        return f"{_in_name(self.start)}_{_in_name(self.end)}"


def shown(moment: datetime) -> str:
    """A moment as the document has it: `2026-10-01T00:00:00Z`."""
    return moment.astimezone(UTC).strftime(TIME)


def moment_in(text: str) -> datetime:
    """The moment that `2026-10-01` (its midnight) or `2026-10-01T12:00:00+02:00` means; UTC where it says no zone.

    Raises `ConfigurationError` for anything else.
    """
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.microsecond:
        raise ConfigurationError(
            f"unable to read the time {text!r}", "write it as 2026-10-01 or 2026-10-01T12:00:00Z"
        )
    return moment


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one spelling of a document."""
    text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    # A text may hold half a surrogate pair, which JSON can only have escaped.
    return (text + "\n").encode(errors="backslashreplace")


def signed_part(document: Mapping[str, Any]) -> bytes:
    """What is signed: the text of everything but the signature."""
    return canonical({key: value for key, value in document.items() if key != "signature"})


def sealed(document: Document, report_name: str, report: bytes, signer: Signer) -> bytes:
    """The text of `document` as it is kept: with the facts of its report, and signed."""
    beside = {"name": report_name, "size": len(report), "sha256": hashlib.sha256(report).hexdigest()}
    whole = {**document, "report": beside}
    return canonical({**whole, "signature": asdict(signer.sign(signed_part(whole)))})


def places(period: Period, out: Path | None) -> tuple[Path, Path]:
    """Where the document and its report belong: in the folder `out`, or, where it ends in `.json`, that very file.

    Raises `ConfigurationError` for a file whose name cannot stand in the document.
    """
    folder = out or Path()
    named = folder.suffix == _SUFFIX and not folder.is_dir()
    file = (folder if named else folder / f"evidence_{period.name}{_SUFFIX}").absolute()
    if not re.fullmatch(BARE_NAME, file.name):
        raise ConfigurationError(
            f"unable to write {file}: its name is not one that every system takes",
            "use letters, digits, and . _ - after the first",
        )
    return file, file.with_suffix(_REPORT_SUFFIX)


def keep(contents: Mapping[Path, bytes]) -> None:
    """Write new files, in this order, 0600, each whole or not at all. Folders that are missing are made, 0700.

    A file that is there with the same bytes is fine, and no other is overwritten: raises `ConfigurationError`, before
    anything is written; `LarderError` where the disk fails.
    """
    missing = [path for path, content in contents.items() if not _holds(path, content)]
    for path in missing:
        make_private(path.parent)
        with _told(path):
            _write_new(path, contents[path])


def _write_new(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{secrets.token_hex(8)}.evidence")
    try:
        with durable_file(draft) as sink:
            sink.write(content)
        # The name is taken first, which the system refuses where it exists; a memory stick knows no hard links.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        draft.replace(path)
        fsync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _holds(path: Path, content: bytes) -> bool:
    """Whether exactly `content` lies there; raises `ConfigurationError` where something else does."""
    with _told(path):
        if not os.path.lexists(path):
            return False
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return True
    raise _taken(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        raise disk_error(error, path) from error


def _taken(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"unable to write {path}: the file exists", "name another place with --out, or move this one away"
    )


def _in_name(moment: datetime) -> str:
    moment = moment.astimezone(UTC)
    midnight = (moment.hour, moment.minute, moment.second) == (0, 0, 0)
    return moment.strftime("%Y-%m-%d" if midnight else "%Y-%m-%dT%H%M%SZ")
