"""docs/evidence.md: every field is told, and its recipe finds what Larder finds."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from larder.evidence import Document
from tests.evidence import SIGNER, fill, gathered, lay, settings_in

TEXT = (Path(__file__).parents[2] / "docs" / "evidence.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    folder = tmp_path_factory.mktemp("home")
    fill(f"sqlite:///{folder / 'ledger.sqlite3'}")
    return gathered(f"sqlite:///{folder / 'ledger.sqlite3'}", settings_in(folder))


def check(path: Path, *trusted: str) -> subprocess.CompletedProcess[str]:
    (recipe,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert "larder" not in recipe
    (path.parent / "check.py").write_text(recipe, encoding="utf-8")
    command = [sys.executable, "-I", "check.py", path.name, *trusted]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False, timeout=60)


def test_the_recipe_takes_what_a_trusted_key_signed(document: Document, tmp_path: Path) -> None:
    done = check(lay(document, tmp_path), SIGNER.public_key)
    assert (done.returncode, done.stdout) == (0, "good: 2026-10-01T00:00:00Z 2026-11-01T00:00:00Z\n"), (
        done.stderr
    )


def _document(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"proof": "broken"', b'"proof": "stored"'))


def _space(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n  ", b"\n\t", 1))


def _report(path: Path) -> None:
    path.with_suffix(".html").write_bytes(b"<p>all is well</p>")


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (_document, "InvalidSignature"),
        (_space, "not in canonical form"),
        (_report, "the report is another one"),
    ],
)
def test_the_recipe_refuses_what_was_altered(
    document: Document, tmp_path: Path, alter: Callable[[Path], None], said: str
) -> None:
    path = lay(document, tmp_path)
    alter(path)
    done = check(path, SIGNER.public_key)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


def test_the_recipe_refuses_an_altered_row_and_another_key(document: Document, tmp_path: Path) -> None:
    rows = [{**row, "actor": "nobody"} for row in document["audit"]["rows"]]
    path = lay({**document, "audit": {**document["audit"], "rows": rows}}, tmp_path)
    assert "row 2 of the audit trail was altered" in check(path, SIGNER.public_key).stderr
    assert "signed by another key" in check(path).stderr


def test_every_field_is_told(document: Document, tmp_path: Path) -> None:
    table = TEXT.partition("## What it says")[2].partition("All times are UTC")[0]
    told = {
        field
        for line in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for field in re.findall(r"`(\w+)`", line)
    }
    assert told == {*document, "report", "signature"}
