"""Stores: where artifacts are kept. One file a store, named after its word in the configuration.

The contract, which `tests/contracts/test_stores.py` holds every store to. Keys are relative paths with `/`
(`shop/backup_postgres_20251016_020000.sql.gz`).

- `put` is all or nothing: until it returns, no reader sees the key. When it returns, the bytes have been read back,
  or vouched for by the server's own SHA-256. Putting the same content again is fine and cheap; putting other
  content under a key that exists raises `IntegrityError` and changes nothing. Leftovers of a `put` that was killed
  are never listed.
- `open` gives the bytes, or raises `NotFoundError`.
- `size` gives the size in bytes, or None where the key does not exist.
- `keys` gives every key below a folder, sorted; hidden names (a leading dot) are not ours and are not listed.
- `delete` removes a key; a key that is not there is fine.
- A server that does not answer raises `UnreachableError`; one that says no raises `RefusedError`; a full one
  raises `ExhaustedError`.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from larder.errors import ConfigurationError
from larder.progress import Progress

if TYPE_CHECKING:
    from larder.config import StoreSettings


class Store(ABC):
    """A place that keeps artifacts."""

    def __init__(self, name: str) -> None:
        #: The store's name in the configuration.
        self.name = name

    @abstractmethod
    def location(self, key: str) -> str:
        """Where an operator finds `key`: a path, or a URL without secrets."""

    @abstractmethod
    def put(self, key: str, source: Path, sha256: str, progress: Progress | None = None) -> None:
        """Keep the file `source`, whose hexadecimal SHA-256 is `sha256`, under `key`."""

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """The bytes under `key`, as a file to read and close."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """The size in bytes of what is under `key`, or None."""

    @abstractmethod
    def keys(self, folder: str = "") -> Iterable[str]:
        """Every key below `folder` (all of them where it is empty)."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove `key`."""

    @abstractmethod
    def check(self) -> str:
        """Say in a few words that this store can be written to and read, or raise why not. For `doctor`."""


def words() -> list[str]:
    """The words that name a kind of store in the configuration."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if not name.startswith("_"))


def open_store(settings: StoreSettings) -> Store:
    """The store that `settings` describe; nothing is touched until it is used."""
    if settings.type not in words():
        raise ConfigurationError(
            f"unable to open store '{settings.name}': there is no kind of store '{settings.type}'",
            f"use one of: {', '.join(words())}",
        )
    module = importlib.import_module(f"{__name__}.{settings.type}")
    made: Store = module.open_store(settings)
    return made
