"""Retention: which backups stay and which go. Pure: a shelf, a policy and a time in, verdicts out.

A backup stays when any rule of the policy keeps it. These laws stand above the rules, and above whoever forces them:

- Only what is at least stored counts. A broken backup is evidence, and takes no good one's place.
- The newest stored backup and the newest proven one are never deleted, whatever their age.
- A pinned one is never deleted, nor one that is dated in the future.
- Broken are bytes that are known to be wrong. Where anything else is the matter (its manifest cannot be read, a signer
  is unknown, a sidecar is gone), a backup is unclear: it counts for nothing, and is never deleted.

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
from larder.retention_rules import Item, Policy, Proof, Verdict, judge, kept_until, newest_first

__all__ = ["Item", "Plan", "Policy", "Proof", "Verdict", "kept_until", "plan"]


@dataclass(frozen=True)
class Plan:
    """What is to become of a shelf."""

    #: One for each item, in their order.
    verdicts: tuple[Verdict, ...]
    #: Why nothing is deleted, and what to do; None where nothing stands in the way.
    halted: str | None
    #: When the newest backup that counts was made; None where none does.
    newest: datetime | None = None

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
    accepted: datetime | None = None,
    force: bool = False,
) -> Plan:
    """A verdict for each of one database's backups in one store, in their order.

    `failed_run` is the id of the database's last run, where it failed. `accepted` is when the newest backup had been
    made as somebody last said that sizes are right: no size from before it counts any more. When rotation is halted
    everything stays, and the reasons still tell what the policy alone would do. `force` overrules halts, never laws.
    """
    shelf = list(items)
    verdicts = judge(shelf, policy, now)
    halted = None if force else halt(shelf, verdicts, policy, now, failed_run, accepted)
    if halted is not None:
        verdicts = [verdict if verdict.keep else _held(verdict) for verdict in verdicts]
    counted = newest_first(shelf, now)
    return Plan(tuple(verdicts), halted, counted[0].created if counted else None)


def _held(verdict: Verdict) -> Verdict:
    reason = f"would be deleted ({verdict.reason}), but rotation is halted"
    return replace(verdict, keep=True, reason=reason, held=True)
