"""What a notifier makes of another end that hangs, drips, is slow, or takes a message for some and not for others."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from larder import notifiers
from larder.errors import UnreachableError
from larder.notifiers import Notifier, PartlyToldError
from tests.channels import Mail, Web, free_port, serving
from tests.contracts.test_notifiers import DONE, FACTORIES, FAILED, made
from tests.processes import eventually

PEOPLE = ("ops@example.com", "dba@example.com")

#: How many seconds a notifier may take here.
SHORT = 0.4


@pytest.fixture
def server() -> Iterator[Mail]:
    opened = Mail()
    with serving(opened):
        yield opened


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    opened = Web()
    with serving(opened):
        yield opened


@pytest.fixture
def mail(server: Mail) -> Notifier:
    url = f"smtp://larder:pw@127.0.0.1:{server.port}"
    return made("email", url, sender="larder@example.com", to=PEOPLE, starttls=False)


def nobody_waits() -> bool:
    """Whether no thread is left behind that still talks to the other end."""
    return not [thread for thread in threading.enumerate() if thread.name == "tell team"]


@pytest.mark.parametrize("word", ["EHLO", "AUTH", "MAIL", "RCPT", "DATA", "."])
def test_mail_is_given_up_wherever_its_server_hangs(
    mail: Notifier, server: Mail, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifiers, "TIMEOUT", SHORT)
    server.hangs_at = word
    with pytest.raises(UnreachableError, match=r"no answer within 0\.4 seconds"):
        mail.send(FAILED)
    assert server.messages == []
    eventually(nobody_waits)
    eventually(lambda: server.open == 0)


def test_mail_that_was_taken_was_told_whatever_becomes_of_the_goodbye(mail: Notifier, server: Mail) -> None:
    server.bye = "451 not now"
    mail.send(FAILED)
    server.hangs_at = "QUIT"
    mail.send(FAILED)
    assert len(server.messages) == 2


@pytest.mark.parametrize(
    ("how", "seconds"),
    [("slow", SHORT / 4), ("drips", SHORT / 20)],
    ids=["slow answers", "an endless answer"],
)
def test_mail_is_not_sent_once_it_was_given_up(
    mail: Notifier, server: Mail, how: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer, or each byte of one, comes in time, and all of them do not: it would arrive, and be told again."""
    monkeypatch.setattr(notifiers, "TIMEOUT", SHORT)
    setattr(server, how, seconds)
    with pytest.raises(UnreachableError, match="no answer within"):
        mail.send(FAILED)
    eventually(nobody_waits)
    eventually(lambda: server.open == 0)
    assert server.messages == []


@pytest.mark.parametrize("word", ["apprise", "ping", "slack", "webhook"])
def test_an_answer_that_never_ends_leaves_nobody_waiting(
    word: str, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = FACTORIES[word](web.port)
    notifier.send(DONE)
    monkeypatch.setattr(notifiers, "TIMEOUT", SHORT)
    web.headers, web.drips = {"Content-Length": "1000000000"}, SHORT / 20
    with pytest.raises(UnreachableError, match="no answer within"):
        notifier.send(DONE)
    eventually(nobody_waits)


def test_mail_that_some_have_got_was_told_and_says_who_has_not(mail: Notifier, server: Mail) -> None:
    server.unknown = {"ops@example.com": "550 no such user"}
    with pytest.raises(PartlyToldError, match="it refused 1 of 2 addresses") as caught:
        mail.send(FAILED)
    assert "ops@" not in str(caught.value)
    assert len(server.messages) == 1


def test_a_service_that_cannot_be_told_does_not_have_the_others_told_again(web: Web) -> None:
    addresses = f"json://127.0.0.1:{free_port()}/s3cr3t json://127.0.0.1:{web.port}/two"
    with pytest.raises(PartlyToldError, match="service 1 of 2 could not be told") as caught:
        made("apprise", addresses).send(DONE)
    assert not caught.value.retryable
    assert web.paths == ["/two"]
