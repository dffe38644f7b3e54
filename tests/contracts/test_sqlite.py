"""SQLite beyond the contract: concurrent writers, both journal modes, what a crash left, and how files are named."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from larder import databases
from larder.codecs import codec
from larder.config import DatabaseSettings
from larder.databases import Database, Dump, open_database, sqlite
from larder.errors import IntegrityError, RefusedError, UnreachableError
from larder.pacing import Pacer
from larder.progress import Progress
from larder.streams import digest_file

CODEC = codec("gzip")


def opened(url: str, base: Path | None = None, compression: str = "gzip") -> Database:
    settings = DatabaseSettings(
        name="shop", url=SecretStr(url), base=base or Path("/nonexistent"), compression=compression
    )
    return open_database(settings, Path("/nonexistent"))


def dumped(path: Path, folder: Path, progress: Progress | None = None) -> Dump:
    folder.mkdir(exist_ok=True)
    return opened(f"sqlite:///{path}").dump(folder, CODEC, progress or Progress(), lambda _line: None)


def copied(made: Dump, folder: Path) -> Path:
    """The copy, taken out of what the dump has made of it."""
    copy = folder / "copy.db"
    with (
        (folder / made.content.path).open("rb") as stored,
        closing(codec(made.content.encoding).reader(stored)) as plain,
    ):
        copy.write_bytes(plain.read())
    assert digest_file(copy).sha256 == made.content.raw_sha256
    return copy


def connect(path: Path, timeout: float = 5) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=timeout, isolation_level=None)


def make(path: Path, mode: str = "delete", rows: int = 20_000) -> Path:
    """A database of about 10 MB whose rows are numbered from 0."""
    with closing(connect(path)) as made:
        made.execute(f"PRAGMA journal_mode = {mode}")
        made.execute("CREATE TABLE log (n INTEGER PRIMARY KEY, noise BLOB)")
        made.execute("BEGIN")
        made.executemany("INSERT INTO log VALUES (?, randomblob(500))", ((n,) for n in range(rows)))
        made.execute("COMMIT")
    return path


def beside(path: Path) -> set[str]:
    return {found.name for found in path.parent.iterdir() if found.is_file()} - {path.name}


class Writer:
    """Inserts the next number again and again, each in a transaction of its own."""

    def __init__(self, path: Path, first: int) -> None:
        self.path, self.next = path, first
        self.stop, self.refused = threading.Event(), 0

    def __call__(self) -> None:
        with closing(connect(self.path, timeout=0.05)) as connection:
            while not self.stop.is_set():
                try:
                    connection.execute("INSERT INTO log VALUES (?, randomblob(500))", (self.next,))
                    self.next += 1
                except sqlite3.OperationalError:
                    self.refused += 1


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    writer = Writer(path, 20_000)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(writer)
        try:
            wait_for(lambda: writer.next > 20_010)
            yield writer
        finally:
            writer.stop.set()
            running.result()


def wait_for(condition: Callable[[], bool]) -> None:
    clock = threading.Event()
    for _ in range(1000):
        if condition():
            return
        clock.wait(0.02)
    raise AssertionError("it did not come true")


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_copy_under_a_writer_is_of_one_moment(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "shop.db", mode)
    # Small steps, and in WAL mode the writer gets something done in each of them.
    monkeypatch.setattr(sqlite, "STEP", 1 << 20)
    done: list[int] = []

    class Watching(Progress):
        def reach(self, done_bytes: int) -> None:
            super().reach(done_bytes)
            done.append(done_bytes)
            if mode == "wal" and done_bytes < (self.total or 0):
                seen = writer.next
                wait_for(lambda: writer.next > seen + 5)

    with writing(path) as writer:
        made = dumped(path, tmp_path / "out", Watching())
        in_the_end = writer.next
        wait_for(lambda: writer.next > in_the_end)
    assert done == sorted(set(done)), "it began again"
    with closing(sqlite3.connect(copied(made, tmp_path / "out"))) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        count, last = copy.execute("SELECT count(*), max(n) FROM log").fetchone()
        assert copy.execute("PRAGMA journal_mode").fetchone() == (mode,)
    assert count == last + 1
    assert 20_010 < count <= in_the_end
    assert made.fingerprint["tables"] == {"log": {"rows": count}}
    if mode == "wal":
        assert writer.refused == 0
        assert in_the_end > count + 20


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_nothing_is_left_beside_the_source_or_the_copy(mode: str, tmp_path: Path) -> None:
    path = make(tmp_path / "shop.db", mode, rows=10)
    before = path.read_bytes()
    opened(f"sqlite:///{path}").look()
    made = dumped(path, tmp_path / "out")
    assert beside(path) == set()
    assert path.read_bytes() == before
    assert made.content.path == "dump.db.gz"
    assert made.fullest == path.stat().st_size + (tmp_path / "out" / "dump.db.gz").stat().st_size
    assert beside(tmp_path / "out" / "dump.db.gz") == set()


def test_a_copy_that_its_artifact_would_have_to_decode_stays_as_it_is(tmp_path: Path) -> None:
    path = make(tmp_path / "shop.db", rows=10)
    made = opened(f"sqlite:///{path}", compression="none").dump(
        tmp_path, CODEC, Progress(), lambda _line: None
    )
    assert (made.content.path, made.content.encoding) == ("dump.db", "none")
    assert beside(path) == {"dump.db"}
    assert digest_file(tmp_path / "dump.db").sha256 == made.content.raw_sha256


def test_a_copy_is_encoded_as_fast_as_may_be_however_slowly_it_was_made(tmp_path: Path) -> None:
    """`max_rate` is about what the database feels."""
    path = make(tmp_path / "shop.db", rows=1000)
    progress = Progress()
    spent: list[int] = []

    class Counting(Pacer):
        def spend(self, moved: int) -> None:
            spent.append(moved)

    progress.pacer = Counting(1)
    dumped(path, tmp_path / "out", progress)
    assert sum(spent) == path.stat().st_size


def test_what_is_only_in_the_write_ahead_log_is_copied_too(tmp_path: Path) -> None:
    path = make(tmp_path / "shop.db", "wal", rows=10)
    with closing(connect(path)) as application:
        application.execute("PRAGMA wal_autocheckpoint = 0")
        application.execute("INSERT INTO log VALUES (10, NULL)")
        before = beside(path)
        assert dumped(path, tmp_path / "out").fingerprint["tables"] == {"log": {"rows": 11}}
        assert beside(path) == before == {"shop.db-wal", "shop.db-shm"}


def test_what_a_crash_left_in_the_write_ahead_log_is_copied_too(tmp_path: Path) -> None:
    path = make(tmp_path / "shop.db", "wal", rows=10)
    crash(path, "INSERT INTO log VALUES (10, NULL)", commit=True)
    assert (tmp_path / "shop.db-wal").stat().st_size > 0
    assert dumped(path, tmp_path / "out").fingerprint["tables"] == {"log": {"rows": 11}}


def test_a_transaction_that_a_crash_cut_short_has_to_be_put_right_first(tmp_path: Path) -> None:
    path = make(tmp_path / "shop.db", rows=1000)
    crash(path, "UPDATE log SET noise = randomblob(500)", commit=False)
    assert (tmp_path / "shop.db-journal").stat().st_size > 0
    with pytest.raises(RefusedError, match="unable to dump database 'shop'") as caught:
        dumped(path, tmp_path / "out")
    assert "open it once with its application or sqlite3" in caught.value.hint
    with closing(connect(path)) as application:
        application.execute("SELECT count(*) FROM log").fetchone()
    assert dumped(path, tmp_path / "again").fingerprint["tables"] == {"log": {"rows": 1000}}


def crash(path: Path, statement: str, *, commit: bool) -> None:
    """Run a statement in a process that ends without closing the database."""
    code = (
        "import os, sqlite3, sys\n"
        "made = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "made.execute('PRAGMA cache_size = 5')\n"
        "made.execute('BEGIN'); made.execute(sys.argv[2])\n"
        f"{'made.execute(chr(67) + chr(79) + chr(77) + chr(77) + chr(73) + chr(84))' if commit else ''}\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, path, statement], check=True)


def test_a_lock_that_stays_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE", 0.2)
    path = make(tmp_path / "shop.db", rows=10)
    with closing(connect(path)) as application:
        application.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnreachableError, match="locked") as caught:
            dumped(path, tmp_path / "out")
    assert caught.value.retryable


def test_a_damaged_database_is_not_backed_up(tmp_path: Path) -> None:
    path = make(tmp_path / "shop.db", rows=1000)
    with path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(IntegrityError, match="the database is damaged") as caught:
        dumped(path, tmp_path / "out")
    assert "'shop'" in caught.value.message


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = make(tmp_path / "shop.db", rows=10)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        # Root may read everything, so be somebody else for a moment.
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(RefusedError, match="permission denied") as caught:
            opened(f"sqlite:///{path}").look()
    finally:
        os.seteuid(user)
    assert "read the file" in caught.value.hint


def test_a_database_without_tables_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(connect(path)) as made:
        made.execute("CREATE TABLE a (n)")
        made.execute("DROP TABLE a")
    assert dumped(path, tmp_path / "out").warnings == ["the database holds no table"]


def test_virtual_tables_and_what_they_are_made_of_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(connect(path)) as made:
        made.execute("CREATE TABLE docs_of_mine (n)")
        made.execute("CREATE VIRTUAL TABLE docs USING fts5(body)")
        made.execute("INSERT INTO docs VALUES ('some words')")
        made.execute("CREATE VIEW seen AS SELECT * FROM docs_of_mine")
        made.execute("CREATE TABLE counted (n INTEGER PRIMARY KEY AUTOINCREMENT)")
    made_of = dumped(path, tmp_path / "out")
    assert set(made_of.fingerprint["tables"]) == {"docs_of_mine", "counted"}
    with closing(sqlite3.connect(copied(made_of, tmp_path / "out"))) as copy:
        assert copy.execute("SELECT count(*) FROM docs WHERE docs MATCH 'words'").fetchone() == (1,)


def test_functions_of_the_applications_own_make_a_warning_not_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(connect(path)) as made:
        made.create_function("own", 1, lambda value: value, deterministic=True)
        made.execute("CREATE TABLE a (n CHECK (own(n) > 0))")
        made.execute("INSERT INTO a VALUES (1)")
    made_of = dumped(path, tmp_path / "out")
    assert made_of.fingerprint["tables"] == {"a": {"rows": 1}}
    assert all("could not be checked wholly" in warning for warning in made_of.warnings)


@pytest.mark.parametrize(
    ("url", "path", "name"),
    [
        ("sqlite:///data/shop.db", "/base/data/shop.db", "shop"),
        ("sqlite:////data/shop.db", "/data/shop.db", "shop"),
        ("sqlite+pysqlite:////data/shop.db", "/data/shop.db", "shop"),
        ("sqlite:///./shop.db?timeout=5", "/base/shop.db", "shop"),
        ("file:./dev.db", "/base/dev.db", "dev"),
        ("file:dev.db?connection_limit=1&socket_timeout=10", "/base/dev.db", "dev"),
        ("file:../shared/dev.sqlite3", "/base/../shared/dev.sqlite3", "dev"),
        ("file:/data/dev.db", "/data/dev.db", "dev"),
        ("file:///data/dev.db", "/data/dev.db", "dev"),
        ("file://localhost/data/dev.db", "/data/dev.db", "dev"),
        ("file:./100%25.db", "/base/100%25.db", "100"),
    ],
)
def test_connection_strings_lead_to_files(url: str, path: str, name: str) -> None:
    assert databases.engine_of(url) == "sqlite"
    assert databases.check_url(url) is None
    assert sqlite.path_in(url, Path("/base")) == Path(path)
    assert databases.name_in(url) == name


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite+pysqlite:///:memory:",
        "file::memory:",
        "file:a?mode=memory",
    ],
)
def test_a_database_in_memory_is_no_database_to_back_up(url: str) -> None:
    problem = databases.check_url(url)
    assert problem
    assert "memory" in problem


def test_a_name_is_taken_as_written_and_decoded_where_only_that_exists(tmp_path: Path) -> None:
    make(tmp_path / "my shop.db", rows=1)
    assert sqlite.path_in("file:my%20shop.db", tmp_path) == tmp_path / "my shop.db"
    make(tmp_path / "my%20shop.db", rows=1)
    assert sqlite.path_in("file:my%20shop.db", tmp_path) == tmp_path / "my%20shop.db"


def test_prismas_own_folder_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "prisma").mkdir()
    make(tmp_path / "prisma" / "dev.db", rows=1)
    with pytest.raises(RefusedError) as caught:
        opened("file:./dev.db", tmp_path).look()
    assert str(tmp_path / "prisma" / "dev.db") in caught.value.hint
