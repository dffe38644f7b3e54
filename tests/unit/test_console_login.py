"""Who gets in at the console, and what every answer tells a browser, asked of the application without a server."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from console.web import login, records
from console.web.application import application
from console.web.login import Tries, same
from larder import config
from larder.settings import ConsoleSettings, Settings

RIGHT, WRONG = ("larder", "c0nsole-pw"), ("larder", "no")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "larder.toml").write_text('[databases.shop]\nurl = "sqlite:///shop.db"\n')
    return config.load({"LARDER_CONFIG": str(tmp_path / "larder.toml"), "CRON_SECRET": "cr0n-secret"})


def console(settings: Settings, **values: Any) -> Starlette:
    return application(replace(settings, console=ConsoleSettings.model_validate(values)))


def ask(
    app: Starlette, path: str, peer: str = "192.0.2.7", method: str = "GET", **more: Any
) -> httpx.Response:
    """What `peer` is answered."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **more)

    return asyncio.run(asked())


OPENAPI = "/api/openapi.json"


@pytest.mark.parametrize(
    "given", ["", "Basic", "Basic !", "Basic /w==", "Basic bGFyZGVy", "Bearer c0nsole-pw", "\xff"]
)
def test_a_login_that_cannot_be_read_is_none(settings: Settings, given: str) -> None:
    app = console(settings, password=RIGHT[1])
    said = ask(app, OPENAPI, headers={"Authorization": given.encode("latin-1")})
    assert said.status_code == 401
    assert said.headers["WWW-Authenticate"].startswith("Basic ")
    assert said.json().keys() == {"error", "hint"}


def test_the_host_that_a_client_names_opens_nothing(settings: Settings) -> None:
    app = console(settings, password=RIGHT[1])
    for host in ("a/static/?", "a/api/live?", "a/static/#", "localhost"):
        assert ask(app, OPENAPI, headers={"Host": host}).status_code == 401


def test_wrong_tries_are_counted_for_each_address_alone(settings: Settings) -> None:
    app = console(settings, password=RIGHT[1])
    said = [ask(app, OPENAPI, auth=WRONG).status_code for _ in range(11)]
    assert said == [401] * 10 + [429]
    locked = ask(app, OPENAPI, auth=RIGHT)
    assert locked.status_code == 429
    assert 1 <= int(locked.headers["Retry-After"]) <= 60
    assert ask(app, OPENAPI, peer="192.0.2.8", auth=RIGHT).status_code == 200
    # Monitors have no password to be wrong.
    assert ask(app, "/api/live").status_code == 200


def test_whoever_has_a_network_of_ipv6_has_one_address(settings: Settings) -> None:
    app = console(settings, password=RIGHT[1])
    for number in range(10):
        ask(app, OPENAPI, peer=f"2001:db8::{number:x}", auth=WRONG)
    assert ask(app, OPENAPI, peer="2001:db8::ffff", auth=RIGHT).status_code == 429
    assert ask(app, OPENAPI, peer="2001:db8:0:1::1", auth=RIGHT).status_code == 200


def test_a_cron_secret_is_guessed_as_seldom_as_a_password(settings: Settings) -> None:
    app, right = console(settings, password=RIGHT[1]), {"Authorization": "Bearer cr0n-secret"}
    wrong = [ask(app, "/api/cron/backup", headers={"Authorization": "Bearer no"}) for _ in range(11)]
    assert [one.status_code for one in wrong] == [401] * 10 + [429]
    assert ask(app, "/api/cron/backup", headers=right).status_code == 429
    # There is no REDIS_URL: with the secret one gets as far as that.
    assert ask(app, "/api/cron/backup", peer="192.0.2.8", headers=right).status_code == 503


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_a_cron_begins_nothing_by_another_method(settings: Settings, method: str) -> None:
    app = console(settings, password=RIGHT[1])
    said = ask(app, "/api/cron/backup", method=method, headers={"Authorization": "Bearer cr0n-secret"})
    assert said.status_code == 405


def test_tries_take_bounded_room_and_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_ADDRESSES", 100)
    tries, now = Tries(most=2, seconds=60), [0.0]
    monkeypatch.setattr(login.time, "monotonic", lambda: now[0])
    for number in range(1000):
        tries.note(str(number))
    assert len(tries._wrong) == 100
    tries.note("a")
    now[0] = 59.5
    tries.note("a")
    assert tries.wait("a") == 1
    now[0] = 60.0
    assert tries.wait("a") == 0
    tries.note("a")
    # The first is forgotten, the second is not.
    assert tries.wait("a") == 60


def test_a_proxys_word_counts_from_that_proxy_only(settings: Settings) -> None:
    app = console(settings, proxy_header="X-Forwarded-User", proxies=["10.0.0.0/8"])
    alice = {"X-Forwarded-User": "alice"}
    assert ask(app, OPENAPI, peer="10.1.2.3", headers=alice).status_code == 200
    assert ask(app, OPENAPI, peer="192.0.2.7", headers=alice).status_code == 403
    assert ask(app, OPENAPI, peer="10.1.2.3").status_code == 403
    assert ask(app, OPENAPI, peer="10.1.2.3", headers={"X-Forwarded-User": ""}).status_code == 403
    # One is the proxy's, the other is not.
    both = [("X-Forwarded-User", "mallory"), ("X-Forwarded-User", "alice")]
    assert ask(app, OPENAPI, peer="10.1.2.3", headers=both).status_code == 403


def test_behind_a_proxy_each_client_has_tries_of_its_own(settings: Settings) -> None:
    app = console(settings, password=RIGHT[1], proxy_header="X-User", proxies=["10.0.0.1"])
    for _ in range(10):
        ask(app, OPENAPI, peer="10.0.0.1", auth=WRONG, headers={"X-Forwarded-For": "9.9.9.9, 192.0.2.7"})
    for client, status in (("192.0.2.7", 429), ("192.0.2.8", 200), ("garbage", 200)):
        said = ask(app, OPENAPI, peer="10.0.0.1", auth=RIGHT, headers={"X-Forwarded-For": client})
        assert said.status_code == status, client


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST", 200),
        ("backups.example", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("", 421),
    ],
)
def test_without_a_login_known_names_only_are_answered(settings: Settings, host: str, status: int) -> None:
    app = console(settings, hosts=["backups.example"])
    assert ask(app, OPENAPI, peer="127.0.0.1", headers={"Host": host}).status_code == status


def test_health_in_detail_takes_a_login_and_a_word_none(settings: Settings) -> None:
    app = console(settings, password=RIGHT[1])
    assert ask(app, "/api/health?detailed=true").status_code == 401
    assert ask(app, "/api/health?detailed=banana").status_code == 400
    # A wrong password keeps nobody from hearing what everybody hears.
    assert ask(app, "/api/live", auth=WRONG).status_code == 200


def test_every_answer_has_its_headers_and_that_of_an_error_no_secret(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = console(settings, password=RIGHT[1])

    def broken(*_: object) -> None:
        raise RuntimeError("what only the log may have")

    monkeypatch.setattr(records.context, "ledger", broken)
    with caplog.at_level(logging.ERROR, logger="larder.console"):
        failed = ask(app, "/api/runs", auth=RIGHT)
    assert (failed.status_code, failed.json()["error"]) == (500, "internal error")
    assert "what only the log may have" in caplog.text
    paths = ("/api/live", "/none", "/static/none", "/static/larder.css", OPENAPI, "/api/live?x=%00")
    for said in (failed, *(ask(app, path, auth=RIGHT) for path in paths), ask(app, OPENAPI)):
        assert "default-src 'none'" in said.headers["Content-Security-Policy"], said.url
        assert "unsafe" not in said.headers["Content-Security-Policy"]
        assert said.headers["X-Content-Type-Options"] == "nosniff"
        assert said.headers["Referrer-Policy"] == "no-referrer"
        assert "Strict-Transport-Security" not in said.headers
    assert (
        "Strict-Transport-Security" in ask(app, "/api/live", headers={"X-Forwarded-Proto": "https"}).headers
    )


@pytest.mark.parametrize("path", ["/api/runs/%00", "/runs?before=a%00", "/api/backups?database=%00", "/%00"])
def test_a_nul_is_refused_before_a_ledger_sees_it(settings: Settings, path: str) -> None:
    said = ask(console(settings, password=RIGHT[1]), path, auth=RIGHT)
    assert (said.status_code, said.json()["error"]) == (400, "a NUL is in the address")


def test_a_person_who_is_lost_sees_a_page_and_a_program_a_document(settings: Settings) -> None:
    app, browser = (
        console(settings, password=RIGHT[1]),
        {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
    )
    page = ask(app, "/none/%3Cb%3E", auth=RIGHT, headers=browser)
    assert (page.status_code, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "there is nothing at /none/&lt;b&gt;" in page.text
    for path, headers in (("/none", {}), ("/api/none", browser)):
        assert ask(app, path, auth=RIGHT, headers=headers).json()["error"] == f"there is nothing at {path}"


def test_words_are_compared_whole() -> None:
    assert same("pässwörd", "pässwörd")
    assert not same("", "a")
    assert not same("a", "ab")
