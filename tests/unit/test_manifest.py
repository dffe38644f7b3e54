"""The manifest and the sidecar: what is written is read back, and nothing else is read."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import larder
from larder.artifact import Artifact
from larder.artifact import File as Made
from larder.databases import Dump, Piece
from larder.errors import IntegrityError, LarderError
from larder.manifest import Content, File, Manifest, manifest_of, parse_sidecar, sidecar_text

ARTIFACT = File("backup_postgres_20251016_020000.sql.gz", 1234, "a" * 64)
GLOBALS = File("backup_postgres_20251016_020000.globals.sql.gz", 99, "c" * 64)

MANIFEST = Manifest(
    backup="shop/20251016_020000",
    database="shop",
    engine="postgres",
    created="2025-10-16T02:00:00Z",
    artifact=ARTIFACT,
    raw=Content(5678, "b" * 64),
    encoding=("gzip",),
    form="file",
    suffix=".sql",
    server_version="16.4",
    tool="pg_dump 16.4",
    fingerprint={"row_counts": "exact", "tables": {"public.größe": {"rows": 7}, 'odd "name"': {"rows": 0}}},
    run="01J9ZK",
    host="db-1",
    larder="0.1.0",
    globals=GLOBALS,
    globals_raw=Content(100, "d" * 64),
    warnings=("pg_dump is newer than the server",),
)


def test_is_read_back_as_it_was_written() -> None:
    for manifest in (MANIFEST, replace(MANIFEST, globals=None, globals_raw=None, encoding=(), warnings=())):
        assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert MANIFEST.created_at == datetime(2025, 10, 16, 2, tzinfo=UTC)


def test_is_json_that_people_and_tools_can_read() -> None:
    text = MANIFEST.to_bytes().decode()
    assert text.endswith("}\n")
    assert "größe" in text
    document = json.loads(text)
    assert list(document) == sorted(document)
    assert document["format"] == "larder-manifest/1"
    assert document["artifact"] == {"name": ARTIFACT.name, "size": 1234, "sha256": "a" * 64}
    assert document["encoding"] == ["gzip"]


def test_the_same_facts_make_the_same_bytes() -> None:
    shuffled = {key: MANIFEST.to_dict()[key] for key in reversed(MANIFEST.to_dict())}
    assert Manifest.from_bytes(json.dumps(shuffled).encode()).to_bytes() == MANIFEST.to_bytes()


@given(name=st.text(st.characters()), rows=st.integers(0, 2**63))
def test_any_table_name_is_kept(name: str, rows: int) -> None:
    manifest = replace(MANIFEST, fingerprint={"tables": {name: {"rows": rows}}})
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def changed(path: str, value: Any) -> bytes:
    """The manifest with one value set, or taken out."""
    document = MANIFEST.to_dict()
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "key", [key for key in MANIFEST.to_dict() if key not in ("globals", "globals_raw", "warnings")]
)
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(IntegrityError, match=f"unable to read manifest: .*{key}"):
        Manifest.from_bytes(changed(key, ...))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("artifact.size", "1234"), ("artifact.size", -1), ("artifact.size", 1.5), ("artifact.size", True),
        ("artifact.size", ...), ("artifact.sha256", "A" * 64), ("artifact.sha256", "a" * 63),
        ("artifact.name", "../escape.sql.gz"), ("artifact.name", "shop/x.sql.gz"), ("artifact.name", ".hidden"),
        ("artifact.name", ""), ("artifact.name", "two\nlines"), ("artifact.name", "x" * 300), ("artifact.more", 1),
        ("globals.name", "a/b"), ("raw.size", None), ("raw", "x"), ("artifact", None), ("encoding", "gzip"),
        ("encoding", [1]), ("form", "heap"), ("fingerprint", []), ("database", 7), ("engine", ""),
        ("warnings", "one"), ("created", "2025-10-16"), ("created", "2025-10-16T02:00:00"),
        ("created", "2025-10-16T02:00:00+02:00"), ("created", "2025-10-16T02:00:00.5Z"),
        ("created", "2025-13-16T02:00:00Z"), ("backup", "shop"), ("backup", "shop/latest"), ("signature", "x"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(path: str, value: Any) -> None:
    with pytest.raises(IntegrityError, match=f"unable to read manifest: {path}"):
        Manifest.from_bytes(changed(path, value))


def test_a_backup_belongs_to_its_database() -> None:
    with pytest.raises(IntegrityError, match="'shop/20251016_020000' is not one of database 'shop2'"):
        Manifest.from_bytes(changed("database", "shop2"))


@pytest.mark.parametrize("version", ["larder-manifest/2", "", None, 1, {"a": 1}])
def test_a_later_format_is_refused_by_name(version: Any) -> None:
    with pytest.raises(IntegrityError, match="this version reads 'larder-manifest/1'") as caught:
        Manifest.from_bytes(changed("format", version))
    assert "later" in caught.value.hint


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not JSON"), (b"{", "not JSON"), (b"\xff\xfe", "not UTF-8"), (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"), (b"[" * 100_000, "not JSON"), (b'{"format": NaN}', "not JSON"),
        (b'{"format": ' + b"9" * 5000 + b"}", "not JSON"), (b"{}", "its format is None"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_told(data: bytes, what: str) -> None:
    with pytest.raises(IntegrityError, match=f"(?i)unable to read manifest: .*{what}"):
        Manifest.from_bytes(data)


@given(st.binary(max_size=200) | st.integers(0, 1500).map(lambda at: MANIFEST.to_bytes()[:at]))
def test_nothing_else_than_an_integrity_error_is_raised(data: bytes) -> None:
    if data.rstrip() != MANIFEST.to_bytes().rstrip():
        with pytest.raises(IntegrityError):
            Manifest.from_bytes(data)


@given(st.integers(0, 1100), st.integers(1, 255))
def test_an_altered_byte_raises_nothing_else(at: int, change: int) -> None:
    data = bytearray(MANIFEST.to_bytes())
    data[at % len(data)] ^= change
    try:
        Manifest.from_bytes(bytes(data))
    except IntegrityError:
        pass


def test_is_made_from_what_dump_and_compress_found() -> None:
    dump = Dump(
        form="file", suffix=".sql", content=Piece("content", "zstd", 5678, "b" * 64), server_version="16.4",
        tool="pg_dump 16.4", snapshot_at="2025-10-16T04:00:00.123456+02:00", fingerprint=MANIFEST.fingerprint,
        globals=Piece("globals", "zstd", 100, "d" * 64), warnings=["odd file \udcff"],
    )  # fmt: skip
    made = Artifact(
        Made(ARTIFACT.name, 1234, "a" * 64, "gzip", 5678, "b" * 64),
        Made(GLOBALS.name, 99, "c" * 64, "gzip", 100, "d" * 64),
    )
    facts = {
        "backup": MANIFEST.backup,
        "database": "shop",
        "engine": "postgres",
        "run": "01J9ZK",
        "host": "db-1",
    }
    manifest = manifest_of(dump, made, **facts)
    assert manifest == replace(MANIFEST, larder=larder.__version__, warnings=("odd file \\udcff",))
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest

    plain = Artifact(replace(made.content, encoding="none"))
    assert manifest_of(replace(dump, globals=None), plain, **facts).encoding == ()
    assert manifest_of(replace(dump, globals=None), plain, **facts).globals is None
    with pytest.raises(LarderError, match="no time zone"):
        manifest_of(replace(dump, snapshot_at="2025-10-16T04:00:00"), made, **facts)


def test_sha256sum_reads_the_sidecar(tmp_path: Path) -> None:
    contents = {ARTIFACT.name: b"content", GLOBALS.name: b"roles"}
    files = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        files.append(File(name, len(content), hashlib.sha256(content).hexdigest()))
    text = sidecar_text(replace(MANIFEST, artifact=files[0], globals=files[1]))
    (tmp_path / "sums").write_text(text)
    subprocess.run(["sha256sum", "--strict", "-c", "sums"], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / GLOBALS.name).write_bytes(b"rolls")
    assert (
        subprocess.run(["sha256sum", "-c", "sums"], cwd=tmp_path, check=False, capture_output=True).returncode
        == 1
    )


def test_the_sidecar_is_read_back() -> None:
    assert parse_sidecar(sidecar_text(MANIFEST)) == {ARTIFACT.name: "a" * 64, GLOBALS.name: "c" * 64}
    assert sidecar_text(replace(MANIFEST, globals=None)) == f"{'a' * 64}  {ARTIFACT.name}\n"
    assert parse_sidecar(f"{'A' * 64} *x.db\r\n") == {"x.db": "a" * 64}


@pytest.mark.parametrize(
    "text",
    ["", "\n", "a" * 64, f"{'a' * 63}  x", f"{'a' * 64}  a/b", f"{'a' * 64}  x\n{'b' * 64}  x\n", "no sums"],
)
def test_what_is_no_sidecar_is_told(text: str) -> None:
    with pytest.raises(IntegrityError, match="unable to read sidecar"):
        parse_sidecar(text)
