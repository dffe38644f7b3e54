"""The manifest and the sidecar: what is written is read back, and nothing else is read."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

import larder
from larder.artifact import Artifact
from larder.artifact import File as Made
from larder.databases import Dump, Piece
from larder.errors import IntegrityError, LarderError
from larder.manifest import (
    UNSIGNED,
    Content,
    File,
    Manifest,
    Previous,
    manifest_of,
    parse_sidecar,
    sidecar_text,
)
from larder.signing import Signature, Signer

ARTIFACT = File("backup_postgres_20251016_020000.sql.gz", 1234, "a" * 64)
GLOBALS = File("backup_postgres_20251016_020000.globals.sql.gz", 99, "c" * 64)

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
PREVIOUS = Previous("shop/20251015_020000", "e" * 64)

FACTS = Manifest(
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
    previous=PREVIOUS,
)

MANIFEST = FACTS.signed(SIGNER)


def test_is_read_back_as_it_was_written() -> None:
    plain = replace(FACTS, globals=None, globals_raw=None, encoding=(), warnings=(), previous=None)
    for manifest in (MANIFEST, plain.signed(SIGNER)):
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
    assert document["previous"] == {"backup": "shop/20251015_020000", "sha256": "e" * 64}
    assert document["signature"] == {
        "key": SIGNER.public_key,
        "value": MANIFEST.signature.value,
    }


def test_the_same_facts_make_the_same_bytes() -> None:
    tables = FACTS.fingerprint["tables"]
    shuffled = {"tables": {name: tables[name] for name in reversed(tables)}, "row_counts": "exact"}
    assert replace(FACTS, fingerprint=shuffled).signed(SIGNER).to_bytes() == MANIFEST.to_bytes()


def test_its_digest_is_that_of_its_bytes() -> None:
    assert MANIFEST.digest == hashlib.sha256(MANIFEST.to_bytes()).hexdigest()


@given(name=st.text(st.characters()), rows=st.integers(0, 2**63 - 1))
def test_any_table_name_is_kept(name: str, rows: int) -> None:
    manifest = replace(FACTS, fingerprint={"tables": {name: {"rows": rows}}}).signed(SIGNER)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


# The signature


def resigned(document: dict[str, Any]) -> bytes:
    """The document signed again, whatever it says, as somebody with a key of his own can do."""
    rest = {key: value for key, value in document.items() if key != "signature"}
    signature = SIGNER.sign(canonical(rest))
    return canonical({**rest, "signature": {"key": signature.key, "value": signature.value}})


def canonical(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")


def test_signs_everything_else_in_the_manifest() -> None:
    document = json.loads(MANIFEST.to_bytes())
    assert resigned(document) == MANIFEST.to_bytes()


def test_every_single_bit_that_is_flipped_is_found() -> None:
    data = MANIFEST.to_bytes()
    chance = random.Random(4)
    for place in chance.sample(range(len(data) * 8), min(2000, len(data) * 8)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(IntegrityError, match="unable to read manifest: "):
            Manifest.from_bytes(bytes(flipped))


def test_every_bit_of_the_signature_counts() -> None:
    data = MANIFEST.to_bytes()
    start = data.index(b'"signature"')
    end = data.index(b"}", start)
    for place in range(start * 8, end * 8):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(IntegrityError):
            Manifest.from_bytes(bytes(flipped))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"size": 1234', b'"size": 1235'),
        (b'"rows": 7', b'"rows": 8'),
        (b"public.gr", b"public.Gr"),
        (b"pg_dump is newer", b"pg_dump is never"),
        (b"20251015", b"20251014"),
        (b"eeee", b"eeef"),
    ],
)
def test_what_was_altered_does_not_fit(old: bytes, new: bytes) -> None:
    with pytest.raises(IntegrityError, match="unable to read manifest: its signature does not fit") as caught:
        Manifest.from_bytes(MANIFEST.to_bytes().replace(old, new, 1))
    assert "other stores" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\n",
        lambda data: data[:-1],
        lambda data: b" " + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"  ", b"\t"),
        lambda data: json.dumps(json.loads(data)).encode(),
        lambda data: json.dumps(json.loads(data), indent=2, sort_keys=True).encode() + b"\n",
        lambda data: data.replace("ö".encode(), b"\\u00f6"),
        lambda data: data.replace(b'  "database": "shop"', b'  "database": "crm",\n  "database": "shop"'),
        lambda data: data.replace(b'"size": 1234', b'"size": 1,\n    "size": 1234'),
        lambda data: data.replace(b'"rows": 0', b'"rows": -0'),
    ],
)  # fmt: skip
def test_another_spelling_of_the_same_facts_is_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(IntegrityError, match="it is not in canonical form"):
        Manifest.from_bytes(change(MANIFEST.to_bytes()))


@pytest.mark.parametrize("which", ["key", "value"])
def test_base64_has_one_spelling(which: str) -> None:
    """The last letter before the padding has bits that no byte needs."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    text = getattr(MANIFEST.signature, which)
    bare = text.rstrip("=")
    spare = 2 if which == "key" else 4
    index = alphabet.index(bare[-1])
    for other in range(1, 1 << spare):
        spelling = bare[:-1] + alphabet[index ^ other] + text[len(bare) :]
        assert base64.b64decode(spelling) == base64.b64decode(text)
        with pytest.raises(IntegrityError, match=rf"signature\.{which}: has to be \d\d bytes in base64"):
            Manifest.from_bytes(MANIFEST.to_bytes().replace(text.encode(), spelling.encode()))
    for spelling in (
        bare,
        text + "=",
        text[:8] + "\\n" + text[8:],
        text.replace("/", "_").replace("+", "-") + " ",
    ):
        with pytest.raises(IntegrityError):
            Manifest.from_bytes(MANIFEST.to_bytes().replace(text.encode(), spelling.encode()))


def test_one_that_nobody_signed_is_refused() -> None:
    assert FACTS.signature == UNSIGNED
    with pytest.raises(IntegrityError):
        Manifest.from_bytes(FACTS.to_bytes())
    unsigned = {key: value for key, value in MANIFEST.to_dict().items() if key != "signature"}
    with pytest.raises(IntegrityError, match="unable to read manifest: signature: is missing"):
        Manifest.from_bytes(canonical(unsigned))


def test_the_key_that_signed_is_known_and_cannot_be_exchanged() -> None:
    other = Signer(Ed25519PrivateKey.generate())
    by_other = FACTS.signed(other)
    assert Manifest.from_bytes(by_other.to_bytes()).signature.key == other.public_key
    forged = replace(MANIFEST, signature=Signature(other.public_key, MANIFEST.signature.value))
    with pytest.raises(IntegrityError, match="its signature does not fit"):
        Manifest.from_bytes(forged.to_bytes())


@pytest.mark.parametrize("value", [[[]], "x" * 10, {"deep": 1e308}])
def test_a_fingerprint_of_any_kind_is_kept(value: Any) -> None:
    manifest = replace(FACTS, fingerprint={"more": value}).signed(SIGNER)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize("text", ["1e999", "[" * 900 + "]" * 900])
def test_what_cannot_be_written_again_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        Manifest.from_bytes(MANIFEST.to_bytes().replace(b'"rows": 7', f'"rows": {text}'.encode()))


# The facts


def changed(path: str, value: Any) -> bytes:
    """The manifest with one value set, or taken out, and signed again."""
    document = MANIFEST.to_dict()
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return canonical(document) if path.startswith("signature") else resigned(document)


OPTIONAL = ("globals", "globals_raw", "previous", "warnings")


@pytest.mark.parametrize("key", OPTIONAL)
def test_a_key_that_may_be_empty_has_to_be_there(key: str) -> None:
    with pytest.raises(IntegrityError, match="unable to read manifest: "):
        Manifest.from_bytes(changed(key, ...))


@pytest.mark.parametrize("key", [key for key in MANIFEST.to_dict() if key not in OPTIONAL])
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
        ("created", "2025-13-16T02:00:00Z"), ("backup", "shop"), ("backup", "shop/latest"), ("more", "x"),
        ("previous", "shop/20251015_020000"), ("previous.backup", "shop"), ("previous.sha256", "e"),
        ("previous.more", 1), ("signature", "x"), ("signature", None), ("signature.key", ...),
        ("signature.value", 5), ("signature.more", "x"),
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
    if data != MANIFEST.to_bytes():
        with pytest.raises(IntegrityError):
            Manifest.from_bytes(data)


@given(st.integers(0, 3000), st.integers(1, 255))
def test_an_altered_byte_is_found_and_raises_nothing_else(at: int, change: int) -> None:
    data = bytearray(MANIFEST.to_bytes())
    data[at % len(data)] ^= change
    with pytest.raises(IntegrityError):
        Manifest.from_bytes(bytes(data))


def test_is_made_from_what_dump_and_compress_found() -> None:
    dump = Dump(
        form="file", suffix=".sql", content=Piece("content", "zstd", 5678, "b" * 64), server_version="16.4",
        tool="pg_dump 16.4", snapshot_at="2025-10-16T04:00:00.123456+02:00", fingerprint=MANIFEST.fingerprint,
        globals=Piece("globals", "zstd", 100, "d" * 64), warnings=["odd file \udcff"],
    )  # fmt: skip
    made = Artifact(
        Made(ARTIFACT.name, 1234, "a" * 64, ("gzip",), 5678, "b" * 64),
        Made(GLOBALS.name, 99, "c" * 64, ("gzip",), 100, "d" * 64),
    )
    facts = {
        "backup": MANIFEST.backup,
        "database": "shop",
        "engine": "postgres",
        "run": "01J9ZK",
        "host": "db-1",
    }
    manifest = manifest_of(dump, made, previous=PREVIOUS, **facts)
    assert manifest == replace(FACTS, larder=larder.__version__, warnings=("odd file \\udcff",))
    assert Manifest.from_bytes(manifest.signed(SIGNER).to_bytes()) == manifest.signed(SIGNER)
    assert manifest_of(dump, made, **facts).previous is None

    plain = Artifact(replace(made.content, encoding=()))
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


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels else []


@pytest.mark.parametrize(
    "fingerprint",
    [
        {"tables": []},
        {"tables": 5},
        {"tables": {"users": 5}},
        {"tables": {"users": {"rows": "x"}}},
        {"tables": {"users": {"rows": -1}}},
        {"tables": {"users": {"rows": True}}},
        {"tables": {"users": {"rows": None}}},
        {"tables": {"users": {"rows": 2**63}}},
        {"tables": {"users": {"rows": 10**4000}}},
        {"tables": {}, "row_counts": 5},
        {"tables": {}, "row_counts": None},
        {"tables": {"users": {"more": nested(40)}}},
        {"more": nested(40)},
    ],
)
def test_a_fingerprint_of_another_shape_is_refused(fingerprint: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="fingerprint"):
        Manifest.from_bytes(replace(MANIFEST, fingerprint=fingerprint).signed(SIGNER).to_bytes())


@pytest.mark.parametrize(
    "fingerprint", [{}, {"tables": {"users": {}}}, {"tables": {"users": {"rows": 2**63 - 1, "sha256": "x"}}}]
)
def test_what_engines_may_leave_out_or_add_is_taken(fingerprint: dict[str, Any]) -> None:
    manifest = replace(FACTS, fingerprint=fingerprint).signed(SIGNER)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize("text", ["x" * 81, "a\0b", "half \udcff", "\x1b[31m"])
@pytest.mark.parametrize("field", ["engine", "run", "host"])
def test_what_no_ledger_can_keep_is_refused(field: str, text: str) -> None:
    with pytest.raises(IntegrityError, match=f"unable to read manifest: {field}"):
        Manifest.from_bytes(changed(field, text))


@pytest.mark.parametrize("year", ["9999", "1969"])
def test_a_time_that_no_calendar_can_work_with_is_refused(year: str) -> None:
    with pytest.raises(IntegrityError, match="unable to read manifest: created"):
        Manifest.from_bytes(changed("created", f"{year}-12-31T23:59:59Z"))


@pytest.mark.parametrize("size", [2**63, 10**400])
def test_a_size_beyond_all_stores_is_refused(size: int) -> None:
    odd = replace(MANIFEST, artifact=replace(MANIFEST.artifact, size=size))
    with pytest.raises(IntegrityError, match=r"artifact\.size"):
        Manifest.from_bytes(odd.signed(SIGNER).to_bytes())


@pytest.mark.parametrize("note", ["x", "x" * (1 << 15)], ids=["small", "large"])
def test_bytes_that_were_good_once_are_so_alone(note: str) -> None:
    """A manifest that was read is remembered, and nothing else is taken for it."""
    manifest = replace(FACTS, warnings=(note,)).signed(SIGNER)
    data = manifest.to_bytes()
    for _ in range(3):
        assert Manifest.from_bytes(data) == manifest
        with pytest.raises(IntegrityError, match="its signature does not fit"):
            Manifest.from_bytes(data.replace(b'"x', b'"y', 1))
