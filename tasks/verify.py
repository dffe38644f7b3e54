"""verify: copies are read from their stores again, the longest unread first, and whoever is to know is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby

from celery import Task, shared_task
from celery.exceptions import Ignore

from larder import notifiers, shelf, verification
from larder.config import NotifierSettings, Settings
from larder.errors import IntegrityError, LarderError, UnreachableError
from larder.ledger import Ledger
from larder.ledger.misses import VERIFICATION
from larder.manifest_fields import TIME
from larder.notifiers import Notice, Trouble
from larder.progress import Progress, Report, human_size
from larder.schedule import latest_slot
from larder.shelf import Shelf
from larder.stores import open_store
from tasks import announcing, context, interruption
from tasks.backup import CALLED, SCHEDULED
from tasks.step import logger

#: What to do about a copy that is not as it was written.
_HINT = (
    "larder list shows the other copies; see who can write to the store, keep the damaged copy as evidence, "
    "and back up again"
)


@dataclass(frozen=True)
class _Bad:
    """Something that is not as it should be."""

    #: The database, or the store, that it belongs to.
    whose: str
    text: str
    #: Whether nobody was told yet.
    news: bool


@shared_task(name="verify", bind=True)
def verify(self: Task, trigger: str = CALLED) -> None:
    """Read copies to their end, within the configured budget of bytes; fails where one is broken.

    What was read stays read when this is killed on the way: the next verification goes on with what was not. Ad hoc:
    `celery -A workers call verify`.
    """
    settings, ledger = context.settings(), context.ledger()
    if trigger == SCHEDULED and not _first_of_its_slot(settings, ledger):
        return

    def watch(report: Report) -> None:
        self.send_event("task-progress", retry=False, result=str(report))

    found = _shelf(settings, ledger)
    try:
        with interruption.at_work(), interruption.interruptible():
            broken, unread = _read(settings, ledger, found, Progress(watch))
    except interruption.Interrupted:
        # Its worker ends. Those that were read the longest ago come first the next time.
        raise Ignore from None
    bad = _missing(found, ledger) + broken
    failures = {**found.unreachable, **unread}
    away = [_Bad(f"store {name}", error.message, news=True) for name, error in failures.items()]
    if not failures:
        _relieve(ledger, found, bad)
    for problem in announcing.announce(also=_note(settings, ledger, [*bad, *away])):
        logger.error("%s", problem)
    if bad:
        raise IntegrityError(f"unable to verify every copy: {'; '.join(one.text for one in bad)}", _HINT)
    if failures:
        raise next(iter(failures.values()))


def _shelf(settings: Settings, ledger: Ledger) -> Shelf:
    """What the stores hold; an empty shelf with the reason where none of them can be read."""
    try:
        return shelf.read(settings, ledger, context.trust())
    except UnreachableError as error:
        return Shelf((), (), dict.fromkeys(settings.stores, error))


def _first_of_its_slot(settings: Settings, ledger: Ledger) -> bool:
    if settings.verify is None:
        return False
    return ledger.slots.claim("verify", latest_slot(settings.verify, "UTC", datetime.now(UTC)))


def _missing(found: Shelf, ledger: Ledger) -> list[_Bad]:
    """Copies and whole backups that are gone."""
    bad = []
    for one in found.backups:
        for store, problem in one.faults:
            if store and store not in one.copies:
                news = verification.record_gone(ledger, one.backup, store)
                bad.append(_Bad(one.database, f"{one.backup} in {store}: {problem}", news))
            elif not store and not one.copies:
                # No copy to keep a note with: this is told each time.
                bad.append(_Bad(one.database, f"{one.backup}: {problem}", news=True))
    return bad


def _read(
    settings: Settings, ledger: Ledger, found: Shelf, progress: Progress
) -> tuple[list[_Bad], dict[str, LarderError]]:
    """Read the longest unread copies; gives those that are broken, and why a store did not give all of its own."""
    opened = {name: open_store(store) for name, store in settings.stores.items()}
    copies = verification.copies_of(found.backups, opened)
    chosen = verification.longest_unread(copies, ledger, settings.verify_budget)
    progress.total = sum(copy.size for copy in chosen)
    logger.info("Verifying %d of %d copies (%s)...", len(chosen), len(copies), human_size(progress.total))
    bad: list[_Bad] = []
    unread: dict[str, LarderError] = {}
    for finding in verification.verify(chosen, settings.identities, progress):
        is_news = verification.record(ledger, finding)
        if finding.state == "broken":
            text = f"{finding.copy.backup} in {finding.copy.store.name}: {'; '.join(finding.wrong)}"
            logger.error("A copy is broken: %s", text)
            bad.append(_Bad(finding.copy.database, text, is_news))
        if finding.failure:
            logger.error("A copy of %s could not be read: %s", finding.copy.backup, finding.failure.message)
            unread.setdefault(finding.copy.store.name, finding.failure)
    logger.info("Verified %d copies, %d of them broken", len(chosen), len(bad))
    return bad, unread


def _note(settings: Settings, ledger: Ledger, bad: Iterable[_Bad]) -> list[tuple[NotifierSettings, Notice]]:
    """Write down whose copies are bad: people hear by that. Gives the messages about what is no database, or none now.

    A store that does not answer is told of each time.
    """
    others: dict[str, str] = {}
    for whose, found in groupby(sorted(bad, key=lambda one: one.whose), key=lambda one: one.whose):
        all_of_it = list(found)
        news = "; ".join(one.text for one in all_of_it if one.news)
        if whose in settings.databases:
            text = news or "; ".join(one.text for one in all_of_it)
            ledger.misses.fail(
                whose, VERIFICATION, text, run=None, step="verify", hint=_HINT, news=bool(news)
            )
        elif news:
            others[whose] = news
    places = settings.notifiers.values()
    return [message for notice in _notices(others) for message in notifiers.wanting(places, notice)]


def _relieve(ledger: Ledger, found: Shelf, bad: Collection[_Bad]) -> None:
    """Note of which databases nothing is wrong with any copy any more."""
    wrong = {one.whose for one in bad} | {one.database for one in found.backups if one.faults}
    for miss in ledger.misses.open():
        if miss.objective == VERIFICATION and miss.database not in wrong:
            ledger.misses.end(miss)


def _notices(others: Mapping[str, str]) -> list[Notice]:
    """A notice about each, or one about many."""
    now = datetime.now(UTC).strftime(TIME)
    one = Notice(
        event="failure",
        database="",
        run="",
        artifact=None,
        size=None,
        seconds=0,
        created=now,
        proof="broken",
        step="verify",
        hint=_HINT,
        about=VERIFICATION,
    )
    if len(others) <= announcing.FEW:
        return [replace(one, database=whose, error=text) for whose, text in others.items()]
    troubles = tuple(Trouble(VERIFICATION, whose, text, _HINT, now, "") for whose, text in others.items())
    return [replace(one, about="several", step=None, hint=None, troubles=troubles)]
