"""PostgreSQL beyond the contract: restores by hand, the choice of pg_dump, and everything that goes wrong."""

from __future__ import annotations

import re
import stat
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from pydantic import SecretStr

from larder.codecs import codec
from larder.config import DatabaseSettings
from larder.databases import Database, Dump, _postgres_client, _postgres_connection, open_database
from larder.databases._postgres_client import choose
from larder.errors import ConfigurationError, IntegrityError, LarderError, RefusedError, UnreachableError
from larder.progress import Progress
from tests.servers import PASSWORD, SAMPLE, Cluster, Clusters, contents, free_port, postgres_installs

BINARIES = tuple(postgres_installs().values())
PLAIN = codec("none")


@pytest.fixture
def server(clusters: Clusters) -> Cluster:
    """One server, for what does not depend on the version."""
    return clusters.get(16)


@contextmanager
def filled(cluster: Cluster, statements: str = SAMPLE) -> Iterator[str]:
    with cluster.database(f"shop_{uuid.uuid4().hex[:8]}") as name:
        cluster.execute(statements, name)
        yield name


def opened(url: str, **options: Any) -> Database:
    options.setdefault("postgres_bin", BINARIES)
    return open_database(DatabaseSettings(name="shop", url=SecretStr(url), **options), Path("/nonexistent"))


def dumped(url: str, folder: Path, word: str = "none", **options: Any) -> Dump:
    return opened(url, **options).dump(folder, codec(word), Progress(), lambda _line: None)


def restore(cluster: Cluster, database: str, made: Dump, folder: Path) -> None:
    """What the documentation tells an operator to type."""
    path = folder / made.content.path
    if made.form == "folder":
        argv = [cluster.bin / "pg_restore", "--exit-on-error", "--dbname", database, path]
    else:
        argv = [cluster.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", path]
    run = subprocess.run(argv, env=cluster.environment(database), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


# What comes back


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_a_restore_by_hand_brings_everything_back(postgres: Cluster, form: str, tmp_path: Path) -> None:
    with filled(postgres) as name, postgres.database(f"{name}_again") as again:
        made = dumped(postgres.url(name), tmp_path, format=form)
        restore(postgres, again, made, tmp_path)
        with postgres.connect(name) as before, postgres.connect(again) as after:
            assert contents(after) == contents(before)
    assert made.tool.startswith(f"pg_dump {postgres.version}.")
    assert made.server_version.startswith(f"{postgres.version}.")


def test_the_fingerprint_is_of_the_moment_that_was_dumped(server: Cluster, tmp_path: Path) -> None:
    tables = "CREATE TABLE a (n int); CREATE TABLE b (n int); INSERT INTO a SELECT generate_series(1, 100000)"
    stop = threading.Event()

    def write() -> int:
        with server.connect(name) as connection:
            count = 0
            while not stop.is_set():
                connection.execute("WITH new AS (INSERT INTO a VALUES (0)) INSERT INTO b VALUES (0)")
                count += 1
        return count

    with (
        filled(server, tables) as name,
        server.database(f"{name}_again") as again,
        ThreadPoolExecutor() as pool,
    ):
        writer = pool.submit(write)
        wait_for(lambda: rows(server, name, "b") > 10)
        made = dumped(server.url(name), tmp_path)
        at_end = rows(server, name, "b")
        wait_for(lambda: rows(server, name, "b") > at_end)
        stop.set()
        written = writer.result()
        restore(server, again, made, tmp_path)
        counted = {name: found["rows"] for name, found in made.fingerprint["tables"].items()}
        assert counted == {"public.a": rows(server, again, "a"), "public.b": rows(server, again, "b")}
        assert counted["public.a"] == counted["public.b"] + 100000
        assert 10 < counted["public.b"] < written


def test_globals_come_beside(server: Cluster, tmp_path: Path) -> None:
    with filled(server) as name, role(server, "CREATEDB") as user:
        made = dumped(server.url(name), tmp_path, "gzip", globals=True)
        assert made.globals is not None
        with (tmp_path / made.globals.path).open("rb") as source:
            text = codec("gzip").reader(source).read()
        assert f"CREATE ROLE {user}".encode() in text
        assert b"SCRAM-SHA-256$" in text
        assert len(text) == made.globals.raw_size
        assert made.warnings == []


def test_globals_come_without_passwords_where_the_role_may_not_read_them(
    server: Cluster, tmp_path: Path
) -> None:
    with filled(server, "CREATE TABLE a (n int)") as name, role(server) as user:
        server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO public", name)
        made = dumped(server.url(name, user), tmp_path, globals=True)
    assert made.globals is not None
    text = (tmp_path / made.globals.path).read_bytes()
    assert f"CREATE ROLE {user}".encode() in text
    assert b"SCRAM" not in text
    assert made.warnings == [f"roles are dumped without their passwords, which role '{user}' may not read"]


def test_a_standby_can_be_dumped(server: Cluster, tmp_path: Path) -> None:
    standby = Cluster(server.version)
    try:
        with filled(server) as name:
            standby.copy_of(server)
            made = dumped(standby.url(name), tmp_path)
        assert made.fingerprint["tables"]["public.customers"] == {"rows": 500}
        assert made.fingerprint["tables"]["public.scratch"] == {"rows": 0}
        assert made.warnings == ["unlogged tables are dumped without rows, because this server is a standby"]
    finally:
        standby.remove()


# What is left out


def test_tables_are_left_out_by_pattern(server: Cluster, tmp_path: Path) -> None:
    patterns = ("events", "Ünïcode schema.*", "public.empty_*", "nix?")
    with filled(server) as name, server.database(f"{name}_again") as again:
        made = dumped(server.url(name), tmp_path, exclude=patterns)
        restore(server, again, made, tmp_path)
        with server.connect(name) as before, server.connect(again) as after:
            gone = contents(before).keys() - contents(after).keys()
    assert gone == {
        'Ünïcode schema.weird "name".with.dots',
        "public.events_2024",
        "public.events_2025",
        "public.empty_one",
    }
    assert not {
        key for key in made.fingerprint["tables"] if "events" in key or "weird" in key or "empty" in key
    }
    assert made.warnings == ["the exclude pattern 'nix?' matches no table"]


def test_a_name_that_looks_like_a_pattern_means_itself(server: Cluster, tmp_path: Path) -> None:
    tables = (
        'CREATE TABLE "st*r" (); CREATE TABLE star (); CREATE TABLE "$t.[a]|b" (); CREATE TABLE "STAR" ()'
    )
    with filled(server, tables) as name:
        made = dumped(server.url(name), tmp_path, exclude=("st[*]r", "STAR", "$t.[[]a]|b"))
    script = (tmp_path / made.content.path).read_text()
    assert re.findall(r"CREATE TABLE public\.(\S+)", script) == ["star"]
    assert list(made.fingerprint["tables"]) == ["public.star"]


def test_a_name_in_another_encoding_can_be_left_out(server: Cluster, tmp_path: Path) -> None:
    name = f"latin_{uuid.uuid4().hex[:8]}"
    server.execute(f"CREATE DATABASE {name} ENCODING LATIN1 TEMPLATE template0 LOCALE 'C'")
    try:
        server.execute('CREATE TABLE "Bücher" (a int); CREATE TABLE other (a int)', name)
        made = dumped(server.url(name), tmp_path, exclude=("B?cher",))
        assert list(made.fingerprint["tables"]) == ["public.other"]
        assert b"cher" not in (tmp_path / made.content.path).read_bytes()
    finally:
        server.dropdb(name)


def test_what_leans_on_a_table_left_out_is_warned_of(server: Cluster, tmp_path: Path) -> None:
    with filled(server) as name:
        made = dumped(server.url(name), tmp_path, exclude=("customers",))
    assert [warning.partition(":")[0] for warning in made.warnings] == [
        'public."Order" (foreign key "Order_customer_fkey") needs public.customers, which is left out',
        "public.order_view (view) needs public.customers, which is left out",
    ]


def test_a_database_without_tables_is_warned_of(server: Cluster, tmp_path: Path) -> None:
    with filled(server, "SELECT 1") as name:
        assert opened(server.url(name)).look().warnings == ("the database holds no table",)
        assert dumped(server.url(name), tmp_path).warnings == ["the database holds no table"]


# Which pg_dump


def test_the_newest_minor_of_the_servers_own_major_is_taken(tmp_path: Path) -> None:
    folders = [fake(tmp_path / version, version) for version in ("91.2", "91.10", "92.1", "90.3", "93beta1")]
    assert str(choose("91.4", folders)) == "pg_dump 91.10"
    assert choose("91.4", folders).folder == tmp_path / "91.10"


def test_a_newer_major_is_taken_where_there_is_no_other_the_nearest_first(tmp_path: Path) -> None:
    folders = [fake(tmp_path / version, version) for version in ("94.1", "93.2", "93.4", "90.3")]
    assert str(choose("91.4", folders)) == "pg_dump 93.4"


def test_without_one_that_is_new_enough_both_versions_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        choose("91.4", [fake(tmp_path / "90.3", "90.3")])
    assert "PostgreSQL 91.4" in caught.value.message
    assert "pg_dump 90.3" in caught.value.message
    assert "postgresql-client-91" in caught.value.hint


def test_debians_wrapper_is_passed_by(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    wrapper = fake(tmp_path / "share", "95.1") / "pg_dump"
    wrapper.rename(tmp_path / "share" / "pg_wrapper")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pg_dump").symlink_to(tmp_path / "share" / "pg_wrapper")
    assert not [found for found in _postgres_client.available([tmp_path / "bin"]) if found.major == 95]


def test_a_newer_pg_dump_is_warned_of(clusters: Clusters, tmp_path: Path) -> None:
    server = clusters.get(16)
    with filled(server) as name:
        database = opened(server.url(name), postgres_bin=[postgres_installs()[18]])
        warnings = database.look().warnings
        made = database.dump(tmp_path, PLAIN, Progress(), lambda _line: None)
    if made.tool.startswith("pg_dump 18"):
        assert warnings
        assert "is newer than the server (16." in warnings[0]
        assert made.warnings == list(warnings)
    else:
        assert made.tool.startswith("pg_dump 16")  # this machine has one elsewhere


# What goes wrong


def test_a_table_that_the_role_may_not_read_is_named(server: Cluster, tmp_path: Path) -> None:
    with (
        filled(server, "CREATE TABLE orders (n int); INSERT INTO orders VALUES (1)") as name,
        role(server) as user,
    ):
        assert opened(server.url(name, user)).look().warnings == (
            "this role may not read public.orders: grant SELECT on them, or exclude them",
        )
        for counts in ("exact", "off"):
            with pytest.raises(RefusedError) as caught:
                dumped(server.url(name, user), tmp_path, row_counts=counts)
            assert "unable to dump database 'shop'" in caught.value.message
            assert "permission denied for table orders" in caught.value.message
            assert "grant SELECT" in caught.value.hint


def test_rows_that_the_role_may_not_see_are_not_left_out_silently(server: Cluster, tmp_path: Path) -> None:
    with filled(server) as name, role(server) as user:
        server.execute(
            'GRANT USAGE ON SCHEMA "Ünïcode schema" TO public; GRANT SELECT ON ALL TABLES IN SCHEMA public,'
            ' "Ünïcode schema" TO public; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO public',
            name,
        )
        for counts in ("exact", "off"):
            with pytest.raises(RefusedError, match="row-level security") as caught:
                dumped(server.url(name, user), tmp_path, row_counts=counts, exclude=("large*",))
            assert "BYPASSRLS" in caught.value.hint


def test_too_many_connections_are_worth_another_try(server: Cluster, tmp_path: Path) -> None:
    with filled(server) as name, role(server, "CONNECTION LIMIT 0") as user:
        with pytest.raises(UnreachableError, match="too many connections") as caught:
            dumped(server.url(name, user), tmp_path)
    assert caught.value.retryable


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_a_pg_dump_that_is_killed_is_worth_another_try(server: Cluster, form: str, tmp_path: Path) -> None:
    with waiting_dump(server, tmp_path, format=form, row_counts="off") as (dump, pg_dump):
        pg_dump.kill()
        with pytest.raises(UnreachableError, match="pg_dump was ended by SIGKILL") as caught:
            dump.result(30)
    assert caught.value.retryable
    assert "'shop'" in caught.value.message


@pytest.mark.parametrize("counts", ["exact", "off"])
def test_a_lost_connection_is_worth_another_try(server: Cluster, counts: str, tmp_path: Path) -> None:
    with waiting_dump(server, tmp_path, row_counts=counts) as (dump, pg_dump):
        with server.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'larder'"
            )
        with pytest.raises(UnreachableError, match="unable to dump database 'shop'") as caught:
            dump.result(30)
        assert not pg_dump.is_running()
    assert caught.value.retryable


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_a_dump_that_stalls_is_ended(server: Cluster, form: str, tmp_path: Path) -> None:
    with waiting_dump(server, tmp_path, format=form, stall_timeout=1) as (dump, pg_dump):
        with pytest.raises(UnreachableError, match=r"'shop': pg_dump: no byte has moved for 1 s") as caught:
            dump.result(30)
        assert not pg_dump.is_running()
    assert caught.value.retryable
    assert "stall_timeout" in caught.value.hint


def test_no_secret_is_in_an_argv(server: Cluster, tmp_path: Path) -> None:
    with waiting_dump(server, tmp_path, stall_timeout=2) as (dump, pg_dump):
        environment = pg_dump.environ()
        for process in psutil.process_iter(["cmdline"]):
            argv = " ".join(process.info["cmdline"] or ())
            assert PASSWORD not in argv
            assert "s3cr3t-p%40ss" not in argv
        with pytest.raises(UnreachableError):
            dump.result(30)
    assert environment["PGPASSWORD"] == PASSWORD
    assert environment["PGHOST"] == "127.0.0.1"
    assert environment["PGAPPNAME"] == "larder"
    assert "SENTRY_DSN" not in environment


HEAD = "printf -- '--\\n-- PostgreSQL database dump\\n--\\n'; "
END = "printf -- '\\n--\\n-- PostgreSQL database dump complete\\n--\\n'; "


@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        ("exit 0", IntegrityError, "not whole"),
        (HEAD + "exit 0", IntegrityError, "no end"),
        (END + "exit 0", IntegrityError, "no beginning"),
        (HEAD + "echo 'pg_dump: error: it broke' >&2; exit 1", LarderError, "exited with 1: it broke"),
        (HEAD + END + "echo 'pg_dump: error: it broke' >&2; exit 1", LarderError, "exited with 1: it broke"),
        (HEAD + END + "kill -9 $$", UnreachableError, "was ended by SIGKILL"),
        ("echo 'pg_dump: error: server version: 99; aborting because of server version mismatch' >&2; exit 1",
         LarderError, "version mismatch"),
        ("echo 'pg_dump: error: query failed: ERROR:  permission denied for table orders' >&2; exit 1",
         RefusedError, "exited with 1: permission denied for table orders"),
        ("exec sleep 1000", UnreachableError, "no byte has moved for 1 s"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["plain", "directory"])
def test_a_dump_that_is_not_whole_does_not_count(
    server: Cluster, tmp_path: Path, script: str, kind: type[LarderError], reason: str, form: str
) -> None:
    if form == "directory" and kind is IntegrityError:
        reason = "pg_restore can't read the dump"
    folder = fake(tmp_path / "bin", f"{server.version}.99", script)
    (folder / "pg_restore").symlink_to(server.bin / "pg_restore")
    (tmp_path / "out").mkdir()
    with filled(server, "CREATE TABLE a (n int)") as name:
        with pytest.raises(kind, match=re.escape(reason)) as caught:
            dumped(server.url(name), tmp_path / "out", postgres_bin=[folder], format=form, stall_timeout=1)
        assert server.sessions() == 0
    assert type(caught.value) is kind
    assert "'shop'" in caught.value.message


def test_a_directory_with_a_file_missing_does_not_count(server: Cluster, tmp_path: Path) -> None:
    target = 'for word in "$@"; do case $word in --file=*) target=${word#--file=};; esac; done; '
    real = f'{server.bin}/pg_dump "$@" || exit 1; '
    for spoil in ("rm $target/[0-9]*.dat*", "for file in $target/[0-9]*.dat*; do : > $file; done"):
        folder = fake(tmp_path / str(len(spoil)), f"{server.version}.99", target + real + spoil)
        (folder / "pg_restore").symlink_to(server.bin / "pg_restore")
        with filled(server, "CREATE TABLE a AS SELECT 1 AS n") as name:
            with pytest.raises(IntegrityError, match="the data of 1 tables is missing"):
                dumped(server.url(name), folder, postgres_bin=[folder], format="directory")


def test_warnings_of_pg_dump_are_passed_on(server: Cluster, tmp_path: Path) -> None:
    circle = """
        CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
        ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b;
    """
    script = HEAD + END + "echo 'pg_dump: warning: mind the gap' >&2; exit 0"
    with filled(server, circle) as name:
        folder = fake(tmp_path / "bin", f"{server.version}.99", script)
        made = dumped(server.url(name), tmp_path, postgres_bin=[folder])
    assert made.warnings == ["pg_dump: warning: mind the gap"]


# Connection strings that lead to a server


def test_every_way_to_write_the_same_place_leads_there(
    server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, passfile = tmp_path / "services", tmp_path / "pgpass"
    with filled(server, "CREATE TABLE a (n int)") as name:
        service.write_text(f"[shop]\nhost=127.0.0.1\nport={server.port}\nuser=postgres\ndbname={name}\n")
        passfile.write_text(f"127.0.0.1:{server.port}:*:postgres:{PASSWORD}\n")
        passfile.chmod(0o600)
        monkeypatch.setenv("PGSERVICEFILE", str(service))
        monkeypatch.setenv("PGPASSFILE", str(passfile))
        monkeypatch.setenv("LARDER_TEST", "x")
        tcp = server.url(name)
        for number, url in enumerate(
            [
                tcp.replace("postgresql://", "postgres://"),
                tcp.replace("postgresql://", "postgresql+psycopg://"),
                f"{tcp}?sslmode=disable&schema=public&connection_limit=5&pgbouncer=true",
                f"{tcp}?sslmode=prefer&keepalives_idle=30&options=-c%20statement_timeout%3D60000",
                server.socket_url(name),
                f"postgresql:///{name}?host={server.folder}&port={server.port}&user=postgres",
                server.socket_dsn(name),
                f"postgresql://postgres@127.0.0.1:{server.port}/{name}",
                "postgresql://?service=shop",
                "service=shop",
                tcp.replace("@127.0.0.1", f"@127.0.0.1:{free_port()},127.0.0.1"),
            ]
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            assert list(dumped(url, folder).fingerprint["tables"]) == ["public.a"], number


def test_without_a_host_the_socket_is_looked_for(
    server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PGHOST", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(_postgres_connection, "SOCKET_FOLDERS", (tmp_path, server.folder))
    with filled(server, "CREATE TABLE a (n int)") as name:
        look = opened(f"postgresql://postgres@/{name}?port={server.port}").look()
    assert str(server.folder) in look.description


# Help


@contextmanager
def role(cluster: Cluster, options: str = "") -> Iterator[str]:
    """A role that may connect, and nothing else."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    cluster.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {options}")
    try:
        yield name
    finally:
        cluster.execute(f"DROP ROLE {name}")


@contextmanager
def waiting_dump(
    cluster: Cluster, folder: Path, **options: Any
) -> Iterator[tuple[Future[Dump], psutil.Process]]:
    """A dump that waits for a lock on a table, with its pg_dump; nothing of it may be left at the end."""
    with (
        filled(cluster, "CREATE TABLE a (n int); INSERT INTO a VALUES (1)") as name,
        ThreadPoolExecutor() as pool,
    ):
        with cluster.connect(name) as blocker, blocker.transaction():
            blocker.execute("LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
            dump = pool.submit(dumped, cluster.url(name), folder, **options)
            found: list[psutil.Process] = []

            def is_waiting() -> bool:
                assert not dump.done(), dump.exception()
                found[:] = [child for child in psutil.Process().children() if child.name() == "pg_dump"]
                return (
                    bool(found)
                    and cluster.waiting_for_locks(name) >= (options.get("row_counts") != "off") + 1
                )

            wait_for(is_waiting)
            yield dump, found[0]
            assert not [child for child in psutil.Process().children() if child.name() == "pg_dump"]
            wait_for(lambda: cluster.sessions() == 0)


def fake(folder: Path, version: str, script: str = "exit 1") -> Path:
    """A folder with a pg_dump that says it is of `version`, and otherwise runs `script`."""
    folder.mkdir(exist_ok=True)
    path = folder / "pg_dump"
    asked = f"if [ \"$1\" = --version ]; then echo 'pg_dump (PostgreSQL) {version}'; exit; fi"
    # Without a snapshot it is only asked what it can compress with.
    probed = 'case "$*" in *--snapshot=*) ;; *) exit 1;; esac'
    path.write_text(f"#!/bin/sh\n{asked}\n{probed}\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder


def rows(cluster: Cluster, database: str, table: str) -> int:
    with cluster.connect(database) as connection:
        row = connection.execute(
            psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
        )
        return int((row.fetchone() or (0,))[0])


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something that nobody tells us of has come true."""
    clock = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        clock.wait(0.02)
    raise AssertionError("it did not come true")
