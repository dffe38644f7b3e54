"""Files of private keys: written whole, once and for their owner only, and refused where others can get at them.

What a file holds is in no message.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from larder.errors import ConfigurationError
from larder.spool import disk_error, make_private
from larder.streams import durable_file, fsync_folder

#: Bytes that are read of a key's file at most. A key has a few hundred.
_LARGEST: Final = 1 << 16


@dataclass(frozen=True)
class KeyFiles:
    """The files of one kind of key: what they are called, and who may have a hand on them."""

    #: `signing key`.
    word: str
    #: The bits of a mode that none may have, and whom they would let in: `everybody on this machine`.
    closed_to: int
    others: str
    #: What a new one is made with.
    make: str
    #: What to look into where a file cannot be read, and what to know where one is in the way.
    unreadable: str
    taken: str

    def read(self, path: Path) -> bytes:
        """What is in `path`; raises `ConfigurationError` where that is no file, or others can get at it."""
        try:
            # Without O_NONBLOCK, opening a pipe would wait for whoever writes to it.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                self._check_mode(path, os.fstat(descriptor).st_mode)
                return os.read(descriptor, _LARGEST)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise self.unusable(path, "there is no such file") from None
        except OSError as error:
            raise ConfigurationError(
                f"unable to read {self.word} {path}: {(error.strerror or 'input/output error').lower()}",
                self.unreadable,
            ) from None

    def write_new(self, path: Path, content: bytes) -> bool:
        """Write a new file, whole or not at all, 0600; says whether there was none yet.

        Folders that are missing are made, 0700. Raises `LarderError` where the disk fails.
        """
        make_private(path.absolute().parent)
        draft = path.with_name(f".{secrets.token_hex(8)}.key")
        try:
            try:
                with durable_file(draft) as sink:
                    sink.write(content)
                os.link(draft, path)
            finally:
                draft.unlink(missing_ok=True)
            fsync_folder(path.absolute().parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise disk_error(error, path) from error
        return True

    def unusable(self, path: Path, why: str) -> ConfigurationError:
        """What the operator should read about a file that is no such key."""
        return ConfigurationError(f"unable to use {self.word} {path}: {why}", self.make)

    def exists(self, path: Path) -> ConfigurationError:
        """What the operator should read where a new key would lie and something does already."""
        return ConfigurationError(f"unable to write {self.word} {path}: the file exists", self.taken)

    def _check_mode(self, path: Path, mode: int) -> None:
        if not stat.S_ISREG(mode):
            raise self.unusable(path, "it is no file")
        if mode & self.closed_to:
            raise ConfigurationError(
                f"unable to use {self.word} {path}: {self.others} can read or change it",
                f"chmod 600 {path}; if others may have read it, replace it: {self.make}",
            )
