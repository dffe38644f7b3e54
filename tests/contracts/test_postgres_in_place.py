"""Backups brought into the live database of a real server, in one transaction: all of it, or none, whatever happens."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from pydantic import SecretStr

from larder.config import DatabaseSettings
from larder.databases import Dump
from larder.databases._postgres_in_place import PostgresInPlace
from larder.errors import BusyError, IntegrityError, RefusedError
from larder.progress import Progress
from larder.restoring import Content, Kept, Plan, Source
from tests.dumps import BINARIES, dumped, filled, role, wait_for
from tests.servers import SAMPLE, Cluster, Clusters, contents, postgres_installs

#: What lies beside schemas, and is made again by a dump too; with what the sample lacks: a default of grants, an
#: aggregate, an own `public`.
BESIDE = """
    CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION noted();
    CREATE PUBLICATION everything FOR ALL TABLES;
    CREATE FOREIGN DATA WRAPPER plain; CREATE SERVER elsewhere FOREIGN DATA WRAPPER plain;
    CREATE CAST (mood AS int) WITH INOUT;
    CREATE FUNCTION of_box(box) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE CAST (box AS int) WITH FUNCTION of_box(box);
    CREATE ACCESS METHOD piled TYPE TABLE HANDLER heap_tableam_handler;
    CREATE FUNCTION dull_handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
    CREATE LANGUAGE dull HANDLER dull_handler;
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO pg_monitor;
    ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    COMMENT ON SCHEMA public IS 'the shop''s own';
    REVOKE USAGE ON SCHEMA public FROM PUBLIC;
    GRANT CREATE ON SCHEMA public TO pg_monitor;
"""

EXTENSIONS = """
    CREATE SCHEMA kinds;
    CREATE EXTENSION hstore SCHEMA kinds; CREATE EXTENSION pg_trgm; CREATE EXTENSION postgres_fdw;
    CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw; CREATE USER MAPPING FOR postgres SERVER elsewhere;
    CREATE FOREIGN TABLE far (a int) SERVER elsewhere;
    CREATE TABLE pairs AS SELECT 1 AS id, 'a=>1'::kinds.hstore AS pair;
    CREATE INDEX similar_names ON customers USING gin (name gin_trgm_ops);
"""

#: Somebody's mistakes: none of it may be there afterwards.
DAMAGE = """
    DELETE FROM customers WHERE id > 10 AND id NOT IN (SELECT customer FROM "Order");
    DROP TABLE guarded; CREATE SCHEMA strange; CREATE TABLE strange.things (a int);
    SELECT lo_unlink(oid) FROM pg_largeobject_metadata; SELECT lo_from_bytea(0, 'x'), lo_from_bytea(0, 'y');
    ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO pg_monitor;
    GRANT ALL ON SCHEMA public TO PUBLIC;
    CREATE FUNCTION stopping() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
    CREATE EVENT TRIGGER stopping ON sql_drop EXECUTE FUNCTION stopping();
"""


@dataclass
class Shop:
    """A live database, and a backup of it from before somebody's mistakes."""

    cluster: Cluster
    name: str
    content: Content
    before: Any
    damaged: Any
    said: list[str] = field(default_factory=list)

    def restorer(self, plan: str = "", **options: Any) -> PostgresInPlace:
        settings = DatabaseSettings(
            name="shop", url=SecretStr(self.cluster.url(self.name)), postgres_bin=BINARIES, **options
        )
        return PostgresInPlace(settings, Plan(plan or uuid.uuid4().hex[:12], "in-place"))

    def swap(self, made: PostgresInPlace) -> Kept | None:
        return made.swap(self.content, "20261124_000000", Progress(), self.said.append)

    def held(self) -> Any:
        """Rows, and all that pg_dump says beside them."""
        return held(self.cluster, self.name)

    def rows(self) -> Any:
        """Of `held`, the rows."""
        with self.cluster.connect(self.name) as connection:
            return contents(connection)


def held(cluster: Cluster, name: str) -> Any:
    """Rows, and all that pg_dump says beside them."""
    schema = subprocess.run(
        [cluster.bin / "pg_dump", "--schema-only"],
        env=cluster.environment(name),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = [line for line in schema.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]
    with cluster.connect(name) as connection:
        return contents(connection), lines


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


def content_of(source: Source, path: Path, scratch: Path) -> Content:
    return Content(source, lambda: path.open("rb"), path if source.form == "folder" else None, scratch)


@contextlib.contextmanager
def shop(
    cluster: Cluster, folder: Path, form: str = "plain", statements: str = SAMPLE + BESIDE
) -> Iterator[Shop]:
    with filled(cluster, statements) as name:
        scratch = folder / "scratch"
        scratch.mkdir()
        made = dumped(cluster.url(name), folder, format=form)
        before = held(cluster, name)
        cluster.execute(DAMAGE, name)
        found = Shop(
            cluster,
            name,
            content_of(source_of(made), folder / made.content.path, scratch),
            before,
            held(cluster, name),
        )
        assert found.before != found.damaged
        yield found


@pytest.fixture
def one_shop(clusters: Clusters, tmp_path: Path) -> Iterator[Shop]:
    with shop(clusters.get(16), tmp_path) as found:
        yield found


@pytest.mark.parametrize(("version", "form"), [(16, "directory"), (18, "plain"), (18, "directory")])
def test_everything_comes_back(clusters: Clusters, version: int, form: str, tmp_path: Path) -> None:
    with shop(clusters.get(version), tmp_path, form) as found:
        made = found.restorer(checks=["SELECT count(*) = 500 FROM customers;"])
        target = made.look()
        assert made.refusals(found.content.source, target) == []
        assert made.load(found.content, Progress(), found.said.append) == []
        assert found.held() == found.damaged
        assert made.examine(found.content, Progress()) == []
        assert found.swap(made) is None
        assert found.held() == found.before
        # Done already: nothing happens, so what was written since is still there.
        found.cluster.execute("CREATE TABLE since (a int)", found.name)
        assert found.swap(made) is None
        assert "public.since" in found.held()[0]
        assert found.cluster.sessions("larder") == 0
        assert not made.drop_new()
        with pytest.raises(RefusedError, match="keeps nothing"):
            made.undo(Kept("x", "1", 1), "20261124_000000", found.said.append)
        assert stat_of(found.content.scratch) == {0o600}


def test_extensions_come_back(clusters: Clusters, tmp_path: Path) -> None:
    version = min(postgres_installs())
    with clusters.get(version).connect() as connection:
        wanted = ["hstore", "pg_trgm", "postgres_fdw"]
        query = "SELECT count(*) FROM pg_available_extensions WHERE name = ANY (%s)"
        if connection.execute(query, [wanted]).fetchone() != (3,):
            pytest.skip(f"PostgreSQL {version} of this machine has no contrib extensions")
    with shop(clusters.get(version), tmp_path, "plain", SAMPLE + EXTENSIONS) as found:
        made = found.restorer()
        assert made.refusals(found.content.source, made.look()) == []
        found.swap(made)
        assert found.held() == found.before


def stat_of(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_a_check_that_is_not_true_takes_everything_back(one_shop: Shop) -> None:
    checks = {
        "SELECT false": "is not true: SELECT false",
        "SELECT true WHERE false": "does not select one true or false",
        "SELECT 1/0 = 1;": "can't be run: division by zero",
        "DELETE FROM customers RETURNING true": "can't be run: cannot execute DELETE",
        "COMMIT": "can't be run: ",
    }
    with pytest.raises(IntegrityError) as raised:
        one_shop.swap(one_shop.restorer(checks=["SELECT true", *checks]))
    assert str(raised.value).count("; check") == len(checks) - 1
    for said in checks.values():
        assert said in str(raised.value)
    assert one_shop.rows() == one_shop.damaged[0]


def test_what_is_not_the_backup_takes_everything_back(one_shop: Shop) -> None:
    whole = one_shop.content
    fingerprint = json.loads(json.dumps(whole.source.fingerprint))
    fingerprint["tables"]["public.customers"]["rows"] = 501
    fingerprint["tables"]["public.more"] = {"rows": 1}
    path = whole.scratch / "cut.sql"
    with whole.open() as opened:
        path.write_bytes(opened.read()[:-2000])
    for content, said in (
        (
            replace(whole, source=replace(whole.source, fingerprint=fingerprint)),
            "customers has 500 rows.* 501",
        ),
        (content_of(whole.source, path, whole.scratch), "it decodes to"),
        (replace(whole, source=replace(whole.source, raw_sha256="0" * 64)), "it decodes to"),
    ):
        one_shop.content = content
        with pytest.raises(IntegrityError, match=said):
            one_shop.swap(one_shop.restorer("0123456789ab"))
        assert one_shop.cluster.sessions("larder-restore-0123456789ab") == 0
        assert one_shop.cluster.sessions("larder") == 0
        assert one_shop.rows() == one_shop.damaged[0]
    one_shop.content = whole
    made = one_shop.restorer()
    assert made.swapped("", whole.scratch) == (False, None)
    assert one_shop.swap(made) is None
    assert made.swapped("", whole.scratch) == (True, None)
    assert one_shop.rows() == one_shop.before[0]


def test_who_holds_a_lock_is_disconnected(one_shop: Shop) -> None:
    with (
        one_shop.cluster.connect(one_shop.name) as holder,
        one_shop.cluster.connect(one_shop.name) as idle,
        holder.transaction(),
    ):
        holder.execute("SELECT count(*) FROM customers")
        one_shop.swap(one_shop.restorer())
        assert idle.execute("SELECT count(*) FROM customers").fetchone() == (500,)
        with pytest.raises(psycopg.errors.AdminShutdown):
            holder.execute("SELECT 1")
        holder.close()
    assert one_shop.rows() == one_shop.before[0]
    assert any("holds a lock" in line for line in one_shop.said)


def test_an_owner_without_rights(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters.get(18)
    with role(cluster) as owner, filled(cluster, "") as name:
        cluster.execute(f"ALTER DATABASE {name} OWNER TO {owner}")
        as_owner = cluster.url(name, owner)
        with psycopg.connect(as_owner, autocommit=True) as connection:
            connection.execute(SAMPLE)
            before = contents(connection)
        made = dumped(as_owner, tmp_path)
        (tmp_path / "scratch").mkdir()
        content = content_of(source_of(made), tmp_path / made.content.path, tmp_path / "scratch")
        settings = DatabaseSettings(name="shop", url=SecretStr(as_owner), postgres_bin=BINARIES)
        restorer = PostgresInPlace(settings, Plan("0123456789ab", "in-place"))
        with psycopg.connect(as_owner, autocommit=True) as connection:
            connection.execute('DELETE FROM "Order"')
        with cluster.connect(name) as superuser:
            superuser.execute("BEGIN; SELECT count(*) FROM customers")
            with pytest.raises(BusyError, match="a lock in it is held by a session"):
                restorer.swap(content, "", Progress(), lambda _line: None)
        assert restorer.refusals(content.source, restorer.look()) == []
        cluster.execute(
            "CREATE SCHEMA theirs; CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = off)",
            name,
        )
        foreign, subscribed = restorer.refusals(content.source, restorer.look())
        assert "may not drop 'schema theirs'" in foreign.message
        assert "subscription 's'" in subscribed.message
        cluster.execute("DROP SCHEMA theirs; ALTER SUBSCRIPTION s SET (slot_name = NONE)", name)
        cluster.execute("DROP SUBSCRIPTION s", name)
        restorer.swap(content, "", Progress(), lambda _line: None)
        with psycopg.connect(as_owner, autocommit=True) as connection:
            assert contents(connection) == before
        cluster.dropdb(name)


#: Forks a process of its own for each restore that it is asked for, so that Python starts only once.
_WORKER = """
    import json, os, sys
    from pathlib import Path
    from pydantic import SecretStr
    from larder.config import DatabaseSettings
    from larder.databases._postgres_in_place import PostgresInPlace
    from larder.progress import Progress
    from larder.restoring import Content, Plan, Source
    told = json.loads(sys.argv[1])
    bins = tuple(map(Path, told["bins"]))
    for plan in sys.stdin:
        child = os.fork()
        if child == 0:
            print(os.getpid(), flush=True)
            settings = DatabaseSettings(name="shop", url=SecretStr(told["url"]), postgres_bin=bins)
            content = Content(Source(**told["source"]), lambda: open(told["path"], "rb"), None, Path(told["scratch"]))
            PostgresInPlace(settings, Plan(plan.strip(), "in-place")).swap(content, "", Progress(), lambda line: None)
            os._exit(0)
        os.waitpid(child, 0)
        print("ended", flush=True)
"""


def _killed(child: int, moment: float | str, note: Path) -> None:
    """Kill the process `child`, or its psql, after so many seconds, or when all but the COMMIT has been done."""
    victim = psutil.Process(child)
    with contextlib.suppress(psutil.NoSuchProcess):
        if isinstance(moment, float):
            threading.Event().wait(moment)
        else:
            wait_for(lambda: note.exists() or victim.status() == psutil.STATUS_ZOMBIE)
        if moment == "psql":
            for program in victim.children():
                program.kill()
            return
        victim.kill()


def test_killed_anywhere(one_shop: Shop) -> None:
    seen = set()
    found, cluster, note = one_shop, one_shop.cluster, one_shop.content.scratch / "in_place.json"
    with found.content.open() as opened:
        path = opened.name
    told = {
        "bins": [str(folder) for folder in BINARIES],
        "url": cluster.socket_url(found.name),
        "source": asdict(found.content.source),
        "path": path,
        "scratch": str(found.content.scratch),
    }
    argv = [sys.executable, "-c", textwrap.dedent(_WORKER), json.dumps(told)]
    cluster.execute("DROP EVENT TRIGGER stopping", found.name)
    with (
        cluster.connect(found.name) as connection,
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as w,
    ):
        assert w.stdin is not None
        assert w.stdout is not None
        for moment in (0.05, 0.15, 0.25, 0.35, 0.45, 0.6, "worker", "psql", "worker", "psql", "worker"):
            note.unlink(missing_ok=True)
            connection.execute("UPDATE customers SET name = 'damaged ' || %s", [moment])
            damaged = contents(connection)
            plan = uuid.uuid4().hex[:12]
            w.stdin.write(f"{plan}\n")
            w.stdin.flush()
            _killed(int(w.stdout.readline()), moment, note)
            assert w.stdout.readline() == "ended\n"
            wait_for(lambda plan=plan: cluster.sessions(f"larder-restore-{plan}") == 0)  # type: ignore[misc]
            now = contents(connection)
            assert now in (found.before[0], damaged)
            seen.add(bool(now == damaged))
            # The next call does it, or finds that it has been done.
            connection.execute("CREATE TABLE since (a int)")
            assert found.swap(found.restorer(plan)) is None
            assert ("public.since" in contents(connection)) is (now != damaged)
            connection.execute("DROP TABLE IF EXISTS since")
            assert contents(connection) == found.before[0]
    assert seen == {True, False}
