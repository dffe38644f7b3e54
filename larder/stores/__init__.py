"""Stores: where artifacts are kept. One file a store, named after its word in the configuration.

The contract, which `tests/contracts/test_stores.py` holds every store to. Keys are relative paths with `/`
(`shop/backup_postgres_20251016_020000.sql.gz`).

- `put` is all or nothing: until it returns, no reader sees the key. When it returns, the bytes have been read back,
  or vouched for by the SHA-256 of a server that was seen to refuse a wrong one. Putting the same content again is fine
  and cheap; putting other content under a key that exists raises `IntegrityError` and changes nothing. What a `put`
  that was killed has left is never listed; another `put` of the same content goes on from there where it can. Nobody
  writes to the file that was put any more: a store on the same disk may keep that very file.
- `open` gives the bytes, or raises `NotFoundError`. A stream that broke off never seems to have ended.
- `size` gives the size in bytes, or None where the key does not exist.
- `sizes` gives every key below a folder with its size, sorted; hidden names (a leading dot) are not ours and are not
  listed.
- `delete` removes a key; a key that is not there is fine.
- `unfinished` gives the keys for which killed `put`s have left bytes on a server; `discard` removes what they left.
- A server that does not answer raises `UnreachableError`; one that says no raises `RefusedError`; a full one
  raises `ExhaustedError`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Self

from pydantic import Field

from larder.errors import ConfigurationError
from larder.fields import Table
from larder.progress import Progress

#: The kind of a store whose table does not name one, and the name of the store that there is without any table.
DEFAULT = "local"


class StoreSettings(Table):
    """One place that keeps artifacts. Each kind of store adds its own keys, in its own module."""

    name: str = Field(default="", exclude=True)
    type: str = Field(default=DEFAULT, description="the kind of store: local, s3")

    def placed(self, name: str, base: Path) -> Self:  # noqa: ARG002 - for kinds with paths
        """The same, called `name`; relative paths begin at `base`."""
        return self.model_copy(update={"name": name})

    def collides(self, other: StoreSettings) -> tuple[str, str] | None:  # noqa: ARG002
        """Whether this store and `other` would list each other's files: the key to blame, and the problem with it."""
        return None

    def lists(self, folder: Path) -> bool:  # noqa: ARG002
        """Whether files in `folder` would be taken for files of this store."""
        return False

    @property
    def locks(self) -> bool:
        """Whether it locks what it keeps, for which it has to know for how long."""
        return False


@dataclass(frozen=True)
class Condition:
    """What a store's `check` found: that it works, and what an operator should know."""

    detail: str
    warnings: tuple[str, ...] = ()


class Store(ABC):
    """A place that keeps artifacts."""

    def __init__(self, name: str) -> None:
        #: The store's name in the configuration.
        self.name = name

    @abstractmethod
    def location(self, key: str) -> str:
        """Where an operator finds `key`: a path, or a URL without secrets."""

    @abstractmethod
    def put(
        self,
        key: str,
        source: Path,
        sha256: str,
        progress: Progress | None = None,
        keep_until: datetime | None = None,
    ) -> None:
        """Keep the file `source`, whose hexadecimal SHA-256 is `sha256`, under `key`.

        `progress` counts its bytes. A store that can lock what it keeps locks it until `keep_until`, if it was
        configured to.
        """

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """The bytes under `key`, as a file to read and close."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """The size in bytes of what is under `key`, or None."""

    @abstractmethod
    def sizes(self, folder: str = "") -> Mapping[str, int]:
        """The size in bytes of every key below `folder` (all of them where it is empty)."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove `key`."""

    @abstractmethod
    def check(self) -> Condition:
        """See that this store can be written to and read, or raise why not. For `doctor`."""

    def unfinished(self, folder: str = "") -> list[str]:  # noqa: ARG002 - for servers that keep what was begun
        """The keys below `folder` for which killed `put`s have left bytes that only `discard` removes."""
        return []

    def discard(self, key: str) -> None:  # noqa: B027 - nothing to do where nothing is left
        """Remove what killed `put`s of `key` have left."""


def parts_of(key: str) -> list[str]:
    """The names that `key` is made of.

    Raises `ValueError` where one is empty or starts with a dot: a key never leads out of its store, nor to a hidden
    name, which would never be listed.
    """
    parts = key.split("/")
    if not all(parts) or any(part.startswith(".") or "\0" in part for part in parts):
        raise ValueError(f"unable to use key {key!r}: its parts are names that do not start with a dot")
    return parts


def _module(word: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{word}")


def settings_of(word: str) -> type[StoreSettings]:
    """The keys of the kind of store named `word`, one of `words()`."""
    found: type[StoreSettings] = _module(word).SETTINGS
    return found


@functools.cache
def words() -> tuple[str, ...]:
    """The words that name a kind of store in the configuration."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def open_store(settings: StoreSettings) -> Store:
    """The store that `settings` describe; nothing is touched until it is used."""
    if settings.type not in words():
        raise ConfigurationError(
            f"unable to open store '{settings.name}': there is no kind of store '{settings.type}'",
            f"use one of: {', '.join(words())}",
        )
    made: Store = _module(settings.type).open_store(settings)
    return made
