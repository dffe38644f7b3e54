"""PostgreSQL's own programs: which ones this machine has, and which of them suits a server."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from larder.errors import ConfigurationError, LarderError, UnreachableError
from larder.process import Process, ProcessError

#: Where packages put the programs of each major version, beside the folders of PATH.
USUAL_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")

#: Seconds that a program may take to say its version.
_PROBE_SECONDS = 20

_VERSION = re.compile(r"\([^)]*\) (\d+)(?:\.(\d+))?")


def major_of(version: str) -> int:
    """The major version of `16.4`, and of `18beta1`, `17rc1` or `19devel`; 0 where that is none."""
    match = re.match(r"\d+", version)
    return int(match[0]) if match else 0


@dataclass(frozen=True, order=True)
class Client:
    """The programs in one folder, by the version of its pg_dump."""

    version: tuple[int, int]
    folder: Path

    @property
    def major(self) -> int:
        """The major version: 16."""
        return self.version[0]

    def __str__(self) -> str:
        return self.name("pg_dump")

    def name(self, word: str = "psql") -> str:
        """For people: `psql 16.4`."""
        return f"{word} {self.version[0]}.{self.version[1]}"

    def program(self, word: str) -> str:
        """The path of `pg_dump`, `pg_restore` or another; raises `ConfigurationError` where it is missing."""
        path = self.folder / word
        if not path.is_file():
            raise ConfigurationError(
                f"unable to find {word} beside {self.folder / 'pg_dump'}",
                f"install the whole of PostgreSQL's client programs, version {self.major}",
            )
        return str(path)


def choose(server: str, folders: Iterable[Path]) -> Client:
    """The pg_dump for a server of version `server` (`16.4`), from `folders`, PATH and the usual places.

    The newest one of the server's own major version. A newer major version writes commands that the server it
    read from may not know: pg_dump 18 writes `SET transaction_timeout`, which makes a restore into 15 fail. It is
    taken where there is nothing else, the nearest first. An older one can't read the server at all.

    Raises `ConfigurationError` naming both versions where none is new enough.
    """
    wanted = major_of(server)
    found = available(folders)
    suitable = [client for client in found if client.major >= wanted]
    if suitable:
        nearest = min(client.major for client in suitable)
        return max(client for client in suitable if client.major == nearest)
    best = f"the newest on this machine is {max(found)}" if found else "there is none on this machine"
    raise ConfigurationError(
        f"unable to find a pg_dump for PostgreSQL {server}: {best}",
        f"install version {wanted} of the client programs (Debian, Ubuntu: apt install postgresql-client-{wanted}), "
        "or name their folder as postgres_bin in larder.toml",
    )


#: The first minor version of each major one that writes, and reads, `\restrict` in scripts; from 18 on all do.
_RESTRICTS = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}


def choose_loader(server: str, tool: str, folders: Iterable[Path]) -> Client:
    """The psql and pg_restore that bring what `tool` (`pg_dump 16.4`) wrote into a server of version `server` (`17.2`).

    Those of the server's own major version, where that is not older than `tool`'s: an older pg_restore can't read its
    folders, and an older psql does not know its commands. Else the nearest that is not older, the newest of it.

    Raises `ConfigurationError` naming both versions where there is none.
    """
    match = re.search(r"(\d+)(?:\.(\d+))?", tool)
    wrote = (int(match[1]), int(match[2] or 0)) if match else (0, 0)
    found = available(folders)
    suitable = [
        client
        for client in found
        if client.major >= wrote[0] and (_restricts(client.version) or not _restricts(wrote))
    ]
    if suitable:
        majors = {client.major for client in suitable}
        own = major_of(server)
        wanted = own if own in majors else min(majors)
        return max(client for client in suitable if client.major == wanted)
    best = f"the newest on this machine is {max(found).name()}" if found else "there is none on this machine"
    raise ConfigurationError(
        f"unable to find a psql and pg_restore for a backup by {tool}: {best}",
        f"install the newest client programs of version {wrote[0]} (Debian, Ubuntu: apt install "
        f"postgresql-client-{wrote[0]}), or name their folder as postgres_bin in larder.toml",
    )


def _restricts(version: tuple[int, int]) -> bool:
    major, minor = version
    return major >= 18 or minor >= _RESTRICTS.get(major, 1000)


@dataclass(frozen=True, order=True)
class Server:
    """The server's programs in one folder, by the version of its postgres."""

    version: tuple[int, int]
    folder: Path

    def __str__(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


def choose_server(wanted: str, folders: Iterable[Path]) -> Server:
    """The server of this machine that a database of a server of version `wanted` (`16.4`) comes back into.

    The newest of its own major version; where there is none, of the nearest one that is newer.

    Raises `ConfigurationError` naming both versions where none is new enough.
    """
    major = major_of(wanted)
    found = [
        Server(version, folder)
        for version, folder in _found("postgres", folders)
        if (folder / "initdb").is_file()
    ]
    suitable = [server for server in found if server.version[0] >= major]
    if suitable:
        nearest = min(server.version[0] for server in suitable)
        return max(server for server in suitable if server.version[0] == nearest)
    best = f"the newest on this machine is {max(found)}" if found else "there is none on this machine"
    raise ConfigurationError(
        f"unable to find a PostgreSQL server for a backup of PostgreSQL {wanted}: {best}",
        f"install version {major} of the server (Debian, Ubuntu: apt install postgresql-{major}), name its folder as "
        "postgres_bin in larder.toml, or a server for drills as scratch_url",
    )


def available(folders: Iterable[Path]) -> list[Client]:
    """Every pg_dump of this machine that says its version, those in `folders` included."""
    return [Client(version, folder) for version, folder in _found("pg_dump", folders)]


def _found(word: str, folders: Iterable[Path]) -> Iterator[tuple[tuple[int, int], Path]]:
    """Version and folder of each program `word` of this machine that says its version."""
    usual = [found for pattern in USUAL_FOLDERS for found in Path("/").glob(pattern[1:])]
    on_path = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    for folder in dict.fromkeys([*folders, *on_path, *usual]):
        try:
            program = (folder / word).resolve(strict=True)
            stamp = program.stat().st_mtime_ns
        except OSError:
            continue
        # Debian's wrapper picks a version by its own lights; the real ones lie in /usr/lib/postgresql.
        version = None if program.name == "pg_wrapper" else _version(str(program), stamp)
        if version is not None:
            yield version, program.parent


@functools.lru_cache(maxsize=64)
def _version(program: str, _stamp: int) -> tuple[int, int] | None:
    """What `program` says its version is, asked again only when the file has changed.

    Raises `UnreachableError` where it was killed: that says nothing, and is not to be remembered.
    """
    try:
        with Process([program, "--version"], stall_seconds=_PROBE_SECONDS) as process:
            said = b"".join(process.output())
            process.finish()
    except LarderError as error:
        if isinstance(error, ProcessError) and error.code < 0:
            raise UnreachableError(error.message, "see the system's log: was it out of memory?") from None
        return None
    match = _VERSION.search(said.decode(errors="replace"))
    return (int(match[1]), int(match[2] or 0)) if match else None
