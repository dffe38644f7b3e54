"""`larder doctor` names who is told; with `--tell`, everybody is, and it says who could not be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console import doctor
from tasks import context
from tests.channels import Web, free_port, serving


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    with serving(made):
        yield made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for variable in ("DATABASE_URL", "BACKUP_DIR", "REDIS_URL", "BACKUP_S3_BUCKET", "SLACK_WEBHOOK_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LARDER_CONFIG", str(tmp_path / "larder.toml"))
    monkeypatch.setenv("LARDER_STATE_DIR", str(tmp_path / "state"))
    context._ledger_of.cache_clear()
    context.signer.cache_clear()
    yield tmp_path
    context.ledger().close()
    context.settings.cache_clear()
    context._ledger_of.cache_clear()
    context.signer.cache_clear()


def checks(
    folder: Path, text: str, capsys: pytest.CaptureFixture[str], *, tell: bool
) -> list[dict[str, Any]]:
    (folder / "larder.toml").write_text(f'[databases.shop]\nurl = "sqlite:///shop.db"\n{text}')
    context.settings.cache_clear()
    doctor.print_checks(tell=tell, as_json=True)
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["checks"]
    return [check for check in found if check["name"] in ("notifier", "notice")]


def test_who_is_told_of_what_is_named_and_nobody_is_told(
    folder: Path, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f'url = "http://127.0.0.1:{web.port}/s3cr3t"'
    found = checks(
        folder,
        f'[notifiers.team]\n{address}\non = ["failure", "recovered"]\n'
        f'[notifiers.check]\ntype = "ping"\n{address}\n',
        capsys,
        tell=False,
    )
    assert [(one["subject"], one["state"], one["detail"]) for one in found] == [
        ("team", "ok", "slack, is told of failure, recovered"),
        ("check", "ok", "ping, is told of each backup's beginning and end, of every database"),
    ]
    assert web.asked == 0


def test_where_nobody_is_told_there_is_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [found] = checks(folder, "", capsys, tell=False)
    assert (found["state"], found["detail"]) == ("warning", "nobody is told when a backup fails")


def test_a_message_goes_to_everybody_but_no_ping(
    folder: Path, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    found = checks(
        folder,
        f'[notifiers.team]\nurl = "http://127.0.0.1:{web.port}/s3cr3t"\non = []\n'
        f'[notifiers.away]\nurl = "http://127.0.0.1:{free_port()}/s3cr3t"\n'
        f'[notifiers.check]\ntype = "ping"\nurl = "http://127.0.0.1:{web.port}/s3cr3t"\n',
        capsys,
        tell=True,
    )
    told = {one["subject"]: one for one in found if one["name"] == "notice"}
    assert {name: one["state"] for name, one in told.items()} == {
        "team": "ok",
        "away": "failed",
        "check": "ok",
    }
    assert told["away"]["detail"] == "unable to tell away: connection refused"
    assert "ping would say" in told["check"]["detail"]
    assert web.asked == 1
    assert "Larder can tell you here" in web.received[0]
