"""`larder up`: everything on one machine comes up, makes backups, shows them, and leaves no process."""

from __future__ import annotations

import base64
import json
import signal
import socket
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.house import SCRIPTS, House
from tests.processes import answers, eventually
from tests.servers import free_port

PASSWORD = "c0nsole-s3cr3t"


@pytest.fixture
def house(tmp_path: Path, no_process_left: None) -> House:
    """A house with a database, and ports of its own."""
    made = House(tmp_path, DATABASE_URL="sqlite:///shop.db", FLOWER_PORT=str(free_port()))
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE orders AS SELECT 1 AS id")
    made.configure(f"[console]\nport = {free_port()}\n")
    return made


class Up:
    """`larder up`, running; its log is what it writes to standard error."""

    def __init__(self, house: House, **more: str) -> None:
        self.log, self._out = house.folder / "up.log", house.folder / "up.json"
        with self.log.open("w") as log, self._out.open("w") as out:
            self.process = subprocess.Popen(
                [SCRIPTS / "larder", "up", "--json"],
                cwd=house.folder,
                env={**house.environment, **more},
                stdout=out,
                stderr=log,
            )
        eventually(lambda: self._out.read_text().endswith("}\n"))
        self.said = json.loads(self._out.read_text())

    def wait_until_ready(self) -> None:
        """Both pages answer, and the worker takes tasks."""
        ports = [urlsplit(self.said[name]).port or 0 for name in ("console", "flower")]
        eventually(lambda: all(map(answers, ports)) and "ready." in self.log.read_text())

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@pytest.fixture
def started() -> Iterator[list[Up]]:
    """Takes up what is to be ended when a test fails."""
    found: list[Up] = []
    yield found
    for up in found:
        if up.process.poll() is None:
            children = psutil.Process(up.process.pid).children(recursive=True)
            up.process.kill()
            for child in children:
                child.kill()
            up.process.wait()


def get(url: str, login: str = "", data: bytes | None = None) -> tuple[int, str]:
    """Status and body; `login` is user:password."""
    request = urllib.request.Request(url, data)
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_everything_comes_up_works_and_ends(house: House, started: list[Up]) -> None:
    up = Up(house)
    started.append(up)
    up.wait_until_ready()
    stored = house.larder("backup", "--json", REDIS_URL=up.said["redis"])
    assert stored.returncode == 0, stored.stderr
    assert json.loads(stored.stdout)["proof"] == "stored"
    assert "database=shop" in up.log.read_text()

    status, page = get(up.said["console"])
    assert (status, "shop" in page) == (200, True)
    assert f'<a href="{up.said["flower"]}" rel="noreferrer">Flower</a>' in page
    health = json.loads(get(f"{up.said['console']}api/health?detailed=true")[1])
    assert health["status"] == "ok", health

    login_file = Path(up.said["flower_login"])
    login = login_file.read_text().strip()
    assert login_file.stat().st_mode & 0o077 == 0
    assert get(up.said["flower"])[0] == 401
    assert get(f"{up.said['flower']}api/tasks", "larder:wrong")[0] == 401
    status, tasks = get(f"{up.said['flower']}api/tasks", login)
    assert status == 200
    assert "backup.dump" in tasks
    start = f"{up.said['flower']}api/task/async-apply/backup"
    assert get(start, login, json.dumps({"kwargs": {"database": "shop"}}).encode())[0] == 403
    assert login.partition(":")[2] not in up.log.read_text()

    assert up.stop() == 0, up.log.read_text()[-2000:]
    assert "killing" not in up.log.read_text()
    assert up.log.read_text().rstrip().endswith("redis stopped (rc=0)")


@pytest.mark.slow
def test_one_that_dies_ends_all_and_is_named(house: House, started: list[Up]) -> None:
    up = Up(house, LARDER_CONSOLE_PASSWORD=PASSWORD)
    started.append(up)
    up.wait_until_ready()
    # With a password of the console's, Flower takes that one.
    assert up.said["flower_login"] is None
    assert get(f"{up.said['flower']}api/tasks", f"larder:{PASSWORD}")[0] == 200
    assert get(up.said["console"])[0] == 401
    children = psutil.Process(up.process.pid).children()
    beat = next(child for child in children if "beat" in child.cmdline())
    beat.kill()
    assert up.process.wait(timeout=60) == 1
    log = up.log.read_text()
    assert "unable to go on: beat was ended by signal 9" in log
    assert PASSWORD not in log


@pytest.mark.slow
def test_a_redis_that_is_there_is_used(house: House, started: list[Up], redis_url: str) -> None:
    up = Up(house, REDIS_URL=redis_url)
    started.append(up)
    up.wait_until_ready()
    assert up.said["redis"] is None
    assert house.larder("backup", REDIS_URL=redis_url).returncode == 0
    assert up.stop(signal.SIGTERM) == 0


def test_without_a_database_it_says_what_to_set(house: House) -> None:
    found = house.larder("up", DATABASE_URL="")
    assert found.returncode == 2
    assert "error: unable to start: there is no database to back up" in found.stderr
    assert "HINT: set DATABASE_URL, or write larder.toml" in found.stderr


def test_ports_in_use_are_told_at_once_before_anything_starts(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        console, flower = (listener.getsockname()[1] for listener in (one, other))
        house.configure(f"[console]\nport = {console}\n")
        found = house.larder("up", FLOWER_PORT=str(flower))
    assert found.returncode == 1
    first = found.stderr.splitlines()[0]
    assert f"127.0.0.1:{console} (the console) and 127.0.0.1:{flower} (Flower)" in first
    assert not house.backups.exists()


def test_a_console_that_is_open_to_others_needs_a_login(house: House) -> None:
    house.configure(f'[console]\nhost = "0.0.0.0"\nport = {free_port()}\n')
    found = house.larder("up")
    assert found.returncode == 2
    assert "there is no login" in found.stderr


@pytest.mark.parametrize("port", ["http", "0", "65536", "²"])
def test_a_port_that_is_none(house: House, port: str) -> None:
    found = house.larder("up", FLOWER_PORT=port)
    assert found.returncode == 2
    assert "FLOWER_PORT is no number from 1 to 65535" in found.stderr


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_one_port_for_both_is_told_before_anything_starts(house: House, address: str) -> None:
    port = free_port()
    house.configure(f"[console]\nport = {port}\n")
    found = house.larder("up", FLOWER_PORT=str(port), FLOWER_ADDRESS=address)
    assert found.returncode == 2
    assert f"the console and Flower are both to listen at port {port}" in found.stderr
    assert not house.backups.exists()


def test_a_name_too_long_for_a_socket_is_told_before_anything_starts(house: House) -> None:
    folder = house.folder / ("long" * 30)
    folder.mkdir()
    found = house.larder("up", TMPDIR=str(folder))
    assert found.returncode == 2
    assert f"unable to start Redis: the name of a socket in {folder} is too long" in found.stderr
    assert "HINT: set TMPDIR" in found.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_second_one_on_the_same_state_is_refused(house: House, started: list[Up]) -> None:
    up = Up(house)
    started.append(up)
    house.configure(f"[console]\nport = {free_port()}\n")
    found = house.larder("up", FLOWER_PORT=str(free_port()))
    assert found.returncode == 1
    assert f"another larder up has {house.backups / '.larder'}" in found.stderr
    assert up.stop() == 0
