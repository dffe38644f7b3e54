"""`larder keys`: what it prints is pasted into larder.toml and works."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from console.cli import main
from larder.approver_keys import create, fingerprint_of, public_key_of
from larder.approver_keys import load as load_approver
from larder.config import load
from larder.signing import host_signer, load_signer
from tests import terminals


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


# Approvers


def test_a_new_approver_types_a_passphrase_twice_and_gets_lines_for_workers(folder: Path) -> None:
    done = terminals.run(
        ["keys", "new", "approver", "alice"],
        folder,
        [("Passphrase for the new key: ", "correct horse ß"), ("once more: ", "correct horse ß")],
    )
    assert done.code == 0, done.stderr
    path = folder / "alice.approver.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_approver(path, lambda: "correct horse ß").public_key == public_key_of(path)
    assert "never to lie on a worker" in done.stderr
    assert str(path) in done.stderr
    assert "correct" not in done.stdout + done.stderr + done.screen
    (folder / "larder.toml").write_text(done.stdout)
    assert load({}).approver_keys == {"alice": public_key_of(path)}


@pytest.mark.parametrize(
    ("answers", "what"),
    [
        ([("new key: ", "correct horse"), ("once more: ", "correct house")], "the two are not the same"),
        ([("new key: ", "short"), ("once more: ", "short")], "fewer than 8 characters"),
        ([("new key: ", "")], "none was typed"),
    ],
)
def test_a_passphrase_that_will_not_do_writes_nothing(
    folder: Path, answers: list[tuple[str, str]], what: str
) -> None:
    done = terminals.run(["keys", "new", "approver", "alice"], folder, answers)
    assert (done.code, done.stdout) == (2, "")
    assert what in done.stderr
    assert "correct" not in done.stderr + done.screen
    assert list(folder.iterdir()) == []


def test_without_a_terminal_nobody_is_asked(folder: Path) -> None:
    done = terminals.run(
        ["keys", "new", "approver", "alice"],
        folder,
        stdin=b"correct horse\ncorrect horse\n",
        terminal=False,
    )
    assert (done.code, done.stdout) == (2, "")
    assert "there is no terminal" in done.stderr
    assert "--no-passphrase" in done.stderr
    assert list(folder.iterdir()) == []


def test_a_file_without_a_passphrase_is_warned_of(folder: Path) -> None:
    done = larder("new", "approver", "alice", "--out", "keys/a.key", "--no-passphrase")
    assert done.exit_code == 0
    assert "It has no passphrase" in done.stderr
    load_approver(folder / "keys" / "a.key", lambda: pytest.fail("nobody is to be asked"))


def test_an_approver_as_json(folder: Path) -> None:
    done = larder("new", "approver", "alice", "--no-passphrase", "--json")
    public_key = public_key_of(folder / "alice.approver.key")
    assert json.loads(done.stdout) == {
        "name": "alice",
        "file": str(folder / "alice.approver.key"),
        "public_key": public_key,
        "fingerprint": fingerprint_of(public_key),
    }


def test_an_approvers_file_is_never_overwritten_and_nobody_is_asked(folder: Path) -> None:
    (folder / "alice.approver.key").symlink_to("nowhere")
    done = larder("new", "approver", "alice")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "the file exists" in done.stderr
    assert not (folder / "nowhere").exists()


@pytest.mark.parametrize("name", ["", "a/b", "../x", "größe", "a" * 64])
def test_an_approvers_name_that_is_none_writes_nothing(folder: Path, name: str) -> None:
    assert larder("new", "approver", "--no-passphrase", "--", name).exit_code == 2
    assert list(folder.iterdir()) == []


def test_the_lines_of_a_key_are_shown_again(folder: Path) -> None:
    first = larder("new", "approver", "alice", "--no-passphrase").stdout
    signer = larder("new", "signer", "web1").stdout
    # As Kubernetes mounts it.
    (folder / "web1.signer.key").chmod(0o640)
    assert larder("show", "alice.approver.key", "--name", "alice").stdout == first
    assert larder("show", "web1.signer.key", "--name", "web1").stdout == signer
    (folder / "larder.toml").write_text(f'{signer}{first}[databases.shop]\nurl = "sqlite:///shop.db"\n')
    settings = load({})
    assert settings.approver_keys == {"alice": public_key_of(folder / "alice.approver.key")}
    assert settings.signing_key == folder / "web1.signer.key"
    assert json.loads(larder("show", "web1.signer.key", "--name", "web1", "--json").stdout) == {
        "name": "web1",
        "file": str(folder / "web1.signer.key"),
        "public_key": settings.signer_keys["web1"],
    }


def test_the_lines_of_a_locked_key_are_shown_without_its_passphrase(folder: Path) -> None:
    public_key = create(folder / "alice.approver.key", "correct horse")
    done = larder("show", "alice.approver.key", "--name", "alice")
    assert (done.exit_code, public_key in done.stdout) == (0, True)


def test_what_is_no_key_is_not_shown(folder: Path) -> None:
    (folder / "other").write_text("nothing")
    (folder / "other").chmod(0o600)
    for name, what in (("absent", "there is no such file"), ("other", "no private key")):
        done = larder("show", name, "--name", "alice")
        assert (done.exit_code, done.stdout) == (2, "")
        assert what in done.stderr
