"""slack: a message by an incoming webhook. The webhook's address is a secret: whoever has it can write there."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any
from urllib.error import URLError

from slack_sdk.webhook import WebhookClient

from larder import notifiers
from larder.errors import RefusedError, UnreachableError
from larder.notifiers import Notice, Notifier
from larder.objectives import span
from larder.progress import human_seconds, human_size
from larder.secret import redact

#: Characters of one text that are sent, as Slack counts them. It refuses a message with more than 3000 in a block.
LONGEST = 2500

#: The same for one of a block's fields, of which Slack takes 2000.
LONGEST_FIELD = 500

#: How many of a drill's differences are shown.
SHOWN = 10

#: What Slack says when it refuses: `no_service`. Others repeat the address in a page of their own.
_WORDS = re.compile(r"[a-z_ ]{1,60}")

#: What a notice is about, up to the database's name.
_SUBJECTS = {
    "backup": "Backup of",
    "verification": "Verification of the backups of",
    "restore": "Restore into",
    "drill": "Drill of",
}

_SPELLED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

#: slack_sdk logs the webhook's address, and the proxy's password, when it logs at all.
_SILENCE = logging.Logger("slack", level=logging.CRITICAL + 1)


class Slack(Notifier):
    """Writes to one channel."""

    def send(self, notice: Notice) -> None:
        """Send one message. Raises `UnreachableError`, or `RefusedError` where Slack does not know the address."""
        client = WebhookClient(
            self.settings.url.get_secret_value(),
            timeout=notifiers.TIMEOUT,
            logger=_SILENCE,
            retry_handlers=[],
        )
        # slack_sdk's own reading of the environment knows no NO_PROXY; without it, urllib's takes over, which does.
        client.proxy = None
        try:
            answer = client.send(text=_headline(notice), blocks=_blocks(notice))
        except Exception as error:  # noqa: BLE001 - whatever it is, its text or its context may hold the address
            raise UnreachableError(
                f"unable to tell {self.name}: {_reason(error)}",
                "see whether this machine reaches Slack, or needs a proxy",
            ) from None
        if answer.status_code // 100 == 2:
            return
        said = answer.body if _WORDS.fullmatch(answer.body) else ""
        message = f"unable to tell {self.name}: it answered {answer.status_code} {said}".rstrip()
        if answer.status_code // 100 == 4 and answer.status_code != 429:
            raise RefusedError(message, "see whether the webhook still exists, and make a new one in Slack")
        raise UnreachableError(message)


def _reason(error: BaseException) -> str:
    """Why a request failed, in the system's words. Never the error's own text, which may name the address."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {notifiers.TIMEOUT} seconds"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return type(cause).__name__


def _headline(notice: Notice) -> str:
    """One line, which phones show."""
    if notice.about in _OTHER_FACTS:
        return _escaped(f"{_title(notice)}: {_OTHER_FACTS[notice.about](notice)}")
    if notice.event == "failure":
        return _escaped(f"{_title(notice)} at {notice.step or 'start'}")
    if notice.about == "restore":
        return _escaped(f"{_title(notice)}: {notice.artifact} in {human_seconds(notice.seconds)}")
    facts = f"{notice.artifact}, {_size(notice)} in {human_seconds(notice.seconds)}"
    return _escaped(f"Backup of {notice.database} done: {facts}")


def _of_drill(notice: Notice) -> str:
    if _is_broken(notice):
        return f"{notice.backup} is not what was backed up, {_count(len(notice.differences), 'difference')}"
    if notice.event == "failure":
        return f"at {notice.step or 'start'}, which proves nothing of {notice.backup or 'any backup'}"
    facts = f"{_count(notice.tables, 'table')}, {_count(notice.rows, 'row')}, {_recovered(notice)}"
    return f"{notice.backup} proven, {facts}"


def _of_objective(notice: Notice) -> str:
    return notice.detail or f"after {span(notice.seconds)}"


#: What the line for phones says of what is no passage of a backup or restore, after its title.
_OTHER_FACTS: dict[str, Callable[[Notice], str]] = {
    "verification": lambda notice: notice.error or "unknown",
    "drill": _of_drill,
    "objective": _of_objective,
}


def _title(notice: Notice) -> str:
    if notice.about == "objective":
        end = "missed" if notice.event == "failure" else "met again"
        return f"{notice.objective} of {notice.database} {end}"
    end = "failed" if notice.event == "failure" else "done"
    return f"{_SUBJECTS[notice.about]} {notice.database} {end}"


def _blocks(notice: Notice) -> list[dict[str, Any]]:
    failed = notice.event == "failure"
    title = f"{'❌' if failed else '✅'} {_title(notice)}"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title[:150]}},
        {"type": "section", "fields": [_field(*fact) for fact in _facts(notice)]},
    ]
    if failed:
        blocks.append(
            _differences(notice) if notice.differences else _section("Cause", notice.error or "unknown")
        )
        if notice.hint:
            blocks.append(_section("What to do", notice.hint))
    elif notice.detail:
        blocks.append(_section("Now", notice.detail))
    if notice.warnings:
        blocks.append(_section("Warnings", "\n".join(f"• {warning}" for warning in notice.warnings)))
    since = "since " if notice.about == "objective" else ""
    footer = " · ".join(filter(None, [f"run {notice.run}" if notice.run else "", since + notice.created]))
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _escaped(footer)}]})
    return blocks


def _facts(notice: Notice) -> list[tuple[str, str]]:
    if notice.about == "objective":
        missed_for = [("Missed for", span(notice.seconds))] if notice.event == "recovered" else []
        return [("Database", notice.database), ("Objective", notice.objective), *missed_for]
    if notice.about == "drill":
        return _drill(notice)
    return _failure(notice) if notice.event == "failure" else _success(notice)


def _drill(notice: Notice) -> list[tuple[str, str]]:
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


def _differences(notice: Notice) -> dict[str, Any]:
    shown = [f"• {line}" for line in notice.differences[:SHOWN]]
    if len(notice.differences) > SHOWN:
        shown.append(f"… and {len(notice.differences) - SHOWN} more")
    return _section("Differences" if _is_broken(notice) else "Checks that are not true", "\n".join(shown))


def _is_broken(notice: Notice) -> bool:
    return notice.outcome == "broken"


def _recovered(notice: Notice) -> str:
    seconds = notice.recovery_seconds
    return f"recovered in {human_seconds(notice.seconds if seconds is None else seconds)}"


def _count(number: int | None, what: str) -> str:
    return f"{number or 0:,} {what}{'' if number == 1 else 's'}"


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


def _size(notice: Notice) -> str:
    return "size unknown" if notice.size is None else human_size(notice.size)


def _field(name: str, value: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": f"*{name}*\n{_escaped(value, LONGEST_FIELD)}"}


def _section(name: str, text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": f"*{name}*\n{_escaped(text)}"}}


def _escaped(text: str, longest: int = LONGEST) -> str:
    """Text without secrets, cut where it is too long, as Slack's markup has it.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    """
    found: list[str] = []
    room = longest
    for character in redact(text):
        spelled = _SPELLED.get(character, character)
        room -= len(spelled)
        if room < 1:
            return "".join(found) + "…"
        found.append(spelled)
    return "".join(found)


NOTIFIER = Slack
