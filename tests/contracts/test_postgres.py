"""PostgreSQL beyond the contract: restores by hand, what is left out, and the choice of pg_dump."""

from __future__ import annotations

import re
import subprocess
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from larder.codecs import codec
from larder.databases import Dump, _postgres_client
from larder.databases._postgres_client import choose
from larder.errors import ConfigurationError
from larder.progress import Progress
from tests.dumps import dumped, fake, filled, opened, role, rows, wait_for
from tests.servers import Cluster, Clusters, contents, postgres_installs


@pytest.fixture
def server(clusters: Clusters) -> Cluster:
    """One server, for what does not depend on the version."""
    return clusters.get(16)


def restore(cluster: Cluster, database: str, made: Dump, folder: Path) -> None:
    """What the documentation tells an operator to type."""
    path = folder / made.content.path
    if made.form == "folder":
        argv = [cluster.bin / "pg_restore", "--exit-on-error", "--jobs=3", "--dbname", database, path]
    else:
        argv = [cluster.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", path]
    run = subprocess.run(argv, env=cluster.environment(database), capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


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


def test_large_objects_come_back_from_a_directory(postgres: Cluster, tmp_path: Path) -> None:
    objects = """
        CREATE TABLE pictures AS SELECT n,
            lo_from_bytea(0, decode(repeat(md5(n::text), 1 + n / 10 * (n % 10)), 'hex')) AS object
        FROM generate_series(1, 1200) n;
        INSERT INTO pictures VALUES (0, lo_create(0)), (-2, lo_from_bytea(0, decode(repeat(md5('x'), 100000), 'hex'))),
             (-1, lo_from_bytea(0, decode('310a5c2e0a0a0a', 'hex')));
    """
    read = "SELECT count(*), md5(string_agg(n::text || lo_get(object)::text, '' ORDER BY n)) FROM pictures"
    with filled(postgres, objects) as name, postgres.database(f"{name}_again") as again:
        made = dumped(postgres.url(name), tmp_path, format="directory")
        restore(postgres, again, made, tmp_path)
        with postgres.connect(name) as before, postgres.connect(again) as after:
            assert after.execute(read).fetchone() == before.execute(read).fetchone()
    assert sorted(path.name for path in tmp_path.iterdir()) == [made.content.path]
    for path in (tmp_path / made.content.path).iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


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
    for unreleased in ("91beta1", "91rc1", "91devel"):
        assert choose(unreleased, folders).folder == tmp_path / "91.10"


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
        made = database.dump(tmp_path, codec("none"), Progress(), lambda _line: None)
    if made.tool.startswith("pg_dump 18"):
        assert warnings
        assert "is newer than the server (16." in warnings[0]
        assert made.warnings == list(warnings)
    else:
        assert made.tool.startswith("pg_dump 16")  # this machine has one elsewhere
