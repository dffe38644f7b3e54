"""What is backed up: databases of a size, of what real ones hold, and what is in them for a comparison."""

from __future__ import annotations

import hashlib
import json
import marshal
import random
import sqlite3
import subprocess
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psycopg import sql

from tests.servers import Cluster

#: Bytes that a unit of scale has in a plain dump, about: pgbench 9.8 MB, and what `MIXED` makes.
UNIT = 16.9e6

#: What real databases hold beside pgbench's rows, for each unit of scale.
MIXED = (
    """
    CREATE TABLE events AS
    SELECT n AS id, now() - n * interval '1 second' AS at,
           jsonb_build_object('user', (random() * 1e6)::int, 'session', md5(random()::text), 'path', '/items/' || n,
                              'ms', random() * 1000, 'tags', array[md5(random()::text), 'web', 'eu']) AS body
    FROM generate_series(1, {scale} * 10000) n
    """,
    """
    CREATE TABLE articles AS
    SELECT n AS id, (SELECT string_agg(md5((n * 100 + m / 4)::text) || ' lorem ipsum dolor sit amet ', '')
                     FROM generate_series(1, 50) m) AS text
    FROM generate_series(1, {scale} * 1000) n
    """,
    """
    CREATE TABLE pictures AS
    SELECT n AS id, (SELECT decode(string_agg(md5(random()::text), ''), 'hex') FROM generate_series(1, 250) m
                     WHERE n > 0) AS bytes
    FROM generate_series(1, {scale} * 250) n
    """,
)

#: Rows and a hash of each table.
Contents = dict[str, tuple[int, str]]


def fill_postgres(
    cluster: Cluster, name: str, megabytes: int, partitions: int, *, mixed: bool = True
) -> None:
    """Make a database whose plain dump has about this many megabytes: 17 at least."""
    scale = max(1, round(megabytes * 1e6 / (UNIT if mixed else 9.8e6)))
    cluster.createdb(name)
    command: list[Path | str] = [cluster.bin / "pgbench", "--initialize", "--quiet", "--scale", str(scale)]
    command += [f"--partitions={partitions}", name] if partitions else [name]
    _quietly(cluster, name, command)
    if mixed:
        for statement in MIXED:
            cluster.execute(statement.format(scale=scale), name)
        for table in ("events", "articles", "pictures"):
            cluster.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (id)", name)
    _quietly(cluster, name, [cluster.bin / "vacuumdb", "--analyze", name])
    # What is still to be written would be written while somebody is measured.
    cluster.execute("CHECKPOINT", name)


def settings_of(options: Namespace) -> dict[str, Any]:
    """What was asked for of a PostgreSQL database that `fill_postgres` makes, for the results."""
    return {
        "megabytes": options.size,
        "data": options.data,
        "partitions": options.partitions,
        "postgres": options.postgres,
        "rounds": options.rounds,
    }


def _quietly(cluster: Cluster, name: str, command: Sequence[Path | str]) -> None:
    subprocess.run(command, env=cluster.environment(name), check=True, capture_output=True)


def fill_postgres_small(cluster: Cluster, names: Sequence[str]) -> None:
    """Make databases of about 5 MB each."""
    cluster.createdb("model")
    cluster.execute(
        "CREATE TABLE items AS SELECT n AS id, md5(n::text) || md5(random()::text) AS what, now() AS at"
        " FROM generate_series(1, 50000) n",
        "model",
    )
    for name in names:
        cluster.execute(f'CREATE DATABASE "{name}" TEMPLATE model')
    cluster.execute("CHECKPOINT")


def fill_postgres_tiny(cluster: Cluster, name: str) -> None:
    """Make a database of one table with a hundred rows."""
    cluster.createdb(name)
    cluster.execute("CREATE TABLE items AS SELECT n AS id, md5(n::text) FROM generate_series(1, 100) n", name)


def process_of(cluster: Cluster) -> int:
    """The id of a running server's main process."""
    return int((cluster.data / "postmaster.pid").read_text().split()[0])


def postgres_contents(cluster: Cluster, name: str) -> Contents:
    """Rows of every table, and the sum of their hashes, which their order does not change: one query a table."""
    found = {}
    with cluster.connect(name) as connection:
        tables = connection.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
        ).fetchall()
        for schema, table in tables:
            query = sql.SQL(
                "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text FROM ONLY {} t"
            ).format(sql.Identifier(schema, table))
            row = connection.execute(query).fetchone()
            assert row is not None
            found[f"{schema}.{table}"] = (int(row[0]), str(row[1]))
    return found


def fill_sqlite(path: Path, megabytes: int) -> None:
    """Make an SQLite database of about this many megabytes: rows, JSON events, long texts, incompressible blobs."""
    chance = random.Random(8)
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    database.executescript(
        "CREATE TABLE accounts (id INTEGER PRIMARY KEY, branch INTEGER, balance INTEGER, filler TEXT);"
        "CREATE TABLE events (id INTEGER PRIMARY KEY, body TEXT);"
        "CREATE TABLE articles (id INTEGER PRIMARY KEY, text TEXT);"
        "CREATE TABLE pictures (id INTEGER PRIMARY KEY, bytes BLOB);"
    )
    # A unit is about a megabyte.
    for _ in range(megabytes):
        database.executemany(
            "INSERT INTO accounts (branch, balance, filler) VALUES (?, ?, ?)",
            ((n % 10, chance.randrange(1_000_000), " " * 84) for n in range(5_000)),
        )
        database.executemany(
            "INSERT INTO events (body) VALUES (?)",
            ((json.dumps({"user": chance.randrange(10**6), "session": f"{chance.getrandbits(128):032x}",
                          "path": f"/items/{n}", "ms": chance.random() * 1000}),) for n in range(1_500)),
        )  # fmt: skip
        database.executemany(
            "INSERT INTO articles (text) VALUES (?)",
            ((f"{chance.getrandbits(128):032x} lorem ipsum dolor sit amet " * 50,) for _ in range(35)),
        )
        database.executemany(
            "INSERT INTO pictures (bytes) VALUES (?)", ((chance.randbytes(4_000),) for _ in range(25))
        )
    database.execute("CREATE INDEX accounts_by_branch ON accounts (branch)")
    database.commit()
    database.close()


def sqlite_contents(path: Path) -> Contents:
    """Rows and a hash of every table, in the order of their keys."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        found = {}
        names = database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        ).fetchall()
        for (name,) in names:
            digest, rows = hashlib.sha256(), 0
            for row in database.execute(f'SELECT * FROM "{name}" ORDER BY rowid'):
                digest.update(marshal.dumps(row, 2))
                rows += 1
            found[name] = (rows, digest.hexdigest())
        return found
    finally:
        database.close()
