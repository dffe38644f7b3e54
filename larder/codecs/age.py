"""age: what only the holders of a key can read (https://age-encryption.org/v1), by pyrage, which is rage.

pyrage streams between Python's file objects in pieces of 64 KiB, and holds the GIL while it works on one. Measured
with 500 MB on 2 shared cores: written at 480 MB/s and read at 340 MB/s, with 4 MB of memory either way, whatever
the size. That is more than what gzip hands on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyrage

from larder import secret
from larder.codecs import Cipher
from larder.errors import ConfigurationError, IntegrityError, RefusedError
from larder.pipes import Line, Pushed, WriteBehind

#: A private key, as pyrage has it. It prints as nothing but its type.
Identity = Any

#: Encoded bytes that decoding takes at a time, and plain ones that it hands on.
READ = 1 << 18

#: The longest header that decoding takes, in bytes: room for hundreds of recipients. rage reads a header in the square
#: of its length: a forged one of a megabyte took 26 seconds.
HEADER = 1 << 16

#: The longest identity file that is read, in bytes.
IDENTITY_FILE = 1 << 20

_START, _HEADER_END = b"age-encryption.org/v1\n", b"\n--- "

_NATIVE, _SECRET, _PLUGIN_SECRET = "age1", "AGE-SECRET-KEY-", "AGE-PLUGIN-"
_SSH = ("ssh-ed25519", "ssh-rsa")
_PEM = "-----BEGIN "
_PASSPHRASE = (_START.decode().rstrip(), "-----BEGIN AGE ENCRYPTED FILE-----")

#: What is shorter in a private key's file is too common to be masked.
_SHORTEST_SECRET = 16

#: Each piece of the stream is authenticated, the last one as the last: which of these it is can't be told.
_DAMAGED = "the stream is cut short or altered, or something follows the end of the stream"


class Age(Cipher):
    """One binary age file, which `age -d -i KEY` reads. Recipients are X25519, SSH Ed25519 and SSH RSA keys."""

    suffix = ".age"

    def __init__(self, recipients: Iterable[str] = (), identities: Iterable[Identity] = ()) -> None:
        """Encrypts to all `recipients`, and decrypts with whichever of `identities` fits.

        Raises `ConfigurationError` for a recipient that `check_recipient` finds fault with.
        """
        self._recipients = [_recipient(text) for text in recipients]
        self._identities = list(identities)

    @classmethod
    def read_back(cls, recipients: Iterable[str]) -> Age:
        """See the contract. So a host without any identity can prove what it wrote.

        The key is in this process's memory only and goes with the object: nobody can ever use its line in the header.
        """
        key = pyrage.x25519.Identity.generate()
        return cls([*recipients, str(key.to_public())], [key])

    @classmethod
    def check_recipient(cls, text: str) -> str | None:
        """See the contract."""
        return check_recipient(text)

    @classmethod
    def load_identities(cls, path: Path) -> tuple[Identity, ...]:
        """See the contract. The file is age's own kind, or an OpenSSH private key's."""
        return load_identities(path)

    def writer(self, sink: BinaryIO) -> BinaryIO:
        """A file to write plain bytes to. Another thread writes to `sink`.

        What the sink raises comes out of a later `write`, or of `close`.
        """
        if not self._recipients:
            raise ConfigurationError("unable to encode age: there is no recipient", "name some in encrypt_to")
        return cast(BinaryIO, WriteBehind(functools.partial(_encrypt, self._recipients, sink)))

    def reader(self, source: BinaryIO) -> BinaryIO:
        """A file to read plain bytes from, decoded by a thread ahead of the reading.

        Raises `RefusedError` where no identity fits, here or at the first read.
        """
        if not self._identities:
            raise RefusedError(
                "unable to decode age: this host has no identity",
                "name the file of one under identities in larder.toml",
            )
        return cast(BinaryIO, Pushed(functools.partial(_decrypt, self._identities, source)))


def check_recipient(text: str) -> str | None:
    """What is wrong with a recipient, as a clause that goes on from its path; None where it can be encrypted to.

    The clause holds nothing of `text`, which may be a secret in the wrong place; such a one is masked from now on.
    """
    kind = text.split(" ", 1)[0]
    problem = None
    if _SECRET in text.upper() or _PLUGIN_SECRET in text.upper() or _PEM in text:
        _register(text)
        problem = "is a private key (write the public one here: age-keygen -y prints it, ssh-keygen -y an SSH key's)"
    elif text != text.strip() or "\n" in text or not kind:
        problem = "has to be one line, without blanks around it"
    elif kind in _SSH:
        problem = _problem_with(pyrage.ssh.Recipient.from_str, text, f"is no whole {kind} key")
    elif kind.startswith(("ssh-", "ecdsa-", "sk-")):
        problem = f"is an SSH key that age can't encrypt to (it has to be one of: {', '.join(_SSH)})"
    elif kind.startswith(_NATIVE):
        problem = _problem_with(pyrage.x25519.Recipient.from_str, text, "is no whole age key, or a plugin's")
    else:
        problem = "is no recipient (write age1…, ssh-ed25519 … or ssh-rsa …)"
    return problem


def load_identities(path: Path) -> tuple[Identity, ...]:
    """The private keys in an age identity file, or in an OpenSSH private key's file, which are masked from now on.

    Raises `ConfigurationError` for what can't be read, or takes a passphrase, which nobody is there to type.
    """
    try:
        with path.open("rb") as source:
            text = source.read(IDENTITY_FILE).decode(errors="replace")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(
            f"unable to read identity file {path}: {reason}", "see identities in larder.toml"
        ) from None
    _register(text)
    if text.lstrip().startswith(_PASSPHRASE):
        raise _locked(path, "age -d")
    if text.lstrip().startswith(_PEM):
        return (_ssh_identity(path, text),)
    return _native_identities(path, text)


def _native_identities(path: Path, text: str) -> tuple[Identity, ...]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        written = line.strip()
        if not written or written.startswith("#"):
            continue
        try:
            found.append(pyrage.x25519.Identity.from_str(written))
        except pyrage.IdentityError:
            raise ConfigurationError(
                f"unable to read identity file {path}: line {number} is no age key",
                f"its lines are comments, and keys that begin with {_SECRET}1",
            ) from None
    if not found:
        raise ConfigurationError(
            f"unable to read identity file {path}: there is no key in it", "age-keygen makes one"
        )
    return tuple(found)


def _ssh_identity(path: Path, text: str) -> Identity:
    try:
        return pyrage.ssh.Identity.from_buffer(text.encode())
    except pyrage.IdentityError as error:
        reason = str(error).lower()
    if "decrypted first" in reason or "encrypted" in reason:
        raise _locked(path, "ssh-keygen -p")
    raise ConfigurationError(
        f"unable to read identity file {path}: it holds no SSH key that age can use",
        f"age can use private keys of these kinds: {', '.join(_SSH)}",
    )


def _locked(path: Path, tool: str) -> ConfigurationError:
    return ConfigurationError(
        f"unable to read identity file {path}: it is locked with a passphrase, which nobody is there to type",
        f"keep a copy without a passphrase ({tool}) where only Larder's user can read it, or decrypt by hand",
    )


def _register(text: str) -> None:
    """Have everything in a private key's file masked, apart from comments and what all such files have."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for word in " ".join(lines).split():
        if len(word) >= _SHORTEST_SECRET and not word.startswith(("-----", _NATIVE)):
            secret.register(word)


def _recipient(text: str) -> object:
    problem = check_recipient(text)
    if problem:
        raise ConfigurationError(f"unable to encrypt with age: the recipient {problem}")
    kind = pyrage.ssh if text.startswith(_SSH) else pyrage.x25519
    return kind.Recipient.from_str(text)


def _problem_with(parse: Callable[[str], object], text: str, problem: str) -> str | None:
    try:
        parse(text)
    except pyrage.RecipientError as error:
        return "is an RSA key of less than 2048 bits" if "TooSmall" in str(error) else problem
    return None


def _encrypt(recipients: list[object], sink: BinaryIO, line: Line) -> None:
    taken, given = _Source(iter(line.take, b"")), _Sink(sink.write)
    try:
        pyrage.encrypt_io(taken, given, recipients)
    except (pyrage.EncryptError, OSError) as error:
        raise given.error or error from None


def _decrypt(identities: list[Identity], source: BinaryIO, line: Line) -> None:
    held = bytearray()

    def hand_over(data: bytes) -> None:
        # pyrage gives 8 KiB at a time, each of which would wake the reader.
        held.extend(data)
        if len(held) >= READ:
            piece = bytes(held)
            held.clear()
            if not line.put(piece):
                raise _UnwantedError

    taken, given = _Source(_checked(source)), _Sink(hand_over)
    try:
        pyrage.decrypt_io(taken, given, identities)
    except (pyrage.DecryptError, OSError) as error:
        # What a file raised is known to pyrage as text only.
        if cause := taken.error or given.error:
            raise cause from None
        if "No matching keys" in str(error):
            raise RefusedError(
                "unable to decode age: none of the identities of this host fits",
                "add the file of one of the keys that it was encrypted to, under identities in larder.toml",
            ) from None
        raise IntegrityError(f"unable to decode age: {_DAMAGED}") from None
    if held:
        line.put(bytes(held))


def _checked(source: BinaryIO) -> Iterator[bytes]:
    """Everything in `source`, whose header is of the binary kind, and is no longer than a header has to be."""
    start = b""
    while start.find(_HEADER_END, 0, HEADER) < 0:
        if len(start) >= HEADER:
            raise IntegrityError("unable to decode age: the header has no end")
        data = source.read(READ)
        if not data:
            raise IntegrityError("unable to decode age: the stream is cut short")
        start += data
        if not start.startswith(_START[: len(start)]):
            raise IntegrityError("unable to decode age: this is no age stream")
    yield start
    while data := source.read(READ):
        yield data


class _UnwantedError(Exception):
    """Nobody reads on."""


class _Source:
    """Pieces as a file that pyrage reads, which remembers what they raised."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.error: BaseException | None = None
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        if not self._rest:
            try:
                self._rest = memoryview(next(self._pieces, b""))
            except BaseException as error:
                self.error = error
                raise
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)


class _Sink:
    """A function as a file that pyrage writes to, which remembers what it raised."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.error: BaseException | None = None
        self._write = write

    def write(self, data: bytes) -> int:
        try:
            self._write(data)
        except BaseException as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing is held back here."""


CODEC = Age
