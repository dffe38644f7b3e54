"""The README and docs/*.md: every command that they name is one, with options that it has; what can be run is run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from _pytest.mark import ParameterSet

from tests.commands import commands_in, resolved, see_that_it_is_taken, typed_in

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: `larder …` within a sentence.
_NAMED = re.compile(r"`(larder [^`]+)`")

#: A link to a file, or to a place in one.
_LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")

#: Where the code lies, and a file of the project's within a text.
CODE = ("larder", "tasks", "workers", "console")
_FILE = re.compile(
    r"(?<![\w/.-])(?:larder|tasks|workers|console|tests|docs|examples|benchmarks)/[\w/.-]+\.(?:py|md|toml|yml|sh)\b"
)

#: Targets of the Makefile in a line that is typed.
_MAKE = re.compile(r"\bmake ([a-z-]+)")


def typed(page: Path) -> list[str]:
    """The lines that are typed."""
    return typed_in(page.read_text(encoding="utf-8"))


def ours(page: Path) -> list[str]:
    """The commands of ours in the lines that are typed, also those in a pipe."""
    return [command for line in typed(page) for command in commands_in(line)]


def named(page: Path) -> list[str]:
    return _NAMED.findall(page.read_text(encoding="utf-8"))


def pages(lines_of: Callable[[Path], list[str]]) -> list[ParameterSet]:
    return [
        pytest.param(line, id=f"{page.name}: {line}")
        for page in PAGES
        for line in dict.fromkeys(lines_of(page))
    ]


@pytest.mark.parametrize("line", pages(ours))
def test_a_line_that_is_typed_is_taken_by_its_command(line: str) -> None:
    see_that_it_is_taken(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_shell_takes_every_line_that_is_typed(page: Path) -> None:
    for line in typed(page):
        done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_has_what_is_made(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    wanted = {target for line in typed(page) for target in _MAKE.findall(line)}
    assert wanted <= set(targets)


@pytest.mark.parametrize("line", pages(named))
def test_a_command_in_a_sentence_is_there_with_its_options(line: str) -> None:
    words = [word.strip("[]()") for word in line.split()[1:]]
    command, rest = resolved(words)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
    assert {word for word in rest if word.startswith("--")} <= known
    if isinstance(command, click.Group):
        assert not [word for word in rest if not word.startswith("-") and word != "…"]


def anchors(page: Path) -> set[str]:
    """The places of a page that can be linked to, as GitHub names them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    for path, place in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if place:
            assert place.removeprefix("#") in anchors(target), f"{path}{place}"


def test_a_file_that_is_named_is_there() -> None:
    sources = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    named = {
        (path.name, file)
        for path in [*PAGES, *sources]
        for file in _FILE.findall(path.read_text(encoding="utf-8"))
    }
    # What the pages on plug-ins have somebody write.
    written = {
        file
        for page in PAGES
        for file in re.findall(r"^```python\n# (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 60
    assert {(by, file) for by, file in named if file not in written and not (ROOT / file).is_file()} == set()


def test_the_readme_leads_to_every_page() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        found = {
            (page.parent / path).resolve() for path, _ in _LINK.findall(page.read_text(encoding="utf-8"))
        }
        ahead += [one for one in found if one.suffix == ".md" and one.is_file() and one not in reached]
    assert [page.name for page in PAGES if page not in reached] == []


def test_there_is_something_to_look_at() -> None:
    assert len([line for page in PAGES for line in ours(page)]) > 60
    assert len([line for page in PAGES for line in named(page)]) > 50
