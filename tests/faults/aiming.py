"""Aiming: a number of faults, each at a random moment of a random step, all of them from one seed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import psutil

from larder.ledger.runs import BACKUP_STEPS, DRILL_STEPS, RESTORE_STEPS
from tests.faults.kinds import KINDS, PLACES, SLEEPING, Fault
from tests.faults.machines import Host
from tests.faults.wires import ANY
from tests.faults.world import World

#: Seconds that a fault waits for its step to come, and between two looks. Restores begin once, with the round, and go
#: slowly: what is aimed at them waits from then on.
_PATIENCE = {"backup": 5.0, "drill": 10.0, "restore": 30.0, "guard": 5.0}
_LOOK = 0.01

#: How often each chain is aimed at.
_CHAINS = {"backup": (BACKUP_STEPS, 6), "drill": (DRILL_STEPS, 2), "restore": (RESTORE_STEPS, 3)}

#: The moments of a step; `between`: somewhere on the way.
_MOMENTS = ("taken", "between", "between", "done", "committed")


@dataclass(frozen=True)
class Plan:
    """A fault that is to be."""

    kind: str
    #: `backup.dump`, and the moment of it.
    step: str
    moment: str
    #: Seconds from the round's beginning, and from the beginning of the step.
    when: float
    late: float
    seed: int


@dataclass(frozen=True)
class Injected:
    """A fault that was."""

    plan: Plan
    #: What was really going on, and when, in seconds from the round's beginning.
    step: str
    at: float
    until: float

    def __str__(self) -> str:
        return f"{self.at:6.2f}–{self.until:6.2f} s  {self.plan.kind} at {self.step} ({self.plan.moment})"


def planned(chance: random.Random, count: int, span: float) -> list[Plan]:
    """`count` faults within `span` seconds."""
    kinds = chance.choices(list(KINDS), [weight for _, weight in KINDS.values()], k=count)
    return sorted((_plan(chance, kind, span) for kind in kinds), key=lambda plan: plan.when)


def _plan(chance: random.Random, kind: str, span: float) -> Plan:
    chains = list(_CHAINS)
    (chain,) = chance.choices(chains, [_CHAINS[name][1] for name in chains])
    step = f"{chain}.{chance.choice(_CHAINS[chain][0])}"
    if chance.random() < 0.05:
        return Plan(kind, "guard", "claimed", chance.uniform(0, span), 0, chance.randrange(1 << 32))
    moment = chance.choice(_MOMENTS)
    if kind in PLACES:
        step, moment = chance.choice(PLACES[kind]), "between"
    when = 0.0 if step.startswith("restore.") else chance.uniform(0, span)
    return Plan(kind, step, moment, when, chance.uniform(0, 0.4), chance.randrange(1 << 32))


class Aim:
    """A round's faults, each in a thread of its own."""

    def __init__(self, world: World, plans: Sequence[Plan]) -> None:
        self._world = world
        self._plans = plans
        self._began = time.monotonic()
        self._clock = threading.Event()

    def inject(self) -> list[Injected]:
        """Make all of them, and end them; gives those that found something to be done to."""
        with ThreadPoolExecutor(max(len(self._plans), 1), thread_name_prefix="fault") as pool:
            found = list(pool.map(self._inject, self._plans))
        return [one for one in found if one is not None]

    def _inject(self, plan: Plan) -> Injected | None:
        self._clock.wait(max(plan.when - self._now(), 0))
        aimed = self._aim(plan)
        if aimed is None:
            return None
        pid, step = aimed
        host = self._host_of(pid)
        if host is None:
            return None
        fault = Fault(self._world, random.Random(plan.seed), pid, host)
        at = self._now()
        passage = KINDS[plan.kind][0](fault)
        try:
            for _ in passage:
                if plan.kind not in SLEEPING:
                    self._go_on(pid)
                self._clock.wait(fault.lasts)
                break
            else:
                return None
            for _ in passage:
                raise AssertionError(f"{plan.kind} begins twice")
        finally:
            passage.close()  # type: ignore[attr-defined]
            self._go_on(pid)
        return None if fault.vain else Injected(plan, step, at, self._now())

    def _aim(self, plan: Plan) -> tuple[int, str] | None:
        """A process that stands at the plan's step, or, where that does not come, at any."""
        moment = "taken" if plan.moment == "between" else plan.moment
        patience = _PATIENCE[plan.step.partition(".")[0]]
        pid = self._caught(f"{plan.step}.{moment}", patience)
        if pid is None and plan.kind not in PLACES:
            pid = self._caught(ANY, patience)
        if pid is None:
            return None
        step = self._world.wires.working().get(pid, plan.step)
        if plan.moment == "between":
            self._go_on(pid)
            self._clock.wait(plan.late)
        return pid, step

    def _caught(self, point: str, patience: float) -> int | None:
        """The process that comes to `point` within `patience` seconds."""
        wires, deadline = self._world.wires, self._now() + patience
        wire = wires.lay(point)
        while self._now() < deadline:
            pid = wires.caught(wire)
            if pid is not None:
                return pid
            self._clock.wait(_LOOK)
        return None if wires.withdraw(wire) else wires.caught(wire)

    def _host_of(self, pid: int) -> Host | None:
        with suppress(psutil.Error, OSError):
            home = psutil.Process(pid).environ().get("HOME")
            return next((host for host in self._world.hosts if str(host.folder) == home), None)
        return None

    def _go_on(self, pid: int) -> None:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).resume()

    def _now(self) -> float:
        return time.monotonic() - self._began
