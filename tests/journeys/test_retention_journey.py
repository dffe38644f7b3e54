"""Old backups go, and the shelf is never emptied: as an operator sees it, from the first look to the last resort."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from larder.manifest import Manifest
from larder.signing import load_signer
from tests.house import House
from tests.shelves import lay, moved

pytestmark = pytest.mark.usefixtures("no_process_left")


@pytest.fixture
def house(tmp_path: Path) -> House:
    fill(tmp_path / "shop.db", 5000)
    return House(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path / 'shop.db'}")


def fill(path: Path, rows: int) -> None:
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
    connection.executemany("INSERT INTO users (name) VALUES (?)", ((f"user {n}",) for n in range(rows)))
    connection.commit()
    connection.close()


def back_up(house: House, **environment: str) -> dict[str, Any]:
    done = house.larder("backup", "--json", **environment)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def age(house: House, ages: Iterable[float]) -> list[str]:
    """Lay copies of the newest backup beside it, as if they had been made so many days ago; gives their ids."""
    newest = max(house.backups.glob("*.manifest.json"))
    manifest = Manifest.from_bytes(newest.read_bytes())
    content = (house.backups / manifest.artifact.name).read_bytes()
    signer = load_signer(house.backups / ".larder" / "signer.key")
    laid = (moved(manifest, datetime.now(UTC) - timedelta(days=days)) for days in ages)
    return [lay(house.backups, one, content, signer).backup for one in laid]


def listed(house: House) -> list[str]:
    return [one["backup"] for one in json.loads(house.larder("list", "--json").stdout)]


def prune(house: House, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    done = house.larder("prune", "--json", *arguments)
    assert done.returncode == exit_code, done.stdout + done.stderr
    (document,) = json.loads(done.stdout)
    assert document.keys() >= {"database", "store", "halted", "backups", "deleted"}
    return dict(document)


def test_a_backup_takes_old_ones_away_and_leaves_strangers(house: House) -> None:
    first = back_up(house)["backup"]
    old, kept = age(house, [40, 31]), age(house, [29, 1])
    stranger = house.backups / "backup_sqlite_20200101_000000.db.gz"
    stranger.write_bytes(b"from the script that was there before")
    done = house.larder("backup")
    assert done.returncode == 0, done.stderr
    for line in (
        "[INFO] Rotating old backups (keeping last 30 days)...",
        "[INFO] Deleted 2 old backup(s)",
        "[INFO] Total backups: 4",
    ):
        assert line in done.stderr
    left = listed(house)
    assert set(left) == {first, *kept, left[0]}
    assert not any(path.name.count(backup[5:]) for backup in old for path in house.backups.iterdir())
    assert stranger.exists()


def test_a_dry_run_shows_every_backup_with_its_reason_and_deletes_nothing(house: House) -> None:
    back_up(house)
    old = age(house, [90, 60])
    before = sorted(path.name for path in house.backups.iterdir())
    done = house.larder("prune", "shop", "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "shop in local, keeping last 30 days"
    for backup in old:
        (line,) = (line for line in lines if backup in line)
        assert line.split("  ")[-2:] == ["delete", "it is older than 30 days"]
    assert any("keep" in line and "it is not older than 30 days" in line for line in lines)
    assert lines[-1] == "2 of 3 would be deleted; nothing was, this is a dry run"
    assert sorted(path.name for path in house.backups.iterdir()) == before
    document = prune(house, "--dry-run")
    assert [one["keep"] for one in document["backups"]] == [False, False, True]
    assert document["deleted"] == []
    document = prune(house)
    assert document["deleted"] == old
    assert len(listed(house)) == 1
    assert prune(house)["deleted"] == []


def test_other_rules_in_the_zone_of_the_database(house: House) -> None:
    house.configure(
        """
        [databases.shop]
        url_env = "DATABASE_URL"
        timezone = "Europe/Berlin"
        retention = { daily = 7, weekly = 4 }
        [stores.local]
        path = "backups"
        """
    )
    done = house.larder("backup")
    assert done.returncode == 0, done.stderr
    assert "Rotating old backups (keeping daily 7, weekly 4)..." in done.stderr
    house.backups = house.backups / "shop"
    house.backups.joinpath(".larder").symlink_to(house.backups.parent / ".larder")
    age(house, range(1, 60))
    document = prune(house)
    left = [one for one in document["backups"] if one["keep"]]
    assert len(document["deleted"]) == 60 - len(left)
    assert sum("daily" in one["reason"] for one in left) == 7
    assert sum("weekly" in one["reason"] for one in left) == 4
    assert sorted(listed(house)) == [one["backup"] for one in left]


def test_a_pinned_backup_stays_even_when_the_ledger_is_lost(house: House) -> None:
    back_up(house)
    (old,) = age(house, [90])
    for _ in range(2):
        done = house.larder("pin", old, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"backup": old, "pinned": True, "stores": ["local"]}
    assert prune(house)["backups"][0]["reason"] == "pinned"
    for path in (house.backups / ".larder").glob("ledger.sqlite3*"):
        path.unlink()
    assert prune(house, "--force")["deleted"] == []
    done = house.larder("list", "--json")
    assert {one["backup"]: one["pinned"] for one in json.loads(done.stdout)}[old] is True
    assert "foreign" not in done.stderr
    assert house.larder("unpin", old).stdout == f"{old} is not pinned\n"
    # A ledger that knows nobody deletes nothing.
    document = prune(house, "--force")
    assert document["deleted"] == []
    assert document["backups"][0]["reason"].startswith("no signature is known here: larder catalog rebuild")
    assert house.larder("catalog", "rebuild").returncode == 0
    assert prune(house)["deleted"] == [old]
    assert not list(house.backups.glob("*.pin"))


def test_a_pin_lies_in_every_store_and_one_that_is_out_of_reach_is_told(house: House) -> None:
    house.configure(
        """
        [databases.shop]
        url_env = "DATABASE_URL"
        [stores.near]
        path = "near"
        [stores.far]
        path = "far"
        """
    )
    backup = back_up(house)["backup"]
    pinned = json.loads(house.larder("pin", backup, "--json").stdout)
    assert pinned == {"backup": backup, "pinned": True, "stores": ["far", "near"]}
    far, away = house.folder / "far", house.folder / "away"
    assert len([*far.rglob("*.pin"), *(house.folder / "near").rglob("*.pin")]) == 2
    far.rename(away)
    far.write_bytes(b"not a folder")
    done = house.larder("unpin", backup, "--json")
    assert done.returncode == 6
    assert json.loads(done.stdout) == {"backup": backup, "pinned": False, "stores": []}
    assert str(far) in done.stderr
    done = house.larder("prune", "--json")
    assert done.returncode == 6
    near, lost = sorted(json.loads(done.stdout), key=lambda one: one["store"], reverse=True)
    assert (near["store"], len(near["backups"])) == ("near", 1)
    assert (lost["store"], lost["backups"], str(far) in lost["error"]) == ("far", [], True)
    far.unlink()
    away.rename(far)
    assert json.loads(house.larder("unpin", backup, "--json").stdout)["stores"] == []
    assert not list(far.rglob("*.pin"))


def test_the_latest_can_be_pinned_and_nothing_that_is_not_there(house: House) -> None:
    newest = back_up(house)["backup"]
    assert json.loads(house.larder("pin", "shop/latest", "--json").stdout)["backup"] == newest
    for command in ("pin", "unpin"):
        assert house.larder(command, "shop/20200101_000000").returncode == 3
        assert house.larder(command, "nothing/latest").returncode == 3
    assert house.larder("prune", "nothing").returncode == 3


def test_a_failed_run_halts_a_prune_until_a_backup_succeeds(house: House) -> None:
    back_up(house)
    old = age(house, [60])
    database = house.folder / "shop.db"
    database.rename(house.folder / "away.db")
    assert house.larder("backup").returncode != 0
    document = prune(house, exit_code=1)
    assert "the last run failed" in document["halted"]
    assert document["backups"][0]["reason"] == (
        "would be deleted (it is older than 30 days), but rotation is halted"
    )
    assert set(old) < set(listed(house))
    (house.folder / "away.db").rename(database)
    back_up(house)
    assert len(listed(house)) == 2
    assert prune(house)["halted"] is None


def test_an_emptied_database_halts_rotation_and_the_operator_overrules_it(house: House) -> None:
    back_up(house)
    old = age(house, [60])
    fill(house.folder / "shop.db", 0)
    document = back_up(house)
    warning, rows = document["warnings"]
    assert warning.startswith("Rotation of 'shop' is halted: ")
    assert "less than half" in warning
    assert rows.startswith("More than half of the rows went since shop/")
    assert "larder prune shop --force" in warning
    assert len(listed(house)) == 3
    done = house.larder("prune", "shop")
    assert done.returncode == 1
    assert "halted: " in done.stdout
    assert "would be deleted (it is older than 30 days), but rotation is halted" in done.stdout
    # However many follow, it is halted until somebody has looked; and to look is not to accept.
    for _ in range(2):
        assert "less than half" in back_up(house)["warnings"][0]
    assert prune(house, "--dry-run", "--force")["halted"] is None
    assert prune(house, exit_code=1)["deleted"] == []
    assert prune(house, "shop", "--force")["deleted"] == old
    age(house, [50])
    assert prune(house, "--dry-run")["halted"] is None
    assert back_up(house)["warnings"] == []
    assert len(listed(house)) == 5


def test_backups_that_another_key_signed_stay_until_it_is_known(house: House) -> None:
    """A new machine, with a key and a ledger of its own, on the store of the old one."""
    back_up(house)
    old = age(house, [90, 60])
    (house.backups / ".larder").rename(house.folder / "of the old machine")
    back_up(house)
    assert set(old) < set(listed(house))
    document = prune(house, "--force")
    assert document["deleted"] == []
    for one in document["backups"][:3]:
        assert one["keep"]
        assert one["reason"].startswith("it is signed by the unknown key ")
    done = house.larder("prune", "--force")
    assert "keep    it is signed by the unknown key " in done.stdout
    assert house.larder("catalog", "rebuild").returncode == 0
    assert prune(house)["deleted"] == old


def test_a_disk_that_is_not_mounted_is_told(house: House) -> None:
    house.configure(
        """
        [databases.shop]
        url_env = "DATABASE_URL"
        [stores.disk]
        path = "disk"
        """
    )
    backup = back_up(house)["backup"]
    disk, away = house.folder / "disk", house.folder / "away"
    disk.rename(away)
    disk.mkdir()
    done = house.larder("prune", "--json", "--force")
    assert done.returncode == 6
    (document,) = json.loads(done.stdout)
    assert document["error"] == (
        "unable to rotate disk: the ledger knows 1 backup of 'shop' there, and none is there"
    )
    assert "see whether the disk is mounted" in document["hint"]
    disk.rmdir()
    away.rename(disk)
    assert [one["backup"] for one in prune(house)["backups"]] == [backup]


def test_a_clock_that_jumped_halts_rotation(house: House) -> None:
    back_up(house)
    age(house, range(60, 70))
    document = prune(house, exit_code=1)
    assert "10 backups are older than 30 days all at once" in document["halted"]
    assert len(listed(house)) == 11
    (future,) = age(house, [-3])
    document = prune(house, exit_code=1)
    assert f"{future} is dated" in document["halted"]
    assert len(prune(house, "--force")["deleted"]) == 10
    assert future in listed(house)


def obstruct(house: House, backup: str) -> None:
    """Put a folder where the backup's artifact is: nobody deletes that as a file."""
    (manifest,) = house.backups.glob(f"*{backup[5:]}*.manifest.json")
    path = manifest.with_name(manifest.name.removesuffix(".manifest.json"))
    path.unlink()
    path.mkdir()


def test_a_store_that_refuses_is_told_and_the_rest_goes_on(house: House) -> None:
    back_up(house)
    first, second = age(house, [60, 50])
    obstruct(house, first)
    done = house.larder("prune", "--json")
    assert done.returncode == 6
    assert "unable to delete 1 of 2 backups from local: unable to delete " in done.stderr
    assert json.loads(done.stdout)[0]["deleted"] == [first, second]
    # Of other days: commands are done within a second, and names hold seconds.
    third, fourth = age(house, [61, 51])
    obstruct(house, third)
    document = back_up(house)
    (warning,) = document["warnings"]
    assert warning.startswith("Old backups in local could not all be deleted: unable to delete 1 of 2")
    assert not {third, fourth} & set(listed(house))


def test_the_task_does_what_the_command_does_and_fails_loudly_when_halted(house: House) -> None:
    back_up(house)
    old = age(house, [60, 50])
    code = "from workers.celery import app; print(app.tasks['prune'].apply(args=['shop']).get())"

    def call() -> tuple[int | None, str, str]:
        process = house.start("python", "-c", f"import workers.celery, tasks.prune; {code}")
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    assert call()[:2] == (0, "2\n")
    assert not set(old) & set(listed(house))
    age(house, [60, -1])
    code_, _, err = call()
    assert code_ != 0
    assert "unable to prune 'shop': local: rotation is halted: shop/" in err
    assert len(listed(house)) == 3
