"""age's keys: which are taken, what is said of the others, and that a private one is never printed."""

from __future__ import annotations

import io
import re
import subprocess
from contextlib import closing
from pathlib import Path

import pyrage
import pytest

from larder import secret
from larder.codecs.age import HEADER, Age, check_recipient, load_identities
from larder.errors import ConfigurationError, IntegrityError, RefusedError

KEY = pyrage.x25519.Identity.generate()
RECIPIENT = str(KEY.to_public())
PLUGIN = "age1yubikey1qg8ydq5mlrkkd5zadkeh0nr2uzvhz95cgkx9rqsd8yug56tujr0zq7sxtlp"


@pytest.fixture(autouse=True)
def nothing_is_masked_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "_known", set())
    monkeypatch.setattr(secret, "_ordered", ())


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SSH keys of every kind, by what they are."""
    folder = tmp_path_factory.mktemp("ssh")
    kinds = {
        "ed25519": ["-t", "ed25519", "-N", ""],
        "rsa": ["-t", "rsa", "-b", "2048", "-N", ""],
        "pem": ["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""],
        "short": ["-t", "rsa", "-b", "1024", "-N", ""],
        "ecdsa": ["-t", "ecdsa", "-N", ""],
        "locked": ["-t", "ed25519", "-N", "a passphrase"],
        "locked pem": ["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "a passphrase"],
    }
    for name, options in kinds.items():
        subprocess.run(["ssh-keygen", "-q", *options, "-f", folder / name], check=True)
    return {name: folder / name for name in kinds}


def public(path: Path) -> str:
    return Path(f"{path}.pub").read_text().strip()


def encrypted(*recipients: str) -> bytes:
    sink = io.BytesIO()
    with closing(Age(recipients).writer(sink)) as writer:
        writer.write(b"content")
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "pem"])
def test_ssh_keys_work(ssh: dict[str, Path], kind: str) -> None:
    assert check_recipient(public(ssh[kind])) is None
    data = encrypted(RECIPIENT, public(ssh[kind]))
    with closing(Age(identities=load_identities(ssh[kind])).reader(io.BytesIO(data))) as reader:
        assert reader.read() == b"content"
    with closing(Age(identities=[KEY]).reader(io.BytesIO(data))) as reader:
        assert reader.read() == b"content"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has to be one line"),
        (f" {RECIPIENT}", "has to be one line, without blanks around it"),
        (f"{RECIPIENT}\n{RECIPIENT}", "has to be one line"),
        ("age1", "is no whole age key"),
        (RECIPIENT[:-1], "is no whole age key"),
        (f"{RECIPIENT[:10]}b{RECIPIENT[11:]}", "is no whole age key"),
        (PLUGIN, "is no whole age key, or a plugin's"),
        ("ssh-ed25519", "is no whole ssh-ed25519 key"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ", "is no whole ssh-ed25519 key"),
        ("ssh-rsa AAAA me@here", "is no whole ssh-rsa key"),
        ("ssh-dss AAAA", "is an SSH key that age can't encrypt to"),
        ("ecdsa-sha2-nistp256 AAAA", "is an SSH key that age can't encrypt to"),
        ("sk-ssh-ed25519@openssh.com AAAA", "it has to be one of: ssh-ed25519, ssh-rsa"),
        ("me@example.com", "is no recipient (write age1…, ssh-ed25519 … or ssh-rsa …)"),
        ("github:somebody", "is no recipient"),
    ],
    # The keys are new each time, and processes that share the tests have to call them the same.
    ids=[str(number) for number in range(15)],
)
def test_what_is_no_recipient_is_told_without_repeating_it(text: str, problem: str) -> None:
    found = check_recipient(text)
    assert found is not None
    assert problem in found
    assert len(text) < 12 or text not in found
    with pytest.raises(ConfigurationError, match="unable to encrypt with age: the recipient "):
        Age([text])


def test_short_and_strange_ssh_keys_are_refused(ssh: dict[str, Path]) -> None:
    assert check_recipient(public(ssh["short"])) == "is an RSA key of less than 2048 bits"
    assert "can't encrypt to" in (check_recipient(public(ssh["ecdsa"])) or "")


def test_a_private_key_in_the_wrong_place_is_masked(ssh: dict[str, Path]) -> None:
    for text in (str(KEY), str(KEY).lower(), ssh["ed25519"].read_text()):
        assert (check_recipient(text) or "").startswith("is a private key")
        longest = max(text.split(), key=len)
        assert longest not in secret.redact(f"oh: {longest}")
    assert secret.redact(f"to {RECIPIENT}") == f"to {RECIPIENT}"


def test_an_identity_file_has_comments_and_keys(tmp_path: Path) -> None:
    other = pyrage.x25519.Identity.generate()
    path = tmp_path / "keys.txt"
    path.write_text(f"# created: 2026-01-02T03:04:05Z\n# public key: {RECIPIENT}\n{KEY}\n\r\n  {other}\r\n")
    found = load_identities(path)
    assert [str(key.to_public()) for key in found] == [RECIPIENT, str(other.to_public())]
    for key in (KEY, other):
        assert secret.redact(f"key {key}!") == "key ****!"
        assert str(key) not in repr(found)
    shown = f"{RECIPIENT} 2026-01-02T03:04:05Z"
    assert secret.redact(shown) == shown


def test_an_ssh_key_is_masked_once_it_was_read(ssh: dict[str, Path]) -> None:
    load_identities(ssh["ed25519"])
    lines = [line for line in ssh["ed25519"].read_text().splitlines() if not line.startswith("-----")]
    text = secret.redact(f"oh: {' '.join(lines)}")
    assert all(line not in text for line in lines if len(line) >= 16)
    assert secret.redact("-----BEGIN OPENSSH PRIVATE KEY-----") == "-----BEGIN OPENSSH PRIVATE KEY-----"


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "there is no key in it"),
    "comments": (b"# a comment\n\n", "there is no key in it"),
    "a public key": (f"# x\n{RECIPIENT}\n".encode(), "line 2 is no age key"),
    "cut": (str(KEY)[:-3].encode(), "line 1 is no age key"),
    "plugin": (
        b"AGE-PLUGIN-YUBIKEY-1QYPQXPQ9QCRSSZG2PVXQ6RS0ZQG3YYC5Z5TPWXQERGD3C8\n",
        "line 1 is no age key",
    ),
    "noise": (bytes(range(256)) * 100, "is no age key"),
    "passphrase": (pyrage.passphrase.encrypt(str(KEY).encode(), "a passphrase"), "locked with a passphrase"),
    "armored": (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n", "locked with a passphrase"),
    "cut SSH": (
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n",
        "it holds no SSH key",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_identity_file_is_told_without_repeating_it(tmp_path: Path, name: str) -> None:
    content, problem = BAD[name]
    path = tmp_path / "identity"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=re.escape(problem)) as caught:
        load_identities(path)
    assert str(path) in caught.value.message
    assert str(KEY)[:-3] not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("locked", "locked with a passphrase"),
        ("locked pem", "locked with a passphrase"),
        ("ecdsa", "it holds no SSH key that age can use"),
    ],
)
def test_what_is_no_use_among_ssh_keys(ssh: dict[str, Path], kind: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        load_identities(ssh[kind])


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        load_identities(tmp_path / "absent")
    with pytest.raises(ConfigurationError, match="is a directory"):
        load_identities(tmp_path)


def test_nobody_can_read_without_the_right_key() -> None:
    data = encrypted(RECIPIENT)
    with pytest.raises(RefusedError, match="this host has no identity") as caught:
        Age([RECIPIENT]).reader(io.BytesIO(data))
    assert "identities" in caught.value.hint
    with pytest.raises(RefusedError, match="none of the identities of this host fits"):
        Age(identities=[pyrage.x25519.Identity.generate()]).reader(io.BytesIO(data)).read()
    with pytest.raises(ConfigurationError, match="there is no recipient"):
        Age().writer(io.BytesIO())


def test_armor_is_no_age_stream_of_ours() -> None:
    """Blanks may follow its end, which we could not tell."""
    armored = pyrage.encrypt(b"content", [KEY.to_public()], armored=True)
    with pytest.raises(IntegrityError, match="this is no age stream"):
        Age(identities=[KEY]).reader(io.BytesIO(armored)).read()


class Endless(io.RawIOBase):
    """A header that goes on and on."""

    def __init__(self) -> None:
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        data = b"-> X25519 AAAA\nAAAA\n" * (size // 20) if self.given else b"age-encryption.org/v1\n"
        self.given += len(data)
        return data


def test_a_header_without_an_end_is_not_read_for_ever() -> None:
    source = Endless()
    with pytest.raises(IntegrityError, match="the header has no end"):
        Age(identities=[KEY]).reader(source).read(1)  # type: ignore[arg-type]
    assert source.given < 10 * HEADER


def test_no_age_prints_a_key() -> None:
    made = Age.read_back([RECIPIENT])
    assert "AGE-SECRET-KEY" not in f"{made!r} {vars(made)}"
