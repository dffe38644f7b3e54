"""What the ledger promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from larder.errors import BusyError, LarderError, LeaseLostError, NotFoundError, UnreachableError
from larder.ledger import Ledger, open_ledger, schema, tables
from larder.ledger.leases import Lease, Refusal
from larder.ledger.runs import BACKUP_STEPS, Run


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite3'}"
    url: str = request.getfixturevalue("empty_postgres_database")
    return url


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    opened = open_ledger(ledger_url)
    yield opened
    opened.close()


def begin(ledger: Ledger, database: str = "shop") -> Run:
    run, is_new = ledger.runs.create(database, "command")
    assert is_new
    return run


def take(ledger: Ledger, run: Run, step: str) -> Lease:
    lease = ledger.leases.take(run.id, step, "host-1")
    assert isinstance(lease, Lease)
    return lease


def pass_through(ledger: Ledger, run: Run, *names: str) -> None:
    for name in names:
        ledger.leases.finish(take(ledger, run, name))


def expire(ledger: Ledger, run: Run) -> None:
    """Make the run's lease one that ran out a minute ago, as if its worker had been killed before that."""
    past = datetime.now(UTC) - timedelta(minutes=1)
    with ledger._engine.begin() as connection:
        connection.execute(tables.runs.update().where(tables.runs.c.id == run.id).values(lease_until=past))


def test_a_run_goes_through_its_steps_and_ends_stored(ledger: Ledger) -> None:
    run = begin(ledger)
    assert (run.state, [step.state for step in run.steps]) == ("queued", ["pending"] * 6)
    pass_through(ledger, run, *BACKUP_STEPS)
    run = ledger.runs.get(run.id)
    assert run.state == "stored"
    assert run.over
    assert [step.state for step in run.steps] == ["done"] * 6
    assert [step.attempts for step in run.steps] == [1] * 6
    assert run.finished is not None
    assert run.finished.tzinfo is not None
    assert abs((datetime.now(UTC) - run.finished).total_seconds()) < 60


def test_one_run_at_a_time_for_a_database(ledger: Ledger) -> None:
    run = begin(ledger)
    with pytest.raises(BusyError, match=run.id):
        ledger.runs.create("shop", "command")
    begin(ledger, "crm")
    pass_through(ledger, run, *BACKUP_STEPS)
    begin(ledger)


def test_two_schedulers_make_one_run_of_a_slot(ledger: Ledger) -> None:
    slot = datetime(2025, 10, 16, 2, tzinfo=UTC)
    first, is_new = ledger.runs.create("shop", "schedule", slot)
    assert is_new
    second, is_new = ledger.runs.create("shop", "schedule", slot)
    assert (second.id, is_new) == (first.id, False)
    pass_through(ledger, first, *BACKUP_STEPS)
    third, is_new = ledger.runs.create("shop", "schedule", slot)
    assert (third.id, is_new) == (first.id, False)
    _, is_new = ledger.runs.create("shop", "schedule", slot + timedelta(days=1))
    assert is_new


def test_of_many_that_start_at_once_one_wins(ledger: Ledger) -> None:
    slot = datetime(2025, 10, 16, 2, tzinfo=UTC)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ledger.runs.create("shop", "schedule", slot), range(16)))
    assert len({run.id for run, _ in made}) == 1
    assert sum(is_new for _, is_new in made) == 1


def test_two_runs_of_one_second_have_different_backups(ledger: Ledger) -> None:
    names = set()
    for _ in range(3):
        run = begin(ledger)
        names.add(run.backup)
        ledger.runs.abandon(run.id, LarderError("enough"))
    assert len(names) == 3


def test_a_lost_run_is_closed_and_does_not_stand_in_the_way(ledger: Ledger) -> None:
    lost = begin(ledger)
    held = take(ledger, lost, "dump")
    expire(ledger, lost)
    begin(ledger)
    closed = ledger.runs.get(lost.id)
    assert (closed.state, closed.failed_step) == ("failed", "dump")
    assert "lost" in (closed.error or "")
    with pytest.raises(LeaseLostError):
        ledger.leases.finish(held)


def test_a_step_that_is_delivered_twice_runs_once(ledger: Ledger) -> None:
    run = begin(ledger)
    lease = take(ledger, run, "dump")
    assert ledger.leases.take(run.id, "dump", "host-2") is Refusal.BUSY
    ledger.leases.finish(lease)
    assert ledger.leases.take(run.id, "dump", "host-2") is Refusal.DONE
    assert ledger.leases.take(run.id, "upload", "host-2") is Refusal.EARLY
    ledger.runs.abandon(run.id, LarderError("enough"))
    assert ledger.leases.take(run.id, "compress", "host-2") is Refusal.OVER


def test_a_zombie_commits_nothing(ledger: Ledger) -> None:
    run = begin(ledger)
    zombie = take(ledger, run, "dump")
    expire(ledger, run)
    successor = take(ledger, run, "dump")
    assert successor.attempt > zombie.attempt
    assert successor.tries == 2
    error = LarderError("too late")
    for act in (
        lambda: ledger.leases.finish(zombie, artifact="zombie.sql"),
        lambda: ledger.leases.fail(zombie, error),
        lambda: ledger.leases.wait(zombie, error, 1),
        lambda: ledger.leases.renew(zombie),
        lambda: ledger.leases.report(zombie, "99 %"),
        lambda: ledger.leases.warn(zombie, "boo"),
    ):
        with pytest.raises(LeaseLostError):
            act()
    now = ledger.runs.get(run.id)
    assert (now.state, now.step, now.artifact, now.progress, now.warnings) == (
        "running",
        "dump",
        None,
        None,
        [],
    )
    ledger.leases.finish(successor, artifact="right.sql")
    assert ledger.runs.get(run.id).artifact == "right.sql"


def test_what_is_committed_along_is_in_the_same_transaction(ledger: Ledger) -> None:
    run = begin(ledger)
    lease = take(ledger, run, "dump")

    def also(connection: sa.Connection) -> None:
        raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError):
        ledger.leases.finish(lease, artifact="half.sql", also=also)
    now = ledger.runs.get(run.id)
    assert (now.artifact, now.step_named("dump").state) == (None, "running")


def test_a_failed_run_has_only_its_notice_left(ledger: Ledger) -> None:
    run = begin(ledger)
    lease = take(ledger, run, "dump")
    ledger.leases.fail(lease, UnreachableError("unable to reach it", "plug it in"))
    failed = ledger.runs.get(run.id)
    assert (failed.state, failed.failed_step, failed.error, failed.hint, failed.exit_code) == (
        "failed",
        "dump",
        "unable to reach it",
        "plug it in",
        6,
    )
    assert ledger.leases.take(run.id, "compress", "host-1") is Refusal.OVER
    pass_through(ledger, run, "notify")
    told = ledger.runs.get(run.id)
    assert (told.state, told.step_named("notify").state) == ("failed", "done")
    assert ledger.leases.take(run.id, "notify", "host-1") is Refusal.DONE


def test_a_waiting_step_can_be_taken_again(ledger: Ledger) -> None:
    run = begin(ledger)
    ledger.leases.wait(take(ledger, run, "dump"), UnreachableError("not yet"), 3)
    waiting = ledger.runs.get(run.id)
    assert (waiting.step_named("dump").state, waiting.progress) == ("waiting", "trying again in 3 s")
    assert take(ledger, run, "dump").tries == 2


def test_unknown_names_are_refused(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError):
        ledger.runs.get("nothing")
    with pytest.raises(NotFoundError):
        ledger.leases.take("nothing", "dump", "host-1")
    with pytest.raises(NotFoundError):
        ledger.leases.take(begin(ledger).id, "nothing", "host-1")


def test_the_journal_keeps_lines_in_order(ledger: Ledger) -> None:
    run = begin(ledger)
    for number in range(3):
        ledger.journal.write(run.id, "INFO", f"line {number}")
    lines = ledger.journal.read(run.id)
    assert [line.text for line in lines] == ["line 0", "line 1", "line 2"]
    assert [line.text for line in ledger.journal.read(run.id, after=lines[1].id)] == ["line 2"]


def test_latest_runs_come_newest_first(ledger: Ledger) -> None:
    first = begin(ledger)
    ledger.runs.abandon(first.id, LarderError("enough"))
    second = begin(ledger)
    other = begin(ledger, "crm")
    assert [run.id for run in ledger.runs.latest()] == [other.id, second.id, first.id]
    assert [run.id for run in ledger.runs.latest("shop")] == [second.id, first.id]
    assert [run.id for run in ledger.runs.latest(failed=True)] == [first.id]
    assert [run.id for run in ledger.runs.latest(limit=1)] == [other.id]
    assert ledger.runs.over([first.id, second.id, "unknown"]) == {first.id, "unknown"}


def test_many_processes_may_open_a_new_ledger_at_once(ledger_url: str) -> None:
    code = "import sys; from larder.ledger import open_ledger; open_ledger(sys.argv[1]).runs.latest()"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, ledger_url], stderr=subprocess.PIPE) for _ in range(6)
    ]
    for process in processes:
        _, complaints = process.communicate()
        assert process.returncode == 0, complaints.decode()


def test_the_migrations_make_the_tables_that_the_code_names(ledger: Ledger) -> None:
    found = sa.inspect(ledger._engine)
    for table in tables.metadata.sorted_tables:
        columns = {column["name"]: column for column in found.get_columns(table.name)}
        assert columns.keys() == set(table.columns.keys())
        for column in table.columns:
            assert columns[column.name]["nullable"] == column.nullable, f"{table.name}.{column.name}"
    indexes = {index["name"] for index in found.get_indexes("runs")}
    assert {"runs_by_time", "one_active_run_per_database"} <= indexes
    scripts = Path(schema.__file__).parent / "migrations" / "versions"
    newest = max(path.name for path in scripts.glob("[0-9]*.py"))
    assert newest.startswith(schema.HEAD)


def test_a_ledger_out_of_reach_is_said_without_its_password() -> None:
    with pytest.raises(UnreachableError) as caught:
        open_ledger("postgresql://larder:s3cr3t-p%40ss%2Fword@127.0.0.1:1/larder")
    assert "127.0.0.1" in caught.value.message
    assert "s3cr3t" not in str(caught.value)


def test_a_ledger_file_is_private(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite3'}")
    begin(ledger)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "state").iterdir()}
    assert set(modes.values()) == {"0o600"}, modes
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    ledger.close()
