"""Where a throw-away cluster lies on this machine, and as whom its server runs.

PostgreSQL refuses root, and a worker may be root: then another user runs it, who must not be able to lead us astray. So
the cluster's folder is ours, and that user, who owns folders in it, can only pass through: none of the names that we go
by can be made to lead elsewhere by what a backup has in it.
"""

from __future__ import annotations

import errno
import os
import pwd
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from larder.databases._postgres_client import Server
from larder.errors import ConfigurationError, LarderError, RefusedError
from larder.process import Account, Process
from larder.spool import disk_error, make_private

#: Who runs PostgreSQL for a worker that is root: the first of these that there is. Functions of a backup do as they
#: like as that user, so it is never `postgres`, who owns live servers, and is let in as their superuser without a word.
_ACCOUNTS = ("larder-drill", "nobody")

#: Where clusters lie that the spool cannot hold, and sockets whose path would be too long; neither is `TMPDIR`, which
#: may be long, and another one for the next process that looks.
_ROOTS_PLACE = Path("/var/tmp")  # noqa: S108 - names there hold the drill's id, and what is a stranger's is refused
_SHORT_PLACE = Path("/tmp")  # noqa: S108

#: Bytes of a socket's folder at most: of 104, where they are fewest, less what PostgreSQL calls the socket.
_LONGEST = 104 - len("/.s.PGSQL.5432") - 1

#: What needs no quoting in a list of folders, PostgreSQL's or libpq's.
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")

#: Seconds that a program may take to say its version.
_PROBE_SECONDS = 20

#: How often a folder is removed that is being written to.
_REMOVALS = 20

_HINT = (
    "make a user for it (useradd --system --no-create-home larder-drill), run the worker as another user than root,"
    " or name a server for drills as scratch_url in larder.toml"
)


def account() -> Account | None:
    """Who PostgreSQL runs as here; None: we do. Raises `ConfigurationError` where we are root, and there is nobody."""
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Account(name, found.pw_uid, found.pw_gid)
    raise ConfigurationError(
        "unable to make a throw-away PostgreSQL cluster: this worker runs as root, whom PostgreSQL refuses, and there"
        f" is no user {' or '.join(map(repr, _ACCOUNTS))}",
        _HINT,
    )


@dataclass(frozen=True)
class Place:
    """The folders of the cluster of one drill, which need not be there."""

    #: What the cluster is called, everywhere: `larder-drill-3f2a9c0d1e4b`.
    label: str
    #: All of it, but for a socket whose path would be too long.
    folder: Path

    @classmethod
    def of(cls, drill: str, spool: Path, scratch_dir: Path | None) -> Place:
        """The place of `drill`: in `spool`, a folder of ours; elsewhere where that is wanted, or we are root."""
        label = f"larder-drill-{drill}"
        if scratch_dir is None and os.geteuid() != 0:
            return cls(label, spool / "cluster")
        return cls(label, (scratch_dir or _ROOTS_PLACE) / label)

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.folder / "data"

    @property
    def sockets(self) -> Path:
        """The folder of the server's socket."""
        found = self.folder / "socket"
        plain = _PLAIN.fullmatch(str(found)) and len(os.fsencode(found)) <= _LONGEST
        return found if plain else _SHORT_PLACE / f"{self.label}-socket" / "socket"

    @property
    def free(self) -> int | None:
        """Free bytes where the cluster would lie; None where that can't be seen."""
        there = next((folder for folder in self.folder.parents if folder.is_dir()), None)
        try:
            found = os.statvfs(there) if there else None
        except OSError:
            return None
        return found.f_bavail * found.f_frsize if found else None

    def make(self, owner: Account | None) -> None:
        """Make the folders; `owner` gets those of data and socket. Raises `RefusedError`, `LarderError`."""
        if owner is None:
            make_private(self.folder.parent)
        for outer in dict.fromkeys((self.folder, self.sockets.parent)):
            _make(outer, None)
            if owner is not None:
                # Their group may pass through, and no more.
                os.chown(outer, -1, owner.gid)
                outer.chmod(0o710)
        for inner in (self.data, self.sockets):
            _make(inner, owner)

    def make_folder(self, name: str, owner: Account | None) -> Path:
        """Another folder in it, which belongs to `owner`."""
        _make(self.folder / name, owner)
        return self.folder / name

    def remove(self) -> bool:
        """Remove the folders; says whether there were any. What is not ours stays. Raises `LarderError`."""
        found = False
        for outer in dict.fromkeys((self.folder, self.sockets.parent)):
            try:
                if _is_ours(outer):
                    found = True
                    _remove(outer)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise disk_error(error, outer) from error
        return found

    def problems(self, server: Server, owner: Account | None) -> list[LarderError]:
        """Why `owner` could not run `server` here, as far as that can be seen before anything is made."""
        above = self.folder.parent
        if owner is None:
            return []
        found: list[LarderError] = []
        if not above.is_dir():
            found.append(
                ConfigurationError(
                    f"unable to make a throw-away PostgreSQL cluster: there is no folder {above}",
                    "make it, or see scratch_dir in larder.toml",
                )
            )
        elif not _passes(above, owner):
            found.append(
                ConfigurationError(
                    f"unable to make a throw-away PostgreSQL cluster: user '{owner.name}' may not pass through {above}",
                    "name a folder that everybody may pass through as scratch_dir in larder.toml",
                )
            )
        if not all(_runs(server.folder / word, owner) for word in ("postgres", "initdb")):
            found.append(
                ConfigurationError(
                    f"unable to run {server.folder / 'postgres'} as user '{owner.name}', and this worker is root, whom "
                    "PostgreSQL refuses",
                    f"install PostgreSQL where everybody may run it; or {_HINT}",
                )
            )
        return found


def _make(folder: Path, owner: Account | None) -> None:
    try:
        folder.mkdir(mode=0o700)
        if owner is not None:
            os.chown(folder, owner.uid, owner.gid)
    except FileExistsError:
        raise RefusedError(
            f"unable to make {folder}: it is there already, and somebody else's",
            "see whose it is, and remove it",
        ) from None
    except OSError as error:
        raise disk_error(error, folder) from error


def _remove(folder: Path) -> None:
    """Remove a folder that an initdb whose worker was killed may write to for another moment."""
    for _ in range(_REMOVALS):
        try:
            shutil.rmtree(folder)
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
    shutil.rmtree(folder)


def _is_ours(folder: Path) -> bool:
    """Whether it is a folder that we have made; a link that leads to one is not. Raises `FileNotFoundError`."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _runs(program: Path, owner: Account) -> bool:
    return _succeeds([str(program), "--version"], owner)


def _passes(folder: Path, owner: Account) -> bool:
    return _succeeds(["test", "-x", str(folder)], owner)


def _succeeds(argv: list[str], owner: Account) -> bool:
    root = Path("/")
    try:
        with Process(argv, stall_seconds=_PROBE_SECONDS, output=False, folder=root, account=owner) as process:
            process.finish()
    except LarderError:
        return False
    return True
