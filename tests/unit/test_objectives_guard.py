"""What the guard makes of objectives: people hear once that one is missed, and once that it is met again."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from console.status import print_status
from larder import health
from larder.ledger import Ledger
from larder.ledger.misses import Misses
from tasks import chain, context, guard, objectives
from tests.standings import drill, keep


class Channel(ThreadingHTTPServer):
    """A webhook that keeps the line for phones of each message, and may be out of order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.told: list[str] = []
        self.asked = 0
        self.works = True


class _Answer(BaseHTTPRequestHandler):
    server: Channel

    def do_POST(self) -> None:
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
        self.server.asked += 1
        if self.server.works:
            self.server.told.append(text)
        self.send_response(200 if self.server.works else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def open_channel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Channel]]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    opened: list[tuple[Channel, threading.Thread]] = []

    def new() -> Channel:
        made = Channel()
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        opened.append((made, thread))
        return made

    yield new
    for made, thread in opened:
        made.shutdown()
        thread.join()
        made.server_close()


@dataclass
class Stand:
    folder: Path

    @property
    def ledger(self) -> Ledger:
        return context.ledger()

    def configure(
        self, *channels: Channel, names: tuple[str, ...] = ("shop",), keys: str = "", on: str = ""
    ) -> None:
        tables = [f'[databases.{name}]\nurl = "sqlite:///{name}.db"\n{keys}\n' for name in names]
        tables += [
            f'[notifiers.place{number}]\nurl = "http://127.0.0.1:{channel.server_port}/hook"\n{on}\n'
            for number, channel in enumerate(channels)
        ]
        (self.folder / "larder.toml").write_text("\n".join([*tables, '[stores.nas]\npath = "nas"\n']))
        context.settings.cache_clear()

    def keep(self, **age: float) -> str:
        return keep(self.ledger, "shop", datetime.now(UTC) - timedelta(**age))


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    for variable in ("DATABASE_URL", "BACKUP_DIR", "REDIS_URL", "BACKUP_S3_BUCKET", "SLACK_WEBHOOK_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LARDER_CONFIG", str(tmp_path / "larder.toml"))
    monkeypatch.setattr(chain, "send", list)
    context._ledger_of.cache_clear()
    made = Stand(tmp_path)
    made.configure()
    yield made
    made.ledger.close()
    context.settings.cache_clear()
    context._ledger_of.cache_clear()


@pytest.fixture
def channel(open_channel: Callable[[], Channel], stand: Stand) -> Channel:
    made = open_channel()
    stand.configure(made)
    return made


def test_a_miss_is_told_once_and_so_is_that_it_is_over(stand: Stand, channel: Channel) -> None:
    guard.guard()
    assert channel.told == []
    stand.keep(hours=76)
    guard.guard()
    guard.guard()
    assert channel.told == ["rpo of shop missed: newest backup is 3 d 4 h old, 24 h are allowed"]
    stand.keep(hours=3)
    guard.guard()
    guard.guard()
    assert channel.told[1:] == ["rpo of shop met again: newest backup is 3 h old, 24 h are allowed"]


def test_a_slow_recovery_and_a_late_proof_are_told(stand: Stand, channel: Channel) -> None:
    stand.configure(channel, keys='rto = "10m"\ndrill = "0 4 * * *"')
    now = datetime.now(UTC)
    drill(stand.ledger, stand.keep(hours=60), "proven", 725, created=now - timedelta(hours=59))
    stand.keep(hours=1)
    guard.guard()
    assert sorted(channel.told) == [
        "proof of shop missed: newest proven backup is 2 d 12 h old, 2 d are allowed",
        "rto of shop missed: the last recovery took 12 min 5 s, 10 min are allowed",
    ]
    drill(stand.ledger, stand.keep(hours=0), "proven", 80)
    guard.guard()
    assert sorted(line.partition(":")[0] for line in channel.told[2:]) == [
        "proof of shop met again",
        "rto of shop met again",
    ]


def test_a_notifier_that_is_away_is_asked_again_and_fails_no_guard(stand: Stand, channel: Channel) -> None:
    channel.works = False
    stand.keep(hours=76)
    guard.guard()
    guard.guard()
    assert (channel.told, channel.asked) == ([], 2)
    channel.works = True
    guard.guard()
    guard.guard()
    assert [line.partition(":")[0] for line in channel.told] == ["rpo of shop missed"]


def test_one_that_was_away_all_the_time_hears_that_it_was_missed_and_is_over(
    stand: Stand, channel: Channel
) -> None:
    channel.works = False
    stand.keep(hours=76)
    guard.guard()
    stand.keep(hours=1)
    guard.guard()
    channel.works = True
    guard.guard()
    guard.guard()
    assert [line.partition(":")[0] for line in channel.told] == ["rpo of shop met again"]


def test_where_one_of_two_is_away_the_other_hears_of_it_once_and_the_first_when_it_is_back(
    stand: Stand, channel: Channel, open_channel: Callable[[], Channel]
) -> None:
    other = open_channel()
    other.works = False
    stand.configure(channel, other)
    stand.keep(hours=76)
    guard.guard()
    guard.guard()
    assert (len(channel.told), other.asked, other.told) == (1, 2, [])
    other.works = True
    guard.guard()
    guard.guard()
    assert (len(channel.told), other.told) == (1, channel.told)
    stand.keep(hours=1)
    guard.guard()
    assert [len(one.told) for one in (channel, other)] == [2, 2]


def test_who_is_away_is_asked_once_a_guard_whatever_is_missed(stand: Stand, channel: Channel) -> None:
    channel.works = False
    names = tuple(f"db{number}" for number in range(20))
    stand.configure(channel, names=names)
    for name in names:
        keep(stand.ledger, name, datetime.now(UTC) - timedelta(days=3))
    guard.guard()
    assert channel.asked == 1
    assert [miss.heard for miss in stand.ledger.misses.open()] == [{}] * 20


class _KilledError(BaseException):
    """What no handler catches."""


def test_a_guard_that_is_killed_before_it_notes_it_has_told_and_the_next_tells_again(
    stand: Stand, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise _KilledError

    stand.keep(hours=76)
    with monkeypatch.context() as patched:
        patched.setattr(Misses, "told", die)
        with pytest.raises(_KilledError):
            guard.guard()
    guard.guard()
    guard.guard()
    assert len(channel.told) == 2


def test_however_many_guards_there_are_one_tells(stand: Stand, channel: Channel) -> None:
    stand.keep(hours=76)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: objectives.watch(), range(16)))
    assert len(channel.told) == 1


def test_what_is_configured_no_longer_or_not_judged_any_more_ends_silently(
    stand: Stand, channel: Channel
) -> None:
    stand.configure(channel, keys='drill = "0 4 * * *"')
    stand.keep(hours=76)
    drill(stand.ledger, stand.keep(hours=100), "proven", 60)
    guard.guard()
    assert sorted(miss.objective for miss in stand.ledger.misses.open()) == ["proof", "rpo"]
    stand.configure(channel)
    guard.guard()
    assert [miss.objective for miss in stand.ledger.misses.open()] == ["rpo"]
    stand.configure(channel, names=("crm",))
    guard.guard()
    assert stand.ledger.misses.open() == []
    assert [miss.told for miss in stand.ledger.misses.current()] == [True, True]
    assert len(channel.told) == 2


@pytest.mark.parametrize(
    ("on", "told"),
    [
        ('on = ["failure"]', ["rpo of shop missed"]),
        ('on = ["recovered"]', ["rpo of shop met again"]),
        ('on = ["success"]', []),
    ],
)
def test_who_wants_to_hear_of_one_of_both_hears_of_that(
    stand: Stand, channel: Channel, on: str, told: list[str]
) -> None:
    stand.configure(channel, on=on)
    stand.keep(hours=76)
    guard.guard()
    stand.keep(hours=1)
    guard.guard()
    assert [line.partition(":")[0] for line in channel.told] == told
    assert [miss.told for miss in stand.ledger.misses.current()] == [True]


def test_nobody_to_tell_is_no_trouble(stand: Stand) -> None:
    stand.keep(hours=76)
    guard.guard()
    assert len(stand.ledger.misses.open()) == 1
    stand.keep(hours=1)
    guard.guard()
    assert [miss.told for miss in stand.ledger.misses.current()] == [True]


# What status makes of it


def shown(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """The exit code of `status --json`, and what it says of the only database."""
    capsys.readouterr()
    code = print_status(as_json=True)
    [state] = json.loads(capsys.readouterr().out)
    return code, state


def status(capsys: pytest.CaptureFixture[str]) -> str:
    print_status(as_json=False)
    return capsys.readouterr().out


def test_status_without_a_drill_has_nothing_to_judge_but_rpo(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    stand.keep(hours=3)
    code, state = shown(capsys)
    assert (code, state["safe"]) == (0, True)
    assert (state["newest_proven"], state["proven_created"], state["recovery_seconds"]) == (None, None, None)
    assert state["last_drill"] is None
    assert state["objectives"]["rpo"]["met"] is True
    assert state["objectives"]["proof"] == {"seconds": None, "target": None, "met": None}
    assert state["objectives"]["rto"] == {"seconds": None, "target": 1800, "met": None}
    assert re.search(r"^shop +safe .* never +- +never ", status(capsys), re.MULTILINE)


def test_status_shows_the_measured_recovery_against_its_target(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = stand.keep(hours=3)
    run = drill(stand.ledger, backup, "proven", 720)
    code, state = shown(capsys)
    assert (code, state["newest_proven"], state["recovery_seconds"]) == (0, backup, 720)
    assert state["objectives"]["rto"] == {"seconds": 720, "target": 1800, "met": True}
    last = state["last_drill"]
    assert (last["run"], last["backup"], last["outcome"], last["level"]) == (run, backup, "proven", "rows")
    assert re.search(r"^shop +safe .* proven .* 3 hours +12 m of 30 m ", status(capsys), re.MULTILINE)


def test_status_is_unsafe_where_an_objective_is_missed(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    drill(stand.ledger, stand.keep(hours=76), "proven", 1815)
    code, state = shown(capsys)
    assert (code, state["safe"]) == (1, False)
    assert {name: one["met"] for name, one in state["objectives"].items()} == {
        "rpo": False,
        "proof": None,
        "rto": False,
    }
    text = status(capsys)
    assert "shop: rpo is missed: newest backup is 3 d 4 h old, 24 h are allowed" in text
    assert "31 m of 30 m" in text
    assert "shop: rto is missed: the last recovery took 30 min 15 s, 30 min are allowed" in text


def test_status_is_unsafe_where_the_last_drill_found_a_backup_broken(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newest = stand.keep(hours=8), stand.keep(hours=3)
    drill(stand.ledger, newest, "proven", 60, created=datetime.now(UTC) - timedelta(hours=2))
    drill(stand.ledger, older, "broken", error="rows differ")
    code, state = shown(capsys)
    assert (code, state["proof"], state["last_drill"]["outcome"]) == (1, "proven", "broken")
    assert f"shop: the last drill, of {older}, found it broken: rows differ" in status(capsys)


def test_a_drill_that_proved_nothing_is_told_and_changes_nothing(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = stand.keep(hours=3)
    drill(stand.ledger, backup, "failed", error="no server program")
    stand.ledger.drills.begin("shop", backup, "nas", "command")
    assert shown(capsys)[0] == 0
    assert f"shop: the last drill, of {backup}, failed: no server program" in status(capsys)


def test_a_first_backup_that_is_being_made_is_not_late(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    stand.ledger.runs.create("shop", "command", stores=["nas"])
    assert shown(capsys)[1]["objectives"]["rpo"]["met"] is None


@pytest.mark.parametrize(("keys", "count"), [("", 1), ('drill = "0 4 * * 0"', 0), ("drill_every = 7", 0)])
def test_doctor_warns_where_nothing_proves_backups(stand: Stand, keys: str, count: int) -> None:
    stand.configure(keys=keys)
    found = [one for one in health.checks(context.settings(), context.ledger) if one.name == "drills"]
    assert [(one.subject, one.state) for one in found] == [("shop", "warning")] * count
