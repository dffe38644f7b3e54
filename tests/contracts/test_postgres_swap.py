"""Two databases of a real server exchange names: while clients come and go, when killed anywhere, and back again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from larder.databases import _postgres_swap as swapping
from larder.databases._postgres_swap import drop, exchange, put_back
from larder.errors import BusyError, RefusedError
from larder.restoring import Kept
from tests.dumps import role, wait_for
from tests.servers import Cluster, Clusters

TABLE = "CREATE TABLE t AS SELECT '{}'::text AS what; CREATE TABLE load (a int)"


@dataclass
class Place:
    """A live database, a new one beside it, and the names for what is replaced."""

    cluster: Cluster
    live: str
    said: list[str] = field(default_factory=list)

    @property
    def new(self) -> str:
        return f"{self.live}__restore_0123456789ab"

    @property
    def kept(self) -> str:
        return f"{self.live}__before_20261124"

    @property
    def undone(self) -> str:
        return f"{self.live}__undone_20261124"

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.cluster.url("postgres"), autocommit=True)

    def exchange(self, note: Path | None = None) -> Kept | None:
        return exchange(self.connect, self.live, self.new, self.kept, None, self.said.append, note)

    def put_back(self, kept: Kept) -> Kept:
        return put_back(self.connect, self.live, kept, self.undone, self.said.append)

    def what(self, name: str) -> str:
        """What the database of that name holds, by a connection to it."""
        with self.cluster.connect(name) as connection:
            return str((connection.execute("SELECT what FROM t").fetchone() or ("",))[0])

    def names(self) -> set[str]:
        return {name.removeprefix(self.live) for name in self.cluster.databases() if self.live in name}

    def make(self, name: str, what: str) -> None:
        self.cluster.createdb(name)
        self.cluster.execute(TABLE.format(what), name)

    def remove(self) -> None:
        """Drop what there is of them."""
        for name in self.names():
            self.cluster.dropdb(self.live + name)

    def oid(self, name: str) -> str:
        with self.cluster.connect() as connection:
            row = connection.execute(
                "SELECT oid::text FROM pg_database WHERE datname = %s", [name]
            ).fetchone()
        return str(row[0]) if row else ""


@contextlib.contextmanager
def placed(cluster: Cluster) -> Iterator[Place]:
    place = Place(cluster, f"Shop {uuid.uuid4().hex[:8]}")
    place.make(place.live, "old")
    place.make(place.new, "new")
    try:
        yield place
    finally:
        place.remove()


@pytest.fixture
def place(postgres: Cluster) -> Iterator[Place]:
    with placed(postgres) as found:
        yield found


@pytest.fixture
def one_place(clusters: Clusters) -> Iterator[Place]:
    with placed(clusters.get(16)) as found:
        yield found


@contextlib.contextmanager
def pgbench(place: Place, *options: str) -> Iterator[None]:
    """Eight clients of the live database, which begin again whenever they are thrown out."""
    script = place.cluster.folder / f"load_{uuid.uuid4().hex[:8]}.sql"
    script.write_text("INSERT INTO load VALUES (1);\nSELECT count(*) FROM t;\n")
    argv = [place.cluster.bin / "pgbench", "-n", "-c", "8", "-T", "60", "-f", script, *options]
    stop = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def run() -> None:
        while not stop.is_set():
            with subprocess.Popen(
                argv,
                env=place.cluster.environment(place.live),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                running[:] = [process]
                if stop.is_set():
                    process.kill()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with place.cluster.connect(place.live) as connection:
            wait_for(lambda: (connection.execute("SELECT count(*) FROM load").fetchone() or (0,))[0] > 50)
        yield
    finally:
        stop.set()
        for process in running:
            process.kill()
        thread.join()


class Prober:
    """Connects to the live database again and again, and notes what it found, and when."""

    def __init__(self, place: Place) -> None:
        self._dsn = place.cluster.socket_dsn(place.live)
        self._stop = threading.Event()
        self.found: list[tuple[float, float, str]] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def __enter__(self) -> Prober:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            since = time.monotonic()
            try:
                with psycopg.connect(self._dsn) as connection:
                    what = str((connection.execute("SELECT what FROM t").fetchone() or ("",))[0])
            except psycopg.Error as error:
                what = f"error: {error}"
            self.found.append((since, time.monotonic(), what))

    def seen(self, what: str) -> bool:
        return any(found == what for _, _, found in self.found)

    def window(self) -> float:
        """Seconds from the last answer of the old database to the first of the new one; errors lie within."""
        last = max(end for _, end, what in self.found if what == "old")
        first = min(begin for begin, _, what in self.found if what == "new")
        answered = min(end for _, end, what in self.found if what == "new")
        for begin, end, what in self.found:
            if what.startswith("error"):
                assert end > last - 0.05, what
                assert begin < answered + 0.05, what
        return max(first, answered) - last


@pytest.mark.parametrize("options", [("-C",), ()], ids=["reconnecting", "staying"])
def test_clients_go_over_within_a_second(
    place: Place, options: tuple[str, ...], record_property: Callable[[str, object], None]
) -> None:
    with pgbench(place, *options), Prober(place) as prober:
        wait_for(lambda: prober.seen("old"))
        kept = place.exchange()
        wait_for(lambda: prober.seen("new"))
    held = float(place.said[-1].split()[-2])
    record_property("held", held)
    record_property("window", prober.window())
    record_property("errors", sum(what.startswith("error") for _, _, what in prober.found))
    assert held < 1
    assert prober.window() < 2
    assert place.names() == {"", "__before_20261124"}
    assert kept is not None
    assert (kept.name, kept.identity) == (place.kept, place.oid(place.kept))
    assert kept.size > 1e6
    assert (place.what(place.live), place.what(kept.name)) == ("new", "old")


def test_undone_and_let_go(place: Place) -> None:
    kept = place.exchange()
    assert kept is not None
    assert place.exchange() == kept
    undone = place.put_back(kept)
    assert undone == Kept(place.undone, place.oid(place.undone), undone.size)
    assert (place.what(place.live), place.what(place.undone)) == ("old", "new")
    assert place.put_back(kept) == undone
    # What was kept is live again: its name is gone, and dropping it must not find it.
    assert not drop(place.connect, kept)
    assert drop(place.connect, undone)
    assert not drop(place.connect, undone)
    assert place.names() == {""}
    with pytest.raises(RefusedError, match="there is no database"):
        place.exchange()


def test_a_template_is_let_go_as_well(one_place: Place) -> None:
    place = one_place
    place.cluster.execute(f'ALTER DATABASE "{place.live}" IS_TEMPLATE true')
    kept = place.exchange()
    assert kept is not None
    place.cluster.execute(f'ALTER DATABASE "{place.live}" IS_TEMPLATE false')
    assert drop(place.connect, kept)
    assert place.names() == {""}


def test_what_cannot_be_confirmed_is_done(one_place: Place) -> None:
    place = one_place
    move = swapping._Move(place.live, place.new, 1, place.kept, None)
    with place.cluster.connect() as connection:
        swapping._arrive(connection, move, place.said.append)
        gone = swapping._Move(f"{place.live}_gone", place.new, 1, place.kept, None)
        swapping._arrive(connection, gone, place.said.append)
    assert "leads to another database" in place.said[0]
    assert "does not exist" in place.said[1]


def test_another_database_of_that_name_stays(one_place: Place) -> None:
    place = one_place
    kept = place.exchange()
    assert kept is not None
    place.cluster.dropdb(kept.name)
    with pytest.raises(RefusedError, match="is gone"):
        place.put_back(kept)
    place.make(kept.name, "foreign")
    assert not drop(place.connect, kept)
    with pytest.raises(RefusedError, match="another one"):
        place.put_back(kept)
    assert (place.what(place.live), place.what(kept.name)) == ("new", "foreign")


def test_into_an_empty_place(one_place: Place, tmp_path: Path) -> None:
    place, note = one_place, tmp_path / "swap.json"
    old = Kept(place.kept, place.oid(place.live), 0)
    with place.cluster.connect() as connection:
        connection.execute(f'ALTER DATABASE "{place.live}" RENAME TO "{place.kept}_moved"')
    assert place.exchange(note) is None
    assert place.exchange(note) is None
    assert place.what(place.live) == "new"
    # Without the note nobody could tell this from a database that was never exchanged.
    with pytest.raises(RefusedError, match="there is no database"):
        place.exchange()
    place.cluster.dropdb(place.live)
    with place.cluster.connect() as connection:
        connection.execute(f'ALTER DATABASE "{place.kept}_moved" RENAME TO "{place.kept}"')
    for _ in range(2):
        assert place.put_back(old).identity == "0"
    assert place.what(place.live) == "old"


def test_present_facts_go_over(place: Place) -> None:
    with (
        role(place.cluster, "CREATEDB") as owner,
        role(place.cluster) as reader,
        place.cluster.connect() as connection,
    ):
        live = f'"{place.live}"'
        for statement in (
            f"ALTER DATABASE {live} OWNER TO {owner}",
            f"ALTER DATABASE {live} SET work_mem = '7MB'",
            f"ALTER DATABASE {live} CONNECTION LIMIT 33",
            f"REVOKE CONNECT ON DATABASE {live} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {live} TO {reader}",
            f"COMMENT ON DATABASE {live} IS 'the shop''s'",
        ):
            connection.execute(statement)
        try:
            before = _facts(connection, place.live)
            kept = place.exchange()
            assert kept is not None
            assert _facts(connection, place.live) == before
            connection.execute(f"ALTER DATABASE {live} CONNECTION LIMIT 44")
            place.put_back(kept)
            assert _facts(connection, place.live)[2] == 44
        finally:
            place.remove()


def _facts(connection: psycopg.Connection, name: str) -> tuple[object, ...]:
    row = connection.execute(
        "SELECT r.rolname, array(SELECT a::text FROM unnest(datacl) a ORDER BY 1), datconnlimit,"
        " shobj_description(d.oid, 'pg_database'),"
        " (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid)"
        " FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE datname = %s",
        [name],
    ).fetchone()
    assert row is not None
    return row


#: Forks a process of its own for each exchange that it is asked for, so that Python starts only once.
_WORKER = """
    import os, sys
    import psycopg
    from larder.databases._postgres_swap import exchange
    def connect():
        return psycopg.connect(sys.argv[1], autocommit=True, application_name="swapper")
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            print(os.getpid(), flush=True)
            exchange(connect, *sys.argv[2:5], None, lambda line: None)
            os._exit(0)
        print("ended" if os.waitpid(child, 0)[1] else "done", flush=True)
"""


@contextlib.contextmanager
def worker(place: Place) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", textwrap.dedent(_WORKER), place.cluster.socket_dsn("postgres")]
    with subprocess.Popen(
        [*argv, place.live, place.new, place.kept], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _asked(process: subprocess.Popen[str]) -> int:
    """Have the worker begin an exchange; gives the process that it runs in."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@pytest.mark.parametrize("how", ["worker", "connections"])
def test_killed_anywhere(one_place: Place, how: str) -> None:
    place, seen, clock = one_place, set(), threading.Event()
    with pgbench(place, "-C"), worker(place) as process, place.cluster.connect() as killer:
        assert process.stdout is not None
        # The exchange takes about 0.2 s, of which the transaction's 0.12 s.
        for moment in (*range(0, 240, 24 if how == "worker" else 80), None):
            child = _asked(process)
            if moment is None:
                # However slow the machine is: once after it was done.
                wait_for(lambda: place.kept in place.cluster.databases())
            else:
                clock.wait(moment / 1000)
            if how == "worker":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                said = process.stdout.readline()
            else:
                killer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'swapper'"
                )
                said = process.stdout.readline()
            # What the server was doing for it ends by itself.
            wait_for(lambda: place.cluster.sessions("swapper") == 0)
            names = place.names()
            assert names in ({"", "__restore_0123456789ab"}, {"", "__before_20261124"}), names
            swapped = "__before_20261124" in names
            assert swapped or said == "ended\n"
            seen.add(swapped)
            kept = place.exchange()
            assert kept is not None
            assert (place.what(place.live), place.what(kept.name)) == ("new", "old")
            undone = place.put_back(kept)
            killer.execute(f'ALTER DATABASE "{undone.name}" RENAME TO "{place.new}"')
    assert seen == {True, False} or how == "connections"


def test_what_stays_with_a_database_is_in_the_way() -> None:
    cluster = Cluster(16)
    try:
        cluster.create()
        with (cluster.data / "postgresql.conf").open("a") as settings:
            settings.write("max_prepared_transactions = 2\nwal_level = logical\n")
        cluster.start()
        with placed(cluster) as place:
            with cluster.connect(place.live) as session:
                session.execute("BEGIN; INSERT INTO load VALUES (1); PREPARE TRANSACTION 'two phases'")
                with pytest.raises(BusyError, match="prepared transaction two phases"):
                    place.exchange()
                session.execute("ROLLBACK PREPARED 'two phases'")
                session.execute("SELECT pg_create_logical_replication_slot('reader', 'pgoutput')")
            argv = [
                cluster.bin / "pg_recvlogical",
                "--start",
                "--slot=reader",
                "--file=-",
                "-o",
                "proto_version=1",
            ]
            session_dsn = ["-o", "publication_names=x", f"--dbname={cluster.socket_dsn(place.live)}"]
            with subprocess.Popen([*argv, *session_dsn], stdout=subprocess.DEVNULL) as reader:
                try:
                    with cluster.connect() as connection:
                        wait_for(
                            lambda: (
                                (
                                    connection.execute("SELECT active FROM pg_replication_slots").fetchone()
                                    or ()
                                )
                                == (True,)
                            )
                        )
                    with pytest.raises(BusyError, match="logical replication slot reader"):
                        place.exchange()
                finally:
                    reader.kill()
            assert place.what(place.live) == "old"
    finally:
        cluster.remove()


def test_no_right(one_place: Place) -> None:
    place = one_place
    with pytest.raises(RefusedError, match="no other database of its server can be connected to"):
        exchange(
            lambda: place.cluster.connect(place.live),
            place.live,
            place.new,
            place.kept,
            None,
            place.said.append,
        )
    with role(place.cluster, "CREATEDB") as owner, role(place.cluster) as other:

        def connect() -> psycopg.Connection:
            return psycopg.connect(place.cluster.url("postgres", owner), autocommit=True)

        def attempt() -> Kept | None:
            return exchange(connect, place.live, place.new, place.kept, None, place.said.append)

        with pytest.raises(RefusedError, match="does not own"):
            attempt()
        for name in (place.live, place.new):
            place.cluster.execute(f'ALTER DATABASE "{name}" OWNER TO {owner}')
        try:
            with psycopg.connect(place.cluster.url(place.live, other)) as session:
                with pytest.raises(BusyError, match=rf"user {other}.* may not disconnect"):
                    attempt()
                session.execute("SELECT 1")
                place.cluster.execute(f"GRANT pg_signal_backend TO {owner}")
                place.cluster.execute(f"ALTER ROLE {owner} NOCREATEDB")
                with pytest.raises(RefusedError, match="right to create databases"):
                    attempt()
                session.execute("SELECT 1")
                place.cluster.execute(f"ALTER ROLE {owner} CREATEDB")
                assert attempt() is not None
                with pytest.raises(psycopg.OperationalError):
                    session.execute("SELECT 1")
            assert place.what(place.live) == "new"
        finally:
            place.remove()


def test_somebody_holds_the_lock(one_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place = one_place
    monkeypatch.setattr(swapping, "PATIENCE", 1)
    with (
        place.cluster.connect() as holder,
        holder.transaction(),
        psycopg.connect(place.cluster.socket_dsn(place.live), application_name="web") as session,
    ):
        holder.execute(f"""COMMENT ON DATABASE "{place.live}" IS 'held'""")
        with pytest.raises(BusyError, match="in use for 1 s"):
            place.exchange()
        session.execute("SELECT 1")
        raise psycopg.Rollback
    assert place.names() == {"", "__restore_0123456789ab"}
    assert place.what(place.live) == "old"
    assert place.exchange() is not None
