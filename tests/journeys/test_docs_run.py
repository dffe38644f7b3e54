"""The commands of the README and of docs/*.md, typed as they stand there, at a database that has one backup.

What takes a second person, a passphrase or a PostgreSQL server is typed by the journeys of restores and of a disaster.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from larder.signing import Signer
from tests.commands import commands_in, typed_in, words_of
from tests.house import House

ROOT = Path(__file__).parents[2]

#: What is typed by other journeys, or holds what is another one's: a key, a hash, a folder of the machine.
ELSEWHERE = (
    "larder backup",
    "larder drill",
    # These go on until somebody ends them.
    "larder up",
    "larder console",
    "restore approve",
    "restore run",
    "restore undo",
    "--mode",
    "keys new approver",
    "keys show",
    "--out /etc",
    "--expect",
    "--key",
)


def lines() -> list[str]:
    found: dict[str, None] = {}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for line in typed_in(page.read_text(encoding="utf-8")):
            found |= dict.fromkeys(re.sub(r"\s+#.*", "", command) for command in commands_in(line))
    return [line for line in found if not any(part in line for part in ELSEWHERE)]


def sample(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
        shop.executemany("INSERT INTO orders (what) VALUES (?)", [("thing",)] * 50)


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path, BACKUP_DIR=str(tmp_path / "backups"))
    sample(tmp_path)
    made.configure(
        '[databases.shop]\nurl = "sqlite:///shop.db"\n'
        f'[approvers.alice]\npublic_key = "{Signer(Ed25519PrivateKey.generate()).public_key}"\n'
    )
    assert made.larder("backup").returncode == 0
    return made


def test_every_command_does_what_it_says_when_it_is_typed(house: House) -> None:
    (backup,) = [one["backup"] for one in json.loads(house.larder("list", "--json").stdout)]
    (run,) = [one["run"] for one in json.loads(house.larder("runs", "--json").stdout)]
    for line in lines():
        typed = [
            re.sub(r"^[0-9a-f]{12}$", run, re.sub(r"^shop/\d{8}_\d{6}$", backup, word))
            for word in words_of(line)
        ]
        done = house.larder(*typed)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, line
        if "--json" in typed:
            json.loads(done.stdout)


def test_backups_from_before_larder_toml_are_moved_as_the_page_says(tmp_path: Path) -> None:
    made = House(tmp_path, BACKUP_DIR=str(tmp_path / "backups"), DATABASE_URL="sqlite:///shop.db")
    sample(tmp_path)
    assert made.larder("backup").returncode == 0
    del made.environment["DATABASE_URL"]
    made.configure('[databases.shop]\nurl = "sqlite:///shop.db"\n')
    assert made.larder("backup").returncode == 0
    assert len(json.loads(made.larder("list", "--json").stdout)) == 2
    assert len(pruned(made)) == 1
    page = (ROOT / "docs" / "retention.md").read_text(encoding="utf-8")
    (move,) = [line for line in typed_in(page) if " mv " in line]
    subprocess.run(
        ["bash", "-ec", move], env={**made.environment, "BACKUP_DIR": str(made.backups)}, check=True
    )
    assert made.larder("catalog", "rebuild").returncode == 0
    assert len(pruned(made)) == 2
    assert made.larder("verify", "--all").returncode == 0
    assert made.larder("status").returncode == 0


def pruned(house: House) -> list[str]:
    """The backups that a rotation would look at."""
    (found,) = json.loads(house.larder("prune", "--dry-run", "--json").stdout)
    return [one["backup"] for one in found["backups"]]


def test_there_is_something_to_type() -> None:
    assert len(lines()) > 20
