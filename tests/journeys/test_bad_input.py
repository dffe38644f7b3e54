"""What operators get wrong, and what they are told: the database, the step, the cure, and an exit code.

Whatever it was: nothing half made is left, earlier backups stay as they are, and no password is told to anybody.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from tests.house import House
from tests.servers import PASSWORD, Cluster, Clusters, free_port, postgres_installs, small_disk

pytestmark = pytest.mark.usefixtures("no_process_left")

#: The password as it may be written; its end is what a parser takes for a host and a path.
SPELLINGS = [PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), "ss/word"]

#: Has no right to anything, and a password that is not `PASSWORD` unless a test says so.
CLERK = "larder_clerk"


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A house with a small SQLite database, `shop`."""
    make_database(tmp_path / "shop.db", rows=10)
    return House(tmp_path, DATABASE_URL="sqlite:///shop.db")


@pytest.fixture
def server(clusters: Clusters, house: House) -> Iterator[Cluster]:
    """A server with a database `shop`, whose tools `house` uses, and a role `CLERK`."""
    found = clusters.get(max(postgres_installs()))
    house.configure(f'postgres_bin = ["{found.bin}"]\n')
    found.execute(f"CREATE ROLE {CLERK} LOGIN PASSWORD 'an0ther'")
    try:
        with found.database("shop") as name:
            found.execute("CREATE TABLE users (id int); INSERT INTO users VALUES (1), (2)", name)
            yield found
    finally:
        found.execute(f"DROP ROLE {CLERK}")


def make_database(path: Path, *, rows: int, row_size: int = 10) -> None:
    """A SQLite database whose contents can't be compressed."""
    noise = random.Random(2)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE users (picture BLOB)")
        connection.executemany(
            "INSERT INTO users VALUES (?)", ((noise.randbytes(row_size),) for _ in range(rows))
        )
    connection.close()


def good_backup(house: House, **environment: str) -> None:
    """The backup that was made while all was well."""
    done = house.larder("backup", **environment)
    assert done.returncode == 0, done.stderr
    assert len(backups(house)) == 3
    check_secrecy(house, done)


def backups(house: House) -> dict[Path, bytes]:
    """Artifacts, and what lies beside them."""
    return {path: path.read_bytes() for path in house.backups.rglob("backup_*")}


def fail(house: House, code: int, **environment: str) -> tuple[dict[str, Any], str]:
    """Have a backup fail as it should; gives the one JSON document that it printed, and what it said to people."""
    before = backups(house)
    done = house.larder("backup", "--json", **environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "HINT: " in done.stderr
    assert backups(house) == before
    check_leftovers(house, Path(environment.get("LARDER_STATE_DIR", house.backups / ".larder")))
    check_secrecy(house, done)
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["error"]
    assert document["hint"]
    return document, done.stderr


def check_leftovers(house: House, state: Path) -> None:
    """Nothing is half made."""
    if house.backups.is_dir():
        assert not [path for path in house.backups.rglob("*") if "partial" in path.name]
    if (state / "spool").exists():
        assert [path.name for path in (state / "spool").iterdir()] == ["host"]


def check_secrecy(house: House, done: subprocess.CompletedProcess[str]) -> None:
    """The password is in nothing that was printed, and in no file: ledger, logs, manifests."""
    for spelling in SPELLINGS:
        assert spelling not in done.stdout
        assert spelling not in done.stderr
        for path in house.folder.rglob("*"):
            if path.is_file():
                assert spelling.encode() not in path.read_bytes(), path


def fail_in(step: str, house: House, code: int, database: str = "shop", **environment: str) -> dict[str, Any]:
    """Have a run fail at `step`, and say so; gives the JSON document."""
    document, said = fail(house, code, **environment)
    assert (document["state"], document["failed_step"]) == ("failed", step)
    assert (document["database"], document["proof"], document["stores"]) == (database, None, [])
    assert f"[ERROR] Backup of '{database}' failed at step {step}: {document['error']}" in said
    assert f"HINT: {document['hint']}" in said
    return document


def attempts(document: dict[str, Any], name: str = "dump") -> int:
    (count,) = [step["attempts"] for step in document["steps"] if step["name"] == name]
    return int(count)


def refuse(house: House, code: int, **environment: str) -> str:
    """Have a backup fail before a run is begun; gives the message."""
    document, said = fail(house, code, **environment)
    assert document["exit_code"] == code
    assert f"error: {document['error']}" in said
    return str(document["error"])


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://{CLERK}:{quote(PASSWORD, safe='')}@127.0.0.1:54x2/shop",
        f"postgresql://{CLERK}:{PASSWORD}@127.0.0.1:5432/shop",
        f"postgresql://{CLERK}:{quote(PASSWORD, safe='')}@127.0.0.1/shop?sslmoode=require",
        f"mysql://{CLERK}:{quote(PASSWORD, safe='')}@127.0.0.1/shop",
        f"postgresql//{CLERK}:{quote(PASSWORD, safe='')}@127.0.0.1/shop",
    ],
    ids=["port", "password not encoded", "parameter", "engine", "colon"],
)
def test_a_wrong_connection_string_is_a_mistake_in_the_configuration(house: House, url: str) -> None:
    assert "DATABASE_URL" in refuse(house, 2, DATABASE_URL=url)


def test_a_server_that_does_not_answer_is_tried_again(house: House, server: Cluster) -> None:
    # The one slow test here: four waits of 30 s in all, give or take a half.
    port = free_port()
    url = server.url("shop").replace(f":{server.port}/", f":{port}/")
    document = fail_in("dump", house, 6, DATABASE_URL=url)
    assert attempts(document) == 5
    assert "127.0.0.1" in document["error"]
    assert str(port) in document["error"]


def test_a_wrong_password_fails_at_once_and_earlier_backups_stay(house: House, server: Cluster) -> None:
    good_backup(house, DATABASE_URL=server.url("shop"))
    document = fail_in("dump", house, 6, DATABASE_URL=server.url("shop", user=CLERK))
    assert attempts(document) == 1
    assert "password" in document["error"]
    assert CLERK in document["error"]


def test_a_database_that_does_not_exist_is_named(house: House, server: Cluster) -> None:
    document = fail_in("dump", house, 6, "nowhere", DATABASE_URL=server.url("nowhere"))
    assert attempts(document) == 1
    assert "does not exist" in document["error"]
    assert "nowhere" not in server.databases()


def test_a_table_that_may_not_be_read_is_named(house: House, server: Cluster) -> None:
    with psycopg.connect(server.socket_dsn("postgres"), autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(CLERK), sql.Literal(PASSWORD))
        )
    document = fail_in("dump", house, 6, DATABASE_URL=server.url("shop", user=CLERK))
    assert attempts(document) == 1
    assert "users" in document["error"]
    assert "grant" in document["hint"].lower()


def test_a_missing_file_is_said_and_not_made_and_earlier_backups_stay(house: House) -> None:
    good_backup(house)
    (house.folder / "shop.db").unlink()
    document = fail_in("dump", house, 6)
    assert attempts(document) == 1
    assert f"{house.folder}/shop.db: there is no such file" in document["error"]
    assert not list(house.folder.glob("shop.db*"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("folder", "it is a folder"), ("text", "not a SQLite database"), ("damaged", "malformed")],
)
def test_a_file_that_cannot_be_read_is_named(house: House, kind: str, reason: str) -> None:
    path = house.folder / "shop.db"
    head = path.read_bytes()[:100]
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"Dear diary" * 1000 if kind == "text" else head + b"\xff" * 8092)
    document = fail_in("dump", house, 5 if kind == "damaged" else 6)
    assert attempts(document) == 1
    assert "'shop'" in document["error"]
    assert reason in document["error"]


def test_a_full_disk_leaves_nothing_half_made(house: House) -> None:
    make_database(house.folder / "large.db", rows=100, row_size=100_000)
    with small_disk(house.folder, 4 << 20) as disk:
        document = fail_in(
            "dump", house, 1, "large", DATABASE_URL="sqlite:///large.db", LARDER_STATE_DIR=str(disk)
        )
    assert attempts(document) == 1
    assert "no space left on device" in document["error"]
    assert "LARDER_STATE_DIR" in document["hint"]


def test_a_folder_for_everything_that_cannot_be_made_is_said(house: House) -> None:
    (house.folder / "file").touch()
    folder = house.folder / "file" / "backups"
    assert str(folder) in refuse(house, 1, BACKUP_DIR=str(folder))


def test_a_folder_for_backups_that_cannot_be_made_is_said(house: House) -> None:
    (house.folder / "file").touch()
    folder, state = house.folder / "file" / "backups", house.folder / "state"
    document = fail_in("upload", house, 6, BACKUP_DIR=str(folder), LARDER_STATE_DIR=str(state))
    assert attempts(document, "upload") == 1
    assert str(folder) in document["error"]


def test_people_are_told_the_same_as_programs(house: House) -> None:
    done = house.larder("backup", DATABASE_URL="sqlite:///missing.db")
    assert done.returncode == 6
    assert done.stdout == ""
    for part in ("error: backup of 'missing' failed at step dump", "there is no such file", "HINT: "):
        assert part in done.stderr
    assert not (house.folder / "missing.db").exists()


def test_names_that_collide_are_a_mistake(house: House) -> None:
    house.configure('[databases.Shop]\nurl = "sqlite:///a.db"\n[databases.shop]\nurl = "sqlite:///b.db"\n')
    message = refuse(house, 2)
    assert "databases.shop: its files would collide with those of database 'Shop'" in message


def test_mistakes_in_the_configuration_are_all_told_at_once(house: House) -> None:
    house.configure(
        'log_formt = "json"\n'
        '[databases.Shop]\nurl = "sqlite:///a.db"\n'
        '[databases.shop]\nurl = "sqlite:///b.db"\nschedul = "x"\nstores = ["attic"]\n'
    )
    message = refuse(house, 2)
    for part in (
        "4 mistakes",
        "log_formt: unknown key (did you mean 'log_format'?)",
        "collide",
        "did you mean 'schedule'",
        "there is no store 'attic'",
    ):
        assert part in message
