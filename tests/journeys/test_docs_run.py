"""The commands of the README and of docs/*.md, typed as they stand there, at a database that has one backup.

What takes a second person, a passphrase or a PostgreSQL server is typed by the journeys of restores and of a disaster.
"""

from __future__ import annotations

import json
import re
import sqlite3
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


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path, BACKUP_DIR=str(tmp_path / "backups"))
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
        shop.executemany("INSERT INTO orders (what) VALUES (?)", [("thing",)] * 50)
    made.configure(
        '[databases.shop]\nurl = "sqlite:///shop.db"\n'
        f'[approvers.alice]\npublic_key = "{Signer(Ed25519PrivateKey.generate()).public_key}"\n'
    )
    assert made.larder("backup").returncode == 0
    return made


def test_every_command_does_what_it_says_when_it_is_typed(house: House) -> None:
    (backup,) = [one["backup"] for one in json.loads(house.larder("list", "--json").stdout)]
    for line in lines():
        typed = [re.sub(r"^shop/\d{8}_\d{6}$", backup, word) for word in words_of(line)]
        done = house.larder(*typed)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, line
        if "--json" in typed:
            json.loads(done.stdout)


def test_there_is_something_to_type() -> None:
    assert len(lines()) > 20
