"""The whole chain against the user's own script, on one database, in one run.

    make bench                                 # 1.3 GB of dump: pgbench, JSONB events, long texts, bytea
    make bench ARGS='--data pgbench'           # pgbench alone, which gzip finds easy
    make bench ARGS='--scale 10 --rounds 1'

The script is `pg_dump | gzip` and `sha256sum`. Larder's chain does that, decodes the artifact to its end, copies it
into the local store, reads the copy back, and rotates. Its time runs from the start of `dump` to the end of `notify`;
`command` is the time of all of `larder backup`, which starts and ends a Redis and a worker too. Prints ratios of
medians, and what the spool and the worker took at their peak. Exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from larder.ledger import open_ledger
from tests.servers import Cluster, started

#: What the chain has to keep to: parts of the script's time and of the raw size, and bytes.
TARGETS = {"time": 0.70, "spool": 0.30, "memory": 200e6}

#: What real databases hold beside pgbench's rows, for each unit of scale.
MIXED = (
    """
    CREATE TABLE events AS
    SELECT n AS id, now() - n * interval '1 second' AS at,
           jsonb_build_object('user', (random() * 1e6)::int, 'session', md5(random()::text), 'path', '/items/' || n,
                              'ms', random() * 1000, 'tags', array[md5(random()::text), 'web', 'eu']) AS body
    FROM generate_series(1, {scale} * 10000) n
    """,
    """
    CREATE TABLE articles AS
    SELECT n AS id, (SELECT string_agg(md5((n * 100 + m / 4)::text) || ' lorem ipsum dolor sit amet ', '')
                     FROM generate_series(1, 50) m) AS text
    FROM generate_series(1, {scale} * 1000) n
    """,
    """
    CREATE TABLE pictures AS
    SELECT n AS id, (SELECT decode(string_agg(md5(random()::text), ''), 'hex') FROM generate_series(1, 250) m
                     WHERE n > 0) AS bytes
    FROM generate_series(1, {scale} * 250) n
    """,
)

#: Seconds between two looks at the spool and the worker.
LOOK_EVERY = 0.05


@dataclass
class Peaks:
    """The largest spool (bytes on the disk) and worker process (bytes resident) seen while a command ran."""

    spool: int = 0
    memory: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def watch(self, process: int, spool: Path) -> None:
        while not self.over.wait(LOOK_EVERY):
            self.spool = max(self.spool, _size(spool))
            self.memory = max([self.memory, *_workers(process)])


def main() -> int:
    """Run every round, print the figures, and compare them with the targets."""
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="larder-bench-"))
    cluster = started(arguments.postgres, as_it_comes=True)
    try:
        return _measure(cluster, folder, arguments)
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["mixed", "pgbench"], default="mixed")
    parser.add_argument(
        "--scale", type=int, default=60, help="pgbench scale, and in proportion what else there is"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres", type=int, default=16, help="major version of server and client")
    parser.add_argument("--format", choices=["plain", "directory"], default="plain")
    parser.add_argument("--compression", choices=["gzip", "zstd", "none"], default="gzip")
    return parser.parse_args()


def _measure(cluster: Cluster, folder: Path, arguments: argparse.Namespace) -> int:
    cluster.createdb("bench")
    _pgbench(cluster, arguments.scale)
    if arguments.data == "mixed":
        for statement in MIXED:
            cluster.execute(statement.format(scale=arguments.scale), "bench")
    limit: list[float] = []
    script: list[float] = []
    chain: list[dict[str, Any]] = []
    peaks: list[Peaks] = []
    for number in range(1, arguments.rounds + 1):
        limit.append(_dump_alone(cluster))
        script.append(_script(cluster, folder))
        document, peak = _larder(cluster, folder / f"round-{number}", arguments)
        chain.append(document)
        peaks.append(peak)
        steps = "  ".join(f"{step['name']} {step['seconds']:.2f}" for step in document["steps"])
        print(
            f"round {number}: pg_dump alone {limit[-1]:.2f} s  script {script[-1]:.2f} s  "
            f"chain {document['chain']:.2f} s  ({steps})  command {document['command']:.2f} s",
            flush=True,
        )
    return _verdict(limit, script, chain, peaks)


def _verdict(limit: list[float], script: list[float], chain: list[dict[str, Any]], peaks: list[Peaks]) -> int:
    raw = chain[0]["raw_size"]
    found = {
        "time": statistics.median(document["chain"] for document in chain) / statistics.median(script),
        "spool": max(peak.spool for peak in peaks) / raw,
        "memory": max(peak.memory for peak in peaks),
    }
    print(f"raw dump {raw / 1e6:.0f} MB, artifact {chain[0]['size'] / 1e6:.1f} MB")
    medians = {"pg_dump alone": limit, "script": script, "chain": [document["chain"] for document in chain]}
    print(
        "medians: " + ", ".join(f"{name} {statistics.median(times):.2f} s" for name, times in medians.items())
    )
    print(f"chain / script       {found['time']:.2f}  (target {TARGETS['time']:.2f})")
    print(f"peak spool / raw     {found['spool']:.2f}  (target {TARGETS['spool']:.2f})")
    print(f"peak worker process  {found['memory'] / 1e6:.0f} MB  (target {TARGETS['memory'] / 1e6:.0f} MB)")
    return 0 if all(found[name] <= target for name, target in TARGETS.items()) else 1


def _pgbench(cluster: Cluster, scale: int) -> None:
    command = [cluster.bin / "pgbench", "--initialize", "--quiet", "--scale", str(scale), "bench"]
    subprocess.run(command, env=cluster.environment("bench"), check=True, capture_output=True)
    subprocess.run([cluster.bin / "vacuumdb", "--analyze", "bench"], env=cluster.environment("bench"), check=True,
                   capture_output=True)  # fmt: skip


def _dump_alone(cluster: Cluster) -> float:
    """The seconds that pg_dump takes to write nowhere: what no plain dump can be faster than."""
    began = time.monotonic()
    command = [cluster.bin / "pg_dump", "bench"]
    subprocess.run(command, env=cluster.environment("bench"), stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def _script(cluster: Cluster, folder: Path) -> float:
    """The user's script, its pipe made without a shell; gives its seconds."""
    artifact = folder / "script.sql.gz"
    began = time.monotonic()
    with artifact.open("wb") as sink:
        dump = subprocess.Popen(
            [cluster.bin / "pg_dump", "bench"], env=cluster.environment("bench"), stdout=subprocess.PIPE
        )
        subprocess.run(["gzip"], stdin=dump.stdout, stdout=sink, check=True)
        assert dump.wait() == 0
    subprocess.run(["sha256sum", artifact], check=True, capture_output=True)
    return time.monotonic() - began


def _larder(cluster: Cluster, folder: Path, arguments: argparse.Namespace) -> tuple[dict[str, Any], Peaks]:
    folder.mkdir()
    (folder / "larder.toml").write_text(
        f'postgres_bin = ["{cluster.bin}"]\n'
        "[databases.bench]\n"
        'url_env = "BENCH_URL"\n'
        f'format = "{arguments.format}"\n'
        f'compression = "{arguments.compression}"\n'
    )
    environment = {
        **os.environ,
        "BENCH_URL": cluster.url("bench"),
        "LARDER_CONFIG": str(folder / "larder.toml"),
    }
    peaks = Peaks()
    began = time.monotonic()
    command = subprocess.Popen(
        [Path(sys.executable).parent / "larder", "backup", "--json"], env=environment, cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    spool = folder / "backups" / ".larder" / "spool"
    watcher = threading.Thread(target=peaks.watch, args=(command.pid, spool))
    watcher.start()
    answer, _ = command.communicate()
    peaks.over.set()
    watcher.join()
    document: dict[str, Any] = json.loads(answer)
    assert command.returncode == 0, document
    document["command"] = time.monotonic() - began
    document["chain"] = _chain_seconds(folder / "backups" / ".larder" / "ledger.sqlite3", document["run"])
    shutil.rmtree(folder)
    return document, peaks


def _chain_seconds(path: Path, run_id: str) -> float:
    """From the start of the first step to the end of the last one: without the worker's own start."""
    ledger = open_ledger(f"sqlite:///{path}")
    run = ledger.runs.get(run_id)
    ledger.close()
    started, finished = run.steps[0].started, run.finished
    assert started is not None
    assert finished is not None
    return (finished - started).total_seconds()


def _size(folder: Path) -> int:
    """Bytes on the disk; a file with two names counts once."""
    found: dict[int, int] = {}
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if path.is_file():
            found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def _workers(process: int) -> list[int]:
    try:
        below = psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    sizes = []
    for child in below:
        try:
            if "python" in child.name() or "celery" in child.name():
                sizes.append(child.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return sizes


if __name__ == "__main__":
    sys.exit(main())
