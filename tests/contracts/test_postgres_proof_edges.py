"""Where a proof of PostgreSQL could be wrong: extensions' rows and rights, rows that move, what is set for a role."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from larder.databases import (
    _postgres_catalog_compare,
    _postgres_examine,
    _postgres_facts,
    _postgres_objects,
    _postgres_proof,
)
from larder.databases._postgres_catalog_compare import LONGEST
from larder.databases._postgres_connection import child_conninfo, child_environment, connect
from larder.drilling import Examination
from larder.errors import UnreachableError
from larder.progress import Progress
from larder.restoring import Source
from tests.dumps import dumped, filled, role
from tests.servers import Cluster, Clusters, postgres_installs

NEWEST = max(postgres_installs())

EXTENSION = """
CREATE TABLE edges_settings (name text, value text, is_builtin bool);
INSERT INTO edges_settings VALUES ('version', '1', true);
CREATE SEQUENCE edges_numbers;
SELECT pg_extension_config_dump('edges_settings', 'WHERE NOT is_builtin');
SELECT pg_extension_config_dump('edges_numbers', '');
CREATE FUNCTION edges_closed() RETURNS int LANGUAGE sql AS 'SELECT 1';
REVOKE EXECUTE ON FUNCTION edges_closed() FROM PUBLIC;
CREATE FUNCTION edges_open() RETURNS int LANGUAGE sql AS 'SELECT 1';
"""

MADE = """
CREATE EXTENSION larder_edges;
INSERT INTO edges_settings VALUES ('colour', 'red', false), ('size', 'large', false);
SELECT setval('edges_numbers', 42);
GRANT EXECUTE ON FUNCTION edges_closed() TO {reader}, {user};
GRANT SELECT (value) ON edges_settings TO {reader};

CREATE TYPE mood AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h');
CREATE TABLE felt (m mood, n int) PARTITION BY HASH (m);
CREATE TABLE felt_0 PARTITION OF felt FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE felt_1 PARTITION OF felt FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE felt_2 PARTITION OF felt FOR VALUES WITH (MODULUS 3, REMAINDER 2) PARTITION BY LIST (n);
CREATE TABLE felt_rest PARTITION OF felt_2 DEFAULT;
INSERT INTO felt SELECT m, n FROM unnest(enum_range(NULL::mood)) WITH ORDINALITY u (m, o), generate_series(1, o) n;

CREATE DOMAIN phrase AS text DEFAULT 'hunter2' CHECK (VALUE <> 'hunter2');
CREATE TABLE keyed (id int, "it's" text DEFAULT 'hunter2 it''s', p phrase,
    twice text GENERATED ALWAYS AS (p || 'hunter2') STORED, CHECK ("it's" <> 'hunter2')) PARTITION BY LIST ("it's");
CREATE TABLE keyed_one PARTITION OF keyed FOR VALUES IN ('hunter2', E'hunter2\\\\');
CREATE TABLE plain (id int PRIMARY KEY, t text);
-- It is shorter than a definition may be that is kept as text, and comes back longer.
CREATE TABLE listed (s varchar(10) CHECK (s IN ('one', 'two', 'three', 'four', 'five')));
CREATE INDEX plain_some ON plain ((t || 'hunter2')) WHERE t > 'hunter2';
CREATE STATISTICS plain_stats ON (t || 'hunter2'), id FROM plain;
CREATE VIEW seen AS SELECT id FROM plain WHERE t = 'hunter2';
CREATE RULE never AS ON INSERT TO plain WHERE NEW.t = 'hunter2' DO INSTEAD NOTHING;
CREATE FUNCTION noticed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER noted BEFORE UPDATE ON plain FOR EACH ROW WHEN (NEW.t > 'hunter2') EXECUTE FUNCTION noticed('hunter2');
ALTER TABLE plain ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON plain USING (t <> 'hunter2') WITH CHECK (t > 'hunter2');
CREATE PUBLICATION chosen FOR TABLE plain WHERE (t <> 'hunter2' AND id > 3) WITH (publish = 'insert');
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER far TYPE 'hunter2' VERSION 'hunter2' FOREIGN DATA WRAPPER elsewhere;
"""

#: What a role or a configuration file may say, and what would end each of its sessions at once.
SETTINGS = (
    *("quote_all_identifiers = on", "standard_conforming_strings = off", "bytea_output = 'escape'"),
    *("IntervalStyle = 'sql_standard'", "DateStyle = 'German'", "TimeZone = 'Asia/Tokyo'"),
    *("statement_timeout = '1ms'", "idle_session_timeout = '1ms'"),
    *("idle_in_transaction_session_timeout = '1ms'", "transaction_timeout = '1ms'"),
)

#: What is done to the restored database, and what a drill has to say of it.
CHANGES = {
    "DELETE FROM edges_settings WHERE name = 'size'": (
        "table public.edges_settings of extension larder_edges: expected 2 rows, found 1"
    ),
    "UPDATE edges_settings SET value = 'blue' WHERE name = 'colour'": (
        "table public.edges_settings of extension larder_edges: its content differs (it has as many rows as it had)"
    ),
    "SELECT setval('edges_numbers', 41)": (
        "sequence public.edges_numbers: expected 42 (called), found 41 (called)"
    ),
    "REVOKE ALL ON FUNCTION edges_closed() FROM {reader}": (
        "rights on extension's function public.edges_closed() of {reader} is missing"
    ),
    "REVOKE ALL ON FUNCTION edges_open() FROM PUBLIC": (
        "rights on extension's function public.edges_open() of public is not in the backup"
    ),
    "REVOKE ALL (value) ON edges_settings FROM {reader}": (
        "rights on extension's table column public.edges_settings.value of {reader} is missing"
    ),
    "DELETE FROM felt WHERE m = 'h' AND n = 3": "table public.felt: expected 36 rows, found 35",
    "UPDATE felt SET n = 4 WHERE m = 'h' AND n = 3": (
        "table public.felt: its content differs (it has as many rows as it had)"
    ),
}


@dataclass(frozen=True)
class Pair:
    """A database, what its backup's fingerprint says, and what came back from that."""

    server: Cluster
    role: str
    reader: str
    live: str
    source: Source
    restored: str

    def examined(self, source: Source | None = None, user: str = "postgres") -> Examination:
        """What a drill finds."""
        return _postgres_proof.examine(
            "shop",
            lambda: connect("shop", self.server.url(self.restored, user)),
            source or self.source,
            (),
            jobs=2,
            stall_seconds=60,
            progress=Progress(),
        )

    def restored_differs(self) -> list[str]:
        """What a restore finds."""
        url = self.server.url(self.restored)
        return _postgres_examine.examine(
            "shop", lambda: connect("shop", url), self.source.fingerprint, (), 2, 60
        )

    @contextmanager
    def changed(self, statement: str) -> Iterator[None]:
        """Something done to what came back, and undone by making it anew."""
        kept = f"{self.restored}_kept"
        self.server.execute(f'CREATE DATABASE "{kept}" TEMPLATE "{self.restored}"')
        try:
            self.server.execute(statement.replace("{reader}", self.reader), self.restored)
            yield
        finally:
            self.server.dropdb(self.restored)
            self.server.execute(f'ALTER DATABASE "{kept}" RENAME TO "{self.restored}"')


@contextmanager
def extension(server: Cluster) -> Iterator[None]:
    """An extension of two files in the server's own installation."""
    with server.connect() as connection:
        (share,) = connection.execute("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'").fetchone() or (
            "",
        )
    files = {
        Path(share) / "extension" / "larder_edges.control": "default_version = '1'\n",
        Path(share) / "extension" / "larder_edges--1.sql": EXTENSION,
    }
    try:
        for path, text in files.items():
            path.write_text(text)
            path.chmod(0o644)
        yield
    finally:
        for path in files:
            path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def pair(clusters: Clusters, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Dumped and loaded by a role whose settings are all against it."""
    server, folder = clusters.get(NEWEST), tmp_path_factory.mktemp("edges")
    with (
        extension(server),
        role(server, "SUPERUSER") as user,
        role(server) as reader,
        filled(server, MADE.replace("{reader}", reader).replace("{user}", user)) as live,
        server.database(f"{live}_restored") as restored,
    ):
        for setting in SETTINGS:
            server.execute(f"ALTER ROLE {user} SET {setting}")
        made = dumped(server.url(live, user), folder, fingerprint="content")
        piece = made.content
        source = Source(
            *("postgres", made.form, piece.raw_size, piece.raw_sha256),
            *(made.server_version, made.tool, made.fingerprint),
        )
        with closing(connect("shop", server.url(restored, user))) as connection:
            argv = [server.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", folder / piece.path]
            subprocess.run(
                [*argv, "-d", child_conninfo(connection)], env=child_environment(connection), check=True
            )
        yield Pair(server, user, reader, live, source, restored)
        for name in (live, restored):
            server.execute(f"DROP OWNED BY {reader}", name)
            server.execute(f"REASSIGN OWNED BY {user} TO postgres", name)


@pytest.mark.parametrize("user", ["postgres", "its own role"])
def test_what_came_back_is_proven_whatever_is_set_for_the_role(pair: Pair, user: str) -> None:
    found = pair.examined(user=pair.role if user == "its own role" else user)
    assert found.differences == ()
    assert found.not_covered == ("the rows of materialised views, which a restore makes anew",)
    assert pair.source.fingerprint["tables"]["public.felt_rest"]["partition_of"] == "public.felt"


def test_a_definition_may_come_back_longer_than_what_is_kept_as_text(pair: Pair) -> None:
    query = "SELECT length(pg_get_constraintdef(oid)) FROM pg_constraint WHERE conname = 'listed_s_check'"
    with pair.server.connect(pair.live) as live, pair.server.connect(pair.restored) as restored:
        (before,), (now,) = (one.execute(query).fetchone() or (0,) for one in (live, restored))
    assert before <= LONGEST < now
    assert pair.examined().differences == ()
    # And the other way about: what came back is a database like any other.
    with closing(connect("shop", pair.server.url(pair.restored))) as connection:
        longer = _postgres_objects.catalog(connection)
    source = replace(pair.source, fingerprint={**pair.source.fingerprint, "schema": longer})
    assert replace(pair, restored=pair.live).examined(source).differences == ()


def test_programs_have_all_the_time_that_they_need(pair: Pair) -> None:
    query = "SELECT name FROM pg_settings WHERE name ~ '^(statement|idle|transaction).*timeout$' AND setting <> '0'"
    with closing(connect("shop", pair.server.url(pair.restored, pair.role))) as connection:
        argv = [pair.server.bin / "psql", "-X", "-A", "-t", "-c", query, "-d", child_conninfo(connection)]
        said = subprocess.run(argv, env=child_environment(connection), check=True, capture_output=True)
    assert said.stdout == b""


def test_rows_that_came_back_into_another_partition_are_no_difference(pair: Pair) -> None:
    query = "SELECT tableoid::regclass::text, count(*) FROM felt GROUP BY 1"
    with pair.server.connect(pair.live) as live, pair.server.connect(pair.restored) as restored:
        before, now = (dict(one.execute(query).fetchall()) for one in (live, restored))
    assert before != now
    assert pair.restored_differs() == []
    with pair.changed("DELETE FROM felt WHERE m = 'h' AND n = 3"):
        assert pair.restored_differs() == ["table public.felt has 35 rows, and the backup 36"]


@pytest.mark.parametrize("change", CHANGES)
def test_what_hangs_on_an_extension_or_is_hashed_is_compared(pair: Pair, change: str) -> None:
    with pair.changed(change):
        assert pair.examined().differences == (CHANGES[change].replace("{reader}", pair.reader),)


def test_rows_are_counted_where_they_were_not_hashed(pair: Pair) -> None:
    database = pair.source.fingerprint["database"]
    counted = {
        name: {"extension": found["extension"], "rows": found["rows"]}
        for name, found in database["configuration"].items()
    }
    fingerprint = {**pair.source.fingerprint, "database": {**database, "configuration": counted}}
    source = replace(pair.source, fingerprint=fingerprint)
    assert pair.examined(source).differences == ()
    with pair.changed("DELETE FROM edges_settings WHERE name = 'size'"):
        (line,) = pair.examined(source).differences
    assert line.endswith(": expected 2 rows, found 1")
    older = {name: found for name, found in database.items() if name != "configuration"}
    found = pair.examined(replace(source, fingerprint={**fingerprint, "database": older}))
    assert "the rows of public.edges_settings, which the fingerprint does not hold" in found.not_covered


def test_another_version_of_an_extension_may_have_other_rows_of_its_own(pair: Pair) -> None:
    database = {**pair.source.fingerprint["database"], "extensions": {"larder_edges": "0"}}
    source = replace(pair.source, fingerprint={**pair.source.fingerprint, "database": database})
    with pair.changed("DELETE FROM edges_settings"):
        found = pair.examined(source)
    assert found.differences == ()
    assert (
        "table public.edges_settings of extension larder_edges: expected 2 rows, found 0;"
        " the extension was of version 0, and is 1"
    ) in found.not_covered


def test_a_fingerprint_holds_no_literal_and_neither_does_a_difference(pair: Pair) -> None:
    said = json.dumps(pair.source.fingerprint)
    assert "hunter2" not in said
    digest = hashlib.sha256(b"hunter2 it''s").hexdigest()[:16]
    assert pair.source.fingerprint["schema"]['column public.keyed."it\'s"'] == (
        f"text default 'sha256:{digest}'::text"
    )
    with pair.changed(
        "ALTER TABLE keyed_one ALTER \"it's\" SET DEFAULT 'hunter3'; ALTER SERVER far VERSION 'hunter4'"
    ):
        found = pair.examined().differences
    assert [line.partition(":")[0] for line in found] == [
        'column public.keyed_one."it\'s"',
        "foreign server far",
    ]
    assert "hunter" not in "".join(found)


def test_an_older_fingerprint_that_holds_literals_is_compared_all_the_same(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect("shop", pair.server.url(pair.live))) as connection, monkeypatch.context() as patch:
        patch.setattr(_postgres_catalog_compare, "hidden", lambda _name, definition: definition)
        older = _postgres_objects.catalog(connection)
    assert "hunter2" in json.dumps(older)
    source = replace(pair.source, fingerprint={**pair.source.fingerprint, "schema": older})
    assert pair.examined(source).differences == ()
    older["view public.seen"] = older["view public.seen"].replace("hunter2", "hunter1")
    (line,) = pair.examined(source).differences
    assert line.startswith("view public.seen: expected ")
    assert "hunter" not in line


LOGIN = """
CREATE TABLE logins (who text);
GRANT SELECT ON logins TO PUBLIC;
CREATE FUNCTION came() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN INSERT INTO public.logins VALUES (session_user); END $$;
CREATE EVENT TRIGGER came ON login EXECUTE FUNCTION came();
"""


def test_a_trigger_on_login_is_not_fired_by_our_own_sessions(clusters: Clusters, tmp_path: Path) -> None:
    server = clusters.get(NEWEST)

    def logins(name: str) -> int:
        options = "-c event_triggers=off"
        with closing(psycopg.connect(server.url(name), options=options)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM logins").fetchone() or (0,)
        return int(count)

    with role(server) as plain, filled(server, LOGIN) as name:
        made = dumped(server.url(name), tmp_path)
        source = Source("postgres", made.form, 0, "", made.server_version, made.tool, made.fingerprint)
        pair = Pair(server, plain, plain, name, source, name)
        before = logins(name)
        found = pair.examined()
        pair.restored_differs()
        assert logins(name) == before
        assert not [line for line in found.not_covered if "login" in line]
        # Who may not switch them off says so.
        found = pair.examined(user=plain)
        assert logins(name) > before
        assert [line for line in found.not_covered if "login" in line] == [_postgres_proof._FIRED]


def test_a_role_that_owns_a_subscription_and_nothing_else_is_needed(clusters: Clusters) -> None:
    server = clusters.get(NEWEST)
    with role(server, "SUPERUSER") as owner, filled(server, "SELECT 1") as name:
        server.execute(
            "CREATE SUBSCRIPTION theirs CONNECTION 'password=x' PUBLICATION p WITH (connect = false, slot_name = NONE)",
            name,
        )
        try:
            server.execute(f"ALTER SUBSCRIPTION theirs OWNER TO {owner}", name)
            with closing(connect("shop", server.url(name))) as connection:
                assert owner in _postgres_facts.describe(connection)["roles"]
        finally:
            server.execute("DROP SUBSCRIPTION theirs", name)


def test_a_connection_that_is_lost_before_a_program_is_started_is_worth_another_try(
    clusters: Clusters,
) -> None:
    server = clusters.get(18)
    with server.database("lost") as name, closing(connect("shop", server.url(name))) as connection:
        server.execute(f"SELECT pg_terminate_backend({connection.info.backend_pid})", name)
        with pytest.raises(UnreachableError, match="was lost"):
            child_environment(connection)
