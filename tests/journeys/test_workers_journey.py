"""Production's journey: a Redis, a worker, `celery call`, Flower, and everything that crosses Redis on the way."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from tests.house import PATIENCE, House
from tests.processes import answers, eventually, running, worker
from tests.servers import PASSWORD, SAMPLE, Cluster, Clusters, free_port

pytestmark = pytest.mark.usefixtures("no_process_left")

STEPS = ["dump", "compress", "checksum", "upload", "rotate", "notify"]


@pytest.fixture
def server(clusters: Clusters) -> Cluster:
    return clusters.get(16)


@pytest.fixture
def house(tmp_path: Path, server: Cluster, redis_url: str) -> Iterator[House]:
    files = sqlite3.connect(tmp_path / "files.db")
    files.execute("CREATE TABLE files (name TEXT)")
    files.commit()
    files.close()
    with server.database("shop") as name:
        server.execute(SAMPLE, name)
        made = House(tmp_path, SHOP_URL=server.url(name), REDIS_URL=redis_url)
        made.configure(
            f'postgres_bin = ["{server.bin}"]\n[databases.shop]\nurl_env = "SHOP_URL"\n'
            '[databases.files]\nurl = "sqlite:///files.db"\n'
        )
        yield made


def runs(house: House) -> list[dict[str, Any]]:
    return json.loads(house.larder("runs", "--json").stdout)


def finished(house: House) -> dict[str, Any] | None:
    found = runs(house)
    over = found and found[0]["state"] in ("stored", "failed") and found[0]["steps"][-1]["state"] == "done"
    return found[0] if over else None


def call(house: House, **arguments: str) -> subprocess.CompletedProcess[str]:
    command = house.start("celery", "-A", "workers", "call", "backup", "--kwargs", json.dumps(arguments))
    output, complaints = command.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(command.args, command.returncode, output, complaints)


def test_celery_call_backs_up_and_the_password_crosses_nothing(house: House, redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    recorded: list[str] = []
    with client.monitor() as monitor, worker(house) as log:
        listener = threading.Thread(
            target=lambda: recorded.extend(_commands(monitor)), name="monitor", daemon=True
        )
        listener.start()
        done = call(house, database="shop")
        assert done.returncode == 0, done.stderr
        run = eventually(lambda: finished(house))
        client.set("the-end", "1")
        listener.join(PATIENCE)
    assert run["state"] == "stored"
    assert run["trigger"] == "call"
    assert [step["attempts"] for step in run["steps"]] == [1] * 6
    said = log.read_text()
    assert "[INFO] Backup completed successfully!" in said
    crossed = "\n".join(recorded)
    assert "backup.upload" in crossed, "the monitor saw no message"
    bodies = "".join(_bodies(crossed))
    for secret in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD)):
        for where in (crossed, bodies, said):
            assert secret not in where
    client.close()


def test_every_step_delivered_again_changes_nothing(house: House) -> None:
    with worker(house) as log:
        done = house.larder("backup", "files", "--json")
        assert done.returncode == 0, done.stderr
        run = json.loads(done.stdout)["run"]
        before = {path: path.read_bytes() for path in house.backups.glob("files/*")}
        seen = runs(house)
        for step in STEPS:
            command = ["celery", "-A", "workers", "call", f"backup.{step}", "--args", json.dumps([run])]
            _, complaints = house.start(*command).communicate(timeout=PATIENCE)
            eventually(lambda step=step: log.read_text().count(f"Task backup.{step}[") >= 4)
            assert "unexpected error" not in log.read_text(), complaints
    assert runs(house) == seen
    assert {path: path.read_bytes() for path in house.backups.glob("files/*")} == before


def _commands(monitor: Any) -> Iterator[str]:
    for command in monitor.listen():
        if "the-end" in command["command"]:
            return
        yield command["command"]


def _bodies(text: str) -> Iterator[str]:
    """The bodies of Celery's messages, which travel in base64."""
    for piece in text.replace("\\", "").split('"body": "')[1:]:
        yield base64.b64decode(piece.partition('"')[0]).decode()


def test_a_name_that_is_not_configured_fails_where_flower_shows_it(house: House) -> None:
    with worker(house), flower(house) as ask:
        assert call(house, database="nothing").returncode == 0
        failed = eventually(lambda: _task(ask, "backup", "FAILURE"))
        assert "unable to find database 'nothing'" in failed["exception"]
        assert runs(house) == []

        done = house.larder("backup", "shop", "files", "--json")
        assert done.returncode == 0, done.stderr
        assert [document["state"] for document in json.loads(done.stdout)] == ["stored", "stored"]
        for step in STEPS:
            shown = eventually(lambda step=step: _task(ask, f"backup.{step}", "SUCCESS"))
            assert shown["runtime"] > 0
        doctor = house.larder("doctor")
        assert doctor.returncode == 0, doctor.stdout
        assert "ok   workers REDIS_URL: celery@" in doctor.stdout


@contextmanager
def flower(house: House) -> Iterator[Callable[[], dict[str, Any]]]:
    """A running Flower; gives a function that asks it for all tasks."""
    port = free_port()
    command = ["celery", "-A", "workers", "flower", f"--port={port}", "--address=127.0.0.1"]
    process = house.start(*command, FLOWER_UNAUTHENTICATED_API="true")

    def ask() -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/tasks", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (urllib.error.URLError, ConnectionError):
            return {}

    def is_up() -> bool:
        return answers(port)

    with running(process):
        eventually(is_up)
        yield ask


def _task(ask: Callable[[], dict[str, Any]], name: str, state: str) -> dict[str, Any] | None:
    for task in ask().values():
        if task["name"] == name and task["state"] == state:
            return task
    return None


def test_beat_fires_and_two_of_them_make_one_backup(house: House) -> None:
    config = (house.folder / "larder.toml").read_text()
    house.configure(config + 'schedule = "* * * * *"\n')
    beats = [
        house.start("celery", "-A", "workers", "beat", "--schedule", f"beat-{number}", "--pidfile=")
        for number in range(2)
    ]
    with worker(house), running(beats[0]), running(beats[1]):
        run = eventually(lambda: finished(house))
        assert (run["database"], run["trigger"], run["state"]) == ("files", "schedule", "stored")
    slots = [found["backup"] for found in runs(house) if found["database"] == "files"]
    assert len({stamp[:-2] for stamp in slots}) == len(slots), "two beats made two backups of one slot"


def test_a_broker_that_is_gone_is_said_and_leaves_no_run_under_way(house: House) -> None:
    done = house.larder("backup", "files", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert done.returncode == 6, done.stderr
    assert "unable to reach the broker" in done.stderr
    assert [run["state"] for run in runs(house)] == ["failed"]
