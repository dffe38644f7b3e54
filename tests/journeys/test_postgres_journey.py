"""Back up, destroy, restore by hand with the stock tools, compare: on every PostgreSQL that this machine has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest

from tests.dumps import wait_for
from tests.house import House
from tests.servers import PASSWORD, SAMPLE, SAMPLE_ROWS, Cluster, contents, postgres_installs

pytestmark = pytest.mark.usefixtures("no_process_left")

#: For what the version of the server has no part in.
newest_server = pytest.mark.parametrize("postgres", [max(postgres_installs())], indirect=True)

SPELLINGS = [PASSWORD.encode(), quote(PASSWORD, safe="").encode(), quote(PASSWORD).encode()]


@pytest.fixture
def shop(postgres: Cluster) -> Iterator[str]:
    with postgres.database("shop") as name:
        postgres.execute(SAMPLE, name)
        yield name


@pytest.fixture
def house(tmp_path: Path, postgres: Cluster, shop: str) -> House:
    made = House(tmp_path, SHOP_URL=postgres.url(shop))
    made.configure(
        f'postgres_bin = ["{postgres.bin}"]\n'
        '[databases.plain]\nurl_env = "SHOP_URL"\n'
        '[databases.directory]\nurl_env = "SHOP_URL"\nformat = "directory"\nglobals = true\n'
    )
    return made


def back_up(house: House) -> dict[str, dict[str, Any]]:
    done = house.larder("backup", "--json")
    assert done.returncode == 0, done.stderr
    return {document["database"]: document for document in json.loads(done.stdout)}


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)


def in_database(postgres: Cluster, name: str) -> dict[str, tuple[int, str]]:
    with psycopg.connect(postgres.socket_dsn(name)) as connection:
        return contents(connection)


def test_back_up_destroy_restore_by_hand(house: House, postgres: Cluster, shop: str, tmp_path: Path) -> None:
    before = in_database(postgres, shop)
    assert len(before) > 10
    documents = back_up(house)
    postgres.dropdb(shop)
    for name, document in documents.items():
        folder = house.backups / name
        artifact = folder / document["artifact"]
        assert document["locations"] == {"local": str(artifact)}
        run("sha256sum", "-c", f"{artifact.name}.sha256", cwd=folder)
        run("gunzip", "-t", artifact, cwd=folder)
        with postgres.database("restored") as restored:
            load(postgres, artifact, restored, tmp_path / f"by-hand-{name}")
            assert in_database(postgres, restored) == before
        manifest = json.loads((folder / f"{artifact.name}.manifest.json").read_text())
        counted = {table: facts["rows"] for table, facts in manifest["fingerprint"]["tables"].items()}
        assert counted == SAMPLE_ROWS


def load(postgres: Cluster, artifact: Path, database: str, folder: Path) -> None:
    """What docs/restore-by-hand.md says, in its own commands."""
    folder.mkdir()
    plain = folder / artifact.name.removesuffix(".gz")
    with plain.open("wb") as sink:
        subprocess.run(["gunzip", "-c", artifact], stdout=sink, check=True)
    environment = postgres.environment(database)
    if plain.suffix == ".sql":
        psql = [postgres.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-1", "-d", database, "-f", plain]
        run(*psql, cwd=folder, env=environment)
        return
    (folder / "shop.dir").mkdir()
    run("tar", "-x", "-C", folder / "shop.dir", "-f", plain, cwd=folder)
    restore = [postgres.bin / "pg_restore", "--exit-on-error", "-j", "4", "-d", database, folder / "shop.dir"]
    run(*restore, cwd=folder, env=environment)


def test_globals_lie_beside_and_are_in_the_sidecar(house: House, postgres: Cluster) -> None:
    document = back_up(house)["directory"]
    folder = house.backups / "directory"
    (beside,) = folder.glob("*.globals.sql.gz")
    assert beside.name in (folder / f"{document['artifact']}.sha256").read_text()
    text = subprocess.run(["gunzip", "-c", beside], capture_output=True, check=True).stdout
    assert b"CREATE ROLE postgres" in text


@newest_server
def test_the_password_is_nowhere(house: House, postgres: Cluster) -> None:
    command = house.start("larder", "backup", "--json")
    seen: set[bytes] = set()
    while command.poll() is None:
        seen |= set(_argvs(command.pid))
    output, complaints = command.communicate()
    assert command.returncode == 0, complaints
    assert any(b"pg_dump" in line for line in seen), "the sampling saw no pg_dump"
    where = {"stdout": output.encode(), "stderr": complaints.encode(), "argv": b"\n".join(seen)}
    where |= {str(path): path.read_bytes() for path in house.backups.rglob("*") if path.is_file()}
    for name, content in where.items():
        for spelling in SPELLINGS:
            assert spelling not in content, name


@contextmanager
def held_up(house: House, postgres: Cluster, shop: str) -> Iterator[subprocess.Popen[str]]:
    """A backup that waits for a lock."""
    with psycopg.connect(postgres.socket_dsn(shop)) as owner:
        owner.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        command = house.start("larder", "backup", "plain", "--json")
        wait_for(lambda: _waits_for_a_lock(postgres), seconds=60)
        yield command


@newest_server
def test_ctrl_c_leaves_nothing_and_the_next_backup_need_not_wait(
    house: House, postgres: Cluster, shop: str
) -> None:
    with held_up(house, postgres, shop) as command:
        command.send_signal(signal.SIGINT)
        output, complaints = command.communicate(timeout=30)
    assert command.returncode == 1, complaints
    assert "stopped by SIGINT" in json.loads(output)["error"]
    (run,) = json.loads(house.larder("runs", "--json").stdout)
    assert (run["state"], run["failed_step"]) == ("failed", "dump")
    assert [path.name for path in (house.backups / ".larder" / "spool").iterdir()] == ["host"]
    assert not list(house.backups.glob("plain/*"))
    assert house.larder("backup", "plain").returncode == 0


@newest_server
def test_a_worker_that_is_killed_ends_the_command_and_all_that_it_started(
    house: House, postgres: Cluster, shop: str
) -> None:
    with held_up(house, postgres, shop) as command:
        below = psutil.Process(command.pid).children()
        (worker,) = [child for child in below if "redis-server" not in child.name()]
        # What it starts is out of reach for the terminal's Ctrl-C.
        assert os.getpgid(worker.pid) == worker.pid
        worker.kill()
        _, complaints = command.communicate(timeout=30)
    assert command.returncode == 1
    assert "unable to go on: the worker ended with -9" in complaints
    assert "worker.log" in complaints
    (run,) = json.loads(house.larder("runs", "--json").stdout)
    assert (run["state"], run["failed_step"]) == ("failed", "dump")
    assert house.larder("backup", "plain").returncode == 0


def _waits_for_a_lock(postgres: Cluster) -> bool:
    with postgres.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'shop'"
        return connection.execute(query).fetchone() != (0,)


def _argvs(process: int) -> Iterator[bytes]:
    """What `ps` shows of a process, and of everything below it."""
    try:
        family = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            yield Path(f"/proc/{member.pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
