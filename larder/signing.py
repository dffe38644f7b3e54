"""Signing: the Ed25519 key of a host, and what it vouches for.

A signature shows that nothing has changed since a key signed it. Whose key that is, and whether it is trusted, is
another question, which `larder.trust` answers.

Workers sign with nobody there to type a passphrase, so the file of a signing key has none: its mode protects it.
"""

from __future__ import annotations

import base64
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, ConfigDict

from larder.fields import PublicKey, bytes_of
from larder.key_files import KeyFiles
from larder.settings import Settings

#: The signing key that a host makes for itself, in its state folder.
HOST_KEY: Final = "signer.key"

#: Bytes of an Ed25519 signature.
SIGNATURE_SIZE: Final = 64

#: Its group may read a file: so does Kubernetes mount a secret for a worker that is not root.
_FILES: Final = KeyFiles(
    word="signing key",
    closed_to=stat.S_IRWXO,
    others="everybody on this machine",
    make="make one with: larder keys new signer NAME",
    unreadable="see whether the user that workers run as may read it",
    taken="name another file, or move this one away; what it signed stays good as long as its public key is known",
)


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
        key = serialization.load_pem_private_key(_FILES.read(path), None)
    except TypeError:
        raise _FILES.unusable(
            path, "it has a passphrase, and workers sign with nobody there to type it"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _FILES.unusable(path, "it is no private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _FILES.unusable(path, "it is a key of another kind than Ed25519")
    return Signer(key)


def create_signer(path: Path) -> Signer:
    """Make a new key, and write it to `path`, readable by its owner only.

    A file that exists is never overwritten: raises `ConfigurationError`, and `LarderError` where the disk fails.
    """
    if not _write_new(path):
        raise _FILES.exists(path)
    return load_signer(path)


def _write_new(path: Path) -> bool:
    """Write a new key to `path`; says whether there was none yet."""
    text = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return _FILES.write_new(path, text)
