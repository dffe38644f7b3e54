"""SQLite's scratch database: what comes back is compared with what was dumped, and nothing of it stays."""

from __future__ import annotations

import gzip
import hashlib
import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pydantic import SecretStr

from larder.codecs import codec
from larder.config import DatabaseSettings
from larder.databases import open_database, open_scratch
from larder.drilling import Examination, Scratch
from larder.errors import ExhaustedError, IntegrityError, RefusedError
from larder.progress import Progress
from larder.restoring import Content, Source

DRILL = "0123456789ab"

SHOP = """
    CREATE TABLE customers (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
    CREATE TABLE orders (
        id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customers (id), cents INTEGER CHECK (cents >= 0)
    );
    CREATE INDEX by_customer ON orders (customer);
    INSERT INTO customers (name) VALUES ('ann'), ('bob');
    INSERT INTO orders VALUES (1, 1, 500), (2, 2, 700), (3, 2, 900);
"""

EVERYTHING = f"""
    {SHOP}
    CREATE TABLE pairs (a TEXT, b BLOB, PRIMARY KEY (a, b)) WITHOUT ROWID;
    INSERT INTO pairs VALUES ('x', x'00ff'), ('y', x''), ('z', randomblob(9000));
    CREATE TABLE prices (net REAL, gross REAL GENERATED ALWAYS AS (net * 1.19) STORED, double AS (net * 2));
    INSERT INTO prices (net) VALUES (1), (2);
    CREATE TABLE "größe ""x"" — y" ("Spalte 1" TEXT);
    INSERT INTO "größe ""x"" — y" VALUES ('naïve'), ('日本');
    CREATE TABLE hollow (a);
    CREATE TABLE log (line TEXT);
    CREATE VIEW dear AS SELECT * FROM orders WHERE cents > 600;
    CREATE TRIGGER note AFTER INSERT ON orders BEGIN INSERT INTO log VALUES ('{"long " * 60}'); END;
    CREATE INDEX partly ON orders (lower(cents)) WHERE cents > 600;
    CREATE VIRTUAL TABLE docs USING fts5 (body);
    INSERT INTO docs VALUES ('a text that can be searched');
    INSERT INTO orders VALUES (4, 1, 100);
"""


def make(path: Path, *scripts: str) -> Path:
    with closing(sqlite3.connect(path)) as made:
        for script in scripts:
            made.executescript(script)
        made.commit()
    return path


def backup(path: Path, folder: Path, **options: Any) -> Content:
    """A backup of the database at `path`, as the dump itself makes it."""
    out = folder / "dump"
    out.mkdir()
    settings = DatabaseSettings(name="shop", url=SecretStr(f"sqlite:///{path}"), **options)
    made = open_database(settings, folder).dump(out, codec("none"), Progress(), lambda _line: None)
    source = Source(
        "sqlite",
        "file",
        made.content.raw_size,
        made.content.raw_sha256,
        made.server_version,
        made.tool,
        made.fingerprint,
    )
    return packed(source, (out / "dump.db").read_bytes(), folder)


def packed(source: Source, data: bytes, folder: Path) -> Content:
    stored = gzip.compress(data, 1)

    def opened() -> BinaryIO:
        return gzip.GzipFile(fileobj=io.BytesIO(stored))  # type: ignore[return-value]

    return Content(source, opened, None, folder / "scratch")


def resigned(content: Content, change: Callable[[Path], None], folder: Path) -> Content:
    """Another file in the backup's place, its checksum and signature as if it were right."""
    path = folder / "changed.db"
    with closing(content.open()) as stream:
        path.write_bytes(stream.read())
    change(path)
    data = path.read_bytes()
    source = replace(content.source, raw_size=len(data), raw_sha256=hashlib.sha256(data).hexdigest())
    return packed(source, data, folder)


def scratch(folder: Path, **options: Any) -> Scratch:
    settings = DatabaseSettings(name="shop", url=SecretStr("sqlite:////nowhere/shop.db"), **options)
    return open_scratch(settings, "sqlite", DRILL, folder / "scratch")


def load(made: Scratch, content: Content) -> list[str]:
    return made.load(content, Progress(), lambda _line: None)


def drilled(content: Content, folder: Path, **options: Any) -> Examination:
    made = scratch(folder, **options)
    assert made.refusals(content.source) == []
    assert load(made, content) == []
    found = made.examine(content, Progress())
    assert [path.name for path in (folder / "scratch").iterdir()] == ["scratch.db"]
    assert made.drop()
    assert not (folder / "scratch").exists()
    return found


def sql(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        make(path, *statements)

    return change


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_everything_that_sqlite_knows_is_proven(mode: str, tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", f"PRAGMA journal_mode = {mode};", EVERYTHING), tmp_path)
    found = drilled(content, tmp_path, checks=("SELECT count(*) = 4 FROM orders",))
    assert found == Examination("content", 7, 14, (), (), ())


def test_the_fingerprint_has_every_definition(tmp_path: Path) -> None:
    schema = backup(make(tmp_path / "shop.db", EVERYTHING), tmp_path).source.fingerprint["schema"]
    assert schema["index by_customer on orders"] == "CREATE INDEX by_customer ON orders (customer)"
    assert schema["index sqlite_autoindex_customers_1 on customers"] == ""
    assert schema['table "größe ""x"" — y"'] == 'CREATE TABLE "größe ""x"" — y" ("Spalte 1" TEXT)'
    assert schema["trigger note on orders"].startswith("sha256:")
    assert schema["view dear"] == "CREATE VIEW dear AS SELECT * FROM orders WHERE cents > 600"


@pytest.mark.parametrize("statements", ["PRAGMA user_version = 1;", "CREATE VIEW v AS SELECT 1;"])
def test_a_database_without_tables_is_proven(statements: str, tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", statements), tmp_path)
    assert drilled(content, tmp_path) == Examination("content", 0, 0, (), (), ())


def test_without_row_counts_all_of_it_is_compared_too(tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", SHOP), tmp_path, row_counts="off")
    assert drilled(content, tmp_path) == Examination("content", 2, 5, (), (), ())


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (sql("DROP TABLE orders"), "table orders is missing"),
        (sql("DELETE FROM orders WHERE id = 3"), "table 'orders' has 2 rows, and the backup had 3"),
        (sql("DROP INDEX by_customer"), "index by_customer on orders is missing"),
        (sql("CREATE TABLE more (a)"), "table more is not in the backup"),
        (
            sql("DROP INDEX by_customer; CREATE INDEX by_customer ON orders (cents)"),
            "index by_customer on orders is defined as CREATE INDEX by_customer ON orders (cents), "
            "and was as CREATE INDEX by_customer ON orders (customer)",
        ),
        (
            sql("UPDATE orders SET customer = 9 WHERE customer = 2"),
            "2 rows of table 'orders' refer to rows that are not there, and 0 did when it was dumped",
        ),
    ],
)
def test_what_was_left_out_is_named_though_every_checksum_is_right(
    change: Callable[[Path], None], difference: str, tmp_path: Path
) -> None:
    content = backup(make(tmp_path / "shop.db", SHOP), tmp_path)
    assert difference in drilled(resigned(content, change, tmp_path), tmp_path).differences


def test_one_changed_byte_of_a_value_shows(tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", SHOP), tmp_path)
    made = scratch(tmp_path)
    load(made, content)
    # Once in its row, and once in the index of its column: both, so that SQLite finds nothing odd.
    path = tmp_path / "scratch" / "scratch.db"
    path.write_bytes(path.read_bytes().replace(b"ann", b"anm"))
    (only,) = made.examine(content, Progress()).differences
    assert only.startswith("the file has 24576 bytes with SHA-256 ")
    assert "which pages differ cannot be told" in only
    assert "anm" not in only


def test_references_to_nothing_that_were_there_before_are_no_difference(tmp_path: Path) -> None:
    broken = "INSERT INTO orders VALUES (9, 99, 1);"
    content = backup(make(tmp_path / "shop.db", SHOP, broken), tmp_path)
    assert content.source.fingerprint["foreign_keys"] == {"orders": 1}
    assert drilled(content, tmp_path) == Examination("content", 2, 6, (), (), ())


def test_of_an_older_backup_nobody_knows_whether_they_were_there_before(tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", SHOP, "INSERT INTO orders VALUES (9, 99, 1);"), tmp_path)
    older = {key: content.source.fingerprint[key] for key in ("row_counts", "tables")}
    found = drilled(replace(content, source=replace(content.source, fingerprint=older)), tmp_path)
    assert found.differences == ()
    (line,) = found.not_covered
    assert line.startswith("1 rows of table 'orders' refer to rows that are not there")


def test_a_database_that_was_damaged_when_it_was_dumped_is_told_so(tmp_path: Path) -> None:
    path = make(tmp_path / "shop.db", SHOP)
    # An index that is not its table's: what a dump looks for is damage of pages.
    make(
        path,
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE INDEX by_customer ON orders (cents)' "
        "WHERE name = 'by_customer';",
    )
    found = drilled(backup(path, tmp_path), tmp_path)
    assert found.differences[0] == (
        "its bytes are those of the copy that was dumped: the live database was damaged already when it was dumped"
    )
    assert "row 1 missing from index by_customer" in found.differences


def test_a_damaged_file_is_described_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", SHOP), tmp_path)
    made = scratch(tmp_path)
    load(made, content)
    path = tmp_path / "scratch" / "scratch.db"
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * 4096 + data[8192:])
    differences = made.examine(content, Progress()).differences
    assert differences[0].startswith("the file has ")
    assert "SQLite cannot read all of it: database disk image is malformed" in differences


def test_what_a_newer_sqlite_has_made_is_no_damage(tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", SHOP), tmp_path)

    def modern(path: Path) -> None:
        make(
            path,
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE MODERN INDEX' "
            "WHERE name = 'by_customer';",
        )

    changed = resigned(content, modern, tmp_path)
    changed = replace(changed, source=replace(changed.source, server_version="99.1.0"))
    made = scratch(tmp_path)
    load(made, changed)
    with pytest.raises(RefusedError, match=r"the backup was made by 99\.1\.0"):
        made.examine(changed, Progress())


def test_what_only_the_application_can_check_is_not_covered(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as made:
        made.create_collation("german", lambda a, b: (a > b) - (a < b))
        made.executescript(
            "CREATE TABLE words (word TEXT); CREATE INDEX sorted ON words (word COLLATE german);"
        )
        made.execute("INSERT INTO words VALUES ('a'), ('b')")
        made.commit()
    found = drilled(backup(path, tmp_path), tmp_path)
    assert found.differences == ()
    (line,) = found.not_covered
    assert line.endswith("no such collation sequence: german")


def test_foreign_keys_that_fit_nothing_are_not_covered(tmp_path: Path) -> None:
    odd = "CREATE TABLE odd (a REFERENCES plain (b)); CREATE TABLE plain (b); INSERT INTO odd VALUES (1);"
    found = drilled(backup(make(tmp_path / "shop.db", SHOP, odd), tmp_path), tmp_path)
    assert found.differences == ()
    assert found.not_covered == (
        'the foreign keys of table \'odd\': foreign key mismatch - "odd" referencing "plain"',
    )


def test_checks_are_told_apart_from_differences(tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", SHOP), tmp_path)
    checks = ("SELECT count(*) > 0 FROM orders", "SELECT count(*) > 9 FROM orders", "DELETE FROM orders")
    found = drilled(content, tmp_path, checks=checks)
    assert found.differences == ()
    assert found.failed_checks[0] == "check 'SELECT count(*) > 9 FROM orders' is not true"
    assert "attempt to write a readonly database" in found.failed_checks[1]


WRITING = ("ATTACH '{}' AS more", "VACUUM INTO '{}'", "PRAGMA temp_store_directory = '/tmp'")


def test_a_check_writes_nowhere_else_either(tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", SHOP), tmp_path)
    checks = tuple(query.format(tmp_path / "written.db") for query in WRITING)
    found = drilled(content, tmp_path, checks=(*checks, "SELECT count(*) = 0 FROM pragma_foreign_key_check"))
    assert [line.rpartition(": ")[2] for line in found.failed_checks] == [
        "not authorized",
        "authorization denied",
        "not authorized",
    ]
    assert not (tmp_path / "written.db").exists()


def test_what_decodes_to_something_else_is_not_loaded(tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", SHOP), tmp_path)
    made = scratch(tmp_path)
    with pytest.raises(IntegrityError, match="the backup decodes to "):
        load(made, packed(content.source, b"SQLite format 3\0" + bytes(4080), tmp_path))
    assert not (tmp_path / "scratch").exists()


def test_a_second_load_begins_anew_and_drop_can_come_at_any_time(tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", SHOP), tmp_path)
    made = scratch(tmp_path)
    assert not made.drop()
    load(made, content)
    path = tmp_path / "scratch" / "scratch.db"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"half")
    path.with_name("scratch.db-wal").write_bytes(b"of another attempt")
    (tmp_path / "scratch" / "other").touch()
    load(made, content)
    assert made.examine(content, Progress()).differences == ()
    assert scratch(tmp_path).drop()
    assert not scratch(tmp_path).drop()
    assert [found.name for found in (tmp_path / "scratch").iterdir()] == ["other"]
    with pytest.raises(RefusedError, match="it is not there"):
        made.examine(content, Progress())


def test_what_cannot_be_drilled_is_refused_beforehand(tmp_path: Path) -> None:
    content = backup(make(tmp_path / "shop.db", SHOP), tmp_path)
    made = scratch(tmp_path)
    (refusal,) = made.refusals(replace(content.source, engine="postgres"))
    assert isinstance(refusal, RefusedError)
    (refusal,) = made.refusals(replace(content.source, raw_size=1 << 60))
    assert isinstance(refusal, ExhaustedError)
