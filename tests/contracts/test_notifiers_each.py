"""What one kind of notifier promises beyond the others: signatures, encrypted mail, pings, several services."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from larder.errors import RefusedError, UnreachableError
from larder.notifiers import Notifier, NotifierSettings, open_notifier, settings_of, tell
from tests.channels import Mail, Web, certificate_in, free_port, parts_of, serving
from tests.contracts.test_notifiers import BROKEN, DONE, DRILL, FAILED, SEVERAL

SECRET = "a secret of both sides"
BEGUN = replace(DONE, event="start")


def settings(word: str, url: str, **more: Any) -> NotifierSettings:
    return settings_of(word)(name="team", type=word, url=url, **more)


def notifier(word: str, url: str, **more: Any) -> Notifier:
    return open_notifier(settings(word, url, **more))


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    with serving(made):
        yield made


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_in(tmp_path_factory.mktemp("certificate"))


# webhook


def test_a_webhook_is_a_document_of_what_is_known(web: Web) -> None:
    notifier("webhook", f"http://127.0.0.1:{web.port}/hook").send(DONE)
    document = json.loads(web.bodies[0])
    assert document == document | {
        "event": "success",
        "about": "backup",
        "words": ["success"],
        "database": "shop",
        "run": "01J9ZK",
        "size": 45_000_000,
        "stores": ["local", "nas"],
    }
    assert document["title"].startswith("Backup of shop done: ")
    assert "error" not in document
    assert "Larder-Signature" not in web.heads[0]
    notifier("webhook", f"http://127.0.0.1:{web.port}/hook").send(SEVERAL)
    document = json.loads(web.bodies[1])
    assert (document["count"], len(document["troubles"])) == (41, 41)
    assert document["troubles"][40]["database"] == "crm"


def test_a_webhook_is_signed_with_the_time_and_every_byte(web: Web) -> None:
    notifier("webhook", f"http://127.0.0.1:{web.port}/hook", secret=SECRET).send(FAILED)
    parts = dict(part.split("=") for part in web.heads[0]["Larder-Signature"].split(","))
    assert abs(int(parts["t"]) - time.time()) < 60
    signed = f"{parts['t']}.".encode() + web.bodies[0]
    assert parts["v1"] == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()


def test_the_recipe_of_the_docs_tells_what_is_signed_from_what_is_not(web: Web) -> None:
    text = (Path(__file__).parents[2] / "docs" / "notices.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], names)
    check = names["is_from_larder"]
    notifier("webhook", f"http://127.0.0.1:{web.port}/hook", secret=SECRET).send(DONE)
    header, body = web.heads[0]["Larder-Signature"], web.bodies[0]
    assert check(SECRET, header, body)
    assert not check(SECRET, header, body + b" ")
    assert not check("another secret", header, body)
    moment = header.partition(",")[0]
    assert not check(SECRET, header.replace(moment, "t=1"), body)
    old = int(time.time()) - 3600
    made = hmac.new(SECRET.encode(), f"{old}.".encode() + body, hashlib.sha256).hexdigest()
    assert not check(SECRET, f"t={old},v1={made}", body)
    assert not check(SECRET, "", body)
    assert not check(SECRET, "nonsense", body)


# ping


def test_a_ping_says_start_success_and_fail(web: Web) -> None:
    place = notifier("ping", f"http://127.0.0.1:{web.port}/ping/{{database}}/?rid=1")
    for notice in (BEGUN, DONE, replace(FAILED, database="a b/ü")):
        place.send(notice)
    assert web.paths == ["/ping/shop/start?rid=1", "/ping/shop/?rid=1", "/ping/a%20b%2F%C3%BC/fail?rid=1"]
    assert web.received[0] == ""
    assert web.received[2].startswith("Backup of a b/ü failed at dump\n")


def test_a_ping_is_of_backups_of_its_databases_alone() -> None:
    every = settings("ping", "https://hc.example/1")
    some = settings("ping", "https://hc.example/1", databases=("crm",))
    assert [every.wants(one) for one in (BEGUN, DONE, FAILED, DRILL, BROKEN, SEVERAL)] == [True] * 3 + [
        False
    ] * 3
    assert [some.wants(one) for one in (BEGUN, DONE, FAILED)] == [False] * 3
    assert some.wants(replace(DONE, database="crm"))


def test_a_beginning_is_not_waited_for_long(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.hang.clear()
    began = time.monotonic()
    monkeypatch.setattr("larder.notifiers.START_TIMEOUT", 0.2)
    [problem] = tell([settings("ping", f"http://127.0.0.1:{web.port}/x")], BEGUN)
    assert "no answer within 0.2 seconds" in problem
    assert time.monotonic() - began < 2


# email


def mail(port: int, **more: Any) -> Notifier:
    given = {"sender": "larder@example.com", "to": ("ops@example.com", "dba@example.com")} | more
    return notifier("email", given.pop("url", f"smtp://larder:p%40ss@127.0.0.1:{port}"), **given)


@pytest.mark.parametrize("encrypted", [False, True], ids=["starttls", "smtps"])
def test_mail_goes_by_an_encrypted_connection(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, encrypted: bool
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = Mail(certificate, encrypted=encrypted)
    scheme = "smtps" if encrypted else "smtp"
    with serving(server):
        mail(server.port, url=f"{scheme}://larder:p%40ss@127.0.0.1:{server.port}").send(FAILED)
    assert server.password == "p@ss"
    assert [one.partition("<")[2] for one in server.recipients] == ["ops@example.com>", "dba@example.com>"]
    [message] = server.messages
    assert message["Subject"] == "❌ Backup of shop failed at dump"
    assert (message["From"], message["To"]) == ("larder@example.com", "ops@example.com, dba@example.com")
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"]
    assert message["Message-ID"].endswith("@example.com>")
    text = parts_of(message)
    assert list(text) == ["text/plain", "text/html"]
    assert "permission denied for table <orders> & more" in text["text/plain"]
    assert "permission denied for table &lt;orders&gt; &amp; more" in text["text/html"]
    assert "<orders>" not in text["text/html"]


def test_no_password_goes_to_a_server_that_does_not_encrypt() -> None:
    server = Mail()
    with serving(server), pytest.raises(RefusedError, match="does not encrypt the connection"):
        mail(server.port).send(FAILED)
    assert (server.password, server.messages) == ("", [])


@pytest.mark.parametrize("encrypted", [False, True], ids=["starttls", "smtps"])
def test_no_password_goes_to_a_server_that_nobody_vouches_for(certificate: Path, encrypted: bool) -> None:
    server = Mail(certificate, encrypted=encrypted)
    scheme = "smtps" if encrypted else "smtp"
    with serving(server), pytest.raises(UnreachableError, match="certificate"):
        mail(server.port, url=f"{scheme}://larder:p%40ss@127.0.0.1:{server.port}").send(FAILED)
    assert (server.password, server.messages) == ("", [])


def test_a_login_that_is_refused_says_so_without_the_servers_words() -> None:
    server = Mail()
    server.shut = True
    with serving(server), pytest.raises(RefusedError) as caught:
        mail(server.port, starttls=False).send(FAILED)
    assert caught.value.message == "unable to tell team: it answered 535 to the login"


def test_nothing_in_a_notice_becomes_a_header() -> None:
    server = Mail()
    odd = "shop\r\nBcc: everybody@example.com\u2028\nX-Odd: 1"
    with serving(server):
        mail(server.port, starttls=False).send(replace(FAILED, database=odd, step="dump\r\n\r\nbody"))
    [message] = server.messages
    assert message["Bcc"] is None
    assert message["X-Odd"] is None
    assert message["Subject"].startswith(
        "❌ Backup of shop Bcc: everybody@example.com X-Odd: 1 failed at dump"
    )
    assert len(server.recipients) == 2


@pytest.mark.parametrize(
    "given",
    [
        {"url": "https://mail.example"},
        {"url": "smtp://u:p@"},
        {"url": "smtps://mail.example:port"},
        {"url": "smtps://mail.example/inbox"},
        {"url": "smtps://mail.example", "starttls": False},
        {"sender": "nobody"},
        {"sender": "a@b.example\r\nBcc: c@d.example"},
        {"sender": "a@b.example, c@d.example"},
        {"to": ()},
        {"to": ("ops",)},
    ],
)
def test_what_is_no_mail(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        mail(25, **given)


# apprise


def test_apprise_tells_every_service_and_says_which_could_not_be(web: Web) -> None:
    here = f"json://127.0.0.1:{web.port}"
    notifier("apprise", f"{here}/one\n  {here}/two").send(DONE)
    assert sorted(web.paths) == ["/one", "/two"]
    with pytest.raises(UnreachableError) as caught:
        notifier("apprise", f"json://127.0.0.1:{free_port()}/s3cr3t {here}/three").send(DONE)
    assert caught.value.message == (
        "unable to tell team: service 1 of 2 could not be told, and the others were told"
    )
    assert web.paths[-1] == "/three"
    with pytest.raises(RefusedError, match="has no address that apprise knows"):
        notifier("apprise", "pigeon://s3cr3t").send(DONE)


def test_apprise_says_what_kind_of_news_it_is(web: Web) -> None:
    place = notifier("apprise", f"json://127.0.0.1:{web.port}/x")
    for notice in (DONE, FAILED):
        place.send(notice)
    told = [json.loads(body) for body in web.bodies]
    assert [one["type"] for one in told] == ["success", "failure"]
    assert told[1]["title"] == "❌ Backup of shop failed"
