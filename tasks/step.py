"""What every link of a chain has in common, so that a step's own file tells its story and nothing else.

A delivered step takes a lease in the ledger, or finds that there is nothing to do. While it works, a thread renews the
lease. A transient error gives the step back to be delivered again later; a permanent one ends the run and sends its
last link, `notify`. Whatever happens, nobody whose lease was taken over can commit.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import sqlalchemy as sa
from celery import Task, shared_task
from celery.exceptions import Ignore

from larder.config import DatabaseSettings, Settings
from larder.errors import LarderError, LeaseLostError, NotAuthorisedError, NotFoundError, UnreachableError
from larder.ledger import Ledger
from larder.ledger.admission import DUMP
from larder.ledger.journal import Level
from larder.ledger.leases import LAST_STEP, TTL, Lease, Refusal
from larder.ledger.losses import MOST_ATTEMPTS
from larder.ledger.requests import WORKER
from larder.ledger.runs import BACKUP_STEPS, DRILL_STEPS, RESTORE_STEPS, SAFETY, SWAP, Kind, Run
from larder.pacing import Pacer
from larder.progress import Progress, human_seconds
from larder.secret import redact
from larder.spool import Spool, disk_error
from larder.stores import StoreSettings
from tasks import admission, chain, context, interruption, queues
from tasks.interruption import Interrupted, Leaving, TimeIsUp
from tasks.keeping import Keeper, Lines, Reporter, commit

logger = logging.getLogger("larder.run")

#: How often a step is started before its transient error counts as permanent, unless it says otherwise.
MAX_TRIES = MOST_ATTEMPTS

#: How long a link whose ledger was away is put off: a lease that it may hold is over by then.
LEDGER_WAIT = TTL + timedelta(seconds=5)

#: Seconds before the second try; each later one waits twice as long, give or take a half, and not much over a minute.
BACKOFF = 2.0
LONGEST_BACKOFF = 60.0

#: How long a lease that was just taken is not asked after: a small part of the time that it lasts.
_FRESH = timedelta(seconds=5)

_LEVELS = {"INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}


@dataclass
class Work:
    """What a step has in hand."""

    run: Run
    lease: Lease
    settings: Settings
    ledger: Ledger
    spool: Spool
    progress: Progress
    reporter: Reporter
    lines: Lines
    #: The artifact's name, to be committed with the step that learns it.
    artifact: str | None = None
    #: Bytes that the run has taken up in the spool, to be committed with the step that learns it.
    spooled: int | None = None
    #: What else is committed, in the same transaction.
    also: Callable[[sa.Connection], None] | None = None
    #: Warnings that could not be written down while the ledger was away, and are with the commit.
    unwritten: list[str] = field(default_factory=list)

    @property
    def store(self) -> StoreSettings:
        """The store that this upload is for; raises `NotFoundError` when it is no longer configured."""
        return self.settings.store(self.lease.store)

    @property
    def database(self) -> DatabaseSettings:
        """The settings of the run's database; raises `NotFoundError` when it is no longer configured."""
        return self.settings.database(self.run.database)

    def hold(self) -> None:
        """See that nobody else goes on with this run; raises `LeaseLostError`.

        While a lease that was taken a moment ago lasts, nobody does.
        """
        if not timedelta() <= datetime.now(UTC) - self.lease.began < _FRESH:
            self.ledger.leases.renew(self.lease)

    def pace(self) -> None:
        """Have the bytes that are counted from now on go no faster than the database's `max_rate`."""
        rate = self.database.max_rate
        self.progress.pacer = Pacer(rate) if rate else None

    def say(self, text: str) -> None:
        """Write a line for people: into the log and into the run's journal."""
        self._write("INFO", text)

    def mention(self, text: str) -> None:
        """Write a line about something that went wrong and may be right again soon."""
        self._write("WARN", text)

    def warn(self, text: str) -> None:
        """Write a line that somebody should act on; the run ends with this warning."""
        self._write("WARN", text)
        try:
            self.ledger.leases.warn(self.lease, redact(text))
        except sa.exc.OperationalError:
            self.unwritten.append(redact(text))

    def complain(self, text: str) -> None:
        """Write a line about what failed."""
        self._write("ERROR", text)

    def _write(self, level: Level, text: str) -> None:
        text = redact(text)
        context_of_line = {"database": self.run.database, "run": self.run.id, "step": self.lease.step}
        logger.log(_LEVELS[level], "%s", text, extra=context_of_line)
        if self.run.parent:
            # Whoever follows a restore reads of its safety backup too.
            self.lines.add(self.run.parent, level, f"Safety backup: {text}")
        self.lines.add(self.run.id, level, text)
        if level != "INFO":
            self.lines.write()


@dataclass(frozen=True)
class _Link:
    """What a step's own file says of it."""

    name: str
    kind: Kind
    function: Callable[[Work], None]
    #: Whether the run stands although this link failed for good.
    spares: Callable[[Work], bool]
    #: How often it is started before a transient error counts as permanent.
    tries: int


def stored(_work: Work) -> bool:
    """A failure of what comes after the uploads never fails a backup: it is in its stores, read back."""
    return True


def step(
    name: str,
    *kinds: Kind,
    spares: Callable[[Work], bool] = lambda _work: False,
    tries: int = MAX_TRIES,
) -> Callable[[Callable[[Work], None]], Task]:
    """Make a function of `Work` the link `name` of the chain of each kind; gives the Celery task of the first one.

    `spares` says whether a failure of this link is a warning, after which the chain goes on; `tries` how often it is
    started before a transient error counts as permanent.
    """

    def decorate(function: Callable[[Work], None]) -> Task:
        made = [_registered(_Link(name, kind, function, spares, tries)) for kind in kinds]
        return made[0]

    return decorate


def _registered(this: _Link) -> Task:
    @shared_task(bind=True, name=chain.task_name(this.name, this.kind), max_retries=None)
    def link(self: Task, run_id: str, store: str = "") -> None:
        try:
            with interruption.at_work():
                _run(self, this, run_id, store)
        except sa.exc.OperationalError as error:
            _wait_for_ledger(self, error)

    link.__doc__ = this.function.__doc__
    return link


def _wait_for_ledger(task: Task, error: sa.exc.OperationalError) -> NoReturn:
    """Have the message delivered again: without the ledger nobody can say what is to be done.

    By then a lease that this delivery may have taken has run out. A message is not given up; the run would lie there.
    """
    away = UnreachableError(f"unable to use the ledger: {str(error.orig).strip() or 'no answer'}")
    logger.error("%s; trying again in %d s", away.message, LEDGER_WAIT.total_seconds())
    raise task.retry(exc=away, countdown=LEDGER_WAIT.total_seconds())


def _run(task: Task, link: _Link, run_id: str, store: str) -> None:
    ledger = context.ledger()
    name = link.name
    lease = _taken(ledger, link, run_id, store)
    if isinstance(lease, Refusal):
        if lease is Refusal.DONE:
            return
        logger.info("step %s of run %s has nothing to do: %s", name, run_id, lease.value)
        raise Ignore
    work = _work(task, ledger, lease)
    queues.at_hand(task, work.run)
    try:
        with Keeper(ledger, lease, work.lines):
            # An exchange of names is waited for: it is short, and nobody is to wonder whether it was made.
            with interruption.interruptible(possible=name != SWAP):
                link.function(work)
            work.reporter.end()
            for warning in work.unwritten:
                ledger.leases.warn(lease, warning)
            what = {"artifact": work.artifact, "spooled": work.spooled, "also": work.also}
            commit(ledger, lease, work.lines, **what)
    except LeaseLostError as error:
        logger.warning("%s", error.message)
        raise Ignore from None
    except (Exception, TimeIsUp) as error:  # noqa: BLE001 - whatever it is, the run has to end
        _after_failure(task, link, work, _as_larder_error(error, work))
    except Interrupted as interrupted:
        _give_back(link, work, interrupted)
        raise Ignore from None
    finally:
        work.reporter.end()
        work.lines.write()
        if name == DUMP:
            _send_next(work.run)


def _send_next(run: Run) -> None:
    """Have a dump begin that waits for this one. Where that can't be done now, the guard does it."""
    try:
        admission.send_next(run)
    except (LarderError, sa.exc.OperationalError) as error:
        logger.warning("no dump that waits could be sent: %s", getattr(error, "message", error))


def _taken(ledger: Ledger, link: _Link, run_id: object, store: str) -> Lease | Refusal:
    """A lease, or why there is none. Refuses a link that no run of its kind has, or that no approval has begun.

    Whoever reaches Redis can send one.
    """
    try:
        if not isinstance(run_id, str) or not run_id.isascii():
            raise NotFoundError(f"unable to start step '{link.name}': there is no run {repr(run_id)[:80]}")
        room = admission.room_for(ledger.runs.get(run_id)) if link.name == DUMP else None
        lease = ledger.leases.take(run_id, link.name, context.host(), store, room, kind=link.kind)
    except NotFoundError:
        if link.kind != "restore":
            # It destroys nothing.
            raise
        lease = Refusal.STRANGE
    if lease is not Refusal.STRANGE:
        return lease
    name = chain.task_name(link.name, link.kind)
    ledger.audit.write("refused", None, WORKER, step=name, run=repr(run_id)[:80], why="not authorised")
    raise NotAuthorisedError(
        f"unable to start step '{name}' of run {repr(run_id)[:80]}: nobody has approved it",
        "a restore begins with larder restore request, and goes on with larder restore run",
    )


def _work(task: Task, ledger: Ledger, lease: Lease) -> Work:
    reporter = Reporter(task, ledger, lease)
    settings = context.settings()
    return Work(
        run=lease.whole or ledger.runs.get(lease.run),
        lease=lease,
        settings=settings,
        ledger=ledger,
        spool=Spool(settings.spool_dir, lease.run),
        progress=Progress(reporter.report),
        reporter=reporter,
        lines=Lines(ledger),
    )


def _after_failure(task: Task, link: _Link, work: Work, error: LarderError) -> None:
    """Try again later, warn, or fail: by what kind of error it is, and where in the chain."""
    try:
        if error.retryable and work.lease.tries < link.tries:
            _try_again(task, work, error)
        if _is_spared(link, work):
            _carry_on(work, error)
            return
        work.complain(f"{_title(work.run)} failed at step {work.lease.step}: {error}")
        work.ledger.leases.fail(work.lease, error, also=work.also)
    except LeaseLostError as lost:
        logger.warning("%s", lost.message)
        raise Ignore from None
    if work.run.kind == "backup":
        # What a restore was about to do is noted there, until its last link has looked.
        work.spool.remove()
    tell(work.run, error)
    raise error from None


def _is_spared(link: _Link, work: Work) -> bool:
    try:
        return link.spares(work)
    except LarderError:
        # Its database has left the configuration since the run began: nobody can say how many copies are enough.
        return False


def _try_again(task: Task, work: Work, error: LarderError) -> NoReturn:
    steady = min(BACKOFF * 2 ** (work.lease.tries - 1), LONGEST_BACKOFF)
    seconds = steady * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
    work.ledger.leases.wait(work.lease, error, seconds)
    work.mention(f"Trying step {work.lease.step} again in {seconds:.0f} s: {error.message}")
    raise task.retry(exc=error, countdown=seconds)


def _give_back(link: _Link, work: Work, interrupted: Interrupted) -> None:
    """Let go of a step whose worker ends, and send it again: whoever is there next begins it at once.

    A worker that ends as it should costs the step no attempt. What was ended by force does: it may be done each time.
    Where the ledger is away, or the attempts are used up, the lease runs out, and the guard sees to it.
    """
    work.reporter.end()
    counted = not isinstance(interrupted, Leaving)
    if counted and work.lease.tries >= link.tries:
        logger.warning("step %s of run %s was ended too often", link.name, work.run.id)
        return
    try:
        work.ledger.leases.give_back(work.lease, counted=counted)
        work.say(f"Step {link.name} is given back: its worker ends, and the next one begins it anew")
        chain.send(work.run, link.name, work.lease.store)
    except (LarderError, sa.exc.OperationalError) as error:
        why = getattr(error, "message", None) or str(error).strip()
        logger.warning("step %s of run %s is left to the guard: %s", link.name, work.run.id, why)


def _carry_on(work: Work, error: LarderError) -> None:
    """Have the rest of the chain go on with a warning: the backup stands, or others may still hold it."""
    if work.run.state != "failed":
        which = f" for {work.lease.store}" if work.lease.store else ""
        cure = f" ({error.hint})" if error.hint else ""
        work.warn(
            f"Step {work.lease.step}{which} failed, and the {work.run.kind} goes on without: {error.message}{cure}"
        )
    work.ledger.leases.finish(work.lease, error=error.message)


def _title(run: Run) -> str:
    return f"{run.kind.capitalize()} of '{run.database}'"


def tell(run: Run, error: LarderError) -> None:
    """Have people told of a run that has failed. Where it was a part of another's chain, that one fails with it."""
    if run.parent:
        outer = context.ledger().runs.get(run.parent)
        cause = type(error)(
            f"its safety backup failed: {error.message}",
            f"{error.hint}{'; ' if error.hint else ''}nothing was replaced. For a database that is too broken to be "
            "dumped, ask for a restore with --no-safety-backup",
        )
        context.ledger().runs.abandon(outer.id, cause, SAFETY)
        context.ledger().journal.write(outer.id, "ERROR", f"{_title(outer)} failed at step {SAFETY}: {cause}")
        run = outer
    try:
        chain.send(run, LAST_STEP)
    except UnreachableError as away:
        logger.error("run %s failed, and nobody could be told: %s", run.id, away.message)


def _as_larder_error(error: BaseException, work: Work) -> LarderError:
    if isinstance(error, LarderError):
        return error
    if isinstance(error, TimeIsUp):
        limit = human_seconds(work.database.time_limit or 0)
        return LarderError(
            f"unable to finish step '{work.lease.step}' of '{work.run.database}': it took longer than {limit}",
            "see what slows it down (larder watch shows its last progress), or raise time_limit",
        )
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return disk_error(error, work.spool.folder)
    if isinstance(error, sa.exc.OperationalError):
        return UnreachableError(f"unable to use the ledger: {str(error.orig).strip() or 'no answer'}")
    logger.error("unexpected error in run %s", work.run.id, exc_info=error)
    return LarderError(
        f"unable to finish step '{work.lease.step}' of '{work.run.database}': "
        f"{type(error).__name__}: {error}",
        "this is a fault in Larder; the worker's log has the traceback",
    )


for _steps in (BACKUP_STEPS, RESTORE_STEPS, DRILL_STEPS):
    assert _steps[-1] == LAST_STEP  # noqa: S101 - two modules name the same link
