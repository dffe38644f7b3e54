"""ping: one request when a backup begins, and one when it has ended, for something that notices silence.

As Healthchecks has it: the address alone for success, `/start` and `/fail` behind it for the others. Drills, restores
and objectives are not pinged: a ping says that a backup was made, and nothing else may say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import AfterValidator, Field, SecretStr

from larder import notices, posting
from larder.notifiers import Notice, Notifier, NotifierSettings, Word
from larder.posting import Webhook

#: What stands behind the address.
_ENDS = {"start": "/start", "failure": "/fail"}

#: What stands for the database's name in the address.
_DATABASE = "{database}"

#: Characters of a message; Healthchecks keeps 100 kB of it.
_LONGEST = 10_000


def _no_end(value: SecretStr) -> SecretStr:
    if urlsplit(value.get_secret_value()).path.rstrip("/").endswith(("/start", "/fail")):
        raise ValueError("has to be the check's own address, without /start or /fail")
    return value


class PingSettings(NotifierSettings):
    """A check that is to be kept from going off."""

    grouped: ClassVar[bool] = False

    #: A check that hears of one end and not of the other is of no use.
    on: tuple[Word, ...] = Field(default=(), exclude=True)
    url: Annotated[Webhook, AfterValidator(_no_end)] = Field(
        description="the check's address, which is a secret; {database} stands for the database's name"
    )
    databases: tuple[str, ...] = Field(default=(), description="whose backups are pinged; empty: every one's")

    def secrets(self) -> Iterator[str]:
        """The address, and what of it stands before a database's name."""
        yield from super().secrets()
        before, name, _ = self.url.get_secret_value().partition(_DATABASE)
        if name and urlsplit(before).path.strip("/"):
            yield before

    @property
    def told_of(self) -> str:
        """What it is told of, in words."""
        return f"each backup's beginning and end, of {', '.join(self.databases) or 'every database'}"

    def wants(self, notice: Notice) -> bool:
        """Whether it is a backup's beginning or end, of a database that it is for."""
        mine = not self.databases or notice.database in self.databases
        return mine and notice.about == "backup" and notice.event in ("start", "success", "failure")


class Ping(Notifier):
    """Pings one check, or one for each database."""

    def __init__(self, settings: PingSettings) -> None:
        super().__init__(settings)
        self._url = settings.url.get_secret_value()

    def post(self, notice: Notice, seconds: float) -> None:
        """Ping once."""
        text = "" if notice.event == "start" else f"{notices.headline(notice)}\n\n{notices.as_text(notice)}"
        posting.post(
            self._address(notice),
            text[:_LONGEST].encode(),
            {"Content-Type": "text/plain; charset=utf-8"},
            seconds,
            "see whether the check still exists",
        )

    def _address(self, notice: Notice) -> str:
        parts = urlsplit(self._url.replace(_DATABASE, quote(notice.database, safe="")))
        path = parts.path.rstrip("/") + _ENDS[notice.event] if notice.event in _ENDS else parts.path
        return urlunsplit(parts._replace(path=path))


SETTINGS = PingSettings
NOTIFIER = Ping
