"""objectives: what databases are held to, judged once a minute."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from larder.config import Settings
from larder.ledger import Ledger
from larder.ledger.misses import Miss
from larder.objectives import Facts, Name, Objective, judge
from tasks import announcing, context
from tasks.drill import BY_CLOCK
from tasks.step import logger

Standing = dict[Name, Objective]


def facts_of(settings: Settings, ledger: Ledger) -> dict[str, Facts]:
    """What the objectives of every configured database are judged by, by its name."""
    return ledger.standings.of(settings.databases, clock=BY_CLOCK)


def standings(settings: Settings, ledger: Ledger, now: datetime) -> dict[str, Standing]:
    """How the objectives of every configured database stand, by its name."""
    facts = facts_of(settings, ledger)
    return {name: judge(database, facts[name], now) for name, database in settings.databases.items()}


def watch() -> dict[str, Standing]:
    """Note what is missed, and what is met again, and tell of both and of failures; gives how every database stands."""
    settings, ledger = context.settings(), context.ledger()
    found: dict[str, Standing] | None = None
    try:
        # Asked before the facts: of what somebody ends meanwhile, later facts say so too.
        missed = ledger.misses.open()
        found = standings(settings, ledger, datetime.now(UTC))
        _note(ledger, missed, found)
    finally:
        # Nobody else tells of what has failed since the last message, whatever is wrong with objectives.
        for problem in announcing.announce(found):
            logger.error("%s", problem)
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
        if miss.judged or miss.database not in found:
            # Its database is configured no longer.
            ledger.misses.end(miss, silently=True)
