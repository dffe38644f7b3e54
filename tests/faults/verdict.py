"""What has to be true of a world, whatever was done to it. Each check gives what is wrong, a line each."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from larder import catalog, verification
from larder.ledger import tables
from larder.ledger.runs import Run
from larder.progress import Progress
from larder.trust import Trust
from larder.verification import Copy
from tests.faults.world import World

#: Where throw-away clusters may lie.
_PLACES = (Path("/var/tmp"), Path(tempfile.gettempdir()))

#: Seconds within which every host has tidied up.
_TIDIED = 25


class Verdict:
    """Looks at everything."""

    def __init__(self, world: World, versions: Mapping[str, int]) -> None:
        self._world = world
        self._versions = versions

    def of_runs(self, runs: Collection[Run]) -> Iterator[str]:
        """What was called stored is in its stores, and decodes to what it was; a slot was used once."""
        wanted = {
            (run.backup, step.store)
            for run in runs
            if run.kind == "backup" and run.state == "stored"
            for step in run.uploads
            if step.state == "done"
        }
        good = set(self._good({backup for backup, _ in wanted}))
        for backup, store in sorted(wanted - good - self._removed()):
            yield f"backup {backup} was stored, and its copy in {store} is not good"
        for run in runs:
            if run.kind == "backup" and run.state == "stored":
                done = sum(step.state == "done" for step in run.uploads)
                if not done:
                    yield f"run {run.id} of {run.database} was stored without a copy"
        slots = Counter((run.database, run.slot) for run in runs if run.slot is not None)
        yield from (f"two runs of {name} for {slot}" for (name, slot), count in slots.items() if count > 1)
        for backup, known in self._world.ledger.backups.all().items():
            if known.proof == "broken":
                yield f"backup {backup} was called broken"

    def _good(self, backups: Collection[str]) -> Iterator[tuple[str, str]]:
        """The copies of `backups` that are as they were written, to the last byte of what they decode to."""
        trust = Trust({}, self._world.ledger.signers.known())
        copies = [
            Copy(entry.backup, backup.partition("/")[0], store, entry, entry.problems)
            for store in self._world.stores().values()
            for entry in catalog.read(store, trust=trust).backups
            for backup in [entry.backup]
            if backup in backups
        ]
        for finding in verification.verify(copies, [], Progress()):
            if finding.state == "good" and finding.copy.entry.trusted:
                yield finding.copy.backup, finding.copy.store.name

    def _removed(self) -> set[tuple[str, str]]:
        """What was deleted on purpose."""
        with self._world.ledger._engine.connect().execution_options(reads=True) as connection:
            found = connection.execute(sa.select(tables.removed.c.backup, tables.removed.c.store))
            return {(backup, store) for backup, store in found}

    def of_databases(
        self, before: Mapping[str, int], restored: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[str]:
        """Every live database is all of one version: of the one that it was, or of the one that was restored."""
        for name, source in self._world.sources.items():
            now = source.version()
            document = restored.get(name)
            if document is None:
                if now != before[name]:
                    yield f"{name} was {before[name]}, and is {now} although nobody restored it"
                continue
            request = self._world.ledger.requests.get(document["request"])
            wanted = self._versions[document["wanted"]["backup"]]
            allowed = {wanted} if request.state == "done" else {before[name]}
            if request.kept is not None or request.kept_until is not None:
                # It failed after the exchange, and says so.
                allowed.add(wanted)
            if now not in allowed:
                yield (
                    f"{name} was {before[name]}, and is {now}; its restore of {wanted} is {request.state}: "
                    f"{json.dumps(request.note)}"
                )

    def of_leftovers(self) -> Iterator[str]:
        """Nothing is left that runs, or that lies about, of runs that are over."""
        deadline = time.monotonic() + _TIDIED
        while found := list(self._leftovers()):
            if time.monotonic() > deadline:
                yield from found
                return
            time.sleep(0.2)

    def _leftovers(self) -> Iterator[str]:
        over = {run.id for run in self._world.runs() if run.over}
        for host in self._world.hosts:
            yield from (f"left running on {host.name}: {what}" for what in host.strays())
            for folder in host.spool.iterdir():
                if folder.is_dir():
                    yield f"left in the spool of {host.name}: {folder.name}"
        for place in _PLACES:
            for path in place.glob("*larder*"):
                if any(run in path.name for run in over):
                    yield f"left lying about: {path}"
        for source in self._world.sources.values():
            yield from (f"left beside {source.name}: {what}" for what in source.leftovers())

    def of_stores(self) -> Iterator[str]:
        """No store has files without a manifest, nor begun ones that nobody goes on with."""
        for name, store in self._world.stores().items():
            found = catalog.read(store)
            yield from (f"without a manifest in {name}: {key}" for key in found.foreign)
            for entry in found.backups:
                yield from (f"{entry.backup} in {name}: {problem}" for problem in entry.problems)
            for database in self._world.sources:
                yield from (f"begun in {name}: {key}" for key in store.unfinished(database))
