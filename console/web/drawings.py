"""Drawings: charts in SVG that need no script, and say in words what they show. Colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import markupsafe

from larder.evidence import Period
from larder.evidence_charts import Point, line
from larder.markup import Markup, element
from larder.progress import human_seconds, human_size

#: A value at a moment.
Measured = tuple[datetime, float]

#: A sparkline's measures, in its own units.
_WIDTH, _HEIGHT, _EDGE = 120.0, 28.0, 3.0

#: How many values a sparkline shows, and the table beside a chart.
MOST = 40


class Chart(NamedTuple):
    """A drawing, what it is of, and the values for whoever cannot see it."""

    title: str
    drawing: markupsafe.Markup
    rows: list[tuple[datetime, str]]


def of_database(sizes: Sequence[Measured], times: Sequence[Measured], now: datetime) -> list[Chart]:
    """The size and the duration of a database's backups over time."""
    found = []
    for title, values, words in (
        ("Size of its backups", sizes, human_size),
        ("Time that backups took", times, human_seconds),
    ):
        if len(values) > 1:
            found.append(_chart(title, values, words, now))
    return found


def _chart(title: str, values: Sequence[Measured], words: Callable[[float], str], now: datetime) -> Chart:
    first = min(values[0][0], now - timedelta(hours=1))
    period = Period(first.replace(microsecond=0), (now + timedelta(seconds=1)).replace(microsecond=0))
    highest = words(max(value for _, value in values))
    points = [Point(max(moment, period.start), value) for moment, value in values]
    said = f"{title}: {len(values)} values, {words(values[-1][1])} at the end"
    drawn = line(said, period, points, highest)
    return Chart(title, _safe(drawn), [(moment, words(value)) for moment, value in reversed(values)][:MOST])


def sparkline(values: Sequence[Measured], said: str) -> markupsafe.Markup:
    """The last values as a small line from zero up; `said` is what it shows, in words. Nothing for less than two."""
    shown = [value for _, value in values[-MOST:]]
    if len(shown) < 2:
        return markupsafe.Markup()
    most = max(shown) or 1.0
    step = (_WIDTH - 2 * _EDGE) / (len(shown) - 1)
    places = [
        (_EDGE + at * step, _HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * value / most)
        for at, value in enumerate(shown)
    ]
    drawn = element(
        "svg",
        element("title", said),
        element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_="line"),
        element("circle", cx=f"{places[-1][0]:.1f}", cy=f"{places[-1][1]:.1f}", r=2.5, class_="dot"),
        viewBox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}",
        class_="spark",
        role="img",
        aria_label=said,
    )
    return _safe(drawn)


def bar(value: float, target: float, *, met: bool | None) -> markupsafe.Markup:
    """How much of `target` a value has used up, as a bar that is full at the target. Text beside it says the same."""
    share = min(value / target, 1.0) if target else 1.0
    drawn = element(
        "svg",
        element("rect", width="100%", height=6, rx=3, class_="track"),
        element(
            "rect", width=f"{share * 100:.0f}%", height=6, rx=3, class_="bad" if met is False else "good"
        ),
        class_="bar",
        aria_hidden="true",
    )
    return _safe(drawn)


def _safe(drawn: Markup) -> markupsafe.Markup:
    # Put together from elements, with every text in it escaped: `larder.markup` makes no other.
    return markupsafe.Markup(str(drawn))  # noqa: S704
