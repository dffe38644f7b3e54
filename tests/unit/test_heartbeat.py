"""A worker shows that it lives, to the ledger and to whoever watches over it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tasks import context
from tests.processes import eventually
from tests.servers import free_port
from workers.heartbeat import Heartbeat


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that is touched, with a ledger that is away."""
    monkeypatch.setenv("LARDER_HEARTBEAT_FILE", str(tmp_path / "heartbeat"))
    monkeypatch.setenv("LARDER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LARDER_LEDGER_URL", f"postgresql://127.0.0.1:{free_port()}/ledger")
    context.settings.cache_clear()
    yield tmp_path / "heartbeat"
    context.settings.cache_clear()


def test_it_shows_that_it_lives_whatever_became_of_the_ledger(file: Path) -> None:
    heartbeat = Heartbeat()
    assert not file.exists()
    heartbeat.start()
    eventually(file.exists)
    heartbeat.stop()


def test_a_ledger_that_is_silent_does_not_make_it_look_dead(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("LARDER_LEDGER_URL", f"postgresql://127.0.0.1:{silent.getsockname()[1]}/ledger")
        monkeypatch.setattr("workers.heartbeat.BEAT", timedelta(milliseconds=20))
        heartbeat = Heartbeat()
        heartbeat.start()
        asking, _ = silent.accept()
        with asking:
            # It has asked once, and waits: seen again and again meanwhile, before it asks anew.
            for _ in range(3):
                eventually(file.exists)
                file.unlink()
            silent.setblocking(False)
            with pytest.raises(BlockingIOError):
                silent.accept()
        heartbeat.stop()


def test_without_a_file_it_touches_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LARDER_HEARTBEAT_FILE")
    context.settings.cache_clear()
    Heartbeat()._live()
    assert not file.exists()


def test_a_file_that_cannot_be_touched_ends_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LARDER_HEARTBEAT_FILE", str(file / "nowhere"))
    context.settings.cache_clear()
    Heartbeat()._touch(file / "nowhere")
    assert "unable to touch" in caplog.text
