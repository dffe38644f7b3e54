"""The report of evidence: the document for people, as one page that loads nothing, runs nothing and prints well.

Failures, drills, restores and misses are told in full. Of long lists the newest are shown, and how many more there are;
all of them are in the document.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from larder import evidence_charts as charts
from larder import evidence_sections as sections
from larder.evidence import Document, Period
from larder.evidence_charts import Point
from larder.evidence_style import POLICY, SHEET
from larder.evidence_tables import (
    Column,
    Facts,
    at,
    badge,
    code,
    count,
    listed,
    moment,
    newest,
    section,
    table,
)
from larder.markup import Markup, element, page, style
from larder.progress import human_size


def report_of(document: Document, key: str, name: str) -> bytes:
    """The page that shows `document`, signed with the public key `key`, whose own file is called `name`."""
    period = Period(*(moment(document["period"][end]) for end in ("from", "to")))
    title = f"Backup evidence, {period.start:%Y-%m-%d} to {period.end:%Y-%m-%d}"
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        style(SHEET),
    ]
    return page(
        head,
        element("header", element("h1", title), _about(document)),
        element(
            "main",
            _numbers(document["summary"]),
            element("figure", *_days(document, period)),
            sections.databases(document),
            sections.misses(document["misses"]),
            sections.failures(document),
            sections.drills(document["drills"]),
            sections.restores(document["restores"]),
            _each_database(document, period),
            sections.deletions(document),
            sections.audit(document["audit"]),
            sections.keys(document["keys"]),
        ),
        _foot(key, name),
    )


def _about(document: Document) -> Markup:
    period = document["period"]
    return element(
        "p",
        f"From {at(period['from'])} up to, and without, {at(period['to'])}. Made {at(document['made'])} "
        f"on {document['host']} by Larder {document['larder']}. All times are UTC. Proof, copies and configuration are "
        "as they stood when this was made.",
        class_="soft",
    )


def _numbers(summary: Facts) -> Markup:
    backups, copies, runs, drills, misses = (
        summary[key] for key in ("backups", "copies", "runs", "drills", "misses")
    )
    tiles: list[tuple[str, int, str, int]] = [
        ("Backups kept", backups["kept"], human_size(backups["bytes"]), 0),
        ("Proven by a drill", backups["proven"], f"{backups['stored']} stored", 0),
        ("Broken", backups["broken"], "backups", backups["broken"]),
        (
            "Gone",
            backups["no_longer_kept"],
            f"{_some(backups['gone_unexplained'])} unexplained",
            backups["gone_unexplained"],
        ),
        (
            "Copies",
            copies["kept"],
            f"{_some(copies['with_a_problem'])} with a problem",
            copies["with_a_problem"],
        ),
        ("Runs", runs["backups"], f"{_some(runs['failed_backups'])} failed", runs["failed_backups"]),
        ("Drills", drills["all"], f"{drills['broken']} broken, {drills['failed']} failed", drills["broken"]),
        ("Objectives missed", misses["all"], f"{_some(misses['open'])} still", misses["open"]),
        ("Restores", summary["restores"]["all"], "asked for, or ended", 0),
    ]
    return element(
        "dl",
        [
            element(
                "div",
                element("dt", word),
                element("dd", f"{number:,}", element("small", more, class_="bad" if alarm else None)),
            )
            for word, number, more, alarm in tiles
        ],
        class_="numbers",
    )


def _some(number: int) -> str:
    return f"{number:,}" if number else "none"


def _days(document: Document, period: Period) -> tuple[Markup, Markup]:
    made = [backup["created"] for backup in document["backups"]] + [one["made"] for one in document["gone"]]
    failed = [run["began"] for run in document["runs"]["failed"] if run["kind"] == "backup"]
    inside = [one for one in map(moment, made) if period.start <= one < period.end]
    drawn = charts.days(period, inside, map(moment, failed))
    caption = element(
        "figcaption",
        "Backups made, ",
        element("b", "green", class_="good"),
        ", and runs that failed, ",
        element("b", "red", class_="bad"),
        ", by the day on which they began.",
    )
    return drawn, caption


def _each_database(document: Document, period: Period) -> Markup:
    names = sorted({backup["database"] for backup in document["backups"]})
    allowed = {row["database"]: row["rto"] for row in document["databases"]}
    backups, drills = (_by_database(document[word]) for word in ("backups", "drills"))
    parts = [
        part
        for name in names
        for part in _one_database(name, backups[name], drills.get(name, []), allowed.get(name), period)
    ]
    return section("Backups by database", parts or element("p", "None was made.", class_="soft"))


def _one_database(
    name: str, backups: Sequence[Facts], drills: Sequence[Facts], rto: int | None, period: Period
) -> list[Markup]:
    columns: list[Column] = [
        ("Made", lambda row: at(row["created"]), "when"),
        ("Backup", lambda row: code(row["backup"]), ""),
        ("Proof", lambda row: badge(row["proof"]), ""),
        ("Size", lambda row: human_size(row["size"]), "number"),
        ("Holds", lambda row: human_size(row["raw_size"]), "number"),
        ("Copies", lambda row: listed([_copy(copy) for copy in row["copies"]]), "text"),
        ("SHA-256 of the artifact", lambda row: code(row["sha256"]), "hash"),
    ]
    largest = max(backup["size"] for backup in backups)
    sizes = [Point(moment(backup["created"]), backup["size"]) for backup in backups]
    figures = [
        element(
            "figure",
            charts.line(f"Size of the artifacts of {name}", period, sizes, human_size(largest)),
            element("figcaption", "Size of each artifact."),
        )
    ]
    measured = [
        Point(
            moment(drill["began"]),
            drill["recovery_seconds"],
            rto is not None and drill["recovery_seconds"] > rto,
        )
        for drill in drills
        if drill["recovery_seconds"] is not None
    ]
    if measured and rto is not None:
        figures.append(
            element(
                "figure",
                charts.against(f"Recovery times of {name}, as drills measured them", period, measured, rto),
                element(
                    "figcaption", "How long each drill took to bring it back, against what is allowed (rto)."
                ),
            )
        )
    caption = f"{count(len(backups), 'backup')} of {name}."
    return [
        element("h3", name),
        element("div", figures, class_="charts"),
        table(caption, columns, newest(backups, "created"), len(backups)),
    ]


def _copy(copy: Facts) -> str:
    where = copy["location"] or f"{copy['store']}, which is configured no more: {copy['key']}"
    if copy["problem"] is not None:
        return f"{where}: {copy['problem']}"
    return f"{where}, " + (f"read back {at(copy['verified'])}" if copy["verified"] else "never read here")


def _foot(key: str, name: str) -> Markup:
    return element(
        "footer",
        element(
            "p",
            "This page alone proves nothing. Its SHA-256 is in ",
            code(name),
            ", which is signed with the key ",
            code(key),
            ". Keep both files together; to see that neither was altered: ",
            code(f"larder evidence verify {name}"),
        ),
    )


def _by_database(rows: Iterable[Facts]) -> dict[str, list[Facts]]:
    found: dict[str, list[Facts]] = {}
    for row in rows:
        found.setdefault(row["database"], []).append(row)
    return found
