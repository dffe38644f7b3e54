"""Larder's commands as a user types them, and what its ledger says of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.contestants import Step, Taken
from benchmarks.running import Done, Place
from larder.ledger import open_ledger

LARDER = Path(sys.executable).parent / "larder"

#: Where a configuration that names no other folder keeps backups, and works.
BACKUPS = "backups"
STATE = f"{BACKUPS}/.larder"


def configured(place: Place, text: str) -> Place:
    """Write larder.toml; gives the place with it in the environment."""
    path = place.folder / "larder.toml"
    path.write_text(text)
    return replace(place, environment={**place.environment, "LARDER_CONFIG": str(path)})


def larder(place: Place, *arguments: str) -> Done:
    """Run a command."""
    return place.run(LARDER, *arguments, spool=place.folder / STATE / "spool")


def backup(place: Place) -> tuple[dict[str, Any], Taken]:
    """`larder backup` of the one database that is configured."""
    done = larder(place, "backup", "--json")
    document = json.loads(done.output)
    if isinstance(document, list):
        document = document[0]
    return document, chain(place, document["run"], done, document["size"], document["raw_size"])


def chain(place: Place, run_id: str, done: Done, size: int = 0, raw: int = 0) -> Taken:
    """What a run took: from the start of its first step to the end of its last, without the worker's own start."""
    ledger = open_ledger(f"sqlite:///{place.folder / STATE / 'ledger.sqlite3'}")
    try:
        run = ledger.runs.get(run_id)
    finally:
        ledger.close()
    steps = [
        Step(
            f"{one.name} {one.store}".strip(), one.seconds or 0.0, _moment(one.started), _moment(one.finished)
        )
        for one in run.steps
        if one.started is not None and one.finished is not None
    ]
    seconds = _moment(run.finished) - steps[0].started
    return Taken(seconds, size, raw, done.seconds, steps, done.watch)


def approver(place: Place) -> None:
    """Make the key that restores are approved with, and put its lines into larder.toml."""
    made = larder(place, "keys", "new", "approver", "alice", "--no-passphrase").output
    path = place.folder / "larder.toml"
    path.write_text(path.read_text() + made)


def restore(place: Place, name: str, into: str) -> Taken:
    """Bring back the newest backup of `name` as a new database; the time is that of the chain."""
    words: Sequence[str] = ("--into", into, "--mode", "new", "--reason", "benchmark", "--json")
    unseen = replace(place, watched=False)
    document = place.folder / "request.json"
    document.write_text(larder(unseen, "restore", "request", f"{name}/latest", *words).output)
    request = json.loads(document.read_text())["request"]
    token = place.folder / "token"
    key = ("--key", "alice.approver.key", "--yes")
    token.write_text(larder(unseen, "restore", "approve", str(document), *key).output)
    done = larder(place, "restore", "run", request, "--token", str(token), "--json")
    return chain(place, json.loads(done.output)["run"], done)


def _moment(moment: datetime | None) -> float:
    assert moment is not None
    return moment.timestamp()
