"""What ends a step from outside, in the process that it runs in."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from larder.ledger.leases import Lease, Leases
from larder.process import Process
from tasks import interruption
from tasks.interruption import LEAVE, Interrupted, Leaving, Terminated, TimeIsUp
from tasks.keeping import Lines, commit

_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGQUIT)


@pytest.fixture(autouse=True)
def ended() -> Iterator[list[int]]:
    """A process of a pool that listens; gives the signals that it would have ended by."""
    found: list[int] = []
    before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGALRM)}
    hook = sys.unraisablehook
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda number, _: found.append(number))
    interruption._process = interruption._Process()
    interruption.listen()
    yield found
    interruption._process = interruption._Process()
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


#: What is called in this process when it has forked; nobody can take back what was registered.
_after_fork: list[Callable[[], None]] = []
os.register_at_fork(after_in_parent=lambda: [call() for call in _after_fork])


@dataclass
class Ledgers:
    """As much of a ledger as a commit needs."""

    leases: Leases


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGUSR1, TimeIsUp), (LEAVE, Leaving), (signal.SIGTERM, Terminated)]
)
def test_nothing_takes_it_for_an_error_and_it_comes_once(
    number: int, kind: type[BaseException], ended: list[int]
) -> None:
    def work() -> None:
        try:
            send(number)
        except Exception:  # noqa: BLE001 - as everything does that holds nobody up
            return
        finally:
            cleaned.append("begun")
            send(number)
            cleaned.append("done")

    cleaned: list[str] = []
    with pytest.raises(kind), interruption.at_work(), interruption.interruptible():
        work()
    assert cleaned == ["begun", "done"]
    assert ended == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, LEAVE, signal.SIGTERM])
def test_a_program_that_is_being_started_is_ended_and_not_lost(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python throws away what is raised here.
    monkeypatch.setitem(globals(), "_after_fork", [lambda: send(number)])
    process = Process(["sleep", "600"], stall_seconds=600)
    with pytest.raises(Interrupted), interruption.at_work(), interruption.interruptible(), process:
        process.finish()
    assert process._popen.returncode == -signal.SIGKILL


def test_a_program_that_is_being_ended_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    kill = os.killpg
    monkeypatch.setattr(os, "killpg", lambda group, number: (send(signal.SIGTERM), kill(group, number)))
    process = Process(["sleep", "600"], stall_seconds=600)

    def work() -> None:
        with process:
            pass
        signal.pause()

    with pytest.raises(Terminated), interruption.at_work(), interruption.interruptible():
        work()
    assert process._popen.returncode == -signal.SIGKILL


def test_what_python_throws_away_comes_again() -> None:
    class Held:
        def __del__(self) -> None:
            send(LEAVE)

    def work() -> None:
        Held()
        signal.pause()

    with pytest.raises(Leaving), interruption.at_work(), interruption.interruptible():
        work()


def test_what_was_held_back_does_not_meet_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "_after_fork", [lambda: send(signal.SIGTERM)])
    # Longer than a busy machine takes for what is in between.
    monkeypatch.setattr(interruption, "_AGAIN", 60)
    with interruption.at_work():
        with interruption.interruptible(), Process(["true"], stall_seconds=60):
            assert signal.getitimer(signal.ITIMER_REAL) != (0, 0)
        assert interruption.is_leaving()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    with interruption.at_work(), interruption.interruptible():
        assert not interruption.is_leaving()


def test_a_step_that_is_to_end_before_it_has_begun_does_not_begin(ended: list[int]) -> None:
    def work() -> None:
        send(signal.SIGTERM)
        with interruption.interruptible():
            pytest.fail("it was begun")

    with pytest.raises(Terminated), interruption.at_work():
        work()
    with interruption.at_work(), interruption.interruptible():
        pass
    assert ended == []


def test_a_commit_is_not_interrupted(ended: list[int]) -> None:
    with interruption.at_work():
        with interruption.interruptible():
            pass
        for number in _SIGNALS:
            send(number)
    assert ended == []


def test_a_commit_does_not_wait_for_a_ledger_when_the_worker_ends(tmp_path: Path) -> None:
    # A folder is no ledger: whoever opens it hears what a ledger says that is away.
    away = Leases(sa.create_engine(f"sqlite:///{tmp_path}"))
    send(LEAVE)
    ledger = Ledgers(away)
    lines = Lines(ledger)  # type: ignore[arg-type]
    with pytest.raises(sa.exc.OperationalError):
        commit(ledger, Lease("run", "dump", "", 1, 1, datetime.now(UTC)), lines)  # type: ignore[arg-type]


def test_a_step_that_begins_in_a_worker_that_ends_is_given_back() -> None:
    send(LEAVE)
    with pytest.raises(Leaving), interruption.at_work(), interruption.interruptible():
        pytest.fail("it was begun")


def test_what_must_not_be_interrupted_is_not(ended: list[int]) -> None:
    with interruption.at_work(), interruption.interruptible(possible=False):
        for number in _SIGNALS:
            send(number)
    assert ended == []


def test_a_process_without_a_step_ends_as_before(ended: list[int]) -> None:
    send(signal.SIGTERM)
    assert ended == [signal.SIGTERM]
