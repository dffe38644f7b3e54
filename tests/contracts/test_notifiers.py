"""What every notifier promises, against a real server on this machine. A new one adds a factory to `FACTORIES`."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from larder import notifiers
from larder.config import NotifierSettings
from larder.errors import ConfigurationError, RefusedError, UnreachableError
from larder.notifiers import Notice, Notifier, open_notifier

#: How to make a notifier of each kind that talks to a server on this machine.
FACTORIES: dict[str, Callable[[str], Notifier]] = {
    "slack": lambda url: open_notifier(NotifierSettings(name="team", type="slack", url=SecretStr(url))),
}

#: The part of an address that nobody else may learn.
TOKEN = "T0001/B0002/s3cr3tt0k3n"

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


class Server(ThreadingHTTPServer):
    """Keeps what it is sent, and answers as it is told to."""

    daemon_threads = True
    #: A notifier that has given up closes its end; that is not worth a stack on the terminal.
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.received: list[bytes] = []
        self.status = 200
        self.answer = b"ok"
        self.hang = threading.Event()
        self.hang.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/{TOKEN}"

    def handle_error(self, *_: object) -> None:
        pass


class _Answer(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.hang.wait()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.hang.set()
        made.shutdown()
        thread.join()


@pytest.fixture(params=notifiers.words())
def notifier(request: pytest.FixtureRequest, server: Server) -> Notifier:
    return FACTORIES[request.param](server.url)


@pytest.fixture(autouse=True)
def no_log_names_the_address(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert TOKEN not in caplog.text


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
    assert sorted(FACTORIES) == notifiers.words()


def test_an_unknown_word_is_refused() -> None:
    settings = NotifierSettings.model_construct(name="x", type="pigeon", url=SecretStr("https://x"))
    with pytest.raises(ConfigurationError, match="unable to find notifier 'pigeon'"):
        open_notifier(settings)


@pytest.mark.parametrize("notice", [DONE, FAILED], ids=["success", "failure"])
def test_tells_once_with_all_that_matters(notifier: Notifier, server: Server, notice: Notice) -> None:
    notifier.send(notice)
    (told,) = server.received
    text = told.decode()
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
    assert [fact for fact in wanted[notice.event] if fact not in text] == []


@pytest.mark.parametrize(("notice", "wanted"), OTHERS.values(), ids=OTHERS)
def test_tells_of_drills_and_objectives(
    notifier: Notifier, server: Server, notice: Notice, wanted: tuple[str, ...]
) -> None:
    notifier.send(notice)
    [told] = server.received
    assert [fact for fact in wanted if fact not in told.decode()] == []


def test_least_of_facts_is_enough(notifier: Notifier, server: Server) -> None:
    notifier.send(replace(FAILED, step=None, error=None, hint=None))
    notifier.send(replace(DONE, artifact=None, size=None, proof=None, stores=(), warnings=()))
    notifier.send(replace(UNPROVEN, step=None, error=None, hint=None, backup="", outcome=None, run=""))
    notifier.send(replace(MET_AGAIN, detail=""))
    assert len(server.received) == 4


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_may_be_asked_again(notifier: Notifier, server: Server, status: int) -> None:
    server.status, server.answer = status, b"out of order"
    error = refused(notifier, UnreachableError)
    assert str(status) in error.message
    assert error.retryable
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_an_address_that_is_not_known_is_not_tried_again(
    notifier: Notifier, server: Server, status: int
) -> None:
    server.status, server.answer = status, b"no_service"
    error = refused(notifier, RefusedError)
    assert "no_service" in error.message
    assert not error.retryable


def test_an_answer_that_repeats_the_address_is_not_repeated(notifier: Notifier, server: Server) -> None:
    server.status, server.answer = 404, f"no such webhook: {server.url}".encode()
    refused(notifier, RefusedError)


def test_a_server_that_hangs_is_given_up(
    notifier: Notifier, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifiers, "TIMEOUT", 0.2)
    server.hang.clear()
    assert "no answer within 0.2 seconds" in refused(notifier, UnreachableError).message


@pytest.mark.parametrize("word", notifiers.words())
def test_nobody_there_is_told(server: Server, word: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/services/{TOKEN}"
        assert "refused" in refused(FACTORIES[word](url), UnreachableError).message


@pytest.mark.parametrize("word", notifiers.words())
def test_an_address_that_nothing_can_be_sent_to_is_not_told(server: Server, word: str) -> None:
    refused(FACTORIES[word](f"{server.url} with a blank"), UnreachableError)
    refused(FACTORIES[word](f"{server.url}/straße"), UnreachableError)


# What only Slack's messages have.


def message(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.received[-1])
    return found


@pytest.fixture
def slack(server: Server) -> Notifier:
    return FACTORIES["slack"](server.url)


def test_slack_gets_a_line_for_phones(slack: Notifier, server: Server) -> None:
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


def test_slack_text_is_escaped(slack: Notifier, server: Server) -> None:
    slack.send(FAILED)
    assert "for table &lt;orders&gt; &amp; more" in json.dumps(message(server))


def test_slack_blocks_stay_within_its_limits(slack: Notifier, server: Server) -> None:
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


def test_slack_never_learns_a_password(slack: Notifier, server: Server) -> None:
    slack.send(replace(FAILED, error="connection to postgresql://app:hunter2/x@db/shop failed"))
    assert "hunter2" not in json.dumps(message(server))
