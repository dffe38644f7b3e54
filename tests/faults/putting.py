"""Puts into an S3 store, in this process or in one of its own that a test may kill and measure."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from larder.errors import LarderError
from larder.stores import Store, open_store, settings_of

#: Where `tests` and `larder` are imported from.
ROOT = Path(__file__).parents[2]

#: The smallest part that S3 takes.
PART = 5 << 20

#: How often a step of the chain is tried on errors that may pass.
TRIES = 5


def s3_store(url: str, bucket: str, **options: Any) -> Store:
    """A store on the server at `url`, with credentials from the environment."""
    return open_store(settings_of("s3")(name="offsite", type="s3", bucket=bucket, endpoint=url, **options))


def try_to_put(opened: Callable[[], Store], key: str, source: Path, sha256: str) -> str:
    """Put as the chain's step does, without its waiting. Gives what came of it: `kept`, or the error's class."""
    for left in reversed(range(TRIES)):
        try:
            opened().put(key, source, sha256)
        except LarderError as error:
            if error.retryable and left:
                continue
            return type(error).__name__ + (" every time" if error.retryable else "")
        return "kept"
    raise AssertionError


def noise(path: Path, size: int, seed: int) -> str:
    """Write `size` bytes that are the same for a seed; gives their SHA-256."""
    dice, digest = random.Random(seed), hashlib.sha256()
    with path.open("wb") as sink:
        for start in range(0, size, 1 << 20):
            chunk = dice.randbytes(min(1 << 20, size - start))
            digest.update(chunk)
            sink.write(chunk)
    return digest.hexdigest()


def start(environment: dict[str, str], *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Have a process put: the server's address, bucket, key, source and SHA-256. Prints its peak of memory in bytes."""
    command = [sys.executable, "-m", "tests.faults.putting", json.dumps(options), *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _peak() -> int:
    """The most memory that this process had, in bytes.

    Not `getrusage`: its figure starts with that of the process which forked, and pytest is large.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell a process's peak of memory")


def main(options: str, url: str, bucket: str, key: str, source: str, sha256: str) -> None:
    """Put, and print the peak of memory."""
    s3_store(url, bucket, **json.loads(options)).put(key, Path(source), sha256)
    sys.stdout.write(f"{_peak()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
