"""Notifiers: who is told. One file a notifier, named after its word in the configuration.

The contract, which `tests/contracts/test_notifiers.py` holds every notifier to: `send` tells about one run within
`TIMEOUT` seconds or raises `UnreachableError`. It is told about twice rather than never.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from larder.errors import ConfigurationError, LarderError

if TYPE_CHECKING:
    from larder.config import NotifierSettings

#: Seconds that a notifier may take in all.
TIMEOUT = 10


@dataclass(frozen=True)
class Notice:
    """How a run, or a verification of what is kept, went; or that an objective is missed, or met again."""

    #: `recovered`: what was told as a failure is none any more.
    event: Literal["success", "failure", "recovered"]
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
    #: A failure's step, cause and cure.
    step: str | None = None
    error: str | None = None
    hint: str | None = None
    about: Literal["backup", "verification", "restore", "drill", "objective"] = "backup"
    #: A restore's request, and the address that it went into.
    request: str = ""
    target: str = ""
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


class Notifier(ABC):
    """A channel that notices go out by."""

    def __init__(self, settings: NotifierSettings) -> None:
        self.name = settings.name
        self.settings = settings

    @abstractmethod
    def send(self, notice: Notice) -> None:
        """Tell about one run."""


def tell(places: Iterable[NotifierSettings], notice: Notice, events: Iterable[str] = ()) -> Iterator[str]:
    """Send a notice to whoever wants to hear of its event, or of one of `events`; gives what went wrong, a line each.

    Nobody who cannot be told keeps the others from being told.
    """
    wanted = {notice.event, *events}
    for place in places:
        if wanted & set(place.on):
            try:
                open_notifier(place).send(notice)
            except LarderError as error:
                yield f"{place.name} could not be told: {error.message}"


def words() -> list[str]:
    """The words that name a kind of notifier in the configuration."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if not name.startswith("_"))


def open_notifier(settings: NotifierSettings) -> Notifier:
    """The notifier that `settings` describe."""
    if settings.type not in words():
        raise ConfigurationError(
            f"unable to find notifier '{settings.type}'", f"use one of: {', '.join(words())}"
        )
    module = importlib.import_module(f"{__name__}.{settings.type}")
    made: Notifier = module.NOTIFIER(settings)
    return made
