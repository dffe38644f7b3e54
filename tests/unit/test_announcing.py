"""People hear of what has failed: the first at once, what follows together, each once, and again each day."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from larder.codecs import codec
from larder.encoding import Encoding
from larder.errors import IntegrityError, LarderError, UnreachableError
from larder.ledger import Ledger, tables
from larder.ledger.runs import Run
from tasks import announcing, backup, chain, context, guard, telling
from tasks.checksum import checksum
from tasks.compress import compress
from tasks.dump import dump
from tasks.notify import notify
from tasks.rotate import rotate
from tasks.upload import upload
from tasks.verify import verify
from tests.backups import lay
from tests.channels import Web, free_port, serving
from tests.standings import keep

AWAY = "unable to reach database '{0}': connection refused"
DAY = timedelta(days=1)


@dataclass
class Stand:
    folder: Path
    stack: ExitStack

    @property
    def ledger(self) -> Ledger:
        return context.ledger()

    def channel(self) -> Web:
        made = Web()
        self.stack.enter_context(serving(made))
        return made

    def configure(
        self, *channels: Web, names: tuple[str, ...] = ("shop",), more: str = "", on: str = ""
    ) -> None:
        tables = [f'[databases.{name}]\nurl = "sqlite:///{self.folder}/shop.db"\n' for name in names]
        tables += [
            f'[notifiers.place{number}]\nurl = "http://127.0.0.1:{channel.port}/hook"\n{on}\n'
            for number, channel in enumerate(channels)
        ]
        tables += [f'[stores.nas]\npath = "{self.folder}/nas"\n{more}']
        (self.folder / "larder.toml").write_text("\n".join(tables))
        context.settings.cache_clear()

    def fail(self, name: str, error: LarderError | None = None) -> Run:
        """A backup that fails before its dump, and the link that tells of it."""
        run = backup.start(name, "command")
        self.ledger.runs.abandon(run.id, error or UnreachableError(AWAY.format(name), f"see to {name}"))
        notify(run.id)
        return run

    def back_up(self, name: str = "shop", *stores: str) -> Run:
        run = backup.start(name, "command")
        for link in (dump, compress, checksum):
            link(run.id)
        for store in stores or ("nas",):
            try:
                upload(run.id, store)
            except LarderError:
                pass
        rotate(run.id)
        notify(run.id)
        return self.ledger.runs.get(run.id)

    def pass_by(self, time: timedelta) -> None:
        """Have everything that was noted be noted so much earlier."""
        earlier = {"heard": {}, "relieved": {}}
        if time >= announcing.PAUSE:
            with self.ledger._engine.begin() as connection:
                connection.execute(tables.slots.delete())
        with self.ledger._engine.begin() as connection:
            for row in connection.execute(tables.misses.select()).mappings().all():
                for column in earlier:
                    known = (row[column] or {}).items()
                    earlier[column] = {
                        name: (datetime.fromisoformat(at) - time).isoformat() for name, at in known
                    }
                values = {**earlier, "since": row["since"] - time}
                connection.execute(
                    tables.misses.update().where(tables.misses.c.id == row["id"]).values(values)
                )


def lines(channel: Web) -> list[str]:
    """The line for phones of each message."""
    return [str(json.loads(body)["text"]) for body in channel.bodies]


def heads(channel: Web) -> list[str]:
    return [line.partition(":")[0] for line in lines(channel)]


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    names = ("DATABASE_URL", "BACKUP_DIR", "REDIS_URL", "BACKUP_S3_BUCKET", "SLACK_WEBHOOK_URL", "http_proxy")
    for variable in names:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LARDER_CONFIG", str(tmp_path / "larder.toml"))
    monkeypatch.setenv("LARDER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(chain, "send", lambda *_: None)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")
    context._ledger_of.cache_clear()
    context.signer.cache_clear()
    with ExitStack() as stack:
        made = Stand(tmp_path, stack)
        made.configure()
        yield made
        made.ledger.close()
    context.settings.cache_clear()
    context._ledger_of.cache_clear()
    context.signer.cache_clear()


@pytest.fixture
def channel(stand: Stand) -> Web:
    made = stand.channel()
    stand.configure(made)
    return made


NAMES = tuple(f"db{number:03}" for number in range(200))


def test_two_hundred_failures_are_one_at_once_and_one_message_for_the_others(
    stand: Stand, channel: Web
) -> None:
    stand.configure(channel, names=NAMES)
    for name in NAMES[:190]:
        stand.fail(name)
    for name in NAMES[190:]:
        stand.fail(name, LarderError(f"unable to dump '{name}': disk full", "make room"))
    guard.guard()
    assert lines(channel) == ["Backup of db000 failed at start"]
    stand.pass_by(announcing.WINDOW)
    guard.guard()
    guard.guard()
    [_, summary] = lines(channel)
    assert (
        summary
        == "199 databases are in trouble: 189 of 199: unable to reach database '…': connection refused"
    )
    body = channel.received[1]
    for said in ("db001", "and 179 more", "189 × unable to reach", "10 × unable to dump '…': disk full"):
        assert said in body
    assert "see to …" in body
    assert "make room" in body
    stand.pass_by(announcing.WINDOW)
    guard.guard()
    assert channel.asked == 2


def test_that_many_are_well_again_is_told_together(stand: Stand, channel: Web) -> None:
    stand.configure(channel, names=NAMES[:5], on='on = ["failure", "recovered"]')
    for name in NAMES[:5]:
        stand.fail(name)
    for name in NAMES[:5]:
        stand.back_up(name)
    assert heads(channel) == ["Backup of db000 failed at start", "Backup of db000 well again"]
    stand.pass_by(announcing.WINDOW)
    guard.guard()
    guard.guard()
    assert heads(channel)[2:] == ["4 databases are out of trouble"]


def test_a_few_have_a_message_each(stand: Stand, channel: Web) -> None:
    stand.configure(channel, names=NAMES[:4])
    runs = [stand.fail(name) for name in NAMES[:4]]
    stand.pass_by(announcing.WINDOW)
    guard.guard()
    # The first one by itself, and the others at one time.
    assert heads(channel)[0] == "Backup of db000 failed at start"
    assert sorted(heads(channel)) == [f"Backup of {name} failed at start" for name in NAMES[:4]]
    told = dict(zip(heads(channel), channel.received, strict=True))
    assert all(run.id in told[f"Backup of {run.database} failed at start"] for run in runs)


def test_failures_that_come_one_by_one_for_hours_are_a_few_messages(stand: Stand, channel: Web) -> None:
    """Starts are spread, and each waits for its server: what fails together need not do so within minutes."""
    stand.configure(channel, names=NAMES[:90])
    for name in NAMES[:90]:
        stand.fail(name)
        stand.pass_by(timedelta(minutes=2))
    stand.pass_by(announcing.LONGEST_WINDOW)
    guard.guard()
    assert 5 <= channel.asked <= 12
    told = [int(line.partition(" ")[0]) for line in heads(channel) if line[0].isdecimal()]
    assert sum(told) + sum(line.startswith("Backup of") for line in heads(channel)) == 90


def test_who_answers_that_it_failed_does_not_get_the_same_each_minute(stand: Stand, channel: Web) -> None:
    """It may have told people all the same."""
    channel.status = 500
    stand.fail("shop")
    guard.guard()
    assert channel.asked == 2, "at first it is asked each minute"
    stand.pass_by(announcing.EAGER)
    for _ in range(6):
        guard.guard()
    assert 3 <= channel.asked <= 4, "another one where a quarter of an hour began just now"
    channel.status, before = 200, channel.asked
    stand.pass_by(announcing.PAUSE)
    guard.guard()
    guard.guard()
    assert channel.asked == before + 1


def test_who_was_told_in_part_is_not_told_again_before_a_day(stand: Stand, channel: Web) -> None:
    here = f"json://127.0.0.1:{channel.port}/two"
    more = f'[notifiers.phones]\ntype = "apprise"\nurl = "json://127.0.0.1:{free_port()}/one {here}"\n'
    stand.configure(more=more)
    run = stand.fail("shop")
    guard.guard()
    assert channel.asked == 1
    assert "service 1 of 2 could not be told" in "".join(stand.ledger.runs.get(run.id).warnings)
    stand.pass_by(DAY)
    guard.guard()
    assert channel.asked == 2


def test_a_clock_that_was_wrong_does_not_silence_anybody(stand: Stand, channel: Web) -> None:
    stand.fail("shop")
    stand.pass_by(timedelta(days=-400))
    guard.guard()
    assert channel.asked == 2


def test_who_was_away_for_an_hour_hears_of_all_of_it_and_the_others_of_nothing_twice(
    stand: Stand, channel: Web
) -> None:
    away = stand.channel()
    away.status = 503
    stand.configure(channel, away, names=NAMES[:8])
    for name in NAMES[:8]:
        stand.fail(name)
    for _ in range(3):
        stand.pass_by(timedelta(minutes=20))
        guard.guard()
    assert heads(channel) == ["Backup of db000 failed at start", "7 databases are in trouble"]
    before = away.asked
    away.status = 200
    stand.pass_by(announcing.PAUSE)
    guard.guard()
    guard.guard()
    assert away.asked == before + 1
    assert heads(away)[-1] == "8 databases are in trouble"
    assert len(heads(channel)) == 2


def test_what_lasts_is_told_again_each_day_and_not_before(stand: Stand, channel: Web) -> None:
    stand.fail("shop")
    stand.pass_by(DAY / 2)
    guard.guard()
    assert channel.asked == 1
    stand.pass_by(DAY / 2)
    guard.guard()
    guard.guard()
    assert heads(channel) == ["Backup of shop failed at start"] * 2


def test_a_failure_at_the_same_step_is_told_each_day_and_at_another_one_at_once(
    stand: Stand, channel: Web
) -> None:
    stand.fail("shop")
    stand.pass_by(DAY / 4)
    stand.fail("shop")
    assert channel.asked == 1
    run = backup.start("shop", "command")
    stand.ledger.runs.abandon(run.id, LarderError("unable to write"), "upload")
    notify(run.id)
    assert heads(channel) == ["Backup of shop failed at start", "Backup of shop failed at upload"]
    stand.pass_by(DAY)
    nightly = stand.fail("shop")
    assert nightly.id in channel.received[-1]
    assert channel.asked == 3


def test_the_next_good_backup_is_told_once_as_recovery(stand: Stand, channel: Web) -> None:
    stand.fail("shop")
    stand.pass_by(timedelta(hours=2))
    stand.back_up()
    stand.back_up()
    guard.guard()
    first, *both, last = heads(channel)
    assert (first, last) == ("Backup of shop failed at start", "Backup of shop done")
    assert sorted(both) == ["Backup of shop done", "Backup of shop well again"]
    assert "Backup of shop well again: after 2 h" in lines(channel)


def test_a_failure_that_is_told_after_a_later_backup_went_well_is_over(stand: Stand, channel: Web) -> None:
    """Its last link lay in the queue of a host that was away, or Redis was."""
    ping = f'[notifiers.check]\ntype = "ping"\nurl = "http://127.0.0.1:{channel.port}/{{database}}"\n'
    stand.configure(channel, on='on = ["failure", "recovered"]', more=ping)
    late = backup.start("shop", "command")
    stand.ledger.runs.abandon(late.id, UnreachableError(AWAY.format("shop")))
    stand.back_up()
    notify(late.id)
    assert stand.ledger.misses.open() == []
    assert channel.paths == ["/shop/start", "/shop", "/hook"], "a check that is green stays so"
    assert json.loads(channel.bodies[-1])["text"].startswith("Backup of shop well again")
    stand.pass_by(DAY)
    guard.guard()
    assert channel.asked == 3


def test_a_failure_that_is_told_after_a_later_one_does_not_take_its_place(stand: Stand, channel: Web) -> None:
    late = backup.start("shop", "command")
    stand.ledger.runs.abandon(late.id, UnreachableError(AWAY.format("shop")), "upload")
    newer = stand.fail("shop")
    notify(late.id)
    [miss] = stand.ledger.misses.open()
    assert miss.run == newer.id
    assert heads(channel) == ["Backup of shop failed at start"]


def test_a_store_without_a_copy_is_a_failure_until_it_has_one(stand: Stand, channel: Web) -> None:
    blocked = stand.folder / "blocked"
    blocked.write_text("")
    stand.configure(
        channel, more=f'[stores.off]\npath = "{blocked}/inside"\n', on='on = ["failure", "recovered"]'
    )
    run = stand.back_up("shop", "nas", "off")
    assert run.state == "stored"
    [line] = lines(channel)
    assert line.startswith(f"Copies of the backup of shop missing: no copy of {run.backup} in off: ")
    blocked.unlink()
    stand.back_up("shop", "nas", "off")
    assert heads(channel)[1:] == ["Copies of the backup of shop complete again"]


def test_however_many_tell_at_a_time_each_hears_once(stand: Stand, channel: Web) -> None:
    stand.configure(channel, names=NAMES[:6])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(stand.fail, NAMES[:6]))
    stand.pass_by(announcing.WINDOW)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: announcing.announce(), range(16)))
    told = "".join(channel.received)
    assert heads(channel)[0].endswith("failed at start")
    assert len(channel.received) <= 4
    assert [name for name in NAMES[:6] if name not in told] == []


def test_where_no_guard_comes_the_rest_is_told_before_the_command_ends(stand: Stand, channel: Web) -> None:
    stand.configure(channel, names=NAMES[:3])
    for name in NAMES[:3]:
        stand.fail(name)
    guard.tidy()
    assert channel.asked == 1
    stand.ledger.runs.alone = True
    guard.tidy()
    assert channel.asked == 3


def test_a_missed_objective_and_a_failure_of_many_are_one_message(stand: Stand, channel: Web) -> None:
    stand.configure(channel, names=NAMES[:3])
    for name in NAMES[:3]:
        keep(stand.ledger, name, datetime.now(UTC) - timedelta(days=3))
        stand.fail(name)
    stand.pass_by(announcing.WINDOW)
    guard.guard()
    assert heads(channel)[1:] == ["3 databases are in trouble"]
    assert "Recovery point (rpo)" in channel.received[1]


def test_failures_are_told_although_nobody_can_say_how_objectives_stand(
    stand: Stand, channel: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(*_: object) -> None:
        raise ValueError("a fault in Larder")

    monkeypatch.setattr("tasks.objectives.judge", judge)
    stand.configure(channel, names=NAMES[:2])
    for name in NAMES[:2]:
        stand.fail(name)
    stand.pass_by(announcing.WINDOW)
    guard.guard()
    assert heads(channel) == [f"Backup of {name} failed at start" for name in NAMES[:2]]


@pytest.mark.parametrize(("on", "told"), [('["failure"]', 1), ('["success", "anomaly"]', 0), ("[]", 0)])
def test_who_does_not_want_to_hear_of_failures_does_not(
    stand: Stand, channel: Web, on: str, told: int
) -> None:
    stand.configure(channel, on=f"on = {on}")
    stand.fail("shop")
    stand.pass_by(announcing.WINDOW)
    guard.guard()
    assert channel.asked == told


def test_pings_are_of_each_and_say_when_a_backup_begins(stand: Stand, channel: Web) -> None:
    stand.configure(
        names=("shop", "crm"),
        more=f'[notifiers.check]\ntype = "ping"\nurl = "http://127.0.0.1:{channel.port}/{{database}}"\n',
    )
    stand.fail("shop")
    stand.fail("crm")
    stand.back_up("shop")
    assert channel.paths == ["/shop/fail", "/crm/fail", "/shop/start", "/shop"]
    assert AWAY.format("crm") in channel.received[1]


def test_a_notifier_that_hangs_fails_no_backup_and_is_a_warning_of_it(
    stand: Stand, channel: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("larder.notifiers.TIMEOUT", 0.2)
    channel.hang.clear()
    run = stand.back_up()
    assert (run.state, run.warnings) == (
        "stored",
        ["place0 could not be told: unable to tell place0: no answer within 0.2 seconds"],
    )


def test_whoever_listens_hears_of_each_backup(stand: Stand) -> None:
    heard: list[tuple[str, str]] = []

    def hear(word: str) -> Callable[..., None]:
        def listen(run: Run, **_: object) -> None:
            heard.append((word, run.state))
            raise ValueError("what it raises fails nothing")

        return listen

    began, ended = hear("began"), hear("ended")
    telling.run_began.connect(began)
    telling.run_ended.connect(ended)
    try:
        assert stand.back_up().state == "stored"
        stand.fail("shop")
    finally:
        telling.run_began.disconnect(began)
        telling.run_ended.disconnect(ended)
    assert heard == [("began", "running"), ("ended", "running"), ("ended", "failed")]


# Copies that are not as they were written.


def lay_broken(stand: Stand, names: tuple[str, ...]) -> list[Path]:
    """A backup of each, whose artifact is not as it was written."""
    artifacts = []
    for name in names:
        made = lay(stand.folder / "nas" / name, f"{name}/20251014_020000", Encoding([codec("gzip")]))
        artifacts.append(stand.folder / "nas" / name / made.artifact.name)
        artifacts[-1].write_bytes(b"x" * made.artifact.size)
    return artifacts


def verify_badly() -> None:
    with pytest.raises(IntegrityError):
        verify()


def test_broken_copies_of_many_are_one_message_again_each_day_and_over_once(
    stand: Stand, channel: Web
) -> None:
    names = NAMES[:8]
    stand.configure(channel, names=names)
    artifacts = lay_broken(stand, names)
    verify_badly()
    assert heads(channel) == ["8 databases are in trouble"]
    assert "Verification" in channel.received[0]
    verify_badly()
    announcing.announce()
    assert channel.asked == 1
    stand.pass_by(DAY)
    verify_badly()
    assert heads(channel)[1:] == ["8 databases are in trouble"]
    for name, artifact in zip(names, artifacts, strict=True):
        made = lay(stand.folder / "other" / name, f"{name}/20251014_020000", Encoding([codec("gzip")]))
        artifact.write_bytes((stand.folder / "other" / name / made.artifact.name).read_bytes())
    verify()
    verify()
    announcing.announce()
    assert heads(channel)[2:] == ["8 databases are out of trouble"]


def test_a_broken_copy_is_told_to_who_was_away_and_another_one_at_once(stand: Stand, channel: Web) -> None:
    channel.status = 503
    lay_broken(stand, ("shop",))
    verify_badly()
    channel.status = 200
    announcing.announce()
    assert heads(channel)[1:] == ["Verification of the backups of shop failed"]
    stand.pass_by(DAY / 2)
    made = lay(stand.folder / "nas" / "shop", "shop/20251015_020000", Encoding([codec("gzip")]))
    (stand.folder / "nas" / "shop" / made.artifact.name).write_bytes(b"x")
    verify_badly()
    assert heads(channel)[2:] == ["Verification of the backups of shop failed"]
    assert "shop/20251015_020000" in channel.received[-1]


def test_broken_copies_of_databases_that_are_no_longer_are_one_message_too(
    stand: Stand, channel: Web
) -> None:
    """Of databases that are configured no longer, whose backups are kept."""
    lay_broken(stand, NAMES[:8])
    verify_badly()
    assert heads(channel) == ["8 databases are in trouble"]
