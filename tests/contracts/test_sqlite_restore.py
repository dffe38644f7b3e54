"""SQLite's restorer: who holds the file, what a crash left, kills at every step, and never a torn database."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pydantic import SecretStr

from larder import databases
from larder.config import DatabaseSettings
from larder.databases import _sqlite_restore, open_restorer, sqlite
from larder.databases._sqlite_holders import locked, openers
from larder.errors import BusyError, ConfigurationError, ExhaustedError, IntegrityError, RefusedError
from larder.progress import Progress
from larder.restoring import Content, Kept, Plan, Restorer, Source
from tests.servers import small_disk

ID = "0123456789ab"
OLD, NEW = 100, 200


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite_restore, "PATIENCE", 0.05)


def make(path: Path, rows: int, mode: str = "delete") -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.execute(f"PRAGMA journal_mode = {mode}")
        made.execute("CREATE TABLE log (n INTEGER PRIMARY KEY, noise BLOB)")
        made.execute("CREATE INDEX by_noise ON log (noise)")
        made.execute("BEGIN")
        made.executemany("INSERT INTO log VALUES (?, randomblob(200))", ((n,) for n in range(rows)))
        made.execute("COMMIT")
    return path


def rows(path: Path) -> int:
    """How many rows there are, of a database that is whole."""
    with closing(sqlite3.connect(path)) as made:
        assert made.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return int(made.execute("SELECT count(*) FROM log").fetchone()[0])


def content(folder: Path, path: Path | None = None, **changed: Any) -> Content:
    """A backup of 200 rows, or of the file at `path`."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    if path is None and not (path := scratch / "backup.db").exists():
        make(path, NEW)
    data = path.read_bytes()
    packed = gzip.compress(data, 1)
    known: dict[str, Any] = {
        "engine": "sqlite",
        "form": "file",
        "raw_size": len(data),
        "raw_sha256": hashlib.sha256(data).hexdigest(),
        "server_version": sqlite3.sqlite_version,
        "tool": "sqlite",
        "fingerprint": {"row_counts": "exact", "tables": {"log": {"rows": NEW}}},
    }

    def opened() -> BinaryIO:
        return gzip.GzipFile(fileobj=io.BytesIO(packed))  # type: ignore[return-value]

    return Content(Source(**{**known, **changed}), opened, None, scratch)


def restorer(path: Path | str, mode: Any = "swap", **options: Any) -> Restorer:
    url = path if isinstance(path, str) else f"sqlite:///{path}"
    keys = ("create_roles", "tables", "replaces")
    plan = Plan(ID, mode, **{key: options.pop(key) for key in keys if key in options})
    settings = DatabaseSettings(name="shop", url=SecretStr(url), base=Path("/nonexistent"), **options)
    return open_restorer(settings, plan)


def load(made: Restorer, backup: Content) -> list[str]:
    return made.load(backup, Progress(), lambda _line: None)


def swap(made: Restorer, backup: Content, stamp: str = "T1") -> Kept | None:
    return made.swap(backup, stamp, Progress(), lambda _line: None)


def beside(path: Path) -> set[str]:
    return {found.name for found in path.parent.iterdir() if not found.is_dir()} - {path.name}


@pytest.fixture
def live(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return make(tmp_path / "data" / "shop.db", OLD)


@contextmanager
def application(path: Path, *statements: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the database open, ran the statements, and waits."""
    code = (
        "import sqlite3, sys\n"
        "made = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "made.execute('PRAGMA cache_size = 5')\n"
        "made.execute('PRAGMA wal_autocheckpoint = 0')\n"
        "for line in sys.argv[2:]: made.execute(line).fetchone()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", code, str(path), *statements]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


READ, WRITE = "SELECT count(*) FROM log", "INSERT INTO log VALUES (NULL, randomblob(200))"
MANY = "UPDATE log SET noise = randomblob(300)"


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize(
    "statements", [(READ,), ("BEGIN", READ), ("BEGIN IMMEDIATE", WRITE), ("BEGIN EXCLUSIVE", WRITE)]
)
def test_an_application_that_holds_the_file_is_named(
    mode: str, statements: tuple[str, ...], tmp_path: Path
) -> None:
    live, backup = make(tmp_path / "shop.db", OLD, mode), content(tmp_path)
    made = restorer(live)
    load(made, backup)
    with application(live, *statements) as process:
        there = made.look()
        assert len(there.sessions) == 1
        assert there.sessions[0].endswith(f"(pid {process.pid})")
        with pytest.raises(BusyError, match=rf"\(pid {process.pid}\) has shop\.db open"):
            swap(made, backup)
    assert rows(live) == OLD
    assert not list(tmp_path.glob("*before*"))
    assert swap(made, backup)
    assert rows(live) == NEW


def test_a_lock_names_its_process_where_processes_cannot_be_looked_into(
    live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("larder.databases._sqlite_holders.openers", lambda _path: (set(), 3))
    with application(live, "BEGIN EXCLUSIVE", WRITE) as process:
        there = restorer(live).look()
        assert there.sessions[0].endswith(f"(pid {process.pid})")
        assert any("3 processes of other users" in warning for warning in there.warnings)
    assert restorer(live).look().sessions == ()


def test_processes_that_we_may_not_look_into_are_counted(live: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    with application(live, READ):
        os.seteuid(65534)
        try:
            _, unseen = openers(Path("/etc/passwd"))
        finally:
            os.seteuid(0)
    assert unseen > 0


def test_one_that_goes_on_with_a_deleted_file_of_that_name_holds_it_too(live: Path, tmp_path: Path) -> None:
    with application(live, READ) as process:
        live.rename(tmp_path / "aside")
        (tmp_path / "aside").unlink()
        assert restorer(live).look().sessions == ()
        again = make(tmp_path / "data" / "shop.db", 1)
    with application(again, READ) as process:
        again.unlink()
        make(again, 2)
        assert restorer(again).look().sessions[0].endswith(f"(pid {process.pid})")


def crash(path: Path, *statements: str) -> None:
    with application(path, *statements) as process:
        process.send_signal(signal.SIGKILL)


def test_rows_that_are_only_in_the_wal_of_a_crash_go_with_the_old_file(tmp_path: Path) -> None:
    live, backup = make(tmp_path / "shop.db", OLD, "wal"), content(tmp_path)
    crash(live, WRITE, WRITE, MANY)
    assert (tmp_path / "shop.db-wal").stat().st_size > 0
    made = restorer(live)
    there = made.look()
    assert there.sessions == ()
    assert "shop.db-wal" in there.warnings[0]
    assert "held by nobody" in there.warnings[0]
    load(made, backup)
    kept = swap(made, backup)
    assert kept
    assert beside(live) == {"shop.db.before_restore_T1"}
    assert live.read_bytes() == (backup.scratch / "backup.db").read_bytes()
    assert rows(live) == NEW
    assert rows(Path(kept.name)) == OLD + 2


def test_a_transaction_that_a_crash_cut_short_is_taken_out_of_the_old_file(
    live: Path, tmp_path: Path
) -> None:
    backup = content(tmp_path)
    with closing(sqlite3.connect(live)) as before:
        sums = before.execute("SELECT sum(length(noise)) FROM log").fetchone()
    crash(live, "BEGIN", MANY)
    assert (live.parent / "shop.db-journal").stat().st_size > 0
    made = restorer(live)
    assert "shop.db-journal" in made.look().warnings[0]
    assert (live.parent / "shop.db-journal").stat().st_size > 0, "looking changed something"
    load(made, backup)
    kept = swap(made, backup)
    assert kept
    assert beside(live) == {"shop.db.before_restore_T1"}
    assert rows(live) == NEW
    with closing(sqlite3.connect(kept.name)) as old:
        assert old.execute("SELECT sum(length(noise)) FROM log").fetchone() == sums


def test_other_leftovers_without_a_holder_do_not_stop_a_swap(live: Path, tmp_path: Path) -> None:
    backup = content(tmp_path)
    (live.parent / "shop.db.lock").mkdir()
    (live.parent / "shop.db-shm").write_bytes(b"\0" * 32768)
    (live.parent / "shop.db-journal").write_bytes(b"\0" * 512)
    made = restorer(live)
    assert made.look().sessions == ()
    load(made, backup)
    kept = swap(made, backup)
    assert kept
    assert beside(live) == {"shop.db.before_restore_T1", "shop.db.before_restore_T1-journal"}
    assert rows(live) == NEW
    assert made.drop_kept(kept)
    assert list(live.parent.iterdir()) == [live]


def test_a_live_file_that_sqlite_cannot_read_is_replaced_and_kept_with_its_log(
    live: Path, tmp_path: Path
) -> None:
    backup = content(tmp_path)
    live.write_bytes(b"noise" * 4000)
    (live.parent / "shop.db-wal").write_bytes(b"more noise")
    made = restorer(live)
    load(made, backup)
    kept = swap(made, backup)
    assert kept
    assert rows(live) == NEW
    assert Path(kept.name).read_bytes() == b"noise" * 4000
    assert Path(f"{kept.name}-wal").read_bytes() == b"more noise"
    made.undo(kept, "T2", lambda _line: None)
    assert live.read_bytes() == b"noise" * 4000
    assert (live.parent / "shop.db-wal").read_bytes() == b"more noise"
    assert rows(live.parent / "shop.db.undone_restore_T2") == NEW


def test_a_log_without_its_database_is_never_applied_to_the_new_one(tmp_path: Path) -> None:
    live, backup = make(tmp_path / "shop.db", OLD, "wal"), content(tmp_path)
    crash(live, WRITE, MANY)
    live.unlink()
    made = restorer(live)
    assert not made.look().exists
    load(made, backup)
    assert swap(made, backup) is None
    assert rows(live) == NEW
    assert (tmp_path / "shop.db.before_restore_T1-wal").exists()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_journal_mode_of_the_backup_and_what_post_restore_wrote_come_along(
    mode: str, live: Path, tmp_path: Path
) -> None:
    backup = content(tmp_path, make(tmp_path / "other.db", NEW, mode))
    made = restorer(live)
    load(made, backup)
    assert beside(live) == {f".shop.db.restore_{ID}"}
    # A command that ends without closing the database.
    crash(live.parent / f".shop.db.restore_{ID}", WRITE)
    assert swap(made, backup)
    assert beside(live) == {"shop.db.before_restore_T1"}
    assert rows(live) == NEW + 1
    with closing(sqlite3.connect(live)) as now:
        assert now.execute("PRAGMA journal_mode").fetchone() == (mode,)


def test_a_post_restore_command_that_goes_on_holds_the_swap_up(live: Path, tmp_path: Path) -> None:
    backup, made = content(tmp_path), restorer(live)
    load(made, backup)
    with (
        application(live.parent / f".shop.db.restore_{ID}", READ),
        pytest.raises(BusyError, match=r"restore_0123456789ab open"),
    ):
        swap(made, backup)
    assert rows(live) == OLD


def killed(work: Any, at: int) -> bool:
    """Run `work` in a child that is killed before it does its `at`-th thing to the disk; whether it was."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def watch(event: str, _arguments: Any) -> None:
            nonlocal count
            if event in EVENTS:
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - whatever it is, the parent is told
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it failed"
    return os.WIFSIGNALED(status)


EVENTS = {
    "open", "os.link", "os.rename", "os.remove", "os.chmod", "os.chown", "os.mkdir", "os.fsync", "os.setxattr",
    "sqlite3.connect", "sqlite3.connect/handle", "fcntl.fcntl", "os.listdir", "os.scandir",
}  # fmt: skip


def crashed_copy(folder: Path, tmp_path: Path) -> Path:
    """A live database in WAL mode whose last two rows a crash left in its -wal."""
    if not (pristine := tmp_path / "pristine").exists():
        pristine.mkdir()
        crash(make(pristine / "shop.db", OLD, "wal"), WRITE, WRITE)
    folder.mkdir()
    for path in pristine.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder / "shop.db"


def settled(path: Path) -> int:
    """The rows of a copy of a database and what is beside it, as its application would find them after a crash."""
    folder = path.parent / "seen"
    folder.mkdir(exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    for ending in ("", "-wal", "-journal"):
        with_ending = path.with_name(path.name + ending)
        if with_ending.exists():
            (folder / with_ending.name).write_bytes(with_ending.read_bytes())
    return rows(folder / path.name)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_every_step_of_a_swap_it_is_all_old_or_all_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only what happens to the files counts here, and not the looks at each process.
    monkeypatch.setattr("larder.databases._sqlite_holders._PROCESSES", tmp_path / "none")
    (tmp_path / "none").mkdir()
    backup, seen = content(tmp_path), set()
    for at in range(1, 200):
        live = crashed_copy(tmp_path / f"data{at}", tmp_path)
        made = restorer(live)
        load(made, backup)
        (backup.scratch / "swapped-in").unlink(missing_ok=True)
        went_on = killed(lambda made=made: swap(made, backup), at)
        seen.add(found := settled(live))
        assert found in (OLD + 2, NEW)
        kept = swap(restorer(live), backup)
        assert kept == swap(restorer(live), backup)
        assert kept
        assert beside(live) == {"shop.db.before_restore_T1"}
        assert rows(live) == NEW
        assert rows(Path(kept.name)) == OLD + 2
        if not went_on:
            break
    assert at > 20
    assert seen == {OLD + 2, NEW}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_moment_of_a_swap_and_an_undo(tmp_path: Path) -> None:
    backup, clock = content(tmp_path), threading.Event()
    for attempt in range(24):
        live = crashed_copy(tmp_path / f"data{attempt}", tmp_path)
        made = restorer(live)
        load(made, backup)
        (backup.scratch / "swapped-in").unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            try:
                swap(made, backup)
            finally:
                os._exit(0)
        clock.wait(random.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert settled(live) in (OLD + 2, NEW)
        kept = swap(made, backup)
        assert kept
        assert rows(live) == NEW
        assert rows(Path(kept.name)) == OLD + 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_every_step_of_an_undo_it_is_all_new_or_all_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("larder.databases._sqlite_holders._PROCESSES", tmp_path / "none")
    (tmp_path / "none").mkdir()
    backup = content(tmp_path)
    for at in range(1, 200):
        live = crashed_copy(tmp_path / f"data{at}", tmp_path)
        made = restorer(live)
        load(made, backup)
        kept = swap(made, backup)
        assert kept
        went_on = killed(lambda made=made, kept=kept: made.undo(kept, "T2", lambda _line: None), at)
        assert settled(live) in (OLD + 2, NEW)
        undone = made.undo(kept, "T2", lambda _line: None)
        assert undone == made.undo(kept, "T2", lambda _line: None)
        assert beside(live) == {"shop.db.undone_restore_T2"}
        assert (rows(live), rows(Path(undone.name))) == (OLD + 2, NEW)
        if not went_on:
            break
    assert at > 10


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("mode", ["swap", "new"])
def test_killed_at_every_step_where_nothing_was(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("larder.databases._sqlite_holders._PROCESSES", tmp_path / "none")
    (tmp_path / "none").mkdir()
    backup = content(tmp_path)
    for at in range(1, 100):
        (tmp_path / f"data{at}").mkdir()
        live = tmp_path / f"data{at}" / "shop.db"
        made = restorer(live, mode)
        load(made, backup)
        went_on = killed(lambda made=made: swap(made, backup), at)
        assert not live.exists() or rows(live) == NEW
        assert swap(made, backup) is None
        assert swap(made, backup) is None
        assert beside(live) == set()
        assert rows(live) == NEW
        if not went_on:
            break
    assert at > 5


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("readable", [True, False])
def test_a_swap_that_was_killed_and_does_not_go_on_is_taken_back(
    readable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("larder.databases._sqlite_holders._PROCESSES", tmp_path / "none")
    (tmp_path / "none").mkdir()
    backup = content(tmp_path)
    for at in range(1, 200):
        live = crashed_copy(tmp_path / f"data{at}", tmp_path)
        log = (live.parent / "shop.db-wal").read_bytes()
        if not readable:
            live.write_bytes(b"noise" * 4000)
        made = restorer(live)
        load(made, backup)
        went_on = killed(lambda made=made: swap(made, backup), at)
        made.drop_new()
        if (live.parent / "shop.db.before_restore_T1").exists():
            assert rows(live) == NEW
        elif readable:
            assert beside(live) <= {"shop.db-wal", "shop.db-shm"}
            assert rows(live) == OLD + 2
        else:
            assert live.read_bytes() == b"noise" * 4000
            assert (live.parent / "shop.db-wal").read_bytes() == log
        if not went_on:
            break
    assert at > 20


def test_a_swap_that_is_under_way_is_not_taken_back(live: Path) -> None:
    made = restorer(live)
    half = live.with_name("shop.db.before_restore_T1")
    os.link(live, half)
    with locked(live):
        assert not made.drop_new()
    assert half.exists()
    with application(live, "BEGIN EXCLUSIVE", WRITE):
        assert not made.drop_new()
    assert not half.exists()
    assert rows(live) == OLD


def test_what_was_never_loaded_is_not_swapped_in(live: Path, tmp_path: Path) -> None:
    for mode in ("swap", "new"):
        with pytest.raises(RefusedError, match="is not there"):
            swap(restorer(live, mode), content(tmp_path))
    assert rows(live) == OLD


def test_a_file_that_exists_is_never_replaced_by_a_new_one(live: Path, tmp_path: Path) -> None:
    backup, made = content(tmp_path), restorer(live, "new")
    load(made, backup)
    with pytest.raises(RefusedError, match="there is a file already"):
        swap(made, backup)
    assert any("there is a file already" in str(found) for found in made.refusals(backup.source, made.look()))
    assert rows(live) == OLD
    assert made.drop_new()
    assert not made.drop_new()
    assert beside(live) == set()


def test_what_nobody_approved_to_replace_stays(tmp_path: Path) -> None:
    live, backup = tmp_path / "shop.db", content(tmp_path)
    made = restorer(live, replaces=False)
    load(made, backup)
    make(live, OLD)
    with pytest.raises(RefusedError, match="nobody has approved to replace"):
        swap(made, backup)
    assert made.swapped("T1", backup.scratch) == (False, None)
    assert rows(live) == OLD
    live.unlink()
    for _ in range(2):
        assert swap(made, backup) is None
        assert made.swapped("T1", backup.scratch) == (True, None)
    assert made.swapped("T1", tmp_path / "gone") == (True, None)


def test_whether_a_swap_was_made_is_told_afresh(live: Path, tmp_path: Path) -> None:
    backup, made = content(tmp_path), restorer(live)

    def told() -> list[tuple[bool, Kept | None]]:
        return [made.swapped("T1", scratch) for scratch in (backup.scratch, tmp_path / "gone")]

    assert told() == [(False, None)] * 2
    load(made, backup)
    assert told() == [(False, None)] * 2
    kept = swap(made, backup)
    assert kept is not None
    assert told() == [(True, kept)] * 2
    made.undo(kept, "T2", lambda _line: None)
    assert told() == [(False, None)] * 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_one_who_opens_the_file_at_the_last_moment_turns_the_swap_back(live: Path, tmp_path: Path) -> None:
    backup, made = content(tmp_path), restorer(live)
    load(made, backup)
    code = "import sys; held = open(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    late: list[subprocess.Popen[str]] = []

    def watch(event: str, arguments: Any) -> None:
        """Runs in the child just before the new file gets its name."""
        if event == "os.rename" and arguments[1] == str(live) and not late:
            argv = [sys.executable, "-c", code, str(live)]
            late.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            assert late[0].stdout
            late[0].stdout.readline()

    def work() -> None:
        sys.addaudithook(watch)
        try:
            with pytest.raises(BusyError, match="has just opened it"):
                swap(made, backup)
            assert f"(pid {late[0].pid})" in made.look().sessions[0]
        finally:
            for process in late:
                process.kill()

    assert not killed(work, -1)
    assert rows(live) == OLD
    assert beside(live) == {f".shop.db.restore_{ID}"}
    assert swap(made, backup)
    assert rows(live) == NEW


def test_who_reads_while_a_swap_is_under_way_sees_whole_databases_only(live: Path, tmp_path: Path) -> None:
    backup, made = content(tmp_path), restorer(live)
    load(made, backup)
    kept = swap(made, backup)
    assert kept
    stop, seen, names = threading.Event(), set(), []

    def read() -> None:
        while not stop.is_set():
            names.append(live.exists())
            with closing(sqlite3.connect(f"file:{live}?mode=ro", uri=True, timeout=5)) as reader:
                seen.add(reader.execute("SELECT count(*) FROM log").fetchone()[0])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for stamp in range(8):
            # A thread of our own is not among the holders, as a process that opens the file in between is not.
            for _ in range(200):
                try:
                    kept = made.undo(kept, f"S{stamp}", lambda _line: None)
                    break
                except BusyError:
                    continue
    finally:
        stop.set()
        reader.join()
    assert all(names)
    assert seen == {OLD, NEW}


def test_owner_and_mode_are_those_of_the_live_file(live: Path, tmp_path: Path) -> None:
    backup, made = content(tmp_path), restorer(live)
    live.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(live, 12345, 23456)
    before = live.stat()
    load(made, backup)
    assert stat.S_IMODE((live.parent / f".shop.db.restore_{ID}").stat().st_mode) == 0o600
    kept = swap(made, backup)
    assert kept
    after = live.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert kept.name == f"{live}.before_restore_T1"
    assert kept.identity == f"{before.st_dev}:{before.st_ino}"
    assert kept.size == before.st_size


def test_another_users_file_is_not_replaced_by_one_that_cannot_be_his(live: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    made, source = restorer(live), content(tmp_path).source
    for folder in live.parents:
        if folder.stat().st_mode & 0o077 == 0:
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        found = [str(reason) for reason in made.refusals(source, made.look())]
    finally:
        os.seteuid(0)
    assert any("may not be written to" in reason for reason in found)
    assert any("belongs to user 0, and we are user 65534" in reason for reason in found)


def test_a_link_stays_and_what_it_leads_to_is_replaced(live: Path, tmp_path: Path) -> None:
    link, backup = tmp_path / "link.db", content(tmp_path)
    link.symlink_to(live)
    made = restorer(link)
    load(made, backup)
    kept = swap(made, backup)
    assert kept
    assert link.readlink() == live
    assert rows(link) == NEW
    assert beside(live) == {"shop.db.before_restore_T1"}


def test_undo_twice_and_what_was_let_go(live: Path, tmp_path: Path) -> None:
    backup, made = content(tmp_path), restorer(live)
    load(made, backup)
    kept = swap(made, backup)
    assert kept
    undone = made.undo(kept, "T2", lambda _line: None)
    assert made.undo(kept, "T2", lambda _line: None) == undone
    assert rows(live) == OLD
    # What was undone can be brought back the same way.
    again = made.undo(undone, "T3", lambda _line: None)
    assert rows(live) == NEW
    assert Path(again.name).name == "shop.db.undone_restore_T3"
    other = Path(again.name)
    data = other.read_bytes()
    other.rename(tmp_path / "aside")
    other.write_bytes(data)
    with pytest.raises(RefusedError, match="is not there any more, or is another file"):
        made.undo(again, "T4", lambda _line: None)
    assert not made.drop_kept(again)
    assert other.exists()
    other.unlink()
    with pytest.raises(RefusedError, match="is not there any more"):
        made.undo(again, "T4", lambda _line: None)
    assert rows(live) == NEW
    with pytest.raises(RefusedError, match="nothing that a restore of"):
        made.drop_kept(Kept(str(live), again.identity, 0))


def test_an_undo_waits_for_the_application_too(live: Path, tmp_path: Path) -> None:
    backup, made = content(tmp_path), restorer(live)
    load(made, backup)
    kept = swap(made, backup)
    assert kept
    for held in (live, Path(kept.name)):
        with application(held, READ), pytest.raises(BusyError, match=r"has shop\.db"):
            made.undo(kept, "T2", lambda _line: None)
    assert rows(live) == NEW
    live.unlink()
    gone = made.undo(kept, "T2", lambda _line: None)
    assert rows(live) == OLD
    assert gone == Kept(f"{live}.undone_restore_T2", "", 0) == made.undo(kept, "T2", lambda _line: None)
    assert not made.drop_kept(gone)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    backup = content(tmp_path)
    with small_disk(tmp_path, backup.source.raw_size // 4096 * 4096 // 2) as disk:
        made = restorer(disk / "shop.db")
        assert any(isinstance(found, ExhaustedError) for found in made.refusals(backup.source, made.look()))
        with pytest.raises(ExhaustedError, match="no space left"):
            load(made, backup)
        assert list(disk.iterdir()) == []


def test_content_that_is_not_what_its_manifest_says_is_not_loaded(live: Path, tmp_path: Path) -> None:
    made, good = restorer(live), content(tmp_path)
    for changed in ({"raw_size": good.source.raw_size + 1}, {"raw_sha256": "0" * 64}):
        with pytest.raises(IntegrityError, match="its manifest has"):
            load(made, content(tmp_path, **changed))
    torn = tmp_path / "torn.db"
    torn.write_bytes((good.scratch / "backup.db").read_bytes())
    with torn.open("r+b") as file:
        file.seek(4096 * 4)
        file.write(b"\xff" * 4096)
    short = tmp_path / "short.db"
    short.write_bytes(torn.read_bytes()[:-4096])
    (noise := tmp_path / "noise.db").write_bytes(b"noise" * 1000)
    for path, message in (
        (torn, "damaged|malformed"),
        (short, "bytes of|malformed"),
        (noise, "no SQLite database"),
    ):
        with pytest.raises(IntegrityError, match=message):
            load(made, content(tmp_path, path))
    assert beside(live) == set()
    assert rows(live) == OLD


def test_what_an_earlier_attempt_left_is_written_anew(live: Path, tmp_path: Path) -> None:
    new = live.parent / f".shop.db.restore_{ID}"
    new.write_bytes(b"half")
    new.with_name(new.name + "-wal").write_bytes(b"half")
    progress, backup = Progress(), content(tmp_path)
    restorer(live).load(backup, progress, lambda _line: None)
    assert progress.done == progress.total == backup.source.raw_size
    assert beside(live) == {new.name}
    assert rows(new) == NEW


def test_foreign_keys_that_lead_nowhere_are_a_warning(live: Path, tmp_path: Path) -> None:
    odd = make(tmp_path / "odd.db", 1)
    with closing(sqlite3.connect(odd, isolation_level=None)) as made:
        made.execute("CREATE TABLE child (parent REFERENCES log (n))")
        made.execute("INSERT INTO child VALUES (77), (78)")
    (warning,) = load(restorer(live), content(tmp_path, odd))
    assert warning.startswith("2 rows of table 'child' refer to rows of 'log' that are not there")


def test_differences_and_checks_are_told(live: Path, tmp_path: Path) -> None:
    checks = (
        "SELECT count(*) > 100 FROM log",
        "SELECT count(*) > 1000 FROM log",
        "SELECT n FROM log",
        "SELECT 'secret' FROM log LIMIT 1",
        "SELECT missing FROM log",
        "DELETE FROM log",
        f"ATTACH '{tmp_path}/written.db' AS more",
        f"VACUUM INTO '{tmp_path}/written.db'",
    )
    made = restorer(live, checks=checks)
    tables = {"log": {"rows": NEW}}
    backup = content(tmp_path, fingerprint={"row_counts": "exact", "tables": tables})
    load(made, backup)
    found = made.examine(backup, Progress())
    assert [line.rpartition("' ")[2] for line in found] == [
        "is not true",
        "does not give one row with one value",
        "is not true",
        "cannot be run: no such column: missing",
        "cannot be run: attempt to write a readonly database",
        "cannot be run: not authorized",
        "cannot be run: authorization denied",
    ]
    assert not (tmp_path / "written.db").exists()
    tables = {"log": {"rows": 3}, "lost": {"rows": 1}}
    backup = content(tmp_path, fingerprint={"row_counts": "exact", "tables": tables})
    assert made.examine(backup, Progress())[:2] == [
        "table 'log' has 200 rows, and the backup had 3",
        "table 'lost' is missing",
    ]
    assert beside(live) == {f".shop.db.restore_{ID}"}


def test_what_is_for_postgresql_is_refused(live: Path, tmp_path: Path) -> None:
    source = content(tmp_path).source
    made = restorer(live, "in-place", create_roles=True, tables=("log",))
    found = made.refusals(source, made.look())
    assert all(isinstance(reason, ConfigurationError) for reason in found)
    assert [reason.message.rpartition(": ")[2] for reason in found] == [  # type: ignore[attr-defined]
        "mode 'in-place' is for PostgreSQL",
        "a choice of tables is for PostgreSQL",
        "creating roles is for PostgreSQL",
    ]
    foreign = content(tmp_path, engine="postgres").source
    made = restorer(tmp_path / "no" / "folder" / "shop.db")
    found = made.refusals(foreign, made.look())
    assert [type(reason) for reason in found] == [RefusedError, RefusedError]
    with pytest.raises(RefusedError, match="it is not a file"):
        restorer(tmp_path).look()


@pytest.mark.parametrize("name", ["shop.db", "my shöp%20.db", "what?.db"])
@pytest.mark.parametrize("form", ["sqlite:///{}", "file:{}?connection_limit=1", "sqlite+aiosqlite:///{}"])
def test_the_new_files_connection_string_is_in_the_targets_words(
    name: str, form: str, tmp_path: Path
) -> None:
    (tmp_path / "dir").mkdir()
    live = tmp_path / "dir" / name
    url = form.format(str(live).replace("?", "%3F"))
    make(live, OLD)
    made, backup = restorer(url), content(tmp_path)
    load(made, backup)
    beside_it = made.new_url().get_secret_value()
    assert beside_it.partition(":")[0] == url.partition(":")[0]
    assert beside_it.partition("?")[2] == url.partition("?")[2]
    assert rows(sqlite.path_in(beside_it, Path("/nonexistent"))) == NEW
    assert rows(live) == OLD
    swap(made, backup)
    assert made.new_url().get_secret_value() == url
    assert rows(live) == NEW


def test_addresses_are_one_spelling_of_one_place(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to("real")
    (tmp_path / "real" / "link.db").symlink_to("shop.db")
    where = os.path.realpath(tmp_path)
    for url in (
        f"sqlite:///{tmp_path}/linked/shop.db",
        f"file:{tmp_path}/real/../linked/shop.db?x=1",
        "file:./linked/shop.db",
        "sqlite:///real/shop.db",
    ):
        assert databases.address_in(url, tmp_path) == f"sqlite:///{where}/real/shop.db"
    # What a link leads to is what is replaced.
    assert databases.address_in("file:real/link.db", tmp_path) == f"sqlite:///{where}/real/shop.db"
    (tmp_path / "real" / "link.db").unlink()
    (tmp_path / "real" / "link.db").symlink_to("other.db")
    assert databases.address_in("file:real/link.db", tmp_path) == f"sqlite:///{where}/real/other.db"
    odd = databases.address_in("file:%3F%0A shöp%.db", tmp_path)
    make(tmp_path / "?\n shöp%.db", 1)
    assert databases.address_in("file:%3F%0A shöp%25.db", tmp_path) == f"sqlite:///{where}/%3F%0A shöp%25.db"
    assert sqlite.path_in(f"sqlite:///{where}/%3F%0A shöp%25.db", tmp_path).exists()
    assert odd.isprintable()
    assert databases.public_url("file:shop.db?key=secret") == "file:shop.db"
    assert databases.with_secrets_of("file:shop.db", ["file:other.db?key=secret"]) == "file:shop.db"
    with pytest.raises(ConfigurationError, match="a file is no server"):
        databases.sibling("file:shop.db", "other")
