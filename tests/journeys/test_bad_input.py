"""What operators get wrong, and what they are told: the database, the step, the cure, and an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from console import sample
from tests.house import House
from tests.servers import Cluster, Clusters, small_disk

pytestmark = pytest.mark.usefixtures("no_process_left")


@pytest.fixture
def house(tmp_path: Path) -> House:
    sample.make(tmp_path / "shop.db")
    return House(tmp_path, DATABASE_URL="sqlite:///shop.db")


def refused(house: House, code: int, **environment: str) -> dict[str, Any]:
    """Have a backup fail with an exit code; gives the one JSON document that it printed."""
    done = house.larder("backup", "--json", **environment)
    assert done.returncode == code, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert not list(house.backups.rglob("backup_*"))
    assert not list(house.backups.rglob("*.partial"))
    return document


def test_a_missing_file_is_said_and_not_made(house: House) -> None:
    document = refused(house, 6, DATABASE_URL="sqlite:///missing.db")
    assert (document["state"], document["failed_step"]) == ("failed", "dump")
    assert "unable to open database 'missing'" in document["error"]
    assert document["steps"][0]["attempts"] == 1
    assert not (house.folder / "missing.db").exists()


def test_a_wrong_password_fails_at_once_and_earlier_backups_stay(house: House, clusters: Clusters) -> None:
    server: Cluster = clusters.get(16)
    house.configure(f'postgres_bin = ["{server.bin}"]\n[databases.shop]\nurl_env = "SHOP_URL"\n')
    with server.database("shop") as name:
        right, wrong = server.url(name), server.url(name, password="wr0ng-p@ss/word")
        assert house.larder("backup", SHOP_URL=right).returncode == 0
        before = {path: path.read_bytes() for path in house.backups.glob("shop/*")}
        done = house.larder("backup", "--json", SHOP_URL=wrong)
    assert done.returncode == 6
    document = json.loads(done.stdout)
    assert "'shop'" in document["error"]
    assert document["hint"]
    assert document["steps"][0]["attempts"] == 1
    assert {path: path.read_bytes() for path in house.backups.glob("shop/*")} == before
    assert "wr0ng" not in done.stdout + done.stderr


def test_a_full_disk_leaves_nothing_half_made(house: House, tmp_path: Path) -> None:
    with small_disk(tmp_path, 2 << 20) as disk:
        document = refused(house, 1, LARDER_STATE_DIR=str(disk))
        assert "no space left on device" in document["error"]
        assert [path.name for path in (disk / "spool").iterdir()] == ["host"]


def test_a_folder_that_cannot_be_made_is_said(house: House) -> None:
    (house.folder / "file").touch()
    done = house.larder("backup", BACKUP_DIR=str(house.folder / "file" / "backups"))
    assert done.returncode == 1
    assert "unable to use" in done.stderr


def test_mistakes_in_the_configuration_are_all_told_at_once(house: House) -> None:
    house.configure(
        '[databases.Shop]\nurl = "sqlite:///a.db"\n'
        '[databases.shop]\nurl = "sqlite:///b.db"\nschedul = "x"\nstores = ["attic"]\n'
    )
    message = refused(house, 2)["error"]
    for part in ("3 mistakes", "collide", "did you mean 'schedule'", "there is no store 'attic'"):
        assert part in message
