"""Larder, the user's script and the tools that people use, on the same databases, in one run on one machine.

    make bench                                             # everything, in a quarter of an hour
    make bench ARGS='--only sqlite --rounds 3 --size 200'
    make bench ARGS='--only backup --peers "larder|script|limit" --out /tmp/look'
    make bench ARGS='--render'                             # the page again, from the results that are there

Each contestant runs once to warm up: then it is watched, and what it made is brought back and compared, table by table.
After that everybody runs once in each round, in turn, so that a slow minute hits all; the figures are medians of the
rounds. Nobody calls sync; each writes as durably as it does by itself. Larder's time is that of its chain, from the
start of `dump` to the end of `notify`, with everything read back; the whole command, which starts and ends a Redis and
a worker, stands beside it.

Writes docs/benchmarks.md between its marks, its charts, and benchmarks/results/published.json, or all of them below
--out. Parts that are not measured stay as they are there. Exits with 1 when a target is missed, or a backup of Larder's
does not restore; everything that was started is ended, also on Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks import page, part_backup, part_fleet, part_life, part_overhead, part_restore
from benchmarks.figures import Parts, failures
from benchmarks.running import Failed
from benchmarks.stage import Stage
from tests.servers import postgres_installs

ROOT = Path(__file__).resolve().parent.parent

PARTS: dict[str, Callable[[Stage, argparse.Namespace], dict[str, Any]]] = {
    "backup": part_backup.postgres,
    "sqlite": part_backup.sqlite,
    "restore": part_restore.run,
    "fleet": part_fleet.run,
    "overhead": part_overhead.run,
    "memory": part_life.memory,
    "idle": part_life.idle,
}

#: Where results and page lie below the root, or below --out.
RESULTS = Path("benchmarks/results/published.json")
PAGE = Path("docs/benchmarks.md")
IMAGES = Path("docs/images")

#: What is asked for its version, and how.
_VERSIONS = {
    "gzip": ("gzip", "--version"),
    "sqlite3": ("sqlite3", "--version"),
    "restic": ("restic", "version"),
    "borg": ("borg", "--version"),
    "pgBackRest": ("pgbackrest", "version"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for, write it down, and say what is wrong."""
    options = _options(arguments)
    home = options.out or ROOT
    parts = _read(home / RESULTS)
    if options.render:
        write(home, parts)
        return 0
    # A polite end is an interruption too: everything that was started goes with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began, measured = time.monotonic(), {}
    load = round(os.getloadavg()[0], 2)
    try:
        for name in options.only:
            measured[name] = {"load": load, **_measured(name, began, options)}
            parts[name] = measured[name]
            write(home, parts)
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started is ended", file=sys.stderr)
        return 130
    except Failed as problem:
        print(f"unable to go on: {problem}", file=sys.stderr)
        return 1
    wrong = failures(measured)
    print(f"{home / PAGE} is written, after {time.monotonic() - began:.0f} s")
    print("\n".join(["", "wrong:", *(f"  {line}" for line in wrong)]) if wrong else "every target holds")
    return 1 if wrong else 0


def _measured(name: str, began: float, options: argparse.Namespace) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="larder-bench-"))
    # Whoever runs a server of its own has to get in.
    folder.chmod(0o711)
    try:
        stage = Stage(name, folder, began, lambda text: print(text, flush=True), options.peers)
        found = PARTS[name](stage, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"measured": f"{datetime.now(UTC):%Y-%m-%d}", "machine": _machine(options.postgres), **found}


def write(home: Path, parts: Parts) -> None:
    """Write the results, the page and its charts below `home`."""
    for path in (RESULTS, PAGE, IMAGES / "any"):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
    (home / RESULTS).write_text(json.dumps(parts, indent=1) + "\n")
    for name, drawn in page.charts(parts).items():
        (home / IMAGES / name).write_text(drawn)
    text = page.placed((ROOT / PAGE).read_text(encoding="utf-8"), page.measured(parts))
    (home / PAGE).write_text(text, encoding="utf-8")


def _read(path: Path) -> Parts:
    return json.loads(path.read_text()) if path.exists() else {}


def _machine(postgres: int) -> dict[str, Any]:
    """What it was measured on, without names."""
    versions = {"Larder": version("larder"), "Python": platform.python_version(), "Celery": version("celery")}
    versions["PostgreSQL"] = _version(str(postgres_installs()[postgres] / "postgres"), "--version")
    for name, command in _VERSIONS.items():
        if shutil.which(command[0]):
            versions[name] = _version(*command)
    return {
        "cores": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "kernel": f"{platform.system()} {platform.release()}",
        "versions": versions,
    }


def _version(*command: str) -> str:
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    match = re.search(r"\d+(\.\d+)+", said)
    return match[0] if match else "of no known version"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=…", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", metavar="PART,…", type=_parts, default=list(PARTS), help=f"of: {', '.join(PARTS)}"
    )
    parser.add_argument("--rounds", type=_positive, default=5, help="for the medians (default 5)")
    parser.add_argument(
        "--size",
        type=_positive,
        default=200,
        metavar="MB",
        help="of the PostgreSQL database's plain dump, 17 at least, and of the SQLite file (default 200)",
    )
    parser.add_argument(
        "--data", choices=["mixed", "pgbench"], default="mixed", help="pgbench's rows are easy to gzip"
    )
    parser.add_argument(
        "--partitions", type=int, default=6, help="of pgbench's largest table; 0: one table (default 6)"
    )
    parser.add_argument(
        "--postgres", type=int, choices=postgres_installs(), default=16, help="major version (default 16)"
    )
    parser.add_argument(
        "--peers", metavar="PATTERN", help="only contestants whose key has this regular expression"
    )
    parser.add_argument(
        "--fleet-sqlite", type=_positive, default=100, metavar="N", help="files of 1 MB (default 100)"
    )
    parser.add_argument(
        "--fleet-postgres", type=_positive, default=20, metavar="N", help="of 5 MB (default 20)"
    )
    parser.add_argument(
        "--scales",
        type=_numbers,
        default=[10, 100],
        metavar="N,…",
        help="fleets whose costs are compared (default 10,100)",
    )
    parser.add_argument(
        "--memory",
        type=_numbers,
        default=[10, 100, 300],
        metavar="MB,…",
        help="sizes of plain dumps (default 10,100,300)",
    )
    parser.add_argument(
        "--tiny", type=_positive, default=30, metavar="N", help="backups of the chain itself (default 30)"
    )
    parser.add_argument("--idle-seconds", type=_positive, default=60, metavar="S", help="default 60")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write there, not into the project")
    parser.add_argument(
        "--render", action="store_true", help="measure nothing, write the page from the results"
    )
    return parser.parse_args(arguments)


def _parts(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _numbers(text: str) -> list[int]:
    return [_positive(one) for one in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
