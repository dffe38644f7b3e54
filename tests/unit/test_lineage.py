"""Lineage: what somebody took or exchanged shows, and what rotation took does not."""

from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from larder.lineage import Link, gaps
from larder.manifest import Previous


def backup(day: int) -> str:
    return f"shop/202510{day:02}_020000"


def digest(day: int) -> str:
    return f"{day:064x}"


def chain(*days: int) -> list[Link]:
    """The backups of some days, each naming the one before."""
    links = []
    for before, day in zip((None, *days), days, strict=False):
        previous = Previous(backup(before), digest(before)) if before is not None else None
        links.append(Link(backup(day), digest(day), previous))
    return links


def without(links: Iterable[Link], *days: int) -> list[Link]:
    return [link for link in links if link.backup not in {backup(day) for day in days}]


MISSING = "backup shop/20251003_020000 is missing: shop/20251004_020000 names it"


def test_a_whole_shelf_has_no_gaps() -> None:
    assert gaps([]) == []
    assert gaps(chain(1)) == []
    assert gaps(chain(1, 2, 3, 4, 5)) == []


def test_what_was_taken_from_the_middle_is_missing() -> None:
    assert gaps(without(chain(1, 2, 3, 4, 5), 3)) == [(backup(3), MISSING)]


def test_what_rotation_took_is_not_missed() -> None:
    assert gaps(without(chain(1, 2, 3, 4, 5), 1, 2)) == []
    assert gaps(without(chain(1, 2, 3, 4, 5), 1, 2, 3, 4)) == []


def test_what_was_removed_on_purpose_is_not_missed() -> None:
    assert gaps(without(chain(1, 2, 3, 4, 5), 3), removed={backup(3)}) == []
    assert gaps(without(chain(1, 2, 3, 4, 5), 2, 3), removed=[backup(2)]) == [(backup(3), MISSING)]


def test_of_several_in_a_row_the_last_is_named() -> None:
    """Who stood before it, only its own manifest knew."""
    assert gaps(without(chain(1, 2, 3, 4, 5), 2, 3)) == [(backup(3), MISSING)]


def test_what_was_replaced_is_told() -> None:
    links = chain(1, 2, 3)
    links[1] = Link(backup(2), "f" * 64, links[1].previous)
    assert gaps(links) == [(backup(2), f"it was replaced: {backup(3)} names another manifest")]
    assert gaps(links[1:]) == gaps(links), "also where it is the oldest"
    assert gaps(links, removed={backup(2)}) == gaps(links), "also where it had been removed"


def test_copies_in_several_stores_are_one_backup() -> None:
    links = chain(1, 2, 3, 4)
    assert gaps(links + links) == []
    assert gaps(without(links, 3) + without(links, 1, 2)) == []


def test_a_copy_that_was_replaced_in_one_store_is_told() -> None:
    links = chain(1, 2, 3)
    other = Link(backup(2), "f" * 64, links[1].previous)
    assert gaps([*links, other]) == [(backup(2), f"it was replaced: {backup(3)} names another manifest")]


def test_the_newest_can_be_taken_unseen_and_the_rest_still_counts() -> None:
    assert gaps(without(chain(1, 2, 3, 4, 5), 5)) == []
    assert gaps(without(chain(1, 2, 3, 4, 5), 3, 5)) == [(backup(3), MISSING)]


def test_each_gap_is_told_once() -> None:
    """Where a run came out of turn, two backups name the same one."""
    links = [*chain(1, 3, 4), Link(backup(5), digest(5), Previous(backup(3), digest(3)))]
    assert gaps(without(links, 3)) == [(backup(3), MISSING)]


@given(st.sets(st.integers(1, 28)), st.integers(0, 99))
def test_exactly_what_is_followed_and_preceded_by_another_is_missed(taken: set[int], seed: int) -> None:
    left = without(chain(*range(1, 29)), *taken)
    random.Random(seed).shuffle(left)
    kept = sorted(set(range(1, 29)) - taken)
    missed = {backup(day) for day in taken if day + 1 in kept and min(kept) < day}
    assert {gap for gap, _ in gaps(left)} == missed
