"""apprise: any of the hundred services that apprise knows, each by an address that is a secret.

https://github.com/caronc/apprise/wiki lists them.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr

from larder import notices
from larder.errors import RefusedError, UnreachableError
from larder.notifiers import NEWS, Notice, Notifier, NotifierSettings, PartlyToldError, Word

#: What apprise's log says of an answer.
_STATUS = re.compile(r"error=(\d{3})\b")

#: Answers after which the same message may be taken: too slow, too early, too many.
_LATER = (408, 425, 429)

_HINT = "see whether it can be reached, and whether its address is right: apprise -vv ADDRESS says more"


def _addresses(value: SecretStr) -> SecretStr:
    for address in value.get_secret_value().split():
        if "://" not in address:
            raise ValueError(
                "has to be addresses as apprise has them, parted by blanks: tgram://… mailto://…"
            )
    if not value.get_secret_value().strip():
        raise ValueError("is empty")
    return value


class AppriseSettings(NotifierSettings):
    """Services, one or several."""

    on: tuple[Word, ...] = Field(default=NEWS, description="what it is told about")
    url: Annotated[SecretStr, AfterValidator(_addresses)] = Field(
        description="the service's address, which is a secret, or several, parted by blanks"
    )

    def secrets(self) -> Iterator[str]:
        """Each address, what stands behind its scheme unless that is a host alone, and its password alone."""
        for address in self.url.get_secret_value().split():
            yield address
            rest = address.partition("://")[2].strip("/")
            if "/" in rest or "@" in rest:
                yield rest
            try:
                password = urlsplit(address).password or ""
            except ValueError:
                continue
            yield from (password, unquote(password))


class Apprise(Notifier):
    """Tells services that apprise knows."""

    def __init__(self, settings: AppriseSettings) -> None:
        super().__init__(settings)
        # Before its time runs: no service is slow because apprise is to import, and half of it is of no use.
        _library()
        self._addresses = settings.url.get_secret_value().split()

    def post(self, notice: Notice, seconds: float) -> None:
        """Tell every service; where some are told and others cannot be, nobody is told again."""
        apprise = _library()
        limits = apprise.AppriseAsset(http_redirects=False, async_mode=False)
        failed: list[UnreachableError] = []
        for number, address in enumerate(self._addresses, start=1):
            which = f"service {number} of {len(self._addresses)} " if len(self._addresses) > 1 else ""
            service = apprise.Apprise.instantiate(address, asset=limits, suppress_exceptions=True)
            if not service:
                failed.append(RefusedError(f"{which}has no address that apprise knows", _HINT))
                continue
            # Whoever waits for this has given up by then, and says so.
            service.socket_connect_timeout = service.socket_read_timeout = seconds + 1
            with _EAR.answers() as answers:
                told = service.notify(
                    body=notices.as_text(notice),
                    title=f"{notices.icon(notice)} {notices.title(notice)}",
                    body_format=apprise.NotifyFormat.TEXT,
                    notify_type=_kind(apprise, notice),
                )
            if not told:
                failed.append(_failure(which, answers))
        if failed and len(failed) < len(self._addresses):
            raise PartlyToldError(f"{failed[0].message}, and the others were told", failed[0].hint)
        if failed:
            raise failed[0]


def _kind(apprise: ModuleType, notice: Notice) -> object:
    kinds = {"failure": apprise.NotifyType.FAILURE, "asked": apprise.NotifyType.WARNING}
    return kinds.get(notice.event, apprise.NotifyType.SUCCESS)


def _failure(which: str, answers: list[int]) -> UnreachableError:
    if not answers:
        return UnreachableError(f"{which}could not be told", _HINT)
    status = answers[-1]
    message = f"{which}answered {status}"
    if status // 100 in (3, 4) and status not in _LATER:
        return RefusedError(message, _HINT)
    return UnreachableError(message)


class _Ear(logging.Filter):
    """Lets no line of apprise's log pass, since addresses are in them; and keeps the numbers of answers, by thread.

    They are nowhere else.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heard: dict[int, list[int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        found = self._heard.get(threading.get_ident())
        if found is not None:
            found.extend(int(number) for number in _STATUS.findall(record.getMessage()))
        return False

    @contextmanager
    def answers(self) -> Iterator[list[int]]:
        """The numbers of the answers that this thread's services give during a block."""
        thread = threading.get_ident()
        found = self._heard[thread] = []
        try:
            yield found
        finally:
            del self._heard[thread]


_EAR = _Ear()


@cache
def _library() -> ModuleType:
    """apprise, whose log goes nowhere, nor do the lines that name what it makes requests of.

    Slow to import: it looks at all of its services, once it is to know an address.
    """
    logging.getLogger("apprise").addFilter(_EAR)
    logging.getLogger("urllib3").setLevel(logging.INFO)
    import apprise  # noqa: PLC0415

    apprise.Apprise.instantiate("json://localhost")
    return apprise


SETTINGS = AppriseSettings
NOTIFIER = Apprise
