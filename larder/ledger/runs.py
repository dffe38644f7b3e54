"""Runs: one passage of the chain for one database, from the request to its end."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from larder.errors import BusyError, LarderError, NotFoundError
from larder.ledger import tables
from larder.ledger.hosts import could_have_renewed
from larder.ledger.newest import AT_ONCE, last_of_each, newest_of_each, parts
from larder.naming import backup_id, moment_of, stamp_of

State = Literal["queued", "running", "stored", "done", "failed"]

#: Which chain a run passes through.
Kind = Literal["backup", "restore", "drill"]

#: The links of the backup chain, in order.
BACKUP_STEPS = ("dump", "compress", "checksum", "upload", "rotate", "notify")

#: Those of a backup within a restore's chain, which goes on where they end.
SAFETY_STEPS = ("dump", "compress", "checksum", "upload")

#: The link of a restore that waits for its safety backup.
SAFETY = "safety"

#: The link that exchanges names.
SWAP = "swap"

#: The links of the restore chain, in order. The safety backup's own come before `safety`.
RESTORE_STEPS = (
    "authorize",
    "fetch",
    "check",
    SAFETY,
    "load",
    "examine",
    "migrate",
    SWAP,
    "notify",
)

#: The links of a drill, in order.
DRILL_STEPS = ("fetch", "check", "load", "examine", "drop", "notify")

#: What a run that went well is called, by its kind.
_GOOD_END: dict[Kind, State] = {"backup": "stored", "restore": "done", "drill": "done"}

#: Why a run began that is a part of a restore.
SAFETY_TRIGGER = "safety"

#: How long a run may lie between two steps, or in a queue, before it counts as lost.
QUEUE_PATIENCE = timedelta(hours=1)

#: How long a restore that was lost while it exchanged names is left to a worker that goes on with it.
SWAP_PATIENCE = timedelta(minutes=15)

#: How far stamps may be ahead of the clock where backups of a database follow each other faster than seconds.
_MOST_AHEAD = timedelta(hours=1)

#: How many of the runs that are not over are looked at: a flood may have one for each database.
MOST_ACTIVE = 1000

#: How often a run that another process snatched away is tried to be created again.
_CREATE_ATTEMPTS = 5


#: The link of which there is one for each store.
UPLOAD = "upload"


@dataclass(frozen=True)
class Step:
    """One link of a run's chain. `seconds` is the time that its last attempt took."""

    name: str
    #: The store that an upload is for; empty for every other link.
    store: str
    state: Literal["pending", "running", "waiting", "done", "failed"]
    attempts: int
    started: datetime | None
    finished: datetime | None
    seconds: float | None
    error: str | None


@dataclass(frozen=True)
class Run:
    """One passage of the chain. Times are UTC."""

    id: str
    kind: Kind
    database: str
    stamp: str
    #: The run whose chain this one is a part of.
    parent: str | None
    #: What no other active run may hold.
    holds: str | None
    trigger: str
    slot: datetime | None
    state: State
    step: str | None
    attempt: int
    host: str | None
    lease_until: datetime
    created: datetime
    finished: datetime | None
    artifact: str | None
    progress: str | None
    failed_step: str | None
    error: str | None
    hint: str | None
    exit_code: int | None
    warnings: list[str]
    #: The database server that its dump reads; None for a file, and before it was known.
    server: str | None
    #: What its dump waits for a slot of: `server`, `host`, `spool`.
    waits: str | None
    #: Bytes that its dump and its artifact took up in the spool.
    spooled: int | None
    steps: tuple[Step, ...]

    @property
    def lying_since(self) -> datetime:
        """Since when it has been between two steps, or in a queue; to be asked where no step is running."""
        return self.lease_until - QUEUE_PATIENCE

    @property
    def backup(self) -> str:
        """The id of the backup that this run makes: `shop/20251016_020000`."""
        return backup_id(self.database, self.stamp)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state not in tables.ACTIVE

    @property
    def seconds(self) -> float:
        """From its creation to its end, or to now."""
        return ((self.finished or datetime.now(UTC)) - self.created).total_seconds()

    def step_named(self, name: str) -> Step:
        """The first step `name` of its chain."""
        return next(step for step in self.steps if step.name == name)

    @property
    def open_step(self) -> Step | None:
        """The first step that is not done, nor passed over; None where all are."""
        return next((step for step in self.steps if step.state not in ("done", "failed")), None)

    @property
    def uploads(self) -> tuple[Step, ...]:
        """The links that make copies, one a store, in order."""
        return tuple(step for step in self.steps if step.name == UPLOAD)


@dataclass(frozen=True)
class Passage:
    """What has become of a run, without its links. Times are UTC."""

    id: str
    kind: Kind
    database: str
    stamp: str
    trigger: str
    state: State
    created: datetime
    finished: datetime | None
    failed_step: str | None
    error: str | None
    warnings: list[str]

    @property
    def backup(self) -> str:
        """The id of the backup that this run makes."""
        return backup_id(self.database, self.stamp)


class Runs:
    """All runs of a ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        #: Whether the caller brings the only worker there is: then whoever let a lease run out is gone for sure.
        self.alone = False

    def create(
        self, database: str, trigger: str, slot: datetime | None = None, *, stores: Sequence[str]
    ) -> tuple[Run, bool]:
        """Begin a run of `database` that makes a copy in each of `stores`, or give back the one of the same `slot`.

        Returns the run, and whether it is new. Raises `BusyError` while another run of the database is under way. A run
        that was lost (nobody renewed its lease) is closed as failed first, and does not stand in the way.
        """
        for attempt in range(_CREATE_ATTEMPTS):
            now = datetime.now(UTC)
            try:
                with self._engine.begin() as connection:
                    self._close_lost(connection, database, now, sure=self.alone)
                    existing = self._standing_in_the_way(connection, database, slot)
                    if existing is not None:
                        return self._of_same_slot(existing, slot), False
                    return self._insert(connection, database, trigger, slot, now, stores), True
            except sa.exc.IntegrityError:
                # Another process was faster between our look and our insert; look again at what it made.
                if attempt == _CREATE_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def get(self, run_id: str) -> Run:
        """The run `run_id`; raises `NotFoundError`."""
        with self._engine.connect().execution_options(reads=True) as connection:
            found = load_one(connection, run_id)
        if found is None:
            raise NotFoundError(f"unable to find run '{run_id}'", "larder runs lists them")
        return found

    def latest(
        self,
        database: str | None = None,
        *,
        kind: Kind | None = "backup",
        failed: bool = False,
        limit: int = 20,
        over: bool = False,
        before: Run | None = None,
    ) -> list[Run]:
        """The newest runs of a kind (None: of every kind), newest first; of one database, failed, or over.

        Those that are older than the run `before`, where one is given.
        """
        wanted: list[sa.ColumnElement[bool]] = []
        if kind is not None:
            wanted.append(tables.runs.c.kind == kind)
        if database is not None:
            wanted.append(tables.runs.c.database == database)
        if failed:
            wanted.append(tables.runs.c.state == "failed")
        if over:
            wanted.append(tables.runs.c.state.not_in(tables.ACTIVE))
        if before is not None:
            same = sa.and_(tables.runs.c.created == before.created, tables.runs.c.id < before.id)
            wanted.append(sa.or_(tables.runs.c.created < before.created, same))
        return self.select(*wanted, limit=limit)

    def last_over(self) -> dict[str, Run]:
        """The newest backup run of each database that is over, by the database's name."""
        over = tables.runs.c.state.not_in(tables.ACTIVE)
        with self._engine.connect().execution_options(reads=True) as connection:
            kind = tables.runs.c.kind == "backup"
            ids = [found for _, found in newest_of_each(connection, [tables.runs.c.id], kind, over)]
            runs = [
                run
                for some in parts(ids)
                for run in load(connection, tables.runs.c.id.in_(some), limit=AT_ONCE)
            ]
        return {run.database: run for run in runs}

    def times(self, databases: Sequence[str], count: int) -> dict[str, list[tuple[datetime, float]]]:
        """When the last `count` stored backup runs of each of `databases` began, and their seconds, oldest first."""
        row = tables.runs.c
        wanted = (row.kind == "backup", row.state == "stored", row.parent.is_(None))
        found: dict[str, list[tuple[datetime, float]]] = {}
        with self._engine.connect().execution_options(reads=True) as connection:
            columns = [row.database, row.created, row.finished]
            for name, created, finished in last_of_each(connection, columns, databases, count, *wanted):
                found.setdefault(name, []).append((created, (finished - created).total_seconds()))
        return found

    def durations(self, run: Run, steps: Sequence[str], count: int) -> list[float]:
        """The seconds that `steps` took in the last `count` runs that went as `run` goes, and well; newest first."""
        given = {
            "this_run": run.id,
            "this_database": run.database,
            "this_kind": run.kind,
            "this_state": good_end(run.kind),
            "these_steps": list(steps),
            "count": count,
        }
        with self._engine.connect().execution_options(reads=True) as connection:
            return list(connection.execute(_DURATIONS, given).scalars())

    def counts(self) -> dict[tuple[str, str], int]:
        """How many runs there are of each kind and state."""
        runs = tables.runs.c
        query = sa.select(runs.kind, runs.state, sa.func.count()).group_by(runs.kind, runs.state)
        with self._engine.connect().execution_options(reads=True) as connection:
            return {(kind, state): count for kind, state, count in connection.execute(query)}

    def failed(self) -> dict[str, int]:
        """How many backup runs of each database have failed."""
        runs = tables.runs.c
        query = sa.select(runs.database, sa.func.count()).where(runs.state == "failed", runs.kind == "backup")
        with self._engine.connect().execution_options(reads=True) as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(runs.database))}

    def active(self) -> list[Run]:
        """The runs of every kind that are not over, newest first, at most `MOST_ACTIVE`."""
        return self.select(tables.runs.c.state.in_(tables.ACTIVE), limit=MOST_ACTIVE)

    def between(self, start: datetime, end: datetime) -> list[Passage]:
        """The runs of every kind that began from `start` on and before `end`, oldest first."""
        query = (
            sa.select(*(tables.runs.c[column.name] for column in fields(Passage)))
            .where(tables.runs.c.created >= start, tables.runs.c.created < end)
            .order_by(tables.runs.c.created, tables.runs.c.id)
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            return [Passage(**row) for row in connection.execute(query).mappings()]

    def parts_of(self, run_id: str) -> list[Run]:
        """The runs that are a part of the chain of `run_id`."""
        return self.select(tables.runs.c.parent == run_id, limit=10)

    def select(self, *wanted: sa.ColumnElement[bool], limit: int) -> list[Run]:
        """The newest runs that are `wanted`, newest first: for the ledger's own other rooms."""
        with self._engine.connect().execution_options(reads=True) as connection:
            return load(connection, *wanted, limit=limit)

    def held_until(self, host: str) -> datetime | None:
        """When the last lease runs out that `host` holds; None where it has none."""
        query = (
            sa.select(sa.func.max(tables.runs.c.lease_until))
            .join(tables.steps, tables.steps.c.run == tables.runs.c.id)
            .where(
                tables.runs.c.host == host,
                tables.runs.c.state.in_(tables.ACTIVE),
                tables.steps.c.state == "running",
            )
        )
        with self._engine.connect().execution_options(reads=True) as connection:
            return connection.execute(query).scalar()

    def active_on(self, host: str) -> bool:
        """Whether a run lies in the spool of `host` that is not over."""
        active = tables.runs.c.state.in_(tables.ACTIVE)
        return bool(self.select(tables.runs.c.host == host, active, limit=1))

    def abandon(self, run_id: str, error: LarderError, step: str | None = None) -> bool:
        """Close a run, and what is a part of it, from outside, whoever holds them: their commits count no more.

        `step` is where it failed, if not at the one that it is at. False when it was over.
        """
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            closed = _close(connection, tables.runs.c.id == run_id, now, error, step) > 0
            _close(connection, tables.runs.c.parent == run_id, now, error)
            return closed

    def withdraw(self, run_id: str, error: LarderError) -> None:
        """Close a run that could not be sent to anybody. Its slot is free for whoever tries again."""
        with self._engine.begin() as connection:
            if _close(connection, tables.runs.c.id == run_id, datetime.now(UTC), error):
                connection.execute(tables.runs.update().where(tables.runs.c.id == run_id).values(slot=None))

    def close_lost(self, database: str) -> None:
        """Close the database's run as failed if it was lost: nobody has renewed its lease, and it ran out."""
        with self._engine.begin() as connection:
            self._close_lost(connection, database, datetime.now(UTC), sure=True)

    def _close_lost(self, connection: sa.Connection, database: str, now: datetime, *, sure: bool) -> None:
        """Close what holds `database` and whose lease ran out. What that means is `sure`, or is seen by its host.

        Where the ledger was away, leases ran out that are about to be renewed.
        """
        lost = LarderError(
            "its worker was lost: nobody has renewed the run's lease",
            "see the worker's log and the system's (out of memory?)",
        )
        if connection.execute(_OVERDUE, {"this_database": database, "this_moment": now}).first():
            _close(connection, _lost(database, now, sure=sure), now, lost)
        orphans = list(connection.execute(_PARTS_WITHOUT_A_WHOLE).scalars())
        if orphans:
            _close(connection, tables.runs.c.id.in_(orphans), now, lost)

    def _standing_in_the_way(
        self, connection: sa.Connection, database: str, slot: datetime | None
    ) -> Run | None:
        if slot is not None:
            same = load(connection, tables.runs.c.database == database, tables.runs.c.slot == slot, limit=1)
            if same:
                return same[0]
        active = load(connection, tables.runs.c.holds == database, tables.UNDER_WAY, limit=1)
        return active[0] if active else None

    def _of_same_slot(self, existing: Run, slot: datetime | None) -> Run:
        if slot is not None and existing.slot == slot:
            return existing
        raise _busy(f"a backup of '{existing.database}'", existing)

    def _insert(
        self,
        connection: sa.Connection,
        database: str,
        trigger: str,
        slot: datetime | None,
        now: datetime,
        stores: Sequence[str],
    ) -> Run:
        links = list(_links(BACKUP_STEPS, stores))
        return self._add(
            connection, now, links, database=database, trigger=trigger, slot=slot, holds=database
        )

    def begin_restore(
        self,
        connection: sa.Connection,
        database: str,
        holds: str,
        steps: Sequence[str],
        safety_in: Sequence[str] | None,
        host: str | None = None,
    ) -> Run:
        """Begin a restore inside the caller's transaction, which passes through `steps`.

        `holds` is what no other run may touch meanwhile. `safety_in` names the stores of the safety backup of
        `database` that is a part of it; None for none. `host` is the only one that may carry it out; None for any.
        Raises `BusyError` while another run holds the same.
        """
        now = datetime.now(UTC)
        self._close_lost(connection, holds, now, sure=self.alone)
        existing = self._standing_in_the_way(connection, holds, None)
        if existing is not None:
            raise _busy(f"a restore into '{holds}'", existing)
        run = self._add(
            connection,
            now,
            list(_links(steps, ())),
            kind="restore",
            database=database,
            trigger="request",
            slot=None,
            holds=holds,
            host=host,
        )
        if safety_in is not None:
            links = list(_links(SAFETY_STEPS, safety_in))
            self._add(connection, now, links, database=database, trigger=SAFETY_TRIGGER, parent=run.id)
        return run

    def begin_drill(self, connection: sa.Connection, database: str, trigger: str) -> Run:
        """Begin a drill of a backup of `database` inside the caller's transaction.

        It keeps nobody from backing up or restoring. Raises `BusyError` while another drill of it is under way.
        """
        now, holds = datetime.now(UTC), f"drill {database}"
        self._close_lost(connection, holds, now, sure=self.alone)
        existing = self._standing_in_the_way(connection, holds, None)
        if existing is not None:
            raise _busy(f"a drill of '{database}'", existing)
        return self._add(
            connection,
            now,
            list(_links(DRILL_STEPS, ())),
            kind="drill",
            database=database,
            trigger=trigger,
            slot=None,
            holds=holds,
        )

    def _add(
        self, connection: sa.Connection, now: datetime, links: Sequence[tuple[str, str]], **values: Any
    ) -> Run:
        run_id = secrets.token_hex(6)
        row = {
            "id": run_id,
            "kind": "backup",
            "stamp": self._free_stamp(connection, values["database"], now),
            "state": "queued",
            "attempt": 0,
            "lease_until": now + QUEUE_PATIENCE,
            "created": now,
            "warnings": [],
        }
        connection.execute(_NEW_RUN, {**row, **values})
        fresh = {"run": run_id, "state": "pending", "attempts": 0}
        connection.execute(
            _NEW_LINKS,
            [
                {**fresh, "name": name, "store": store, "position": position}
                for position, (name, store) in enumerate(links)
            ],
        )
        made = load_one(connection, run_id)
        assert made is not None  # noqa: S101 - inserted above
        return made

    def _free_stamp(self, connection: sa.Connection, database: str, now: datetime) -> str:
        """The present second, or the next one that no run of the database has taken: file names hold seconds.

        It is later than all that were taken, unless a clock was far ahead then.
        """
        since = {"this_database": database, "this_stamp": stamp_of(now)}
        taken = set(connection.execute(_TAKEN_STAMPS, since).scalars())
        moment = max((moment_of(one) for one in taken if one < stamp_of(now + _MOST_AHEAD)), default=now)
        while stamp_of(moment) in taken:
            moment += timedelta(seconds=1)
        return stamp_of(moment)


#: A run and its links. Each step asks, and a statement that is made anew each time takes as long as what it asks.
_THE_RUN = sa.select(tables.runs).where(tables.runs.c.id == sa.bindparam("this_run"))
_THE_RUN_ALONE = _THE_RUN.with_for_update()
_ITS_LINKS = (
    sa.select(tables.steps)
    .where(tables.steps.c.run == sa.bindparam("this_run"))
    .order_by(tables.steps.c.position)
)

_NEW_RUN, _NEW_LINKS = tables.runs.insert(), tables.steps.insert()
_TAKEN_STAMPS = sa.select(tables.runs.c.stamp).where(
    tables.runs.c.database == sa.bindparam("this_database"),
    tables.runs.c.stamp >= sa.bindparam("this_stamp"),
)

_LAST_ALIKE = (
    sa.select(tables.runs.c.id, tables.runs.c.created)
    .where(
        tables.runs.c.database == sa.bindparam("this_database"),
        tables.runs.c.kind == sa.bindparam("this_kind"),
        tables.runs.c.parent.is_(None),
        tables.runs.c.id != sa.bindparam("this_run"),
        tables.runs.c.state == sa.bindparam("this_state"),
    )
    .order_by(tables.runs.c.created.desc(), tables.runs.c.id.desc())
    .limit(sa.bindparam("count", type_=sa.Integer))
    .subquery()
)
_THEIR_LINKS = sa.and_(
    tables.steps.c.run == _LAST_ALIKE.c.id,
    tables.steps.c.name.in_(sa.bindparam("these_steps", expanding=True)),
)
_DURATIONS = (
    sa.select(sa.func.coalesce(sa.func.sum(tables.steps.c.seconds), 0.0))
    .select_from(_LAST_ALIKE)
    .outerjoin(tables.steps, _THEIR_LINKS)
    .group_by(_LAST_ALIKE.c.id, _LAST_ALIKE.c.created)
    .order_by(_LAST_ALIKE.c.created.desc(), _LAST_ALIKE.c.id.desc())
)


def load_one(connection: sa.Connection, run_id: str, *, lock: bool = False) -> Run | None:
    """The run `run_id`, inside the caller's transaction. `lock` has it change for nobody else until that is over."""
    this = {"this_run": run_id}
    row = connection.execute(_THE_RUN_ALONE if lock else _THE_RUN, this).mappings().one_or_none()
    if row is None:
        return None
    links = tuple(_step(link) for link in connection.execute(_ITS_LINKS, this))
    return Run(**row, steps=links)


def load(connection: sa.Connection, *wanted: sa.ColumnElement[bool], limit: int) -> list[Run]:
    """The newest runs that are `wanted`, newest first: for the ledger's own other rooms, inside their transactions."""
    order = (tables.runs.c.created.desc(), tables.runs.c.id.desc())
    query = sa.select(tables.runs).where(*wanted).order_by(*order).limit(limit)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    if not rows:
        return []
    steps: dict[str, list[Step]] = {row["id"]: [] for row in rows}
    links = sa.select(tables.steps).where(tables.steps.c.run.in_(steps)).order_by(tables.steps.c.position)
    for link in connection.execute(links):
        steps[link.run].append(_step(link))
    return [Run(**row, steps=tuple(steps[row["id"]])) for row in rows]


def _step(link: Sequence[Any]) -> Step:
    _run, name, store, _position, *rest = link
    return Step(name, store, *rest)


def good_end(kind: Kind) -> State:
    """The state of a run of `kind` that went through all its steps."""
    return _GOOD_END[kind]


def _busy(what: str, existing: Run) -> BusyError:
    other = f"a {existing.kind}"
    return BusyError(
        f"unable to start {what}: {other}, run {existing.id}, is under way",
        f"follow it with: larder watch {existing.id}",
    )


def waits_for_part() -> sa.ColumnElement[bool]:
    """Whether a run has come to the step at which it waits for another that is a part of it."""
    part, wait, before = tables.runs.alias("part"), tables.steps.alias("wait"), tables.steps.alias("before")
    not_done = sa.exists().where(
        before.c.run == wait.c.run, before.c.position < wait.c.position, before.c.state != "done"
    )
    return sa.and_(
        sa.exists().where(part.c.parent == tables.runs.c.id, part.c.state.in_(tables.ACTIVE)),
        sa.exists().where(wait.c.run == tables.runs.c.id, wait.c.name == SAFETY, ~not_done),
    )


#: What holds a database and should have renewed its lease: rarely anything, and quicker asked than closed.
_OVERDUE = (
    sa.select(tables.runs.c.id)
    .where(
        tables.runs.c.holds == sa.bindparam("this_database"),
        tables.runs.c.lease_until < sa.bindparam("this_moment"),
        tables.UNDER_WAY,
    )
    .limit(1)
)


def _lost(database: str, now: datetime, *, sure: bool) -> sa.ColumnElement[bool]:
    """Whether a run holds `database` and is lost: its lease ran out, and nobody can be about to renew it."""
    held = sa.and_(tables.runs.c.holds == database, tables.runs.c.lease_until < now)
    if not sure:
        held = sa.and_(held, could_have_renewed(now))
    # Whether a restore has exchanged names already, its own next attempt knows best: that one is left more time.
    in_time = sa.or_(~_is_swapping(), tables.runs.c.lease_until < now - SWAP_PATIENCE)
    return sa.and_(held, ~waits_for_part(), in_time)


def _parts_without_a_whole() -> sa.Select[tuple[str]]:
    """The ids of active runs that are a part of one that is over."""
    outer = tables.runs.alias("outer_run")
    over = sa.exists().where(outer.c.id == tables.runs.c.parent, outer.c.state.not_in(tables.ACTIVE))
    # Few runs have ever been a part of another, and in a flood thousands are under way: the state is no way in.
    state = tables.runs.c.state.concat("")
    return sa.select(tables.runs.c.id).where(tables.runs.c.parent > "", state.in_(tables.ACTIVE), over)


_PARTS_WITHOUT_A_WHOLE = _parts_without_a_whole()


def _is_swapping() -> sa.ColumnElement[bool]:
    """Whether a restore has begun to exchange names."""
    return sa.exists().where(
        tables.steps.c.run == tables.runs.c.id,
        tables.steps.c.name == SWAP,
        tables.steps.c.state.in_(("running", "waiting", "done")),
    )


def _links(steps: Sequence[str], stores: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and store of each link of a chain of `steps` that makes a copy in each of `stores`."""
    for name in steps:
        for store in stores if name == UPLOAD else ("",):
            yield name, store


def _close(
    connection: sa.Connection,
    which: sa.ColumnElement[bool],
    now: datetime,
    error: LarderError,
    step: str | None = None,
) -> int:
    """Fail the active runs that `which` picks. The attempt grows, so that nobody who held one can still commit."""
    closed = connection.execute(
        tables.runs.update()
        .where(which, tables.UNDER_WAY)
        .values(
            state="failed",
            attempt=tables.runs.c.attempt + 1,
            failed_step=step or tables.runs.c.step,
            error=error.message,
            hint=error.hint,
            exit_code=error.exit_code,
            finished=now,
            progress=None,
        )
    )
    return closed.rowcount
