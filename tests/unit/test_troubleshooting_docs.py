"""docs/troubleshooting.md: every text that it quotes is one that is said, as a whole, by a line of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")

#: Stands in a text of the code for what is filled in.
HOLE = "\0"


def texts(path: Path) -> Iterator[str]:
    """Every text in a file, with holes where something is filled in; docstrings are none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


@pytest.fixture(scope="module")
def said() -> list[str]:
    return [
        text
        for folder in ("larder", "tasks", "workers", "console")
        for path in (ROOT / folder).rglob("*.py")
        for text in texts(path)
    ]


def quoted() -> list[str]:
    """What stands in code at the beginning of a point, and in the table's last column, and words beside."""
    points = re.findall(r"^- `([^`]+)`", PAGE, re.MULTILINE)
    cells = re.findall(r"^\|.*\| `([^`]+)`[^|]*\|$", PAGE, re.MULTILINE)
    beside = re.findall(r"`(nobody can approve [^`]+)`", PAGE)
    return [*points, *cells, *beside]


@pytest.mark.parametrize("text", quoted())
def test_a_text_is_one_that_is_said(said: list[str], text: str) -> None:
    pieces = [re.escape(piece) for piece in re.split(r"\s*…\s*", text)]
    # What is filled in may stand for several, with what is between them; and an error may go on with its reason.
    pattern = re.compile(rf"[ ]*{HOLE}[^\n]*?".join(piece.rstrip(r"\ ") for piece in pieces if piece))
    whole = re.compile(pattern.pattern.removesuffix(r"[ ]*\x00[^\n]*?"))
    assert any(whole.search(one) for one in said), whole.pattern.replace(HOLE, "…")


def test_the_words_of_s3_are_known(said: list[str]) -> None:
    table = re.findall(r"^\| (`[A-Z].*?) \|", PAGE, re.MULTILINE)
    words = [word for cell in table for word in re.findall(r"`(\w+)`", cell)]
    assert len(words) > 6
    assert [word for word in words if word not in said] == []


def test_there_is_something_to_look_at() -> None:
    assert len(quoted()) > 45
