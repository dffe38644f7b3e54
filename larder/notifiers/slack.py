"""slack: a message by an incoming webhook. The webhook's address is a secret: whoever has it can write there."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from larder import notices, posting
from larder.notifiers import Notice, Notifier, NotifierSettings
from larder.posting import Webhook
from larder.secret import redact

#: Characters of one text that are sent, as Slack counts them. It refuses a message with more than 3000 in a block.
LONGEST = 2500

#: The same for one of a block's fields, of which Slack takes 2000, and for a header, of which it takes 150.
LONGEST_FIELD = 500
LONGEST_HEADER = 150

#: Blocks of one message, and fields of one block, that Slack takes.
_BLOCKS = 50
_FIELDS = 10

_SPELLED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class SlackSettings(NotifierSettings):
    """A channel of Slack's."""

    url: Webhook = Field(description="the webhook's address, which is a secret")


class Slack(Notifier):
    """Writes to one channel."""

    def __init__(self, settings: SlackSettings) -> None:
        super().__init__(settings)
        self._url = settings.url.get_secret_value()

    def post(self, notice: Notice, seconds: float) -> None:
        """Send one message."""
        message = {"text": _escaped(notices.headline(notice)), "blocks": _blocks(notice)}
        posting.post(
            self._url,
            json.dumps(message).encode(),
            {"Content-Type": "application/json;charset=utf-8"},
            seconds,
            "see whether the webhook still exists, and make a new one in Slack",
        )


def _blocks(notice: Notice) -> list[dict[str, Any]]:
    title = f"{notices.icon(notice)} {notices.title(notice)}"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title[:LONGEST_HEADER]}}
    ]
    fields = [_named(*fact, LONGEST_FIELD) for fact in notices.facts(notice)[:_FIELDS]]
    if fields:
        blocks.append({"type": "section", "fields": fields})
    blocks += [{"type": "section", "text": _named(*one, LONGEST)} for one in notices.passages(notice)]
    footer = _escaped(notices.footer(notice))
    if footer:
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": footer}]})
    return blocks[:_BLOCKS]


def _named(name: str, text: str, longest: int) -> dict[str, str]:
    return {"type": "mrkdwn", "text": f"*{name}*\n{_escaped(text, longest)}"}


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


SETTINGS = SlackSettings
NOTIFIER = Slack
