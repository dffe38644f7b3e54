"""Where drills restore PostgreSQL backups into: throw-away clusters, and databases on a server for drills."""

from __future__ import annotations

import copy
import io
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import psycopg
import pytest
from pydantic import SecretStr

from larder.codecs import codec
from larder.config import DatabaseSettings
from larder.databases import _postgres_client, _postgres_strays, open_scratch
from larder.databases._postgres_scratch import PostgresScratch
from larder.drilling import Examination
from larder.errors import ConfigurationError, ExhaustedError, LarderError, NotFoundError, RefusedError
from larder.progress import Progress
from larder.restoring import Content, Source
from tests.dumps import BINARIES, dumped, wait_for
from tests.servers import PASSWORD, SAMPLE, Cluster, Clusters, postgres_installs, small_disk

ROOT = os.geteuid() == 0
FORMS = ("plain", "directory")
NEWEST = max(postgres_installs())

#: Roles and a tablespace that no new cluster has.
MORE = """
CREATE ROLE drill_owner NOLOGIN;
CREATE ROLE drill_reader NOLOGIN;
CREATE ROLE "drill Grantee" NOLOGIN;
"""
OWNED = """
ALTER TABLE customers OWNER TO drill_owner;
GRANT SELECT ON customers TO drill_reader;
CREATE TABLE apart (a int) TABLESPACE drill_space;
INSERT INTO apart VALUES (1), (2);
"""


@dataclass(frozen=True)
class Backup:
    """A dump, in memory where it is a stream."""

    source: Source
    data: bytes
    folder: Path | None

    def content(self, scratch: Path, opened: Callable[[], BinaryIO] | None = None) -> Content:
        return Content(self.source, opened or (lambda: io.BytesIO(self.data)), self.folder, scratch)

    def changed(self, **database: Any) -> Source:
        """Its source, with other facts of the database."""
        fingerprint = copy.deepcopy(self.source.fingerprint)
        fingerprint["database"] |= database
        return replace(self.source, fingerprint=fingerprint)


@pytest.fixture(scope="module")
def backups(clusters: Clusters, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], Backup]:
    """Backups by the server's version and the dump's format, each made once; what they name is gone by then."""
    made: dict[tuple[int, str], Backup] = {}

    def get(version: int, form: str = "plain") -> Backup:
        if (version, form) not in made:
            with sample(clusters.get(version)) as name:
                for each in FORMS:
                    folder = tmp_path_factory.mktemp("backup")
                    made[version, each] = backup(clusters.get(version).url(name), folder, each)
        return made[version, form]

    return get


@contextmanager
def sample(server: Cluster) -> Iterator[str]:
    """A database of which all is used that a drill has to make before."""
    server.execute(MORE)
    try:
        with tablespace(server), server.database(f"shop_{uuid.uuid4().hex[:8]}") as name:
            server.execute(SAMPLE + OWNED, name)
            server.execute(f'GRANT CREATE ON DATABASE {name} TO "drill Grantee"')
            yield name
    finally:
        server.execute('DROP ROLE drill_owner, drill_reader, "drill Grantee"')


@contextmanager
def tablespace(server: Cluster) -> Iterator[None]:
    """The one that lies apart, for the length of a block."""
    space = server.folder / f"space-{uuid.uuid4().hex[:8]}"
    space.mkdir()
    if server.user is not None:
        os.chown(space, server.user, -1)
    server.execute(f"CREATE TABLESPACE drill_space LOCATION '{space}'")
    try:
        yield
    finally:
        server.execute("DROP TABLESPACE drill_space")


def backup(url: str, folder: Path, form: str) -> Backup:
    made = dumped(url, folder, format=form)
    piece, path = made.content, folder / made.content.path
    source = Source(
        "postgres",
        made.form,
        piece.raw_size,
        piece.raw_sha256,
        made.server_version,
        made.tool,
        made.fingerprint,
    )
    if form == "directory":
        return Backup(source, b"", path)
    with path.open("rb") as stored:
        return Backup(source, codec(piece.encoding).reader(stored).read(), None)


@contextmanager
def scratch(folder: Path, **options: Any) -> Iterator[PostgresScratch]:
    """A drill's, of which nothing is left whatever becomes of the test."""
    options.setdefault("postgres_bin", BINARIES)
    # Nobody listens there: whatever connects to the live database fails.
    url = SecretStr("postgresql://nobody@127.0.0.1:1/live")
    made = open_scratch(
        DatabaseSettings(name="shop", url=url, **options), "postgres", uuid.uuid4().hex[:12], folder / "spool"
    )
    assert isinstance(made, PostgresScratch)
    try:
        yield made
    finally:
        made.drop()
        assert not left(made)


def again(made: PostgresScratch, **options: Any) -> PostgresScratch:
    """The same drill's, after the configuration has changed to `options`."""
    settings = DatabaseSettings(name="shop", url=SecretStr("postgresql:///"), **options)
    return PostgresScratch(settings, made.drill, made.folder)


def left(made: PostgresScratch) -> list[str]:
    """What there is of a drill: folders, and processes by their command line."""
    folders = [Path("/tmp"), Path("/var/tmp"), made.folder, made.settings.scratch_dir or made.folder]
    found = [str(path) for folder in folders for path in folder.glob(f"*{made.drill}*")]
    found += [str(path) for path in made.folder.glob("cluster")]
    return found + processes(made)


def processes(made: PostgresScratch) -> list[str]:
    place = made._cluster.place
    return [
        f"{found.info['pid']} {line}"
        for found in psutil.process_iter(["pid", "cmdline"])
        if str(place.data) in (line := " ".join(found.info["cmdline"] or [])) or f"{place.label}:" in line
    ]


def counted(taken: Backup) -> tuple[int, int]:
    """Tables and rows, by its fingerprint."""
    tables = taken.source.fingerprint["tables"].values()
    return len(tables), sum(table["rows"] for table in tables)


def quiet(_line: str) -> None:
    pass


def escape(made: PostgresScratch, how: str) -> psutil.Process:
    """A program that a backup's function has started, and that has left the server's session; `how` it was begun."""
    seconds = f"3600.{uuid.uuid4().int % 10**9}"
    with psycopg.connect(made._cluster.url, autocommit=True) as connection:
        program = f"{how} setsid sleep {seconds} >/dev/null 2>&1 & cat >/dev/null"
        connection.execute(f"COPY (SELECT 1) TO PROGRAM '{program}'")

    def found() -> list[psutil.Process]:
        everybody = psutil.process_iter(["cmdline"])
        return [process for process in everybody if process.info["cmdline"] == ["sleep", seconds]]

    wait_for(lambda: bool(found()))
    return found()[0]


def over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def python_for(user: pwd.struct_passwd) -> str:
    """A Python that `user` may run."""
    for found in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError):
            subprocess.run(
                [found, "--version"], user=user.pw_uid, check=True, cwd="/", stdout=subprocess.DEVNULL
            )
            return found
    raise RuntimeError(f"there is no Python that {user.pw_name} may run")


@contextmanager
def forked(work: Callable[[], object], user: pwd.struct_passwd | None = None) -> Iterator[int]:
    """A child that does `work` and exits with 0 where that went well; gives its number."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if user is not None:
                os.setgroups([])
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
            work()
            code = 0
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.parametrize("form", FORMS)
def test_a_backup_comes_back_and_goes_away(
    postgres: Cluster, form: str, backups: Callable[..., Backup], tmp_path: Path
) -> None:
    taken = backups(postgres.version, form)
    content = taken.content(tmp_path)
    checks = ("SELECT count(*) = 500 FROM customers", "SELECT false")
    with scratch(tmp_path, checks=checks) as made:
        assert made.refusals(taken.source) == []
        assert made.drop() is False
        assert made.load(content, Progress(total=taken.source.raw_size), quiet) == []
        assert processes(made) == []
        found = made.examine(content, Progress())
        assert processes(made) == []
        assert (found.level, found.differences, found.not_covered) == ("rows", (), ())
        assert (found.tables, found.rows) == counted(taken)
        assert found.failed_checks == ("check is not true: SELECT false",)
        assert left(made)
        assert made.drop() is True
        assert left(made) == []
        assert made.drop() is False
        with pytest.raises(NotFoundError, match="its cluster is gone"):
            made.examine(content, Progress())


@pytest.mark.skipif(
    not ROOT, reason="takes root to become somebody else; what is tested runs as oneself elsewhere"
)
def test_a_worker_that_is_nobody_special_has_its_cluster_in_the_spool(
    backups: Callable[..., Backup], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, nobody = backups(NEWEST), pwd.getpwnam("nobody")
    # Where another server would be reached.
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    # Ours may lie in root's home.
    monkeypatch.setattr(sys, "executable", python_for(nobody))
    with tempfile.TemporaryDirectory(dir="/tmp") as made_folder:
        folder = Path(made_folder)
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)

        def drill() -> None:
            with scratch(folder) as made:
                assert made.refusals(taken.source) == []
                made.load(taken.content(folder), Progress(), quiet)
                cluster = folder / "spool" / "cluster"
                assert (cluster.stat().st_uid, cluster.stat().st_mode & 0o777) == (nobody.pw_uid, 0o700)
                assert made.examine(taken.content(folder), Progress()).differences == ()
                with made._running(made._chosen(taken.source), taken.source):
                    escaped = escape(made, "env -i")
                assert over(escaped)
                assert made.drop() is True

        with forked(drill, nobody) as pid:
            _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(not ROOT, reason="takes root to become somebody else")
def test_a_worker_that_is_root_gives_its_cluster_to_somebody_else(
    backups: Callable[..., Backup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = backups(NEWEST)
    with scratch(tmp_path) as made:
        made._cluster.create(made._chosen(taken.source))
        place = made._cluster.place
        inner = place.data.stat()
        # Never one that a live server may run as.
        assert pwd.getpwuid(inner.st_uid).pw_name in ("larder-drill", "nobody")
        assert inner.st_mode & 0o777 == 0o700
        assert (place.folder.stat().st_uid, place.folder.stat().st_gid) == (0, inner.st_gid)
        with made._running(made._chosen(taken.source), taken.source):
            found = [psutil.Process(int(line.split()[0])) for line in processes(made)]
            keeper = min(found, key=lambda process: process.create_time())
            assert set(keeper.uids()) == {0}
            assert len(found) > 2
            for process in set(found) - {keeper}:
                assert set(process.uids()) == {inner.st_uid}
                assert set(process.gids()) == {inner.st_gid}
                assert "Groups:\t\n" in Path(f"/proc/{process.pid}/status").read_text().replace(" ", "")
                assert not process.net_connections("inet")
            # Where the system has no /proc.
            monkeypatch.setattr(_postgres_strays, "_PROCESSES", tmp_path / "none")
            assert set(made._cluster._processes()) == {process.pid for process in found}
            monkeypatch.undo()
            # Nothing that it could clear or leave helps it.
            escaped = escape(made, "env -i")
            assert set(escaped.uids()) == {inner.st_uid}
        assert over(escaped)
        with made._running(made._chosen(taken.source), taken.source):
            escaped = escape(made, "")
            (keeper,) = [
                found for found in map(psutil.Process, made._cluster._processes()) if not found.uids()[0]
            ]
            keeper.kill()
            wait_for(lambda: over(keeper))
            assert not over(escaped)
            assert made.drop() is True
            assert over(escaped)


@pytest.mark.skipif(not ROOT, reason="takes root to become somebody else")
def test_where_nobody_can_run_it_the_user_to_make_is_named(
    backups: Callable[..., Backup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, known = backups(NEWEST), pwd.getpwnam

    def without(name: str) -> pwd.struct_passwd:
        if name in ("larder-drill", "nobody"):
            raise KeyError(name)
        return known(name)

    with scratch(tmp_path) as made:
        monkeypatch.setattr(pwd, "getpwnam", without)
        (refused,) = made.refusals(taken.source)
        monkeypatch.undo()
    assert "no user 'larder-drill' or 'nobody'" in str(refused)
    assert "useradd --system --no-create-home larder-drill" in str(refused)


@pytest.mark.skipif(not ROOT, reason="oneself can run what oneself has installed")
def test_programs_that_the_other_user_cannot_run_are_refused(
    backups: Callable[..., Backup], tmp_path: Path
) -> None:
    taken, hidden = backups(NEWEST), tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    for word in ("postgres", "initdb"):
        (hidden / word).write_text(f"#!/bin/sh\necho '{word} (PostgreSQL) {NEWEST}.999'\n")
        (hidden / word).chmod(0o755)
    with scratch(tmp_path, postgres_bin=(hidden, *BINARIES)) as made:
        (refused,) = made.refusals(taken.source)
    assert f"unable to run {hidden / 'postgres'} as user" in str(refused)


def test_a_long_path_has_its_socket_elsewhere(backups: Callable[..., Backup], tmp_path: Path) -> None:
    taken = backups(NEWEST)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made_folder:
        folder = Path(made_folder)
        folder.chmod(0o755)
        deep = folder / ("long, and odd " * 8)
        deep.mkdir()
        # Whatever the umask is.
        deep.chmod(0o755)
        with scratch(tmp_path, scratch_dir=deep) as made:
            assert made.refusals(taken.source) == []
            made.load(taken.content(tmp_path), Progress(), quiet)
            assert list(deep.iterdir()) == [deep / f"larder-drill-{made.drill}"]
            assert Path(f"/tmp/larder-drill-{made.drill}-socket").is_dir()
            assert made.examine(taken.content(tmp_path), Progress()).differences == ()
            assert made.drop() is True
            assert list(deep.iterdir()) == []
        if ROOT:
            deep.chmod(0o700)
            with scratch(tmp_path, scratch_dir=deep) as made:
                assert "may not pass through" in str(made.refusals(taken.source)[0])
            with scratch(tmp_path, scratch_dir=deep / "none") as made:
                assert "there is no folder" in str(made.refusals(taken.source)[0])


def test_a_cluster_goes_from_where_it_was_made_though_another_place_is_configured(
    backups: Callable[..., Backup], tmp_path: Path
) -> None:
    taken, place = backups(NEWEST), tmp_path / "place"
    place.mkdir()
    with scratch(tmp_path, scratch_dir=place) as made:
        # Its folders are as far as it gets where what pytest has made is root's alone.
        with suppress(LarderError):
            made.load(taken.content(tmp_path), Progress(), quiet)
        assert list(place.iterdir())
        assert again(made, scratch_url=SecretStr("postgresql://127.0.0.1:1/x")).drop() is True
        assert list(place.iterdir()) == []
        assert made.drop() is False


def test_a_strangers_folder_of_that_name_stays(backups: Callable[..., Backup], tmp_path: Path) -> None:
    taken, place = backups(NEWEST), tmp_path / "place"
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").touch()
    place.mkdir()
    with scratch(tmp_path, scratch_dir=place) as made:
        link = place / f"larder-drill-{made.drill}"
        link.symlink_to(theirs)
        with pytest.raises(RefusedError, match="somebody else's"):
            made.load(taken.content(tmp_path), Progress(), quiet)
        assert made.drop() is False
        assert (link.is_symlink(), list(theirs.iterdir())) == (True, [theirs / "file"])
        link.unlink()


def test_a_disk_that_is_full_is_told_and_nothing_stays(
    backups: Callable[..., Backup], tmp_path: Path
) -> None:
    taken = backups(NEWEST)
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as outer,
        small_disk(Path(outer), 4 << 20) as disk,
        scratch(tmp_path, scratch_dir=disk) as made,
    ):
        # Whoever runs PostgreSQL has to pass through.
        Path(outer).chmod(0o711)
        disk.chmod(0o711)
        with pytest.raises(ExhaustedError, match="No space left on device") as caught:
            made.load(taken.content(tmp_path), Progress(), quiet)
        assert "scratch_dir" in caught.value.hint
        assert made.drop()
        assert list(disk.iterdir()) == []


def test_what_is_missing_here_is_refused(backups: Callable[..., Backup], tmp_path: Path) -> None:
    taken = backups(NEWEST)
    with scratch(tmp_path) as made:
        (lacking,) = made.refusals(taken.changed(extensions={"pg_trgm": "1.6", "made_up": "1.0"}))
        assert isinstance(lacking, RefusedError)
        assert "has no extension 'made_up'" in str(lacking) or "'pg_trgm', 'made_up'" in str(lacking)
        assert "scratch_url" in lacking.hint
        (large,) = made.refusals(taken.changed(size=1 << 60))
        assert isinstance(large, ExhaustedError)
        (newer,) = made.refusals(replace(taken.source, server_version="99.1"))
        assert isinstance(newer, ConfigurationError)
        assert f"PostgreSQL 99.1: the newest on this machine is {NEWEST}." in newer.message
        assert "postgresql-99" in newer.hint
        (tool,) = made.refusals(replace(taken.source, tool="pg_dump 99.1"))
        assert "pg_dump 99.1" in tool.message
        (other,) = made.refusals(replace(taken.source, engine="sqlite"))
        assert "not of PostgreSQL" in other.message


def test_the_server_is_the_newest_of_the_nearest_version(tmp_path: Path) -> None:
    folders = []
    for version in ("97.1", "97.4", "98.2"):
        folder = tmp_path / version
        folder.mkdir()
        for word in ("postgres", "initdb"):
            (folder / word).write_text(f"#!/bin/sh\necho '{word} (PostgreSQL) {version} (made up)'\n")
            (folder / word).chmod(0o755)
        folders.append(folder)
    choose = _postgres_client.choose_server
    assert str(choose("97.2", folders)) == "97.4"
    assert str(choose("96.9", folders)) == "97.4"
    assert str(choose("98beta1", folders)) == "98.2"
    (tmp_path / "98.2" / "initdb").unlink()
    with pytest.raises(ConfigurationError, match=r"of PostgreSQL 98.1: the newest on this machine is 97.4"):
        choose("98.1", folders)


def test_two_drills_at_once_do_not_meet(backups: Callable[..., Backup], tmp_path: Path) -> None:
    taken = backups(NEWEST)
    # A locale that is not known here: what it orders is not covered.
    elsewhere = replace(taken, source=taken.changed(collate="xx_XX.utf8", ctype="xx_XX.utf8"))

    def drill(each: Backup) -> tuple[list[str], Examination]:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        with scratch(folder) as made:
            warnings = made.load(each.content(folder), Progress(), quiet)
            return warnings, made.examine(each.content(folder), Progress())

    with ThreadPoolExecutor(2) as pool:
        (no_warnings, found), (warnings, other) = pool.map(drill, (taken, elsewhere))
    assert (found.differences, other.differences, no_warnings) == ((), (), [])
    assert "the database has the server's own locale" in warnings[0]
    assert (len(found.not_covered), len(other.not_covered)) == (0, 1)
    assert "'xx_XX.utf8'" in other.not_covered[0]


class Stuck(io.RawIOBase):
    """The first half of a dump, and then nothing, for ever."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._half = io.BytesIO(data[: len(data) // 2])

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found = self._half.read(size)
        if not found:
            threading.Event().wait()
        return found

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def at_work(made: PostgresScratch) -> bool:
    return any(f"postgres {made.database} " in line for line in processes(made))


def test_a_worker_killed_in_the_middle_of_a_load_leaves_no_process(
    backups: Callable[..., Backup], tmp_path: Path
) -> None:
    taken = backups(NEWEST)
    stuck = taken.content(tmp_path, lambda: Stuck(taken.data))  # type: ignore[return-value, arg-type]
    with scratch(tmp_path) as made:
        with forked(lambda: made.load(stuck, Progress(), quiet)) as pid:
            wait_for(lambda: at_work(made))
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not processes(made))
        assert made.load(taken.content(tmp_path), Progress(), quiet) == []
        assert made.examine(taken.content(tmp_path), Progress()).differences == ()


def test_what_another_attempt_runs_is_ended_by_drop(backups: Callable[..., Backup], tmp_path: Path) -> None:
    taken = backups(NEWEST)
    stuck = taken.content(tmp_path, lambda: Stuck(taken.data))  # type: ignore[return-value, arg-type]
    with scratch(tmp_path) as made, forked(lambda: made.load(stuck, Progress(), quiet)):
        wait_for(lambda: at_work(made))
        assert made.drop() is True
        assert left(made) == []


def test_a_worker_killed_in_the_middle_of_an_examination_leaves_no_process(
    backups: Callable[..., Backup], tmp_path: Path
) -> None:
    taken = backups(NEWEST)
    with scratch(tmp_path, checks=("SELECT pg_sleep(3600) IS NULL",)) as made:
        made.load(taken.content(tmp_path), Progress(), quiet)
        with forked(lambda: made.examine(taken.content(tmp_path), Progress())) as pid:
            wait_for(lambda: any(f"{made.database} [local] SELECT" in line for line in processes(made)))
            # The worst: the server itself is killed too, and the sessions of its own are left to themselves.
            for server in [int(line.split()[0]) for line in processes(made) if " -D " in line]:
                os.kill(server, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
        assert made.drop() is True
        assert left(made) == []


class TestAServerForDrills:
    """`scratch_url`."""

    def test_everything_is_taken_away_again(
        self, postgres: Cluster, backups: Callable[..., Backup], tmp_path: Path
    ) -> None:
        taken = backups(postgres.version)
        content, url = taken.content(tmp_path), SecretStr(postgres.url("postgres"))
        with tablespace(postgres), scratch(tmp_path, scratch_url=url) as made:
            before = facts(postgres)
            assert made.refusals(taken.source) == []
            made.load(content, Progress(), quiet)
            name = f"drill_{made.drill}__restore_{made.drill}"
            assert set(postgres.databases()) == {*before[0], name}
            with postgres.connect() as connection:
                query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
                assert made.drill in (connection.execute(query, [name]).fetchone() or ("",))[0]
                # Somebody has found a use for one of the roles.
                connection.execute("CREATE TABLE mine (a int)")
                connection.execute("GRANT SELECT ON mine TO drill_reader")
            assert made.examine(content, Progress()).differences == ()
            assert made.drop() is True
            assert facts(postgres) == (before[0], sorted([*before[1], "drill_reader"]))
            postgres.execute("DROP TABLE mine")
            assert made.drop() is False
            assert facts(postgres) == before

    def test_what_was_built_elsewhere_is_named_until_it_can_be_removed(
        self, backups: Callable[..., Backup], clusters: Clusters, tmp_path: Path
    ) -> None:
        taken, server = backups(NEWEST), clusters.get(NEWEST)
        place = tmp_path / "place"
        place.mkdir()
        url = SecretStr(server.url("postgres"))
        with tablespace(server), scratch(tmp_path, scratch_url=url) as made:
            made.load(taken.content(tmp_path), Progress(), quiet)
            for options in (
                {"scratch_dir": place},
                {"scratch_url": SecretStr("postgresql://u:pw@127.0.0.1:1/x")},
            ):
                moved = again(made, **options)
                with pytest.raises(LarderError, match=made.database) as caught:
                    moved.drop()
                assert f"127.0.0.1:{server.port}" in caught.value.message
                assert PASSWORD not in str(caught.value)
            assert made.database in server.databases()
            assert made.drop() is True
            assert again(made).drop() is False

    def test_what_it_lacks_is_refused(
        self, clusters: Clusters, backups: Callable[..., Backup], tmp_path: Path
    ) -> None:
        taken, server = backups(NEWEST), clusters.get(NEWEST)
        with scratch(tmp_path, scratch_url=SecretStr(server.url("postgres"))) as made:
            found = made.refusals(taken.changed(extensions={"made_up": "1.0"}))
        said = "\n".join(map(str, found))
        assert "no extension 'made_up'" in said
        assert "no tablespace 'drill_space'" in said
        assert "no role" not in said


def facts(server: Cluster) -> tuple[list[str], list[str]]:
    """Its databases and roles."""
    with server.connect() as connection:
        rows = connection.execute("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'").fetchall()
    return server.databases(), sorted(name for (name,) in rows)
