"""`larder keys`: what it prints is pasted into larder.toml and works."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from console.cli import main
from larder.config import load
from larder.signing import host_signer, load_signer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def larder(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments])


def test_a_new_signer_is_written_and_its_lines_are_printed(folder: Path) -> None:
    done = larder("new", "signer", "web1")
    assert done.exit_code == 0
    path = folder / "web1.signer.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(path) in done.stderr
    (folder / "larder.toml").write_text(done.stdout + '[databases.shop]\nurl = "sqlite:///shop.db"\n')
    settings = load({})
    assert settings.signing_key == path
    assert settings.signer_keys == {"web1": load_signer(path).public_key}
    assert host_signer(settings).public_key == settings.signer_keys["web1"]
    assert path.read_text().splitlines()[1] not in done.output


def test_the_comments_say_which_host_the_lines_are_for() -> None:
    lines = larder("new", "signer", "web-2").stdout.splitlines()
    assert lines[0].startswith("# On the host that signs as web-2")
    assert lines[1].startswith("signing_key = ")


def test_a_file_of_ones_own_choice(folder: Path) -> None:
    done = larder("new", "signer", "web1", "--out", 'keys/odd "name".key', "--no-passphrase", "--json")
    assert done.exit_code == 0
    path = folder / "keys" / 'odd "name".key'
    assert json.loads(done.stdout) == {
        "name": "web1",
        "file": str(path),
        "public_key": load_signer(path).public_key,
    }


def test_an_odd_path_is_still_toml(folder: Path) -> None:
    done = larder("new", "signer", "web1", "--out", 'a\\b "c" ö.key')
    (folder / "larder.toml").write_text(done.stdout, encoding="utf-8")
    assert load({}).signing_key == folder / 'a\\b "c" ö.key'


def test_a_path_that_commands_a_terminal_is_spelled_out(folder: Path) -> None:
    odd = "a\x1b\x7f\x9b\u202e\U000e0001.key"
    done = larder("new", "signer", "web1", "--out", odd)
    assert all(character.isprintable() or character == "\n" for character in done.output)
    (folder / "larder.toml").write_text(done.stdout, encoding="utf-8")
    assert load({}).signing_key == folder / odd


def test_a_file_is_never_overwritten(folder: Path) -> None:
    larder("new", "signer", "web1")
    before = (folder / "web1.signer.key").read_bytes()
    again = larder("new", "signer", "web1")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "the file exists" in again.stderr.replace("\n", " ")
    assert "HINT: " in again.stderr
    assert (folder / "web1.signer.key").read_bytes() == before
    told = json.loads(larder("new", "signer", "web1", "--json").stdout)
    assert told["exit_code"] == 2


@pytest.mark.parametrize("name", ["", "a/b", "../x", "-x y", "größe", "a" * 64, "a.b"])
def test_a_name_that_is_none_writes_nothing(folder: Path, name: str) -> None:
    assert larder("new", "signer", "--", name).exit_code == 2
    assert list(folder.iterdir()) == []


def test_another_kind_of_key_is_refused(folder: Path) -> None:
    assert larder("new", "pigeon", "web1").exit_code == 2
    assert list(folder.iterdir()) == []
