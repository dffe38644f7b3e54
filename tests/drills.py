"""What tests of drills look for: servers of throw-away clusters, and what a drill has left on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from larder.errors import LarderError
from larder.ledger import open_ledger
from larder.ledger.runs import Run
from tests.house import House


def clusters_of(house: House) -> list[psutil.Process]:
    """Servers of drills that are at work for a house, by the ids of its drills."""
    ids = [run.id for run in drills_of(house)]
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(one in " ".join(process.info["cmdline"] or ()) for one in ids)
    ]


def drills_of(house: House) -> list[Run]:
    """The runs of its drills, newest first."""
    ledger = open_ledger(f"sqlite:///{house.backups}/.larder/ledger.sqlite3")
    try:
        return ledger.runs.latest(kind="drill", limit=1000)
    finally:
        ledger.close()


def kill_host(house: House) -> None:
    """End every process that works in a house's folder, as if its machine had gone down."""
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == str(house.folder):
            os.kill(process.pid, signal.SIGKILL)


def guard_passes(house: House) -> None:
    """Have the guard pass, once nobody holds a drill any more."""
    ledger = open_ledger(f"sqlite:///{house.backups}/.larder/ledger.sqlite3")
    for run in ledger.runs.latest(kind="drill"):
        ledger.runs.abandon(run.id, LarderError("its worker was lost"))
    ledger.close()
    done = subprocess.run(
        [sys.executable, "-c", "from workers.celery import app; from tasks.guard import tidy; tidy()"],
        cwd=house.folder,
        env=house.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def left_of(house: House) -> list[Path]:
    """What drills have left wherever they may lie."""
    places = [house.backups / ".larder" / "spool", Path("/var/tmp"), Path(tempfile.gettempdir())]
    return [path for run in drills_of(house) for place in places for path in place.glob(f"*{run.id}*")]
