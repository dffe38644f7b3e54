"""A world to break: two hosts with workers, a Redis, a ledger, databases, stores, and an ear for failures."""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import celery
import psycopg
import redis
from kombu.exceptions import OperationalError

from larder.ledger import Ledger, open_ledger
from larder.ledger.runs import Run
from larder.stores import Store, open_store
from larder.stores.local import LocalSettings
from larder.stores.s3 import S3Settings
from tests.faults.cutting import Cutter
from tests.faults.machines import Host, Redis
from tests.faults.sources import File, Served, Source
from tests.faults.wires import Wires
from tests.object_storage import Bucket, environment_for
from tests.restores import Approver
from tests.servers import Cluster, Clusters

#: Databases that are files; in a small world, fewer.
FILES, FEW_FILES = 6, 3

#: Databases on servers, of which a small world has the first: the server's version, whether drills have a server to
#: make databases on, and further lines.
SERVED = (
    (16, True, ""),
    (18, False, ""),
    (18, True, 'format = "directory"\n'),
    (16, False, "globals = true\n"),
)

#: The stores that are folders, and the one that is a bucket, where the world has one.
STORES = ("near", "far")
REMOTE = "remote"

#: What each host's worker takes, beside what its own spool holds: restores go where the files are.
QUEUES = {"a": "backup,drill,restore", "b": "backup,drill"}

#: The name of a ledger on a server.
_LEDGER = "faults_ledger"

#: Seconds between two ticks, each by one of two schedulers.
_TICK = 1.0

_POLICY = 'keep_replaced = "1s"\nschedule = "* * * * *"\nretention = {keep_last = 4}\n'


class Ear(ThreadingHTTPServer):
    """A webhook that keeps all that it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.heard: list[str] = []
        threading.Thread(target=self.serve_forever, name="ear", daemon=True).start()


class _Answer(BaseHTTPRequestHandler):
    server: Ear

    def do_POST(self) -> None:
        self.server.heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class World:
    """Everything, from `make` on until `close`."""

    def __init__(
        self,
        folder: Path,
        clusters: Clusters,
        *,
        small: bool = False,
        ledger: Cluster | None = None,
        bucket: Bucket | None = None,
    ) -> None:
        """`ledger` is the server that the ledger lies on (none: it is a file), `bucket` one more store."""
        self.folder = folder
        self._bucket = bucket
        self._ledger_server = ledger
        self._small = small
        self.wires = Wires(folder / "wires")
        self.redis = Redis(folder / "redis")
        self.ear = Ear()
        self._served = SERVED[:1] if small else SERVED
        self.servers = {version: clusters.get(version) for version, *_ in self._served}
        self.cutters = {version: Cutter(server.port) for version, server in self.servers.items()}
        #: Before the bucket's server.
        self.store_cutter = Cutter(bucket.port) if bucket else None
        self.sources: dict[str, Source] = {}
        self.hosts: list[Host] = []
        #: Held by whoever keeps the ledger from others.
        self.ledger_lock = threading.Lock()
        self._ledger: Ledger | None = None
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._tick, name="ticker", daemon=True)
        self._broker = celery.Celery("harness", broker=self.redis.url)

    def make(self) -> None:
        """Fill the databases, write the configuration, and have everybody begin."""
        self.wires.make()
        (self.folder / "data").mkdir()
        environment = self._configure()
        for source in self.sources.values():
            source.fill()
        if self._ledger_server is not None:
            self._ledger_server.createdb(_LEDGER)
        self.redis.start()
        for name in ("a", "b"):
            state = str(self.folder / f"state-{name}")
            self.hosts.append(
                Host(name, self.folder / name, QUEUES[name], LARDER_STATE_DIR=state, **environment)
            )
        self.approver = Approver(self.hosts[0].house)
        config = self.folder / "larder.toml"
        config.write_text(config.read_text() + self.approver.lines)
        self._ledger = open_ledger(self.ledger_url)
        for host in self.hosts:
            host.start()
        self._clock.start()

    def _configure(self) -> dict[str, str]:
        environment = {
            "LARDER_CONFIG": str(self.folder / "larder.toml"),
            "LARDER_LEDGER_URL": self.ledger_url,
            "LARDER_TEST_WIRES": str(self.folder / "wires"),
            "REDIS_URL": self.redis.url,
        }
        for number in range(FEW_FILES if self._small else FILES):
            self._add(File(f"file{number}", self.folder / "data"))
        for number, (version, scratch, more) in enumerate(self._served):
            server = self.servers[version]
            port = self.cutters[version].port
            self._add(Served(f"served{number}", server, port, server if scratch else None, more))
        places = ", ".join(f'"{server.bin}"' for server in self.servers.values())
        lines = [f"postgres_bin = [{places}]\ndumps_per_server = 3\n"]
        lines += [
            f"[databases.{name}]\n{source.lines(environment)}{_POLICY}"
            for name, source in self.sources.items()
        ]
        lines += [f'[stores.{name}]\ntype = "local"\npath = "{self.folder}/{name}"\n' for name in STORES]
        if self._bucket is not None and self.store_cutter is not None:
            lines.append(f'[stores.{REMOTE}]\ntype = "s3"\nbucket = "{self._bucket.name}"\n')
            environment |= environment_for(f"http://127.0.0.1:{self.store_cutter.port}")
        lines.append(
            f'[notifiers.team]\ntype = "slack"\nurl = "http://127.0.0.1:{self.ear.server_port}/hook"\n'
        )
        config = self.folder / "larder.toml"
        config.touch(0o600)
        config.write_text("".join(lines))
        return environment

    def _add(self, source: Source) -> None:
        self.sources[source.name] = source

    @property
    def ledger_url(self) -> str:
        """Where the ledger is."""
        if self._ledger_server is not None:
            return self._ledger_server.url(_LEDGER)
        return f"sqlite:///{self.folder}/ledger.sqlite3"

    @property
    def ledger(self) -> Ledger:
        """The ledger, for looking into it."""
        assert self._ledger is not None
        return self._ledger

    def stores(self) -> dict[str, Store]:
        """The stores, by name."""
        found = [LocalSettings(name=name, type="local", path=self.folder / name) for name in STORES]
        if self._bucket is not None:
            found.append(
                S3Settings(name=REMOTE, type="s3", bucket=self._bucket.name, endpoint=self._bucket.url)
            )
        return {settings.name: open_store(settings) for settings in found}

    def runs(self) -> list[Run]:
        """Every run that is no part of another, newest first."""
        return [run for run in self.ledger.runs.latest(kind=None, limit=100_000) if run.parent is None]

    def send(self, task: str, queue: str, **arguments: str) -> None:
        """Send a message, as a scheduler does; where the broker is away, it is lost."""
        with suppress(OperationalError, redis.RedisError):
            self._broker.send_task(
                task, kwargs=arguments, queue=queue, ignore_result=True, expires=20, retry=False
            )

    def _tick(self) -> None:
        """Two schedulers that tick by turns: each has the guard look, and neither knows of the other."""
        for _ in itertools.count():
            if self._over.wait(_TICK):
                return
            self.send("guard", "backup")

    @contextmanager
    def locked_ledger(self) -> Iterator[None]:
        """Have nobody write to the ledger during a block."""
        with self.ledger_lock, ExitStack() as stack:
            if self._ledger_server is not None:
                link = stack.enter_context(psycopg.connect(self._ledger_server.socket_dsn(_LEDGER)))
                link.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
            else:
                path = self.folder / "ledger.sqlite3"
                holder = stack.enter_context(closing(sqlite3.connect(path, timeout=30, isolation_level=None)))
                holder.execute("BEGIN EXCLUSIVE")
            yield

    def ask(self, host: Host, name: str, backup: str) -> dict[str, Any] | None:
        """Ask for a restore, have it approved and begun on a host; None where that can't be done now."""
        words = ("restore", "request", backup, "--into", name, "--reason", "a fault is wanted", "--json")
        asked = host.house.larder(*words)
        if asked.returncode:
            return None
        document: dict[str, Any] = json.loads(asked.stdout)
        token = host.folder / f"token-{document['request']}"
        token.write_text(self.approver.approve(document))
        done = host.house.larder(
            "restore", "run", document["request"], "--token", str(token), "--no-wait", "--json"
        )
        return document if done.returncode == 0 else None

    def close(self) -> None:
        """End everything."""
        self._over.set()
        if self._clock.ident:
            self._clock.join()
        for host in self.hosts:
            host.stop()
        self._broker.close()
        if self._ledger is not None:
            self._ledger.close()
        self.redis.kill()
        self.ear.shutdown()
        self.ear.server_close()
        for cutter in (*self.cutters.values(), self.store_cutter):
            if cutter is not None:
                cutter.close()
        for source in self.sources.values():
            if isinstance(source, Served):
                source.remove()
        if self._ledger_server is not None:
            self._ledger_server.dropdb(_LEDGER)
