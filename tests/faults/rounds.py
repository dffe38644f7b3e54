"""Rounds: runs of every kind begin side by side, faults come down on them, the world heals, and all has to be well."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from larder.ledger.runs import Run
from tests.faults.aiming import Aim, Injected, planned
from tests.faults.verdict import Verdict
from tests.faults.world import World

#: Seconds between two faults.
_PACE = 0.35

#: Seconds between two looks whether a database has nothing to do.
_FEED = 0.7

#: How many of them begin another backup then.
_FED = 3

#: Seconds within which every run has to be over, and known, once the world is well again.
PATIENCE = 120.0

#: The share of databases that a round restores, and the drills that it begins with.
_RESTORED = 0.5
_DRILLS = 3

#: How many requests for restores are made at once.
_ASKED_AT_ONCE = 3

#: The share of looks after which another drill begins.
_DRILLED = 0.2


class Rounds:
    """A world, round after round."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.number = 0
        self.injected: list[Injected] = []
        self.ends: list[Run] = []
        self._seen: set[str] = set()
        #: The version that each backup is of, by its id.
        self._versions: dict[str, int] = {}
        #: The runs that had begun before the databases became what they are.
        self._early: set[str] = set()

    def first(self) -> None:
        """Back everything up once, in peace: drills and restores need something to begin with."""
        for number, source in enumerate(self.world.sources.values()):
            source.become(-number)
        self._back_up_in_peace()

    def play(self, count: int) -> list[str]:
        """A round with `count` faults; gives what is wrong afterwards, a line each."""
        self.number += 1
        before, wanted = self._begin()
        plans = planned(self.chance, count, count * _PACE)
        with self._busy():
            made = Aim(self.world, plans).inject()
        self.injected += made
        self._heal()
        verdict = Verdict(self.world, self._versions)
        problems = self._wait()
        new = [run for run in self.world.runs() if run.id not in self._seen]
        self.ends += new
        problems += [*verdict.of_runs(new), *verdict.of_databases(before, wanted), *verdict.of_leftovers()]
        self._remember(new, wanted)
        for source in self.world.sources.values():
            source.forget_kept()
        return [*problems, *self._story(made, new)] if problems else []

    def last(self) -> list[str]:
        """One more clean backup of each database; gives what of the rounds lies about after it."""
        self._back_up_in_peace()
        return list(Verdict(self.world, self._versions).of_stores())

    def _begin(self) -> tuple[dict[str, int], dict[str, Any]]:
        """Begin restores, drills, and backups of all else.

        Gives the version that each database is of now, and the document of each restore, by its database.
        """
        world, names = self.world, list(self.world.sources)
        self.chance.shuffle(names)
        before = {name: self.number * 1000 + self.chance.randrange(1000) for name in names}
        for name, version in before.items():
            world.sources[name].become(version)
        self._early = {run.id for run in world.runs()}
        count = max(round(len(names) * _RESTORED), 1)
        restored = self._ask(names[:count])
        for name in names[count:]:
            # Two schedulers, one slot.
            trigger = self.chance.choice(["schedule", "call"])
            world.send("backup", "backup", database=name, trigger=trigger)
            if trigger == "schedule":
                world.send("backup", "backup", database=name, trigger=trigger)
        for name in self.chance.sample(names, _DRILLS):
            world.send("drill", "drill", database=name)
        return before, restored

    def _ask(self, names: Iterable[str]) -> dict[str, Any]:
        """Have a restore of each of these databases begun; gives their documents, where that could be done."""
        chosen = {}
        for name in names:
            backups = sorted(one for one in self.world.ledger.backups.all(name) if one in self._versions)
            if backups:
                chosen[name] = self.chance.choice(backups)
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            documents = pool.map(lambda one: self.world.ask(self.world.hosts[0], *one), chosen.items())
        return {name: document for name, document in zip(chosen, documents, strict=True) if document}

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Begin another backup wherever there is nothing to do, during a block: a fault needs something to break."""
        over, chance = threading.Event(), random.Random(self.number)

        def feed() -> None:
            while not over.wait(_FEED):
                held = {run.holds for run in self.world.runs() if not run.over}
                idle = [name for name in self.world.sources if name not in held]
                for name in chance.sample(idle, min(len(idle), _FED)):
                    self.world.send("backup", "backup", database=name, trigger="call")
                if chance.random() < _DRILLED:
                    self.world.send("drill", "drill", database=chance.choice(list(self.world.sources)))

        feeder = threading.Thread(target=feed, name="feeder")
        feeder.start()
        try:
            yield
        finally:
            over.set()
            feeder.join()

    def _heal(self) -> None:
        """Have all that a fault may have left as it was be well again."""
        self.world.wires.clear()
        for host in self.world.hosts:
            host.signal(signal.SIGCONT)
            host.start()

    def _wait(self) -> list[str]:
        """Wait until every run is over and known to whoever has to know; gives those that are not."""
        deadline = time.monotonic() + PATIENCE
        while True:
            left = list(self._open())
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)

    def _open(self) -> Iterator[str]:
        heard = list(self.world.ear.heard)
        known = {(miss.database, miss.objective) for miss in self.world.ledger.misses.current()}
        for run in self.world.runs():
            if run.id in self._seen:
                continue
            if not run.over:
                yield f"{run.kind} {run.id} of {run.database} is not over: {run.state} at {run.step}"
            elif run.state != "failed" or any(run.id in text for text in heard):
                continue
            # What fails soon after another is told later, and what fails again in the same way is known.
            elif (run.database, run.kind) not in known or run.step_named("notify").state != "done":
                yield f"{run.kind} {run.id} of {run.database} failed, and nobody was told"
        for request in self.world.ledger.requests.in_state("running"):
            yield f"restore {request.id} is not closed"

    def _remember(self, runs: Iterable[Run], changed: Iterable[str] = ()) -> None:
        """Note which version each backup is of, unless its database has `changed` meanwhile."""
        for run in runs:
            self._seen.add(run.id)
            version = self.world.sources[run.database].version()
            if run.id in self._early or run.database in changed:
                continue
            if run.kind == "backup" and run.state == "stored":
                assert isinstance(version, int), version
                self._versions[run.backup] = version

    def _back_up_in_peace(self) -> None:
        """Have a clean backup of every database."""
        began = datetime.now(UTC)
        missing = set(self.world.sources)

        def done() -> bool:
            for run in self.world.runs():
                if run.created > began and run.state == "stored" and run.kind == "backup":
                    missing.discard(run.database)
            held = {run.holds for run in self.world.runs() if not run.over}
            for name in missing - held:
                self.world.send("backup", "backup", database=name, trigger="call")
            return not missing and not held

        while not done():
            assert (datetime.now(UTC) - began).total_seconds() < PATIENCE, f"no backup of {missing}"
            time.sleep(0.5)
        self._remember([run for run in self.world.runs() if run.id not in self._seen])

    def _story(self, made: list[Injected], runs: list[Run]) -> Iterator[str]:
        """What a reader needs to see why."""
        yield f"round {self.number}:"
        yield from map(str, sorted(made, key=lambda one: one.at))
        for run in runs:
            if run.state not in ("stored", "done"):
                yield f"{run.kind} {run.id} of {run.database} {run.state} on {run.host}: {run.error}"
                for step in run.steps:
                    yield f"  {step.name} {step.store} {step.state} {step.attempts} {step.error or ''}"
                for line in self.world.ledger.journal.read(run.id):
                    yield f"  {line.moment:%H:%M:%S} {line.level} {line.text}"
