"""An upload into the S3 store, every copy verified, against `aws s3 cp` of the same file to the same server, in turn.

The server is moto behind the tests' proxy, which checks SHA-256s as AWS does. Both commands are timed from their start
to their end. `aws` (awscli from the package index) has to be on PATH.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.putting import noise, start
from tests.object_storage import Bucket, ObjectServer, Proxy


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=500, help="MB of the file (default 500)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default 3)")
    arguments = parser.parse_args()
    aws = shutil.which("aws")
    if aws is None:
        sys.exit("unable to compare: there is no `aws` on PATH\nHINT: pip install awscli")
    server = ObjectServer()
    with tempfile.TemporaryDirectory(prefix="larder-bench-") as folder:
        source = Path(folder) / "backup.sql.gz"
        sha256 = noise(source, arguments.size * 1_000_000, 1)
        try:
            server.start()
            with Proxy(server, honest=True) as proxy:
                rounds = [_round(aws, server, proxy, source, sha256) for _ in range(arguments.rounds)]
        finally:
            server.remove()
    _print(arguments.size, rounds)


def _round(
    aws: str, server: ObjectServer, proxy: Proxy, source: Path, sha256: str
) -> tuple[float, float, int]:
    """Seconds of `aws s3 cp`, seconds of Larder's, and Larder's peak of memory in bytes."""
    bucket = server.bucket()
    began = time.monotonic()
    subprocess.run(
        [aws, "s3", "cp", "--quiet", source, f"s3://{bucket.name}/aws", "--endpoint-url", proxy.url],
        env={"PATH": os.environ["PATH"], "HOME": str(source.parent), **proxy.environment},
        check=True,
    )
    theirs = time.monotonic() - began
    bucket.empty()
    began = time.monotonic()
    with start(proxy.environment, proxy.url, bucket.name, "larder", source, sha256) as process:
        said, complaints = process.communicate()
    ours = time.monotonic() - began
    if process.returncode != 0:
        sys.exit(complaints)
    _see(bucket, source, sha256)
    bucket.empty()
    return theirs, ours, int(said)


def _see(bucket: Bucket, source: Path, sha256: str) -> None:
    if bucket.digest("backups/larder") != (source.stat().st_size, sha256):
        sys.exit("unable to compare: what was uploaded is not the file")


def _print(size: int, rounds: list[tuple[float, float, int]]) -> None:
    theirs, ours = (statistics.median(found) for found in list(zip(*rounds, strict=True))[:2])
    sys.stdout.write(
        f"{size} MB, medians of {len(rounds)} rounds\n"
        f"aws s3 cp   {theirs:7.2f} s  {size / theirs:6.0f} MB/s\n"
        f"larder      {ours:7.2f} s  {size / ours:6.0f} MB/s, verified, "
        f"{max(peak for _, _, peak in rounds) / 1e6:.0f} MB of memory at most\n"
        f"throughput  {theirs / ours:.2f} of aws s3 cp\n"
    )


if __name__ == "__main__":
    main()
