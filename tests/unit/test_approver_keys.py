"""Approvers' keys: OpenSSH's own files, opened by their owner and nobody else."""

from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from larder import approver_keys, secret
from larder.approver_keys import create, fingerprint_of, load, public_key_of
from larder.errors import ConfigurationError, LarderError
from larder.signing import create_signer

PASSPHRASE = "correct horse ß battery"


def nobody() -> NoReturn:
    raise AssertionError("nobody is to be asked")


def ssh_keygen(*arguments: str | Path) -> str:
    done = subprocess.run(["ssh-keygen", *arguments], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def raw(public_line: str) -> str:
    """The raw key in a line of a `.pub` file."""
    return base64.b64encode(base64.b64decode(public_line.split()[1])[-32:]).decode()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a passphrase, which takes a while to make."""
    path = tmp_path_factory.mktemp("keys") / "alice.approver.key"
    create(path, PASSPHRASE)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alice.approver.key"


def test_a_new_key_is_kept_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "deep" / "alice.approver.key"
    public_key = create(path, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path], "nothing is left beside it"
    opened = load(path, nobody)
    assert opened.public_key == public_key == public_key_of(path)
    assert repr(opened) == "ApproverKey()"


def test_a_passphrase_opens_it_and_is_asked_for_once(locked: Path) -> None:
    asked = []

    def ask() -> str:
        asked.append(1)
        return PASSPHRASE

    assert load(locked, ask).public_key == public_key_of(locked)
    assert asked == [1]


def test_ssh_keygen_reads_it_and_changes_its_passphrase(locked: Path, path: Path) -> None:
    path.write_bytes(locked.read_bytes())
    path.chmod(0o600)
    assert raw(ssh_keygen("-y", "-P", PASSPHRASE, "-f", path)) == public_key_of(path)
    assert ssh_keygen("-l", "-f", path).split()[1] == fingerprint_of(public_key_of(path))
    ssh_keygen("-p", "-P", PASSPHRASE, "-N", "something else", "-f", path)
    assert load(path, lambda: "something else").public_key == public_key_of(locked)
    with pytest.raises(ConfigurationError, match="the passphrase is wrong"):
        load(path, lambda: PASSPHRASE)


def test_the_page_about_approvals_shows_a_key_and_its_fingerprint() -> None:
    page = (Path(__file__).parents[2] / "docs" / "approval.md").read_text(encoding="utf-8")
    found = re.search(r'# (SHA256:\S+)\n\[approvers.alice\]\npublic_key = "(\S+)"', page)
    assert found is not None
    assert fingerprint_of(found[2]) == found[1]


def test_more_rounds_than_by_default(locked: Path) -> None:
    packed = base64.b64decode("".join(locked.read_text().splitlines()[1:-1]))
    salt_and_rounds = packed[packed.index(b"bcrypt") + len("bcrypt") + 4 :][: 4 + 16 + 4]
    assert salt_and_rounds[:4] == b"\0\0\0\x10"
    assert int.from_bytes(salt_and_rounds[-4:], "big") == approver_keys.ROUNDS > 16


@pytest.mark.parametrize("cipher", ["aes256-ctr", "aes256-gcm@openssh.com"])
def test_a_key_that_somebody_has_for_ssh_works(path: Path, cipher: str) -> None:
    ssh_keygen("-q", "-t", "ed25519", "-a", "4", "-Z", cipher, "-N", "for ssh", "-C", "me@home", "-f", path)
    assert load(path, lambda: "for ssh").public_key == raw(path.with_name(path.name + ".pub").read_text())
    with pytest.raises(ConfigurationError, match="the passphrase is wrong"):
        load(path, lambda: "not this")


def test_a_file_is_never_overwritten(path: Path) -> None:
    path.write_text("something else")
    for attempt in (lambda: create(path, None), lambda: approver_keys.see_that_it_is_free(path)):
        with pytest.raises(ConfigurationError, match=f"approver's key {path}: the file exists") as caught:
            attempt()
        assert caught.value.hint
    assert path.read_text() == "something else"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("passphrase", "what"),
    [("", "fewer than 8"), ("1234567", "fewer than 8"), ("12345678\udcff", "cannot be seen")],
)
def test_a_passphrase_that_protects_nothing_is_refused(path: Path, passphrase: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as caught:
        create(path, passphrase)
    assert not passphrase or passphrase not in str(caught.value)
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LarderError, match="unable to use"):
        create(tmp_path / "file" / "alice.approver.key", None)


@pytest.mark.parametrize("wrong", ["not this one", "", "\udcff\ud800", PASSPHRASE + " "])
def test_a_wrong_passphrase_is_told_and_in_no_message(locked: Path, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="the passphrase is wrong") as caught:
        load(locked, lambda: wrong)
    assert "ssh-keygen" in caught.value.hint
    seen: BaseException | None = caught.value
    told = ""
    while seen is not None:
        frames = traceback.TracebackException.from_exception(seen, capture_locals=True).stack
        # Our own frames; the test's hold it, of course.
        told += f"{seen!s} {seen!r} {[frame.locals for frame in frames if 'larder/' in frame.filename]}"
        seen = seen.__cause__ or seen.__context__
    assert "passphrase" in told
    assert not wrong or repr(wrong)[1:-1] not in told


def test_a_passphrase_is_not_kept(locked: Path) -> None:
    load(locked, lambda: PASSPHRASE)
    assert secret.redact(f"the word {PASSPHRASE}") == f"the word {PASSPHRASE}"


@pytest.mark.parametrize("mode", [0o640, 0o660, 0o604, 0o644, 0o602, 0o610, 0o777])
def test_a_key_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    create(path, None)
    path.chmod(mode)
    for read in (lambda: load(path, nobody), lambda: public_key_of(path)):
        with pytest.raises(ConfigurationError, match="others than its owner can read or change it") as caught:
            read()
        assert f"chmod 600 {path}" in caught.value.hint


def test_a_key_that_only_its_owner_can_read_is_fine(path: Path) -> None:
    create(path, None)
    path.chmod(0o400)
    load(path, nobody)


def test_no_key_is_told(path: Path) -> None:
    for read in (
        lambda: load(path, nobody),
        lambda: public_key_of(path),
        lambda: approver_keys.is_openssh(path),
    ):
        with pytest.raises(ConfigurationError, match="there is no such file") as caught:
            read()
        assert "larder keys new" in caught.value.hint


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_at_once(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    with pytest.raises(ConfigurationError, match="it is no file"):
        load(path, nobody)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_key_of_another_kind_is_refused_before_anybody_is_asked(path: Path, kind: str) -> None:
    ssh_keygen("-q", "-t", kind, "-a", "1", "-N", "for ssh", "-f", path)
    with pytest.raises(ConfigurationError, match="of another kind than Ed25519"):
        load(path, nobody)
    assert approver_keys.is_openssh(path)


def test_a_signing_key_is_refused(path: Path) -> None:
    create_signer(path)
    with pytest.raises(ConfigurationError, match="it is no private key in OpenSSH's format"):
        load(path, nobody)
    assert not approver_keys.is_openssh(path)


def test_a_public_key_that_is_not_the_private_ones_is_refused(path: Path) -> None:
    """Somebody who can write to the file could have another key's lines printed for larder.toml."""
    create(path, None)
    packed = base64.b64decode("".join(path.read_text().splitlines()[1:-1]))
    raw_key = base64.b64decode(public_key_of(path))
    mine = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    for many in (1, 2, 3):
        changed = base64.encodebytes(packed.replace(raw_key, mine, many)).decode()
        path.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{changed}-----END OPENSSH PRIVATE KEY-----\n")
        with pytest.raises(ConfigurationError, match="it is damaged"):
            load(path, nobody)


_WHOLE = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
)


@given(st.one_of(st.binary(max_size=300), st.tuples(st.integers(0, len(_WHOLE)), st.binary(max_size=4))))
def test_what_is_no_key_is_refused_and_not_quoted(
    tmp_path_factory: pytest.TempPathFactory, damage: bytes | tuple[int, bytes]
) -> None:
    if isinstance(damage, bytes):
        content = damage
    else:
        at, other = damage
        content = _WHOLE[:at] + other + _WHOLE[at + len(other) + 1 :]
    path = tmp_path_factory.getbasetemp() / "damaged.key"
    path.write_bytes(content)
    path.chmod(0o600)
    try:
        opened = load(path, lambda: "whatever")
    except ConfigurationError as error:
        told = str(error)
        lines = [line for line in content.decode(errors="replace").splitlines() if len(line) > 12]
        assert not any(line in told for line in lines)
    else:
        # Damage to the check numbers or the armour's blanks may leave the key what it was.
        assert opened.private.private_bytes_raw() == bytes(range(32))
