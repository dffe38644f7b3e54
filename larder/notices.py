"""What notices say, in words. Every notifier for people puts the same together in its own way.

A notice has a title, a line that says it all, facts (a name and a few words each), and passages (a name and lines). No
text in here is escaped, and none holds a secret.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

from larder.notifiers import Notice, Trouble
from larder.objectives import span
from larder.progress import human_seconds, human_size
from larder.secret import redact

#: How many of a drill's differences are shown, of the databases that are told of together, and of their causes.
_DIFFERENCES = 10
_DATABASES = 20
_CAUSES = 3

#: Characters of one value of a fact, and of one passage, that are shown.
_LONGEST_FACT = 500
_LONGEST_PASSAGE = 2500

#: What is no text: a line of it must not begin a header, or hide what comes after.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

#: What a notice is about, up to the database's name.
_SUBJECTS = {
    "backup": "Backup of",
    "copies": "Copies of the backup of",
    "verification": "Verification of the backups of",
    "restore": "Restore into",
    "drill": "Drill of",
}

#: How each is called where several are told of together.
_MEMBERS = {
    "backup": "Backups",
    "copies": "Copies",
    "drill": "Drills",
    "verification": "Verification",
    "rpo": "Recovery point (rpo)",
    "proof": "Proof",
    "rto": "Recovery time (rto)",
}


def icon(notice: Notice) -> str:
    """One sign, which shows from afar how it stands."""
    return {"failure": "❌", "asked": "🔑", "test": "👋"}.get(notice.event, "✅")


def headline(notice: Notice) -> str:
    """One line, which phones show, without control characters."""
    return _CONTROL.sub(" ", redact(_headline(notice))).strip()


def title(notice: Notice) -> str:
    """What has happened to what, without control characters."""
    return _CONTROL.sub(" ", redact(_title(notice))).strip()


def facts(notice: Notice) -> list[tuple[str, str]]:
    """Names and values, in the order that they are read in."""
    return [(name, _cut(value, _LONGEST_FACT)) for name, value in _FACTS.get(notice.about, _of_run)(notice)]


def passages(notice: Notice) -> list[tuple[str, str]]:
    """Names and lines, in the order that they are read in."""
    return [(name, _cut(text, _LONGEST_PASSAGE)) for name, text in _passages(notice) if text]


def footer(notice: Notice) -> str:
    """Where to look for more, and when it was."""
    since = "since " if notice.about == "objective" or notice.event == "recovered" else ""
    parts = [f"run {notice.run}" if notice.run else "", since + notice.created if notice.created else ""]
    return redact(" · ".join(filter(None, parts)))


def as_text(notice: Notice) -> str:
    """All of it below its title, as plain text."""
    told = [f"{name}: {value}" for name, value in facts(notice)]
    for name, text in passages(notice):
        told += ["", f"{name}:", text]
    return "\n".join([*told, "", footer(notice)]).strip()


def _cut(text: str, longest: int) -> str:
    text = redact(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _title(notice: Notice) -> str:
    if notice.about == "test":
        return "Larder can tell you here"
    if notice.about == "several":
        count = len({one.database for one in notice.troubles})
        end = "are in trouble" if notice.event == "failure" else "are out of trouble"
        return f"{_count(count, 'database')} {end if count != 1 else end.replace('are', 'is', 1)}"
    if notice.about == "objective":
        end = "missed" if notice.event == "failure" else "met again"
        return f"{notice.objective} of {notice.database} {end}"
    if notice.event == "asked":
        return f"Restore into {notice.database} asked for"
    subject = "Undoing a restore of" if notice.undoes else _SUBJECTS[notice.about]
    ends = {"failure": "failed", "recovered": "well again", "start": "begun"}
    if notice.about == "copies":
        ends = {"failure": "missing", "recovered": "complete again"}
    return f"{subject} {notice.database} {ends.get(notice.event, 'done')}"


def _headline(notice: Notice) -> str:
    said = _SAID.get(notice.about)
    if said is not None:
        return f"{_title(notice)}: {said(notice)}"
    if notice.event == "failure":
        return f"{_title(notice)} at {notice.step or 'start'}"
    if notice.event == "recovered":
        return f"{_title(notice)}: {notice.detail or f'after {span(notice.seconds)}'}"
    if notice.about == "restore":
        if notice.event == "asked":
            return f"{_title(notice)} by {notice.requester}: {notice.backup}, request {notice.request}"
        return f"{_title(notice)}: {notice.artifact} in {human_seconds(notice.seconds)}"
    return f"{_title(notice)}: {notice.artifact}, {_size(notice)} in {human_seconds(notice.seconds)}"


def _of_drill(notice: Notice) -> str:
    if notice.event == "recovered":
        return notice.detail or f"after {span(notice.seconds)}"
    if _is_broken(notice):
        return f"{notice.backup} is not what was backed up, {_count(len(notice.differences), 'difference')}"
    if notice.event == "failure":
        return f"at {notice.step or 'start'}, which proves nothing of {notice.backup or 'any backup'}"
    found = f"{_count(notice.tables, 'table')}, {_count(notice.rows, 'row')}, {_recovered(notice)}"
    return f"{notice.backup} proven, {found}"


def _of_several(notice: Notice) -> str:
    kinds = Counter(one.about for one in notice.troubles)
    if notice.event != "failure":
        return ", ".join(f"{_MEMBERS.get(about, about)}: {count:,}" for about, count in kinds.items())
    (cause, count), *_ = _causes(notice.troubles)
    return f"{count} of {len(notice.troubles)}: {cause}"


#: What the line for phones says of what is no passage of a backup or restore, after its title.
_SAID: dict[str, Callable[[Notice], str]] = {
    "verification": lambda notice: notice.error or notice.detail or f"after {span(notice.seconds)}",
    "copies": lambda notice: notice.error or notice.detail or f"after {span(notice.seconds)}",
    "drill": _of_drill,
    "objective": lambda notice: notice.detail or f"after {span(notice.seconds)}",
    "several": _of_several,
    "test": lambda notice: notice.detail,
}


def _passages(notice: Notice) -> Iterator[tuple[str, str]]:
    if notice.about == "several":
        yield from _summary(notice)
        return
    if notice.event == "failure":
        if notice.differences:
            yield _differences(notice)
        else:
            yield "Cause", notice.error or "unknown"
        yield "What to do", notice.hint or ""
    elif notice.event == "asked":
        yield "Why", notice.reason
        yield "What to do", notice.hint or ""
    else:
        yield "Now", notice.detail
    yield "Warnings", "\n".join(f"• {warning}" for warning in notice.warnings)


def _summary(notice: Notice) -> Iterator[tuple[str, str]]:
    for about in dict.fromkeys(one.about for one in notice.troubles):
        names = list(dict.fromkeys(one.database for one in notice.troubles if one.about == about))
        more = f" and {len(names) - _DATABASES} more" if len(names) > _DATABASES else ""
        yield _MEMBERS.get(about, about), ", ".join(names[:_DATABASES]) + more
    if notice.event == "failure":
        causes = _causes(notice.troubles)
        shown = [f"• {count} × {_cut(cause, _LONGEST_FACT)}" for cause, count in causes[:_CAUSES]]
        if len(causes) > _CAUSES:
            shown.append(f"… and {_count(len(causes) - _CAUSES, 'other cause')}")
        yield "Causes", "\n".join(shown)
        hints = Counter(hint for one in notice.troubles if (hint := _general(one.hint, one.database)))
        yield "What to do", "\n".join(f"• {hint}" for hint, _ in hints.most_common(_CAUSES))


def _causes(troubles: tuple[Trouble, ...]) -> list[tuple[str, int]]:
    """The causes, the commonest first: what differs in a database's name alone is one."""
    return Counter(_general(one.detail, one.database) or "unknown" for one in troubles).most_common()


def _general(text: str, database: str) -> str:
    return re.sub(rf"(?<![\w-]){re.escape(database)}(?![\w-])", "…", text)


def _of_run(notice: Notice) -> list[tuple[str, str]]:
    if notice.event == "asked":
        return _request(notice)
    if notice.event == "recovered":
        return [("Database", notice.database), ("In trouble for", span(notice.seconds))]
    return _failure(notice) if notice.event == "failure" else _success(notice)


def _objective(notice: Notice) -> list[tuple[str, str]]:
    missed_for = [("Missed for", span(notice.seconds))] if notice.event == "recovered" else []
    return [("Database", notice.database), ("Objective", notice.objective), *missed_for]


def _drill(notice: Notice) -> list[tuple[str, str]]:
    if notice.event == "recovered":
        return _of_run(notice)
    found = [
        ("Database", notice.database),
        ("Backup", notice.backup or "none"),
        ("Found", notice.outcome or "nothing"),
        *([("Step", notice.step or "start")] if notice.event == "failure" else []),
    ]
    if notice.level is not None:
        found += [
            ("Compared", notice.level),
            ("Tables", f"{notice.tables or 0:,}"),
            ("Rows", f"{notice.rows or 0:,}"),
        ]
    if notice.recovery_seconds is not None:
        found.append(("Recovery", human_seconds(notice.recovery_seconds)))
    return found


def _several(notice: Notice) -> list[tuple[str, str]]:
    kinds = Counter(one.about for one in notice.troubles)
    return [(_MEMBERS.get(about, about), f"{count:,}") for about, count in kinds.items()]


#: The facts of what is no passage of a chain.
_FACTS: dict[str, Callable[[Notice], list[tuple[str, str]]]] = {
    "objective": _objective,
    "drill": _drill,
    "several": _several,
    "test": lambda notice: [("From", notice.database)],
}


def _success(notice: Notice) -> list[tuple[str, str]]:
    if notice.about == "restore":
        return [
            ("Into", notice.target),
            ("From", notice.artifact or "none"),
            ("Of", notice.created),
            ("Time taken", human_seconds(notice.seconds)),
            ("Request", notice.request),
        ]
    return [
        ("Database", notice.database),
        ("File", notice.artifact or "none"),
        ("Size", _size(notice)),
        ("Time taken", human_seconds(notice.seconds)),
        ("Kept in", ", ".join(notice.stores) or "none"),
        ("Proof", notice.proof or "none"),
    ]


def _failure(notice: Notice) -> list[tuple[str, str]]:
    return [
        ("Database", notice.database),
        ("Step", notice.step or "start"),
        *([("Run", notice.run)] if notice.run else []),
        *([("Into", notice.target), ("Request", notice.request)] if notice.about == "restore" else []),
        ("After", human_seconds(notice.seconds)),
    ]


def _request(notice: Notice) -> list[tuple[str, str]]:
    return [
        ("By", notice.requester),
        ("Backup", notice.backup),
        ("Into", notice.target),
        ("Request", notice.request),
    ]


def _differences(notice: Notice) -> tuple[str, str]:
    shown = [f"• {line}" for line in notice.differences[:_DIFFERENCES]]
    if len(notice.differences) > _DIFFERENCES:
        shown.append(f"… and {len(notice.differences) - _DIFFERENCES} more")
    return "Differences" if _is_broken(notice) else "Checks that are not true", "\n".join(shown)


def _is_broken(notice: Notice) -> bool:
    return notice.outcome == "broken"


def _recovered(notice: Notice) -> str:
    seconds = notice.recovery_seconds
    return f"recovered in {human_seconds(notice.seconds if seconds is None else seconds)}"


def _count(number: int | None, what: str) -> str:
    return f"{number or 0:,} {what}{'' if number == 1 else 's'}"


def _size(notice: Notice) -> str:
    return "size unknown" if notice.size is None else human_size(notice.size)
