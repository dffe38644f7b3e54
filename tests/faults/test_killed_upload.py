"""An upload that was killed goes on: no part that the server has is sent again."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from tests.dumps import wait_for
from tests.faults.putting import PART, noise, start
from tests.object_storage import Bucket, Fault, ObjectServer, Proxy, Request, delay

#: Bytes of the file.
SIZE = int(os.environ.get("LARDER_TEST_UPLOAD_MB", "200")) * 1_000_000

KEY = "shop/backup_postgres_20251016_020000.sql.gz"

#: Seconds that a process may take.
PATIENCE = 60 + SIZE / 5_000_000


class Gate:
    """Lets `count` parts through, and holds the next ones up in the middle of their bodies until it is opened.

    Where `late`, the last that gets through is answered late.
    """

    def __init__(self, count: int, *, late: bool) -> None:
        self._left = count
        self._late = late
        self._lock = threading.Lock()
        self.opened = threading.Event()
        #: The parts that it holds up.
        self.held_up: set[int | None] = set()

    def __call__(self, request: Request) -> Fault | None:
        if not is_part(request) or self.opened.is_set():
            return None
        with self._lock:
            self._left -= 1
            left = self._left
            if left < 0:
                self.held_up.add(request.part)
        if left < 0:
            self.opened.wait(PATIENCE)
        return delay(2) if left == 0 and self._late else None


def is_part(request: Request) -> bool:
    """Whether it is a part of the file, and not the one byte by which a server's honesty is tried."""
    return request.operation == "UploadPart" and request.size > 1


@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.parametrize(
    ("parallel", "late", "honest", "size"),
    # moto takes all of an object into its memory to give one part of it: reading a large one back takes it hours.
    [(4, True, True, SIZE), (1, False, False, min(SIZE, 100_000_000))],
    ids=["four at a time, one unanswered", "one at a time, lying server"],
)
def test_a_killed_upload_goes_on(
    object_server: ObjectServer,
    bucket: Bucket,
    tmp_path: Path,
    parallel: int,
    late: bool,
    honest: bool,
    size: int,
) -> None:
    source = tmp_path / "source"
    sha256 = noise(source, size, 2)
    numbers = list(range(1, -(-size // PART) + 1))
    half = len(numbers) // 2
    gate = Gate(half, late=late)
    with Proxy(object_server, gate, honest=honest) as proxy:
        job = (proxy.environment, proxy.url, bucket.name, KEY, source, sha256)
        options = {"part_size": PART, "parallel": parallel, "prefix": ""}
        with start(*job, **options) as first:
            try:
                in_flight = parallel - late
                wait_for(lambda: (len(parts(proxy)), len(gate.held_up)) == (half, in_flight), PATIENCE)
            finally:
                first.kill()
        gate.opened.set()
        wait_for(lambda: all(request.ended for request in proxy.requests))
        assert bucket.keys() == []
        whole, before = parts(proxy), len(proxy.requests)
        with start(*job, **options) as second:
            _, complaints = second.communicate(timeout=PATIENCE)
        assert second.returncode == 0, complaints
        sent = [request.part for request in proxy.requests[before:] if is_part(request)]
    twice = gate.held_up & set(sent)
    sys.stdout.write(f"{len(whole)} of {len(numbers)} parts had arrived, {len(twice)} were sent twice\n")
    assert sorted(sent) == [number for number in numbers if number not in whole]
    assert 0 < len(twice) <= parallel
    assert bucket.digest(KEY) == (size, sha256)
    assert bucket.keys() == [KEY]
    assert bucket.uploads() == {}


def parts(proxy: Proxy) -> set[int | None]:
    """The parts whose last byte has come."""
    return {request.part for request in proxy.requests if is_part(request) and request.arrived}
