"""A restore against the user's own `gunzip -c … | psql`, on one database, in one run.

    make bench WHAT=restore
    make bench WHAT=restore ARGS='--scale 20 --rounds 1'
    make bench WHAT=restore ARGS='--partitions 0'   # one table is most of the database: nothing to load side by side

The script loads the plain backup into an empty database, one statement after the other, and looks at nothing. Larder's
chain (mode `new`, so that no safety backup is in it) fetches the artifact with its SHA-256, decodes it to its end,
builds the database, gathers statistics, counts every table and compares, and gives it its name. Its time runs from the
start of `authorize` to the end of `notify`. Prints ratios of medians; exits with 1 when a target is missed.
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
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.chain import MIXED
from larder.ledger import open_ledger
from tests.servers import Cluster, started

#: What a restore has to keep to, as parts of the script's time.
TARGETS = {"plain": 1.0, "directory": 0.70}

LARDER = Path(sys.executable).parent / "larder"


def main() -> int:
    """Run every round, print the figures, and compare them with the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scale", type=int, default=40, help="pgbench scale, and in proportion what else there is"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--partitions",
        type=int,
        default=6,
        help="of pgbench's largest table; 0: one table is most of the database",
    )
    parser.add_argument("--postgres", type=int, default=16, help="major version of server and client")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="larder-bench-"))
    cluster = started(arguments.postgres, as_it_comes=True)
    try:
        return Bench(cluster, folder).measure(arguments.scale, arguments.partitions, arguments.rounds)
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


class Bench:
    """One database, backed up in both formats, and loaded again and again."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.environment = {
            **os.environ,
            "BENCH_URL": cluster.url("bench"),
            "LARDER_CONFIG": str(folder / "larder.toml"),
        }
        self.environment.pop("REDIS_URL", None)

    def measure(self, scale: int, partitions: int, rounds: int) -> int:
        """Fill, back up, load in turn; gives the exit code."""
        self._fill(scale, partitions)
        artifacts = self._back_up()
        script: list[float] = []
        chains: dict[str, list[dict[str, float]]] = {"plain": [], "directory": []}
        for number in range(1, rounds + 1):
            script.append(self._script(artifacts["plain"]))
            for form, found in chains.items():
                found.append(self._restore(form))
            shown = "  ".join(f"{form} {_shown(found[-1])}" for form, found in chains.items())
            print(f"round {number}: gunzip | psql {script[-1]:.2f} s  {shown}", flush=True)
        return _verdict(script, chains)

    def _fill(self, scale: int, partitions: int) -> None:
        self.cluster.createdb("bench")
        command = [self.cluster.bin / "pgbench", "--initialize", "--quiet", "--scale", str(scale)]
        command += [f"--partitions={partitions}", "bench"]
        subprocess.run(command, env=self.cluster.environment("bench"), check=True, capture_output=True)
        for statement in MIXED:
            self.cluster.execute(statement.format(scale=scale), "bench")
        for table in ("events", "articles", "pictures"):
            self.cluster.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (id)", "bench")

    def _back_up(self) -> dict[str, Path]:
        made = self._larder("keys", "new", "approver", "alice", "--no-passphrase")
        (self.folder / "larder.toml").write_text(
            f'postgres_bin = ["{self.cluster.bin}"]\nbackup_dir = "{self.folder}/backups"\n'
            '[databases.plain]\nurl_env = "BENCH_URL"\n'
            '[databases.directory]\nurl_env = "BENCH_URL"\nformat = "directory"\njobs = 2\n' + made
        )
        documents = json.loads(self._larder("backup", "--json"))
        return {document["database"]: Path(document["locations"]["local"]) for document in documents}

    def _script(self, artifact: Path) -> float:
        """The user's command, its pipe made without a shell; gives its seconds."""
        with self.cluster.database("by_script"):
            began = time.monotonic()
            with subprocess.Popen(["gunzip", "-c", artifact], stdout=subprocess.PIPE) as unzip:
                subprocess.run(
                    [self.cluster.bin / "psql", "-q", "by_script"],
                    env=self.cluster.environment("by_script"),
                    stdin=unzip.stdout,
                    stdout=subprocess.DEVNULL,
                    check=True,
                )
            return time.monotonic() - began

    def _restore(self, form: str) -> dict[str, float]:
        """Seconds of a restore's chain, and of those of its steps that take any."""
        document = self.folder / "request.json"
        words = ("--into", "restored", "--mode", "new", "--reason", "benchmark", "--json")
        document.write_text(self._larder("restore", "request", f"{form}/latest", *words))
        request = json.loads(document.read_text())["request"]
        token = self.folder / "token"
        token.write_text(
            self._larder("restore", "approve", str(document), "--key", "alice.approver.key", "--yes")
        )
        try:
            done: dict[str, Any] = json.loads(
                self._larder("restore", "run", request, "--token", str(token), "--json")
            )
        finally:
            self.cluster.dropdb("restored")
        seconds = {step["name"]: step["seconds"] for step in done["steps"] if step["seconds"] >= 0.05}
        return {
            "chain": _chain_seconds(self.folder / "backups" / ".larder" / "ledger.sqlite3", done["run"]),
            **seconds,
        }

    def _larder(self, *arguments: str) -> str:
        done = subprocess.run(
            [LARDER, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout


def _shown(seconds: dict[str, float]) -> str:
    steps = ", ".join(f"{name} {taken:.2f}" for name, taken in seconds.items() if name != "chain")
    return f"{seconds['chain']:.2f} s ({steps})"


def _chain_seconds(path: Path, run_id: str) -> float:
    ledger = open_ledger(f"sqlite:///{path}")
    run = ledger.runs.get(run_id)
    ledger.close()
    assert run.steps[0].started is not None
    assert run.finished is not None
    return (run.finished - run.steps[0].started).total_seconds()


def _verdict(script: list[float], chains: dict[str, list[dict[str, float]]]) -> int:
    base = statistics.median(script)
    print(f"medians: gunzip | psql {base:.2f} s")
    missed = False
    for form, found in chains.items():
        chain = statistics.median(one["chain"] for one in found)
        load = statistics.median(one["load"] for one in found)
        print(
            f"{form:<9} chain {chain:.2f} s, {chain / base:.2f} of the script (target {TARGETS[form]:.2f}); "
            f"load alone {load:.2f} s, {load / base:.2f}"
        )
        missed = missed or chain / base > TARGETS[form]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
