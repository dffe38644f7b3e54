"""docs/disaster-recovery.md, line by line: a bucket, two keys and a new server become a database again.

The page is the test: its `sh` block is the environment, the lines of its `console` blocks are typed at a terminal, in
order, and its `toml` block becomes larder.toml. What stands there for something of the operator's own is replaced.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from tests.house import PATIENCE, SCRIPTS, House
from tests.object_storage import ACCESS_KEY, REGION, SECRET_KEY, Bucket, ObjectServer
from tests.servers import SAMPLE, Cluster, Clusters, contents, postgres_installs, started

pytestmark = pytest.mark.usefixtures("no_process_left")

PAGE = Path(__file__).parents[2] / "docs" / "disaster-recovery.md"
#: Its headings with something to do.
WAY, AFTERWARDS, BACK = (
    "From nothing to a database",
    "Afterwards",
    "The machine is back, and the ledger is not",
)

PASSPHRASE = "correct horse battery staple"

#: How many commands the page may take from nothing to a database, those in a pipe and the installation among them.
FEW = 9


@dataclass(frozen=True)
class Block:
    """A fenced block: what kind it is of, its text, and the heading that it stands below."""

    kind: str
    text: str
    section: str

    @property
    def commands(self) -> list[str]:
        return [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]


def blocks_of(page: str) -> list[Block]:
    found, section, kind, lines = [], "", None, list[str]()
    for line in page.splitlines():
        if line.startswith("```"):
            if kind is not None:
                found.append(Block(kind, "\n".join(lines), section))
            kind, lines = (line[3:] if kind is None else None), []
        elif kind is not None:
            lines.append(line)
        elif line.startswith("## "):
            section = line[3:]
    return found


@dataclass
class Machine:
    """A machine with nothing on it but a folder, and somebody at its terminal."""

    folder: Path
    path: str
    home: Path
    #: What the operator has in the place of what the page says.
    words: dict[str, str]
    environment: str = ""
    screens: dict[str, str] = field(default_factory=dict)

    def own(self, text: str) -> str:
        """`text` of the page, in the operator's own words."""
        for ours, theirs in self.words.items():
            text = text.replace(ours, theirs)
        return text

    def type(self, line: str) -> str:
        """Type a line of the page, answer what it asks, and see that it goes well; gives what the terminal showed."""
        answers = {"Type yes to approve exactly this: ": "yes", "Passphrase of ": PASSPHRASE}
        # Passwords in an argv would be seen by the tests beside this one, which look through all of them.
        (self.home / "typed").write_text(f"{self.environment}\n{self.own(line)}")
        master, slave = pty.openpty()
        process = subprocess.Popen(
            ["bash", "-o", "pipefail", self.home / "typed"],
            cwd=self.folder,
            env={"PATH": self.path, "HOME": str(self.home), "LANG": "C.UTF-8", "TERM": "dumb"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        try:
            screen = _watch(master, answers)
            code = process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
            os.close(master)
        assert code == 0, f"$ {line}\n{screen}"
        self.screens[line] = screen
        return screen


def _watch(master: int, answers: dict[str, str]) -> str:
    """What a terminal shows until nobody holds it any more; each question is answered once, as it comes."""
    seen, waiting, deadline = "", dict(answers), time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            data = os.read(master, 1 << 16)
        except OSError:
            # How Linux says that the last of them has hung up.
            data = b""
        if not data:
            return seen
        seen += data.decode(errors="replace")
        for question in [one for one in waiting if one in seen]:
            os.write(master, f"{waiting.pop(question)}\n".encode())
    raise AssertionError(f"it never ended: {seen}")


@pytest.fixture
def old(clusters: Clusters) -> Iterator[Cluster]:
    """The server that will be lost, with the role that the application logs in with."""
    cluster = clusters.get(min(version for version in postgres_installs() if version >= 16))
    cluster.execute("CREATE ROLE app LOGIN")
    with cluster.database("shop"):
        cluster.execute(SAMPLE, "shop")
        cluster.execute("ALTER TABLE customers OWNER TO app", "shop")
        yield cluster
    cluster.execute("DROP ROLE app")


@pytest.fixture
def new() -> Iterator[Cluster]:
    """A server that nobody has ever used."""
    cluster = started(max(postgres_installs()))
    yield cluster
    cluster.remove()


@pytest.fixture
def bucket(object_server: ObjectServer) -> Iterator[Bucket]:
    found = object_server.bucket()
    yield found
    found.empty()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The folder of somebody's safe, with the two keys that the page asks for."""
    missing = [tool for tool in ("age-keygen", "ssh-keygen") if shutil.which(tool) is None]
    if missing and not os.environ.get("LARDER_TEST_REQUIRE_SERVERS"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    safe = tmp_path / "safe"
    safe.mkdir()
    subprocess.run(["age-keygen", "-o", safe / "larder-key.txt"], check=True, capture_output=True)
    approver = ["-N", PASSPHRASE, "-C", "alice", "-f", str(safe / "alice.approver.key")]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", *approver], check=True)
    return safe


def back_up_and_lose(
    tmp_path: Path, old: Cluster, bucket: Bucket, server: ObjectServer, recipient: str
) -> None:
    """An earlier machine backs up into the bucket, and is no more."""
    folder = tmp_path / "lost"
    folder.mkdir()
    house = House(folder, SHOP_URL=old.url("shop"), BACKUP_S3_BUCKET=bucket.name, **server.environment)
    house.configure(
        f'postgres_bin = ["{old.bin}"]\n[databases.shop]\nurl_env = "SHOP_URL"\nencrypt_to = ["{recipient}"]\n'
    )
    done = house.larder("backup", "shop", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stores"] == ["local", "s3"]
    shutil.rmtree(folder)


def test_the_page_brings_a_database_back_as_it_is_printed(
    tmp_path: Path, old: Cluster, new: Cluster, bucket: Bucket, keys: Path, object_server: ObjectServer
) -> None:
    recipient = subprocess.run(
        ["age-keygen", "-y", keys / "larder-key.txt"], check=True, capture_output=True, text=True
    ).stdout.strip()
    with psycopg.connect(old.socket_dsn("shop")) as connection:
        before = contents(connection)
    back_up_and_lose(tmp_path, old, bucket, object_server, recipient)
    old.dropdb("shop")

    folder = tmp_path / "machine"
    folder.mkdir()
    for key in ("larder-key.txt", "alice.approver.key"):
        shutil.copy(keys / key, folder / key)
    machine = Machine(
        folder,
        f"{SCRIPTS}:{new.bin}:{os.environ['PATH']}",
        tmp_path,
        {
            "my-backups": bucket.name,
            "AKIAIOSFODNN7EXAMPLE": ACCESS_KEY,
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY": SECRET_KEY,
            "'eu-central-1'": f"'{REGION}'",
            "https://s3.example.com": object_server.url,
            "postgresql://postgres:secret@db.example.com:5432/shop": new.url("shop"),
            "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p": recipient,
        },
    )
    blocks = blocks_of(PAGE.read_text(encoding="utf-8"))
    assert {block.section for block in blocks} == {WAY, AFTERWARDS, BACK}
    lines = [line for block in blocks if block.section == WAY for line in block.commands]
    assert 5 <= sum(line.count(" | ") + 1 for line in lines) <= FEW
    assert lines[0].startswith("pip install "), "what this environment has already"

    follow(machine, [block for block in blocks if block.section == WAY])
    with psycopg.connect(new.socket_dsn("shop")) as connection:
        assert contents(connection) == before

    follow(machine, [block for block in blocks if block.section == AFTERWARDS])
    with new.connect() as connection:
        assert connection.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app'").fetchone() == (
            True,
        )
    artifacts = [key for key in bucket.objects() if not key.endswith((".json", ".sha256"))]
    assert len(artifacts) == 2
    assert all(key.startswith("backups/shop/") and key.endswith(".age") for key in artifacts)
    assert "2 good, 0 broken" in machine.screens["larder verify shop/latest"]

    shutil.rmtree(folder / "backups" / ".larder")
    follow(machine, [block for block in blocks if block.section == BACK])
    assert re.search(r"^backups: 2, in so many copies: 3", machine.screens["larder catalog rebuild"])
    assert re.search(r"^shop +safe ", machine.screens["larder status"], re.MULTILINE)


def follow(machine: Machine, blocks: list[Block]) -> None:
    """Do what blocks say, and learn from what is printed what the page's next lines stand for."""
    for block in blocks:
        if block.kind == "sh":
            machine.environment = machine.own(block.text)
        elif block.kind == "toml":
            (machine.folder / "larder.toml").write_text(machine.own(block.text))
        for line in block.commands:
            if not line.startswith("pip install "):
                learn(machine, line, machine.type(line))


def learn(machine: Machine, line: str, screen: str) -> None:
    """Take the request's id, and public keys, where a command tells them."""
    told = {
        "larder restore request": (r"^([0-9a-f]{12})  shop/", "0a1b2c3d4e5f"),
        "larder catalog rebuild": (
            r"trusted from now on: (\S+),",
            "q0YWpp37gJf+RQkOIDmprLJ+aS/XtACcCdW3AZUDvdw=",
        ),
        "larder keys new signer": (r'public_key = "(\S+)"', "x0YWpp37gJf+RQkOIDmprLJ+aS/XtACcCdW3AZUDvdw="),
    }
    for command, (pattern, ours) in told.items():
        if line.startswith(command) and ours not in machine.words:
            found = re.search(pattern, screen, re.MULTILINE)
            assert found, screen
            machine.words[ours] = found[1]
    if line.startswith("larder keys show "):
        lines = (machine.folder / "larder.toml").read_text()
        machine.words["2yT3DkBDDwBjPIWXHwLgzgLvrzXzlWPzfNlKe+raNBI="] = lines.split('"')[-2]
