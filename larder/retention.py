"""Retention: which backups stay and which go. Pure: a shelf, a policy and a time in, verdicts out.

A backup stays when any rule of the policy keeps it. These laws stand above the rules, and above whoever forces them:

- Only what is at least stored counts. A broken backup is evidence, and takes no good one's place.
- The newest stored backup and the newest proven one are never deleted, whatever their age.
- A pinned one is never deleted, nor one whose manifest cannot be read, nor one that is dated in the future.

When something about the shelf or the clock is not as it should be, nothing goes until somebody has looked.

| module | decides |
|---|---|
| `retention_rules` | what the policy and the laws say of each backup |
| `retention_halts` | whether anything may be deleted at all |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from larder.retention_halts import halt
from larder.retention_rules import Item, Policy, Proof, Verdict, judge, kept_until

__all__ = ["Item", "Plan", "Policy", "Proof", "Verdict", "kept_until", "plan"]


@dataclass(frozen=True)
class Plan:
    """What is to become of a shelf."""

    #: One for each item, in their order.
    verdicts: tuple[Verdict, ...]
    #: Why nothing is deleted, and what to do; None where nothing stands in the way.
    halted: str | None

    @property
    def held(self) -> bool:
        """Whether something would go, were it not for the halt."""
        return any(verdict.held for verdict in self.verdicts)


def plan(
    items: Iterable[Item],
    policy: Policy,
    now: datetime,
    failed_run: str | None = None,
    *,
    force: bool = False,
) -> Plan:
    """A verdict for each of one database's backups in one store, in their order.

    `failed_run` is the id of the database's last run, where it failed. When rotation is halted everything stays, and
    the reasons still tell what the policy alone would do. `force` overrules halts, never the laws.
    """
    shelf = list(items)
    verdicts = judge(shelf, policy, now)
    halted = None if force else halt(shelf, verdicts, policy, now, failed_run)
    if halted is not None:
        verdicts = [verdict if verdict.keep else _held(verdict) for verdict in verdicts]
    return Plan(tuple(verdicts), halted)


def _held(verdict: Verdict) -> Verdict:
    reason = f"would be deleted ({verdict.reason}), but rotation is halted"
    return replace(verdict, keep=True, reason=reason, held=True)
