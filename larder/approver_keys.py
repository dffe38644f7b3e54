"""The Ed25519 key of somebody who may approve restores, in a file of OpenSSH's own format.

Its owner keeps it behind a passphrase, and workers know the public half only. `ssh-keygen` can read it (`-y`, `-l`) and
change its passphrase (`-p`), and an Ed25519 key that somebody has for SSH works as well. What a key signs for SSH can
never be an approval, nor the other way round: an approval begins with `eyJ`, and nothing that SSH signs does.

A passphrase is not registered with `larder.secret`: that would keep it for as long as the process lives, and an
everyday word would be masked in what the approver has to read. It stays out of every message instead.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from larder.errors import ConfigurationError
from larder.fields import bytes_of
from larder.key_files import KeyFiles

#: How often bcrypt is gone through for one guess at a passphrase: half a second of one core (measured: 11 ms a round).
ROUNDS: Final = 48

#: Characters that a passphrase has to have.
SHORTEST_PASSPHRASE: Final = 8

#: Bytes of a raw Ed25519 public key.
_KEY_SIZE: Final = 32

_KIND: Final = b"ssh-ed25519"
_MAGIC: Final = b"openssh-key-v1\0"
_ARMOUR: Final = re.compile(
    rb"\s*-----BEGIN OPENSSH PRIVATE KEY-----\s(?P<body>.*?)\s-----END OPENSSH PRIVATE KEY-----", re.DOTALL
)

_FILES: Final = KeyFiles(
    word="approver's key",
    closed_to=stat.S_IRWXG | stat.S_IRWXO,
    others="others than its owner",
    make="make one with: larder keys new approver NAME",
    unreadable="see whether you may read it",
    taken="name another file, or move this one away; whoever has it can approve as long as it is configured",
)

#: What may be a signing key, whose group may read it.
_ANY: Final = replace(
    _FILES, word="key", closed_to=0, make="make one with: larder keys new signer|approver NAME"
)


@dataclass(frozen=True)
class ApproverKey:
    """A key that was opened, ready to sign."""

    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public_key(self) -> str:
        """The raw public key of 32 bytes, in base64."""
        return base64.b64encode(self.private.public_key().public_bytes_raw()).decode()

    @property
    def fingerprint(self) -> str:
        """What tells this key from others, as `fingerprint_of` has it."""
        return fingerprint_of(self.public_key)


def create(path: Path, passphrase: str | None) -> str:
    """Make a new key and write it to `path`, 0600, behind `passphrase`; gives its public key, 32 raw bytes in base64.

    None leaves the file without a passphrase. A file that exists is never overwritten. Raises `ConfigurationError` for
    that and for a passphrase that is too short, and `LarderError` where the disk fails.
    """
    private = Ed25519PrivateKey.generate()
    content = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, _protection(passphrase)
    )
    if not _FILES.write_new(path, content):
        raise _FILES.exists(path)
    return ApproverKey(private).public_key


def see_that_it_is_free(path: Path) -> None:
    """Raise `ConfigurationError` where something lies at `path`, before anybody is asked for a passphrase."""
    if path.exists() or path.is_symlink():
        raise _FILES.exists(path)


def load(path: Path, ask: Callable[[], str]) -> ApproverKey:
    """The key in `path`; `ask` is called for its passphrase where it has one, once.

    Raises `ConfigurationError` where there is no key, or one that others can read, or of another kind, or where the
    passphrase is wrong; and what `ask` raises.
    """
    content = _FILES.read(path)
    cipher, public = _clear_part(path, content)
    locked = cipher != b"none"
    # The passphrase is in no frame that an error passes through: whoever prints local variables has nothing to print.
    private = _opened(content, ask().encode(errors="replace") if locked else None)
    if private is None and locked:
        raise ConfigurationError(
            f"unable to open approver's key {path}: the passphrase is wrong",
            f"try again; ssh-keygen -y -f {path} shows whether you have the right one",
        )
    if private is None or private.public_key().public_bytes_raw() != public:
        raise _FILES.unusable(path, "it is damaged")
    return ApproverKey(private)


def public_key_of(path: Path) -> str:
    """The public key in `path`, 32 raw bytes in base64, for which no passphrase is needed.

    Raises `ConfigurationError` where there is no key, or one that others can read, or of another kind.
    """
    _, public = _clear_part(path, _FILES.read(path))
    return base64.b64encode(public).decode()


def is_openssh(path: Path) -> bool:
    """Whether `path` is a private key in OpenSSH's format, of whatever kind and mode.

    Raises `ConfigurationError` where it cannot be read.
    """
    return _ARMOUR.match(_ANY.read(path)) is not None


def fingerprint_of(public_key: str) -> str:
    """`SHA256:…` of a raw public key in base64, as `ssh-keygen -l` shows it."""
    packed = b"".join(
        len(part).to_bytes(4, "big") + part for part in (_KIND, bytes_of(public_key, _KEY_SIZE))
    )
    return "SHA256:" + base64.b64encode(hashlib.sha256(packed).digest()).decode().rstrip("=")


def opened_public_key(public_key: str) -> Ed25519PublicKey:
    """A raw public key in base64, ready to check signatures with."""
    return Ed25519PublicKey.from_public_bytes(bytes_of(public_key, _KEY_SIZE))


def _protection(passphrase: str | None) -> serialization.KeySerializationEncryption:
    if passphrase is None:
        return serialization.NoEncryption()
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise ConfigurationError(
            f"unable to make a key: the passphrase has fewer than {SHORTEST_PASSPHRASE} characters",
            "several words are easy to remember, and hard to guess",
        )
    if not passphrase.isprintable():
        raise ConfigurationError(
            "unable to make a key: the passphrase has characters that cannot be seen",
            "use letters, digits, signs and blanks",
        )
    builder = serialization.PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(ROUNDS)
    return builder.build(passphrase.encode())


def _opened(content: bytes, passphrase: bytes | None) -> Ed25519PrivateKey | None:
    """The private key in `content`; None where the passphrase does not open it."""
    try:
        private = serialization.load_ssh_private_key(content, passphrase)
    except (ValueError, TypeError, InvalidTag, UnsupportedAlgorithm):
        return None
    return private if isinstance(private, Ed25519PrivateKey) else None


def _clear_part(path: Path, content: bytes) -> tuple[bytes, bytes]:
    """The name of the cipher, and the raw public key, which OpenSSH's format has in clear (PROTOCOL.key)."""
    armour = _ARMOUR.match(content)
    if armour is None:
        raise _FILES.unusable(path, "it is no private key in OpenSSH's format")
    try:
        packed = binascii.a2b_base64(armour["body"])
        if not packed.startswith(_MAGIC):
            raise ValueError
        cipher, rest = _text(packed[len(_MAGIC) :])
        _kdf, rest = _text(rest)
        _options, rest = _text(rest)
        keys, rest = int.from_bytes(rest[:4], "big"), rest[4:]
        public, _secret = _text(rest)
        kind, rest = _text(public)
    except ValueError:
        raise _FILES.unusable(path, "it is damaged") from None
    if keys != 1 or kind != _KIND:
        raise _FILES.unusable(path, "it is a key of another kind than Ed25519")
    return cipher, _raw(path, rest)


def _raw(path: Path, packed: bytes) -> bytes:
    try:
        raw, rest = _text(packed)
    except ValueError:
        raw, rest = b"", b""
    if len(raw) != _KEY_SIZE or rest:
        raise _FILES.unusable(path, "it is damaged")
    return raw


def _text(packed: bytes) -> tuple[bytes, bytes]:
    """The first text of what SSH packed (RFC 4251, section 5: its length in four bytes, then itself), and the rest."""
    size = int.from_bytes(packed[:4], "big")
    if len(packed) < 4 + size:
        raise ValueError
    return packed[4 : 4 + size], packed[4 + size :]
