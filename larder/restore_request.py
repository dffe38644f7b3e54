"""A request for a restore: who wants which backup in what place, how, and why.

It is a document that can be read anywhere: whoever approves it needs neither the ledger nor Redis, and sees exactly
what the workers will do. Its text is canonical, and an approval is bound to its SHA-256: nothing in it can be changed
afterwards, and nobody can be shown something else than what is done.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from larder.errors import IntegrityError
from larder.manifest_fields import BackupId, Engine, Moment, Name, Sha256, Size
from larder.restoring import Mode, Plan

#: What this version writes, and all that it reads.
FORMAT: Final = "larder-restore-request/1"

#: Characters of a reason, and of a name that somebody goes by.
LONGEST_REASON: Final = 1000
LONGEST_NAME: Final = 120

#: Bytes of a document at most.
LARGEST: Final = 1 << 20


def _line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("has to be one line of text")
    return text


Person = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_line)]
Reason = Annotated[str, Field(max_length=LONGEST_REASON), AfterValidator(_line)]
Line = Annotated[str, AfterValidator(_line)]
RequestId = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]


@dataclass(frozen=True)
class Wanted:
    """The backup that is to be brought back, bound to its very bytes. Sizes in bytes."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    backup: BackupId
    engine: Engine
    created: Moment
    artifact: Name
    size: Size
    sha256: Sha256
    raw_size: Size
    #: The SHA-256 of its manifest's bytes.
    manifest: Sha256
    proof: Line


@dataclass(frozen=True)
class Into:
    """Where it is to be brought."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    #: Its name in the workers' configuration; None for a database that is not configured.
    database: str | None
    #: Where that is, without user and secrets: `postgresql://db.example:5432/shop`.
    address: Line
    #: For people: `PostgreSQL 16.4 at db.example:5432/shop`.
    description: Line
    #: Bytes of what is there and will be replaced; None where nothing is.
    replaces: Size | None
    #: The connection string, without secrets, of a database that is not configured.
    url: Line | None
    #: The host, by its spool's name, whose file or loopback address is meant; None where every host means the same.
    host: Line | None


@dataclass(frozen=True)
class RestoreRequest:
    """What is asked for. Times are UTC."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    request: RequestId
    wanted: Wanted
    into: Into
    mode: Mode
    #: Whether what is replaced is backed up first.
    safety_backup: bool
    #: Seconds that what is replaced is kept, so that it can be undone.
    keep_replaced: Size
    create_roles: bool
    tables: tuple[Line, ...]
    schemas: tuple[Line, ...]
    #: What is to be known of the target.
    warnings: tuple[Line, ...]
    reason: Reason
    #: Who asks: the name that they gave, and the account that they gave it from.
    requester: Person
    account: Person
    requested: Moment
    #: Until when it can be approved.
    expires: Moment
    #: Seconds that an approval can be used.
    token_life: Annotated[int, Field(ge=1, le=86400, strict=True)]
    format: Literal["larder-restore-request/1"] = FORMAT

    @property
    def expires_at(self) -> datetime:
        """`expires` as a moment in UTC."""
        return datetime.fromisoformat(self.expires)

    def expired(self, now: datetime | None = None) -> bool:
        """Whether it can no longer be approved."""
        return (now or datetime.now(UTC)) >= self.expires_at

    @property
    def replacing(self) -> bool:
        """Whether something that is live is replaced."""
        return self.into.replaces is not None and self.mode in ("swap", "in-place")

    @property
    def plan(self) -> Plan:
        """What a restorer is told."""
        replaces = self.into.replaces is not None
        return Plan(self.request, self.mode, self.create_roles, self.tables, self.schemas, replaces)

    @property
    def digest(self) -> str:
        """The hexadecimal SHA-256 of the document: what an approval is bound to."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The document as JSON has it."""
        found: dict[str, Any] = json.loads(self.to_bytes())
        return found

    def to_bytes(self) -> bytes:
        """The document as it is stored: keys sorted, two spaces, a newline at the end."""
        return (json.dumps(asdict(self), sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> RestoreRequest:
        """Read what `to_bytes` gave, in whatever layout; raises `IntegrityError` for anything else."""
        try:
            if len(data) > LARGEST:
                raise ValueError("it is too large")
            document = json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise IntegrityError(
                f"unable to read request: it is not JSON: {str(error).lower()[:200]}",
                "larder restore request … --json prints one",
            ) from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise IntegrityError(
                f"unable to read request: it is no document of format '{FORMAT}'",
                "larder restore request … --json prints one; read it with the version of Larder that wrote it",
            )
        try:
            return _ADAPTER.validate_python(document)
        except ValidationError as error:
            where = "; ".join(
                f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg'].removeprefix('Value error, ')}"
                for mistake in error.errors(include_url=False, include_input=False)
            )
            raise IntegrityError(f"unable to read request: {where}") from None


_ADAPTER = TypeAdapter(RestoreRequest)
