"""What is printed: nothing that a store or a user writes can command the terminal, or end a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict", "latin-1", "utf-8:surrogateescape"])
def test_json_is_json_whatever_the_terminal_takes(encoding: str) -> None:
    odd = {"größe \x9b31m": "half \udcff, whole \U0001f600, \u202e, \x7f, \U000e0001", "list": ["\x1b\x07\n"]}
    code = f"from console import output; output.take_any_text(); output.print_json({odd!a})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=True,
    )
    text = done.stdout.decode()
    assert json.loads(text) == odd
    assert all(character.isprintable() or character == "\n" for character in text)
    assert ("größe" in text) == encoding.startswith("utf-8")


def test_a_table_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("name", ">size"), [("\x1b[2J\x9b\u202e[red]", "\udcff")])
    shown = capsys.readouterr().out
    assert "\\x1b[2J\\x9b\\u202e[red]" in shown
    assert "\\udcff" in shown


@pytest.mark.parametrize(
    "command",
    [
        "watch",
        "show",
        "list",
        "verify",
        "prune",
        "pin",
        "list --store",
        "verify --all --identity",
        "keys new signer web1 --out",
        "keys new signer",
    ],
)
def test_an_argument_that_is_no_text_is_said(tmp_path: Path, command: str) -> None:
    house = House(tmp_path, DATABASE_URL="sqlite:///shop.db")
    done = subprocess.run(
        [os.fsencode(SCRIPTS / "larder"), *command.encode().split(), b"\xff"],
        cwd=tmp_path,
        env=house.environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"unable to read an argument" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_argument_that_is_no_text_is_said_as_json(tmp_path: Path) -> None:
    done = House(tmp_path).larder("show", os.fsdecode(b"\xff"), "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2


@pytest.mark.parametrize("arguments", [["--help"], ["backup", "--help"], ["no such \udcff"]])
def test_help_is_shown_on_any_terminal(tmp_path: Path, arguments: list[str]) -> None:
    done = House(tmp_path, PYTHONIOENCODING="ascii:strict").larder(*arguments)
    assert done.returncode == (0 if "--help" in arguments else 2)
    assert "Traceback" not in done.stderr
