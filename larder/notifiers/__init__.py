"""Notifiers: who is told. One file a notifier, named after its word in the configuration.

The contract, which `tests/contracts/test_notifiers.py` holds every notifier to: `send` tells of one notice within
`TIMEOUT` seconds in all or raises `UnreachableError` (`RefusedError` where another try would be answered the same). It
is told about twice rather than never; once the time is over, nothing more of it is sent. Neither an error nor a line of
a log holds an address, a password or a key of a notifier, and nothing is sent on to where an answer leads.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from larder.attempt import Attempt
from larder.errors import ConfigurationError, LarderError, RefusedError, UnreachableError
from larder.fields import Table

#: Seconds that a notifier may take in all.
TIMEOUT = 10

#: Seconds that it may take to tell that something begins, which waits for it.
START_TIMEOUT = 2

#: The kind of a notifier whose table does not name one.
DEFAULT = "slack"

#: What can be told about, as `on` has it. A notice may be several of them.
Word = Literal["failure", "recovered", "drill", "restore", "anomaly", "success"]

#: What people are told about who do not want to hear each morning that all is well.
NEWS: tuple[Word, ...] = ("failure", "recovered", "drill", "restore", "anomaly")


class NotifierSettings(Table):
    """One place that is told how backups went. Each kind adds its own keys, in its own module."""

    #: The keys that are secrets; of `KEY`, `KEY_env` names a variable that holds it.
    secret_keys: ClassVar[tuple[str, ...]] = ("url",)
    #: Whether it is told of failures together, where there are many; one that counts runs is told of each.
    grouped: ClassVar[bool] = True

    name: str = Field(default="", exclude=True)
    type: str = Field(
        default=DEFAULT, description="the kind of notifier: slack, email, webhook, apprise, ping"
    )
    on: tuple[Word, ...] = Field(default=(*NEWS, "success"), description="what it is told about")

    def secrets(self) -> Iterator[str]:
        """What must never be printed."""
        for key in self.secret_keys:
            value = getattr(self, key)
            if isinstance(value, SecretStr):
                yield value.get_secret_value()

    @property
    def told_of(self) -> str:
        """What it is told of, in words."""
        return ", ".join(self.on) or "nothing"

    def wants(self, notice: Notice) -> bool:
        """Whether it is to be told of `notice`."""
        return bool(notice.words & set(self.on))


@dataclass(frozen=True)
class Trouble:
    """One of several things that have failed, or are well again."""

    #: `backup`, `copies`, `drill`, or the word of an objective.
    about: str
    database: str
    detail: str
    hint: str
    #: ISO 8601, UTC.
    since: str
    run: str


@dataclass(frozen=True)
class Notice:
    """How a run, or a verification of what is kept, went; or that an objective is missed, or met again."""

    #: `recovered`: what was told as a failure is none any more. `asked`: somebody wants a restore. `test`: nothing is.
    event: Literal["start", "success", "failure", "recovered", "asked", "test"]
    database: str
    #: The run's id; empty where there is none.
    run: str
    #: The artifact's file name and size in bytes; None where there is none.
    artifact: str | None
    size: int | None
    #: From the run's start to its end; of an objective, for how long it has been missed.
    seconds: float
    #: ISO 8601, UTC: when the backup was taken.
    created: str
    #: `stored` once every copy was read back.
    proof: str | None
    stores: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    #: Those of the warnings that say what is odd about a backup beside those before it.
    anomalies: tuple[str, ...] = ()
    #: A failure's step, cause and cure.
    step: str | None = None
    error: str | None = None
    hint: str | None = None
    #: `copies`: a backup stands, and a store has no copy of it. `several`: see `troubles`.
    about: Literal["backup", "copies", "verification", "restore", "drill", "objective", "several", "test"] = (
        "backup"
    )
    #: A restore's request, who wants it and why, and the address that it goes into.
    request: str = ""
    requester: str = ""
    reason: str = ""
    target: str = ""
    #: The request that this restore takes back.
    undoes: str = ""
    #: A drill's backup, what it found (`proven`, `broken`, `failed`) and how closely it compared.
    backup: str = ""
    outcome: str | None = None
    level: str | None = None
    tables: int | None = None
    rows: int | None = None
    #: From the store to a database that was examined, in seconds.
    recovery_seconds: float | None = None
    #: By object, expected against found; or the checks that are not true. A line each.
    differences: tuple[str, ...] = ()
    #: The objective's word in the configuration, and how it stands, in words.
    objective: str = ""
    detail: str = ""
    #: What is told together.
    troubles: tuple[Trouble, ...] = ()

    @property
    def words(self) -> set[str]:
        """Which of the words of `on` it is told under."""
        found: set[str] = {self.event}
        if self.about in ("drill", "restore"):
            found.add(self.about)
        if self.anomalies:
            found.add("anomaly")
        return found


class Notifier(ABC):
    """A channel that notices go out by."""

    def __init__(self, settings: NotifierSettings) -> None:
        self.name = settings.name

    @abstractmethod
    def post(self, notice: Notice, seconds: float) -> None:
        """Send one message, no step of which waits for longer than `seconds`. What it raises, `send` makes plain."""

    def send(self, notice: Notice) -> None:
        """Tell of one notice in time; raises `UnreachableError`, or `RefusedError` where another try is no use."""
        patience = min(TIMEOUT, START_TIMEOUT) if notice.event == "start" else TIMEOUT
        deadline = time.monotonic() + patience
        # What a channel's library takes for a time limit seldom holds for all of it: names are looked up, and answers
        # may come byte by byte.
        attempt = Attempt(f"tell {self.name}", lambda: self._try(notice, deadline))
        attempt.start()
        attempt.join(patience)
        if attempt.error is not None:
            # Whatever it is, its text or its context may hold the address.
            raise self._plain(attempt.error, patience) from None
        if attempt.is_alive():
            attempt.give_up()
            raise self._plain(TimeoutError(), patience)

    def _try(self, notice: Notice, deadline: float) -> None:
        """Send it, and once more where the answer was that it is too early, and there is time."""
        try:
            self.post(notice, deadline - time.monotonic())
        except TooEarlyError as early:
            if time.monotonic() + early.seconds >= deadline:
                raise
            time.sleep(early.seconds)
            self.post(notice, deadline - time.monotonic())

    def _plain(self, error: Exception, patience: float) -> LarderError:
        """The error to be raised. It never has the words of one that Larder did not make: they may name the address."""
        what = f"unable to tell {self.name}: "
        if isinstance(error, LarderError):
            return type(error)(what + error.message, error.hint)
        cause = getattr(error, "reason", None)
        cause = cause if isinstance(cause, BaseException) else error
        hint = "see whether this machine reaches it, or needs a proxy"
        if isinstance(cause, TimeoutError):
            return UnreachableError(f"{what}no answer within {patience:g} seconds", hint)
        if isinstance(cause, OSError) and cause.strerror:
            return UnreachableError(what + cause.strerror.lower(), hint)
        return UnreachableError(what + type(cause).__name__, hint)


class TooEarlyError(UnreachableError):
    """It takes no more messages now."""

    #: When it will.
    seconds: float = 0


class PartlyToldError(RefusedError):
    """Some of those behind a notifier have the message, and others can't be told. Nobody tells them all again."""


def send_all(messages: Sequence[tuple[NotifierSettings, Notice]]) -> list[LarderError | None]:
    """Send all messages at one time, within `TIMEOUT` in all; gives what went wrong with each, or None."""

    def send(message: tuple[NotifierSettings, Notice]) -> LarderError | None:
        place, notice = message
        try:
            open_notifier(place).send(notice)
        except LarderError as error:
            return error
        return None

    if not messages:
        return []
    with ThreadPoolExecutor(len(messages), "tell") as pool:
        return list(pool.map(send, messages))


def wanting(places: Iterable[NotifierSettings], notice: Notice) -> list[tuple[NotifierSettings, Notice]]:
    """The messages by which whoever wants to hear of a notice is told of it."""
    return [(place, notice) for place in places if place.wants(notice)]


def problems(
    messages: Sequence[tuple[NotifierSettings, Notice]], errors: Sequence[LarderError | None]
) -> list[str]:
    """Who could not be told, and why, a line each."""
    found = {
        place.name: f"{place.name} could not be told: {error.message}"
        for (place, _), error in zip(messages, errors, strict=True)
        if error
    }
    return list(found.values())


def tell(places: Iterable[NotifierSettings], notice: Notice) -> list[str]:
    """Send a notice to whoever wants to hear of it; gives what went wrong, a line each.

    Nobody who cannot be told keeps the others from being told.
    """
    messages = wanting(places, notice)
    return problems(messages, send_all(messages))


@functools.cache
def words() -> tuple[str, ...]:
    """The words that name a kind of notifier in the configuration."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def _module(word: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{word}")


def settings_of(word: str) -> type[NotifierSettings]:
    """The keys of the kind of notifier named `word`, one of `words()`."""
    found: type[NotifierSettings] = _module(word).SETTINGS
    return found


def open_notifier(settings: NotifierSettings) -> Notifier:
    """The notifier that `settings` describe."""
    if settings.type not in words():
        raise ConfigurationError(
            f"unable to find notifier '{settings.type}'", f"use one of: {', '.join(words())}"
        )
    made: Notifier = _module(settings.type).NOTIFIER(settings)
    return made
