"""Charts of what was measured: drawings in SVG that stand alone, in light and dark, and say in words what they show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from benchmarks.figures import median, spread
from larder.markup import Markup, element, style

#: Colours by role: Larder in blue, the user's script in orange, everybody else in grey; steps in order of their time.
_SHEET: Final = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1c2430; }
.soft { fill: #5a6573; } .axis { stroke: #aeb6c0; stroke-width: 1; } .whisker { stroke: #1c2430; stroke-width: 1.2; }
.target { stroke: #1c2430; stroke-width: 1.2; stroke-dasharray: 4 3; }
.larder { fill: #2f6fd6; } .script { fill: #d9822b; } .peer { fill: #a7b0bc; } .limit { fill: #6b7684; }
.end { text-anchor: end; } .middle { text-anchor: middle; } .strong { font-weight: 600; }
.s0 { fill: #2f6fd6; } .s1 { fill: #d9822b; } .s2 { fill: #2a9d77; } .s3 { fill: #8a5cc7; } .s4 { fill: #c2477f; }
.s5 { fill: #a7b0bc; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6eaf0; } .soft { fill: #9aa6b5; } .axis { stroke: #4a5563; }
  .whisker, .target { stroke: #e6eaf0; }
  .larder, .s0 { fill: #5b95f5; } .script, .s1 { fill: #e59a4c; } .peer, .s5 { fill: #626d7b; }
  .limit { fill: #8d99a8; }
  .s2 { fill: #3dbb90; } .s3 { fill: #a884e0; } .s4 { fill: #e06fa3; }
}
"""

_WIDTH: Final = 760
_LEFT: Final = 210
_RIGHT: Final = 120
_ROW: Final = 30
_BAR: Final = 18
_TOP: Final = 34
_BOTTOM: Final = 34

#: How many steps have a colour of their own; the others share the last one.
_COLOURS: Final = 5


class Bar(NamedTuple):
    """One row: who, of which kind, and the seconds of its rounds."""

    label: str
    kind: str
    seconds: Sequence[float]


class Stack(NamedTuple):
    """One row that is made up of parts: their names and seconds."""

    label: str
    parts: Sequence[tuple[str, float]]


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Medians as bars, the least and the greatest as a line across their end."""
    scale = _Scale(max(max(row.seconds) for row in rows))
    marks: list[Markup] = []
    for at, row in enumerate(rows):
        y = _TOP + at * _ROW
        middle = median(row.seconds)
        low, high = scale.x(min(row.seconds)), scale.x(max(row.seconds))
        line = y + _BAR / 2
        said = f"{row.label}: {middle:.2f} s ({spread(row.seconds)} s)"
        strong = "end strong" if row.kind == "larder" else "end"
        marks.append(
            element(
                "g",
                element("title", said),
                element("text", row.label, x=_LEFT - 8, y=y + 14, class_=strong),
                element(
                    "rect", x=_LEFT, y=y, width=scale.x(middle) - _LEFT, height=_BAR, rx=2, class_=row.kind
                ),
                element("line", x1=low, x2=high, y1=line, y2=line, class_="whisker"),
                element("line", x1=low, x2=low, y1=line - 4, y2=line + 4, class_="whisker"),
                element("line", x1=high, x2=high, y1=line - 4, y2=line + 4, class_="whisker"),
                element("text", f"{middle:.2f} s", x=high + 8, y=y + 14),
            )
        )
    return _drawing(title, len(rows), scale, marks)


def stacks(title: str, rows: Sequence[Stack]) -> str:
    """What a chain's seconds are made up of, step by step; the steps that take most have colours of their own."""
    totals: dict[str, float] = {}
    for row in rows:
        for name, seconds in row.parts:
            totals[name] = totals.get(name, 0.0) + seconds
    ranked = sorted(totals, key=lambda name: totals[name], reverse=True)
    colour = {name: min(at, _COLOURS) for at, name in enumerate(ranked)}
    scale = _Scale(max(sum(seconds for _, seconds in row.parts) for row in rows))
    marks: list[Markup] = []
    for at, row in enumerate(rows):
        y, x = _TOP + at * _ROW, float(_LEFT)
        marks.append(element("text", row.label, x=_LEFT - 8, y=y + 14, class_="end strong"))
        for name, seconds in row.parts:
            wide = scale.x(seconds) - _LEFT
            marks.append(
                element(
                    "g",
                    element("title", f"{row.label}, {name}: {seconds:.2f} s"),
                    element("rect", x=x, y=y, width=wide, height=_BAR, class_=f"s{colour[name]}"),
                )
            )
            x += wide
        total = sum(seconds for _, seconds in row.parts)
        marks.append(element("text", f"{total:.2f} s", x=x + 8, y=y + 14))
    return _drawing(title, len(rows), scale, marks, _legend(ranked, len(rows)))


def _legend(ranked: Sequence[str], rows: int) -> list[Markup]:
    y = _TOP + rows * _ROW + _BOTTOM + 6
    shown = list(ranked[:_COLOURS])
    if len(ranked) > _COLOURS:
        shown.append("the rest")
    marks = []
    x = float(_LEFT)
    for at, name in enumerate(shown):
        marks.append(element("rect", x=x, y=y - 10, width=11, height=11, rx=2, class_=f"s{at}"))
        marks.append(element("text", name, x=x + 16, y=y))
        x += 34 + 7.2 * len(name)
    return marks


class _Scale:
    """Seconds from zero up, across the width, with round numbers to read them by."""

    def __init__(self, most: float) -> None:
        self.most = most or 1.0
        step = 10 ** math.floor(math.log10(self.most))
        while self.most / step < 4:
            step /= 2
        self.ticks = [at * step for at in range(int(self.most / step) + 1)]

    def x(self, value: float) -> float:
        """Where a value lies."""
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value / self.most


def _drawing(
    title: str, rows: int, scale: _Scale, marks: Sequence[Markup], below: Sequence[Markup] = ()
) -> str:
    floor = _TOP + rows * _ROW
    height = floor + _BOTTOM + (20 if below else 0)
    ticks = []
    for value in scale.ticks:
        x = scale.x(value)
        ticks.append(element("line", x1=x, x2=x, y1=_TOP - 6, y2=floor, class_="axis", opacity=0.5))
        ticks.append(element("text", f"{value:g}", x=x, y=floor + 18, class_="soft middle"))
    ticks.append(element("text", "seconds", x=_WIDTH - _RIGHT + 30, y=floor + 18, class_="soft"))
    attributes: dict[str, Any] = {"viewBox": f"0 0 {_WIDTH} {height}", "xmlns": "http://www.w3.org/2000/svg"}
    drawn = element(
        "svg",
        element("title", title),
        style(_SHEET),
        element("text", title, x=8, y=16, class_="strong"),
        ticks,
        list(marks),
        list(below),
        width=_WIDTH,
        height=height,
        role="img",
        aria_label=title,
        **attributes,
    )
    return f"{drawn}\n"
