"""The command line as somebody meets it: help that teaches, names that Tab offers, no colour where none belongs."""

from __future__ import annotations

import os
import pty
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest

from console.cli import main
from console.completion import SHELLS
from console.root import SECTIONS
from tests.commands import commands_in, resolved, see_that_it_is_taken
from tests.house import SCRIPTS, House

#: What colours are switched on by: 30 to 37, 40 to 47, 90 and on, 38;5 and the like.
_COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")


def sqlite_shop(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "shop.db")) as made, made:
        made.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
        made.executemany("INSERT INTO orders (what) VALUES (?)", [("thing",)] * 50)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A database with one backup."""
    made = House(tmp_path_factory.mktemp("house"), DATABASE_URL="sqlite:///shop.db")
    sqlite_shop(made.folder)
    done = made.larder("backup")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    return made


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that does something."""
    if not isinstance(command, click.Group):
        yield path
        return
    if command.invoke_without_command:
        yield path
    for name, one in command.commands.items():
        yield from leaves(one, (*path, name))


#: What each command is given here, beside what needs nothing. Those that would run for ever are refused at once.
GIVEN = {
    "backup": ["nowhere"],
    "show": ["shop/latest"],
    "pin": ["shop/latest"],
    "unpin": ["shop/latest"],
    "verify": ["shop/latest"],
    "drill": ["nowhere"],
    "watch": ["no-run"],
    "up": [],
    "console": ["--host", "0.0.0.0"],
    "completion": ["bash"],
    "keys new": ["signer", "web1"],
    "keys show": ["no.key", "--name", "web1"],
    "restore plan": ["shop/latest", "--into", "shop"],
    "restore request": ["shop/latest", "--into", "shop", "--reason", "tried"],
    "restore approve": ["no.json", "--key", "no.key"],
    "restore deny": ["no-request", "--reason", "tried"],
    "restore run": ["no-request", "--token", "no.txt"],
    "restore undo": ["no-request"],
    "evidence verify": ["no.json"],
}


@pytest.mark.parametrize("words", list(leaves(main)), ids=" ".join)
def test_nothing_in_a_pipe_commands_a_terminal(house: House, words: tuple[str, ...]) -> None:
    # What `larder up` needs is a database, and it is not to begin here.
    more = {"DATABASE_URL": ""} if words == ("up",) else {}
    for arguments in ([*words, *GIVEN.get(" ".join(words), [])], [*words, "--help"]):
        done = house.larder(*arguments, TERM="xterm-256color", **more)
        shown = done.stdout + done.stderr
        assert "\x1b" not in shown
        assert "Traceback" not in shown
        assert shown


def on_a_terminal(house: House, *arguments: str, **more: str) -> str:
    """What a command writes where standard output and error are a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [SCRIPTS / "larder", *arguments],
        cwd=house.folder,
        env={**house.environment, "TERM": "xterm-256color", **more},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:
        # How Linux says that the other side has closed.
        pass
    finally:
        process.wait(60)
        os.close(master)
    return shown.decode()


def test_colours_are_for_terminals_and_no_color_turns_them_off(house: House) -> None:
    assert _COLOUR.search(on_a_terminal(house, "show", "nowhere/latest"))
    plain = on_a_terminal(house, "show", "nowhere/latest", NO_COLOR="1")
    assert "unable to find" in plain
    assert not _COLOUR.search(plain)


def test_a_row_is_a_line_on_a_terminal_that_can_do_nothing(house: House) -> None:
    shown = on_a_terminal(house, "status", TERM="dumb")
    assert "\x1b" not in shown
    heading, row, *_ = shown.splitlines()
    assert heading.split()[0] == "database"
    assert row.split()[:2] == ["shop", "safe"]


def test_what_is_not_safe_is_red_on_a_terminal_and_a_word_everywhere(house: House, tmp_path: Path) -> None:
    nothing = House(tmp_path, DATABASE_URL="sqlite:///shop.db")
    assert "\x1b[1;31mUNSAFE" in on_a_terminal(nothing, "status")
    assert "\x1b[32msafe" in on_a_terminal(house, "status")
    plain = nothing.larder("status")
    assert (plain.returncode, "UNSAFE" in plain.stdout) == (1, True)


# Help


def test_every_command_has_a_place_in_the_help() -> None:
    placed = [name for names in SECTIONS.values() for name in names]
    assert sorted(placed) == sorted(main.commands)


def test_help_loads_no_more_than_it_takes() -> None:
    """Nobody who presses Tab waits for what only a backup needs."""
    heavy = {"sqlalchemy", "celery", "pydantic", "psycopg", "redis"}
    code = f"import sys, console.cli; print(*sorted({heavy!r} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == ""


def test_help_begins_with_a_first_step(house: House) -> None:
    shown = house.larder("--help").stdout
    assert shown.index("larder backup\n") < shown.index("Exit codes:") < shown.index("What there is:")
    for heading in SECTIONS:
        assert f"\n{heading}:\n" in shown
    assert "Others:" not in shown


def examples(command: click.Command) -> Iterator[str]:
    """The commands of ours that a command's help shows, and those of the commands below it."""
    for line in (command.help or "").splitlines():
        yield from (re.sub(r"\s{3,}.*|\[.*", "", one) for one in commands_in(line))
    if isinstance(command, click.Group):
        for one in command.commands.values():
            yield from examples(one)


@pytest.mark.parametrize("line", sorted(set(examples(main))))
def test_an_example_in_the_help_is_taken(line: str) -> None:
    see_that_it_is_taken(line)


@pytest.mark.parametrize("words", list(leaves(main)), ids=" ".join)
def test_every_command_shows_how_it_is_typed(words: tuple[str, ...]) -> None:
    command, left = resolved(list(words))
    assert left == []
    typed = [line for line in (command.help or "").splitlines() if line.startswith("  ")]
    assert any(commands_in(line) and f"larder {' '.join(words)}" in line for line in typed), command.help


@pytest.mark.parametrize("words", [[], *(["restore"], ["keys"], ["catalog"], ["audit"], ["evidence"])])
def test_no_line_of_a_list_is_cut_off_in_a_narrow_terminal(house: House, words: list[str]) -> None:
    shown = house.larder(*words, "--help", COLUMNS="80").stdout
    assert [line for line in shown.splitlines() if line.endswith("...") and "Usage" not in line] == []


# Completion


def offered(house: House, line: str, **more: str) -> list[str]:
    """What bash is given for a line, whose last word is being typed."""
    words = line.split(" ")
    done = house.larder(
        _LARDER_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), **more
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [found.partition(",")[2] for found in done.stdout.splitlines() if found]


def test_names_are_offered(house: House) -> None:
    (backup,) = [one.split()[0] for one in house.larder("list").stdout.splitlines() if "shop/" in one]
    (run,) = [one.split()[0] for one in house.larder("runs").stdout.splitlines() if "stored" in one]
    assert offered(house, "larder ba") == ["backup"]
    assert offered(house, "larder backup s") == ["shop"]
    assert offered(house, "larder show shop/") == ["shop/latest", backup]
    assert offered(house, "larder drill ") == ["shop", "shop/latest", backup]
    assert offered(house, "larder watch ") == [run]
    assert offered(house, "larder verify --store ") == ["local"]
    assert offered(house, "larder restore plan shop/latest --into s") == ["shop"]
    assert offered(house, "larder show other/") == []
    # It may be a file's name.
    assert offered(house, "larder restore approve requ") == ["requ"]


def test_a_real_bash_completes(house: House) -> None:
    script = """
        source <(larder completion bash)
        COMP_WORDS=(larder show shop/l) COMP_CWORD=2
        _larder_completion larder && echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=house.folder,
        env={**house.environment, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("shop/latest\n", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_each_shell(house: House, shell: str) -> None:
    script = house.larder("completion", shell).stdout
    assert f"_LARDER_COMPLETE={shell}_complete" in script


def test_a_tab_makes_nothing_and_breaks_at_nothing(tmp_path: Path) -> None:
    house = House(tmp_path, DATABASE_URL="sqlite:///shop.db")
    assert offered(house, "larder show ") == ["shop/latest"]
    assert offered(house, "larder watch ") == []
    assert list(tmp_path.iterdir()) == []
    house.configure("[databases.shop\n")
    assert offered(house, "larder show ") == []


def test_a_ledger_that_does_not_answer_keeps_nobody_waiting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://ledger@127.0.0.1:{silent.getsockname()[1]}/ledger"
        house = House(tmp_path, DATABASE_URL="sqlite:///shop.db", LARDER_LEDGER_URL=url)
        offered(house, "larder ba")
        began = time.monotonic()
        assert offered(house, "larder show ") == ["shop/latest"]
        assert time.monotonic() - began < 5
