"""An upload holds a few parts in memory, however large the file is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.faults.putting import noise, start
from tests.object_storage import Bucket, ObjectServer, Proxy

#: Bytes of the file.
SIZE = int(os.environ.get("LARDER_TEST_UPLOAD_MB", "300")) * 1_000_000

#: The most that a process may take, in bytes.
LIMIT = 250_000_000

KEY = "shop/backup_postgres_20251016_020000.sql.gz"

#: Seconds that the process may take.
PATIENCE = 60 + SIZE / 5_000_000


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize(
    ("honest", "size"),
    # moto holds all of an object in memory, several times, to give one part of it.
    [(True, SIZE), (False, min(SIZE, 300_000_000))],
    ids=["vouched for", "read back"],
)
def test_memory_does_not_grow_with_the_file(
    object_server: ObjectServer, bucket: Bucket, tmp_path: Path, honest: bool, size: int
) -> None:
    source = tmp_path / "source"
    sha256 = noise(source, size, 3)
    with Proxy(object_server, honest=honest) as proxy:
        job = (proxy.environment, proxy.url, bucket.name, KEY, source, sha256)
        with start(*job, prefix="") as process:
            said, complaints = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, complaints
        assert proxy.sent("UploadPart", KEY, kept=True) > 10
        assert (proxy.sent("GetObject", KEY) == 0) == honest
    sys.stdout.write(f"{size / 1e6:.0f} MB took {int(said) / 1e6:.0f} MB of memory\n")
    assert int(said) < LIMIT
    assert bucket.digest(KEY) == (size, sha256)
