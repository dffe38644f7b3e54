"""SQLite's restorer: a new file beside the live one, looked through to its last page, then an exchange of names.

Files of `shop.db`, all in its own folder, since a rename does not leave a file system:

    .shop.db.restore_<id>             what is built, with the rights of the live one from the swap on
    shop.db.before_restore_<stamp>    what a swap replaced
    shop.db.undone_restore_<stamp>    what an undo replaced

Where `shop.db` is a link, it stays, and the file that it leads to is the one that is replaced, in that one's folder.

The name `shop.db` leads to a whole database at every moment: the old file gets its second name first, then the new one
is renamed over the first. A `-wal` or `-journal` of the old one never lies beside the new one, which SQLite would apply
it to: what a crash left is emptied into the old file first, and where SQLite cannot read that, it goes with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import SecretStr

from larder.databases._sqlite_examine import check, differences, integrity, tables
from larder.databases._sqlite_holders import (
    HEADER,
    SIDES,
    STOP_THEM,
    carry,
    holders,
    immutable,
    locked,
    names,
    openers,
    remove,
    remove_sides,
    settle,
    side,
    unsettled,
)
from larder.errors import (
    BusyError,
    ConfigurationError,
    ExhaustedError,
    IntegrityError,
    LarderError,
    RefusedError,
)
from larder.progress import Progress, human_size
from larder.restoring import Content, Kept, Plan, Restorer, Source, Target
from larder.streams import Hashed, durable_file, fsync_file, fsync_folder, pour

if TYPE_CHECKING:
    from larder.config import DatabaseSettings

#: Seconds to wait for somebody who holds the file for a moment only, and between two looks.
PATIENCE = 3.0
TICK = 0.1

#: How often somebody may come by between settling a file and locking it.
TRIES = 3

#: In the run's scratch folder: the inode that is to be in the target's place.
_RECORD: Final = "swapped-in"


class SqliteRestorer(Restorer):
    """Brings backups into one file: in its place, or where there is none."""

    #: The modes that a file can be restored in.
    modes: ClassVar = ("swap", "new")
    local = True

    def __init__(
        self, settings: DatabaseSettings, plan: Plan, path: Path, spell: Callable[[Path], str]
    ) -> None:
        """`path` is the target; `spell` gives the connection string of another file, in the target's own words."""
        super().__init__(settings, plan)
        self.path = Path(os.path.realpath(path))
        self.new = self.path.with_name(f".{self.path.name}.restore_{plan.id}")
        self._spell = spell

    def look(self) -> Target:
        """See the contract. SQLite is not asked, since opening a database settles what a crash left."""
        with self._explained("look at"):
            status = _status(self.path)
            folder = self.path.parent
            free = shutil.disk_usage(folder).free if folder.is_dir() else None
            held = holders(self.path)
            left = [side(self.path, ending) for ending in SIDES if side(self.path, ending).exists()]
        warnings = [f"{name} holds {self.path}: stop it before the swap" for name in held.names]
        if held.unseen:
            warnings.append(
                f"{held.unseen} processes of other users could not be looked into: they may hold {self.path}"
            )
        if left and not held.names:
            listed = ", ".join(path.name for path in left)
            warnings.append(f"left over from a crash, held by nobody, and settled by the swap: {listed}")
        return Target(
            description=f"SQLite {self.path}",
            exists=status is not None,
            size=status.st_size if status else None,
            free=free,
            server_version=sqlite3.sqlite_version,
            sessions=held.names,
            warnings=tuple(warnings),
        )

    def refusals(self, source: Source, target: Target) -> list[LarderError]:
        """See the contract. Who holds the file is no reason yet: the swap is what they have to be stopped for."""
        doing, plan = f"unable to restore into {self.path}", self.plan
        found: list[LarderError] = []
        for asked, what in (
            (plan.mode not in self.modes, f"mode '{plan.mode}'"),
            (plan.selective, "a choice of tables"),
            (plan.create_roles, "creating roles"),
        ):
            if asked:
                found.append(
                    ConfigurationError(f"{doing}: {what} is for PostgreSQL", "use mode swap, or new")
                )
        if source.engine != "sqlite" or source.form != "file":
            found.append(RefusedError(f"{doing}: the backup is of {source.engine}, not of SQLite"))
        if plan.mode == "new" and target.exists:
            found.append(RefusedError(f"{doing}: there is a file already", "name another, or use mode swap"))
        if target.free is None:
            found.append(RefusedError(f"{doing}: there is no folder {self.path.parent}", "make it first"))
        elif target.free < source.raw_size:
            need = f"it takes {human_size(source.raw_size)}, and {human_size(target.free)} are free"
            found.append(ExhaustedError(f"{doing}: {need}", "free some space there"))
        return found + [RefusedError(f"{doing}: {why}", hint) for why, hint in self._missing_rights()]

    def _missing_rights(self) -> Iterator[tuple[str, str]]:
        folder = self.path.parent
        if folder.is_dir() and not _may_write(folder):
            yield f"its folder may not be written to by user {os.geteuid()}", "see who owns the folder"
        with contextlib.suppress(OSError):
            status = self.path.stat()
            if os.geteuid() not in (0, status.st_uid):
                yield (
                    f"it belongs to user {status.st_uid}, and we are user {os.geteuid()}",
                    "restore as that user or as root, so that the new file can be given the same owner",
                )
            if status.st_dev != folder.stat().st_dev:
                yield "it is mounted by itself", "mount its folder instead"

    def load(self, content: Content, progress: Progress, say: Callable[[str], None]) -> list[str]:
        """See the contract: decoded, compared with the manifest, on the disk, and read through by SQLite."""
        progress.total = content.source.raw_size
        self.drop_new()
        try:
            with self._explained("restore into"):
                say(f"Writing {self.new.name}...")
                with contextlib.closing(content.open()) as stream, durable_file(self.new) as sink:
                    hashed = Hashed(sink, progress)
                    pour(stream, hashed)  # type: ignore[arg-type]
                fsync_folder(self.new.parent)
                self._compare(hashed, content.source)
                say("Checking every page...")
                return integrity(self.new)
        except BaseException:
            with contextlib.suppress(OSError):
                self.drop_new()
            raise

    def _compare(self, hashed: Hashed, source: Source) -> None:
        if (hashed.size, hashed.sha256) != (source.raw_size, source.raw_sha256):
            raise IntegrityError(
                f"unable to restore into {self.path}: the backup decodes to {hashed.size} bytes with SHA-256 "
                f"{hashed.sha256}, and its manifest has {source.raw_size} with {source.raw_sha256}",
                "larder verify reads its copies again",
            )
        with self.new.open("rb") as file:
            if file.read(16) != HEADER:
                raise IntegrityError(f"unable to restore into {self.path}: the backup is no SQLite database")

    def examine(self, content: Content, progress: Progress) -> list[str]:  # noqa: ARG002 - rows are no bytes
        """See the contract."""
        with self._explained("examine"):
            self._settle_new()
            fingerprint = content.source.fingerprint
            there = tables(self.new, fingerprint.get("row_counts") == "exact")
            with immutable(self.new) as made:
                # Of a text that is no UTF-8, the error would quote it.
                made.text_factory = bytes
                failed = [found for query in self.settings.checks if (found := check(made, query))]
        return [*differences(fingerprint.get("tables", {}), there), *failed]

    def new_url(self) -> SecretStr:
        """See the contract. It is spelled as the target's own is, `sqlite:///…` or `file:…`, parameters and all."""
        return SecretStr(self._spell(self.new)) if self.new.exists() else self.settings.url

    def swap(
        self,
        content: Content,
        stamp: str,
        progress: Progress,  # noqa: ARG002 - it takes no time
        say: Callable[[str], None],
    ) -> Kept | None:
        """See the contract. Raises `BusyError` while anybody has the live file open, and names them."""
        kept, record = self._beside("before", stamp), content.scratch / _RECORD
        with self._explained("replace"):
            new, live = _status(self.new), _status(self.path)
            if new is None and not self._has_been_swapped(live, kept, record):
                raise RefusedError(
                    f"unable to replace {self.path}: {self.new.name} is not there", "load it again"
                )
            if new is not None and not _same(new, live):
                if live is not None and not self.plan.may_replace:
                    raise self._unapproved()
                self._settle_new()
                self._dress(live)
                with durable_file(record) as sink:
                    sink.write(_identity(new).encode())
                self._put(self.new, kept, say, may_replace=self.plan.may_replace)
            # Killed before its end: a second name of what is live.
            self.new.unlink(missing_ok=True)
            fsync_folder(self.path.parent)
            return _kept(kept) if kept.exists() else None

    def _has_been_swapped(self, live: os.stat_result | None, kept: Path, record: Path) -> bool:
        if live is None:
            return False
        before = _status(kept)
        if before is not None:
            return not _same(before, live)
        return record.is_file() and record.read_text() == _identity(live)

    def swapped(self, stamp: str, scratch: Path) -> tuple[bool, Kept | None]:
        """See the contract."""
        kept = self._beside("before", stamp)
        with self._explained("look at"):
            new, live = _status(self.new), _status(self.path)
            done = (
                _same(new, live) if new is not None else self._has_been_swapped(live, kept, scratch / _RECORD)
            )
            if not done and new is None and live is not None:
                # Where nothing was to be replaced, and the folder that would know is gone.
                done = not self.plan.may_replace and not scratch.exists()
            return done, _kept(kept) if done and kept.exists() else None

    def _unapproved(self) -> RefusedError:
        return RefusedError(
            f"unable to restore into {self.path}: there is a file already: it is there now, "
            "which nobody has approved to replace",
            "ask for the restore again, or move it away; nothing has been changed",
        )

    def undo(self, kept: Kept, stamp: str, say: Callable[[str], None]) -> Kept:
        """See the contract. Where nothing is live any more, what it gives has no name on the disk, and no bytes."""
        before, undone = self._ours(kept), self._beside("undone", stamp)
        with self._explained("put back"):
            if not _is(kept, _status(self.path)):
                if not _is(kept, _status(before)):
                    raise RefusedError(
                        f"unable to undo the restore of {self.path}: {before.name} is not there any more, "
                        "or is another file",
                        "restore a backup of that time",
                    )
                self._put(before, undone, say)
            carry(before, self.path)
            if _is(kept, _status(before)):
                before.unlink()
            fsync_folder(self.path.parent)
            return _kept(undone) if undone.exists() else Kept(str(undone), "", 0)

    def drop_new(self) -> bool:
        """See the contract. A swap or an undo that was killed halfway, and does not go on, is taken back as well."""
        with self._explained("remove what was built for"):
            there = remove(self.new)
            self._take_back()
            return there

    def _take_back(self) -> None:
        """Take the second name, and what went along with it, from a live file that was not replaced after all."""
        if _status(self.path) is None:
            return
        # Somebody who is in the middle of it is left alone.
        with contextlib.suppress(BusyError), locked(self.path, names_only=True):
            live = _status(self.path)
            for path in list(self.path.parent.iterdir()):
                if path.name.startswith(self._words) and path.is_file() and _same(path.stat(), live):
                    carry(path, self.path)
                    path.unlink()

    def drop_kept(self, kept: Kept) -> bool:
        """See the contract."""
        path = self._ours(kept)
        with self._explained("remove what was kept of"):
            return _is(kept, _status(path)) and remove(path)

    def _beside(self, word: str, stamp: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{word}_restore_{stamp}")

    @property
    def _words(self) -> tuple[str, str]:
        """What the names of files that were kept begin with."""
        return self._beside("before", "").name, self._beside("undone", "").name

    def _ours(self, kept: Kept) -> Path:
        """The file that was kept, which can only be one of this target's."""
        path = Path(kept.name)
        if path.parent != self.path.parent or not path.name.startswith(self._words):
            raise RefusedError(f"unable to use {path}: it is nothing that a restore of {self.path} kept")
        return path

    def _put(
        self, incoming: Path, kept: Path, say: Callable[[str], None], *, may_replace: bool = True
    ) -> None:
        """Put `incoming` into the live file's place, and keep that as `kept`."""
        if _status(self.path) is None:
            self._wait_for_nobody(self.path)
            carry(self.path, kept)
            os.link(incoming, self.path)
            incoming.unlink()
            return
        if not may_replace:
            raise self._unapproved()
        for _ in range(TRIES):
            self._wait_for_nobody(self.path)
            self._wait_for_nobody(incoming)
            left = unsettled(self.path)
            if left:
                say(f"Settling what a crash left: {', '.join(path.name for path in left)}")
            settled = not left or settle(self.path, PATIENCE)
            if not settled:
                say("SQLite cannot read the database that is replaced: it is kept as it is")
            with locked(self.path), locked(incoming):
                # Somebody may have come since, and may have gone again without closing it.
                if openers(self.path)[0] or (settled and unsettled(self.path)):
                    continue
                self._exchange(incoming, kept)
                return
        raise BusyError(f"unable to replace {self.path}: somebody opens it again and again", STOP_THEM)

    def _exchange(self, incoming: Path, kept: Path) -> None:
        """The two steps that count, with both files locked."""
        if not kept.exists():
            os.link(self.path, kept)
        elif not kept.samefile(self.path):
            raise RefusedError(
                f"unable to keep {self.path} as {kept.name}: there is another file of that name"
            )
        carry(self.path, kept)
        incoming.rename(self.path)
        # Whoever opened the old file just before that has read and written nothing yet, because it was locked; but
        # goes on with it, and takes what lies beside the new one for its own.
        late, _ = openers(kept)
        if late:
            os.link(self.path, incoming)
            kept.rename(self.path)
            carry(kept, self.path)
            raise BusyError(f"unable to replace {self.path}: {names(late)} has just opened it", STOP_THEM)

    def _wait_for_nobody(self, path: Path) -> None:
        until = time.monotonic() + PATIENCE
        while held := holders(path).names:
            if time.monotonic() >= until:
                raise BusyError(
                    f"unable to replace {self.path}: {', '.join(held)} has {path.name} open", STOP_THEM
                )
            time.sleep(TICK)

    def _settle_new(self) -> None:
        """Have whatever `post_restore` wrote to the new file in the file itself."""
        if not any(side(self.new, ending).exists() for ending in SIDES):
            return
        self._wait_for_nobody(self.new)
        if not settle(self.new, PATIENCE) or unsettled(self.new):
            raise IntegrityError(
                f"unable to restore into {self.path}: {self.new.name} is damaged", "load it again"
            )
        remove_sides(self.new)

    def _dress(self, live: os.stat_result | None) -> None:
        """Give the new file the live one's owner, mode and access list; where none is, the folder's owner."""
        folder = self.path.parent.stat()
        owner = live or folder
        if os.geteuid() == 0 or live is not None:
            os.chown(self.new, owner.st_uid, owner.st_gid)
        if live is not None:
            self.new.chmod(stat.S_IMODE(live.st_mode))
            with contextlib.suppress(OSError, AttributeError):
                access = os.getxattr(self.path, "system.posix_acl_access")
                os.setxattr(self.new, "system.posix_acl_access", access)
        fsync_file(self.new)

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise IntegrityError(f"unable to {doing} {self.path}: {error}") from None
        except OSError as error:
            where = error.filename or self.path
            reason = (error.strerror or str(error)).lower()
            message = f"unable to {doing} {self.path}: {where}: {reason}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ExhaustedError(message, "free some space there") from error
            if error.errno in (errno.EXDEV, errno.EBUSY):
                raise RefusedError(
                    message, "a file that is mounted by itself cannot be replaced: mount its folder"
                ) from error
            raise RefusedError(
                message, "see who owns the file and its folder, and that the disk is healthy"
            ) from error


def _status(path: Path) -> os.stat_result | None:
    """The state of a file; None where there is none. Raises `RefusedError` for what is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"unable to use {path}: it is not a file", "name the database file itself")
    return status


def _may_write(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _same(one: os.stat_result, other: os.stat_result | None) -> bool:
    return other is not None and os.path.samestat(one, other)


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def _kept(path: Path) -> Kept:
    status = path.stat()
    return Kept(str(path), _identity(status), status.st_size)


def _is(kept: Kept, status: os.stat_result | None) -> bool:
    """Whether this is the file that was kept: by its inode, since some devices have another number after a restart."""
    return status is not None and kept.identity.rpartition(":")[2] == str(status.st_ino)
