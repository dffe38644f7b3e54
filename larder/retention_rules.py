"""What retention judges by: the shelf, the policy's rules, and the laws that no rule and no force overrules.

`larder.retention` is the door to it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal

#: `broken` means that the very bytes are known to be wrong. Whatever else is the matter makes a backup `unclear`.
Proof = Literal["proven", "stored", "broken", "unclear"]

#: How many days a broken backup stays as evidence where the policy has no days.
EVIDENCE_DAYS = 30

#: How far a backup may be dated ahead of now before a clock must be wrong.
TOLERANCE = timedelta(minutes=5)

#: The period that a moment of the policy's zone is in, by the rule that counts such periods. An hour has its distance
#: from UTC beside it: when the clocks are set back, two different hours are called the same.
_PERIODS: dict[str, Callable[[datetime], Hashable]] = {
    "hourly": lambda local: (local.date(), local.hour, local.utcoffset()),
    "daily": lambda local: local.date(),
    "weekly": lambda local: local.isocalendar()[:2],
    "monthly": lambda local: (local.year, local.month),
    "yearly": lambda local: local.year,
}


@dataclass(frozen=True)
class Item:
    """One backup on a shelf, as far as retention needs to know it."""

    #: The backup's id.
    backup: str
    #: When its snapshot was taken; None where its manifest cannot be read.
    created: datetime | None
    #: Bytes that the artifact decodes to.
    raw_size: int
    #: `.sql`, `.dir.tar`, `.db`: sizes of different forms cannot be compared.
    suffix: str
    proof: Proof
    pinned: bool = False
    #: What is unclear about an unclear one, as a clause.
    problem: str = ""

    @property
    def stored(self) -> bool:
        """Whether it counts: it has been read back, at least, and nothing is the matter with it."""
        return self.created is not None and self.proof in ("stored", "proven")


@dataclass(frozen=True)
class Policy:
    """The rules of one database. A rule that is None is not there; at least one is."""

    #: The database's name, for what is told.
    database: str
    days: int | None = None
    keep_last: int | None = None
    hourly: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None
    yearly: int | None = None
    #: Where the days, weeks and months are those of the calendar.
    zone: tzinfo = UTC

    def __post_init__(self) -> None:
        rules = list(self.rules.values())
        if not rules or min(rules) < 1:
            raise ValueError("unable to make a policy of no rules, or of a rule that keeps less than one")

    @property
    def rules(self) -> dict[str, int]:
        """The rules that there are, by their word in the configuration."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {word: count for word, count in values.items() if isinstance(count, int)}

    @property
    def description(self) -> str:
        """`last 30 days`, `daily 7, weekly 4`: what stays, in a few words."""
        words = {"days": "last {} days", "keep_last": "last {} backups"}
        return ", ".join(words.get(word, f"{word} {{}}").format(count) for word, count in self.rules.items())


@dataclass(frozen=True)
class Verdict:
    """Whether one backup stays, and why."""

    #: The backup's id.
    backup: str
    keep: bool
    #: A clause for the operator.
    reason: str
    #: Whether only the halt keeps it.
    held: bool = False


def kept_until(policy: Policy, created: datetime) -> datetime | None:
    """The time before which the policy never deletes a good backup made at `created`; None without a `days` rule.

    The other rules count backups, so that what they keep depends on those to come.
    """
    return None if policy.days is None else created + timedelta(days=policy.days)


def in_future(item: Item, now: datetime) -> bool:
    """Whether a wrong clock made it, or a wrong clock says `now`."""
    return item.created is not None and item.created - now > TOLERANCE


def newest_first(items: Sequence[Item], now: datetime) -> list[Item]:
    """What counts: stored, and not from the future."""
    found = {item for item in items if item.stored and not in_future(item, now)}
    return sorted(found, key=_age, reverse=True)


def judge(items: Sequence[Item], policy: Policy, now: datetime) -> list[Verdict]:
    """What the policy and the laws say of each item, in order, whatever else may be the matter."""
    counted = newest_first(items, now)
    reasons: dict[Item, list[str]] = {}
    for item, reason in _by_rules(counted, policy, now):
        reasons.setdefault(item, []).append(reason)
    for item, reason in _by_laws(counted):
        reasons.setdefault(item, [reason])
    verdicts = []
    for item in items:
        exempt = _exempt(item, counted, policy, now)
        why = exempt or ", ".join([*(["pinned"] if item.pinned else []), *reasons.get(item, [])])
        verdicts.append(Verdict(item.backup, bool(why), why or _gone(item, policy)))
    return verdicts


def _by_rules(counted: Sequence[Item], policy: Policy, now: datetime) -> Iterator[tuple[Item, str]]:
    """Each item that a rule keeps, with that rule; `counted` is newest first."""
    for item in counted:
        if policy.days is not None and _within(item, policy.days, now):
            yield item, f"it is not older than {_days(policy.days)}"
    for word, count in policy.rules.items():
        if word == "days":
            continue
        chosen = _newest_of_each(word, counted, policy.zone) if word in _PERIODS else list(counted)
        for number, item in enumerate(chosen[:count], start=1):
            yield item, f"{word}: {number} of {count}"


def _newest_of_each(word: str, counted: Sequence[Item], zone: tzinfo) -> list[Item]:
    """The newest item of each period that has one, newest first."""
    found: dict[Hashable, Item] = {}
    for item in counted:
        found.setdefault(_PERIODS[word](_created(item).astimezone(zone)), item)
    return list(found.values())


def _by_laws(counted: Sequence[Item]) -> Iterator[tuple[Item, str]]:
    proven = [item for item in counted if item.proof == "proven"]
    for item in proven[:1]:
        yield item, "it is the newest proven backup"
    for item in counted[:1]:
        yield item, "it is the newest stored backup"


def _exempt(item: Item, counted: Sequence[Item], policy: Policy, now: datetime) -> str:
    """Why an item stays that no rule looks at; empty for one that they do look at, or that has served its time."""
    if item.created is None:
        return "its manifest cannot be read"
    if item.proof == "unclear":
        return item.problem or "it is not clear what it is worth"
    if in_future(item, now):
        return "it is dated in the future: see the clocks"
    if item.stored or item.pinned:
        return ""
    if not counted or _created(counted[0]) <= item.created:
        return "it is broken, and no stored backup is newer"
    days = policy.days or EVIDENCE_DAYS
    return f"it is broken, and not older than {_days(days)}: evidence" if _within(item, days, now) else ""


def _gone(item: Item, policy: Policy) -> str:
    if not item.stored:
        return f"it is broken, and older than {_days(policy.days or EVIDENCE_DAYS)}"
    if policy.days is None:
        return "no rule keeps it"
    older = f"it is older than {_days(policy.days)}"
    return older if len(policy.rules) == 1 else f"{older}, and no other rule keeps it"


def _within(item: Item, days: int, now: datetime) -> bool:
    return now - _created(item) <= timedelta(days=days)


def _days(count: int) -> str:
    return f"{count} day" if count == 1 else f"{count} days"


def _created(item: Item) -> datetime:
    assert item.created is not None  # noqa: S101 - only items whose manifest was read come here
    return item.created


def _age(item: Item) -> tuple[datetime, str, int, str, str, bool]:
    """Sorts by time. The rest decides among those of one second, so that the order of the shelf never does."""
    return (_created(item), item.backup, item.raw_size, item.suffix, item.proof, item.pinned)
