"""What tests of restores do again and again: an approver with a key, a request, an approval, a run."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.dumps import wait_for
from tests.house import House
from tests.processes import redis_server, worker
from tests.servers import Cluster, contents


class Approver:
    """Alice, who has a machine of her own, and on it her key and nothing else."""

    def __init__(self, house: House, name: str = "alice") -> None:
        folder = house.folder / f"machine-of-{name}"
        folder.mkdir()
        self._machine = House(folder)
        self.key = folder / f"{name}.approver.key"
        made = self._machine.larder("keys", "new", "approver", name, "--no-passphrase")
        assert made.returncode == 0, made.stderr
        #: Her lines of larder.toml.
        self.lines = made.stdout

    def approve(self, document: dict[str, Any]) -> str:
        """The token that says yes to a request, of which she sees the document alone."""
        path = self._machine.folder / f"{document['request']}.json"
        path.write_text(json.dumps(document))
        done = self._machine.larder("restore", "approve", str(path), "--key", str(self.key), "--yes")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextmanager
def standing(folder: Path, lines: str, **environment: str) -> Iterator[tuple[House, Approver]]:
    """A Redis, a worker and an approver, for what `lines` of larder.toml say; none of their processes outlives it."""
    with redis_server(folder) as url:
        house = House(folder, REDIS_URL=url, **environment)
        alice = Approver(house)
        house.configure(lines + alice.lines)
        with worker(house):
            yield house, alice
    assert not [
        found.info for found in psutil.process_iter(["cwd", "cmdline"]) if found.info["cwd"] == str(folder)
    ]


def back_up(house: House, database: str) -> str:
    """`larder backup`; gives the backup's id."""
    done = house.larder("backup", database, "--json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["backup"])


def ask(house: House, backup: str, into: str, *options: str) -> dict[str, Any]:
    """The document of a new request."""
    words = ("restore", "request", backup, "--into", into, "--reason", "a test wants it", "--json")
    done = house.larder(*words, *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(house: House, request: str, token: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`larder restore run`, with the token in a file."""
    path = house.folder / f"token-of-{request}"
    path.write_text(token)
    return house.larder("restore", "run", request, "--token", str(path), "--json", *options)


def restored(house: House, approver: Approver, backup: str, into: str, *options: str) -> dict[str, Any]:
    """Ask, approve, run, and see that it went well; gives what `run --json` printed."""
    document = ask(house, backup, into, *options)
    done = run(house, document["request"], approver.approve(document))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["state"] == "done"
    return found


def undone(house: House, request: str) -> dict[str, Any]:
    """`larder restore undo`, which has to go well."""
    done = house.larder("restore", "undo", request, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def trail(house: House, request: str | None = None) -> list[dict[str, Any]]:
    """The rows of the audit trail."""
    found: list[dict[str, Any]] = json.loads(
        house.larder("audit", "list", *filter(None, [request]), "--json").stdout
    )
    return found


def listed(house: House, request: str) -> dict[str, Any]:
    """What `restore list` says of a request."""
    found = json.loads(house.larder("restore", "list", "--json").stdout)
    return next(one for one in found if one["request"] == request)


def whole(server: Cluster, name: str) -> dict[str, object]:
    """Everything in a PostgreSQL database, and what it is as a whole: equal when nothing tells two of them apart."""
    with server.connect(name) as connection:
        row = connection.execute(_AS_A_WHOLE).fetchone()
        return {"database": row, **contents(connection)}


_AS_A_WHOLE = """
    SELECT pg_get_userbyid(datdba), datconnlimit, shobj_description(d.oid, 'pg_database'),
           pg_encoding_to_char(encoding), datcollate, datctype, datistemplate, datallowconn,
           (SELECT array_agg(concat_ws(' ', grantee::regrole, privilege_type, is_grantable)
                             ORDER BY grantee::regrole::text, privilege_type)
            FROM aclexplode(coalesce(datacl, acldefault('d', datdba)))),
           (SELECT array_agg(concat_ws(' ', setrole::regrole, setconfig::text) ORDER BY setrole)
            FROM pg_db_role_setting WHERE setdatabase = d.oid)
    FROM pg_database d WHERE datname = current_database()
"""


def drop_all(server: Cluster, name: str) -> None:
    """Drop a database, and those that restores have left beside it."""
    for found in server.databases():
        if found == name or found.startswith(f"{name}_"):
            server.dropdb(found)


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """The command lines of all processes of this machine, as `ps` shows them, during a block."""
    seen: set[bytes] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    thread = threading.Thread(target=look, name="ps")
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


class Prober:
    """Connects to a database anew every few milliseconds, and notes when that began, ended, and how."""

    def __init__(self, server: Cluster, name: str) -> None:
        self._dsn = server.socket_dsn(name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober")
        #: Begin and end, in seconds since 1970, and what was said where it failed.
        self.tries: list[tuple[float, float, str]] = []

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.003):
            began, said = time.time(), ""
            try:
                with psycopg.connect(self._dsn) as connection:
                    connection.execute("SELECT 1")
            except psycopg.OperationalError as error:
                said = str(error)
            self.tries.append((began, time.time(), said))

    def failures(self) -> list[tuple[float, float, str]]:
        return [one for one in self.tries if one[2]]

    def window(self) -> float:
        """The longest time that nobody got an answer in."""
        answers = [ended for _, ended, said in self.tries if not said]
        return max(later - earlier for earlier, later in itertools.pairwise(answers))


@contextmanager
def pgbench(server: Cluster, name: str) -> Iterator[subprocess.Popen[str]]:
    """Four clients at work in a database that `pgbench -i` has filled."""
    command = [server.bin / "pgbench", "-n", "-c", "4", "-T", "100"]
    process = subprocess.Popen(
        command, env=server.environment(name), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        with server.connect(name) as connection:
            count = "SELECT count(*) FROM pgbench_history"
            wait_for(lambda: (connection.execute(count).fetchone() or (0,))[0] > 100)
        yield process
    finally:
        process.kill()
        process.communicate()
