"""Commands as pages and examples have them: taken apart, and shown to the command line that would take them."""

from __future__ import annotations

import re
import shlex

import click

from console.cli import main

#: A line that somebody types: `$ larder …`, or `alice$ larder …`.
_TYPED = re.compile(r"^(?:\w*\$ )(.*)$", re.MULTILINE)

#: What stands between two commands of one line.
_BETWEEN = re.compile(r"\s*(?:\||&&|\|\||;)\s+")

#: What stands before a command, and is none of it: variables, and who runs it.
_BEFORE = re.compile(r"^(?:sudo |exec |[A-Z_]+=\S* )*")


def typed_in(text: str) -> list[str]:
    """The lines that are typed in the blocks of a page."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in _TYPED.findall(block)]


def commands_in(line: str, program: str = "larder") -> list[str]:
    """The commands of `program` in a shell's line, also those in a pipe."""
    parts = (_BEFORE.sub("", part) for part in _BETWEEN.split(line.strip()))
    return [part for part in parts if part.startswith(f"{program} ")]


def words_of(line: str) -> list[str]:
    """The words after the program, without what the shell takes: comments, and where output goes."""
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


def see_that_it_is_taken(line: str) -> None:
    """Fail where `larder` would not take a line."""
    command, words = resolved(words_of(line))
    if words in (["--version"], ["--help"]):
        return
    whole = not isinstance(command, click.Group) or command.invoke_without_command
    assert whole, f"{line} is no whole command"
    command.make_context(command.name, list(words)).close()
