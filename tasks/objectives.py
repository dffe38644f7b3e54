"""objectives: what databases are held to, judged once a minute; people hear of a miss, and that it is over, once."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import UTC, datetime

from larder.config import NotifierSettings, Settings
from larder.errors import LarderError
from larder.ledger import Ledger
from larder.ledger.misses import Miss
from larder.manifest_fields import TIME
from larder.notifiers import Notice, open_notifier
from larder.objectives import Facts, Name, Objective, judge
from tasks import context
from tasks.drill import BY_CLOCK
from tasks.step import logger

#: Seconds that one guard takes to tell people; who is not told then is told by the next one.
PATIENCE = 30

Standing = dict[Name, Objective]

#: What can be done about each objective that is missed.
_CURES = {
    "rpo": "larder backup {0} makes one now; larder runs --failed has why there is none, where one was tried",
    "proof": "larder drill {0} proves the newest one now; larder status has how the last drill went",
    "rto": 'see which step took long, and whether format = "directory" with more jobs helps; or raise rto',
}


def facts_of(settings: Settings, ledger: Ledger) -> dict[str, Facts]:
    """What the objectives of every configured database are judged by, by its name."""
    return ledger.standings.of(settings.databases, clock=BY_CLOCK)


def standings(settings: Settings, ledger: Ledger, now: datetime) -> dict[str, Standing]:
    """How the objectives of every configured database stand, by its name."""
    facts = facts_of(settings, ledger)
    return {name: judge(database, facts[name], now) for name, database in settings.databases.items()}


def watch() -> dict[str, Standing]:
    """Note what is missed, and what is met again, and tell of both; gives how every database stands.

    However many guards do it, each notifier is told of each once.

    One that is killed on the way may have told, and not noted it: the next one tells again. Nobody who can't be told
    fails it, or keeps it for long.
    """
    settings, ledger = context.settings(), context.ledger()
    # Asked before the facts: of what somebody ends meanwhile, later facts say so too.
    missed = ledger.misses.open()
    found = standings(settings, ledger, datetime.now(UTC))
    _note(ledger, missed, found)
    with ledger.misses.telling() as alone:
        if alone:
            _tell(ledger, list(settings.notifiers.values()), found)
    return found


def _note(ledger: Ledger, missed: Collection[Miss], found: dict[str, Standing]) -> None:
    known = {(miss.database, miss.objective): miss for miss in missed}
    for name, standing in found.items():
        for objective in standing.values():
            miss = known.pop((name, objective.name), None)
            if miss is None:
                if objective.met is False and ledger.misses.begin(name, objective.name, objective.detail):
                    logger.warning("%s of '%s' is missed: %s", objective.name, name, objective.detail)
            elif objective.met is None:
                ledger.misses.end(miss, silently=True)
            elif objective.met and ledger.misses.end(miss):
                logger.info("%s of '%s' is met again: %s", objective.name, name, objective.detail)
    for miss in known.values():
        # Its database is configured no longer.
        ledger.misses.end(miss, silently=True)


def _tell(ledger: Ledger, places: Collection[NotifierSettings], found: dict[str, Standing]) -> None:
    began = time.monotonic()
    away: set[str] = set()
    for miss in ledger.misses.untold():
        if time.monotonic() - began > PATIENCE:
            return
        notice, heard = _notice(miss, found.get(miss.database, {})), set(miss.heard or ())
        wanting = [place for place in places if notice.event in place.on and place.name not in heard]
        reached = _reach(wanting, notice, away)
        ledger.misses.told(miss, heard | reached, everybody=len(reached) == len(wanting))


def _reach(places: Collection[NotifierSettings], notice: Notice, away: set[str]) -> set[str]:
    """Tell each of `places`; gives the names of those that were reached. Whoever can't be is `away` from then on."""
    reached: set[str] = set()
    for place in places:
        if place.name in away:
            continue
        try:
            open_notifier(place).send(notice)
            reached.add(place.name)
        except LarderError as error:
            away.add(place.name)
            logger.error("%s could not be told: %s", place.name, error.message)
    return reached


def _notice(miss: Miss, standing: Standing) -> Notice:
    over = miss.ended is not None
    now = next((one for name, one in standing.items() if name == miss.objective and one.met is over), None)
    detail = now.detail if now else "" if over else miss.detail
    return Notice(
        event="recovered" if over else "failure",
        database=miss.database,
        run="",
        artifact=None,
        size=None,
        seconds=((miss.ended or datetime.now(UTC)) - miss.since).total_seconds(),
        created=miss.since.strftime(TIME),
        proof=None,
        error=None if over else detail,
        hint=None if over else _CURES[miss.objective].format(miss.database),
        about="objective",
        objective=miss.objective,
        detail=detail,
    )
