"""The tables of notifiers: each kind has keys of its own, and a mistake in one is told with its path."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from larder import notifiers, secret
from larder.config import load
from larder.errors import ConfigurationError
from larder.notifiers import settings_of

EXAMPLE = Path(__file__).parents[2] / "larder.example.toml"
KINDS = [word for word in notifiers.words() if word != notifiers.DEFAULT]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(secret, "_known", set())
    monkeypatch.setattr(secret, "_ordered", ())
    return tmp_path


def write(text: str) -> None:
    Path("larder.toml").write_text(f'[databases.shop]\nurl = "sqlite:///shop.db"\n{text}')


def mistakes(text: str, environ: dict[str, str] | None = None) -> dict[str, str]:
    write(text)
    with pytest.raises(ConfigurationError) as caught:
        load(environ or {})
    lines = caught.value.message.splitlines()[1:]
    return dict(line.strip().split(": ", 1) for line in lines)


@pytest.mark.parametrize("word", KINDS)
def test_the_example_shows_every_key_of_each_kind_with_its_default(word: str) -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").partition(f"# [notifiers.{word}]\n")[2].partition("\n\n\n")[0]
    written = re.findall("^# ([a-z_]+ = .*)$", lines, re.MULTILINE)
    table = tomllib.loads("\n".join(written))
    kind = settings_of(word)
    keys = {
        f"{name}_env" if name in kind.secret_keys else name: info
        for name, info in kind.model_fields.items()
        if not info.exclude
    }
    assert sorted(table) == sorted(keys)
    for key, info in keys.items():
        if info.default not in (None, PydanticUndefined) and key != "type":
            shown = table[key]
            assert (tuple(shown) if isinstance(shown, list) else shown) == info.default, key
    write("\n".join([f"[notifiers.{word}]", *written]))
    addresses = {
        "SMTP_URL": "smtps://u:p@mail.example",
        "TICKETS_URL": "https://tickets.example/x",
        "TICKETS_SECRET": "a secret of both sides",
        "APPRISE_URLS": "tgram://token/chat json://tickets.example",
        "CHECK_URL": "https://hc.example/{database}",
    }
    assert load(addresses).notifiers[word].type == word


def test_mistakes_are_told_with_their_paths() -> None:
    found = mistakes(
        """
        [notifiers.a]
        type = "email"
        url = "https://mail.example"
        sender = "nobody"
        to = []
        [notifiers.b]
        type = "webhook"
        secret = "short"
        [notifiers.c]
        type = "ping"
        url = "https://hc.example/x/fail"
        databases = ["shpo"]
        on = ["failure"]
        [notifiers.d]
        type = "apprise"
        url = "nonsense"
        [notifiers.e]
        url = "https://hooks.example/x"
        sender = "a@b.example"
        [notifiers.f]
        type = "webhook"
        url = "https://hooks.example/y"
        secret_env = "NOWHERE"
        """
    )
    assert found == {
        "notifiers.a.url": "has to be a server's address, smtps://…@host:465 or smtp://…@host:587",
        "notifiers.a.sender": "has to be an address, as alerts@example.com",
        "notifiers.a.to": "is empty",
        "notifiers.b.url": "is missing (write url, or url_env with a variable's name)",
        "notifiers.b.secret": "has to be 16 characters or more",
        "notifiers.c.url": "has to be the check's own address, without /start or /fail",
        "notifiers.c.databases.0": "there is no database 'shpo' (did you mean 'shop'?)",
        "notifiers.c.on": "unknown key",
        "notifiers.d.url": "has to be addresses as apprise has them, parted by blanks: tgram://… mailto://…",
        "notifiers.e.sender": "unknown key",
        "notifiers.f.secret": "secret_env names the variable NOWHERE, which is not set",
    }
    assert "short" not in str(found)


def test_no_secret_of_a_notifier_is_printed() -> None:
    write(
        """
        [notifiers.a]
        type = "email"
        url = "smtps://larder:c4n4ry-1%2F@mail.example"
        sender = "a@b.example"
        to = ["c@d.example"]
        [notifiers.b]
        type = "webhook"
        url = "https://hooks.example/c4n4ry-2"
        secret = "c4n4ry-3-of-both-sides"
        [notifiers.c]
        type = "ping"
        url = "https://hc.example/c4n4ry-4"
        [notifiers.d]
        type = "apprise"
        url = "tgram://c4n4ry-5/chat  json://u:c4n4ry-6@h"
        """
    )
    settings = load({})
    assert "c4n4ry" not in repr(settings)
    for notifier in settings.notifiers.values():
        assert "c4n4ry" not in notifier.model_dump_json() + repr(notifier)
        assert all(isinstance(getattr(notifier, key), SecretStr) for key in notifier.secret_keys)
        for value in notifier.secrets():
            assert "c4n4ry" not in secret.redact(f"unable to reach {value}, it said: {value}")
    for said in ("login as larder with c4n4ry-1/ failed", "c4n4ry-5/chat", "authorization of u: c4n4ry-6 "):
        assert "c4n4ry" not in secret.redact(said)
