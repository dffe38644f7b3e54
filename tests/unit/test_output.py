"""What is printed: nothing that a store or a user writes can command the terminal, or end a command."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from console import output
from tests.house import SCRIPTS, House


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – text", "plain – text"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("left\u202eright", "left\\u202eright"),
        ("a\rb\x07", "a\\rb\\x07"),
        ("half \udcff", "half \\udcff"),
        ("two\nlines", "two\nlines"),
        ("[bold]markup[/]", "\\[bold]markup\\[/]"),
    ],
)
def test_nothing_that_is_printed_commands_the_terminal(text: str, shown: str) -> None:
    assert output.escape(text) == shown


def test_odd_names_in_a_store_are_no_trouble(tmp_path: Path) -> None:
    house = House(tmp_path, DATABASE_URL="sqlite:///shop.db", PYTHONIOENCODING="utf-8:strict")
    house.backups.mkdir()
    for name in (b"\xff.txt", b"\xff.manifest.json", b"\x1b[31mred.txt", "\u202etxt.gpj".encode()):
        (house.backups / os.fsdecode(name)).touch()
    for command in (["list"], ["list", "--json"], ["catalog", "rebuild", "--json"]):
        done = house.larder(*command)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        if "--json" in command:
            json.loads(done.stdout)


@pytest.mark.parametrize("command", ["watch", "show", "list", "verify", "prune", "pin"])
def test_an_argument_that_is_no_text_is_said(tmp_path: Path, command: str) -> None:
    house = House(tmp_path, DATABASE_URL="sqlite:///shop.db")
    done = subprocess.run(
        [os.fsencode(SCRIPTS / "larder"), command.encode(), b"\xff"],
        cwd=tmp_path,
        env=house.environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"unable to read an argument" in done.stderr
