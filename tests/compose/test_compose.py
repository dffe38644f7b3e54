"""docker-compose.yml in a real Docker: it comes up whole, works, heals, and refuses to begin without its secrets.

    make test-compose

It takes a Docker that runs; where the images cannot be pulled, tests/compose/stand_ins.sh makes others by their names.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.house import House
from tests.servers import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("LARDER_TEST_COMPOSE"), reason="takes Docker: make test-compose"),
    pytest.mark.timeout(900),
]

ROOT = Path(__file__).parents[2]
IMAGE = "larder:test"

#: Those that have to be healthy; the others end.
LASTING = {"redis", "ledger", "worker", "restore", "beat", "flower", "console", "sample", "s3"}
OURS = {"worker", "restore", "beat", "flower", "console"}

#: What Docker says of a container that was never started, as every later time sorts after.
NEVER = "0001-01-01T00:00:00Z"

#: Several databases, so that there is something to share; one is due each minute.
DATABASES = "abcdefghi"
CONFIGURATION = """
dumps_per_server = 9

[stores.local]
path = "/backups"

[stores.s3]
type = "s3"
bucket = "larder"
endpoint = "http://s3:8333"
region = "us-east-1"

[databases.shop]
url_env = "DATABASE_URL"
schedule = "* * * * *"
""" + "".join(
    f'[databases.{name}]\nurl_env = "DATABASE_URL"\nschedule = "0 0 29 2 *"\n' for name in DATABASES
)


def docker(*words: str, timeout: int = 120) -> str:
    """What Docker says; it has to do what it is told to."""
    return subprocess.run(
        ["docker", *words], capture_output=True, text=True, timeout=timeout, check=True
    ).stdout.strip()


def compose_program() -> list[str]:
    """Compose v2, or else v1."""
    v2 = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker", "compose"] if v2.returncode == 0 else ["docker-compose"]


def eventually(look: Callable[[], Any], seconds: float = 180) -> Any:
    """What `look` finds, looked for until it finds something: containers take their time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(1)
    raise AssertionError(f"it never came: {look()!r}")


class Stack:
    """A copy of the project's files for Compose, in a folder of its own, as a project of its own."""

    def __init__(self, folder: Path, configuration: str) -> None:
        self.folder = folder
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "deploy", folder / "deploy")
        (folder / "test.toml").write_text(configuration)
        (folder / "test.toml").chmod(0o644)
        self.console, self.flower = free_port(), free_port()
        self._environment = {
            **os.environ,
            "LARDER_IMAGE": IMAGE,
            "LARDER_TOML": "./test.toml",
            "LARDER_CONSOLE_PORT": str(self.console),
            "LARDER_FLOWER_PORT": str(self.flower),
            "COMPOSE_PROJECT_NAME": folder.name.replace("_", "").replace("-", "").lower(),
        }
        self._program = [*compose_program(), "--profile", "demo"]
        self.make_secrets()

    def make_secrets(self) -> None:
        subprocess.run(["sh", "deploy/secrets.sh", "demo"], cwd=self.folder, check=True, capture_output=True)

    def secrets(self) -> list[str]:
        """Every word that nobody may see."""
        names = ("redis_password", "ledger_password", "console_password", "cron_secret", "sample_password")
        return [(self.folder / f"secrets/{name}.txt").read_text().strip() for name in names]

    def compose(self, *words: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._program, *words],
            cwd=self.folder,
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=check,
        )

    def larder(self, service: str, *words: str, stdin: str = "") -> str:
        """A command in a container; it has to end well."""
        done = self.compose("exec", "-T", service, "larder", *words, check=False, stdin=stdin)
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
        return done.stdout

    def containers(self, service: str) -> list[dict[str, Any]]:
        """What Docker knows of the containers of a service, also of those that have ended: v2 leaves them out."""
        ids = self.compose("ps", "--all", "--quiet", service).stdout.split()
        return json.loads(docker("inspect", *ids)) if ids else []

    def healthy(self, services: set[str] = LASTING) -> bool:
        return all(
            found and all(one["State"].get("Health", {}).get("Status") == "healthy" for one in found)
            for found in map(self.containers, sorted(services))
        )

    def begun(self, service: str) -> bool:
        """Whether any of its containers was ever started; v2 makes all of them first."""
        return any(one["State"]["StartedAt"] > NEVER for one in self.containers(service))

    def ended(self, service: str) -> int | None:
        """What the container of a service has ended with; None where it runs."""
        (found,) = self.containers(service) or [{"State": {"Status": "none"}}]
        return found["State"]["ExitCode"] if found["State"]["Status"] == "exited" else None

    def get(self, port: int, path: str, login: str = "") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        if login:
            request.add_header("Authorization", "Basic " + b64encode(login.encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def image() -> str:
    """The image of this tree, by the classic builder."""
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", IMAGE, str(ROOT)],
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        check=True,
        capture_output=True,
        timeout=900,
    )
    return IMAGE


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> tuple[House, str]:
    """A machine of alice's own, which has her key; and the lines of it that go into the configuration."""
    house = House(tmp_path_factory.mktemp("alice"))
    made = house.larder("keys", "new", "approver", "alice", "--out", "alice.key", "--no-passphrase")
    assert made.returncode == 0, made.stderr
    return house, made.stdout


@pytest.fixture(scope="module")
def stack(image: str, alice: tuple[House, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything, with its demo, up and healthy."""
    made = Stack(tmp_path_factory.mktemp("stack"), CONFIGURATION + alice[1])
    try:
        made.compose("up", "--detach")
        eventually(made.healthy)
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "60", check=False)


def test_a_missing_secret_is_named_and_nothing_begins(image: str, tmp_path: Path) -> None:
    made = Stack(tmp_path, CONFIGURATION)
    (tmp_path / "secrets/cron_secret.txt").unlink()
    (tmp_path / "secrets/ledger_url.txt").write_text("")
    try:
        done = made.compose("up", "--detach", check=False)
        said = done.stdout + done.stderr + made.compose("logs", "check", check=False).stdout
        assert done.returncode != 0
        assert "secrets/cron_secret.txt" in said
        assert not [name for name in ("worker", "redis", "ledger") if made.begun(name)]
        made.make_secrets()
        made.compose("up", "--detach", "check")
        eventually(lambda: made.ended("check") is not None)
        assert made.ended("check") == 0, made.compose("logs", "check").stdout
    finally:
        made.compose("down", "--volumes", check=False)


def test_a_mistake_in_the_configuration_is_told_and_nothing_begins(image: str, tmp_path: Path) -> None:
    made = Stack(tmp_path, CONFIGURATION.replace("schedule", "shedule", 1))
    try:
        done = made.compose("up", "--detach", check=False)
        assert done.returncode != 0
        assert "databases.shop.shedule: unknown key" in made.compose("logs", "check", check=False).stdout
        assert not made.begun("worker")
    finally:
        made.compose("down", "--volumes", check=False)


def test_a_backup_is_stored_here_and_in_the_bucket_and_proven(stack: Stack) -> None:
    stored = json.loads(stack.larder("worker", "backup", "a", "--json"))
    assert (stored["state"], stored["stores"]) == ("stored", ["local", "s3"])
    proven = json.loads(stack.larder("restore", "drill", "a", "--json"))
    assert (proven["proof"], proven["rows"]) == ("proven", 101_000)
    assert "a" in stack.larder("console", "list", "a")


def test_the_schedule_begins_backups(stack: Stack) -> None:
    def scheduled() -> list[dict[str, Any]]:
        runs = json.loads(stack.larder("worker", "runs", "shop", "--json"))
        return [run for run in runs if run["state"] == "stored"]

    # Nobody but beat asks for this one.
    eventually(scheduled)


def test_nobody_is_root_and_nothing_can_be_written(stack: Stack) -> None:
    for service in sorted(LASTING):
        for found in stack.containers(service):
            host = found["HostConfig"]
            assert host["ReadonlyRootfs"], service
            assert host["CapDrop"] == ["ALL"], service
            assert any("no-new-privileges" in option for option in host["SecurityOpt"]), service
            assert host["Memory"] > 0, service
            assert host["NanoCpus"] > 0, service
            assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        said = stack.compose("exec", "-T", service, "sh", "-c", "id -u; touch /x", check=False)
        assert said.stdout.strip() in ("1000", "999"), service
        assert "Read-only file system" in said.stderr + said.stdout, service


def test_no_secret_is_seen_from_outside(stack: Stack) -> None:
    seen = json.dumps([one for service in sorted(LASTING) for one in stack.containers(service)])
    seen += stack.compose("logs").stdout + stack.compose("config").stdout
    for service in sorted(LASTING):
        for found in stack.containers(service):
            seen += docker("top", found["Id"], "-eo", "pid,args")
    assert not [secret for secret in stack.secrets() if secret in seen]


def test_the_pages_ask_for_a_login(stack: Stack) -> None:
    login = "larder:" + (stack.folder / "secrets/console_password.txt").read_text().strip()
    assert stack.get(stack.console, "/")[0] == 401
    status, page = stack.get(stack.console, "/", login)
    assert (status, "shop" in page) == (200, True)
    assert stack.get(stack.flower, "/api/tasks")[0] == 401
    assert stack.get(stack.flower, "/api/tasks", login)[0] == 200
    assert json.loads(stack.get(stack.console, "/api/health")[1])["status"] in ("ok", "unsafe")


def test_three_workers_share_the_dumps(stack: Stack) -> None:
    stack.compose("up", "--detach", "--scale", "worker=3")
    eventually(lambda: stack.healthy({"worker"}) and len(stack.containers("worker")) == 3)

    def dumped() -> int:
        stack.larder("worker", "backup", *DATABASES)
        logs = [
            docker("logs", "--tail", "200", one["Id"]) + _errors_of(one["Id"])
            for one in stack.containers("worker")
        ]
        return sum("step=dump" in log for log in logs) == 3

    eventually(dumped)
    assert len(json.loads(stack.larder("worker", "list", "--json"))) >= len(DATABASES)


def _errors_of(container: str) -> str:
    return subprocess.run(
        ["docker", "logs", "--tail", "200", container], capture_output=True, text=True, check=True
    ).stderr


def test_whatever_is_killed_comes_back(stack: Stack) -> None:
    killed: dict[str, int] = {}
    for service in sorted(LASTING):
        for found in stack.containers(service):
            killed[found["Id"]] = found["State"]["Pid"]
            os.kill(found["State"]["Pid"], signal.SIGKILL)

    def back() -> bool:
        found = {one["Id"]: one["State"] for service in LASTING for one in stack.containers(service)}
        return all(found[one]["Running"] and found[one]["Pid"] not in (0, pid) for one, pid in killed.items())

    eventually(back)
    eventually(stack.healthy)
    assert json.loads(stack.larder("worker", "backup", "b", "--json"))["state"] == "stored"


def test_a_restore_that_alice_approves(stack: Stack, alice: tuple[House, str]) -> None:
    house, _ = alice
    stack.larder("worker", "backup", "a")
    query = ("psql", "--username", "shop", "--dbname", "shop", "--tuples-only", "--no-align", "--command")
    stack.compose("exec", "-T", "sample", *query, "DROP TABLE orders")
    request = stack.larder(
        "restore", "restore", "request", "a/latest", "--into", "a", "--reason", "orders are gone", "--json"
    )
    (house.folder / "request.json").write_text(request)
    token = house.larder("restore", "approve", "request.json", "--key", "alice.key", "--yes")
    assert token.returncode == 0, token.stderr
    stack.larder(
        "restore", "restore", "run", json.loads(request)["request"], "--token", "-", stdin=token.stdout
    )
    counted = stack.compose("exec", "-T", "sample", *query, "SELECT count(*) FROM orders")
    assert counted.stdout.strip() == "100000"


def test_it_stops_in_good_order(stack: Stack) -> None:
    stack.compose("stop")
    codes = {one["Name"]: one["State"]["ExitCode"] for service in OURS for one in stack.containers(service)}
    assert set(codes.values()) == {0}, codes
