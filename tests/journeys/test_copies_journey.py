"""Several stores: each gets its own upload, and what one of them does to its copies shows beside the others."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.house import House
from tests.object_storage import ObjectServer
from tests.servers import free_port

pytestmark = pytest.mark.usefixtures("no_process_left")

TWO_STORES = """
[databases.shop]
url = "sqlite:///shop.db"
{database}
[databases.crm]
url = "sqlite:///crm.db"
[stores.near]
path = "near"
[stores.far]
path = "far"
"""


@pytest.fixture
def house(tmp_path: Path) -> House:
    for name in ("shop", "crm"):
        with sqlite3.connect(tmp_path / f"{name}.db") as connection:
            connection.execute("CREATE TABLE users (name TEXT)")
            connection.executemany(
                "INSERT INTO users VALUES (?)", ((f"{name} user {n}",) for n in range(500))
            )
        connection.close()
    made = House(tmp_path)
    made.configure(TWO_STORES.format(database=""))
    return made


def back_up(house: House, database: str = "shop", code: int = 0, **environment: str) -> dict[str, Any]:
    done = house.larder("backup", database, "--json", **environment)
    assert done.returncode == code, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def listed(house: House, *arguments: str, code: int = 0, **environment: str) -> dict[str, dict[str, Any]]:
    done = house.larder("list", "--json", *arguments, **environment)
    assert done.returncode == code, done.stdout + done.stderr
    return {found["backup"]: found for found in json.loads(done.stdout)}


def verified(house: House, *arguments: str, code: int = 0, **environment: str) -> list[dict[str, Any]]:
    done = house.larder("verify", "--json", *arguments, **environment)
    assert done.returncode == code, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_each_store_has_its_upload_and_its_copy(house: House) -> None:
    document = back_up(house)
    uploads = [step for step in document["steps"] if step["name"] == "upload"]
    assert [(step["store"], step["attempts"]) for step in uploads] == [("near", 1), ("far", 1)]
    assert document["stores"] == ["far", "near"]
    artifact = document["artifact"]
    for store in ("near", "far"):
        subprocess.run(
            ["sha256sum", "-c", f"{artifact}.sha256"], cwd=house.folder / store / "shop", check=True
        )
    found = verified(house, "shop/latest")
    assert [(copy["store"], copy["state"]) for copy in found] == [("near", "good"), ("far", "good")]


def test_a_store_that_fails_is_a_warning_and_the_other_copy_holds(house: House) -> None:
    (house.folder / "near").write_text("a file in the place of the folder")
    document = back_up(house)
    assert (document["state"], document["stores"]) == ("stored", ["far"])
    assert any("Step upload for near failed" in warning for warning in document["warnings"])
    assert listed(house, "--store", "far")[document["backup"]]["proof"] == "stored"
    told = house.larder("list")
    assert (told.returncode, document["backup"] in told.stdout, "near" in told.stderr) == (6, True, True)


@pytest.mark.parametrize("unusable", ["near", "far"])
def test_fewer_copies_than_wanted_fail_the_run_and_what_was_made_stays(house: House, unusable: str) -> None:
    house.configure(TWO_STORES.format(database="min_copies = 2"))
    (house.folder / unusable).write_text("a file in the place of the folder")
    document = back_up(house, code=6)
    assert (document["state"], document["failed_step"]) == ("failed", "upload")
    holding = {"near": "far", "far": "near"}[unusable]
    assert document["stores"] == [holding]
    assert str(house.folder / unusable) in document["error"]
    assert listed(house, "--store", holding)[document["backup"]]["proof"] == "stored"
    assert all(copy["state"] == "good" for copy in verified(house, "shop/latest", "--store", holding))


def test_more_copies_than_stores_are_a_mistake(house: House) -> None:
    house.configure(TWO_STORES.format(database="min_copies = 3"))
    done = house.larder("backup", "shop")
    assert done.returncode == 2
    assert "databases.shop.min_copies: asks for 3 copies, and the database has 2 stores" in done.stderr


def test_a_bucket_alone_is_a_second_copy_and_enough_for_a_new_machine(
    house: House, object_server: ObjectServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (house.folder / "larder.toml").unlink()
    bucket = object_server.bucket()
    environment = {**object_server.environment, "BACKUP_S3_BUCKET": bucket.name}
    document = back_up(house, DATABASE_URL="sqlite:///shop.db", **environment)
    assert document["stores"] == ["local", "s3"]
    artifact = document["artifact"]
    assert document["locations"]["s3"] == f"s3://{bucket.name}/backups/{artifact}"
    assert bucket.keys() == [f"backups/{artifact}{more}" for more in ("", ".manifest.json", ".sha256")]
    for key, content in bucket.objects().items():
        assert content == (house.backups / Path(key).name).read_bytes()

    new = House(tmp_path_factory.mktemp("new"))
    rebuilt = new.larder("catalog", "rebuild", "--store", "s3", "--json", **environment)
    assert rebuilt.returncode == 0, rebuilt.stderr
    report = json.loads(rebuilt.stdout)
    assert (report["backups"], report["databases"], report["problems"]) == (1, {"shop": 1}, [])
    assert len(report["new_signers"]) == 1
    assert listed(new, **environment)[document["backup"]]["proof"] == "stored"
    assert [copy["state"] for copy in verified(new, "--all", **environment)] == ["good"]
    downloaded = tmp_path_factory.mktemp("by-hand") / "restored.db"
    downloaded.write_bytes(gzip.decompress(bucket.read(f"backups/{artifact}")))
    with sqlite3.connect(downloaded) as restored:
        assert restored.execute("SELECT count(*) FROM users").fetchone() == (500,)
    restored.close()


def test_no_secret_of_the_bucket_is_anywhere(house: House, object_server: ObjectServer) -> None:
    (house.folder / "larder.toml").unlink()
    environment = {**object_server.environment, "BACKUP_S3_BUCKET": object_server.bucket().name}
    done = house.larder("backup", "--json", DATABASE_URL="sqlite:///shop.db", **environment)
    gone = {**environment, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port()}"}
    failed = house.larder("list", "--store", "s3", DATABASE_URL="sqlite:///shop.db", **gone)
    assert (done.returncode, failed.returncode) == (0, 6)
    secret = environment["AWS_SECRET_ACCESS_KEY"]
    for said in (done.stdout, done.stderr, failed.stdout, failed.stderr):
        assert secret not in said
    for path in house.folder.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


#: What is done to which file of a copy, and whether a look at the catalog shows it without reading the artifact.
DAMAGE: list[tuple[Callable[[Path], object], str, bool]] = [
    (flip, "", False),
    (cut, "", True),
    (Path.unlink, "", True),
    (flip, ".sha256", True),
    (Path.unlink, ".sha256", True),
    (flip, ".manifest.json", True),
    (cut, ".manifest.json", True),
    (Path.unlink, ".manifest.json", True),
]


def test_every_damage_to_a_copy_is_found_and_named_and_stays_known(house: House) -> None:
    document = back_up(house)
    for do, suffix, at_a_glance in DAMAGE:
        path = house.folder / "far" / "shop" / f"{document['artifact']}{suffix}"
        whole = path.read_bytes()
        do(path)
        found = listed(house, code=5 if at_a_glance else 0)
        assert found[document["backup"]]["proof"] == ("broken" if at_a_glance else "stored"), (do, suffix)
        states = {copy["store"]: copy["state"] for copy in verified(house, "shop/latest", code=5)}
        gone = "missing" if (do, suffix) == (Path.unlink, ".manifest.json") else "broken"
        assert states == {"near": "good", "far": gone}, (do, suffix)
        told = house.larder("list", "shop")
        assert (told.returncode, document["backup"] in told.stdout, "far: " in told.stdout) == (5, True, True)
        path.write_bytes(whole)
    assert {copy["state"] for copy in verified(house, "shop/latest")} == {"good"}
    assert listed(house)[document["backup"]]["proof"] == "stored"


def test_a_copy_of_another_database_is_found_in_its_place(house: House) -> None:
    shop, crm = back_up(house, "shop"), back_up(house, "crm")
    for store in ("near", "far"):
        for more in ("", ".sha256", ".manifest.json"):
            mine = house.folder / store / "shop" / f"{shop['artifact']}{more}"
            mine.unlink()
            source = house.folder / store / "crm" / f"{crm['artifact']}{more}"
            shutil.copy(source, mine.with_name(source.name))
    told = house.larder("list")
    assert told.returncode == 5
    assert shop["backup"] in told.stdout
    assert "nobody here removed it" in told.stdout
    assert "a second manifest of it lies at shop/" in told.stdout or "it lies in the folder" in told.stdout
    states = {(copy["backup"], copy["store"]): copy["state"] for copy in verified(house, "--all", code=5)}
    assert states[shop["backup"], "near"] == "missing"


def test_a_backup_that_somebody_took_away_is_missed(house: House) -> None:
    backups = [back_up(house) for _ in range(3)]
    middle = backups[1]
    for store in ("near", "far"):
        for path in (house.folder / store / "shop").glob(f"{middle['artifact']}*"):
            path.unlink()
    found = listed(house, code=5)
    assert found[middle["backup"]]["proof"] == "broken"
    assert found[middle["backup"]]["stores"] == []
    # A ledger that has never seen it misses it too: the next manifest names it.
    shutil.rmtree(house.backups)
    told = house.larder("list")
    assert told.returncode == 5
    assert f"backup {middle['backup']} is missing: {backups[2]['backup']} names it" in told.stdout
    rebuilt = house.larder("catalog", "rebuild", "--json")
    assert rebuilt.returncode == 0, rebuilt.stdout
    assert json.loads(rebuilt.stdout)["gaps"] == [middle["backup"]]
    assert sorted(listed(house)) == sorted(one["backup"] for one in (backups[0], backups[2]))


def test_a_disk_that_is_not_mounted_is_not_taken_for_an_empty_store(house: House) -> None:
    first = back_up(house)
    (house.folder / "far").rename(house.folder / "unmounted")
    (house.folder / "far").mkdir()
    for command in (["list"], ["verify", "--all"]):
        done = house.larder(*command)
        assert (done.returncode, "unable to find anything in store 'far'" in done.stderr) == (6, True)
    second = back_up(house)
    assert second["stores"] == ["near"]
    assert "see whether its disk is mounted" in second["warnings"][0]
    assert list((house.folder / "far").iterdir()) == []
    status = json.loads(house.larder("status", "--json").stdout)[0]
    assert (status["safe"], status["missing_stores"]) == (False, ["far"])

    (house.folder / "far").rmdir()
    (house.folder / "unmounted").rename(house.folder / "far")
    found = listed(house)
    assert [found[one["backup"]]["proof"] for one in (first, second)] == ["stored", "stored"]
    assert found[second["backup"]]["missing_stores"] == ["far"]
    third = back_up(house)
    assert third["stores"] == ["far", "near"]

    shutil.rmtree(house.folder / "far")
    rebuilt = house.larder("catalog", "rebuild", "--store", "far", "--json")
    assert json.loads(rebuilt.stdout)["gaps"] == [first["backup"], third["backup"]]
    assert back_up(house)["stores"] == ["far", "near"]


def test_a_manifest_of_an_unknown_signer_is_found(house: House) -> None:
    document = back_up(house)
    key = house.larder("keys", "new", "signer", "web1", "--out", str(house.folder / "web1.key"), "--json")
    public = json.loads(key.stdout)["public_key"]
    house.configure(
        'signing_key = "web1.key"\n'
        + TWO_STORES.format(database="")
        + f'[signers.web1]\npublic_key = "{public}"\n'
    )
    told = house.larder("list", "shop")
    assert told.returncode == 5
    assert "it is signed by the unknown key" in told.stdout
    again = back_up(house)
    assert again["warnings"] == []
    states = {copy["backup"]: copy["state"] for copy in verified(house, "--all", code=5)}
    assert (states[document["backup"]], states[again["backup"]]) == ("broken", "good")
