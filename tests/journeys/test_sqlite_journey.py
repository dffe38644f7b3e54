"""A newcomer's journey: one environment variable, one command, and a backup that anybody can restore by hand."""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.house import House

pytestmark = pytest.mark.usefixtures("no_process_left")


@pytest.fixture
def house(tmp_path: Path) -> House:
    database = tmp_path / "shop.db"
    connection = sqlite3.connect(database)
    connection.executescript(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE empty (x);"
    )
    connection.executemany("INSERT INTO users (name) VALUES (?)", ((f"user {n}",) for n in range(1000)))
    connection.commit()
    connection.close()
    return House(tmp_path, DATABASE_URL=f"sqlite:///{database}")


def test_back_up_destroy_restore_by_hand(house: House) -> None:
    done = house.larder("backup", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["state"], document["proof"], document["database"]) == ("stored", "stored", "shop")
    assert [step["name"] for step in document["steps"]] == [
        "dump", "compress", "checksum", "upload", "rotate", "notify"
    ]  # fmt: skip
    assert all(step["attempts"] == 1 for step in document["steps"])
    artifact = house.backups / document["artifact"]
    assert document["locations"] == {"local": str(artifact)}
    assert artifact.name.startswith("backup_sqlite_")
    assert artifact.name.endswith(".db.gz")

    subprocess.run(["sha256sum", "-c", f"{artifact.name}.sha256"], cwd=house.backups, check=True)
    subprocess.run(["gunzip", "-t", artifact], check=True)
    (house.folder / "shop.db").unlink()
    (house.folder / "shop.db").write_bytes(gzip.decompress(artifact.read_bytes()))
    restored = sqlite3.connect(house.folder / "shop.db")
    assert restored.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert restored.execute("SELECT count(*), max(name) FROM users").fetchone() == (1000, "user 999")
    restored.close()


def test_the_log_has_the_lines_that_operators_know(house: House) -> None:
    done = house.larder("backup")
    assert done.returncode == 0, done.stderr
    for line in (
        "[INFO] Starting database backup at ",
        "[INFO] Detected SQLite database",
        "[INFO] Backing up SQLite database...",
        "[INFO] SQLite backup created: backup_sqlite_",
        "[INFO] Backup size: ",
        "[INFO] Checksum created: backup_sqlite_",
        "[INFO] Rotating old backups (keeping last 30 days)...",
        "[INFO] Deleted 0 old backup(s)",
        "[INFO] Total backups: 1",
        "[INFO] Backup completed successfully!",
    ):
        assert line in done.stderr
    assert str(house.backups) in done.stdout


def test_list_show_runs_status_and_watch_agree(house: House) -> None:
    document = json.loads(house.larder("backup", "--json").stdout)
    (listed,) = json.loads(house.larder("list", "--json").stdout)
    for key in ("backup", "database", "artifact", "size", "sha256", "stores", "proof"):
        assert listed[key] == document[key]
    assert (listed["engine"], listed["pinned"]) == ("sqlite", False)
    shown = json.loads(house.larder("show", "shop/latest", "--json").stdout)
    assert shown["backup"] == document["backup"]
    assert shown["manifest"]["fingerprint"]["tables"]["users"]["rows"] == 1000
    (run,) = json.loads(house.larder("runs", "--json").stdout)
    assert (run["run"], run["state"]) == (document["run"], "stored")
    (state,) = json.loads(house.larder("status", "--json").stdout)
    assert (state["safe"], state["backup"]) == (True, document["backup"])
    watched = house.larder("watch", document["run"])
    assert watched.returncode == 0
    assert "Backup completed successfully!" in watched.stderr
    for command in (["list"], ["show", "shop/latest"], ["runs"], ["status"], ["doctor"]):
        assert house.larder(*command).returncode == 0


def test_names_that_mean_nothing_exit_with_3(house: House) -> None:
    for command in (
        ["backup", "nothing"],
        ["list", "nothing"],
        ["show", "shop/latest"],
        ["watch", "nothing"],
    ):
        done = house.larder(*command)
        assert done.returncode == 3, (command, done.stderr)
        assert "HINT:" in done.stderr


def test_nothing_is_left_in_the_spool_and_everything_is_private(house: House) -> None:
    assert house.larder("backup").returncode == 0
    spool = house.backups / ".larder" / "spool"
    assert [path.name for path in spool.iterdir()] == ["host"]
    for path in house.backups.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_damaged_copy_is_listed_as_broken(house: House) -> None:
    document = json.loads(house.larder("backup", "--json").stdout)
    artifact = house.backups / document["artifact"]
    artifact.write_bytes(artifact.read_bytes()[:-1])
    listed = house.larder("list", "--json")
    assert listed.returncode == 5
    assert json.loads(listed.stdout)[0]["proof"] == "broken"


def test_foreign_files_are_named_and_never_deleted(house: House) -> None:
    house.backups.mkdir()
    foreign = house.backups / "backup_sqlite_20200101_000000.db.gz"
    foreign.write_bytes(b"from the script that was there before")
    assert house.larder("backup").returncode == 0
    listed = house.larder("list")
    assert foreign.name in listed.stderr
    assert foreign.exists()
