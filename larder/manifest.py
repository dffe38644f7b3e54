"""The manifest: the truth about one backup, as a JSON file beside its artifact.

A backup exists in a store exactly when its manifest does. The text is canonical (keys sorted, two spaces, a newline
at the end), so that the same facts make the same bytes, and signed: a reader refuses one in which a single bit is not
as it was written. `format` is versioned: a reader refuses what it does not know, rather than to lose what it does not
understand. docs/manifest.md tells all of it.

Beside it lies the sidecar, which `sha256sum -c` reads.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

import larder
from larder import naming
from larder.artifact import Artifact
from larder.artifact import File as MadeFile
from larder.databases import Dump
from larder.errors import IntegrityError
from larder.manifest_fields import (
    TIME,
    BackupId,
    Engine,
    Fingerprint,
    Host,
    Moment,
    Name,
    RunId,
    Sha256,
    Size,
)
from larder.signing import Signature, Signer

#: What this version writes, and all that it reads.
FORMAT: Final = "larder-manifest/1"

_SIDECAR_LINE = re.compile(rf"([0-9a-fA-F]{{64}}) [ *]({naming.BARE_NAME})")

#: What stands in the place of a signature until there is one. No reader takes it for one.
UNSIGNED: Final = Signature("", "")

_WORD = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_INDENTED = json.JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)

_DAMAGED = "compare it with the copies in other stores, and see who can write to this one"


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
class Previous:
    """The database's backup before this one: its id, and the hexadecimal SHA-256 of its manifest's bytes."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    backup: BackupId
    sha256: Sha256


@dataclass(frozen=True)
class Manifest:
    """What one backup is, and what it holds."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    #: `shop/20251016_020000`
    backup: BackupId
    database: str
    #: The engine's word: `postgres`.
    engine: Engine
    #: When the snapshot was taken, in UTC: `2025-10-16T02:00:00Z`.
    created: Moment
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
    fingerprint: Fingerprint
    run: RunId
    host: Host
    #: The version of Larder that wrote this.
    larder: str
    #: The server's roles and tablespaces, encoded as the artifact is, where they were asked for.
    globals: File | None = None
    globals_raw: Content | None = None
    warnings: tuple[str, ...] = ()
    #: None for the first backup of a database.
    previous: Previous | None = None
    #: Who vouches for all of the above; given by `signed`.
    signature: Signature = UNSIGNED
    format: Literal["larder-manifest/1"] = FORMAT

    @property
    def created_at(self) -> datetime:
        """`created` as a moment in UTC."""
        return datetime.fromisoformat(self.created)

    @property
    def files(self) -> tuple[File, ...]:
        """The artifact, and the globals where there are some."""
        return (self.artifact, self.globals) if self.globals else (self.artifact,)

    @property
    def digest(self) -> str:
        """The hexadecimal SHA-256 of the manifest as it is stored."""
        return digest_of(self.to_bytes())

    def signed(self, signer: Signer) -> Manifest:
        """The same facts, signed."""
        return replace(self, signature=signer.sign(_signed_text(_parts(self))))

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON has it."""
        return asdict(self)

    def to_bytes(self) -> bytes:
        """The manifest as it is stored."""
        return _text_of(_parts(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read what `to_bytes` of a signed manifest gave.

        Raises `IntegrityError`, saying what is wrong, for anything else. Whose key signed is not asked here. The same
        bytes may give the same object: nobody changes what is in it.
        """
        return (_read_lately if len(data) <= _SMALL else _read)(data)


_ADAPTER = TypeAdapter(Manifest)

#: The SHA-256 of manifests that are signed and in their one spelling, of which so many are remembered: 2 MB at most.
_good: set[bytes] = set()
_MOST_GOOD = 20_000

#: How many of the manifests that were read last are kept, and of how many bytes at most: with their texts 25 MB in all.
_KEPT, _SMALL = 200, 1 << 15


def manifest_of(
    dump: Dump,
    made: Artifact,
    *,
    backup: str,
    database: str,
    engine: str,
    run: str,
    host: str,
    previous: Previous | None = None,
) -> Manifest:
    """The manifest of what `dump` read and `compress` made of it, not signed yet."""
    return Manifest(
        backup=backup,
        database=database,
        engine=engine,
        created=_utc(dump.snapshot_at),
        artifact=_file(made.content),
        raw=_raw(made.content),
        encoding=made.content.encoding,
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
        previous=previous,
    )


def digest_of(data: bytes) -> str:
    """The hexadecimal SHA-256 of a manifest's bytes: what the next manifest calls it by."""
    return hashlib.sha256(data).hexdigest()


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


def _read(data: bytes) -> Manifest:
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
    _check_once(found, data)
    return found


#: Each rotation reads all manifests that a database has, and each page that lists them does.
_read_lately = lru_cache(_KEPT)(_read)


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


def _parts(manifest: Manifest) -> dict[str, str]:
    """Each key with its value, as the canonical text has them.

    The text is wanted with the signature and without, and takes half a second for 100,000 tables.
    """
    return {field.name: _part(field.name, getattr(manifest, field.name)) for field in fields(manifest)}


def _part(key: str, value: object) -> str:
    if value is None or isinstance(value, str):
        # Most are words, which need no indenting: that is done in Python, one character of punctuation at a time.
        return f'  "{key}": {_WORD.encode(value)}'
    plain = asdict(value) if isinstance(value, Content | File | Previous | Signature) else value
    return _INDENTED.encode({key: plain}).removeprefix("{\n").removesuffix("\n}")


def _text_of(parts: dict[str, str]) -> bytes:
    inner = ",\n".join(parts[key] for key in sorted(parts))
    # A table's name may hold half a surrogate pair, which JSON can only have escaped.
    return f"{{\n{inner}\n}}\n".encode(errors="backslashreplace")


def _signed_text(parts: dict[str, str]) -> bytes:
    """What is signed: the text of everything but the signature."""
    return _text_of({key: part for key, part in parts.items() if key != "signature"})


def _check_once(manifest: Manifest, data: bytes) -> None:
    """The same as `_check_bytes`, of bytes that this process has not seen to be good: those stay so.

    It takes most of the time that a manifest is read in, and each rotation reads all that a database has.
    """
    digest = hashlib.sha256(data).digest()
    if digest in _good:
        return
    _check_bytes(manifest, data)
    if len(_good) >= _MOST_GOOD:
        _good.clear()
    _good.add(digest)


def _check_bytes(manifest: Manifest, data: bytes) -> None:
    """See that `manifest`, which was read from `data`, is signed, and that `data` is its one spelling."""
    if manifest.signature == UNSIGNED:
        raise IntegrityError("unable to read manifest: signature: is missing", _DAMAGED)
    try:
        parts = _parts(manifest)
        fits = manifest.signature.fits(_signed_text(parts))
        canonical = _text_of(parts) == data
    except (ValueError, RecursionError):
        # Too deep to be written, or a number that JSON has no word for.
        fits = canonical = False
    if not fits:
        raise IntegrityError("unable to read manifest: its signature does not fit", _DAMAGED)
    if not canonical:
        raise IntegrityError("unable to read manifest: it is not in canonical form", _DAMAGED)


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
    return moment.astimezone(UTC).strftime(TIME)


def _text(text: str) -> str:
    """The same text, with what UTF-8 cannot hold (a part of an odd file name) spelled out."""
    return text.encode(errors="backslashreplace").decode()


def _file(made: MadeFile) -> File:
    return File(made.name, made.size, made.sha256)


def _raw(made: MadeFile) -> Content:
    return Content(made.raw_size, made.raw_sha256)
