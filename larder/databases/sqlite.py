"""SQLite: a copy by the online backup API, of one moment, while others go on writing."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote, unquote

from larder.checked_writer import CheckedWriter
from larder.codecs import Codec
from larder.databases import Database, Dump, Look, Piece
from larder.databases._sqlite_examine import orphans, schema, tables
from larder.databases._sqlite_holders import connect, immutable, pragma
from larder.databases._sqlite_restore import SqliteRestorer
from larder.databases._sqlite_scratch import SqliteScratch
from larder.drilling import Scratch
from larder.encoding import Encoding, encoding_of
from larder.errors import ConfigurationError, IntegrityError, LarderError, RefusedError, UnreachableError
from larder.progress import Progress
from larder.restoring import Plan, Restorer
from larder.spool import disk_error
from larder.streams import Counted, digest_file, durable_file, fsync_file, fsync_folder, pour

if TYPE_CHECKING:
    from larder.config import DatabaseSettings

#: Seconds to wait for somebody who holds a lock on the file.
PATIENCE = 30

#: How much is copied between two reports of progress, in bytes.
STEP = 16 << 20

_URL = re.compile(r"sqlite(?:\+\w+)?:(?://)?(?P<path>[^?]*)", re.IGNORECASE)
_FILE = re.compile(r"file:(?P<path>[^?]*)", re.IGNORECASE)

_TOOL = f"sqlite {sqlite3.sqlite_version}"


def recognises(url: str) -> bool:
    """Whether `url` is SQLite's: `sqlite:///…` (SQLAlchemy) or `file:…` (Prisma)."""
    return bool(re.match(r"sqlite(?:\+\w+)?:|file:", url, re.IGNORECASE))


def check_url(url: str) -> str | None:
    """What is wrong with the connection string; None where it can be used. The file is not looked for."""
    path = _written(url)
    if path in ("", "/") or ":memory:" in path or "mode=memory" in url.partition("?")[2]:
        return "it leads to no file: a database in memory can't be backed up"
    if "\0" in unquote(path):
        return "its file name holds a zero byte"
    return None


def name_in(url: str) -> str:
    """The file's name without its ending."""
    return Path(unquote(_written(url))).stem


def path_in(url: str, base: Path) -> Path:
    """The file that a connection string leads to; a relative one begins at `base`.

    Neither SQLAlchemy nor Prisma decodes `%20`, and SQLite itself does: the name as written goes first, and the
    decoded one counts where only that exists.
    """
    written = _written(url)
    literal, decoded = (base / found for found in (written, unquote(written)))
    return decoded if decoded != literal and decoded.exists() and not literal.exists() else literal


def address_in(url: str, base: Path) -> str:
    """Where a connection string leads, in one spelling: `sqlite:////absolute/shop.db`.

    Links are followed to their end, one in the file's own place included: what it leads to is what a restore replaces.
    """
    return "sqlite:///" + _quoted(os.path.realpath(path_in(url, base)), "%?")


def public_url(url: str) -> str:
    """The connection string without its parameters: a file has no password, and what stands there might be one."""
    return url.partition("?")[0]


def with_secrets_of(url: str, others: Iterable[str]) -> str:  # noqa: ARG001 - every engine is asked alike
    """See `larder.databases.with_secrets_of`: a file takes none."""
    return url


def server_in(url: str) -> None:
    """See `larder.databases.server_in`: a file has none."""


def sibling(url: str, name: str) -> str:  # noqa: ARG001 - every engine is asked alike
    """See `larder.databases.sibling`: a file has no server that other databases could be on."""
    raise ConfigurationError(
        f"unable to find database '{name}' beside a SQLite file: a file is no server",
        "write the whole connection string, as sqlite:////folder/file.db",
    )


def _respelled(url: str, path: Path) -> str:
    """The connection string of another file, in the words that `url` is in: Prisma takes `file:` only."""
    scheme, _, _ = url.partition(":")
    _, question, query = url.partition("?")
    # Nobody decodes a name but SQLite itself and `path_in`, and that only where it has to: see there.
    written = _quoted(str(path), "%?") if "?" in str(path) else str(path)
    return f"{scheme}:{'' if scheme.lower() == 'file' else '///'}{written}{question}{query}"


def _quoted(path: str, characters: str) -> str:
    return "".join(
        quote(character, errors="surrogateescape")
        if character in characters or not character.isprintable()
        else character
        for character in path
    )


def restorer(settings: DatabaseSettings, plan: Plan) -> Restorer:
    """What brings backups into the file that `settings` describe; nothing is touched until it is used."""
    url = settings.url.get_secret_value()
    return SqliteRestorer(settings, plan, path_in(url, settings.base), lambda path: _respelled(url, path))


def scratch(settings: DatabaseSettings, drill: str, folder: Path) -> Scratch:
    """Where drill `drill` restores a backup into: a file in `folder`."""
    return SqliteScratch(settings, drill, folder)


def _written(url: str) -> str:
    match = _URL.match(url)
    if match is not None:
        # sqlite:///relative and sqlite:////absolute: the third slash only ends the (empty) host.
        return match["path"].removeprefix("/")
    match = _FILE.match(url)
    path = match["path"] if match else ""
    if path.startswith("//"):
        # file:///absolute and file://localhost/absolute
        path = "/" + path[2:].removeprefix("localhost").lstrip("/")
    return path


class SqliteDatabase(Database):
    """A SQLite file on this machine."""

    title = "SQLite"

    def look(self) -> Look:
        """See the contract. Raises `RefusedError` where the file can't be used as it is."""
        path = self._path()
        with self._explained(), _reading(path) as source:
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            size = pragma(source, "page_count") * pragma(source, "page_size")
        return Look(
            description=f"SQLite {path}", server_version=sqlite3.sqlite_version, tool=_TOOL, size=size
        )

    def dump(
        self,
        folder: Path,
        codec: Codec,
        progress: Progress,
        say: Callable[[str], None],
    ) -> Dump:
        """See the contract.

        One read transaction is held all through: the copy is of one moment. In WAL mode nobody waits for it; in the
        other modes writers wait until the copy is made.
        """
        path = self._path()
        say("Detected SQLite database")
        copy = folder / "dump.db"
        with self._explained():
            with _reading(path) as source:
                source.execute("BEGIN")
                source.execute("SELECT count(*) FROM sqlite_master").fetchone()
                taken_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                say("Backing up SQLite database...")
                _copy(source, copy, progress)
            # SQLite reads all of the copy with one core.
            with ThreadPoolExecutor(1, "look into the copy") as beside:
                looking = beside.submit(self._looked_into, copy)
                content = self._kept(copy, codec, progress)
                warnings, fingerprint = looking.result()
            fullest = sum(path.stat().st_size for path in folder.iterdir())
            if content.path != copy.name:
                copy.unlink()
            fsync_folder(folder)
        return Dump(
            form="file",
            suffix=".db",
            content=content,
            server_version=sqlite3.sqlite_version,
            tool=_TOOL,
            snapshot_at=taken_at,
            fingerprint=fingerprint,
            fullest=fullest,
            warnings=warnings,
        )

    def _looked_into(self, copy: Path) -> tuple[list[str], dict[str, Any]]:
        """See that the copy is whole; gives what to warn of, and the fingerprint."""
        warnings = self._check(copy)
        found = tables(copy, self.settings.row_counts == "exact")
        written, (orphaned, _) = schema(copy), orphans(copy)
        return [*warnings, *([] if found else ["the database holds no table"])], {
            "row_counts": self.settings.row_counts,
            "tables": found,
            "schema": written,
            "foreign_keys": orphaned,
        }

    def _kept(self, copy: Path, codec: Codec, progress: Progress) -> Piece:
        """Have the copy on the disk: through `codec`, where the artifact takes that over."""
        if not codec.suffix or encoding_of(self.settings).after(codec.name) is None:
            fsync_file(copy)
            hashed = digest_file(copy)
            return Piece(copy.name, "none", hashed.size, hashed.sha256)
        progress.restart(copy.stat().st_size)
        # The database has been read: it feels nothing of what comes now.
        progress.pacer = None
        target = copy.with_name(copy.name + codec.suffix)
        with (
            copy.open("rb") as plain,
            durable_file(target) as sink,
            CheckedWriter(target.name, Encoding([codec]), sink) as writer,
        ):
            pour(plain, cast(BinaryIO, Counted(cast(BinaryIO, writer), progress)))
        raw = writer.raw
        return Piece(target.name, codec.name, raw.size, raw.sha256, writer.encoded)

    def _path(self) -> Path:
        """The file, which is there, can be read, and holds something."""
        path = path_in(self.settings.url.get_secret_value(), self.settings.base)
        doing = f"unable to open database '{self.name}' at {path}"
        try:
            if path.is_dir():
                raise RefusedError(f"{doing}: it is a folder", "name the database file in it")
            with path.open("rb") as file:
                head = file.read(16)
        except FileNotFoundError:
            raise RefusedError(f"{doing}: there is no such file", _nearby(path, self.settings.base)) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise RefusedError(
                f"{doing}: {reason}", "let the user that Larder runs as read the file"
            ) from None
        if not head:
            raise RefusedError(
                f"{doing}: the file is empty (0 bytes)",
                "nothing has been written to it yet; is it the right file?",
            )
        if head != b"SQLite format 3\0":
            raise RefusedError(
                f"{doing}: it is not a SQLite database", "is it the right file, or an encrypted one?"
            )
        return path

    def _check(self, copy: Path) -> list[str]:
        """See that the copy is whole: its size, and what SQLite says of every page."""
        with immutable(copy) as made:
            expected = pragma(made, "page_count") * pragma(made, "page_size")
            if expected != copy.stat().st_size:
                raise IntegrityError(
                    f"unable to dump database '{self.name}': the copy has {copy.stat().st_size} bytes of {expected}",
                    "see the disk that the spool is on",
                )
            try:
                problem = made.execute("PRAGMA quick_check(1)").fetchone()[0]
            except sqlite3.OperationalError as error:
                if not str(error).startswith("no such"):
                    raise
                # A function, collation or module of the application's own.
                return [f"the copy could not be checked wholly: {error}"]
        if problem != "ok":
            raise IntegrityError(
                f"unable to dump database '{self.name}': the database is damaged: {problem.splitlines()[-1]}",
                "see sqlite3's .recover, and keep the earlier backups",
            )
        return []

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._meaning(error) from None
        except OSError as error:
            raise disk_error(error, self.state_dir) from error

    def _meaning(self, error: sqlite3.Error) -> LarderError:
        message = f"unable to dump database '{self.name}': {error}"
        code = getattr(error, "sqlite_errorname", "")
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return UnreachableError(f"{message} for {PATIENCE} s", "see who writes to it for so long")
        if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            return RefusedError(
                message,
                "open it once with its application or sqlite3, so that what a crash left is put right; "
                "in WAL mode, the user that Larder runs as has to be able to write to the folder",
            )
        if code == "SQLITE_FULL":
            return disk_error(OSError(28, "No space left on device"), self.state_dir)
        if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return IntegrityError(
                message, "the database is damaged: see sqlite3's .recover, and keep the earlier backups"
            )
        return LarderError(message)


DATABASE = SqliteDatabase


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(connect(path, f"mode={_mode(path)}", PATIENCE)) as connection:
        connection.execute("PRAGMA query_only = ON")
        yield connection


def _mode(path: Path) -> str:
    """How to open the file so that nothing is beside it afterwards that was not there before.

    In WAL mode, whoever opens a file first makes -wal and -shm, and only a connection that may write removes them
    at its end. Left behind by another user than the application's, they would lock the application out.
    """
    with path.open("rb") as file:
        in_wal_mode = file.read(20)[18:] == b"\2\2"
    quiet = not path.with_name(f"{path.name}-wal").exists()
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return "rw" if in_wal_mode and quiet and writable else "ro"


def _copy(source: sqlite3.Connection, copy: Path, progress: Progress) -> None:
    """Copy every page. What becomes of the copy is for the caller to have on the disk."""
    page_size = pragma(source, "page_size")
    progress.total = pragma(source, "page_count") * page_size

    def report(_status: int, remaining: int, total: int) -> None:
        progress.reach((total - remaining) * page_size)

    # SQLite would let others read what it makes.
    copy.touch(0o600)
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target:
        target.execute("PRAGMA synchronous = OFF")
        target.execute("PRAGMA journal_mode = OFF")
        source.backup(target, pages=max(1, STEP // page_size), progress=report)


def _nearby(path: Path, base: Path) -> str:
    """Prisma's relative paths begin at the folder of its schema, which trips people."""
    with contextlib.suppress(ValueError):
        prisma = base / "prisma" / path.relative_to(base)
        if prisma.is_file():
            return f"there is {prisma}: write its whole path"
    return "write the whole path of the file"
