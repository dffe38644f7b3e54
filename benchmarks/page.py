"""docs/benchmarks.md's measured part and its charts, from the results: nothing in them is typed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from benchmarks.chart import Bar, Stack, bars, stacks
from benchmarks.figures import LIMIT, SCRIPT, Parts, Verdict, entry, median, ratio, spread, verdicts

#: What lies between these lines is written anew; the rest of the page is by hand.
BEGIN: Final = "<!-- measured: from here on written by `make bench` -->"
END: Final = "<!-- measured: up to here -->"

#: What targets compare with, in a cell.
_BASES: Final = {SCRIPT: "the script", LIMIT: "pg_dump alone"}

#: The load average before a run up to which a machine counts as quiet.
QUIET: Final = 0.5

#: The parts in the order of the page, with their titles.
TITLES: Final = {
    "backup": "Backups of PostgreSQL",
    "sqlite": "Backups of SQLite",
    "restore": "Restores of PostgreSQL",
    "fleet": "Many small databases",
    "overhead": "The chain itself",
    "memory": "Memory",
    "idle": "Idle",
}


def placed(page: str, measured: str) -> str:
    """The page with what was measured in its place; raises `ValueError` when it has no such place."""
    before, found, rest = page.partition(BEGIN)
    _, also, after = rest.partition(END)
    if not found or not also:
        raise ValueError(f"the page has no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{measured.strip()}\n\n{END}{after}"


def charts(parts: Parts) -> dict[str, str]:
    """The drawings, by their files' names."""
    found = {}
    for name in ("backup", "sqlite", "restore"):
        part = parts.get(name)
        if part is None:
            continue
        rows = [
            Bar(one["label"], one["kind"], one["seconds"]) for one in part["contestants"] if one["seconds"]
        ]
        if rows:
            title = (
                f"{TITLES[name]}: medians of {part['settings']['rounds']} rounds, and the slowest and fastest"
            )
            found[f"benchmarks-{name}.svg"] = bars(title, rows)
        made_up = [
            Stack(
                one["label"],
                [(step["name"], median(step["seconds"])) for step in one["steps"] if step["seconds"]],
            )
            for one in part["contestants"]
            if one.get("steps")
        ]
        if made_up:
            found[f"benchmarks-{name}-steps.svg"] = stacks(
                f"{TITLES[name]}: where Larder's seconds go", made_up
            )
    return found


def measured(parts: Parts) -> str:
    """The page's measured part, in Markdown."""
    shown = {name: parts[name] for name in TITLES if name in parts}
    sections = [_machines(shown), _glance(shown)]
    for name, part in shown.items():
        sections.append(f"## {TITLES[name]}\n\n{_WRITERS[name](name, part)}")
    return "\n\n".join(section for section in sections if section)


def _machines(parts: Parts) -> str:
    """What it was measured on; parts that were measured at other times or places say so."""
    lines: dict[str, list[str]] = {}
    for name, part in parts.items():
        machine = part["machine"]
        tools = ", ".join(f"{tool} {version}" for tool, version in machine["versions"].items())
        text = (
            f"{machine['cores']} cores that everybody shares, {machine['memory'] / 1e9:.0f} GB of memory, "
            f"{machine['kernel']}; {tools}"
        )
        lines.setdefault(text, []).append(f"{TITLES[name].lower()} ({part['measured']})")
    if len(lines) == 1:
        dates = sorted({part["measured"] for part in parts.values()})
        said = f"Measured {' and '.join(dates)} on {next(iter(lines))}."
    else:
        said = "\n".join(f"- {', '.join(names)}: {text}." for text, names in lines.items())
    load = max((part["load"] for part in parts.values()), default=0)
    if load > QUIET:
        said += f"\n\n**The machine was not quiet**: its load was {load:.1f} when a part began."
    return said


def _glance(parts: Parts) -> str:
    rows = []
    for name, part in parts.items():
        for verdict in verdicts(name, part):
            said = "holds" if verdict.good else "**missed**"
            rows.append(
                (f"{TITLES[name]}: {verdict.target.what}", verdict.shown, verdict.target.wanted, said)
            )
    return "## Targets\n\n" + table(("", "measured", "target", ""), rows) if rows else ""


def _compared(name: str, part: dict[str, Any]) -> str:
    """Everybody's times, what they made, and whether it restores; then where Larder's seconds go."""
    settings = part["settings"]
    size = (
        f"{settings['bytes'] / 1e6:,.0f} MB"
        if "bytes" in settings
        else f"about {settings['megabytes']:,} MB as plain dump"
    )
    raw = next((one["raw"] for one in part["contestants"] if "raw" in one), None)
    if raw and "bytes" not in settings:
        size = f"{raw / 1e6:,.0f} MB as plain dump"
    server = f" on PostgreSQL {settings['postgres']} as it comes" if "postgres" in settings else ""
    contents = {"pgbench": ": pgbench alone", "mixed": ": pgbench, JSONB events, long texts, bytea"}
    what = contents.get(settings.get("data", ""), "")
    lines = [f"One database of {size}{server}{what}; medians of {settings['rounds']} rounds."]
    lines.append(f"![{TITLES[name]}](images/benchmarks-{name}.svg)")
    lines.append(_everybody(name, part))
    lines += _remarks(part)
    with_steps = [one for one in part["contestants"] if one.get("steps")]
    if with_steps:
        lines.append(f"### {TITLES[name]}: where the seconds go")
        lines.append(f"![{TITLES[name]}, step by step](images/benchmarks-{name}-steps.svg)")
        lines.append(_steps(with_steps))
    return "\n\n".join(lines)


def _everybody(name: str, part: dict[str, Any]) -> str:
    has_limit, has_size = entry(part, LIMIT) is not None, any(one.get("size") for one in part["contestants"])
    has_command = any(one.get("command") for one in part["contestants"])
    head = ["", "median", "min–max", "of the script"]
    head += ["of pg_dump alone"] if has_limit else []
    head += ["whole command"] if has_command else []
    head += ["made"] if has_size else []
    head += ["CPU", "server's CPU", "restores", "targets"]
    judged = verdicts(name, part)
    rows = []
    for one in part["contestants"]:
        if not one["seconds"]:
            rows.append([one["label"], *["–"] * (len(head) - 3), f"**no**: {one['restored']}", ""])
            continue
        row = [
            f"**{one['label']}**" if one["kind"] == "larder" else one["label"],
            f"{median(one['seconds']):.2f} s",
            spread(one["seconds"]),
            _part_of(part, one["key"], SCRIPT),
        ]
        row += [_part_of(part, one["key"], LIMIT)] if has_limit else []
        row += [f"{median(one['command']):.2f} s" if one.get("command") else ""] if has_command else []
        row += [f"{one['size'] / 1e6:,.1f} MB" if one.get("size") else ""] if has_size else []
        cpu = one["cpu"]
        row += [f"{cpu['own'] + cpu['tools'] + cpu['redis']:.1f} s", f"{cpu['server']:.1f} s", _restores(one)]
        mine = [verdict for verdict in judged if verdict.target.key == one["key"]]
        row.append(
            "; ".join(
                f"{verdict.target.wanted} of {_BASES[verdict.target.base]}: {_said(verdict)}"
                for verdict in mine
            )
        )
        rows.append(row)
    return table(head, rows)


def _said(verdict: Verdict) -> str:
    return "holds" if verdict.good else "**missed**"


def _restores(one: dict[str, Any]) -> str:
    if one["kind"] == LIMIT:
        return "–"
    return "yes" if one["restored"] is True else f"**no**: {one['restored']}"


def _part_of(part: dict[str, Any], key: str, base: str) -> str:
    value = ratio(part, key, base)
    return "" if value is None else f"{value:.2f}"


def _remarks(part: dict[str, Any]) -> list[str]:
    """What a reader should know of somebody, and who did not take part."""
    notes: dict[str, list[str]] = {}
    for one in part["contestants"]:
        if one.get("note"):
            notes.setdefault(one["note"], []).append(one["label"])
    lines = [f"- {', '.join(labels)}: {note}." for note, labels in notes.items()]
    lines += [f"- {one['label']}: skipped, {one['why']}." for one in part["skipped"]]
    return ["\n".join(lines)] if lines else []


def _steps(contestants: Sequence[dict[str, Any]]) -> str:
    head = ("", "step", "median", "Larder's CPU", "tools' CPU", "server's CPU", "read", "written")
    rows = []
    for one in contestants:
        label = one["label"]
        for step in one["steps"]:
            cpu = step["cpu"]
            seconds = f"{median(step['seconds']):.2f} s" if step["seconds"] else "–"
            used = [f"{cpu[role]:.2f} s" for role in ("own", "tools", "server")]
            rows.append(
                (label, step["name"], seconds, *used, _megabytes(step["read"]), _megabytes(step["written"]))
            )
            label = ""
    return table(head, rows)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _fleet(_name: str, part: dict[str, Any]) -> str:
    settings = part["settings"]
    rows = []
    for kind, count in (("sqlite", settings["sqlite"]), ("postgres", settings["postgres"])):
        for one in part["contestants"]:
            if one["key"].startswith(f"{kind}-") and one["seconds"]:
                seconds = median(one["seconds"])
                against = ratio(part, f"{kind}-{SCRIPT}", one["key"])
                title = {
                    "sqlite": f"{count} SQLite files of 1 MB",
                    "postgres": f"{count} PostgreSQL databases of 5 MB",
                }
                rows.append(
                    (title[kind], one["label"], f"{seconds:.2f} s", spread(one["seconds"]), f"{count / seconds:.1f}",
                     "" if against is None else f"{against:.2f}", _restores(one))
                )  # fmt: skip
    lines = [
        f"Medians of {settings['rounds']} rounds. Three databases of each, the first and the last among them, are "
        "brought back and compared."
    ]
    lines.append(table(("", "", "median", "min–max", "a second", "times the script's rate", "restore"), rows))
    lines += _remarks(part)
    scales = [
        (
            f"{one['databases']:,}",
            f"{one['seconds']:.1f} s",
            f"{one['seconds'] / one['databases'] * 1000:.0f} ms",
        )
        for one in part["scales"]
    ]
    if scales:
        lines.append("What Larder takes for fleets of SQLite files of 50 kB, once each:")
        lines.append(table(("databases", "all", "each"), scales))
    return "\n\n".join(lines)


def _overhead(_name: str, part: dict[str, Any]) -> str:
    figures = part["figures"]
    rows = []
    for kind, title in (("sqlite", "SQLite, 10 kB"), ("postgres", "PostgreSQL, a hundred rows")):
        cells = [f"{figures[f'{kind}_{name}']:.0f} ms" for name in ("chain", "work", "overhead", "ledger")]
        rows.append((title, *cells))
    lines = [
        f"Backups of tiny databases, one after the other, by a worker that is there; medians of "
        f"{part['settings']['backups']}. Engines, codecs, stores and the ledger have clocks on them. The chain itself "
        "is what is not engine, codec, hash and store: messages, the ledger, folders, signatures, log lines."
    ]
    lines.append(
        table(("", "chain", "engine, codec, hash, store", "the chain itself", "ledger, of that"), rows)
    )
    titles = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
    steps = [
        (titles[kind], step, *(f"{found[room]:.1f} ms" for room in ("seconds", "work", "ledger")))
        for kind, every in part["steps"].items()
        for step, found in every.items()
    ]
    lines.append(table(("", "step", "median", "engine, codec, hash, store", "ledger"), steps))
    return "\n\n".join(lines)


def _memory(_name: str, part: dict[str, Any]) -> str:
    rows = [
        (f"{one['raw'] / 1e6:,.0f} MB", f"{one['peak'] / 1e6:.1f} MB", f"{one['seconds']:.1f} s")
        for one in part["sizes"]
    ]
    lines = ["The largest that one of Larder's processes ever was during a backup, plain with gzip."]
    return "\n\n".join([*lines, table(("plain dump", "largest process", "chain"), rows)])


def _idle(_name: str, part: dict[str, Any]) -> str:
    figures = part["figures"]
    names = [name for name in figures if name != "percent"]
    rows = [(name, f"{figures[name]:.2f} %") for name in names] + [
        ("together", f"{figures['percent']:.2f} %")
    ]
    lines = [
        f"CPU of a stack with nothing to do, over {part['settings']['seconds']} s, in percent of a core."
    ]
    return "\n\n".join([*lines, table(("", "of a core"), rows)])


_WRITERS: Final = {
    "backup": _compared,
    "sqlite": _compared,
    "restore": _compared,
    "fleet": _fleet,
    "overhead": _overhead,
    "memory": _memory,
    "idle": _idle,
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
