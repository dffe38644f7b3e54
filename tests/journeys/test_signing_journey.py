"""Signed manifests: what a host signs, how it names the one before, and that no key is told to anybody."""

from __future__ import annotations

import json
import sqlite3
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from larder.manifest import Manifest, Previous
from larder.signing import load_signer
from tests.house import House

pytestmark = pytest.mark.usefixtures("no_process_left")

DATABASE = '[databases.shop]\nurl = "sqlite:///shop.db"\n'


@pytest.fixture
def house(tmp_path: Path) -> House:
    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.executescript("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);")
    connection.close()
    found = House(tmp_path)
    found.configure(DATABASE)
    return found


def back_up(house: House) -> tuple[dict[str, Any], Manifest, str]:
    """One backup: what was said about it, its manifest, and all that was printed."""
    done = house.larder("backup", "shop", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    path = house.backups / "shop" / f"{document['artifact']}.manifest.json"
    return document, Manifest.from_bytes(path.read_bytes()), done.stdout + done.stderr


def test_a_host_signs_with_a_key_of_its_own_and_names_the_one_before(house: House) -> None:
    first, before, printed = back_up(house)
    assert first["warnings"] == []
    path = house.backups / ".larder" / "signer.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert before.signature.key == load_signer(path).public_key
    assert before.previous is None

    _, after, printed_later = back_up(house)
    assert after.signature.key == before.signature.key
    assert after.previous == Previous(before.backup, before.digest)

    secret = path.read_text().splitlines()[1]
    assert secret not in printed + printed_later
    told = [file for file in house.folder.rglob("*") if file.is_file() and file != path]
    assert [file for file in told if secret.encode() in file.read_bytes()] == []


def test_a_configured_key_signs_without_a_warning_and_another_host_is_told(house: House) -> None:
    made = house.larder("keys", "new", "signer", "web1", "--out", "keys/web1.signer.key")
    assert made.returncode == 0, made.stderr
    lines = tomllib.loads(made.stdout)
    house.configure(made.stdout + DATABASE)
    document, manifest, _ = back_up(house)
    assert manifest.signature.key == lines["signers"]["web1"]["public_key"]
    assert document["warnings"] == []
    assert not (house.backups / ".larder" / "signer.key").exists()

    # Another host reads the same configuration, and has a key that nobody told it about.
    house.configure(made.stdout.replace("signing_key", "# signing_key") + DATABASE)
    document, manifest, _ = back_up(house)
    assert manifest.signature.key != lines["signers"]["web1"]["public_key"]
    (warning,) = document["warnings"]
    assert f'public_key = "{manifest.signature.key}"' in warning


@pytest.mark.parametrize(
    ("mode", "content", "what"),
    [(0o644, None, "everybody on this machine can read"), (0o600, "secret words", "it is no private key")],
)
def test_a_signing_key_that_cannot_be_used_fails_the_backup_with_a_hint(
    house: House, mode: int, content: str | None, what: str
) -> None:
    made = house.larder("keys", "new", "signer", "web1")
    path = house.folder / "web1.signer.key"
    if content is not None:
        path.write_text(content)
    path.chmod(mode)
    house.configure(made.stdout + DATABASE)
    done = house.larder("backup", "shop")
    assert done.returncode == 2
    assert what in done.stderr
    assert "HINT: " in done.stderr
    assert (content or path.read_text().splitlines()[1]) not in done.stdout + done.stderr
    assert list(house.backups.glob("shop/*")) == []
