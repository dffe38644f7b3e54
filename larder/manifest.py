"""The manifest: the truth about one backup, as a JSON file beside its artifact.

A backup exists in a store exactly when its manifest does. The text is canonical (keys sorted, two spaces, a newline
at the end), so that the same facts make the same bytes. `format` is versioned: a reader refuses what it does
not know, rather than to lose what it does not understand.

Beside it lies the sidecar, which `sha256sum -c` reads.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

import larder
from larder import naming
from larder.artifact import Artifact
from larder.artifact import File as MadeFile
from larder.databases import Dump
from larder.errors import IntegrityError, LarderError

#: What this version writes, and all that it reads.
FORMAT: Final = "larder-manifest/1"

_SHA256 = r"^[0-9a-f]{64}$"
_SIDECAR_LINE = re.compile(rf"([0-9a-fA-F]{{64}}) [ *]({naming.BARE_NAME})")


#: To the second and always alike, so that texts sort as the times do.
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def _moment(text: str) -> str:
    try:
        known = datetime.fromisoformat(text).strftime(_TIME) == text
    except ValueError:
        known = False
    if not known:
        raise ValueError("has to be a time in UTC, as 2025-10-16T02:00:00Z")
    return text


def _backup_id(text: str) -> str:
    try:
        _, stamp = naming.parse_backup_id(text)
    except LarderError:
        stamp = naming.LATEST
    if stamp == naming.LATEST:
        raise ValueError("has to be a backup's id, as shop/20251016_020000")
    return text


Size = Annotated[int, Field(ge=0, strict=True)]
Sha256 = Annotated[str, Field(pattern=_SHA256)]
Name = Annotated[str, Field(pattern=f"^{naming.BARE_NAME}$")]
Word = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Content:
    """The size in bytes and hexadecimal SHA-256 of some content."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    size: Size
    sha256: Sha256


@dataclass(frozen=True)
class File:
    """A file beside the manifest: its bare name, size in bytes and hexadecimal SHA-256."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Name
    size: Size
    sha256: Sha256


@dataclass(frozen=True)
class Manifest:
    """What one backup is, and what it holds."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    #: `shop/20251016_020000`
    backup: Annotated[str, AfterValidator(_backup_id)]
    database: Word
    #: The engine's word: `postgres`.
    engine: Word
    #: When the snapshot was taken, in UTC: `2025-10-16T02:00:00Z`.
    created: Annotated[str, AfterValidator(_moment)]
    artifact: File
    #: What the artifact decodes to; for a folder, its tar.
    raw: Content
    #: The codecs that the artifact went through, in this order; none where it is the dump itself.
    encoding: tuple[str, ...]
    form: Literal["file", "folder"]
    #: What the artifact's name goes on with before its codec's suffix: `.sql`.
    suffix: str
    server_version: str
    #: What read the database: `pg_dump 16.4`.
    tool: str
    #: `{"row_counts": "exact" | "off", "tables": {name: {"rows": n}}}`
    fingerprint: dict[str, Any]
    run: Word
    host: str
    #: The version of Larder that wrote this.
    larder: str
    #: The server's roles and tablespaces, encoded as the artifact is, where they were asked for.
    globals: File | None = None
    globals_raw: Content | None = None
    warnings: tuple[str, ...] = ()
    format: Literal["larder-manifest/1"] = FORMAT

    @property
    def created_at(self) -> datetime:
        """`created` as a moment in UTC."""
        return datetime.fromisoformat(self.created)

    @property
    def files(self) -> tuple[File, ...]:
        """The artifact, and the globals where there are some."""
        return (self.artifact, self.globals) if self.globals else (self.artifact,)

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON has it."""
        return asdict(self)

    def to_bytes(self) -> bytes:
        """The manifest as it is stored."""
        text = json.dumps(self.to_dict(), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
        # A table's name may hold half a surrogate pair, which JSON can only have escaped.
        return f"{text}\n".encode(errors="backslashreplace")

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read what `to_bytes` gave; raises `IntegrityError`, saying what is wrong, for anything else."""
        document = _document(data)
        written = document.get("format")
        if written != FORMAT:
            raise IntegrityError(
                f"unable to read manifest: its format is {written!r}, and this version reads '{FORMAT}'",
                "read it with the version of Larder that wrote it, or a later one",
            )
        try:
            found = _ADAPTER.validate_python(document)
        except ValidationError as error:
            raise IntegrityError(f"unable to read manifest: {_mistakes(error)}") from None
        if naming.parse_backup_id(found.backup)[0] != found.database:
            raise IntegrityError(
                f"unable to read manifest: backup '{found.backup}' is not one of database '{found.database}'"
            )
        return found


_ADAPTER = TypeAdapter(Manifest)


def manifest_of(
    dump: Dump, made: Artifact, *, backup: str, database: str, engine: str, run: str, host: str
) -> Manifest:
    """The manifest of what `dump` read and `compress` made of it."""
    return Manifest(
        backup=backup,
        database=database,
        engine=engine,
        created=_utc(dump.snapshot_at),
        artifact=_file(made.content),
        raw=_raw(made.content),
        encoding=() if made.content.encoding == "none" else (made.content.encoding,),
        form=dump.form,
        suffix=dump.suffix,
        server_version=dump.server_version,
        tool=dump.tool,
        fingerprint=dump.fingerprint,
        run=run,
        host=host,
        larder=larder.__version__,
        globals=_file(made.globals) if made.globals else None,
        globals_raw=_raw(made.globals) if made.globals else None,
        warnings=tuple(_text(warning) for warning in dump.warnings),
    )


def sidecar_text(manifest: Manifest) -> str:
    """What `sha256sum -c` reads, in the folder of the files: a line for the artifact, and one for its globals."""
    return "".join(f"{file.sha256}  {file.name}\n" for file in manifest.files)


def parse_sidecar(text: str) -> dict[str, str]:
    """The hexadecimal SHA-256 of each file name in a sidecar; raises `IntegrityError` for anything else."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = _SIDECAR_LINE.fullmatch(line)
        if match is None or match[2] in found:
            raise IntegrityError(
                f"unable to read sidecar: line {number} is not '<sha256>  <name>', or is a second one"
            )
        found[match[2]] = match[1].lower()
    if not found:
        raise IntegrityError("unable to read sidecar: it is empty")
    return found


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise IntegrityError("unable to read manifest: it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"unable to read manifest: it is not JSON: {str(error).lower()}") from None
    if not isinstance(document, dict):
        raise IntegrityError("unable to read manifest: it is not a JSON object")
    return document


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _mistakes(error: ValidationError) -> str:
    """Every mistake with its path: `artifact.size: is missing; more: is unknown`."""
    plain = {"missing": "is missing", "unexpected_keyword_argument": "is unknown"}
    found = []
    for mistake in error.errors(include_url=False):
        message = mistake["msg"].removeprefix("Value error, ")
        what = plain.get(mistake["type"], message[:1].lower() + message[1:])
        found.append(f"{'.'.join(map(str, mistake['loc']))}: {what}")
    return "; ".join(found)


def _utc(text: str) -> str:
    """An ISO 8601 time with any offset, to the second, in UTC and ending in Z."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise IntegrityError(f"unable to write manifest: the snapshot's time {text!r} has no time zone")
    return moment.astimezone(UTC).strftime(_TIME)


def _text(text: str) -> str:
    """The same text, with what UTF-8 cannot hold (a part of an odd file name) spelled out."""
    return text.encode(errors="backslashreplace").decode()


def _file(made: MadeFile) -> File:
    return File(made.name, made.size, made.sha256)


def _raw(made: MadeFile) -> Content:
    return Content(made.raw_size, made.raw_sha256)
