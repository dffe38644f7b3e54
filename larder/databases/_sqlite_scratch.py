"""SQLite's scratch database: a file in the drill's folder, compared with the copy that was dumped, page for page."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from larder.databases._sqlite_examine import (
    check,
    damage,
    differences,
    orphans,
    schema,
    schema_differences,
    tables,
)
from larder.databases._sqlite_holders import immutable, remove
from larder.drilling import Examination, Scratch
from larder.errors import ExhaustedError, IntegrityError, LarderError, RefusedError
from larder.progress import Progress, human_size
from larder.restoring import Content, Source
from larder.spool import disk_error, make_private
from larder.streams import Hashed, digest_file, durable_file, pour

#: The file that is built in the drill's folder.
_NAME: Final = "scratch.db"

#: How many lines SQLite may say about one damaged file.
_MOST: Final = 20


@dataclass
class _Found:
    """What was seen in the file so far."""

    #: What SQLite cannot read, or finds to be wrong in itself.
    damage: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    not_covered: list[str] = field(default_factory=list)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)


class SqliteScratch(Scratch):
    """A file that nobody opens but for reading, and that no `-wal`, `-shm` or `-journal` comes beside."""

    @property
    def path(self) -> Path:
        """The file that `load` builds."""
        return self.folder / _NAME

    def refusals(self, source: Source) -> list[LarderError]:
        """See the contract."""
        doing = f"unable to drill database '{self.name}'"
        if source.engine != "sqlite" or source.form != "file":
            return [RefusedError(f"{doing}: the backup is a {source.form} of {source.engine}, not of SQLite")]
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        free = shutil.disk_usage(there).free
        if free < source.raw_size:
            need = f"it takes {human_size(source.raw_size)}, and {human_size(free)} are free in {there}"
            return [ExhaustedError(f"{doing}: {need}", "free some space there")]
        return []

    def load(self, content: Content, progress: Progress, say: Callable[[str], None]) -> list[str]:
        """See the contract. Raises `IntegrityError` where the backup decodes to something else than was dumped."""
        progress.total = content.source.raw_size
        self.drop()
        try:
            with self._explained("restore"):
                say(f"Writing {self.path}...")
                make_private(self.folder)
                with contextlib.closing(content.open()) as stream, durable_file(self.path) as sink:
                    hashed = Hashed(sink, progress)
                    pour(stream, cast(BinaryIO, hashed))
            problem = _unlike(hashed, content.source)
            if problem:
                raise IntegrityError(
                    f"unable to restore database '{self.name}' into {self.path}: the backup decodes to {problem}",
                    "larder verify reads its copies again",
                )
        except BaseException:
            with contextlib.suppress(LarderError):
                self.drop()
            raise
        return []

    def examine(self, content: Content, progress: Progress) -> Examination:
        """See the contract.

        The file's own bytes are compared, whatever the fingerprint's level: that is every page, and so the `content` of
        every table. What SQLite says of it names the objects.
        """
        source = content.source
        progress.restart(source.raw_size)
        with self._explained("examine"):
            if not self.path.is_file():
                raise RefusedError(f"unable to examine {self.path}: it is not there", "start the drill again")
            other = _unlike(digest_file(self.path, progress), source)
            found = self._looked_into(source)
            with immutable(self.path) as made:
                # Of a text that is no UTF-8, the error would quote it.
                made.text_factory = bytes
                failed = [problem for query in self.settings.checks if (problem := check(made, query))]
        pages = [f"the file has {other}; which pages differ cannot be told: the SHA-256 is of the whole file"]
        return Examination(
            level="content",
            tables=len(found.tables),
            rows=sum(table["rows"] for table in found.tables.values()),
            differences=(
                *(pages if other else _origin_of(found.damage)),
                *found.damage,
                *found.differences,
            ),
            failed_checks=tuple(failed),
            not_covered=tuple(found.not_covered),
        )

    def drop(self) -> bool:
        """See the contract."""
        with self._explained("remove"):
            there = remove(self.path)
        # What else lies in the folder is somebody else's.
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        return there

    def _looked_into(self, source: Source) -> _Found:
        """Have SQLite read all of the file, and compare what it finds with the fingerprint."""
        found = _Found()
        for look in (_look_for_damage, _compare_schema, _compare_rows, _compare_references):
            try:
                look(self.path, source.fingerprint, found)
            except sqlite3.DatabaseError as error:
                if not getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                    raise
                if _is_older(sqlite3.sqlite_version, source.server_version):
                    # It may hold what came to SQLite later, which looks like damage.
                    raise RefusedError(
                        f"unable to examine {self.path}: {error}, as SQLite {sqlite3.sqlite_version} says; "
                        f"the backup was made by {source.server_version}",
                        "drill on a worker whose Python has a SQLite that is as new",
                    ) from None
                found.damage.append(f"SQLite cannot read all of it: {error}")
        found.damage[:] = dict.fromkeys(found.damage)
        return found

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise RefusedError(
                f"unable to {doing} {self.path}: {error}", "see whether the disk is healthy"
            ) from None
        except OSError as error:
            raise disk_error(error, self.folder) from error


def _look_for_damage(path: Path, _fingerprint: dict[str, Any], found: _Found) -> None:
    lines, kept_from = damage(path, _MOST)
    found.damage += lines
    if kept_from:
        found.not_covered.append(f"whether indexes fit their tables: SQLite could not check it: {kept_from}")


def _compare_schema(path: Path, fingerprint: dict[str, Any], found: _Found) -> None:
    if "schema" in fingerprint:
        found.differences += schema_differences(fingerprint["schema"], schema(path))


def _compare_rows(path: Path, fingerprint: dict[str, Any], found: _Found) -> None:
    known = fingerprint.get("tables", {})
    there = tables(path, counted=True, known=known)
    if "schema" in fingerprint:
        # It tells of every table that should not be there, and which ones make up a virtual one.
        there = {name: table for name, table in there.items() if name in known}
    found.tables = there
    found.differences += differences(known, there)


def _compare_references(path: Path, fingerprint: dict[str, Any], found: _Found) -> None:
    """Rows that refer to nothing may have been in the database all along, which SQLite lets them."""
    there, unchecked = orphans(path)
    found.not_covered += unchecked
    known = fingerprint.get("foreign_keys")
    for name in sorted({*there, *(known or {})}):
        count = there.get(name, 0)
        line = f"{count} rows of table '{name}' refer to rows that are not there"
        if known is None:
            found.not_covered.append(f"{line}: whether they did when it was dumped, the backup does not say")
        elif count != known.get(name, 0):
            found.differences.append(f"{line}, and {known.get(name, 0)} did when it was dumped")


def _origin_of(damaged: list[str]) -> list[str]:
    """Where damage comes from that is in a file of the very bytes that were dumped."""
    said = "its bytes are those of the copy that was dumped: the live database was damaged already when it was dumped"
    return [said] if damaged else []


def _unlike(hashed: Hashed, source: Source) -> str | None:
    """How some bytes differ from those that were dumped; None where they are the same."""
    if (hashed.size, hashed.sha256) == (source.raw_size, source.raw_sha256):
        return None
    return (
        f"{hashed.size} bytes with SHA-256 {hashed.sha256}, and what was dumped had {source.raw_size} "
        f"with {source.raw_sha256}"
    )


def _is_older(here: str, there: str) -> bool:
    one, other = (tuple(map(int, re.findall(r"\d+", version))) for version in (here, there))
    return one < other
