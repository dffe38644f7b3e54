"""What a link does when the configuration has changed under its run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from larder.errors import LarderError
from larder.ledger.leases import Lease
from tasks import chain, context
from tasks.upload import upload


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A configuration that knows the database `shop` and the store `nas`, and nothing else."""
    (tmp_path / "larder.toml").write_text(
        f'state_dir = "{tmp_path / "state"}"\n[databases.shop]\nurl = "sqlite:///shop.db"\n[stores.nas]\npath = "nas"\n'
    )
    for variable in ("DATABASE_URL", "BACKUP_DIR", "REDIS_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LARDER_CONFIG", str(tmp_path / "larder.toml"))
    monkeypatch.setattr(chain, "send", lambda *_: None)
    context.settings.cache_clear()
    context._ledger_of.cache_clear()
    yield
    context.ledger().close()
    context.settings.cache_clear()
    context._ledger_of.cache_clear()


@pytest.mark.parametrize(("database", "store"), [("gone", "nas"), ("shop", "attic")])
def test_a_run_whose_database_or_store_left_the_configuration_ends(database: str, store: str) -> None:
    ledger = context.ledger()
    run, _ = ledger.runs.create(database, "command", stores=[store])
    for step in ("dump", "compress", "checksum"):
        lease = ledger.leases.take(run.id, step, context.host())
        assert isinstance(lease, Lease)
        ledger.leases.finish(lease)
    with pytest.raises(LarderError):
        upload(run.id, store)
    ended = ledger.runs.get(run.id)
    assert (ended.state, ended.failed_step) == ("failed", "upload")
