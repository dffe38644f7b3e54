"""What stops rotation: signs that the shelf, or the clock, is not what the policy was made for.

A halt costs disk space and a look. What it guards against costs the last backup from before the mishap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from statistics import median

from larder.progress import short_size
from larder.retention_rules import TOLERANCE, Item, Policy, Verdict, in_future, judge, newest_first

#: How many backups before it a backup's size is held against.
COMPARED = 10

#: How many that go at once are suspicious: expired in a time without backups, or broken all together.
SUDDEN = 3


def halt(
    items: Sequence[Item],
    verdicts: Sequence[Verdict],
    policy: Policy,
    now: datetime,
    failed_run: str | None,
    accepted: datetime | None,
) -> str | None:
    """Why nothing must be deleted now, with what to do about it; or None.

    `verdicts` are what the policy alone says of `items`. `failed_run` is the id of the database's last run, where it
    failed. Sizes from before `accepted` are held against nothing.
    """
    causes = []
    if failed_run is not None:
        causes.append(f"the last run failed (larder watch {failed_run} says why)")
    causes += _from_the_future(items, now)
    causes += _shrunk(newest_first(items, now), accepted)
    causes += _suddenly_expired(items, verdicts, policy, now)
    causes += _broken_together(items, verdicts, policy, now)
    if not causes:
        return None
    command = f"larder prune {policy.database}"
    return f"{'; and '.join(causes)}: see {command} --dry-run; if it is right: {command} --force"


def _from_the_future(items: Sequence[Item], now: datetime) -> Iterator[str]:
    ahead = sorted(
        (item.created, item.backup)
        for item in items
        if item.created and item.proof != "unclear" and in_future(item, now)
    )
    if ahead:
        created, backup = ahead[-1]
        more = f", and so are {len(ahead) - 1} more" if len(ahead) > 1 else ""
        yield (
            f"{backup} is dated {_moment(created)}, more than {TOLERANCE.seconds // 60} minutes after now, "
            f"{_moment(now)}{more}: a clock is wrong, or was"
        )


def _shrunk(counted: Sequence[Item], accepted: datetime | None) -> Iterator[str]:
    """Whether the newest backup holds less than half of what those before it held: a table was emptied, or all.

    What is that small is nothing to hold others against, so that no number of empty backups makes emptiness normal.
    """
    comparable = [
        item
        for item in reversed(counted)
        if item.suffix == counted[0].suffix
        and item.created
        and (accepted is None or item.created >= accepted)
    ]
    sizes: list[int] = []
    small: list[bool] = []
    for item in comparable:
        small.append(bool(sizes) and item.raw_size * 2 < median(sizes[-COMPARED:]))
        if not small[-1]:
            sizes.append(item.raw_size)
    if not small or not small[-1]:
        return
    newest, last = comparable[-1], sizes[-COMPARED:]
    others = sum(takewhile(bool, reversed(small))) - 1
    before = "before it" if not others else "before they shrank"
    those = f"what the one {before} holds" if len(last) == 1 else f"the median of the {len(last)} {before}"
    more = f", and so do the {others} before it" if others > 1 else ", and so does the one before it"
    yield (
        f"{newest.backup} holds {short_size(newest.raw_size)}, less than half of "
        f"{short_size(round(median(last)))}, {those}{more if others else ''}"
    )


def _suddenly_expired(
    items: Sequence[Item], verdicts: Sequence[Verdict], policy: Policy, now: datetime
) -> Iterator[str]:
    """Whether everything that is too old became so in a time without backups.

    With backups coming in, they grow old one by one. Where all of them did while none came, either the clock jumped
    or backups did not run.
    """
    going = [
        verdict for verdict, item in zip(verdicts, items, strict=True) if not verdict.keep and item.stored
    ]
    if policy.days is None or len(going) < SUDDEN:
        return
    limit = timedelta(days=policy.days)
    times = [item.created for item in newest_first(items, now) if item.created]
    last = max(created for created in times if now - created > limit)
    following = min((created for created in times if now - created <= limit), default=now)
    if following - last > limit:
        yield (
            f"{len(going)} backups are older than {policy.days} days all at once: none was made between "
            f"{_moment(last)} and {_moment(following)}, so the clock jumped, or backups did not run"
        )


def _broken_together(
    items: Sequence[Item], verdicts: Sequence[Verdict], policy: Policy, now: datetime
) -> Iterator[str]:
    """Whether several go for being broken alone: a store has lost files, and may find them again."""
    sound = [replace(item, proof="stored") if item.proof == "broken" else item for item in items]
    lost = [
        item.backup
        for item, verdict, otherwise in zip(items, verdicts, judge(sound, policy, now), strict=True)
        if item.proof == "broken" and not verdict.keep and otherwise.keep
    ]
    if len(lost) >= SUDDEN:
        yield (
            f"{len(lost)} backups that the rules would keep are broken, the newest of them {max(lost)} "
            f"(larder list {policy.database} says how)"
        )


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
