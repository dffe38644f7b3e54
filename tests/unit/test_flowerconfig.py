"""Flower: who gets in, that nobody can do more than look, and what is shown of a task."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flower.options import options
from flower.views.tasks import visible_task_columns

import workers
from larder import secret
from tasks import context

FILE = Path(workers.__file__).parent / "flowerconfig.py"

#: What our file says of Flower's options.
SAID = {
    "address",
    "basic_auth",
    "enable_events",
    "format_task",
    "max_tasks",
    "persistent",
    "purge_offline_workers",
    "read_only",
    "tasks_columns",
}

Configure = Callable[..., Any]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Configure]:
    """Has Flower read our file, with variables set and options given on its command line."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("LARDER_", "FLOWER_", "DATABASE_URL", "REDIS_URL")):
            monkeypatch.delenv(name)
    before = {name: option._value for name, option in options._options.items()}

    def configure(given: dict[str, Any] | None = None, **variables: str) -> Any:
        context.settings.cache_clear()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for name, value in (given or {}).items():
            setattr(options, name, value)
        options.parse_config_file(str(FILE), final=False)
        return options

    yield configure
    context.settings.cache_clear()
    for name, value in before.items():
        options._options[name]._value = value


def test_the_file_sets_what_it_means_to_and_nothing_by_chance(configure: Configure) -> None:
    configure()
    names = {name for name in runpy.run_path(str(FILE)) if name.replace("_", "-") in options._options}
    assert names == SAID


def test_nobody_can_do_more_than_look(configure: Configure) -> None:
    found = configure()
    assert (found.read_only, found.persistent, found.enable_events) == (True, False, False)


def test_without_a_login_it_is_for_this_machine(configure: Configure) -> None:
    found = configure()
    assert (found.address, found.basic_auth) == ("127.0.0.1", [])


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7"])
def test_without_a_login_it_refuses_to_listen_elsewhere(
    configure: Configure, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        configure({"address": address})
    assert caught.value.code == 2
    assert (
        f"larder: unable to listen at {address}: it can be reached from elsewhere" in capsys.readouterr().err
    )


def test_who_may_see_the_console_may_see_flower(configure: Configure) -> None:
    found = configure({"address": "0.0.0.0"}, LARDER_CONSOLE_PASSWORD="a,b:c, s3cr3t")
    assert found.basic_auth == ["larder:a,b:c, s3cr3t"]
    assert found.address == "0.0.0.0"


def test_flowers_own_login_goes_before(configure: Configure) -> None:
    found = configure({"basic_auth": ["me:mine-s3cr3t"]}, LARDER_CONSOLE_PASSWORD="an0ther-pw")
    assert found.basic_auth == ["me:mine-s3cr3t"]
    assert secret.redact("mine-s3cr3t") == secret.MASK


def test_flowers_login_may_lie_in_a_file(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "login").write_text("me:m1ne-pw\n")
    assert configure(FLOWER_BASIC_AUTH_FILE="login").basic_auth == ["me:m1ne-pw"]


def test_with_oauth_there_is_no_password(configure: Configure) -> None:
    given = {"auth": r".*@example\.com", "address": "0.0.0.0"}
    assert configure(given, LARDER_CONSOLE_PASSWORD="s3cr3t").basic_auth == []


@pytest.mark.parametrize("login", ["nobody", "me:pässword", "me:", ":"])
def test_a_login_that_would_let_nobody_in_is_refused(
    configure: Configure, login: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        configure({"basic_auth": [login]})
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert "Flower takes user:password in ASCII, with a password" in said
    assert login == ":" or login not in said


def test_the_columns_are_flowers(configure: Configure) -> None:
    columns = configure().tasks_columns
    assert [name for name, _ in visible_task_columns(columns)] == columns.split(",")


def test_a_task_is_shown_without_secrets(configure: Configure) -> None:
    found = configure()
    secret.register("s3cr3t-of-task")
    task = SimpleNamespace(
        args="('s3cr3t-of-task',)",
        kwargs="{'token': 'abc'}",
        result="None",
        exception=None,
        traceback="s3cr3t-of-task",
    )
    shown = found.format_task(task)
    assert "s3cr3t-of-task" not in f"{shown.args}{shown.traceback}"
    assert "abc" not in shown.kwargs
    assert (shown.result, shown.exception) == (None, None)


def test_progress_is_shown(configure: Configure) -> None:
    task = SimpleNamespace(result="42 % · 1.2 of 2.9 GB · 140 MB/s")
    assert configure().format_task(task).result == "42 % · 1.2 of 2.9 GB · 140 MB/s"
