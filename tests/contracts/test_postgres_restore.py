"""Restoring PostgreSQL backups beside the live database: facts, refusals, the load, what is examined."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import psycopg
import pytest
from pydantic import SecretStr

from larder.codecs import codec
from larder.config import DatabaseSettings
from larder.databases import (
    Dump,
    _postgres_build,
    _postgres_client,
    _postgres_examine,
    _postgres_facts,
    _postgres_folder,
    _postgres_load,
    _postgres_target,
    _postgres_unwrap,
    address_in,
    open_restorer,
    sibling,
)
from larder.databases._postgres_crew import Crew
from larder.databases._postgres_cut import Entry
from larder.databases._postgres_restore import PostgresRestorer
from larder.errors import (
    ConfigurationError,
    ExhaustedError,
    IntegrityError,
    LarderError,
    RefusedError,
    UnreachableError,
)
from larder.progress import Progress
from larder.restoring import Content, Plan, Source
from tests.dumps import BINARIES, dumped, filled, role, wait_for
from tests.servers import PASSWORD, SAMPLE, Cluster, Clusters, contents

STAMP = "20251016_020000"


def source_of(made: Dump) -> Source:
    piece = made.content
    return Source(
        "postgres",
        made.form,
        piece.raw_size,
        piece.raw_sha256,
        made.server_version,
        made.tool,
        made.fingerprint,
    )


def content_of(made: Dump, folder: Path) -> Content:
    path = folder / made.content.path
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)

    def decoded() -> BinaryIO:
        return io.BytesIO(codec(made.content.encoding).reader(io.BytesIO(path.read_bytes())).read())

    return Content(
        source_of(made),
        decoded,
        path if made.form == "folder" else None,
        scratch,
    )


def restorer(
    url: str, mode: str = "swap", plan: dict[str, Any] | None = None, **options: Any
) -> PostgresRestorer:
    options.setdefault("postgres_bin", BINARIES)
    settings = DatabaseSettings(name="shop", url=SecretStr(url), **options)
    made = open_restorer(settings, Plan(uuid.uuid4().hex[:12], mode, **(plan or {})))  # type: ignore[arg-type]
    assert isinstance(made, PostgresRestorer)
    return made


def quiet(_line: str) -> None:
    pass


def load(made: PostgresRestorer, content: Content) -> list[str]:
    return made.load(content, Progress(), quiet)


def held(cluster: Cluster, name: str) -> dict[str, tuple[int, str]]:
    with cluster.connect(name) as connection:
        return contents(connection)


def facts(cluster: Cluster, name: str) -> _postgres_facts.Facts:
    with cluster.connect() as connection:
        found = _postgres_facts.read(connection, name)
    assert found is not None
    return found


@contextmanager
def restored(cluster: Cluster, made: PostgresRestorer) -> Iterator[PostgresRestorer]:
    """Whatever the restorer makes is gone afterwards."""
    try:
        yield made
    finally:
        for name in cluster.databases():
            if name.startswith((f"{made.live}__", f"{made.live[:30]}_")) or name == made.scratch:
                cluster.dropdb(name)


def messages(found: list[LarderError]) -> str:
    return "\n".join(map(str, found))


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_a_backup_comes_back_beside_the_live_database(postgres: Cluster, form: str, tmp_path: Path) -> None:
    with filled(postgres) as name:
        content = content_of(dumped(postgres.url(name), tmp_path, "gzip", format=form), tmp_path)
        before = held(postgres, name)
        with restored(postgres, restorer(postgres.url(name))) as made:
            target = made.look()
            assert (target.exists, target.description.rpartition(":")[2]) == (True, f"{postgres.port}/{name}")
            assert made.refusals(content.source, target) == []
            progress = Progress(total=content.source.raw_size)
            assert made.load(content, progress, quiet) == []
            if form == "plain":
                assert progress.done == content.source.raw_size
            assert held(postgres, made.scratch) == before == held(postgres, name)
            assert made.examine(content, Progress()) == []
            assert made.new_url().get_secret_value() == postgres.url(made.scratch)
            with postgres.connect(made.scratch) as connection:
                row = connection.execute(
                    "SELECT count(*) FROM pg_statistic WHERE starelid = 'customers'::regclass"
                )
                assert (row.fetchone() or (0,))[0] == 3
            kept = made.swap(content, STAMP, Progress(), quiet)
            assert kept is not None
            assert made.new_url().get_secret_value() == postgres.url(name)
            assert made.swap(content, STAMP, Progress(), quiet) == kept
            assert not made.drop_new()
            assert made.undo(kept, STAMP, quiet).name == f"{name}__undone_{STAMP}"
            assert not made.drop_kept(kept)
            wait_for(lambda: postgres.sessions() == 0)
            assert postgres.sessions(f"larder-restore-{made.plan.id}") == 0


NOTABLE = """
ALTER DATABASE {name} SET search_path TO "$user", 'public', 'Odd, "schema', '';
ALTER DATABASE {name} SET work_mem TO '7MB';
ALTER DATABASE {name} SET app.jwt_secret TO 'very-secret it is';
ALTER ROLE {role} IN DATABASE {name} SET statement_timeout TO '3s';
ALTER DATABASE {name} OWNER TO {role};
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
GRANT CONNECT ON DATABASE {name} TO "{other}" WITH GRANT OPTION;
COMMENT ON DATABASE {name} IS 'It''s ours';
ALTER DATABASE {name} CONNECTION LIMIT 17;
"""


@contextmanager
def notable(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """A database with everything that can be told of one; gives its name and its owner's."""
    with role(cluster) as owner, role(cluster) as other:
        cluster.execute(f'ALTER ROLE {other} RENAME TO "{other} Ünï"')
        try:
            with filled(cluster, "CREATE TABLE a (b int)") as name:
                for line in NOTABLE.format(name=name, role=owner, other=f"{other} Ünï").strip().splitlines():
                    cluster.execute(line)
                yield name, owner
        finally:
            cluster.execute(f'ALTER ROLE "{other} Ünï" RENAME TO {other}')


def test_what_a_database_is_as_a_whole_survives(postgres: Cluster, tmp_path: Path) -> None:
    with notable(postgres) as (name, owner):
        before = facts(postgres, name)
        assert before.owner == owner
        assert len(before.settings) == 4
        made_of = dumped(postgres.url(name), tmp_path)
        assert "very-secret" not in str(made_of.fingerprint)
        content = content_of(made_of, tmp_path)
        with restored(postgres, restorer(postgres.url(name))) as made:
            load(made, content)
            private = facts(postgres, made.scratch)
            assert private.settings == before.settings
            assert {grant.role for grant in private.grants} == {owner}
            made.swap(content, STAMP, Progress(), quiet)
            assert facts(postgres, name) == before
        with restored(postgres, restorer(postgres.url(f"{name}_copy"), "new")) as made:
            warnings = load(made, content)
            assert "'app.jwt_secret'" in messages(warnings)  # type: ignore[arg-type]
            assert made.swap(content, STAMP, Progress(), quiet) is None
            kept = tuple(found for found in before.settings if found.name != "app.jwt_secret")
            assert facts(postgres, made.live) == replace(before, settings=kept)
            postgres.dropdb(made.live)


def test_facts_are_applied_again_and_read_from_a_manifest(clusters: Clusters) -> None:
    cluster = clusters.get(18)
    with (
        notable(cluster) as (name, _),
        cluster.database(f"{name}_b") as other,
        cluster.connect() as connection,
    ):
        wanted = facts(cluster, name)
        for _time in range(2):
            with connection.transaction():
                _postgres_facts.apply(connection, other, wanted)
            assert facts(cluster, other) == wanted
        read = _postgres_facts.Facts.from_json(wanted.to_json())
        assert [found.value for found in read.settings if found.name == "app.jwt_secret"] == [None]
        _postgres_facts.apply(connection, other, read)
        assert facts(cluster, other) == wanted
        plain = replace(wanted, settings=(), comment=None, connection_limit=-1, owner="postgres", grants=())
        _postgres_facts.apply(connection, other, plain)
        assert facts(cluster, other) == plain
        with pytest.raises(IntegrityError, match="another shape"):
            _postgres_facts.Facts.from_json({"encoding": 7})


@pytest.mark.parametrize(
    ("version", "options", "found"),
    [
        (15, "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LC_COLLATE 'C' LC_CTYPE 'C'", ("i", "de-DE")),
        (18, "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'", ("b", "C.UTF-8")),
        (18, "ENCODING 'LATIN1'", ("c", None)),
    ],
)
def test_locale_and_encoding_are_what_they_were(
    clusters: Clusters, version: int, options: str, found: tuple[str, str | None], tmp_path: Path
) -> None:
    cluster = clusters.get(version)
    name = f"shop_{uuid.uuid4().hex[:8]}"
    cluster.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
    try:
        cluster.execute("CREATE TABLE a (b text); INSERT INTO a VALUES ('ü')", name)
        before = facts(cluster, name)
        assert (before.provider, before.locale) == found
        content = content_of(dumped(cluster.url(name), tmp_path), tmp_path)
        with restored(cluster, restorer(cluster.url(f"{name}_copy"), "new")) as made:
            assert load(made, content) == []
            now = facts(cluster, made.scratch)
            assert replace(now, comment=None, grants=before.grants) == before
            assert held(cluster, made.scratch) == held(cluster, name)
    finally:
        cluster.dropdb(name)


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_a_newer_pg_dump_does_not_keep_a_backup_from_its_own_server(
    clusters: Clusters, form: str, tmp_path: Path
) -> None:
    cluster = clusters.get(16)
    newest = (BINARIES[-1],)
    with filled(cluster) as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_postgres_client, "USUAL_FOLDERS", ())
        patch.setenv("PATH", "/nonexistent")
        made_of = dumped(cluster.url(name), tmp_path, format=form, postgres_bin=newest)
        assert made_of.tool.startswith("pg_dump 18")
        content = content_of(made_of, tmp_path)
        with restored(cluster, restorer(cluster.url(name), postgres_bin=newest)) as made:
            assert load(made, content) == []
            assert held(cluster, made.scratch) == held(cluster, name)


@pytest.mark.parametrize("damage", ["cut", "cut in a line", "altered", "nonsense"])
def test_a_stream_that_is_not_whole_is_never_committed(
    clusters: Clusters, damage: str, tmp_path: Path
) -> None:
    cluster = clusters.get(18)
    with filled(cluster) as name:
        made_of = dumped(cluster.url(name), tmp_path)
        content = content_of(made_of, tmp_path)
        path = tmp_path / made_of.content.path
        data = path.read_bytes()
        whole = {
            "cut": data[: data.index(b"\nCREATE VIEW")],
            "cut in a line": data[: data.index(b"customer 250")],
            "altered": data.replace(b"customer 250", b"customer 251"),
            "nonsense": data.replace(b"CREATE VIEW", b"CREATE WIEV"),
        }
        path.write_bytes(whole[damage])
        with restored(cluster, restorer(cluster.url(name))) as made:
            with pytest.raises(IntegrityError, match="SHA-256"):
                load(made, content)
            assert made.scratch not in cluster.databases()
            # The same into a database that lives.
            with cluster.database(f"{name}_live") as live, cluster.connect() as connection:
                script = script_into(cluster, connection, live)
                with pytest.raises(IntegrityError):
                    script.run(_postgres_load.checked(content, Progress()), guarded=True)
                assert held(cluster, live) == {"large objects": (0, "")}


def script_into(cluster: Cluster, connection: psycopg.Connection, name: str) -> _postgres_load.Script:
    environment = {**cluster.environment(name), "PGAPPNAME": f"script {name}"}
    return _postgres_load.Script("unable to try", str(cluster.bin / "psql"), environment, stall_seconds=60)


def test_a_script_says_what_it_selects_and_commits_all_or_nothing(clusters: Clusters) -> None:
    cluster = clusters.get(16)
    with filled(cluster, "CREATE TABLE a (b text)") as name, cluster.connect() as connection:
        asked: list[str] = []
        script = script_into(cluster, connection, name)
        said = script.run(
            [b"SELECT 'unheard';\nINSERT INTO a VALUES ('x');"],
            before=["SELECT 'first', 'ünï';"],
            after=["SELECT count(*) FROM public.a;", "SELECT pg_current_xact_id() IS NOT NULL;"],
            guarded=True,
            confirm=asked.append,
        )
        assert said == "first|ünï\n1\nt\n"
        assert asked == [said]
        script = script_into(cluster, connection, name)

        def no(_said: str) -> None:
            raise IntegrityError("no")

        with pytest.raises(IntegrityError):
            script.run([b"DELETE FROM a;"], after=["SELECT 'said';"], confirm=no)
        assert (script.said, script.committing) == ("said\n", False)
        for stream in ([b"DELETE FROM a;\nCOMMIT;\n"], [b"DELETE FROM a;\n", b"SELECT 1/0;\n"]):
            with pytest.raises(LarderError, match=r"did not begin|division by zero"):
                script_into(cluster, connection, name).run(stream, guarded=True)
        with pytest.raises(LarderError, match="unable to try: invalid input syntax for type integer: …"):
            script_into(cluster, connection, name).run([b"SELECT 'somebody''s'::int;\n"])
        with cluster.connect(name) as live:
            assert live.execute("SELECT b FROM a").fetchall() == [("x",)]


@pytest.mark.parametrize("size", [1, 7, 64, 5000])
@pytest.mark.parametrize("strings", [b"on", b"off"])
def test_only_the_transactions_of_large_objects_are_left_out(size: int, strings: bytes) -> None:
    alike = b"BEGIN;\n\nSELECT pg_catalog.lo_open('1', 2);\nSELECT pg_catalog.lo_close(0);\n\nCOMMIT;\n"
    rows = b"".join(
        b"COPY " + name + b" (b) FROM stdin;\n" + alike + b"\\\\.\n\\.\n\nCOPY c FROM stdin;\n\\.\n"
        for name in (b"a", b'"a\nb"', b'"a FROM stdin;\n"')
    )
    objects = b"\nSELECT pg_catalog.lo_open('1', 2);\nSELECT pg_catalog.lo_close(0);\n"
    hidden = b"CREATE x AS $$\nCOPY a FROM stdin;\n" + alike + b"$$ /* '\n" + alike + b"*/;\n"
    hidden += b"CREATE x AS '" + (b"\\'\n" if strings == b"off" else b"\n") + alike + b"' '\\\\';\n"
    begin, end = (
        b"SET standard_conforming_strings = " + strings + b";\n\n",
        b"CREATE x AS BEGIN;\nCOMMIT;\nend",
    )
    dump = begin + hidden + rows + b"\n--\n\nBEGIN;\n" + objects + b"\nCOMMIT;\n\n" + rows + end
    wanted = begin + hidden + rows + b"\n--\n\n" + objects + b"\n\n" + rows + end
    pieces = [dump[at : at + size] for at in range(0, len(dump), size)]
    assert b"".join(_postgres_unwrap.in_one_transaction(pieces)) == wanted


def test_everything_that_stands_in_the_way_is_told_at_once(clusters: Clusters, tmp_path: Path) -> None:
    newer, older = clusters.get(18), clusters.get(16)
    gone = f"gone_{uuid.uuid4().hex[:8]}"
    newer.execute(f"CREATE ROLE {gone}")
    try:
        with filled(newer, f"CREATE TABLE a (b int); ALTER TABLE a OWNER TO {gone}") as name:
            source = source_of(dumped(newer.url(name), tmp_path))
    finally:
        newer.execute(f"DROP ROLE {gone}")
    assert gone in source.fingerprint["database"]["roles"]
    lacking = {**source.fingerprint["database"], "extensions": {"no_such": "1"}, "tablespaces": ["no_space"]}
    source = replace(source, fingerprint={**source.fingerprint, "database": lacking})
    with filled(older, "CREATE TABLE a (b int)") as name, role(older) as weak:
        before = older.databases()
        made = restorer(older.url(name))
        found = messages(made.refusals(source, made.look()))
        for word in (f"PostgreSQL {source.server_version}", "the server is 16", gone, "no_such", "no_space"):
            assert word in found
        assert "--create-roles" in found
        creating = restorer(older.url(name), plan={"create_roles": True})
        assert gone not in messages(creating.refusals(source, creating.look()))
        lowly = restorer(older.url(name, weak), plan={"create_roles": True})
        found = messages(lowly.refusals(source, lowly.look()))
        for word in ("may not create databases", "mode in-place", "does not own it", "may not create roles"):
            assert word in found
        small = replace(made.look(), free=1000)
        assert any(isinstance(error, ExhaustedError) for error in made.refusals(source, small))
        there = restorer(older.url(name), "new")
        assert "it exists" in messages(there.refusals(source, there.look()))
        nowhere = restorer(older.url("no_such_database"))
        absent = nowhere.look()
        assert (absent.exists, absent.size, absent.sessions) == (False, None, ())
        assert "mode new makes" not in messages(nowhere.refusals(source, nowhere.look()))
        other = replace(source, engine="sqlite")
        assert "the backup is of sqlite" in messages(made.refusals(other, made.look()))
        part = restorer(older.url(f"{name}_part"), "new", {"tables": ("a",)})
        assert "no part" in messages(part.refusals(source, part.look()))
        assert older.databases() == before


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_an_owner_who_may_create_databases_needs_no_superuser(
    clusters: Clusters, form: str, tmp_path: Path
) -> None:
    cluster = clusters.get(16)
    with role(cluster, "CREATEDB") as owner, cluster.database(f"shop_{uuid.uuid4().hex[:8]}") as name:
        cluster.execute(f"ALTER DATABASE {name} OWNER TO {owner}")
        cluster.execute(f"ALTER DATABASE {name} SET log_min_duration_statement TO '5s'")
        with psycopg.connect(cluster.url(name, owner)) as connection:
            connection.execute(SAMPLE.encode())
        with cluster.connect(name) as busy:
            busy.execute("SET application_name = 'till'")
            content = content_of(dumped(cluster.url(name, owner), tmp_path, format=form), tmp_path)
            with restored(cluster, restorer(cluster.url(name, owner))) as made:
                target = made.look()
                assert "till (user postgres)" in target.sessions
                assert made.refusals(content.source, target) == []
                warnings = load(made, content)
                assert "log_min_duration_statement" in messages(warnings)  # type: ignore[arg-type]
                assert held(cluster, made.scratch) == held(cluster, name)
                assert made.examine(content, Progress()) == []
                busy.close()
                assert made.swap(content, STAMP, Progress(), quiet) is not None


def test_roles_are_made_where_that_was_asked_for(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters.get(18)
    gone = f"gone_{uuid.uuid4().hex[:8]}"
    cluster.execute(f"CREATE ROLE {gone}")
    with filled(cluster, f"CREATE TABLE a (b int); ALTER TABLE a OWNER TO {gone}") as name:
        content = content_of(dumped(cluster.url(name), tmp_path), tmp_path)
        cluster.execute("DROP TABLE a", name)
        cluster.execute(f"DROP ROLE {gone}")
        with restored(cluster, restorer(cluster.url(name))) as made:
            with pytest.raises(LarderError, match=f"no role '{gone}'"):
                load(made, content)
            assert made.scratch not in cluster.databases()
        with restored(cluster, restorer(cluster.url(name), plan={"create_roles": True})) as made:
            (warning,) = load(made, content)
            assert f"created role '{gone}'" in warning
            made.drop_new()
        cluster.execute(f"DROP ROLE {gone}")


@contextmanager
def stopped_in_the_middle(
    cluster: Cluster, tmp_path: Path, **options: Any
) -> Iterator[tuple[PostgresRestorer, Content]]:
    """A load that waits for a lock of ours, near its end."""
    with filled(cluster) as name:
        made_of = dumped(cluster.url(name), tmp_path)
        path = tmp_path / made_of.content.path
        data = path.read_bytes() + b"SELECT pg_catalog.pg_advisory_xact_lock(4711);\n"
        path.write_bytes(data)
        piece = replace(made_of.content, raw_size=len(data), raw_sha256=hashlib.sha256(data).hexdigest())
        content = content_of(replace(made_of, content=piece), tmp_path)
        with restored(cluster, restorer(cluster.url(name), **options)) as made:
            yield made, content


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is what the test wants to see
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def test_a_connection_that_is_lost_leaves_nothing_behind(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters.get(18)
    with stopped_in_the_middle(cluster, tmp_path) as (made, content), cluster.connect() as blocker:
        before = held(cluster, made.live)
        blocker.execute("SELECT pg_advisory_lock(4711)")
        # Locks of this kind are a database's own: ours has to be held there.
        with holding(cluster, made) as loading:
            thread, raised = in_thread(lambda: load(made, content))
            loading()
            # No secret on any command line.
            for process in psutil.process_iter(["cmdline"]):
                assert PASSWORD not in " ".join(process.info["cmdline"] or [])
            blocker.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
                [f"larder-restore-{made.plan.id}"],
            )
            thread.join(30)
        (error,) = raised
        assert type(error) is UnreachableError
        assert PASSWORD not in str(error)
        assert made.scratch not in cluster.databases()
        assert cluster.sessions(f"larder-restore-{made.plan.id}") == 0
        assert held(cluster, made.live) == before


@contextmanager
def holding(cluster: Cluster, made: PostgresRestorer) -> Iterator[Callable[[], None]]:
    """Hold the lock of `stopped_in_the_middle` in the new database; what is given returns once the load waits."""
    blockers: list[psycopg.Connection] = []

    def connected() -> bool:
        if not blockers:
            try:
                blockers.append(cluster.connect(made.scratch))
            except psycopg.OperationalError:
                return False
            blockers[0].execute("SELECT pg_advisory_lock(4711)")
        return True

    def loading() -> None:
        wait_for(connected)
        wait_for(lambda: cluster.waiting_for_locks(made.scratch) == 1)

    try:
        yield loading
    finally:
        for blocker in blockers:
            blocker.close()


def test_a_psql_that_is_killed_can_be_tried_again(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters.get(18)
    with stopped_in_the_middle(cluster, tmp_path) as (made, content):
        with holding(cluster, made) as loading:
            thread, raised = in_thread(lambda: load(made, content))
            loading()
            (psql,) = [child for child in psutil.Process().children() if child.name() == "psql"]
            os.kill(psql.pid, signal.SIGKILL)
            thread.join(30)
        (error,) = raised
        assert type(error) is UnreachableError
        assert made.scratch not in cluster.databases()
        # What an attempt that nobody could clean up after has left is replaced.
        cluster.createdb(made.scratch)
        cluster.execute("CREATE TABLE customers (a int); CREATE TABLE stale (a int)", made.scratch)
        load(made, content)
        assert held(cluster, made.scratch) == held(cluster, made.live)
        assert made.drop_new()
        assert not made.drop_new()


def test_waiting_for_a_lock_is_a_stall_and_work_is_none(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters.get(18)
    with stopped_in_the_middle(cluster, tmp_path, stall_timeout="1s") as (made, content):
        with holding(cluster, made) as loading:
            thread, raised = in_thread(lambda: load(made, content))
            loading()
            thread.join(30)
        (error,) = raised
        assert type(error) is UnreachableError
        assert "no byte has moved for 1 s" in str(error)
        assert made.scratch not in cluster.databases()
        path = tmp_path / "dump.sql"
        working = b"SELECT pg_catalog.count(*) FROM pg_catalog.generate_series(1, 3000000) a;\n" * 8
        data = path.read_bytes().replace(b"SELECT pg_catalog.pg_advisory_xact_lock(4711);\n", working)
        path.write_bytes(data)
        source = replace(content.source, raw_size=len(data), raw_sha256=hashlib.sha256(data).hexdigest())
        load(made, replace(content, source=source))


def test_what_differs_from_the_fingerprint_is_told(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters.get(18)
    with filled(cluster) as name:
        content = content_of(dumped(cluster.url(name), tmp_path), tmp_path)
        checks = (
            "SELECT count(*) = 500 FROM customers",
            "SELECT count(*) > 500 FROM customers",
            "SELECT count(*) FROM customers",
            "SELECT nonsense",
            "SELECT true FROM customers LIMIT 2",
            "DELETE FROM customers RETURNING true",
        )
        with restored(cluster, restorer(cluster.url(name), checks=checks)) as made:
            load(made, content)
            cluster.execute(
                'DELETE FROM "Ünïcode schema"."weird ""name"".with.dots" WHERE a = 1; DROP TABLE child;'
                " CREATE TABLE extra (a int)",
                made.scratch,
            )
            assert made.examine(content, Progress()) == [
                "table public.child is missing",
                "table public.extra is not in the backup",
                'table "Ünïcode schema"."weird ""name"".with.dots" has 2 rows, and the backup 3',
                "check is not true: SELECT count(*) > 500 FROM customers",
                "check does not select one true or false: SELECT count(*) FROM customers",
                'unable to run check: SELECT nonsense: column "nonsense" does not exist',
                "check does not select one true or false: SELECT true FROM customers LIMIT 2",
                "unable to run check: DELETE FROM customers RETURNING true: "
                "cannot execute DELETE in a read-only transaction",
            ]
            uncounted = {table: {} for table in content.source.fingerprint["tables"]}
            source = replace(content.source, fingerprint={"row_counts": "off", "tables": uncounted})
            assert made.examine(replace(content, source=source), Progress())[:3] == [
                "table public.child is missing",
                "table public.extra is not in the backup",
                f"check is not true: {checks[1]}",
            ]
    many = {("public", f"t{n}"): 0 for n in range(30)}
    assert _postgres_examine.differences(many, {})[-1] == "and 10 more"


def test_names_are_cut_where_they_have_to_be() -> None:
    assert _postgres_target.beside("shop", f"__before_{STAMP}") == f"shop__before_{STAMP}"
    long = _postgres_target.beside("ü" * 31, f"__before_{STAMP}")
    assert len(long.encode()) <= 63
    assert long.endswith(f"__before_{STAMP}")
    assert long != _postgres_target.beside("ü" * 31 + "x", f"__before_{STAMP}")


#: What makes a superuser of `{role}` once a superuser calls it.
TRAP = """
    CREATE SCHEMA evil;
    CREATE FUNCTION evil.spring() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
        BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN NULL; END;
        IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
        THEN EXECUTE 'ALTER ROLE {role} SUPERUSER'; END IF;
        RETURN 1; END $$;
    CREATE FUNCTION public.format(text, name, name) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN PERFORM evil.spring(); RETURN pg_catalog.format($1, $2, $3); END $$;
    CREATE FUNCTION evil.pg_has_role(oid, text) RETURNS bool LANGUAGE sql AS 'SELECT evil.spring() = 1';
    CREATE FUNCTION evil.ten(int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT 10::int8';
    CREATE AGGREGATE evil.count(*) (sfunc = evil.ten, stype = int8, initcond = '0');
    CREATE TABLE evil.orders AS SELECT 1 AS a;
    CREATE VIEW evil.fine AS SELECT evil.spring() = 1 AS fine;
    ALTER DATABASE {name} SET search_path = evil, pg_catalog, public;
"""


def test_nobodys_functions_run_as_us(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters.get(16)
    with role(cluster) as mallory, cluster.database(f"trap_{uuid.uuid4().hex[:8]}") as name:
        cluster.execute(f"ALTER DATABASE {name} OWNER TO {mallory}")
        with psycopg.connect(cluster.socket_url(name, mallory), autocommit=True) as connection:
            connection.execute(TRAP.format(role=mallory, name=name).encode())

        def is_superuser() -> bool:
            with cluster.connect() as connection:
                row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", [mallory])
                return bool((row.fetchone() or (False,))[0])

        content = content_of(dumped(cluster.url(name), tmp_path), tmp_path)
        assert content.source.fingerprint["tables"] == {"evil.orders": {"rows": 1}}
        assert not is_superuser()
        # Checks have the database's own path, and the rights of its owner.
        checks = ("SELECT fine FROM fine", "SELECT a = 1 FROM orders", f"SELECT current_user = '{mallory}'")
        with restored(cluster, restorer(cluster.url(name), checks=checks)) as made:
            assert made.refusals(content.source, made.look()) == []
            load(made, content)
            assert made.examine(content, Progress()) == []
            assert made.swap(content, STAMP, Progress(), quiet) is not None
            assert not is_superuser()
        settings = DatabaseSettings(
            name="shop", url=SecretStr(cluster.url(name)), postgres_bin=BINARIES, checks=checks
        )
        in_place = open_restorer(settings, Plan(uuid.uuid4().hex[:12], "in-place"))
        assert in_place.refusals(content.source, in_place.look()) == []
        in_place.load(content, Progress(), quiet)
        in_place.swap(content, STAMP, Progress(), quiet)
        assert not is_superuser()
        with cluster.connect(name) as connection:
            assert connection.execute("SHOW search_path").fetchone() == ("evil, pg_catalog, public",)


def test_where_public_was_dropped(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters.get(18)
    with filled(
        cluster, "DROP SCHEMA public; CREATE SCHEMA own; CREATE TABLE own.t AS SELECT 1 AS a"
    ) as name:
        cluster.execute(f'ALTER DATABASE "{name}" SET search_path = own')
        content = content_of(dumped(cluster.url(name), tmp_path), tmp_path)
        checks = ("SELECT a = 1 FROM t",)
        with restored(cluster, restorer(cluster.url(name), checks=checks)) as made:
            load(made, content)
            assert made.examine(content, Progress()) == []
            assert made.swap(content, STAMP, Progress(), quiet) is not None


def test_what_nobody_approved_to_replace_stays(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters.get(16)
    target = f"fresh_{uuid.uuid4().hex[:8]}"
    with filled(cluster, "CREATE TABLE t AS SELECT 1 AS a") as name:
        content = content_of(dumped(cluster.url(name), tmp_path), tmp_path)
        for mode, plan in (("new", {}), ("swap", {"replaces": False})):
            with restored(cluster, restorer(cluster.url(target), mode, plan)) as made:
                load(made, content)
                with cluster.database(target):
                    with pytest.raises(RefusedError, match="which nobody has approved to replace"):
                        made.swap(content, STAMP, Progress(), quiet)
                    assert made.swapped(STAMP, content.scratch) == (False, None)
                try:
                    for _ in range(2):
                        assert made.swap(content, STAMP, Progress(), quiet) is None
                        assert made.swapped(STAMP, content.scratch) == (True, None)
                    # By names, once the folder is gone; another plan would have kept something.
                    assert made.swapped(STAMP, tmp_path / "gone") == (True, None)
                finally:
                    cluster.dropdb(target)


def test_whether_a_swap_was_made_is_told_afresh(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters.get(16)
    gone = tmp_path / "gone"
    with filled(cluster, "CREATE TABLE t AS SELECT 1 AS a") as name:
        content = content_of(dumped(cluster.url(name), tmp_path), tmp_path)
        with restored(cluster, restorer(cluster.url(name))) as made:

            def told() -> list[tuple[bool, object]]:
                return [made.swapped(STAMP, scratch) for scratch in (content.scratch, gone)]

            assert told() == [(False, None)] * 2
            load(made, content)
            assert told() == [(False, None)] * 2
            kept = made.swap(content, STAMP, Progress(), quiet)
            assert kept is not None
            assert told() == [(True, kept)] * 2
            undone = made.undo(kept, "20270101_000000", quiet)
            assert told() == [(False, None)] * 2
            made.undo(undone, STAMP, quiet)
            assert made.drop_kept(replace(kept, name=f"{name}__undone_{STAMP}"))
            assert told() == [(True, None), (False, None)]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://u@db.example/shop", "postgresql://db.example:5432/shop"),
        (
            "postgresql://u@db.example/shop?hostaddr=10.0.0.9",
            "postgresql://db.example:5432/shop?hostaddr=10.0.0.9",
        ),
        ("hostaddr=10.0.0.9 dbname=shop", "postgresql://10.0.0.9:5432/shop"),
        ("postgresql:///shop?service=x", "postgresql:///shop?service=x"),
        (
            "postgresql:///shop?service=x&hostaddr=::1&port=7",
            "postgresql:///shop?hostaddr=::1&service=x&port=7",
        ),
        ("postgresql://u@h/shop?service=x", "postgresql://h:5432/shop?service=x"),
    ],
)
def test_an_address_is_where_libpq_connects_to(
    url: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"):
        monkeypatch.delenv(word, raising=False)
    assert address_in(url, Path("/")) == address
    monkeypatch.setenv("PGHOSTADDR", "10.6.6.6")
    assert ("10.6.6.6" in address_in(url, Path("/"))) == ("hostaddr" not in url)


@pytest.mark.parametrize(
    ("url", "address", "other"),
    [
        (
            "postgresql://u:p%40@Db.Example:5433/shop?sslmode=require&schema=public",
            "postgresql://db.example:5433/shop",
            "postgresql://u:p%40@Db.Example:5433/a%20%2F%3F?sslmode=require&schema=public",
        ),
        ("postgres://u@[::1]/shop", "postgresql://[::1]:5432/shop", "postgres://u@[::1]/a%20%2F%3F"),
        (
            "postgresql+psycopg://me@%2Fvar%2Frun:7?dbname=x&connect_timeout=3",
            "postgresql://%2Fvar%2Frun:7/x",
            "postgresql+psycopg://me@%2Fvar%2Frun:7/a%20%2F%3F?connect_timeout=3",
        ),
        ("postgresql://me:a?b@h", "postgresql://h:5432/me", "postgresql://me:a?b@h/a%20%2F%3F"),
        ("host=h user=me", "postgresql://h:5432/me", "user=me host=h dbname='a /?'"),
        (
            "postgresql://me@a,b:6/größe",
            None,
            "postgresql://me@a,b:6/a%20%2F%3F",
        ),
    ],
)
def test_addresses_and_siblings(
    url: str, address: str | None, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"):
        monkeypatch.delenv(word, raising=False)
    if address is not None:
        assert address_in(url, Path("/")) == address
    assert sibling(url, "a /?") == other
    assert address_in(other, Path("/")).endswith("/a%20%2F%3F")
    assert "p%40" not in address_in(url, Path("/"))


def test_the_psql_is_one_that_understands_the_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [
        _postgres_client.Client(version, Path("/"))
        for version in ((15, 13), (16, 9), (16, 10), (18, 1), (18, 4))
    ]
    monkeypatch.setattr(_postgres_client, "available", lambda _folders: clients)
    for server, tool, wanted in (
        ("16.3", "pg_dump 15.2", (16, 10)),
        ("15.3", "pg_dump 15.2", (15, 13)),
        ("15.3", "pg_dump 15.14", (16, 10)),
        ("17.3", "pg_dump 16.10", (16, 10)),
        ("16.3", "pg_dump 18.0", (18, 4)),
    ):
        assert _postgres_client.choose_loader(server, tool, ()).version == wanted, (server, tool)
    with pytest.raises(ConfigurationError, match=r"pg_dump 19\.1: the newest on this machine is psql 18\.4"):
        _postgres_client.choose_loader("16.1", "pg_dump 19.1", ())


#: What is hard to cut: text, names and rows that look like pg_dump's own lines, and every kind of thing after the rows.
HARD = """
CREATE FUNCTION public.like_a_dump() RETURNS text LANGUAGE plpgsql AS $_$ BEGIN
    RETURN $x$
COPY public.parts (a) FROM stdin;
1
\\.

--
-- Name: i; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX i ON public.parts (a);
$x$; END $_$;
CREATE TABLE big (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, body text, size int
    GENERATED ALWAYS AS (length(body)) STORED);
INSERT INTO big (body) SELECT repeat('row ' || n || E'\\n\\\\.\\n', 20) FROM generate_series(1, 30000) n;
CREATE INDEX big_odd ON big (id) WHERE body <> E'\n--\n-- Name: x; Type: INDEX; Schema: y; Owner: z\n--\n\\';DROP;';
COMMENT ON INDEX big_odd IS E'one\n--\n-- Name: x; Type: INDEX; Schema: y; Owner: z\n--\n\nCOPY a FROM stdin;\n\\\\.\n';
CREATE UNIQUE INDEX big_upper ON big (upper(left(body, 9)), id);
ALTER TABLE big ADD CONSTRAINT "both Ü" UNIQUE (id, size);
COMMENT ON CONSTRAINT "both Ü" ON big IS 'both';
ALTER TABLE big CLUSTER ON big_upper;
CREATE TABLE husband (id int PRIMARY KEY, wife int);
CREATE TABLE wife (id int PRIMARY KEY, husband int REFERENCES husband);
INSERT INTO husband SELECT n, n FROM generate_series(1, 50) n;
INSERT INTO wife SELECT n, n FROM generate_series(1, 50) n;
ALTER TABLE husband ADD FOREIGN KEY (wife) REFERENCES wife;
CREATE TABLE parts (a int, b text, PRIMARY KEY (a)) PARTITION BY RANGE (a);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (500);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (500) TO (1000);
CREATE INDEX parts_b ON parts (b);
INSERT INTO parts SELECT n, 'ü ' || n FROM generate_series(0, 999) n;
CREATE TABLE "-- Name: t; Type: INDEX; Schema: s; Owner: o" (a int PRIMARY KEY);
CREATE TABLE "odd "" ' $$ \\ ; ünï" ("a ; b" text);
INSERT INTO "odd "" ' $$ \\ ; ünï" VALUES ('COPY x FROM stdin;'), (E'\\\\.'), (NULL);
CREATE INDEX ON "odd "" ' $$ \\ ; ünï" ("a ; b");
CREATE MATERIALIZED VIEW totals AS SELECT left(body, 5) AS b, count(*) AS c FROM big GROUP BY 1;
CREATE UNIQUE INDEX ON totals (b);
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER noting BEFORE INSERT ON wife FOR EACH ROW EXECUTE FUNCTION noted();
CREATE RULE quiet AS ON DELETE TO husband DO INSTEAD (UPDATE husband SET wife = NULL; UPDATE wife SET husband = NULL);
CREATE FUNCTION watched() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM 1; END';
CREATE EVENT TRIGGER watching ON ddl_command_start EXECUTE FUNCTION watched();
CREATE FUNCTION atomic() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;
SELECT lo_from_bytea(0, decode(repeat('cd', 100000), 'hex')) FROM generate_series(1, 3);
"""

_INDEXES = (
    "SELECT pg_get_indexdef(indexrelid), obj_description(indexrelid), indisvalid, indisclustered"
    " FROM pg_index WHERE indrelid >= 16384"
    " AND NOT EXISTS (SELECT FROM pg_class WHERE reltoastrelid = indrelid)"
)
_CONSTRAINTS = (
    "SELECT conname, pg_get_constraintdef(oid), obj_description(oid), convalidated FROM pg_constraint"
)


def structure(cluster: Cluster, name: str) -> list[list[tuple[Any, ...]]]:
    with cluster.connect(name) as connection:
        found = [connection.execute(query).fetchall() for query in (_INDEXES, _CONSTRAINTS)]
    return [sorted(map(str, rows)) for rows in found]  # type: ignore[misc]


def with_one_session(said: list[str]) -> list[str]:
    return [line for line in said if line.startswith("Loading anew, with ")]


@pytest.mark.parametrize("version", [16, 18])
@pytest.mark.parametrize("jobs", [2, 5])
@pytest.mark.parametrize("form", ["plain", "directory"])
def test_a_dump_is_loaded_by_several_sessions(
    clusters: Clusters, version: int, jobs: int, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = clusters.get(version)
    monkeypatch.delattr("larder.databases._postgres_filling.Filling._restore")
    with filled(cluster, SAMPLE + HARD) as name:
        if form == "directory":
            # Of which pg_restore has to make what it is.
            cluster.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata", name)
        content = content_of(dumped(cluster.url(name), tmp_path, format=form), tmp_path)
        assert content.source.raw_size > (8 << 20 if form == "plain" else 1 << 18)
        said: list[str] = []
        with restored(cluster, restorer(cluster.url(name), jobs=jobs)) as made:
            progress = Progress(total=content.source.raw_size)
            made.load(content, progress, said.append)
            assert with_one_session(said) == []
            assert progress.done == content.source.raw_size
            assert held(cluster, made.scratch) == held(cluster, name)
            assert structure(cluster, made.scratch) == structure(cluster, name)
            assert made.examine(content, Progress()) == []


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
@pytest.mark.parametrize("form", ["plain", "directory"])
def test_other_encodings_are_loaded_by_several_sessions(
    clusters: Clusters, encoding: str, form: str, tmp_path: Path
) -> None:
    cluster = clusters.get(16)

    def rows_of(database: str) -> list[tuple[Any, ...]]:
        with cluster.connect(database) as connection:
            return connection.execute('SELECT b FROM "tü" ORDER BY b'.encode()).fetchall()

    name = f"shop_{uuid.uuid4().hex[:8]}"
    cluster.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'")
    try:
        statements = """CREATE TABLE "tü" (b text PRIMARY KEY); INSERT INTO "tü" VALUES ('ü'), ('é');
            CREATE INDEX "ü" ON "tü" (b) WHERE b <> 'ß'"""
        # psycopg encodes nothing for a database that has no encoding.
        cluster.execute(statements.encode(), name)  # type: ignore[arg-type]
        content = content_of(dumped(cluster.url(name), tmp_path, format=form), tmp_path)
        said: list[str] = []
        with restored(cluster, restorer(cluster.url(f"{name}_copy"), "new")) as made:
            made.load(content, Progress(), said.append)
            assert with_one_session(said) == []
            assert facts(cluster, made.scratch).encoding == encoding
            assert rows_of(made.scratch) == rows_of(name)
            assert structure(cluster, made.scratch) == structure(cluster, name)
    finally:
        cluster.dropdb(name)


@contextmanager
def altered(
    cluster: Cluster, tmp_path: Path, alter: Callable[[bytes], bytes]
) -> Iterator[tuple[str, Content]]:
    """A dump that was altered, and whose manifest says so."""
    with filled(cluster) as name:
        made_of = dumped(cluster.url(name), tmp_path)
        path = tmp_path / made_of.content.path
        data = alter(path.read_bytes())
        path.write_bytes(data)
        piece = replace(made_of.content, raw_size=len(data), raw_sha256=hashlib.sha256(data).hexdigest())
        yield name, content_of(replace(made_of, content=piece), tmp_path)


TEMPORARY = b"ALTER TABLE mine ADD UNIQUE (id);\n\nALTER TABLE ONLY public.customers\n    "


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"SET standard_conforming_strings = on;\n", b"", "it does not begin as pg_dump's scripts do"),
        (b"\nCREATE VIEW", b"\nSET search_path = '';\n\nCREATE VIEW", "it sets something on its way"),
        # What another session cannot see.
        (
            b"ALTER TABLE ONLY public.customers\n    ADD CON",
            TEMPORARY + b"ADD CON",
            'relation "mine" does not exist',
        ),
    ],
)
def test_what_several_sessions_cannot_do_is_done_by_one(
    clusters: Clusters, old: bytes, new: bytes, reason: str, tmp_path: Path
) -> None:
    def alter(data: bytes) -> bytes:
        assert old in data
        data = data.replace(old, new, 1)
        return data.replace(b"\nCREATE TYPE", b"\nCREATE TEMPORARY TABLE mine (id int);\n\nCREATE TYPE", 1)

    cluster = clusters.get(18)
    with altered(cluster, tmp_path, alter) as (name, content):
        said: list[str] = []
        with restored(cluster, restorer(cluster.url(name))) as made:
            progress = Progress(total=content.source.raw_size)
            made.load(content, progress, said.append)
            (line,) = with_one_session(said)
            assert reason in line
            assert progress.done == content.source.raw_size
            assert held(cluster, made.scratch) == held(cluster, name)
            assert cluster.sessions(f"larder-restore-{made.plan.id}") == 0


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_one_job_is_one_session(
    clusters: Clusters, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = clusters.get(18)
    monkeypatch.delattr("larder.databases._postgres_parallel.load")
    with filled(cluster) as name:
        content = content_of(dumped(cluster.url(name), tmp_path, format=form), tmp_path)
        with restored(cluster, restorer(cluster.url(name), jobs=1)) as made:
            load(made, content)
            assert held(cluster, made.scratch) == held(cluster, name)


@pytest.mark.parametrize("end", ["lock", "cut"])
def test_a_session_that_does_not_go_on_ends_the_load(clusters: Clusters, end: str, tmp_path: Path) -> None:
    """One that sends rows waits for a lock of ours: that is a stall; or it is cut off, and it can be tried again."""
    trap = b"""CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(4711); RETURN NEW; END';
CREATE TRIGGER wait BEFORE INSERT ON public.customers FOR EACH ROW EXECUTE FUNCTION public.wait();

COPY public.customers ("""
    cluster = clusters.get(18)
    options = {"stall_timeout": "1s"} if end == "lock" else {}
    with (
        altered(cluster, tmp_path, lambda data: data.replace(b"COPY public.customers (", trap, 1)) as (
            name,
            content,
        ),
        restored(cluster, restorer(cluster.url(name), **options)) as made,
    ):
        said: list[str] = []
        with holding(cluster, made) as loading:
            thread, raised = in_thread(lambda: made.load(content, Progress(), said.append))
            loading()
            if end == "cut":
                with cluster.connect() as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = %s AND wait_event_type = 'Lock'",
                        [made.scratch],
                    )
            thread.join(30)
        (error,) = raised
        assert type(error) is UnreachableError
        assert ("no byte has moved for 1 s" in str(error)) == (end == "lock")
        assert with_one_session(said) == []
        assert made.scratch not in cluster.databases()
        assert [one.name for one in threading.enumerate() if one.name == "load"] == []


@contextmanager
def superuser(cluster: Cluster, *settings: str) -> Iterator[str]:
    """One who is told some things at every login."""
    with role(cluster, "SUPERUSER") as name:
        for setting in settings:
            cluster.execute(f"ALTER ROLE {name} SET {setting}")
        yield name


def test_what_a_role_is_told_at_login_does_not_change_what_it_loads(
    clusters: Clusters, tmp_path: Path
) -> None:
    settings = (
        "statement_timeout = '100ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '20ms'",
        "search_path = 'public, pg_temp'",
        "session_replication_role = 'replica'",
        "DateStyle = 'SQL, DMY'",
        "client_encoding = 'LATIN1'",
        "standard_conforming_strings = off",
        "array_nulls = off",
    )
    slow = """CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_catalog.pg_sleep(0.2); RETURN $1; END';
        CREATE TABLE late AS SELECT 1 AS a; CREATE INDEX ON late (slow(a));"""
    cluster = clusters.get(18)
    with filled(cluster, SAMPLE + slow) as name, superuser(cluster, *settings) as user:
        content = content_of(dumped(cluster.url(name), tmp_path), tmp_path)
        said: list[str] = []
        with restored(cluster, restorer(cluster.url(name, user))) as made:
            cluster.execute(f"ALTER ROLE {user} SET default_transaction_read_only = on")
            with pytest.raises(RefusedError, match="read-only transaction") as caught:
                load(made, content)
            assert "default_transaction_read_only" in caught.value.hint
            cluster.execute(f"ALTER ROLE {user} RESET default_transaction_read_only")
            made.load(content, Progress(), said.append)
            assert with_one_session(said) == []
            assert held(cluster, made.scratch) == held(cluster, name)
            assert structure(cluster, made.scratch) == structure(cluster, name)


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_rows_of_a_table_with_a_lines_end_in_its_name_are_rows(
    clusters: Clusters, form: str, tmp_path: Path
) -> None:
    """They could look like anything: an index to make, or a transaction to leave out."""
    cluster = clusters.get(18)
    statements = """CREATE TABLE "a\nb" (c text); CREATE TABLE d AS SELECT 1 AS e;
        INSERT INTO "a\nb" VALUES ('--'), ('-- Name: i; Type: INDEX; Schema: public; Owner: o'), ('--'), (''),
            ('CREATE INDEX i ON public.d (e);'), ('BEGIN;'), (''), ('SELECT pg_catalog.lo_open(')"""
    with filled(cluster, statements) as name:
        content = content_of(dumped(cluster.url(name), tmp_path, format=form), tmp_path)
        said: list[str] = []
        with restored(cluster, restorer(cluster.url(name))) as made:
            made.load(content, Progress(), said.append)
            assert len(with_one_session(said)) == 1
            assert held(cluster, made.scratch) == held(cluster, name)
            assert structure(cluster, made.scratch) == structure(cluster, name)


@pytest.mark.parametrize("large_objects", [False, True])
def test_a_folder_that_pg_dump_has_compressed_comes_back(
    clusters: Clusters, tmp_path: Path, *, large_objects: bool
) -> None:
    """As backups were made before Larder compressed them itself."""
    cluster = clusters.get(16)
    with filled(cluster, SAMPLE + HARD) as name:
        if not large_objects:
            cluster.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata", name)
        content = content_of(dumped(cluster.url(name), tmp_path, format="directory"), tmp_path)
        folder = tmp_path / "older"
        pg_dump = [cluster.bin / "pg_dump", "--format=directory", f"--file={folder}", "--compress=6", name]
        subprocess.run(pg_dump, env=cluster.environment(name), check=True)
        assert _postgres_folder.has_only_rows(folder) != large_objects
        with restored(cluster, restorer(cluster.url(name))) as made:
            load(made, replace(content, folder=folder))
            assert held(cluster, made.scratch) == held(cluster, name)
            assert structure(cluster, made.scratch) == structure(cluster, name)


def test_tables_of_a_folder_come_frozen_and_are_counted_where_they_lie(
    clusters: Clusters, tmp_path: Path
) -> None:
    """All but what several sessions fill together; an index could tell how many rows there are, and is not asked."""
    cluster = clusters.get(18)
    tables = "".join(
        f"CREATE TABLE {one} (n int PRIMARY KEY, m text) WITH (autovacuum_enabled = off);"
        f"INSERT INTO {one} SELECT n, repeat(md5(n::text), 9) FROM generate_series(1, 20000) n;"
        for one in ("a", "b", "c")
    )
    with filled(cluster, tables) as name:
        content = content_of(dumped(cluster.url(name), tmp_path, format="directory"), tmp_path)
        said: list[str] = []
        checks = ["SELECT current_setting('enable_indexonlyscan') = 'on'"]
        with restored(cluster, restorer(cluster.url(name), checks=checks)) as made:
            made.load(content, Progress(), said.append)
            assert with_one_session(said) == []
            assert held(cluster, made.scratch) == held(cluster, name)
            with cluster.connect(made.scratch) as connection:
                frozen = connection.execute(
                    "SELECT count(*) FROM pg_class WHERE relname IN ('a', 'b', 'c') AND relallvisible > 0.9 * relpages"
                ).fetchone()
            assert frozen == (2,)
            assert made.examine(content, Progress()) == []
            with _postgres_examine.session(cluster.connect(made.scratch), 10) as session:
                plan = session.execute("EXPLAIN (FORMAT json) SELECT count(*) FROM ONLY a").fetchone()
            assert "Seq Scan" in str(plan)


@pytest.mark.parametrize("damage", ["cut", "changed", "ends early"])
def test_a_folder_that_is_damaged_is_not_loaded(clusters: Clusters, damage: str, tmp_path: Path) -> None:
    cluster = clusters.get(16)
    with filled(cluster, "CREATE TABLE a AS SELECT n FROM generate_series(1, 500000) n") as name:
        content = content_of(dumped(cluster.url(name), tmp_path, format="directory"), tmp_path)
        assert content.folder is not None
        (path,) = content.folder.glob("*.dat.gz")
        data = path.read_bytes()
        if damage == "cut":
            path.write_bytes(data[:-1])
        elif damage == "changed":
            # Within the check sum of the first member.
            end = data.index(b"\x1f\x8b\x08", 1)
            path.write_bytes(data[: end - 6] + bytes([data[end - 6] ^ 1]) + data[end - 5 :])
        else:
            path.write_bytes(data[: data.rindex(b"\x1f\x8b\x08")])
        said: list[str] = []
        with restored(cluster, restorer(cluster.url(name))) as made:
            with pytest.raises(IntegrityError, match=rf"^unable to restore the backup: {path.name}: "):
                made.load(content, Progress(), said.append)
            assert with_one_session(said) == []
            assert made.scratch not in cluster.databases()


def test_a_worker_killed_in_the_middle_is_followed_by_one_that_begins_anew(
    clusters: Clusters, tmp_path: Path
) -> None:
    cluster = clusters.get(18)
    with stopped_in_the_middle(cluster, tmp_path) as (made, content):
        with holding(cluster, made) as loading:
            worker = os.fork()
            if worker == 0:
                try:
                    load(made, content)
                finally:
                    os._exit(0)
            try:
                loading()
            finally:
                os.kill(worker, signal.SIGKILL)
                os.waitpid(worker, 0)
            # Its sessions and its half of a database may be there still.
            load(made, content)
        assert held(cluster, made.scratch) == held(cluster, made.live)
        wait_for(lambda: cluster.sessions(f"larder-restore-{made.plan.id}") == 0)


def test_indexes_that_stand_in_each_others_way_are_made_all_the_same(clusters: Clusters) -> None:
    """Each has begun to read the table by when the other wants it for itself."""
    cluster = clusters.get(18)
    entries = [
        f"CREATE INDEX {name} ON public.a (b); SELECT pg_sleep(0.2); ALTER TABLE public.a CLUSTER ON {name};"
        for name in ("one", "two")
    ]
    with filled(cluster, "CREATE TABLE a AS SELECT 1 AS b") as name:
        connections = [cluster.connect(name) for _ in entries]
        for connection in connections:
            connection.execute("SET deadlock_timeout = '50ms'")
        crew = Crew(connections)
        try:
            for entry in entries:
                assert crew.put(Entry(b"INDEX", entry.encode()), 5)
            assert crew.settled(10)
        finally:
            crew.stop()
        assert len(structure(cluster, name)[0]) == 2


def test_a_database_that_cannot_be_made_is_told_why(clusters: Clusters) -> None:
    cluster = clusters.get(18)
    with cluster.database(f"shop_{uuid.uuid4().hex[:8]}") as name, cluster.connect() as connection:
        plain = replace(facts(cluster, name), comment=None, grants=())
        # The servers of the wheel are built without ICU.
        icu = replace(plain, provider="i", locale="de-DE")
        with pytest.raises(RefusedError, match="ICU is not supported") as caught:
            _postgres_build.create_private(connection, f"{name}_copy", icu, elsewhere=False)
        assert "built with" in caught.value.hint
        with pytest.raises(UnreachableError, match="another session is making it") as raised:
            _postgres_build.create_private(connection, name, plain, elsewhere=False)
        assert type(raised.value) is UnreachableError
        try:
            (warning,) = _postgres_build.create_private(connection, f"{name}_copy", icu, elsewhere=True)
            assert "ICU" in warning
            assert "the server's own locale" in warning
        finally:
            cluster.dropdb(f"{name}_copy")
