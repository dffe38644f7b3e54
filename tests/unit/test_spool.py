"""The spool: work is done once, and committed whole."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from larder.errors import IntegrityError
from larder.spool import Spool, host_id


@dataclass(frozen=True)
class Facts:
    number: int


def make(number: int, text: str = "content"):
    def fill(folder: Path) -> Facts:
        (folder / "file").write_text(text)
        return Facts(number)

    return fill


def test_a_step_is_done_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")
    assert spool.once("dump", 1, Facts, make(1)) == Facts(1)
    assert spool.once("dump", 2, Facts, make(2)) == Facts(1)
    assert spool.result("dump", Facts) == Facts(1)
    assert (spool.path("dump") / "file").read_text() == "content"
    assert [path.name for path in spool.folder.iterdir()] == ["dump"]


def test_a_step_that_raises_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")

    def fill(folder: Path) -> Facts:
        (folder / "half").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        spool.once("dump", 1, Facts, fill)
    assert list(spool.folder.iterdir()) == []
    with pytest.raises(IntegrityError, match="dump"):
        spool.result("dump", Facts)


def test_what_a_killed_attempt_left_is_not_mistaken_for_work(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")
    (spool.folder / "dump.1").mkdir(parents=True)
    (spool.folder / "dump.1" / "file").write_text("half")
    with pytest.raises(IntegrityError):
        spool.result("dump", Facts)
    assert spool.once("dump", 1, Facts, make(1)) == Facts(1)
    assert (spool.path("dump") / "file").read_text() == "content"


def test_of_two_attempts_that_finish_the_first_counts(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")

    def overtaken(folder: Path) -> Facts:
        assert spool.once("dump", 2, Facts, make(2, "second")) == Facts(2)
        return make(1, "first")(folder)

    assert spool.once("dump", 1, Facts, overtaken) == Facts(2)
    assert (spool.path("dump") / "file").read_text() == "second"
    assert [path.name for path in spool.folder.iterdir()] == ["dump"]


def test_dropping_keeps_the_facts(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")
    spool.once("dump", 1, Facts, make(1))
    (spool.path("dump") / "folder").mkdir()
    spool.drop("dump")
    spool.drop("dump")
    assert spool.result("dump", Facts) == Facts(1)
    assert [path.name for path in spool.path("dump").iterdir()] == ["facts.json"]


def test_everything_is_private(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "state" / "spool", "run")
    spool.once("dump", 1, Facts, lambda _: Facts(os.umask(0o022)))
    for path in (spool.folder, spool.path("dump"), spool.path("dump") / "facts.json"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_everybody_who_shares_a_spool_shares_its_name(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: host_id(tmp_path / "spool"), range(16)))
    assert len(names) == 1
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["host"]
    assert host_id(tmp_path / "other") not in names


def test_holes_in_a_file_take_no_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")
    spool.folder.mkdir()
    with (spool.folder / "data").open("wb") as sink:
        sink.truncate(10_000_000)
        sink.seek(5_000_000)
        sink.write(b"x" * 100_000)
    assert 100_000 <= spool.size < 200_000
