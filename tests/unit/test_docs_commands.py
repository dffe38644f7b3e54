"""The README and docs/*.md: every `larder …` that they name is a command that there is, with options that it has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from _pytest.mark import ParameterSet

from console.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: A line that somebody types: `$ larder …`, or `alice$ larder …`.
_TYPED = re.compile(r"^(?:\w*\$ )(.*)$", re.MULTILINE)

#: `larder …` within a sentence.
_NAMED = re.compile(r"`(larder [^`]+)`")


def typed(page: Path) -> list[str]:
    """The commands of ours in the lines that are typed, also those in a pipe."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    parts = [
        part for block in blocks for line in _TYPED.findall(block) for part in re.split(r" \| | && ", line)
    ]
    return [part for part in parts if part.startswith("larder ")]


def named(page: Path) -> list[str]:
    return _NAMED.findall(page.read_text(encoding="utf-8"))


def words_of(line: str) -> list[str]:
    """The words after `larder`, without what the shell takes: comments, and where output goes."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="<>")
    lexer.whitespace_split = True
    found: list[str] = []
    for word in lexer:
        if set(word) <= set("<>"):
            break
        found.append(word)
    return found[1:]


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words name, and what is left of them."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no {words[0]!r} in larder {command.name}"
        command, words = found, words[1:]
    return command, words


def pages(lines_of: Callable[[Path], list[str]]) -> list[ParameterSet]:
    return [
        pytest.param(line, id=f"{page.name}: {line}")
        for page in PAGES
        for line in dict.fromkeys(lines_of(page))
    ]


@pytest.mark.parametrize("line", pages(typed))
def test_a_line_that_is_typed_is_taken_by_its_command(line: str) -> None:
    command, words = resolved(words_of(line))
    whole = not isinstance(command, click.Group) or command.invoke_without_command
    assert whole, f"{line} is no whole command"
    command.make_context(command.name, list(words)).close()


@pytest.mark.parametrize("line", pages(named))
def test_a_command_in_a_sentence_is_there_with_its_options(line: str) -> None:
    words = [word.strip("[]()") for word in line.split()[1:]]
    command, rest = resolved(words)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
    assert {word for word in rest if word.startswith("--")} <= known
    if isinstance(command, click.Group):
        assert not [word for word in rest if not word.startswith("-") and word != "…"]


def test_there_is_something_to_look_at() -> None:
    assert len([line for page in PAGES for line in typed(page)]) > 25
    assert len([line for page in PAGES for line in named(page)]) > 50
