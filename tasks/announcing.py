"""announcing: people hear of what is in trouble, and that it is over, each notifier once; together, where it is much.

What has failed is a row of the ledger before anybody is told. The first failure is told at once. Who has just been told
is left alone for a while, and hears then of all that has failed meanwhile in one message: where a server is away, two
hundred backups fail within minutes, or one by one through the night. What lasts is told again each day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from larder import notifiers
from larder.config import NotifierSettings
from larder.errors import NotFoundError
from larder.ledger import Ledger
from larder.ledger.misses import Miss
from larder.manifest_fields import TIME
from larder.notifiers import Notice, PartlyToldError, Trouble
from larder.objectives import Name, Objective
from tasks import context, telling

#: How long a notifier is left alone that was told of failures, or that they are over: so long the first time, twice as
#: long each time that it was told again within `_BUSY`, and `LONGEST_WINDOW` at most.
WINDOW = timedelta(minutes=5)
LONGEST_WINDOW = timedelta(hours=1)
_BUSY = timedelta(hours=12)

#: What was noted closer together than this was told at one time.
_AT_ONE_TIME = timedelta(minutes=1)

#: How long one that cannot be told is asked each minute, and after how long each time from then on: it may have taken
#: the message although it answers otherwise, and people would have the same one each minute.
EAGER = timedelta(minutes=5)
PAUSE = timedelta(minutes=15)

#: How long something lasts before it is told again. A little less than a day: a nightly backup that fails again is told
#: as it fails.
AGAIN = timedelta(hours=23)

#: So many have a message of their own, which says more of each.
FEW = 3

#: What can be done about each objective that is missed.
_CURES = {
    "rpo": "larder backup {0} makes one now; larder runs --failed has why there is none, where one was tried",
    "proof": "larder drill {0} proves the newest one now; larder status has how the last drill went",
    "rto": 'see which step took long, and whether format = "directory" with more jobs helps; or raise rto',
}

Standing = Mapping[Name, Objective]


@dataclass(frozen=True)
class _Message:
    """One message to one notifier, and what it tells of."""

    place: NotifierSettings
    notice: Notice
    of: Sequence[Miss]


def announce(
    found: Mapping[str, Standing] | None = None,
    also: Sequence[tuple[NotifierSettings, Notice]] = (),
    *,
    at_once: bool = False,
) -> list[str]:
    """Tell whoever is to know of what is in trouble or out of it; gives what went wrong, a line each.

    `found` is how objectives stand, by database; without it, none is told of. `also` are messages about something else,
    which are sent with the others, and whatever happens. `at_once` leaves nobody alone: where no guard runs, nobody
    comes back to it. However many do it at a time, one does. Who is killed on the way may have told, and not noted it:
    the next one tells again. All of it takes as long as one notifier may.
    """
    ledger = context.ledger()
    places = [place for place in context.settings().notifiers.values() if place.grouped]
    with ledger.misses.telling() as alone:
        if not alone:
            return notifiers.problems(also, notifiers.send_all(also))
        misses, now = ledger.misses.current(), datetime.now(UTC)
        told = [miss for miss in misses if found is not None or not miss.judged]
        messages = [
            message
            for place in places
            for ended in (False, True)
            if at_once or not _heard_lately(place, misses, now, ended=ended)
            if (due := _due(place, told, now, ended=ended))
            if at_once or _may_be_asked(ledger, place, due, now)
            for message in _messages(ledger, place, due, found or {})
        ]
        sent = [*((message.place, message.notice) for message in messages), *also]
        errors = notifiers.send_all(sent)
        reached: dict[int, set[str]] = {}
        for message, error in zip(messages, errors, strict=False):
            for miss in message.of if error is None or isinstance(error, PartlyToldError) else ():
                reached.setdefault(miss.id, set()).add(message.place.name)
        _note(ledger, places, told, reached)
    return notifiers.problems(sent, errors)


def _note(
    ledger: Ledger,
    places: Sequence[NotifierSettings],
    misses: Sequence[Miss],
    reached: Mapping[int, set[str]],
) -> None:
    """Write down who has heard of what, and what everybody has heard of."""
    for miss in misses:
        names = reached.get(miss.id, set())
        known = names | miss.relieved.keys()
        over = miss.ended is not None and not miss.told
        everybody = over and all(place.name in known for place in places if place.wants(_brief(miss)))
        if names or everybody:
            ledger.misses.told(miss, names, everybody=everybody)


def _heard_lately(place: NotifierSettings, misses: Sequence[Miss], now: datetime, *, ended: bool) -> bool:
    """Whether it was told a short while ago. Where much fails for hours, a short while is longer each time."""
    noted = [(miss.relieved if ended else miss.heard).get(place.name) for miss in misses]
    times = sorted(moment for moment in noted if moment is not None and now - _BUSY < moment <= now)
    if not times:
        return False
    tellings = 1 + sum(later - earlier > _AT_ONE_TIME for earlier, later in pairwise(times))
    return now - times[-1] < min(WINDOW * (1 << min(tellings - 1, 10)), LONGEST_WINDOW)


def _may_be_asked(ledger: Ledger, place: NotifierSettings, due: Sequence[Miss], now: datetime) -> bool:
    """Whether it is to be asked now. One that should have heard long ago could not be told each time since."""
    if now - min(_due_since(place, miss) for miss in due) < EAGER:
        return True
    slot = datetime.fromtimestamp(now.timestamp() // PAUSE.total_seconds() * PAUSE.total_seconds(), UTC)
    which = "over" if due[0].ended else "open"
    return ledger.slots.claim(f"tell {place.name} {which}", slot)


def _due_since(place: NotifierSettings, miss: Miss) -> datetime:
    heard = miss.heard.get(place.name)
    return miss.ended or (miss.since if heard is None else heard + AGAIN)


def _due(place: NotifierSettings, misses: Sequence[Miss], now: datetime, *, ended: bool) -> list[Miss]:
    """What `place` is to be told of: what it has not heard, or a day ago."""

    def is_due(miss: Miss) -> bool:
        if ended:
            return not miss.told and place.name not in miss.relieved
        heard = miss.heard.get(place.name)
        # A clock that was wrong for an hour must not silence anybody for a year.
        return heard is None or abs(now - heard) > AGAIN

    return [
        miss
        for miss in misses
        if (miss.ended is not None) == ended and is_due(miss) and place.wants(_brief(miss))
    ]


def _messages(
    ledger: Ledger, place: NotifierSettings, due: Sequence[Miss], found: Mapping[str, Standing]
) -> Iterator[_Message]:
    if len(due) <= FEW:
        for miss in due:
            yield _Message(place, _whole(ledger, miss, found.get(miss.database, {})), [miss])
        return
    troubles = tuple(_trouble(_at(miss, found.get(miss.database, {}))) for miss in due)
    several = replace(_brief(due[0]), about="several", database="", created="", troubles=troubles, run="")
    yield _Message(place, replace(several, error=None, hint=None, detail="", objective="", step=None), due)


def _trouble(miss: Miss) -> Trouble:
    notice = _brief(miss)
    return Trouble(
        about=miss.objective,
        database=miss.database,
        detail=miss.detail,
        hint=notice.hint or "",
        since=notice.created,
        run=miss.run or "",
    )


def _at(miss: Miss, standing: Standing) -> Miss:
    """The same, in the words of how it stands now."""
    if not miss.judged:
        return miss
    over = miss.ended is not None
    now = next((one for name, one in standing.items() if name == miss.objective and one.met is over), None)
    return replace(miss, detail=now.detail if now else "" if over else miss.detail)


def _brief(miss: Miss) -> Notice:
    """What the row alone says."""
    over = miss.ended is not None
    cure = _CURES[miss.objective].format(miss.database) if miss.judged else miss.hint
    notice = Notice(
        event="recovered" if over else "failure",
        database=miss.database,
        run="" if over else miss.run or "",
        artifact=None,
        size=None,
        seconds=((miss.ended or datetime.now(UTC)) - miss.since).total_seconds(),
        created=miss.since.strftime(TIME),
        proof=None,
        step=None if over else miss.step,
        error=None if over else miss.detail,
        hint=None if over else cure,
    )
    if miss.judged:
        return replace(notice, about="objective", objective=miss.objective, detail=miss.detail)
    return replace(notice, about=miss.objective)  # type: ignore[arg-type]


def _whole(ledger: Ledger, miss: Miss, standing: Standing) -> Notice:
    """All that there is to say of it: what its run has left, where that is known still."""
    if miss.ended is None and miss.run and miss.objective in ("backup", "drill"):
        try:
            run = ledger.runs.get(miss.run)
            return telling.of_drill(ledger, run) if run.kind == "drill" else telling.notice_of(run, None)
        except NotFoundError:
            pass
    return _brief(_at(miss, standing))
