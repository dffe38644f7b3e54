"""What every store promises. A new one adds a factory to `FACTORIES`."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from larder import stores
from larder.errors import ExhaustedError, IntegrityError, LarderError, NotFoundError, RefusedError
from larder.progress import Progress
from larder.stores import Store
from larder.stores.local import STALE, Local
from larder.stores.s3 import S3Settings
from tests.object_storage import environment_for


def local_store(request: pytest.FixtureRequest) -> Store:
    return Local("nas", request.getfixturevalue("tmp_path") / "store")


def s3_store(request: pytest.FixtureRequest) -> Store:
    server = request.getfixturevalue("object_server")
    bucket = server.bucket()
    request.addfinalizer(bucket.empty)
    for name, value in environment_for(server.url).items():
        request.getfixturevalue("monkeypatch").setenv(name, value)
    return stores.open_store(S3Settings(name="cloud", type="s3", bucket=bucket.name))


#: How to make an empty store of each kind.
FACTORIES: dict[str, Callable[[pytest.FixtureRequest], Store]] = {"local": local_store, "s3": s3_store}

KEY = "shop/backup_postgres_20251016_020000.sql.gz"

#: More than one read and one write.
CONTENT = random.Random(2).randbytes((3 << 20) + 17)


@pytest.fixture(params=stores.words())
def store(request: pytest.FixtureRequest) -> Store:
    return FACTORIES[request.param](request)


@pytest.fixture
def put(store: Store, tmp_path: Path) -> Callable[..., None]:
    """Puts bytes under a key, by way of a file."""

    def put_bytes(key: str, content: bytes, progress: Progress | None = None) -> None:
        source = tmp_path / f"source.{threading.get_ident()}"
        # Another file each time: a store may keep the very one that it was given.
        source.unlink(missing_ok=True)
        source.write_bytes(content)
        store.put(key, source, hashlib.sha256(content).hexdigest(), progress)

    return put_bytes


def content_of(store: Store, key: str) -> bytes:
    with store.open(key) as source:
        return source.read()


def test_every_store_has_a_factory() -> None:
    assert tuple(sorted(FACTORIES)) == stores.words()


def test_an_empty_store_holds_nothing(store: Store) -> None:
    assert list(store.sizes()) == []
    assert list(store.sizes("shop")) == []
    assert store.size(KEY) is None
    store.delete(KEY)
    with pytest.raises(NotFoundError, match="unable to find 'shop/backup_postgres"):
        store.open(KEY)


@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=["nothing", "one byte", "much"])
def test_gives_back_what_was_put(store: Store, put: Callable[..., None], content: bytes) -> None:
    put(KEY, content)
    assert content_of(store, KEY) == content
    assert store.size(KEY) == len(content)
    assert store.sizes() == {KEY: len(content)}
    assert KEY in store.location(KEY)


def test_progress_counts_the_bytes(store: Store, put: Callable[..., None]) -> None:
    progress = Progress()
    put(KEY, CONTENT, progress)
    assert progress.done == len(CONTENT)


def test_keys_are_sorted_and_of_one_folder(store: Store, put: Callable[..., None]) -> None:
    wanted = ["app/a", "app/deep/er/b", "app2/c", "app-3/d", "e"]
    for key in wanted:
        put(key, key.encode())
    assert list(store.sizes()) == sorted(wanted)
    assert list(store.sizes("app")) == ["app/a", "app/deep/er/b"]
    assert list(store.sizes("app/deep")) == ["app/deep/er/b"]
    assert list(store.sizes("ap")) == []


def test_the_same_again_is_fine(store: Store, put: Callable[..., None]) -> None:
    put(KEY, CONTENT)
    put(KEY, CONTENT)
    assert content_of(store, KEY) == CONTENT


@pytest.mark.parametrize("other", [b"short", CONTENT[::-1]], ids=["other size", "same size"])
def test_other_content_under_a_taken_key_is_refused(
    store: Store, put: Callable[..., None], other: bytes
) -> None:
    put(KEY, CONTENT)
    with pytest.raises(IntegrityError, match="a file with other content is there"):
        put(KEY, other)
    assert content_of(store, KEY) == CONTENT
    assert list(store.sizes()) == [KEY]


def test_a_source_that_has_changed_is_refused(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"altered")
    with pytest.raises(IntegrityError, match="should have"):
        store.put(KEY, source, hashlib.sha256(b"as it was").hexdigest())
    assert list(store.sizes()) == []
    assert store.size(KEY) is None


def test_deleted_is_gone(store: Store, put: Callable[..., None]) -> None:
    put(KEY, b"x")
    put(KEY + "2", b"y")
    store.delete(KEY)
    store.delete(KEY)
    assert list(store.sizes()) == [KEY + "2"]
    put(KEY, b"other")
    assert content_of(store, KEY) == b"other"


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "shop/../../x", "shop//x", "shop/", "./x", ".hidden", "shop/.x", "a\0b"],
)
def test_a_key_leads_nowhere_else(store: Store, put: Callable[..., None], key: str) -> None:
    for use in (
        lambda: put(key, b"x"),
        lambda: store.open(key),
        lambda: store.size(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(ValueError, match="unable to use key"):
            use()


def test_of_many_writers_one_wins_whole(store: Store, put: Callable[..., None]) -> None:
    contents = [bytes([n]) * 500_000 for n in range(8)]
    start = threading.Barrier(len(contents))
    outcome: list[bytes] = []

    def write(content: bytes) -> None:
        start.wait()
        try:
            put(KEY, content)
            outcome.append(content)
        except IntegrityError:
            pass

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcome) == 1
    assert content_of(store, KEY) == outcome[0]
    assert list(store.sizes()) == [KEY]


def test_a_check_says_how_it_is_and_leaves_nothing(store: Store) -> None:
    assert store.check().detail
    assert list(store.sizes()) == []


# What only a folder can show.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "new" / "backups"


@pytest.fixture
def local(folder: Path) -> Local:
    return Local("nas", folder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


SHA256 = hashlib.sha256(CONTENT).hexdigest()


def everything_in(folder: Path) -> list[str]:
    """Every file, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_files_and_new_folders_are_private(local: Local, folder: Path, source: Path) -> None:
    local.put(KEY, source, SHA256)
    modes = [
        stat.S_IMODE(path.stat().st_mode) for path in (folder / KEY, folder / "shop", folder, folder.parent)
    ]
    assert modes == [0o600, 0o700, 0o700, 0o700]
    assert everything_in(folder) == [KEY]


def test_a_folder_that_is_there_keeps_its_mode(local: Local, folder: Path, source: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    local.put(KEY, source, SHA256)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_hidden_names_are_not_ours(local: Local, folder: Path) -> None:
    (folder / ".larder" / "spool").mkdir(parents=True)
    (folder / ".larder" / "ledger.sqlite3").touch()
    (folder / ".hidden").touch()
    (folder / "seen").touch()
    (folder / "dangling").symlink_to("nowhere")
    assert list(local.sizes()) == ["seen"]


KILLED = """
    import sys
    from pathlib import Path
    from larder.progress import Progress
    from larder.stores.local import Local

    class Tell(Progress):
        def add(self, count):
            print("writing", flush=True)
            sys.stdin.read()

    Local("nas", Path(sys.argv[1])).put(sys.argv[2], Path(sys.argv[3]), sys.argv[4], Tell())
"""


def test_what_a_killed_put_leaves_is_never_listed_and_goes_in_time(
    local: Local, folder: Path, source: Path
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), folder, KEY, source, SHA256]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        writer.kill()
    (left,) = everything_in(folder)
    assert left.startswith("shop/.backup_postgres")
    assert left.endswith(".partial")
    assert (list(local.sizes()), local.size(KEY)) == ([], None)

    local.put(KEY, source, SHA256)
    assert everything_in(folder) == [left, KEY]
    old = (folder / left).stat().st_mtime - STALE
    os.utime(folder / left, (old, old))
    local.put(KEY + ".sha256", source, SHA256)
    assert everything_in(folder) == [KEY, KEY + ".sha256"]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file may grow past `size` bytes: the nearest to a full disk that needs no rights."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_on_the_same_disk_is_kept_as_it_is(local: Local, folder: Path, source: Path) -> None:
    source.chmod(0o640)
    os.utime(source, (0, 0))
    local.put(KEY, source, SHA256)
    kept = (folder / KEY).stat()
    assert kept.st_ino == source.stat().st_ino
    assert stat.S_IMODE(kept.st_mode) == 0o600
    assert time.time() - kept.st_mtime < STALE
    source.unlink()
    assert content_of(local, KEY) == CONTENT


def test_two_stores_on_one_disk_hold_two_copies(
    local: Local, folder: Path, source: Path, tmp_path: Path
) -> None:
    other = Local("other", tmp_path / "other")
    local.put(KEY, source, SHA256)
    other.put(KEY, source, SHA256)
    assert (folder / KEY).stat().st_ino != (tmp_path / "other" / KEY).stat().st_ino
    (folder / KEY).write_bytes(b"damaged")
    assert content_of(other, KEY) == CONTENT


def test_a_file_on_another_disk_is_copied(local: Local, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        source = Path(memory) / "source"
        source.write_bytes(CONTENT)
        assert source.stat().st_dev != folder.parent.parent.stat().st_dev
        local.put(KEY, source, SHA256)
    assert content_of(local, KEY) == CONTENT


def test_a_link_is_not_kept_in_place_of_what_it_leads_to(local: Local, folder: Path, source: Path) -> None:
    link = source.with_name("link")
    link.symlink_to(source)
    local.put(KEY, link, SHA256)
    assert not (folder / KEY).is_symlink()
    assert content_of(local, KEY) == CONTENT


@pytest.mark.parametrize("names", [1, 2], ids=["linked", "copied"])
def test_a_source_that_is_not_what_it_should_be_leaves_nothing(
    local: Local, folder: Path, source: Path, names: int
) -> None:
    if names > 1:
        os.link(source, source.with_name("second"))
    with pytest.raises(IntegrityError, match="should have"):
        local.put(KEY, source, "0" * 64)
    assert everything_in(folder) == []
    assert source.read_bytes() == CONTENT


@pytest.mark.parametrize("room", [0, 1_000_000, len(CONTENT) - 1])
def test_a_full_disk_is_told_and_leaves_nothing(local: Local, folder: Path, source: Path, room: int) -> None:
    # A file with two names is copied.
    os.link(source, source.with_name("second"))
    with (
        files_of_at_most(room),
        pytest.raises(ExhaustedError, match=r"unable to keep .*shop/backup.* free\n"),
    ):
        local.put(KEY, source, SHA256)
    assert everything_in(folder) == []
    local.put(KEY, source, SHA256)
    assert everything_in(folder) == [KEY]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="only Linux has this memory disk")
def test_another_file_system_does_as_well(source: Path) -> None:
    folder = Path("/dev/shm") / f"larder-test-{os.getpid()}"
    try:
        Local("memory", folder).put(KEY, source, SHA256)
        assert everything_in(folder) == [KEY]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def nobody() -> Iterator[None]:
    """Root may do anything: become somebody who may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_used_is_told(local: Local, folder: Path, source: Path) -> None:
    local.put(KEY, source, SHA256)
    folder.chmod(0o000)
    uses: list[Callable[[], object]] = [
        lambda: local.put("other", source, SHA256), local.check, local.sizes,
        lambda: local.open(KEY), lambda: local.size(KEY), lambda: local.delete(KEY),
    ]  # fmt: skip
    with nobody():
        for use in uses:
            with pytest.raises(RefusedError, match="permission denied") as caught:
                use()
            assert str(folder) in caught.value.hint
            assert not caught.value.retryable
    folder.chmod(0o700)
    assert everything_in(folder) == [KEY]


def test_a_file_in_the_place_of_the_folder_is_told(local: Local, folder: Path, source: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("a file")
    for use in (lambda: local.put(KEY, source, SHA256), local.sizes, local.check):
        with pytest.raises(RefusedError, match="not a"):
            use()
    assert folder.read_text() == "a file"


def test_a_source_that_is_gone_is_told(local: Local, tmp_path: Path) -> None:
    with pytest.raises(LarderError, match=r"unable to keep .*: .*gone\.sql is not there") as caught:
        local.put(KEY, tmp_path / "gone.sql", SHA256)
    assert not caught.value.retryable


def test_what_a_disk_has_for_itself_is_not_ours(local: Local, folder: Path, source: Path) -> None:
    local.put(KEY, source, SHA256)
    (folder / "lost+found").mkdir(mode=0o700)
    (folder / "lost+found").chmod(0o000)
    (folder / "shop" / "lost+found").mkdir()
    (folder / "shop" / "lost+found" / "x").touch()
    assert list(local.sizes()) == [KEY, "shop/lost+found/x"]


def test_a_folder_that_lies_elsewhere_is_listed_and_no_loop_is_followed(
    local: Local, folder: Path, tmp_path: Path, source: Path
) -> None:
    (tmp_path / "other disk").mkdir()
    folder.mkdir(parents=True)
    (folder / "shop").symlink_to(tmp_path / "other disk")
    local.put(KEY, source, SHA256)
    (tmp_path / "other disk" / "loop").symlink_to(folder)
    assert list(local.sizes()) == list(local.sizes("shop")) == [KEY]


def test_a_link_that_leads_to_the_store_itself_or_nowhere_is_not_followed(
    local: Local, folder: Path, source: Path
) -> None:
    local.put(KEY, source, SHA256)
    (folder / "itself").symlink_to(".")
    (folder / "above").symlink_to("../..")
    (folder / "root").symlink_to("/")
    (folder / "circle").symlink_to("circle")
    (folder / "gone").symlink_to("nowhere")
    (folder / "shop" / "circle").symlink_to("circle")
    assert list(local.sizes()) == list(local.sizes("shop")) == [KEY]


def test_the_store_may_be_a_link_itself(folder: Path, tmp_path: Path, source: Path) -> None:
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    store = Local("nas", tmp_path / "link")
    store.put(KEY, source, SHA256)
    assert list(store.sizes()) == [KEY]


def test_names_that_are_no_text_are_no_keys(local: Local, folder: Path, source: Path) -> None:
    local.put(KEY, source, SHA256)
    (folder / os.fsdecode(b"\xff.manifest.json")).touch()
    (folder / "shop" / os.fsdecode(b"\xff")).mkdir()
    (folder / "shop" / os.fsdecode(b"\xff") / "x").touch()
    assert list(local.sizes()) == list(local.sizes("shop")) == [KEY]
