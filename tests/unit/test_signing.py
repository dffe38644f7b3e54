"""Signing keys: made once, kept private, and refused where they are not what they should be."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from larder.config import Settings, load
from larder.errors import ConfigurationError, LarderError
from larder.signing import HOST_KEY, Signature, Signer, create_signer, host_signer, load_signer
from larder.trust import Trust

#: The first test vector of RFC 8032, section 7.1.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
EMPTY_SIGNED = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
    "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)


def pem(key: PrivateKeyTypes, passphrase: bytes | None = None) -> bytes:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({"LARDER_STATE_DIR": str(tmp_path / "state"), "BACKUP_DIR": str(tmp_path / "backups")})


def test_signs_as_the_standard_says() -> None:
    signer = Signer(Ed25519PrivateKey.from_private_bytes(SEED))
    assert base64.b64decode(signer.public_key) == PUBLIC
    signature = signer.sign(b"")
    assert base64.b64decode(signature.value) == EMPTY_SIGNED
    assert signature == signer.sign(b"")
    assert signature.fits(b"")
    assert not signature.fits(b"x")


@pytest.mark.parametrize(
    "signature",
    [
        Signature("", ""),
        Signature("AAAA", "AAAA"),
        Signature("no base64", "ö"),
        Signature(base64.b64encode(b"\xff" * 32).decode(), base64.b64encode(b"\xff" * 64).decode()),
    ],
)
def test_what_is_no_signature_fits_nothing(signature: Signature) -> None:
    assert not signature.fits(b"")


def test_a_new_key_is_kept_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "deep" / "web1.signer.key"
    made = create_signer(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_signer(path).public_key == made.public_key
    assert list(path.parent.iterdir()) == [path], "nothing is left beside it"
    assert made.public_key not in (repr(made), path.read_text())


def test_openssl_reads_the_key(tmp_path: Path) -> None:
    path = tmp_path / "web1.signer.key"
    made = create_signer(path)
    der = subprocess.run(
        ["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"], check=True, capture_output=True
    ).stdout
    assert base64.b64encode(der[-32:]).decode() == made.public_key


def test_a_key_of_openssl_is_read(tmp_path: Path) -> None:
    path = tmp_path / "web1.signer.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    path.chmod(0o600)
    assert load_signer(path).sign(b"x").fits(b"x")


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "web1.signer.key"
    path.write_text("something else")
    with pytest.raises(
        ConfigurationError, match=f"unable to write signing key {path}: the file exists"
    ) as caught:
        create_signer(path)
    assert caught.value.hint
    assert path.read_text() == "something else"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LarderError, match="unable to use"):
        create_signer(tmp_path / "file" / "web1.signer.key")


def test_no_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file") as caught:
        load_signer(tmp_path / "absent.key")
    assert "larder keys new signer" in caught.value.hint


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601, 0o777])
def test_a_key_that_everybody_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "web1.signer.key"
    create_signer(path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="everybody on this machine") as caught:
        load_signer(path)
    assert f"chmod 600 {path}" in caught.value.hint


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_a_key_that_its_group_can_read_is_fine(tmp_path: Path, mode: int) -> None:
    """As Kubernetes mounts a secret for a worker that is not root."""
    path = tmp_path / "web1.signer.key"
    create_signer(path)
    path.chmod(mode)
    load_signer(path)


CONTENT = Ed25519PrivateKey.from_private_bytes(SEED)
OLD = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is no private key in PEM"),
        (b"secret-words", "it is no private key in PEM"),
        (SEED, "it is no private key in PEM"),
        (pem(CONTENT)[:-40], "it is no private key in PEM"),
        (pem(CONTENT).replace(b"MC4CAQ", b"MC4CAg"), "it is no private key in PEM"),
        (pem(CONTENT, b"passphrase"), "it has a passphrase"),
        (pem(ed448.Ed448PrivateKey.generate()), "of another kind than Ed25519"),
        (OLD, "of another kind than Ed25519"),
    ],
)
def test_what_is_no_key_is_refused_and_not_quoted(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "web1.signer.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=what) as caught:
        load_signer(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    seen: BaseException | None = caught.value
    while seen is not None:
        told = f"{seen!s} {seen!r} {seen.args!r}"
        for line in content.decode(errors="replace").splitlines():
            assert line not in told
        seen = seen.__cause__ or seen.__context__


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "web1.signer.key"
    make(path)
    with pytest.raises(ConfigurationError, match="it is no file"):
        load_signer(path)


# The key of a host


def test_a_host_makes_its_key_on_first_need(settings: Settings) -> None:
    first = host_signer(settings)
    path = settings.state_dir / HOST_KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.state_dir.stat().st_mode) == 0o700
    assert host_signer(settings).public_key == first.public_key == load_signer(path).public_key


def test_a_configured_key_is_used_and_never_made(settings: Settings, tmp_path: Path) -> None:
    configured = replace(settings, signing_key=tmp_path / "web1.signer.key")
    with pytest.raises(ConfigurationError, match="there is no such file"):
        host_signer(configured)
    made = create_signer(tmp_path / "web1.signer.key")
    assert host_signer(configured).public_key == made.public_key
    assert not settings.state_dir.exists()


def test_a_damaged_key_is_told_and_not_replaced(settings: Settings) -> None:
    host_signer(settings)
    path = settings.state_dir / HOST_KEY
    path.write_bytes(b"")
    with pytest.raises(ConfigurationError, match="it is no private key in PEM"):
        host_signer(settings)
    assert path.read_bytes() == b""


def test_processes_that_begin_together_get_one_key(settings: Settings) -> None:
    program = (
        "import sys\n"
        "from larder.config import load\n"
        "from larder.signing import host_signer\n"
        "settings = load({'LARDER_STATE_DIR': sys.argv[1]})\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(host_signer(settings).public_key)\n"
    )
    many = [
        subprocess.Popen(
            [sys.executable, "-c", program, settings.state_dir],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for one in many:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    # Only now, and to all of them, so that they race.
    for one in many:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    keys = {one.communicate(timeout=60)[0] for one in many}
    assert [one.returncode for one in many] == [0] * 4
    assert keys == {f"{host_signer(settings).public_key}\n"}
    assert [path.name for path in settings.state_dir.iterdir()] == [HOST_KEY]


# Trust

A, B, C = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2, 3))


def test_without_any_key_nothing_can_be_said() -> None:
    assert Trust().problem(A) is None
    assert Trust({}, []).problem(A) is None


def test_a_configured_signer_is_trusted_and_nobody_else() -> None:
    trust = Trust({"web1": A, "web2": B}, known=[C])
    assert trust.problem(A) is None
    assert trust.problem(B) is None
    problem = trust.problem(C)
    assert problem == f"it is signed by the unknown key {C[:8]}…{C[-4:]} (configured are: web1, web2)"


def test_without_configured_signers_those_that_were_met_are_trusted() -> None:
    trust = Trust(known={A: "host-1"})
    assert trust.problem(A) is None
    problem = trust.problem(B) or ""
    assert problem.startswith(
        f"it is signed by the unknown key {B[:8]}…{B[-4:]} (no host of this ledger signs with it; "
    )
    assert "larder catalog rebuild" in problem
