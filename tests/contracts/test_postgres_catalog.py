"""What a fingerprint holds of a PostgreSQL catalog: bounded, for plain roles too, comparable with older and newer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from larder.databases import (
    _postgres_catalog,
    _postgres_catalog_compare,
    _postgres_catalog_positions,
    _postgres_content,
    _postgres_proof,
)
from larder.drilling import Examination
from larder.progress import Progress
from larder.restoring import Source
from tests.dumps import dumped, filled, role
from tests.servers import Cluster, Clusters, postgres_installs

NEWEST = max(postgres_installs())


@contextmanager
def session(server: Cluster, name: str, kind: type[psycopg.Connection] = psycopg.Connection) -> Iterator[Any]:
    """A superuser's connection, as a fingerprint is taken by."""
    options = "-c search_path=pg_catalog"
    with closing(kind.connect(server.url(name), autocommit=True, options=options)) as connection:
        yield connection


def source_of(url: str, folder: Path, **options: object) -> Source:
    made = dumped(url, folder, **options)
    size, digest = made.content.raw_size, made.content.raw_sha256
    return Source("postgres", made.form, size, digest, made.server_version, made.tool, made.fingerprint)


def examined(server: Cluster, name: str, source: Source) -> Examination:
    return _postgres_proof.examine(
        "shop",
        lambda: psycopg.connect(server.url(name), autocommit=True, options="-c search_path=pg_catalog"),
        source,
        (),
        jobs=1,
        stall_seconds=60,
        progress=Progress(),
    )


def with_catalog(source: Source, catalog: dict[str, dict[str, str]] | None) -> Source:
    database = {key: value for key, value in source.fingerprint["database"].items() if key != "catalog"}
    if catalog is not None:
        database["catalog"] = catalog
    return replace(source, fingerprint={**source.fingerprint, "database": database})


def test_only_what_both_know_is_compared(clusters: Clusters, tmp_path: Path) -> None:
    server = clusters.get(NEWEST)
    with filled(server, "CREATE TABLE a (b int); COMMENT ON TABLE a IS 'c'") as name:
        source = source_of(server.url(name), tmp_path)
        catalog = source.fingerprint["database"]["catalog"]
        whole = examined(server, name, source)
        older = examined(server, name, with_catalog(source, None))
        newer = examined(server, name, with_catalog(source, {**catalog, "portal": {"x": "y"}}))
        server.execute("COMMENT ON TABLE a IS NULL", name)
        changed = examined(server, name, with_catalog(source, {**catalog, "portal": {"x": "y"}}))
    assert (whole.differences, whole.not_covered) == ((), ())
    assert older.differences == ()
    (line,) = older.not_covered
    assert line.endswith(": " + ", ".join(sorted(_postgres_catalog.KINDS)))
    assert newer.differences == ()
    (line,) = newer.not_covered
    assert line.endswith(": portal")
    assert changed.differences == ("comment on table public.a is missing",)


OWNED = """
CREATE TABLE a (id serial PRIMARY KEY, t text);
COMMENT ON COLUMN a.t IS 'text';
ALTER TABLE a ALTER t SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
CREATE PUBLICATION mine FOR TABLE a;
CREATE COLLATION c (LOCALE = 'C');
CREATE CAST (a AS text) WITH INOUT;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
SELECT lo_from_bytea(7001, 'large');
COMMENT ON LARGE OBJECT 7001 IS 'it is';
"""


def test_a_role_that_owns_the_database_and_nothing_else(clusters: Clusters, tmp_path: Path) -> None:
    server = clusters.get(NEWEST)
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    with role(server) as owner, filled(server, "SELECT 1") as name:
        server.execute(f'ALTER DATABASE "{name}" OWNER TO {owner}')
        with psycopg.connect(server.url(name, owner), autocommit=True) as connection:
            connection.execute(OWNED)
        source = source_of(server.url(name, owner), tmp_path / "first", fingerprint="content")
        assert source.fingerprint["not_covered"] == []
        assert {"comment on", "publication", "collation", "cast", "large object", "details of column"} <= {
            kind for kind, found in source.fingerprint["database"]["catalog"].items() if found
        }
        assert examined(server, name, source).differences == ()
        # What it may not read or dump is told, and the backup is made.
        server.execute(
            "REVOKE SELECT ON pg_seclabel FROM PUBLIC;"
            "CREATE SUBSCRIPTION theirs CONNECTION 'password=x' PUBLICATION p WITH (connect = false, slot_name = NONE)",
            name,
        )
        try:
            source = source_of(
                server.url(name, owner), tmp_path / "second", fingerprint="content", content_up_to=1
            )
        finally:
            server.execute("DROP SUBSCRIPTION theirs", name)
        assert source.fingerprint["not_covered"] == [
            "security label of: permission denied for table pg_seclabel",
            "subscription: pg_dump leaves out what there is, because this role is no superuser",
            "what is in the rows of public.a, which is larger than content_up_to",
            "what is in large objects, which are larger than content_up_to",
        ]
        found = examined(server, name, source)
        assert found.differences == ()
        assert any(line.endswith(": security label of, subscription") for line in found.not_covered)


class Counting(psycopg.Connection):
    """One that counts what it is asked."""

    asked = 0

    def execute(self, *arguments: Any, **options: Any) -> psycopg.Cursor:
        self.asked += 1
        return super().execute(*arguments, **options)


def test_many_sequences_are_asked_for_at_once(clusters: Clusters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_postgres_catalog_positions, "_AT_ONCE", 10)
    server = clusters.get(NEWEST)
    made = """
        DO $$ BEGIN FOR n IN 1..24 LOOP
            EXECUTE format('CREATE SEQUENCE %I INCREMENT %s', 'S ' || n, n);
        END LOOP; END $$;
        SELECT setval('"S 3"', 9, false), nextval('"S 24"');
    """
    with filled(server, made) as name, session(server, name, Counting) as connection:
        found, unread = _postgres_catalog_positions.positions(connection)
        asked = connection.asked
    assert (asked, len(found), unread) == (4, 24, [])
    assert [found[f'public."S {n}"'] for n in (3, 4, 24)] == [[9, False, 3], [1, False, 4], [1, True, 24]]


def test_large_objects_are_hashed_in_pieces_and_told_together_when_they_are_many(
    clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres_content, "_PIECE", 1000)
    monkeypatch.setattr(_postgres_content, "_MANY", 2)
    server = clusters.get(NEWEST)
    made = "SELECT lo_from_bytea(n, decode(repeat('ab', 1000 * n), 'hex')) FROM generate_series(1, 5) n"
    with filled(server, made) as name, session(server, name) as connection:

        def content() -> tuple[int, str]:
            *_, last = _postgres_content.large_objects(connection)
            return last

        before = content()
        assert before[0] == 5
        # What was never written reads as zeros, and is dumped so.
        connection.execute("SELECT lo_put(5, 6000, 'end')")
        hollow = content()
        connection.execute("SELECT lo_put(5, 5000, decode(repeat('00', 1000), 'hex'))")
        assert content() == hollow != before
        catalog, _ = _postgres_catalog.read(connection)
        assert catalog["large object"]["5"] == "owner postgres, rights postgres=SELECT+UPDATE"
        connection.execute("SELECT lo_create(n) FROM generate_series(6, 1001) n")
        catalog, _ = _postgres_catalog.read(connection)
        (told,) = catalog["large object"].items()
        connection.execute("GRANT SELECT ON LARGE OBJECT 5 TO PUBLIC")
        changed, _ = _postgres_catalog.read(connection)
    assert told[0] == "all of owner postgres, rights postgres=SELECT+UPDATE"
    assert told[1].startswith("1001 with the numbers ")
    assert len(changed["large object"]) == 2


@pytest.mark.parametrize(
    ("name", "wanted", "found"),
    [
        ("column a.b", "text not null default 'x'::text", "text not null default ('x')::text || ''"),
        ("column a.b", "text default 1 rights joe=SELECT", "text default 2 rights joe=SELECT"),
        ("constraint c on a", "CHECK ((b > 1)) NOT VALID", "CHECK ((1 < b)) NOT VALID"),
        ("index a_b", "on a using btree (lower(b)), unique", "on a using btree (lower(b || '')), unique"),
        ("trigger t on a", "TRIGGER t WHEN (a) EXECUTE FUNCTION f(), O", "TRIGGER t WHEN (b) EXECUTE FUNCTION f(), O"),
        ("policy p on a", "* permissive public (a > 1)", "* permissive public (1 < a)"),
        ("type t", "domain over integer default 1 owner joe", "domain over integer default (1 + 0) owner joe"),
        ("view v", "SELECT a", "SELECT b"),
        ("column a.b", "text default 1", "sha256:2"),
        ("function f()", "sha256:1", "sha256:2"),
    ],
)  # fmt: skip
def test_another_major_version_may_word_expressions_differently(name: str, wanted: str, found: str) -> None:
    unsure: list[str] = []
    compare = _postgres_catalog_compare.differences
    assert list(compare({name: wanted}, {name: found}, {name}, unsure)) == []
    assert unsure == [name]
    # One that has none, or the same version: then it is another one.
    assert len(list(compare({name: wanted}, {name: found}, (), unsure))) == 1


@pytest.mark.parametrize(
    ("name", "wanted", "found"),
    [
        ("column a.b", "text not null default 1", "text default 1 + 0"),
        ("column a.b", "text default 1", "text generated 1"),
        ("column a.b", "text default 1", "text"),
        ("column a.b", "text default 1 rights joe=SELECT", "text default 2 rights joe=UPDATE"),
        ("constraint c on a", "CHECK ((b > 1)) NOT VALID", "CHECK ((1 < b))"),
        ("index a_b", "on a using btree (lower(b)), unique", "on a using btree (upper(b))"),
        ("index a_b", "on a using btree (lower(b))", "on a using hash (upper(b))"),
        ("trigger t on a", "TRIGGER t WHEN (a) EXECUTE FUNCTION f(), O", "TRIGGER t WHEN (a) EXECUTE FUNCTION f(), D"),
        ("policy p on a", "* permissive public (a > 1)", "* permissive joe (1 < a)"),
        ("type t", "domain over integer default 1 owner joe", "domain over bigint default 2 owner joe"),
        ("type t", "domain over integer default 1 owner joe", "domain over integer default 2 owner jim"),
    ],
)  # fmt: skip
def test_another_major_version_hides_nothing_else(name: str, wanted: str, found: str) -> None:
    unsure: list[str] = []
    (line,) = _postgres_catalog_compare.differences({name: wanted}, {name: found}, {name}, unsure)
    assert line.startswith(f"{name}: expected")
    assert unsure == []
