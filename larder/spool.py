"""The spool: where a worker host does its work, a folder a run, a folder a step.

A step makes its files in a folder of its own attempt (`dump.3`), writes what it found out into `facts.json`, and
commits both by renaming the folder to the step's name (`dump`). A folder with a step's name is therefore always whole:
a step that is delivered again finds it and has nothing to make.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from larder.errors import ExhaustedError, IntegrityError, LarderError
from larder.progress import human_size
from larder.streams import durable_file, fsync_folder

Facts = TypeVar("Facts")

_FACTS = "facts.json"
_HOST = "host"


class Spool:
    """The folder of one run."""

    def __init__(self, spool_dir: Path, run_id: str) -> None:
        self.folder = spool_dir / run_id

    def path(self, step: str) -> Path:
        """The folder that `step` has finished."""
        return self.folder / step

    def result(self, step: str, kind: type[Facts]) -> Facts:
        """What `step` found out; raises `IntegrityError` where it has not finished here."""
        facts = self._read(step, kind)
        if facts is None:
            raise IntegrityError(
                f"unable to find what step '{step}' made in {self.folder}",
                "start a new backup of this database",
            )
        return facts

    def once(self, step: str, attempt: int, kind: type[Facts], make: Callable[[Path], Facts]) -> Facts:
        """Have `step` done exactly once: `make` fills an empty folder and returns its facts.

        Where an earlier attempt has finished, its facts come back and nothing is made. Where `make` raises, its folder
        is removed. A full disk raises `ExhaustedError`.
        """
        done = self._read(step, kind)
        if done is not None:
            return done
        folder = self.folder / f"{step}.{attempt}"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            make_private(folder)
            facts = make(folder)
            with durable_file(folder / _FACTS) as sink:
                sink.write(_adapter(kind).dump_json(facts))
            fsync_folder(folder)
            return self._commit(step, folder, kind, facts)
        except OSError as error:
            raise disk_error(error, self.folder) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def size(self) -> int:
        """Bytes of all that is in it now."""
        return sum(_size_of(Path(below, name)) for below, _, names in os.walk(self.folder) for name in names)

    def drop(self, step: str) -> None:
        """Remove the files that `step` made, and keep its facts."""
        for path in self.path(step).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _FACTS:
                path.unlink()

    def remove(self) -> None:
        """Remove the run's folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _commit(self, step: str, folder: Path, kind: type[Facts], facts: Facts) -> Facts:
        try:
            folder.rename(self.path(step))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Another attempt was first, and what it made is as whole as ours.
            return self.result(step, kind)
        fsync_folder(self.folder)
        return facts

    def _read(self, step: str, kind: type[Facts]) -> Facts | None:
        path = self.path(step) / _FACTS
        try:
            facts = _adapter(kind).validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise IntegrityError(
                f"unable to read {path}: {error.error_count()} mistakes",
                "start a new backup of this database",
            ) from None
        return facts


#: What reads and writes facts of each kind. One takes half a millisecond to make, and a chain asks twelve times.
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Facts]) -> TypeAdapter[Facts]:
    return _ADAPTERS.get(kind) or _ADAPTERS.setdefault(kind, TypeAdapter(kind))


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk of `folder`, which need not be there yet."""
    return shutil.disk_usage(_existing(folder)).free


def host_id(spool_dir: Path) -> str:
    """The name of whoever can see this spool: the machine's name and a random part, kept in the spool itself.

    Workers that share a spool share the name, and can go on with each other's runs.
    """
    path = spool_dir / _HOST
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    make_private(spool_dir)
    draft = spool_dir / f".{_HOST}.{secrets.token_hex(4)}"
    draft.write_text(f"{socket.gethostname()[:60]}-{secrets.token_hex(3)}\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text().strip()


def run_folders(spool_dir: Path) -> list[Path]:
    """The folders of all runs that have one."""
    return [path for path in spool_dir.iterdir() if path.is_dir()] if spool_dir.is_dir() else []


def make_private(folder: Path) -> None:
    """Create `folder` and what is missing above it, readable by nobody else; raises `LarderError`."""
    try:
        for missing in [parent for parent in reversed([folder, *folder.parents]) if not parent.exists()]:
            missing.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise disk_error(error, folder) from error


def disk_error(error: OSError, folder: Path) -> LarderError:
    """What the operator should read when the disk below `folder` did not do its part."""
    where = error.filename or folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExhaustedError(
            f"unable to write to {where}: {os.strerror(error.errno).lower()} ({_free(folder)} free)",
            "free some space there, or move the folder with LARDER_STATE_DIR or BACKUP_DIR",
        )
    reason = (error.strerror or str(error)).lower()
    return LarderError(f"unable to use {where}: {reason}", _cure(error))


def _cure(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "see who owns the folder, and whether it is mounted read-only"
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP):
        return "BACKUP_DIR and LARDER_STATE_DIR have to be folders, or names that a folder can be made under"
    return "see the system's log, and whether the disk is healthy"


def _free(folder: Path) -> str:
    return human_size(free_bytes(folder))


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _size_of(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        # It has gone since it was listed.
        return 0
    # A file that is followed while it is written has given back what was taken.
    return min(found.st_size, found.st_blocks * 512)
