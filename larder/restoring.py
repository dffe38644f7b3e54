"""Restoring: what an engine has to be able to do, so that its backups can be brought back.

A `Restorer` brings one backup into one target. The destructive act comes last and is a rename (or one transaction):

    look → refusals → load → examine → swap → (undo, or drop_kept)

The contract, to which `tests/contracts` holds each engine (`test_sqlite_restore.py`, `test_postgres_restore.py` …):

- Nothing that lives is touched before `swap`. `load` builds beside it, under a name that holds the restore's id.
- Every method may be called again, in another process, after a kill at any point: `load` starts over, with what is left
  of an earlier attempt removed, `swap` finds that it has been done and says what it kept, `drop_new` finds nothing.
- After `swap` the target's contents are all new; before, and where it raises, they are all old.
- A server that does not answer raises `UnreachableError`; one that refuses raises `RefusedError`; a full disk raises
  `ExhaustedError`; content that is not what its manifest says raises `IntegrityError`; somebody who holds the target
  raises `BusyError`. Messages name the target, and never a secret, nor a row of anybody's data.
- No process, connection or lock is left behind, whether a method returns or raises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal

from larder.errors import LarderError
from larder.progress import Progress

if TYPE_CHECKING:
    from pydantic import SecretStr

    from larder.config import DatabaseSettings

#: `swap`: beside the live database, then names are exchanged. `in-place`: in one transaction within the live database.
#: `new`: a database that does not exist. `schema`: chosen tables, into schemas of their own in the live database.
Mode = Literal["swap", "in-place", "new", "schema"]

MODES: tuple[Mode, ...] = ("swap", "in-place", "new", "schema")


@dataclass(frozen=True)
class Plan:
    """What is to be done to one target, settled when it was asked for and approved as it stands."""

    #: The restore's own id, 12 hexadecimal digits: names of what is built hold it.
    id: str
    mode: Mode
    #: Make the roles that the backup names and the server does not have.
    create_roles: bool = False
    #: Only these, as `schema.table` or `table`, and schemas; both empty: everything.
    tables: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    #: Whether what is live may be replaced: not where nothing was there when this was approved.
    replaces: bool = True

    @property
    def may_replace(self) -> bool:
        """Whether `swap` may put something in the place of a live database; never in mode `new`."""
        return self.replaces and self.mode != "new"

    @property
    def selective(self) -> bool:
        """Whether a part of the backup is wanted only."""
        return bool(self.tables or self.schemas)


@dataclass(frozen=True)
class Source:
    """What a backup says of itself: the parts of its manifest that matter to whoever loads it."""

    engine: str
    #: `file` (one stream), or `folder` (pg_dump's directory).
    form: Literal["file", "folder"]
    #: Bytes of the content when it is decoded; for a folder, of its tar.
    raw_size: int
    raw_sha256: str
    server_version: str
    tool: str
    fingerprint: dict[str, Any]


@dataclass(frozen=True)
class Content:
    """The content of a backup that was fetched and checked, on this machine's disk."""

    source: Source
    #: Opens the decoded stream of a `file`; whoever reads it closes it. Its SHA-256 is seen to by `load` once more.
    open: Callable[[], BinaryIO]
    #: Where a `folder` lies, unpacked.
    folder: Path | None
    #: A private folder for whatever `load` has to write, removed with the run.
    scratch: Path


@dataclass(frozen=True)
class Target:
    """What is in the target's place now. Sizes in bytes."""

    #: For people, without secrets: `PostgreSQL 16.4 at db.example:5432/shop`.
    description: str
    exists: bool
    #: What would be replaced; None where there is nothing.
    size: int | None
    #: Free where the new database would lie; None where nobody can say from here.
    free: int | None
    server_version: str
    #: Who is connected to, or holds, what would be replaced: for people, one each.
    sessions: tuple[str, ...] = ()
    #: What the operator should know: logical replication slots that stay with the old database, and the like.
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What was replaced, and is kept until somebody lets it go."""

    #: The name of the database, or of the file.
    name: str
    #: What tells it from another of that name: its oid, or its inode.
    identity: str
    size: int


class Restorer(ABC):
    """Brings backups into one target, by one plan."""

    #: Whether the new database can be connected to before it takes the live one's place.
    beside: ClassVar[bool] = True
    #: Whether the target can be seen from its own host only, and nobody else may hold it while it is exchanged: a file.
    local: ClassVar[bool] = False

    def __init__(self, settings: DatabaseSettings, plan: Plan) -> None:
        #: The target's: its connection string, jobs, stall_timeout, checks.
        self.settings = settings
        self.name = settings.name
        self.plan = plan

    @abstractmethod
    def look(self) -> Target:
        """Connect to where the target is, or would be, and say what is there, changing nothing."""

    @abstractmethod
    def refusals(self, source: Source, target: Target) -> list[LarderError]:
        """Every reason why `source` cannot be brought into `target` by this plan; none where it can.

        Missing roles and extensions, versions, space, a mode that does not fit. Each is an error as it would be raised.
        """

    @abstractmethod
    def load(self, content: Content, progress: Progress, say: Callable[[str], None]) -> list[str]:
        """Build the new database beside the live one, whole and on the disk; gives warnings.

        `progress` counts bytes of `source.raw_size`. In a mode that is not `beside`, it only prepares.
        """

    @abstractmethod
    def examine(self, content: Content, progress: Progress) -> list[str]:
        """How what `load` built differs from the backup's fingerprint, and which `checks` are not true.

        In a mode that is not `beside`, `swap` does this inside its transaction, and this gives none.
        """

    @abstractmethod
    def new_url(self) -> SecretStr:
        """The new database's connection string: beside the live one before `swap`, the target's own after it."""

    @abstractmethod
    def swap(
        self, content: Content, stamp: str, progress: Progress, say: Callable[[str], None]
    ) -> Kept | None:
        """Put the new database in the live one's place, and keep that as `…__before_<stamp>` or the like.

        Gives what is kept; None where nothing was there, or nothing can be kept (`in-place`). Done already: the same.
        Raises `RefusedError` where something is live that the plan may not replace.
        """

    @abstractmethod
    def swapped(self, stamp: str, scratch: Path) -> tuple[bool, Kept | None]:
        """Whether `swap` has been done, by what is there now, and what it keeps; nothing is changed.

        To be asked of a run that has loaded, before `drop_new`. `scratch` is the folder of `Content`: where it is gone
        already, names have to tell. After an undo the exchange holds no more, and this says so: `(False, None)`. After
        `drop_kept` it still holds as long as the folder is there; without it, that cannot be told from an undo.
        Raises `HeldError` while a session of an earlier attempt may still do it.
        """

    @abstractmethod
    def drop_new(self) -> bool:
        """Remove what `load` built and `swap` did not use; says whether there was anything."""

    @abstractmethod
    def undo(self, kept: Kept, stamp: str, say: Callable[[str], None]) -> Kept:
        """Put `kept` back into the live one's place; gives what was live until then, kept as `…__undone_<stamp>`.

        Done already: the same. Raises `RefusedError` where `kept` is not there any more, or is another one.
        """

    @abstractmethod
    def drop_kept(self, kept: Kept) -> bool:
        """Remove what a swap kept; says whether there was anything. One of that name with another identity stays."""
