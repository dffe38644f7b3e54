"""All rows of a table, sent by one session: frozen where the table may be emptied before, and else as they are."""

from __future__ import annotations

import gzip
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from larder.databases._postgres_alone import WORTH_FREEZING, Alone, send
from larder.databases._postgres_cut import Rows
from larder.databases._postgres_folder import END_OF_ROWS, table_file
from larder.errors import IntegrityError
from tests.dumps import filled, role, wait_for
from tests.servers import Cluster, Clusters, postgres_installs

COUNT = 200_000
ROWS = b"".join(b"%d\t%d\n" % (n, n * 7919) for n in range(COUNT))
assert len(ROWS) > WORTH_FREEZING

VERSIONS = sorted({min(postgres_installs()), max(postgres_installs())})


def alone(folder: Path, statement: bytes = b"COPY public.a (n, m) FROM stdin", rows: bytes = ROWS) -> Alone:
    (folder / "1.dat.gz").write_bytes(gzip.compress(rows + END_OF_ROWS, 1))
    return Alone(statement, table_file(folder, Rows(b"1.dat.gz\n")))


def sent(cluster: Cluster, name: str, table: Alone, user: str = "") -> int:
    """Send it; gives after how many blocks it was done."""
    counted = []
    with psycopg.connect(
        cluster.url(name, user) if user else cluster.url(name), autocommit=True
    ) as connection:
        send(connection, table, lambda: counted.append(1))
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    return len(counted)


def state(cluster: Cluster, name: str, table: str = "public.a") -> tuple[int, bool]:
    """How many rows there are, and whether pages are marked as all visible: but for a few, where a block begins."""
    with cluster.connect(name) as connection:
        (rows,) = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() or (0,)
        connection.execute(f"ANALYZE {table}".encode())
        query = "SELECT relallvisible > greatest(0, 0.9 * relpages) FROM pg_class WHERE oid = %s::regclass"
        (visible,) = connection.execute(query, [table]).fetchone() or (None,)
        return int(rows), bool(visible)


TABLE = "CREATE TABLE a (n int, m bigint) WITH (autovacuum_enabled = off)"


@pytest.fixture(params=VERSIONS)
def cluster(request: pytest.FixtureRequest, clusters: Clusters) -> Cluster:
    return clusters.get(request.param)


def test_rows_come_frozen(cluster: Cluster, tmp_path: Path) -> None:
    with filled(cluster, TABLE) as name:
        assert sent(cluster, name, alone(tmp_path)) > 1
        assert state(cluster, name) == (COUNT, True)
        with cluster.connect(name) as connection:
            (last,) = connection.execute("SELECT m FROM a ORDER BY n DESC LIMIT 1").fetchone() or (0,)
        assert last == (COUNT - 1) * 7919


@pytest.mark.parametrize("called", ['public."a ""b"""', '"Ä (x".y', 'public."FROM stdin"'])
def test_whatever_the_table_is_called(cluster: Cluster, called: str, tmp_path: Path) -> None:
    with filled(cluster, f'CREATE SCHEMA "Ä (x"; {TABLE.replace(" a ", f" {called} ")}') as name:
        sent(cluster, name, alone(tmp_path, f"COPY {called} (n, m) FROM stdin".encode()))
        assert state(cluster, name, called) == (COUNT, True)


@pytest.mark.parametrize(("encoding", "frozen"), [("LATIN1", True), ("SQL_ASCII", False)])
def test_in_whatever_encoding_it_is_called_so(
    cluster: Cluster, encoding: str, tmp_path: Path, *, frozen: bool
) -> None:
    name = f"shop_{uuid.uuid4().hex[:8]}"
    cluster.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'")
    try:
        # psycopg encodes nothing for a database that has no encoding.
        called = "ä".encode("utf-8" if encoding == "SQL_ASCII" else "latin-1")
        cluster.execute(TABLE.encode().replace(b" a ", b" " + called + b" "), name)  # type: ignore[arg-type]
        sent(cluster, name, alone(tmp_path, b"COPY public." + called + b" (n, m) FROM stdin"))
        cluster.execute(b"ALTER TABLE " + called + b" RENAME TO a", name)  # type: ignore[arg-type]
        assert state(cluster, name) == (COUNT, frozen)
    finally:
        cluster.dropdb(name)


@pytest.mark.parametrize(
    "why",
    [
        # As an extension's own are, which come with it.
        f"{TABLE}; INSERT INTO a VALUES (-1, -1)",
        f"""{TABLE}; CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
            CREATE TRIGGER no BEFORE TRUNCATE ON a EXECUTE FUNCTION no()""",
        """CREATE TABLE a (n int, m bigint) PARTITION BY RANGE (n);
            CREATE TABLE a_0 PARTITION OF a DEFAULT WITH (autovacuum_enabled = off)""",
    ],
    ids=["rows", "trigger", "partitioned"],
)
def test_a_table_that_may_not_be_emptied_keeps_what_it_has(
    cluster: Cluster, why: str, tmp_path: Path
) -> None:
    with filled(cluster, why) as name:
        sent(cluster, name, alone(tmp_path))
        assert state(cluster, name) == (COUNT + ("INSERT" in why), False)


def test_few_rows_are_not_worth_it(cluster: Cluster, tmp_path: Path) -> None:
    with filled(cluster, TABLE) as name:
        sent(cluster, name, alone(tmp_path, rows=b"1\t2\n"))
        assert state(cluster, name) == (1, False)


def test_who_may_only_add_rows_adds_them(cluster: Cluster, tmp_path: Path) -> None:
    with role(cluster) as user, filled(cluster, f"{TABLE}; GRANT INSERT ON a TO {user}") as name:
        sent(cluster, name, alone(tmp_path), user)
        assert state(cluster, name) == (COUNT, False)


def test_a_row_that_is_wrong_leaves_the_table_as_it_was(cluster: Cluster, tmp_path: Path) -> None:
    with filled(cluster, TABLE) as name:
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            sent(cluster, name, alone(tmp_path, rows=ROWS + b"1\tx\n"))
        with cluster.connect(name) as connection:
            assert connection.execute("SELECT count(*) FROM a").fetchone() == (0,)


def test_a_file_that_is_damaged_leaves_the_table_empty(cluster: Cluster, tmp_path: Path) -> None:
    with filled(cluster, TABLE) as name:
        table = alone(tmp_path)
        table.file.path.write_bytes(table.file.path.read_bytes()[:-1])
        with pytest.raises(IntegrityError, match=r"1\.dat\.gz"):
            sent(cluster, name, table)
        assert state(cluster, name) == (0, False)


def test_a_lost_session_is_not_tried_with(cluster: Cluster, tmp_path: Path) -> None:
    """What the server said is what is told, not that the connection is closed."""
    with (
        filled(cluster, TABLE) as name,
        psycopg.connect(cluster.url(name), autocommit=True) as connection,
        cluster.connect() as other,
    ):
        ending = threading.Event()

        def end() -> None:
            if not ending.is_set():
                ending.set()
                other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])

        with pytest.raises(psycopg.OperationalError) as caught:
            send(connection, alone(tmp_path), end)
        assert ending.is_set()
        assert "the connection is closed" not in str(caught.value)


def crossed(cluster: Cluster, name: str, folder: Path) -> Iterator[threading.Thread]:
    for table in "ab":
        (folder / table).mkdir()
        made = alone(folder / table, f"COPY public.{table} (n, m) FROM stdin".encode())
        yield threading.Thread(target=sent, args=[cluster, name, made])


def test_tables_whose_rows_are_checked_by_a_look_at_each_other_come_too(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Each holds its own for itself until its rows are committed; one of the two gives way."""
    looks = """CREATE FUNCTION looks(t text) RETURNS bool LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE format('SELECT FROM %s LIMIT 1', t); RETURN true; END $$;"""
    tables = "".join(
        f"CREATE TABLE {one} (n int, m bigint CHECK (n % 100000 <> 99999 OR looks('public.{other}')));"
        for one, other in (("a", "b"), ("b", "a"))
    )
    with filled(cluster, looks + tables) as name:
        threads = list(crossed(cluster, name, tmp_path))
        for thread in threads:
            thread.start()
        wait_for(lambda: not any(thread.is_alive() for thread in threads))
        with cluster.connect(name) as connection:
            for table in ("a", "b"):
                assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (COUNT,)
