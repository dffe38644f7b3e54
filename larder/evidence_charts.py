"""The charts of a report: drawings in SVG that need no script, and say in words what they show.

Colours and type come from the report's style sheet, by class.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from larder.evidence import Period
from larder.markup import Markup, element
from larder.progress import human_seconds

#: A drawing's measures, in its own units: of the whole, and what is left for words to the left, above and below.
_WIDTH: Final = 640
_HEIGHT: Final = 190
_LEFT: Final = 8
_RIGHT: Final = 8
_TOP: Final = 26
_BOTTOM: Final = 24

#: Bars of the chart of days, and points of a line, at most.
_MOST_BARS: Final = 62
_MOST_POINTS: Final = 240


class Point(NamedTuple):
    """A value at a moment; one that is `bad` is drawn as such."""

    moment: datetime
    value: float
    bad: bool = False


def days(period: Period, made: Iterable[datetime], failed: Iterable[datetime]) -> Markup:
    """Backups that were made, and runs that failed, for each day of the period, or each few days of a long one."""
    whole = math.ceil((period.end - period.start) / timedelta(days=1))
    step = math.ceil(whole / _MOST_BARS)
    count = math.ceil(whole / step)
    good, bad = (_by_step(moments, period.start, step) for moments in (made, failed))
    most = max([good[at] + bad[at] for at in range(count)], default=0)
    room = (_WIDTH - _LEFT - _RIGHT) / count
    bars = []
    for at in range(count):
        begins = period.start + timedelta(days=at * step)
        said = f"{begins:%Y-%m-%d}: {good[at]} made, {bad[at]} failed"
        high, low = (_height(value, most) for value in (good[at], bad[at]))
        x, wide = _LEFT + at * room + room * 0.12, room * 0.76
        floor = _HEIGHT - _BOTTOM
        bars.append(
            element(
                "g",
                element("title", said),
                element("rect", x=x, y=floor - high, width=wide, height=high, class_="good"),
                element("rect", x=x, y=floor - high - low, width=wide, height=low, class_="bad"),
            )
        )
    each = "day" if step == 1 else f"{step} days"
    total = f"{sum(good.values())} backups made, {sum(bad.values())} runs failed"
    return _drawing(f"Backups for each {each}: {total}", period, f"{most} on one {each} at most", bars)


def line(title: str, period: Period, points: Sequence[Point], highest: str) -> Markup:
    """Values over time, from zero up; `highest` is the greatest of them in words."""
    drawn = _thinned(points)
    most = max((point.value for point in drawn), default=0.0)
    places = [_place(point, period, most) for point in drawn]
    path = element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_="line")
    last = element("circle", cx=places[-1][0], cy=places[-1][1], r=3, class_="dot") if places else None
    return _drawing(title, period, f"{highest} at most", [path, *([last] if last else [])])


def against(title: str, period: Period, points: Sequence[Point], limit: float) -> Markup:
    """Measured seconds over time, as dots, and the seconds that they should stay below, as a line."""
    most = max([limit, *(point.value for point in points)])
    y = _place(Point(period.start, limit), period, most)[1]
    marks = [element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="limit")]
    for point in points:
        across, up = _place(point, period, most)
        said = f"{point.moment:%Y-%m-%d %H:%M}: {human_seconds(point.value)}"
        marks.append(
            element(
                "circle",
                element("title", said),
                cx=across,
                cy=up,
                r=4,
                class_="dot bad" if point.bad else "dot",
            )
        )
    return _drawing(title, period, f"line: {human_seconds(limit)} allowed", marks)


def _drawing(title: str, period: Period, scale: str, marks: Sequence[Markup]) -> Markup:
    floor = _HEIGHT - _BOTTOM
    last = period.end - timedelta(seconds=1)
    return element(
        "svg",
        element("title", title),
        element("text", scale, x=_LEFT, y=15, class_="scale"),
        element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=floor, y2=floor, class_="axis"),
        marks,
        element("text", f"{period.start:%Y-%m-%d}", x=_LEFT, y=_HEIGHT - 6, class_="tick"),
        element("text", f"{last:%Y-%m-%d}", x=_WIDTH - _RIGHT, y=_HEIGHT - 6, class_="tick end"),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=title,
    )


def _by_step(moments: Iterable[datetime], start: datetime, step: int) -> Counter[int]:
    return Counter((moment - start) // timedelta(days=step) for moment in moments)


def _height(value: float, most: float) -> float:
    return (_HEIGHT - _TOP - _BOTTOM) * value / most if most else 0.0


def _place(point: Point, period: Period, most: float) -> tuple[float, float]:
    across = (point.moment - period.start) / (period.end - period.start)
    return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - _height(point.value, most)


def _thinned(points: Sequence[Point]) -> list[Point]:
    """As many points as can be told apart: of those that lie together, the greatest."""
    width = max(1, math.ceil(len(points) / _MOST_POINTS))
    return [
        max(points[at : at + width], key=lambda point: point.value) for at in range(0, len(points), width)
    ]
