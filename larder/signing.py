"""Signing: the Ed25519 key of a host, and what it vouches for.

A signature shows that nothing has changed since a key signed it. Whose key that is, and whether it is trusted, is
another question, which `larder.trust` answers.

Workers sign with nobody there to type a passphrase, so the file of a signing key has none: its mode protects it.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, ConfigDict

from larder.errors import ConfigurationError
from larder.fields import PublicKey, bytes_of
from larder.settings import Settings
from larder.spool import disk_error, make_private
from larder.streams import durable_file, fsync_folder

#: The signing key that a host makes for itself, in its state folder.
HOST_KEY: Final = "signer.key"

#: Bytes of an Ed25519 signature.
SIGNATURE_SIZE: Final = 64

#: Bytes that are read of a key's file at most. A key has about 120.
_LARGEST_KEY = 1 << 16

_NEW_KEY = "make one with: larder keys new signer NAME"


def _value(text: str) -> str:
    bytes_of(text, SIGNATURE_SIZE)
    return text


@dataclass(frozen=True)
class Signature:
    """Who signed, and with what: the raw public key and the signature, each in base64."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    key: PublicKey
    value: Annotated[str, AfterValidator(_value)]

    def fits(self, data: bytes) -> bool:
        """Whether this key signed exactly `data`."""
        try:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(self.key))
            key.verify(base64.b64decode(self.value), data)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """Signs with one private key, which nobody can ask it for."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @property
    def public_key(self) -> str:
        """The raw public key of 32 bytes, in base64."""
        return base64.b64encode(self._private.public_key().public_bytes_raw()).decode()

    def sign(self, data: bytes) -> Signature:
        """What vouches for `data`. The same data gets the same signature."""
        return Signature(self.public_key, base64.b64encode(self._private.sign(data)).decode())


def host_signer(settings: Settings) -> Signer:
    """This host's signer: the configured `signing_key`, or one of its own that is made on first need.

    Processes that share a state folder share the key. Raises what `load_signer` does.
    """
    if settings.signing_key is not None:
        return load_signer(settings.signing_key)
    path = settings.state_dir / HOST_KEY
    if not path.exists():
        # Where another process is faster, its key is as good as ours.
        _write_new(path)
    return load_signer(path)


def load_signer(path: Path) -> Signer:
    """The signer whose private key (PEM, PKCS #8) is in `path`.

    Raises `ConfigurationError` where there is none, or one that others can read, that has a passphrase, or that is not
    Ed25519. What the file holds is in no message.
    """
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except TypeError:
        raise _unusable(path, "it has a passphrase, and workers sign with nobody there to type it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _unusable(path, "it is no private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path, "it is a key of another kind than Ed25519")
    return Signer(key)


def create_signer(path: Path) -> Signer:
    """Make a new key, and write it to `path`, readable by its owner only.

    A file that exists is never overwritten: raises `ConfigurationError`, and `LarderError` where the disk fails.
    """
    if not _write_new(path):
        raise ConfigurationError(
            f"unable to write signing key {path}: the file exists",
            "name another file, or move this one away; what it signed stays good as long as its public key is known",
        )
    return load_signer(path)


def _write_new(path: Path) -> bool:
    """Write a new key to `path`, whole or not at all; says whether there was none yet."""
    make_private(path.absolute().parent)
    text = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    draft = path.with_name(f".{secrets.token_hex(8)}.key")
    try:
        try:
            with durable_file(draft) as sink:
                sink.write(text)
            os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        fsync_folder(path.absolute().parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise disk_error(error, path) from error
    return True


def _read(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe would wait for whoever writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_mode(path, os.fstat(descriptor).st_mode)
            return os.read(descriptor, _LARGEST_KEY)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise _unusable(path, "there is no such file") from None
    except OSError as error:
        raise ConfigurationError(
            f"unable to read signing key {path}: {(error.strerror or 'input/output error').lower()}",
            "see whether the user that workers run as may read it",
        ) from None


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise _unusable(path, "it is no file")
    if mode & stat.S_IRWXO:
        raise ConfigurationError(
            f"unable to use signing key {path}: everybody on this machine can read or change it",
            f"chmod 600 {path}; if others may have read it, replace it: {_NEW_KEY}",
        )


def _unusable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"unable to use signing key {path}: {why}", _NEW_KEY)
