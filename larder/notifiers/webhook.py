"""webhook: a JSON document by HTTP, signed, for programs.

The signature is an HMAC-SHA256, under the secret that both sides know, over the time of sending, a full stop and the
body, byte by byte. docs/notices.md has a recipe to check it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import asdict
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr

from larder import notices, posting
from larder.notifiers import Notice, Notifier, NotifierSettings
from larder.posting import Webhook
from larder.secret import redact_within

#: How many of those that are told together are named; `count` says how many there are.
_TROUBLES = 500

#: Characters of a secret: a word can be guessed.
_SHORTEST = 16


def _long(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < _SHORTEST:
        raise ValueError(f"has to be {_SHORTEST} characters or more")
    return value


class WebhookSettings(NotifierSettings):
    """An address that takes JSON."""

    secret_keys: ClassVar[tuple[str, ...]] = ("url", "secret")

    url: Webhook = Field(description="the address, which is a secret")
    secret: Annotated[SecretStr, AfterValidator(_long)] | None = Field(
        default=None, description="what its messages are signed with, 16 characters or more"
    )


class WebhookNotifier(Notifier):
    """Posts to one address."""

    def __init__(self, settings: WebhookSettings) -> None:
        super().__init__(settings)
        self._url = settings.url.get_secret_value()
        self._secret = settings.secret.get_secret_value().encode() if settings.secret else None

    def post(self, notice: Notice, seconds: float) -> None:
        """Post one document."""
        body = _document(notice)
        headers = {"Content-Type": "application/json"}
        if self._secret is not None:
            headers["Larder-Signature"] = signature(self._secret, int(time.time()), body)
        posting.post(self._url, body, headers, seconds, "see whether it still takes messages, and from whom")


def signature(secret: bytes, moment: int, body: bytes) -> str:
    """The header's value for `body`, sent at `moment` (seconds since 1970)."""
    made = hmac.new(secret, b"%d.%b" % (moment, body), hashlib.sha256).hexdigest()
    return f"t={moment},v1={made}"


def _document(notice: Notice) -> bytes:
    """What is known, without what is not; `title` and `text` are for people."""
    known = {key: value for key, value in asdict(notice).items() if value not in (None, "", ())}
    if notice.troubles:
        known |= {"count": len(notice.troubles), "troubles": known["troubles"][:_TROUBLES]}
    document = {
        **known,
        "words": sorted(notice.words),
        "title": notices.headline(notice),
        "text": notices.as_text(notice),
    }
    return json.dumps(redact_within(document), ensure_ascii=False).encode()


SETTINGS = WebhookSettings
NOTIFIER = WebhookNotifier
