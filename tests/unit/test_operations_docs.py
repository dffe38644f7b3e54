"""docs/operations.md: supervisors wait for longer than a worker takes, and the log lines that it names are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workers.farewell import PATIENCE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
CODE = "\n".join(
    re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))
    for folder in ("larder", "tasks", "workers")
    for path in (ROOT / folder).rglob("*.py")
)

#: Lines that others write: Celery, psycopg and systemd.
OTHERS = ("Restoring 3", "error ignored in", "State 'stop-sigterm'")


def seconds(found: re.Match[str]) -> int:
    return int(found[1]) * (60 if found[0].endswith("m") else 1)


@pytest.mark.parametrize(
    "key", ["TimeoutStopSec=", "stop_grace_period: ", "terminationGracePeriodSeconds: ", r"at least "]
)
def test_every_supervisor_waits_until_steps_are_given_back(key: str) -> None:
    found = re.search(rf"{key}(\d+)m?", PAGE)
    assert found, key
    assert seconds(found) > 2 * PATIENCE


def test_the_patience_is_as_it_says() -> None:
    assert f"ends within **{PATIENCE} seconds** is committed" in PAGE


def lines() -> list[str]:
    table = PAGE.split("## What you see")[1]
    return [line for line in re.findall(r"^\| `([^`]+)`", table, re.MULTILINE) if not line.startswith(OTHERS)]


@pytest.mark.parametrize("line", lines())
def test_a_line_of_the_log_is_one_that_is_written(line: str) -> None:
    pieces = [piece.strip(" '") for piece in re.split(r"…|\d+|Step dump|\brpo\b", line)]
    for piece in pieces:
        assert piece in CODE, piece
