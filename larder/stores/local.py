"""local: a folder on this machine, or one that is mounted.

A file is written under a hidden name (or linked there, where it lies on the same disk already), forced to the disk,
dropped from the system's memory, read back, and only then given its own name by a hard link, which the system refuses
where the name exists. So no reader ever sees half a file, and no writer ever replaces another's.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Self, cast

from pydantic import Field

from larder.errors import (
    ExhaustedError,
    IntegrityError,
    LarderError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from larder.fields import Folder
from larder.progress import Progress, human_size
from larder.stores import Condition, Store, StoreSettings, parts_of
from larder.streams import Hashed, digest_file, durable_file, fsync_folder, pour

#: Seconds after which a hidden file that nobody writes to any more was left by a killed `put`.
STALE = 86400

#: What ext4 has at the top of every disk, for root alone.
_LOST = "lost+found"

_PARTIAL = ".partial"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
_HANDLES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
#: What is said where no hard link can be: by FAT, by some network mounts, of another disk or another user's file.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class LocalSettings(StoreSettings):
    """A folder."""

    path: Folder = Field(description="the folder that artifacts are kept in")

    def placed(self, name: str, base: Path) -> Self:
        """The same, called `name`, with a path that begins at `base`."""
        return self.model_copy(update={"name": name, "path": (base / self.path).absolute()})

    def collides(self, other: StoreSettings) -> tuple[str, str] | None:
        """Whether this folder is the other store's, or one lies in the other."""
        if not isinstance(other, LocalSettings):
            return None
        if _real(self.path) == _real(other.path):
            return "path", f"is the folder of store '{other.name}' too"
        if self.lists(other.path) or other.lists(self.path):
            return "path", f"and the folder of store '{other.name}' overlap"
        return None

    def lists(self, folder: Path) -> bool:
        """Whether `folder` is this one, or below it with no hidden name between."""
        inner, outer = _real(folder), _real(self.path)
        return inner.is_relative_to(outer) and not any(
            part.startswith(".") for part in inner.relative_to(outer).parts
        )


SETTINGS = LocalSettings


class Local(Store):
    """Keeps artifacts in one folder and the folders below it."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self.folder = folder

    def location(self, key: str) -> str:
        """The path of `key`."""
        return str(self._path(key))

    def put(
        self,
        key: str,
        source: Path,
        sha256: str,
        progress: Progress | None = None,
        keep_until: datetime | None = None,  # noqa: ARG002 - a folder cannot lock anything
    ) -> None:
        """Keep the file `source` under `key`; `progress` counts its bytes as they are written.

        Raises `IntegrityError` where `source` is not what `sha256` says, where the disk does not give back what was
        written, and where `key` already holds something else.
        """
        path = self._path(key)
        with self._told(f"unable to keep {path}"):
            if not source.is_file():
                raise LarderError(f"unable to keep {path}: {source} is not there", "start a new backup")
            _make_folder(path.parent)
            _sweep(path.parent)
            size = source.stat().st_size
            if self._holds(path, size, sha256):
                return
            partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}")
            try:
                if not _linked(source, partial, progress):
                    _copy(source, partial, size, sha256, progress)
                _read_back(partial, path, size, sha256)
                self._publish(partial, path, size, sha256)
            finally:
                partial.unlink(missing_ok=True)
            fsync_folder(path.parent)

    def open(self, key: str) -> BinaryIO:
        """The bytes under `key`, as a file to read and close; raises `NotFoundError` where there is none."""
        path = self._path(key)
        with self._told(f"unable to read {path}"):
            if path.is_dir():
                raise NotFoundError(f"unable to find '{key}' in store '{self.name}'")
            try:
                return path.open("rb")
            except FileNotFoundError:
                raise NotFoundError(f"unable to find '{key}' in store '{self.name}'") from None

    def size(self, key: str) -> int | None:
        """The size of what is under `key` in bytes, or None."""
        path = self._path(key)
        with self._told(f"unable to look at {path}"):
            try:
                return path.stat().st_size if path.is_file() else None
            except FileNotFoundError:
                return None

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The size in bytes of every key below `folder`, sorted."""
        start = self._path(folder) if folder else self.folder
        with self._told(f"unable to list {start}"):
            return dict(sorted(_files(start, f"{folder}/" if folder else "")))

    def delete(self, key: str) -> None:
        """Remove `key`, durably."""
        path = self._path(key)
        with self._told(f"unable to delete {path}"):
            try:
                path.unlink()
            except FileNotFoundError:
                return
            fsync_folder(path.parent)

    def check(self) -> Condition:
        """Write, read back and delete a small file; says how much room there is."""
        probe = self.folder / f".probe-{secrets.token_hex(4)}{_PARTIAL}"
        content = secrets.token_bytes(64)
        with self._told(f"unable to use {self.folder}"):
            _make_folder(self.folder)
            try:
                with durable_file(probe) as sink:
                    sink.write(content)
                if probe.read_bytes() != content:
                    raise IntegrityError(
                        f"unable to use {self.folder}: it gives back other bytes than were written"
                    )
            finally:
                probe.unlink(missing_ok=True)
            return Condition(f"{human_size(_free(self.folder))} free in {self.folder}")

    def _path(self, key: str) -> Path:
        """Where `key` lies."""
        return self.folder.joinpath(*parts_of(key))

    def _holds(self, path: Path, size: int, sha256: str) -> bool:
        """Whether `path` is there with this very content; raises `IntegrityError` where it has another."""
        try:
            same = path.stat().st_size == size and digest_file(path).sha256 == sha256
        except FileNotFoundError:
            return False
        if not same:
            raise IntegrityError(
                f"unable to keep {path}: a file with other content is there, which was left as it is",
                "see what it is, and move it away",
            )
        return True

    def _publish(self, partial: Path, path: Path, size: int, sha256: str) -> None:
        """Give the finished file its name, unless another `put` was first."""
        try:
            os.link(partial, path)
        except FileExistsError:
            self._holds(path, size, sha256)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Between the look and the rename another `put` could slip in, which only two runs of one database in one
            # second could do. Such a file system offers nothing better.
            if not self._holds(path, size, sha256):
                partial.rename(path)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn what the system says into what the operator should read."""
        try:
            yield
        except OSError as error:
            raise self._plain(what, error) from error

    def _plain(self, what: str, error: OSError) -> LarderError:
        reason = (error.strerror or str(error)).lower()
        if error.filename is not None and str(error.filename) not in what:
            reason = f"{reason}: {error.filename}"
        if error.errno in _FULL:
            return ExhaustedError(
                f"{what}: {reason}; {human_size(_free(self.folder))} free",
                "free some space there, or keep backups for fewer days",
            )
        if error.errno in _HANDLES:
            return ExhaustedError(f"{what}: {reason}")
        if error.errno == errno.ENOTDIR:
            return RefusedError(
                f"{what}: {reason}", f"{self.folder} has to be a folder, or a name that one can be made under"
            )
        if error.errno in _REFUSED:
            return RefusedError(
                f"{what}: {reason}",
                f"let the worker's user write to {self.folder}, and see whether it is mounted read-only",
            )
        return UnreachableError(
            f"{what}: {reason}", f"see whether {self.folder} is mounted, and its disk healthy"
        )


def open_store(settings: LocalSettings) -> Local:
    """The store in `settings.path`; the folder is made by the first `put`."""
    return Local(settings.name, settings.path)


def _linked(source: Path, partial: Path, progress: Progress | None) -> bool:
    """Have `partial` be a second name of `source`, all of it on the disk and not in memory, where that can be done.

    Only where `source` has no other name yet, so that two stores on one disk hold two copies: what is lost of one is
    then not lost of the other. Whoever calls removes its own name, and writes to the file no more.
    """
    if source.is_symlink():
        return False
    try:
        os.link(source, partial)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        state = os.fstat(descriptor)
        if state.st_nlink > 2:
            partial.unlink()
            return False
        os.fsync(descriptor)
        os.fchmod(descriptor, 0o600)
        # It came here now, as a copy would have: `STALE` and other people's scripts go by that.
        os.utime(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    if progress is not None:
        progress.add(state.st_size)
    return True


def _copy(source: Path, partial: Path, size: int, sha256: str, progress: Progress | None) -> None:
    with source.open("rb") as content, durable_file(partial) as sink:
        written = Hashed(sink, progress)
        pour(content, cast(BinaryIO, written))
        # Readers of this file shall come by their bytes from the disk.
        os.fsync(sink.fileno())
        os.posix_fadvise(sink.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if (written.size, written.sha256) != (size, sha256):
        raise IntegrityError(
            f"unable to keep {source}: it has SHA-256 {written.sha256}, and should have {sha256}",
            "start a new backup; if it happens again, see the system's log for disk or memory errors",
        )


def _read_back(partial: Path, path: Path, size: int, sha256: str) -> None:
    found = digest_file(partial)
    if (found.size, found.sha256) != (size, sha256):
        raise IntegrityError(
            f"unable to keep {path}: {found.size} bytes with SHA-256 {found.sha256} came back from the disk, "
            f"and it should have {size} with {sha256}",
            "see the system's log for disk or memory errors",
        )


def _make_folder(folder: Path) -> None:
    """Create `folder` and what is missing above it, each readable by nobody else; durably."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder)) from None
        return
    fsync_folder(folder.parent)


def _sweep(folder: Path) -> None:
    """Remove what killed writers left in `folder`."""
    with os.scandir(folder) as found:
        for entry in found:
            if not (entry.name.startswith(".") and entry.name.endswith(_PARTIAL)):
                continue
            try:
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE:
                    Path(entry.path).unlink()
            except OSError:
                # Another writer was first, or it is not ours to remove. Neither hinders this one.
                continue


def _files(folder: Path, before: str) -> Iterator[tuple[str, int]]:
    """The key and size of every file below `folder`; `before` is what the keys there begin with."""
    try:
        found = os.scandir(folder)
    except FileNotFoundError:
        return
    with found:
        for entry in found:
            if entry.name.startswith(".") or not _is_text(entry.name) or (not before and entry.name == _LOST):
                continue
            if entry.is_dir(follow_symlinks=False) or (not before and _leads_elsewhere(entry, folder)):
                yield from _files(Path(entry.path), f"{before}{entry.name}/")
            elif _is_file(entry):
                try:
                    yield before + entry.name, entry.stat().st_size
                except FileNotFoundError:
                    # Deleted since it was listed.
                    continue


def _leads_elsewhere(entry: os.DirEntry[str], folder: Path) -> bool:
    """Whether it links to a folder that `folder` does not lie in.

    A database's folder may be a link to another disk. Links further down are not followed: they could make a loop.
    """
    return (
        entry.is_symlink()
        and Path(entry.path).is_dir()
        and not _real(folder).is_relative_to(_real(Path(entry.path)))
    )


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _is_text(name: str) -> bool:
    """Whether a name is UTF-8, as every key is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _real(path: Path) -> Path:
    """`path` with its links followed, as far as they can be."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def _free(folder: Path) -> int:
    """Bytes that this user may still write where `folder` is, or would be."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
