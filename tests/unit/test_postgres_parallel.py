"""Tables are shared out so that sessions end at about the same time, each table one session's where that can be."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from larder.databases._postgres_alone import Alone
from larder.databases._postgres_folder import TableFile
from larder.databases._postgres_parallel import _shared_out


def shared(sizes: list[int], sessions: int) -> tuple[list[int], list[int]]:
    tables = [Alone(b"", TableFile(Path(), 0, size)) for size in sizes]
    alone, together = _shared_out(tables, sessions)
    assert {id(table) for table in alone + together} == set(map(id, tables))
    return [table.file.rows_size for table in alone], [table.file.rows_size for table in together]


def ends(alone: list[int], together: list[int], sessions: int) -> list[int]:
    """When each session ends: whoever is free takes the next table, and at last a part of what all do."""
    at = [0] * sessions
    for size in alone:
        at[at.index(min(at))] += size
    for _ in range(sum(together)):
        at[at.index(min(at))] += 1
    return at


def test_each_table_is_one_sessions() -> None:
    assert shared([3, 5, 4, 4], 2) == ([5, 4, 4, 3], [])
    assert shared([50, 51], 2) == ([51, 50], [])


def test_what_would_keep_one_of_them_for_longer_all_do_together() -> None:
    assert shared([100], 2) == ([], [100])
    assert shared([60, 20, 10, 10], 4) == ([20, 10, 10], [60])
    assert shared([40, 40, 40], 2) == ([40, 40], [40])


@given(st.lists(st.integers(0, 100), max_size=12), st.integers(1, 6))
def test_all_end_at_about_the_same_time(sizes: list[int], sessions: int) -> None:
    alone, together = shared(sizes, sessions)
    assert sorted(alone + together) == sorted(sizes)
    assert alone == sorted(alone, reverse=True)
    assert max(ends(alone, together, sessions)) <= 1.05 * sum(sizes) / sessions + 1
