"""slack: a message by an incoming webhook. The webhook's address is a secret: whoever has it can write there."""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.error import URLError

from slack_sdk.webhook import WebhookClient

from larder import notifiers
from larder.errors import RefusedError, UnreachableError
from larder.notifiers import Notice, Notifier
from larder.progress import human_seconds, human_size
from larder.secret import redact

#: Characters of one text that are sent, as Slack counts them. It refuses a message with more than 3000 in a block.
LONGEST = 2500

#: The same for one of a block's fields, of which Slack takes 2000.
LONGEST_FIELD = 500

#: What Slack says when it refuses: `no_service`. Others repeat the address in a page of their own.
_WORDS = re.compile(r"[a-z_ ]{1,60}")

#: What a notice is about, up to the database's name.
_SUBJECTS = {
    "backup": "Backup of",
    "verification": "Verification of the backups of",
    "restore": "Restore into",
}

_SPELLED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

#: slack_sdk logs the webhook's address, and the proxy's password, when it logs at all.
_SILENCE = logging.Logger("slack", level=logging.CRITICAL + 1)


class Slack(Notifier):
    """Writes to one channel."""

    def send(self, notice: Notice) -> None:
        """Tell about one run. Raises `UnreachableError`, or `RefusedError` where Slack does not know the address."""
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
    if notice.about == "verification":
        return _escaped(f"{_title(notice)}: {notice.error}")
    if notice.event == "failure":
        return _escaped(f"{_title(notice)} at {notice.step or 'start'}")
    if notice.about == "restore":
        return _escaped(f"{_title(notice)}: {notice.artifact} in {human_seconds(notice.seconds)}")
    facts = f"{notice.artifact}, {_size(notice)} in {human_seconds(notice.seconds)}"
    return _escaped(f"Backup of {notice.database} done: {facts}")


def _title(notice: Notice) -> str:
    end = "failed" if notice.event == "failure" else "done"
    return f"{_SUBJECTS[notice.about]} {notice.database} {end}"


def _blocks(notice: Notice) -> list[dict[str, Any]]:
    failed = notice.event == "failure"
    title = f"{'❌' if failed else '✅'} {_title(notice)}"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title[:150]}},
        {
            "type": "section",
            "fields": [_field(*fact) for fact in (_failure(notice) if failed else _success(notice))],
        },
    ]
    if failed:
        blocks.append(_section("Cause", notice.error or "unknown"))
        if notice.hint:
            blocks.append(_section("What to do", notice.hint))
    if notice.warnings:
        blocks.append(_section("Warnings", "\n".join(f"• {warning}" for warning in notice.warnings)))
    footer = " · ".join(filter(None, [f"run {notice.run}" if notice.run else "", notice.created]))
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _escaped(footer)}]})
    return blocks


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
