"""A worker that is killed in the middle of an upload and started again goes on from the parts that are there."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.test_killed_upload import Gate, is_part
from tests.house import PATIENCE, House
from tests.object_storage import Bucket, ObjectServer, Proxy
from tests.processes import eventually

#: Bytes of the artifact, about.
SIZE = int(os.environ.get("LARDER_TEST_UPLOAD_MB", "100")) * 1_000_000

PART = 16_000_000


@contextmanager
def worker(house: House) -> Iterator[subprocess.Popen[str]]:
    """A worker with the process group that a machine's death would end."""
    process = house.start(
        "celery", "-A", "workers", "worker", "--concurrency", "1", "--logfile", "worker.log"
    )
    try:
        yield process
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL for the worker and its pool: nobody says good-bye."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        member.send_signal(signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(family, timeout=10)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_sends_no_part_twice_that_is_there(
    object_server: ObjectServer, bucket: Bucket, tmp_path: Path, redis_url: str
) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE pictures (picture BLOB)")
        dice = random.Random(4)
        for _ in range(SIZE // 1_000_000):
            connection.execute("INSERT INTO pictures VALUES (?)", (dice.randbytes(1_000_000),))
    connection.close()
    gate = Gate(SIZE // PART // 2, late=False)
    with Proxy(object_server, gate, honest=True) as proxy:
        house = House(tmp_path, REDIS_URL=redis_url, BACKUP_S3_BUCKET=bucket.name, **proxy.environment)
        house.configure('[databases.shop]\nurl = "sqlite:///shop.db"\ncompression = "none"\n')
        with worker(house) as killed:
            asked = house.larder("backup", "shop", "--no-wait", "--json")
            assert asked.returncode == 0, asked.stderr
            run = json.loads(asked.stdout)["run"]
            eventually(lambda: gate.held_up)
            _kill(killed)
        whole = {request.part for request in proxy.requests if is_part(request) and request.kept}
        begun = {request.part for request in proxy.requests if is_part(request)}
        gate.opened.set()
        with worker(house):
            watched = house.start("larder", "watch", run, "--json")
            said, complaints = watched.communicate(timeout=PATIENCE + 120)
    document: dict[str, Any] = json.loads(said)
    assert (document["state"], document["stores"]) == ("stored", ["local", "s3"]), complaints
    (upload,) = [step for step in document["steps"] if step.get("store") == "s3"]
    assert upload["attempts"] == 2
    sent = [request.part for request in proxy.requests if is_part(request)]
    twice = {part for part in sent if sent.count(part) > 1}
    sys.stdout.write(
        f"{len(set(sent))} parts: {len(whole)} whole at the kill, {len(begun)} begun, {len(twice)} sent twice\n"
    )
    assert not twice & whole, "a part that the server had was sent again"
    artifact = (house.backups / "shop" / document["artifact"]).read_bytes()
    assert bucket.read(f"backups/shop/{document['artifact']}") == artifact
