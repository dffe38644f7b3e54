"""What every notifier promises, against real servers on this machine. A new one adds a factory to `FACTORIES`."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from larder import notifiers
from larder.errors import ConfigurationError, RefusedError, UnreachableError
from larder.notifiers import Notice, Notifier, NotifierSettings, Trouble, open_notifier, settings_of
from tests.channels import Mail, Web, free_port, serving

Server = Web | Mail

#: The part of an address that nobody else may learn.
TOKEN = "T0001/B0002/s3cr3tt0k3n"


def made(word: str, url: str, **more: Any) -> Notifier:
    return open_notifier(settings_of(word)(name="team", type=word, url=url, **more))


#: How to make a notifier of each kind that talks to a port of this machine.
FACTORIES: dict[str, Callable[[int], Notifier]] = {
    "slack": lambda port: made("slack", f"http://127.0.0.1:{port}/services/{TOKEN}"),
    "webhook": lambda port: made("webhook", f"http://127.0.0.1:{port}/services/{TOKEN}"),
    "ping": lambda port: made("ping", f"http://127.0.0.1:{port}/services/{TOKEN}"),
    "apprise": lambda port: made("apprise", f"json://127.0.0.1:{port}/services/{TOKEN}"),
    "email": lambda port: made(
        "email",
        f"smtp://larder:{quote(TOKEN, safe='')}@127.0.0.1:{port}",
        sender="larder@example.com",
        to=("ops@example.com",),
        starttls=False,
    ),
}

#: Those that are told by HTTP, and those of them that Larder itself talks to.
BY_HTTP = ("apprise", "ping", "slack", "webhook")
BY_ITSELF = ("ping", "slack", "webhook")

#: What a server of mail answers where one of HTTP answers these.
IN_MAIL = {500: 451, 503: 421, 429: 452, 400: 501, 403: 553, 404: 550, 410: 554}

DONE = Notice(
    event="success",
    database="shop",
    run="01J9ZK",
    artifact="backup_postgres_20251016_020000.sql.gz",
    size=45_000_000,
    seconds=72.4,
    created="2025-10-16T02:00:00Z",
    proof="stored",
    stores=("local", "nas"),
    warnings=("pg_dump 17 is newer than the server",),
)

FAILED = Notice(
    event="failure",
    database="shop",
    run="01J9ZK",
    artifact=None,
    size=None,
    seconds=3.2,
    created="2025-10-16T02:00:00Z",
    proof=None,
    step="dump",
    error="unable to dump database 'shop': permission denied for table <orders> & more",
    hint="grant SELECT on all tables to role 'backup'",
)

#: What drills and objectives add. Each text is one that a reader needs.
DRILL = Notice(
    event="success",
    database="shop",
    run="01J9ZK",
    artifact="backup_postgres_20251016_020000.sql.gz",
    size=45_000_000,
    seconds=90,
    created="2025-10-16T02:00:00Z",
    proof="proven",
    about="drill",
    backup="shop/20251016_020000",
    outcome="proven",
    level="rows",
    tables=12,
    rows=34_567,
    recovery_seconds=72.4,
)

BROKEN = replace(
    DRILL,
    event="failure",
    outcome="broken",
    proof="broken",
    step="examine",
    error="unable to prove backup shop/20251016_020000: what came back is not what was backed up",
    hint="make another",
    differences=tuple(f"table public.t{number}: 3 rows, found 2" for number in range(12)),
)

UNPROVEN = replace(
    DRILL,
    event="failure",
    outcome="failed",
    proof="stored",
    level=None,
    tables=None,
    rows=None,
    recovery_seconds=None,
    step="load",
    error="unable to find initdb",
    hint="install PostgreSQL 18",
)

MISSED = Notice(
    event="failure",
    database="shop",
    run="",
    artifact=None,
    size=None,
    seconds=60,
    created="2025-10-16T02:00:00Z",
    proof=None,
    error="newest backup is 3 d 4 h old, 24 h are allowed",
    hint="larder backup shop",
    about="objective",
    objective="rpo",
    detail="newest backup is 3 d 4 h old, 24 h are allowed",
)

MET_AGAIN = replace(
    MISSED, event="recovered", seconds=7500, error=None, hint=None, detail="newest backup is 5 min old"
)

OTHERS = {
    "proven": (DRILL, ("shop/20251016_020000", "rows", "12", "34,567", "1 min 12 s", "01J9ZK")),
    "broken": (BROKEN, ("shop/20251016_020000", "t0: 3 rows, found 2", "and 2 more", "make another")),
    "unproven": (UNPROVEN, ("shop/20251016_020000", "load", "initdb", "install PostgreSQL 18")),
    "missed": (MISSED, ("rpo", "shop", "3 d 4 h old", "larder backup shop", "2025-10-16T02:00:00Z")),
    "met again": (MET_AGAIN, ("rpo", "shop", "met again", "2 h 5 min", "5 min old")),
}


SEVERAL = Notice(
    event="failure",
    database="",
    run="",
    artifact=None,
    size=None,
    seconds=0,
    created="",
    proof=None,
    about="several",
    troubles=(
        *(
            Trouble(
                "backup", f"db{number}", f"unable to reach 'db{number}': refused", f"start db{number}", "", ""
            )
            for number in range(40)
        ),
        Trouble("rpo", "crm", "newest backup is 3 d old", "larder backup crm", "", ""),
    ),
)

ASKED = replace(
    DONE,
    event="asked",
    about="restore",
    backup="shop/20251016_020000",
    request="0a1b2c3d4e5f",
    requester="carol",
    reason="orders of today are gone",
    hint="larder restore approve 0a1b2c3d4e5f",
    target="postgresql://db/shop",
)

OTHERS |= {
    "several": (
        SEVERAL,
        ("41 databases", "db0", "and 20 more", "40 × unable to reach '…': refused", "start …"),
    ),
    "well again": (replace(SEVERAL, event="recovered"), ("41 databases", "db0", "crm", "out of trouble")),
    "asked": (ASKED, ("carol", "orders of today are gone", "0a1b2c3d4e5f", "shop/20251016_020000")),
    "anomaly": (replace(DONE, anomalies=("it is odd",), warnings=("it is odd",)), ("it is odd",)),
    "test": (replace(DONE, event="test", about="test", database="web1", detail="tried"), ("web1", "tried")),
}


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """What the test's notifier talks to: a server of mail, or of HTTP."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    chosen = getattr(request.node, "callspec", None)
    made: Server = Mail() if chosen and chosen.params.get("word") == "email" else Web()
    with serving(made):
        yield made


@pytest.fixture
def word(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def notifier(word: str, server: Server) -> Notifier:
    return FACTORIES[word](server.port)


every = pytest.mark.parametrize("word", notifiers.words(), indirect=True)
by_http = pytest.mark.parametrize("word", BY_HTTP, indirect=True)
by_itself = pytest.mark.parametrize("word", BY_ITSELF, indirect=True)


@pytest.fixture(autouse=True)
def no_log_names_the_address(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    # The text of a fixture's end is that of its end alone.
    assert [record for record in caplog.get_records("call") if TOKEN in record.getMessage()] == []


def refused(notifier: Notifier, kind: type[UnreachableError]) -> UnreachableError:
    """The error of a notice that could not be sent. Neither it nor what it came from names the address."""
    with pytest.raises(kind, match="unable to tell team: ") as caught:
        notifier.send(DONE)
    error = caught.value
    assert TOKEN not in f"{error!r} {error} {error.hint}"
    # A report of the error shows what it came from, too.
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    return error


def test_every_notifier_has_a_factory() -> None:
    assert tuple(sorted(FACTORIES)) == notifiers.words()


def test_an_unknown_word_is_refused() -> None:
    settings = NotifierSettings.model_construct(name="x", type="pigeon")
    with pytest.raises(ConfigurationError, match="unable to find notifier 'pigeon'"):
        open_notifier(settings)


@every
@pytest.mark.parametrize("notice", [DONE, FAILED], ids=["success", "failure"])
def test_tells_once_with_all_that_matters(notifier: Notifier, server: Server, notice: Notice) -> None:
    notifier.send(notice)
    (told,) = server.received
    wanted = {
        "success": (
            "shop",
            "backup_postgres_20251016_020000.sql.gz",
            "45.0 MB",
            "1 min 12 s",
            "local, nas",
            "newer than",
        ),
        "failure": ("shop", "dump", "permission denied", "grant SELECT", "01J9ZK"),
    }
    assert [fact for fact in wanted[notice.event] if fact not in told] == []


@every
@pytest.mark.parametrize(("notice", "wanted"), OTHERS.values(), ids=OTHERS)
def test_tells_of_everything_else(
    notifier: Notifier, server: Server, notice: Notice, wanted: tuple[str, ...]
) -> None:
    notifier.send(notice)
    [told] = server.received
    assert [fact for fact in wanted if fact not in told] == []


@every
def test_least_of_facts_is_enough(notifier: Notifier, server: Server) -> None:
    notifier.send(replace(FAILED, step=None, error=None, hint=None))
    notifier.send(replace(DONE, artifact=None, size=None, proof=None, stores=(), warnings=()))
    notifier.send(replace(UNPROVEN, step=None, error=None, hint=None, backup="", outcome=None, run=""))
    notifier.send(replace(MET_AGAIN, detail=""))
    assert len(server.received) == 4


@every
def test_a_message_holds_no_password(notifier: Notifier, server: Server) -> None:
    notifier.send(replace(FAILED, error="connection to postgresql://app:hunter2/x@db/shop failed"))
    assert "hunter2" not in server.received[0]


@every
@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_may_be_asked_again(
    notifier: Notifier, server: Server, word: str, status: int
) -> None:
    server.status, server.answer = IN_MAIL[status] if word == "email" else status, b"out of order"
    error = refused(notifier, UnreachableError)
    assert str(server.status) in error.message
    assert error.retryable
    assert server.asked == 1


@every
@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_an_address_that_is_not_known_is_not_tried_again(
    notifier: Notifier, server: Server, word: str, status: int
) -> None:
    server.status, server.answer = IN_MAIL[status] if word == "email" else status, b"no_service"
    error = refused(notifier, RefusedError)
    assert str(server.status) in error.message
    assert ("no_service" in error.message) == (word in BY_ITSELF)
    assert not error.retryable


@every
def test_an_answer_that_repeats_the_address_is_not_repeated(
    notifier: Notifier, server: Server, word: str
) -> None:
    server.status = 550 if word == "email" else 404
    server.answer = f"no such webhook: {TOKEN}".encode()
    refused(notifier, RefusedError)


@every
def test_a_server_that_hangs_is_given_up(
    notifier: Notifier, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is slow to import is no server's fault.
    notifier.send(DONE)
    monkeypatch.setattr(notifiers, "TIMEOUT", 0.2)
    server.hang.clear()
    assert "no answer within 0.2 seconds" in refused(notifier, UnreachableError).message


@by_http
def test_an_answer_that_never_ends_is_given_up(
    notifier: Notifier, server: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier.send(DONE)
    monkeypatch.setattr(notifiers, "TIMEOUT", 0.3)
    server.headers, server.drips, server.status = {"Content-Length": "1000000000"}, 0.02, 500
    began = time.monotonic()
    refused(notifier, UnreachableError)
    assert time.monotonic() - began < 5


@by_itself
def test_of_a_huge_answer_little_is_read(notifier: Notifier, server: Web) -> None:
    server.answer, server.status = b"x" * 50_000_000, 500
    assert len(refused(notifier, UnreachableError).message) < 100
    server.status = 200
    notifier.send(DONE)


@by_http
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_is_sent_on_to_where_an_answer_leads(notifier: Notifier, server: Web, status: int) -> None:
    elsewhere = Web()
    with serving(elsewhere):
        server.status, server.headers = status, {"Location": f"http://127.0.0.1:{elsewhere.port}/{TOKEN}"}
        refused(notifier, RefusedError)
    assert (server.asked, elsewhere.asked) == (1, 0)


@by_itself
def test_who_is_too_early_comes_again_when_it_was_told_to_and_in_time(
    notifier: Notifier, server: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.status, server.headers, server.once = 429, {"Retry-After": "0"}, True
    notifier.send(DONE)
    assert server.asked == 2
    server.status, server.headers, server.once = 429, {"Retry-After": "3600"}, False
    assert "429" in refused(notifier, UnreachableError).message
    server.headers = {"Retry-After": "0"}
    assert "429" in refused(notifier, UnreachableError).message
    assert server.asked == 5


@every
def test_nobody_there_is_told(word: str) -> None:
    error = refused(FACTORIES[word](free_port()), UnreachableError)
    assert "refused" in error.message or word == "apprise"


@by_itself
def test_an_address_that_nothing_can_be_sent_to_is_not_told(word: str, server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/{TOKEN}"
    refused(made(word, f"{url} with a blank"), UnreachableError)
    refused(made(word, f"{url}/straße"), UnreachableError)


def test_several_are_told_at_one_time_and_who_is_away_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifiers, "TIMEOUT", 1)
    with ExitStack() as stack:
        servers = [Web() for _ in range(6)]
        for server in servers:
            stack.enter_context(serving(server))
        for server in servers[:5]:
            server.hang.clear()
        kind = settings_of("slack")
        places = [
            kind(name=f"n{number}", url=f"http://127.0.0.1:{server.port}/{TOKEN}")  # type: ignore[call-arg, arg-type]
            for number, server in enumerate(servers)
        ]
        began = time.monotonic()
        problems = notifiers.tell(places, DONE)
        assert time.monotonic() - began < 3
        assert [line.partition(" ")[0] for line in problems] == ["n0", "n1", "n2", "n3", "n4"]
        assert len(servers[5].received) == 1


# What only Slack's messages have.


def message(server: Web) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.received[-1])
    return found


@pytest.fixture
def slack(server: Web) -> Notifier:
    return FACTORIES["slack"](server.port)


def test_slack_gets_a_line_for_phones(slack: Notifier, server: Web) -> None:
    slack.send(DONE)
    assert message(server)["text"] == (
        "Backup of shop done: backup_postgres_20251016_020000.sql.gz, 45.0 MB in 1 min 12 s"
    )
    slack.send(FAILED)
    assert message(server)["text"] == "Backup of shop failed at dump"
    for notice, text in {
        DRILL: "Drill of shop done: shop/20251016_020000 proven, 12 tables, 34,567 rows, recovered in 1 min 12 s",
        BROKEN: "Drill of shop failed: shop/20251016_020000 is not what was backed up, 12 differences",
        UNPROVEN: "Drill of shop failed: at load, which proves nothing of shop/20251016_020000",
        MISSED: "rpo of shop missed: newest backup is 3 d 4 h old, 24 h are allowed",
        MET_AGAIN: "rpo of shop met again: newest backup is 5 min old",
        replace(MET_AGAIN, detail=""): "rpo of shop met again: after 2 h 5 min",
    }.items():
        slack.send(notice)
        assert message(server)["text"] == text


def test_slack_text_is_escaped(slack: Notifier, server: Web) -> None:
    slack.send(FAILED)
    assert "for table &lt;orders&gt; &amp; more" in json.dumps(message(server))


def test_slack_blocks_stay_within_its_limits(slack: Notifier, server: Web) -> None:
    slack.send(
        replace(FAILED, error="<&>" * 5000, hint="&" * 9000, step="x" * 9000, warnings=("<" * 900,) * 50)
    )
    blocks = message(server)["blocks"]
    assert len(blocks) <= 50
    for block in blocks:
        for text in [block.get("text"), *block.get("fields", ()), *block.get("elements", ())]:
            if text is not None:
                assert 0 < len(text["text"]) <= (150 if text["type"] == "plain_text" else 2900)
        assert all(len(field["text"]) <= 2000 for field in block.get("fields", ()))
