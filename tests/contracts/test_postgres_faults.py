"""What goes wrong with a dump of PostgreSQL, and what is left then."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from larder.databases import Dump
from larder.errors import ExhaustedError, IntegrityError, LarderError, RefusedError, UnreachableError
from tests.dumps import dumped, fake, filled, opened, role, wait_for
from tests.servers import PASSWORD, Cluster, Clusters, small_disk


@pytest.fixture
def server(clusters: Clusters) -> Cluster:
    """One server, for what does not depend on the version."""
    return clusters.get(16)


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
    with (
        filled(server) as name,
        role(server, "CONNECTION LIMIT 0") as user,
        pytest.raises(UnreachableError, match="too many connections") as caught,
    ):
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


WORKER = """
import sys
from pathlib import Path
from tests.dumps import dumped

dumped(sys.argv[1], Path(sys.argv[2]), format=sys.argv[3])
"""


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_a_killed_worker_leaves_no_pg_dump_and_no_session(server: Cluster, form: str, tmp_path: Path) -> None:
    with (
        filled(server, "CREATE TABLE a (n int)") as name,
        server.connect(name) as blocker,
        blocker.transaction(),
    ):
        blocker.execute("LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
        worker = psutil.Popen(
            [sys.executable, "-c", WORKER, server.url(name), tmp_path, form],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        wait_for(lambda: bool(worker.children()) and server.waiting_for_locks(name) == 2)
        pg_dump = worker.children()[0]
        worker.kill()
        worker.wait()
        wait_for(lambda: not pg_dump.is_running() or pg_dump.status() == psutil.STATUS_ZOMBIE)
        wait_for(lambda: server.sessions() == 0)


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
        wait_for(lambda: server.sessions() == 0)
    assert type(caught.value) is kind
    assert "'shop'" in caught.value.message


def test_a_directory_with_a_file_missing_does_not_count(server: Cluster, tmp_path: Path) -> None:
    target = 'for word in "$@"; do case $word in --file=*) target=${word#--file=};; esac; done; '
    real = f'{server.bin}/pg_dump "$@" || exit 1; '
    for spoil in ("rm $target/[0-9]*.dat*", "for file in $target/[0-9]*.dat*; do : > $file; done"):
        folder = fake(tmp_path / str(len(spoil)), f"{server.version}.99", target + real + spoil)
        (folder / "pg_restore").symlink_to(server.bin / "pg_restore")
        with (
            filled(server, "CREATE TABLE a AS SELECT 1 AS n") as name,
            pytest.raises(IntegrityError, match="the data of 1 tables is missing"),
        ):
            dumped(server.url(name), folder, postgres_bin=[folder], format="directory")


def test_a_directory_with_a_file_cut_short_does_not_count(server: Cluster, tmp_path: Path) -> None:
    target = 'for word in "$@"; do case $word in --file=*) target=${word#--file=};; esac; done; '
    spoil = "for file in $target/[0-9]*.dat; do truncate -s -5 $file; done"
    folder = fake(
        tmp_path / "bin", f"{server.version}.99", f'{target}{server.bin}/pg_dump "$@" || exit 1; {spoil}'
    )
    (folder / "pg_restore").symlink_to(server.bin / "pg_restore")
    with (
        filled(server, "CREATE TABLE a AS SELECT 1 AS n") as name,
        # Which of them shows depends on whether it was read before.
        pytest.raises(IntegrityError, match=r"the data of 1 tables has no end|1 of its files have changed"),
    ):
        dumped(server.url(name), folder, postgres_bin=[folder], format="directory")


@pytest.mark.parametrize("size", [100_000, 2_000_000])
def test_a_directory_on_a_full_disk_is_told_as_that(server: Cluster, size: int, tmp_path: Path) -> None:
    table = "CREATE TABLE a AS SELECT md5(random()::text) AS text FROM generate_series(1, 200000)"
    with filled(server, table) as name, small_disk(tmp_path, size) as disk:
        with pytest.raises(ExhaustedError, match=r"[Nn]o space left on device"):
            dumped(server.url(name), disk, format="directory")
        wait_for(lambda: server.sessions() == 0)
    assert pg_dumps() == []


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


@contextmanager
def waiting_dump(
    cluster: Cluster, folder: Path, **options: Any
) -> Iterator[tuple[Future[Dump], psutil.Process]]:
    """A dump that waits for a lock on a table, with its pg_dump; nothing of it may be left at the end."""
    with (
        filled(cluster, "CREATE TABLE a (n int); INSERT INTO a VALUES (1)") as name,
        ThreadPoolExecutor() as pool,
        cluster.connect(name) as blocker,
        blocker.transaction(),
    ):
        blocker.execute("LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
        dump = pool.submit(dumped, cluster.url(name), folder, **options)
        waiters = 1 if options.get("row_counts") == "off" else 2
        wait_for(lambda: dump.done() or (bool(pg_dumps()) and cluster.waiting_for_locks(name) >= waiters))
        assert not dump.done(), dump.exception()
        yield dump, pg_dumps()[0]
        assert pg_dumps() == []
        wait_for(lambda: cluster.sessions() == 0)


def pg_dumps() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.name() == "pg_dump"]
