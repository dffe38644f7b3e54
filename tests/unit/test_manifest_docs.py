"""docs/manifest.md: every field is told, and its recipe finds what Larder finds."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from larder.manifest import Content, File, Manifest, Previous
from larder.signing import Signer

TEXT = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text(encoding="utf-8")
SIGNER = Signer(Ed25519PrivateKey.generate())
STRANGER = Signer(Ed25519PrivateKey.generate())

FACTS = Manifest(
    backup="shop/20251016_020000",
    database="shop",
    engine="postgres",
    created="2025-10-16T02:00:00Z",
    artifact=File("backup_postgres_20251016_020000.sql.gz", 1234, "a" * 64),
    raw=Content(5678, "b" * 64),
    encoding=("gzip",),
    form="file",
    suffix=".sql",
    server_version="16.4",
    tool="pg_dump 16.4",
    # Half a surrogate pair, a line feed and a letter outside ASCII: what a spelling could go wrong at.
    fingerprint={"row_counts": "exact", "tables": {"public.größe \ud800\n": {"rows": 7}}},
    run="r1",
    host="db-1",
    larder="0.1.0",
    previous=Previous("shop/20251015_020000", "c" * 64),
)
MANIFEST = FACTS.signed(SIGNER).to_bytes()


@pytest.fixture(scope="module")
def recipe() -> str:
    (found,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def check(recipe: str, folder: Path, data: bytes, *trusted: str) -> subprocess.CompletedProcess[str]:
    (folder / "check.py").write_text(recipe, encoding="utf-8")
    (folder / "x.manifest.json").write_bytes(data)
    return subprocess.run(
        [sys.executable, "check.py", "x.manifest.json", *trusted],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_recipe_is_short_and_needs_no_larder(recipe: str) -> None:
    assert len([line for line in recipe.splitlines() if line]) <= 20
    imported = set(re.findall(r"^(?:from|import) (.*)$", recipe, re.MULTILINE))
    assert imported == {
        "base64, json, sys",
        "cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey",
    }


def test_the_recipe_takes_what_a_trusted_key_signed(recipe: str, tmp_path: Path) -> None:
    Manifest.from_bytes(MANIFEST)
    done = check(recipe, tmp_path, MANIFEST, STRANGER.public_key, SIGNER.public_key)
    assert (done.returncode, done.stdout) == (0, f"good: shop/20251016_020000 {'a' * 64}\n")


def test_the_recipe_refuses_another_key(recipe: str, tmp_path: Path) -> None:
    for trusted in ([SIGNER.public_key], []):
        done = check(recipe, tmp_path, FACTS.signed(STRANGER).to_bytes(), *trusted)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"signed by another key: {STRANGER.public_key}" in done.stderr


def last_letter(text: str) -> tuple[bytes, bytes]:
    """Two spellings of the same bytes in base64."""
    bare = text.rstrip("=")
    other = chr(ord(bare[-1]) + 1)
    return text.encode(), (bare[:-1] + other + text[len(bare) :]).encode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"size": 1234', b'"size": 1235'),
        (b'"rows": 7', b'"rows": 8'),
        (b"cccc", b"cccd"),
        (b"\n  ", b"\n\t"),
        (b'"run": "r1"', b'"run": "r0",\n  "run": "r1"'),
        last_letter(FACTS.signed(SIGNER).signature.value),
    ],
    ids=["size", "rows", "previous", "space", "twice", "base64"],
)
def test_the_recipe_refuses_what_was_altered(recipe: str, tmp_path: Path, old: bytes, new: bytes) -> None:
    altered = MANIFEST.replace(old, new, 1)
    assert altered != MANIFEST
    done = check(recipe, tmp_path, altered, SIGNER.public_key)
    assert (done.returncode, done.stdout) == (1, "")
    assert "InvalidSignature" in done.stderr or "not in canonical form" in done.stderr


def test_the_recipe_refuses_one_that_nobody_signed(recipe: str, tmp_path: Path) -> None:
    assert check(recipe, tmp_path, FACTS.to_bytes(), SIGNER.public_key, "").returncode == 1


def paths(document: dict[str, Any], start: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in document.items():
        deeper = isinstance(value, dict) and key not in ("globals", "globals_raw", "tables")
        found |= paths(value, f"{start}{key}.") if deeper else {f"{start}{key}"}
    return found


def test_every_field_is_told() -> None:
    table = TEXT.partition("## Fields")[2].partition("## Canonical form")[0]
    told = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", table, re.MULTILINE))
    beside = replace(FACTS, globals=File("x", 1, "d" * 64), globals_raw=Content(1, "d" * 64))
    assert told - {"previous"} == paths(beside.to_dict())
