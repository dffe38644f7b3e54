"""An auditor asks for October: a real ledger and store on one machine, the two files and a key on another."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.house import House
from tests.restores import Approver, ask, back_up

pytestmark = pytest.mark.usefixtures("no_process_left")


def elsewhere(folder: Path) -> House:
    """A machine with nothing on it."""
    folder.mkdir()
    return House(folder)


def test_an_auditor_checks_what_a_host_has_signed(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.executescript("CREATE TABLE users (id INTEGER PRIMARY KEY); INSERT INTO users VALUES (1);")
    house = House(tmp_path)
    alice = Approver(house)
    house.configure('[databases.shop]\nurl = "sqlite:///shop.db"\n' + alice.lines)
    backup = back_up(house, "shop")
    request = ask(house, backup, "shop")["request"]
    assert house.larder("restore", "deny", request, "--reason", "not today").returncode == 0

    made = house.larder("evidence", "--out", "for the auditor", "--json")
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    file, page = Path(told["file"]), Path(told["report"])
    assert {stat.S_IMODE(path.stat().st_mode) for path in (file, page)} == {0o600}
    assert sorted(path.name for path in file.parent.iterdir()) == sorted([file.name, page.name])
    document = json.loads(file.read_bytes())
    [kept] = document["backups"]
    assert (kept["backup"], kept["copies"][0]["location"]) == (
        backup,
        str(house.backups / "shop" / kept["artifact"]),
    )
    assert [row["event"] for row in document["audit"]["rows"]] == ["requested", "denied"]
    assert [(one["request"], one["state"]) for one in document["restores"]] == [(request, "denied")]
    assert told["summary"] == document["summary"]
    secret = (house.backups / ".larder" / "signer.key").read_text().splitlines()[1]
    assert secret not in file.read_text() + page.read_text() + made.stdout + made.stderr

    # The same host knows its own key.
    assert house.larder("evidence", "verify", str(file)).returncode == 0

    auditor = elsewhere(tmp_path / "auditor")
    words = ("evidence", "verify", str(file), "--json")
    unknown = auditor.larder(*words)
    assert unknown.returncode == 5
    assert json.loads(unknown.stdout)["signed_by"] == {"key": told["key"], "name": None, "trusted": False}
    good = auditor.larder(*words, "--key", told["key"])
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["report"] == {"name": page.name, "state": "good"}
    (auditor.folder / "larder.toml").write_text(f'[signers.web1]\npublic_key = "{told["key"]}"\n')
    assert json.loads(auditor.larder(*words).stdout)["signed_by"]["name"] == "web1"
    # Looking has made no ledger.
    assert [path.name for path in auditor.folder.iterdir()] == ["larder.toml"]

    page.write_text("<p>all is well</p>")
    assert auditor.larder(*words).returncode == 5
    file.write_bytes(file.read_bytes().replace(b"denied", b"done"))
    refused = auditor.larder(*words)
    assert refused.returncode == 5
    assert "altered" in json.loads(refused.stdout)["error"]


def test_what_is_refused(tmp_path: Path) -> None:
    house = House(tmp_path)
    first = house.larder("evidence", "--from", "2026-01-01", "--to", "2026-02-01")
    assert first.returncode == 0, first.stderr
    (tmp_path / "evidence_2026-01-01_2026-02-01.json").write_text("mine")
    for words, said in (
        (("--from", "2026-01-01", "--to", "2026-02-01"), "the file exists"),
        (("--to", "2999-01-01"), "lies ahead"),
        (("--from", "2026-02-01", "--to", "2026-02-01"), "no time at all"),
        (("--from", "yesterday"), "unable to read the time"),
        (("--from", "2026-01-01", "verify", "x.json"), "options go behind the command"),
        (("verify", "nothing.json"), "unable to read nothing.json"),
        (("verify", "nothing.json", "--key", "abc"), "unable to trust the key"),
    ):
        done = house.larder("evidence", *words)
        assert (done.returncode, said in done.stderr) == (2, True), (words, done.stderr)
    assert (tmp_path / "evidence_2026-01-01_2026-02-01.json").read_text() == "mine"
