"""What every engine promises in `larder.databases`, against real databases of every version."""

from __future__ import annotations

import gzip
import hashlib
import io
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from larder import databases, secret
from larder.codecs import codec
from larder.config import DatabaseSettings
from larder.databases import Database, Dump, open_database
from larder.errors import ExhaustedError, LarderError, RefusedError, UnreachableError
from larder.progress import Progress
from larder.streams import Hashed, write_tar
from tests.dumps import wait_for
from tests.servers import PASSWORD, SAMPLE, SAMPLE_ROWS, Clusters, free_port, postgres_installs, small_disk

#: The words of all engines.
ENGINES = [module.__name__.rpartition(".")[2] for module in databases._modules()]

CASES = [
    f"postgres{version}-{form}" for version in postgres_installs() for form in ("plain", "directory")
] + [word for word in ENGINES if word != "postgres"]


@dataclass
class Subject:
    """A filled database, and how to get at it rightly and wrongly."""

    url: str
    rows: dict[str, int]
    options: dict[str, Any]
    #: Connection strings that are refused, and part of what the message has to say.
    refused: list[tuple[str, str]]
    #: Connection strings that nobody answers at.
    unreachable: list[str]
    #: Fails while Larder holds a connection or a lock.
    released: Callable[[], None]
    #: The names of the databases, or files, that are there.
    present: Callable[[], list[str]]

    def open(self, url: str | None = None, **options: Any) -> Database:
        chosen = {**self.options, **options}
        settings = DatabaseSettings(name="shop", url=SecretStr(url or self.url), **chosen)
        return open_database(settings, Path("/nonexistent"))


@pytest.fixture(scope="module", params=CASES)
def subject(request: pytest.FixtureRequest, clusters: Clusters, tmp_path_factory: Any) -> Iterator[Subject]:
    word, _, form = request.param.partition("-")
    if word in FACTORIES:
        yield FACTORIES[word](tmp_path_factory.mktemp(word))
        return
    cluster = clusters.get(int(word.removeprefix("postgres")))
    with cluster.database(f"sh öp {uuid.uuid4().hex[:6]}") as name:
        cluster.execute(SAMPLE, name)
        yield Subject(
            url=cluster.url(name),
            rows=SAMPLE_ROWS,
            options={"format": form, "postgres_bin": tuple(postgres_installs().values())},
            refused=[
                (cluster.url(name, password="not-its-password"), "password authentication failed"),
                (cluster.url("nowhere"), "does not exist"),
                (cluster.url(name, user="nobody"), "nobody"),
            ],
            unreachable=[
                f"postgresql://me:{PASSWORD[:6]}@127.0.0.1:{free_port()}/shop",
                "postgresql:///shop?host=/nonexistent",
                "postgresql://me@nowhere.invalid/shop",
            ],
            released=lambda: wait_for(lambda: cluster.sessions() == 0),
            present=cluster.databases,
        )


def sqlite_subject(folder: Path) -> Subject:
    path = folder / "shop ünd.db"
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
        made.executemany("INSERT INTO orders (what) VALUES (?)", [(f"thing {n}",) for n in range(3000)])
        made.execute('CREATE TABLE "weird ""name""" (a)')
        made.execute("CREATE TABLE empty_one (a)")
    (folder / "noise.db").write_bytes(b"this is not a database" * 100)
    (folder / "nothing.db").touch()

    def released() -> None:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            other.execute("ROLLBACK")

    return Subject(
        url=f"sqlite:///{path}",
        rows={"orders": 3000, 'weird "name"': 0, "empty_one": 0},
        options={},
        refused=[
            (f"sqlite:///{folder}/missing.db", "no such file"),
            (f"sqlite:///{folder}/no/such/folder.db", "no such file"),
            (f"sqlite:///{folder}", "folder"),
            (f"file:{folder}/noise.db", "not a SQLite database"),
            (f"file:{folder}/nothing.db", "0 bytes"),
        ],
        unreachable=[],
        released=released,
        present=lambda: sorted(map(str, folder.rglob("*"))),
    )


#: How to make a filled database of each engine whose databases are files: a new one adds a factory.
FACTORIES: dict[str, Callable[[Path], Subject]] = {"sqlite": sqlite_subject}


def dumped(database: Database, folder: Path, word: str = "gzip", progress: Progress | None = None) -> Dump:
    folder.mkdir(exist_ok=True)
    return database.dump(folder, codec(word), progress or Progress(), lambda _line: None)


@contextmanager
def no_child_is_left() -> Iterator[None]:
    # Not recursive: the servers' own sessions come and go.
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


def test_every_engine_has_a_subject() -> None:
    assert sorted([*FACTORIES, "postgres"]) == sorted(ENGINES)


def test_its_word_is_found_by_its_connection_string(subject: Subject) -> None:
    assert databases.engine_of(subject.url) == subject.open().engine
    assert databases.check_url(subject.url) is None
    assert databases.name_in(subject.url).startswith(("sh_p", "shop"))


def test_looking_tells_what_is_there_and_no_secret(subject: Subject) -> None:
    look = subject.open().look()
    assert look.size > 8192
    assert look.description.startswith(subject.open().title)
    assert look.server_version.split(".")[0].isdecimal()
    assert look.tool
    assert look.warnings == ()
    assert PASSWORD not in repr(look)
    subject.released()


@pytest.mark.parametrize("word", ["gzip", "zstd", "none"])
def test_a_dump_is_what_it_says(subject: Subject, tmp_path: Path, word: str) -> None:
    with no_child_is_left():
        made = dumped(subject.open(), tmp_path / "a", word)
    content = tmp_path / "a" / made.content.path
    if made.form == "folder":
        tar = Hashed()
        write_tar(content, tar)
        size, sha256 = tar.size, tar.sha256
        assert made.content.encoding == "none"
        assert content.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in content.iterdir()} == {0o600}
    else:
        raw = codec(made.content.encoding).reader(io.BytesIO(content.read_bytes())).read()
        size, sha256 = len(raw), hashlib.sha256(raw).hexdigest()
        assert content.stat().st_mode & 0o777 == 0o600
    assert (made.content.raw_size, made.content.raw_sha256) == (size, sha256)
    assert size > 0
    assert [path.name for path in (tmp_path / "a").iterdir()] == [made.content.path]
    assert made.warnings == []
    assert made.tool
    assert made.snapshot_at.endswith("Z")
    subject.released()


def test_the_fingerprint_counts_every_table(subject: Subject, tmp_path: Path) -> None:
    made = dumped(subject.open(), tmp_path / "a")
    assert made.fingerprint["row_counts"] == "exact"
    assert {name: found["rows"] for name, found in made.fingerprint["tables"].items()} == subject.rows


def test_rows_are_not_counted_when_that_is_off(subject: Subject, tmp_path: Path) -> None:
    made = dumped(subject.open(row_counts="off"), tmp_path / "a")
    assert made.fingerprint["row_counts"] == "off"
    assert made.fingerprint["tables"] == {name: {} for name in subject.rows}


def test_a_second_dump_is_another_one(subject: Subject, tmp_path: Path) -> None:
    first, second = dumped(subject.open(), tmp_path / "a"), dumped(subject.open(), tmp_path / "b")
    assert (tmp_path / "a" / first.content.path).exists()
    assert (tmp_path / "b" / second.content.path).exists()


def test_progress_moves(subject: Subject, tmp_path: Path) -> None:
    progress = Progress()
    dumped(subject.open(), tmp_path / "a", progress=progress)
    assert progress.done > 0
    assert progress.total in (None, progress.done)


def test_the_operator_is_told_what_goes_on(subject: Subject, tmp_path: Path) -> None:
    said: list[str] = []
    database = subject.open()
    database.dump(tmp_path, codec("gzip"), Progress(), said.append)
    assert said[0] == f"Detected {database.title} database"
    assert said[-1] == f"Backing up {database.title} database..."
    assert PASSWORD not in " ".join(said)


def test_what_is_refused_is_named_and_not_worth_another_try(subject: Subject, tmp_path: Path) -> None:
    for url, reason in subject.refused:
        for attempt in (
            lambda url=url: subject.open(url).look(),
            lambda url=url: dumped(subject.open(url), tmp_path),
        ):
            with pytest.raises(RefusedError) as caught:
                attempt()
            assert "'shop'" in caught.value.message
            assert reason in caught.value.message
            assert caught.value.hint
            assert not caught.value.retryable
            assert PASSWORD not in str(caught.value)
            assert url not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_answer_is_worth_another_try(subject: Subject, tmp_path: Path) -> None:
    for url in subject.unreachable:
        with pytest.raises(UnreachableError) as caught:
            dumped(subject.open(url), tmp_path)
        assert caught.value.retryable, url
        assert "'shop'" in caught.value.message
        assert PASSWORD[:6] not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_looking_creates_nothing(subject: Subject) -> None:
    before = subject.present()
    for url in (subject.url, *(url for url, _ in subject.refused)):
        try:
            subject.open(url).look()
        except RefusedError:
            continue
    assert subject.present() == before


def test_a_full_disk_is_told_with_what_is_free(subject: Subject, tmp_path: Path) -> None:
    with small_disk(tmp_path, 24 << 10) as folder, no_child_is_left():
        with pytest.raises(ExhaustedError) as caught:
            # Nothing is compressed on the way, so that little data is enough.
            dumped(subject.open(), folder / "a", "none")
        assert "free" in str(caught.value)
    subject.released()


def test_what_the_watcher_raises_does_not_matter(subject: Subject, tmp_path: Path) -> None:
    def watcher(_report: object) -> None:
        raise LarderError("no")

    dumped(subject.open(), tmp_path / "a", progress=Progress(watcher))


def test_secrets_are_masked_in_whatever_is_said_later(subject: Subject) -> None:
    subject.open().look()
    if PASSWORD[:6] in subject.url:
        assert PASSWORD not in secret.redact(f"something with {PASSWORD} in it")


def test_the_codec_is_the_one_that_was_asked_for(subject: Subject, tmp_path: Path) -> None:
    made = dumped(subject.open(), tmp_path / "a", "gzip")
    if made.content.encoding == "gzip":
        assert made.content.path.endswith(".gz")
        assert gzip.decompress((tmp_path / "a" / made.content.path).read_bytes())
