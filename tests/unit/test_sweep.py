"""What killed workers have left in the spool goes, and nothing that somebody may still work on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from larder.errors import LarderError
from larder.ledger import Ledger, open_ledger
from tasks import context
from tasks import sweep as module


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield opened
    opened.close()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "host").write_text("host-1")
    return tmp_path / "spool"


def lay(spool: Path, run_id: str, *old: str, new: tuple[str, ...] = ()) -> None:
    """A run's folder with files, all of them and the folders last changed two days ago but those in `new`."""
    for name in (*old, *new):
        (spool / run_id / name).parent.mkdir(parents=True, exist_ok=True)
        (spool / run_id / name).touch()
    past = time.time() - 2 * 86400
    for path in ((spool / run_id), *(spool / run_id).rglob("*")):
        if str(path.relative_to(spool / run_id)) not in new:
            os.utime(path, (past, past), follow_symlinks=False)


def sweep(spool: Path, ledger: Ledger) -> list[str]:
    """The runs whose folders are left."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(context, "settings", lambda: SimpleNamespace(spool_dir=spool))
        patched.setattr(context, "ledger", lambda: ledger)
        module.sweep()
    return sorted(path.name for path in spool.iterdir() if path.is_dir())


def test_what_a_run_that_is_over_has_left_goes_and_the_others_stay(spool: Path, ledger: Ledger) -> None:
    over, _ = ledger.runs.create("shop", "command", stores=["local"])
    ledger.runs.abandon(over.id, LarderError("stopped"))
    active, _ = ledger.runs.create("shop", "command", stores=["local"])
    lay(spool, over.id, new=("dump.1/dump.db",))
    lay(spool, active.id, "dump.1/dump.db")
    assert sweep(spool, ledger) == [active.id]
    assert (spool / "host").exists()


def test_another_ledgers_run_is_left_as_long_as_anything_in_it_changes(spool: Path, ledger: Ledger) -> None:
    lay(spool, "finished", "dump/dump.db", "dump/facts.json")
    lay(spool, "busy", new=("dump.1/dump.sql.zst",))
    lay(spool, "deeper", "dump.1/toc.dat", new=("dump.1/data/3001.dat.gz",))
    (spool / "empty").mkdir()
    assert sweep(spool, ledger) == ["busy", "deeper", "empty"]


def test_a_name_that_no_run_has_is_no_trouble(spool: Path, ledger: Ledger) -> None:
    odd = os.fsdecode(b"\xff")
    lay(spool, odd, new=("x",))
    (spool / odd / "dangling").symlink_to("nowhere")
    assert sweep(spool, ledger) == [odd]
