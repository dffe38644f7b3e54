"""What does not depend on one database: memory from small ones to large ones, and a stack that has nothing to do."""

from __future__ import annotations

import time
from argparse import Namespace
from contextlib import ExitStack
from typing import Any

import psutil

from benchmarks.data import process_of
from benchmarks.fleet_parts import fleet, small_databases
from benchmarks.larder_side import backup, configured
from benchmarks.peers import SOURCE, environment
from benchmarks.running import Place
from benchmarks.stage import Stage
from tests.processes import answers, eventually
from tests.servers import free_port, started

#: A megabyte of plain dump: rows of a kilobyte. Not logged, which is ten times as fast; they are dumped all the same.
FILLER = (
    "CREATE UNLOGGED TABLE filler AS SELECT n AS id, repeat(md5(n::text), 31) AS what"
    " FROM generate_series(1, {megabytes} * 1000) n"
)


def memory(stage: Stage, options: Namespace) -> dict[str, Any]:
    """The largest of Larder's processes while it backs up databases of several sizes, plain with gzip."""
    found = []
    cluster = started(options.postgres, as_it_comes=True)
    try:
        for megabytes in options.memory:
            cluster.createdb(SOURCE)
            cluster.execute(FILLER.format(megabytes=megabytes), SOURCE)
            folder = stage.folder / f"{megabytes}"
            folder.mkdir()
            place = configured(
                Place(folder, environment(cluster), process_of(cluster), watched=True),
                f'postgres_bin = ["{cluster.bin}"]\n[databases.bench]\nurl_env = "BENCH_URL"\n',
            )
            document, taken = backup(place)
            cluster.dropdb(SOURCE)
            assert taken.watch is not None
            found.append(
                {
                    "megabytes": megabytes,
                    "raw": document["raw_size"],
                    "peak": taken.watch.peak_memory,
                    "seconds": round(taken.seconds, 3),
                }
            )
            stage.say(
                f"{document['raw_size'] / 1e6:,.0f} MB of dump: {taken.watch.peak_memory / 1e6:.1f} MB at most"
            )
    finally:
        cluster.remove()
    return {"settings": {"postgres": options.postgres}, "sizes": found}


def idle(stage: Stage, options: Namespace) -> dict[str, Any]:
    """What worker, beat and console use while nothing is due and nobody looks, in percent of a core."""
    port = free_port()
    with fleet(stage.folder) as here, ExitStack() as processes:
        small_databases(here.folder / "data", 1)
        here.configure('[databases.small]\nurl = "sqlite:///data/d00000.db"\nschedule = "0 0 1 1 *"\n')
        trees = {"worker": processes.enter_context(here.worker(2))}
        trees["beat"] = processes.enter_context(here.celery("beat", name="beat"))
        trees["console"] = processes.enter_context(here.console(port))
        eventually(lambda: answers(port))
        # A guard has passed by then, and everybody has loaded what it needs.
        eventually(lambda: "Task guard[" in here.log("worker") and "succeeded" in here.log("worker"))
        before, began = {name: _cpu(process) for name, process in trees.items()}, time.monotonic()
        time.sleep(options.idle_seconds)
        seconds = time.monotonic() - began
        percents = {name: (_cpu(process) - before[name]) / seconds * 100 for name, process in trees.items()}
    stage.say(", ".join(f"{name} {percent:.2f} %" for name, percent in percents.items()) + " of a core")
    return {
        "settings": {"seconds": round(seconds)},
        "figures": {
            "percent": round(sum(percents.values()), 3),
            **{k: round(v, 3) for k, v in percents.items()},
        },
    }


def _cpu(process: int) -> float:
    """Seconds of CPU of a process and all below it."""
    parent = psutil.Process(process)
    found = 0.0
    for one in [parent, *parent.children(recursive=True)]:
        times = one.cpu_times()
        found += times.user + times.system
    return found
