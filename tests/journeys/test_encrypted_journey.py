"""Back up with public keys only, then restore by hand with either private one, `age`, `gunzip`, `zstd` and `psql`."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.house import House
from tests.servers import SAMPLE, Cluster, Clusters, contents, postgres_installs

pytestmark = pytest.mark.usefixtures("no_process_left")

#: What only the data of both databases has, as it would be found in a file that is not encrypted.
MARKER = b"Marker-of-the-data-5a1f"


@dataclass(frozen=True)
class Keys:
    """Two private keys, in files that no worker ever sees, and the public ones."""

    age: Path
    ssh: Path
    recipients: list[str]

    @property
    def secrets(self) -> list[bytes]:
        """What would give a private key away."""
        lines = (self.age.read_text() + self.ssh.read_text()).splitlines()
        return [line.encode() for line in lines if len(line) > 30 and not line.startswith(("#", "-----"))]


@pytest.fixture(scope="module")
def tools() -> None:
    missing = [tool for tool in ("age", "age-keygen", "zstd", "ssh-keygen") if shutil.which(tool) is None]
    if missing and not os.environ.get("LARDER_TEST_REQUIRE_SERVERS"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    assert not missing


@pytest.fixture(scope="module")
def keys(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    age, ssh = folder / "key.txt", folder / "id_ed25519"
    subprocess.run(["age-keygen", "-o", age], check=True, capture_output=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ops@example", "-f", ssh], check=True
    )
    public = subprocess.run(["age-keygen", "-y", age], check=True, capture_output=True, text=True).stdout
    return Keys(age, ssh, [public.strip(), Path(f"{ssh}.pub").read_text().strip()])


@pytest.fixture(scope="module")
def server(clusters: Clusters) -> Cluster:
    return clusters.get(max(postgres_installs()))


@pytest.fixture
def shop(server: Cluster) -> Iterator[str]:
    with server.database("sealed") as name:
        server.execute(SAMPLE, name)
        server.execute(f"INSERT INTO customers (name) VALUES ('{MARKER.decode()}')", name)
        yield name


@pytest.fixture
def house(tmp_path: Path, server: Cluster, shop: str, keys: Keys) -> House:
    elsewhere = tmp_path / "source"
    elsewhere.mkdir()
    connection = sqlite3.connect(elsewhere / "crm.db")
    connection.execute("CREATE TABLE notes (text TEXT)")
    connection.executemany("INSERT INTO notes VALUES (?)", ((f"{MARKER.decode()} {n}",) for n in range(500)))
    connection.commit()
    connection.close()
    made = House(tmp_path, SHOP_URL=server.url(shop))
    encrypt_to = f"encrypt_to = {json.dumps(keys.recipients)}\n"
    made.configure(
        f'postgres_bin = ["{server.bin}"]\n'
        f'[databases.shop]\nurl_env = "SHOP_URL"\nglobals = true\n{encrypt_to}'
        # Whatever is readable in a store would be found here.
        f'[databases.bare]\nurl_env = "SHOP_URL"\ncompression = "none"\n{encrypt_to}'
        f'[databases.far]\nurl_env = "SHOP_URL"\nformat = "directory"\ncompression = "zstd"\n'
        f"compression_level = 9\nlong_distance = true\n{encrypt_to}"
        f'[databases.crm]\nurl = "file:{elsewhere / "crm.db"}"\ncompression = "zstd"\n{encrypt_to}'
    )
    return made


def back_up(house: House) -> dict[str, dict[str, Any]]:
    done = house.larder("backup", "--json")
    assert done.returncode == 0, done.stderr
    return {document["database"]: document for document in json.loads(done.stdout)}


def by_hand(line: str, folder: Path, environment: dict[str, str]) -> None:
    """A line of docs/restore-by-hand.md, as a shell runs it."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, (line, done.stderr)


def in_database(server: Cluster, name: str) -> dict[str, tuple[int, str]]:
    with psycopg.connect(server.socket_dsn(name)) as connection:
        return contents(connection)


def test_back_up_destroy_restore_by_hand(
    house: House, server: Cluster, shop: str, keys: Keys, tmp_path: Path
) -> None:
    before = in_database(server, shop)
    documents = back_up(house)
    artifacts = {name: house.backups / name / found["artifact"] for name, found in documents.items()}
    endings = {name: "".join(path.suffixes) for name, path in artifacts.items()}
    assert endings == {
        "shop": ".sql.gz.age",
        "bare": ".sql.age",
        "far": ".dir.tar.zst.age",
        "crm": ".db.zst.age",
    }
    server.dropdb(shop)
    (tmp_path / "source" / "crm.db").unlink()

    psql = f"'{server.bin}/psql' -X -q -v ON_ERROR_STOP=1 -1"
    restore = f"'{server.bin}/pg_restore' --exit-on-error"
    lines = {
        "shop": f"age -d -i '{keys.age}' {{}} | gunzip -c | {psql}",
        "bare": f"age -d -i '{keys.ssh}' {{}} | {psql}",
        "far": f"mkdir dir && age -d -i '{keys.ssh}' {{}} | zstd -dc | tar -x -C dir && {restore} -d restored dir",
    }
    for name, line in lines.items():
        folder = artifacts[name].parent
        by_hand(f"sha256sum -c {artifacts[name].name}.sha256", folder, {"PATH": os.environ["PATH"]})
        with server.database("restored") as restored:
            by_hand(line.format(artifacts[name]), tmp_path, server.environment(restored))
            assert in_database(server, restored) == before

    by_hand(f"age -d -i '{keys.age}' {artifacts['crm']} | zstd -dc > crm.db", tmp_path, house.environment)
    connection = sqlite3.connect(tmp_path / "crm.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*), max(text) FROM notes").fetchone() == (
        500,
        f"{MARKER.decode()} 99",
    )
    connection.close()


def test_what_the_store_tells_whoever_has_no_key(house: House, keys: Keys) -> None:
    documents = back_up(house)
    (roles,) = (house.backups / "shop").glob("*.globals.*")
    assert roles.name.endswith(".globals.sql.gz.age")
    opened = subprocess.run(["age", "-d", "-i", keys.ssh, roles], capture_output=True, check=True).stdout
    text = subprocess.run(["gunzip", "-c"], input=opened, capture_output=True, check=True).stdout
    assert b"CREATE ROLE postgres" in text

    for name, document in documents.items():
        manifest = json.loads(
            (house.backups / name / f"{document['artifact']}.manifest.json").read_text(encoding="utf-8")
        )
        compression = {"shop": ["gzip"], "bare": [], "far": ["zstd"], "crm": ["zstd"]}[name]
        assert manifest["encoding"] == [*compression, "age"]

    files = [path for path in house.folder.rglob("*") if path.is_file() and path.parent.name != "source"]
    assert len([path for path in files if path.suffix == ".age"]) == 5
    for path in files:
        content = path.read_bytes()
        assert MARKER not in content, path
        assert b"CREATE ROLE" not in content, path
        for key in [*keys.secrets, b"AGE-SECRET-KEY-", b"OPENSSH PRIVATE KEY"]:
            assert key not in content, path
    # Of an artifact, anybody can read to how many keys it was encrypted: the two, one that nobody has, and perhaps one
    # that age makes up to keep its readers used to kinds that they don't know.
    header = (house.backups / "bare" / documents["bare"]["artifact"]).read_bytes().split(b"\n---", 1)[0]
    assert header.count(b"-> X25519 ") == 2
    assert header.count(b"-> ssh-ed25519 ") == 1
