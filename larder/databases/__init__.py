"""Databases: what can be backed up. One file an engine, named after its word in artifact names.

The contract, which `tests/contracts/test_databases.py` holds every engine to:

- `recognises(url)` says whether a connection string is this engine's, without touching anything.
- `look` connects, changes nothing, and says what is there. A database that does not exist is never created by looking.
- `dump` writes a consistent snapshot into an empty folder and returns only when the engine's own tool has said that
  it is complete, its end mark was seen, and the bytes are on the disk. Called again with another folder it makes
  another dump. It leaves no process, no lock and no connection behind, whether it returns or raises.
- What its backups take to come back is a `Restorer`: see `larder.restoring`. To see that they do, a `Scratch`: see
  `larder.drilling`.
- A server that does not answer raises `UnreachableError`; one that refuses raises `RefusedError`; a full disk raises
  `ExhaustedError`; a dump that is not whole raises `IntegrityError`. The message names the database and never a secret.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from larder.checked_writer import Encoded
from larder.codecs import Codec
from larder.drilling import Scratch
from larder.errors import ConfigurationError
from larder.progress import Progress
from larder.restoring import Plan, Restorer

if TYPE_CHECKING:
    from larder.config import DatabaseSettings


@dataclass(frozen=True)
class Look:
    """What a database is, seen without changing it."""

    #: For people: `PostgreSQL 16.4 at db.example:5432/shop`, without secrets.
    description: str
    server_version: str
    #: What will read it: `pg_dump 16.4`.
    tool: str
    #: What the server says it holds, in bytes; an estimate of the work.
    size: int
    #: What the operator should know: a pg_dump newer than the server, tables that this role may not read.
    warnings: tuple[str, ...] = ()
    #: How many seconds the server's clock is ahead of ours; None where both are the same clock.
    clock_difference: float | None = None


@dataclass(frozen=True)
class Piece:
    """One file of a dump in the spool, and what it decodes to."""

    #: Name inside the dump's folder.
    path: str
    #: The codec that it lies there in.
    encoding: str
    #: Bytes and hexadecimal SHA-256 after decoding (for a folder: of its tar, `larder.streams.write_tar`).
    raw_size: int
    raw_sha256: str
    #: What lies there, where it was decoded and compared while it was written; None where that is still to be done.
    encoded: Encoded | None = None


@dataclass(frozen=True)
class Dump:
    """What `dump` made."""

    #: `file`: one file. `folder`: a folder that becomes one tar.
    form: Literal["file", "folder"]
    #: What the artifact's name goes on with before the codec's suffix: `.sql`, `.dir.tar`, `.db`.
    suffix: str
    content: Piece
    server_version: str
    tool: str
    #: When the snapshot was taken: ISO 8601, UTC.
    snapshot_at: str
    #: `{"row_counts": "exact" | "off", "tables": {name: {"rows": n}}}`, and what else a restore by this engine needs.
    fingerprint: dict[str, Any]
    #: The server's roles and tablespaces, where asked for.
    globals: Piece | None = None
    #: Bytes that it took of the spool's disk at its fullest, where that is more than what is left of it.
    fullest: int = 0
    warnings: list[str] = field(default_factory=list)


class Database(ABC):
    """One configured database."""

    #: What people call the engine: `PostgreSQL`.
    title: ClassVar[str]

    def __init__(self, settings: DatabaseSettings, state_dir: Path) -> None:
        self.settings = settings
        self.name = settings.name
        #: Where small things may be cached between runs.
        self.state_dir = state_dir

    @property
    def engine(self) -> str:
        """The engine's word: `postgres`."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def look(self) -> Look:
        """Connect and say what is there, changing nothing."""

    @abstractmethod
    def dump(self, folder: Path, codec: Codec, progress: Progress, say: Callable[[str], None]) -> Dump:
        """Write a consistent snapshot into `folder`.

        What can be encoded on the way passes through `codec`, and is decoded and compared. `progress` counts raw bytes.
        `say` takes a line for the operator.
        """


@functools.cache
def _modules() -> list[ModuleType]:
    return [
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    ]


def engine_of(url: str) -> str:
    """The word of the engine that `url` belongs to; raises `ConfigurationError` where there is none."""
    for module in _modules():
        if module.recognises(url):
            return module.__name__.rpartition(".")[2]
    raise ConfigurationError(
        "unable to tell the kind of database from its connection string",
        "use postgresql://…, sqlite:///… or file:…",
    )


def check_url(url: str) -> str | None:
    """What is wrong with a connection string, without touching anything; None where it can be used."""
    module = importlib.import_module(f"{__name__}.{engine_of(url)}")
    problem: str | None = module.check_url(url)
    return problem


def name_in(url: str) -> str:
    """A name for the database that `url` leads to: letters, digits, `-` and `_`; `default` where it tells none."""
    module = importlib.import_module(f"{__name__}.{engine_of(url)}")
    found: str = re.sub(r"[^A-Za-z0-9_-]+", "_", module.name_in(url)).strip("_-")[:63]
    return found or "default"


#: A connection string's password, and whatever it holds.
_PASSWORD = re.compile(r"://[^/@:]*:(.+)@", re.DOTALL)


def secrets_in(url: str) -> list[str]:
    """What must be masked wherever it turns up: the password, as it is and as the connection string spells it."""
    # Not every program agrees where a password ends that holds `/`, `#` or `?`: here it is at the last `@`.
    found = _PASSWORD.findall(url)
    with suppress(ValueError):
        parts = urlsplit(url)
        found += [
            parts.password or "",
            *(value for key, value in parse_qsl(parts.query) if "password" in key),
        ]
    return [spelling for value in found if value for spelling in {value, unquote(value)}]


def address_in(url: str, base: Path) -> str:
    """Where a connection string leads, in one spelling, without user and secrets: `postgresql://db.example:5432/shop`.

    Two of them are the same database when their addresses are equal. A relative file name begins at `base`.
    """
    module = importlib.import_module(f"{__name__}.{engine_of(url)}")
    found: str = module.address_in(url, base)
    return found


def server_in(url: str) -> str | None:
    """The server that a connection string leads to, in one spelling, without user and secrets; None for a file."""
    module = importlib.import_module(f"{__name__}.{engine_of(url)}")
    found: str | None = module.server_in(url)
    return found


def public_url(url: str) -> str:
    """The connection string without its secrets."""
    module = importlib.import_module(f"{__name__}.{engine_of(url)}")
    found: str = module.public_url(url)
    return found


def with_secrets_of(url: str, others: Iterable[str]) -> str:
    """`url`, with the secrets of the first of `others` that has the same server and user; as it is where none has."""
    module = importlib.import_module(f"{__name__}.{engine_of(url)}")
    found: str = module.with_secrets_of(
        url, [other for other in others if engine_of(other) == engine_of(url)]
    )
    return found


def sibling(url: str, name: str) -> str:
    """The connection string of database `name` on the same server; raises `ConfigurationError` where there is none."""
    module = importlib.import_module(f"{__name__}.{engine_of(url)}")
    found: str = module.sibling(url, name)
    return found


def open_restorer(settings: DatabaseSettings, plan: Plan) -> Restorer:
    """What brings backups into the database that `settings` describe; nothing is touched until it is used."""
    module = importlib.import_module(f"{__name__}.{settings.engine}")
    made: Restorer = module.restorer(settings, plan)
    return made


def open_scratch(settings: DatabaseSettings, engine: str, drill: str, folder: Path) -> Scratch:
    """Where drill `drill` restores a backup of `settings`' database into, which `engine` has made."""
    module = importlib.import_module(f"{__name__}.{engine}")
    made: Scratch = module.scratch(settings, drill, folder)
    return made


def open_database(settings: DatabaseSettings, state_dir: Path) -> Database:
    """The database that `settings` describe; nothing is touched until it is used."""
    module = importlib.import_module(f"{__name__}.{settings.engine}")
    made: Database = module.DATABASE(settings, state_dir)
    return made
