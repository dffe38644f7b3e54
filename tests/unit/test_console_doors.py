"""Every door of a console that runs: closed to whoever has not the password, or the secret."""

from __future__ import annotations

import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from urllib.error import HTTPError, URLError

import pytest

from tests.house import House
from tests.processes import eventually, running
from tests.servers import free_port

PASSWORD = "c0nsole-pw"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("console"), free_port()
    house = House(
        folder,
        DATABASE_URL="sqlite:///missing.db",
        LARDER_CONSOLE_PASSWORD=PASSWORD,
        CRON_SECRET="cr0n-secret-of-tests",
    )
    with running(house.start("larder", "console", "--port", str(port))):
        found = f"http://127.0.0.1:{port}"
        eventually(lambda: status(f"{found}/api/live") == 200)
        yield found


def status(address: str, **headers: str) -> int | None:
    """What is answered; None where nobody does."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except URLError:
        return None


def basic(password: str) -> str:
    return "Basic " + b64encode(f"larder:{password}".encode()).decode()


PATHS = ("/", "/runs", "/restores", "/audit", "/metrics", "/api/status", "/api/backups", "/api/runs")


@pytest.mark.parametrize("path", PATHS)
def test_only_who_has_the_password_gets_in(address: str, path: str) -> None:
    assert status(address + path) == 401
    assert status(address + path, Authorization=basic(PASSWORD)) == 200


def test_a_cron_without_the_secret_begins_nothing(address: str) -> None:
    assert status(f"{address}/api/cron/backup") == 401
    assert status(f"{address}/api/cron/backup", Authorization="Bearer wrong") == 401
    # There is no REDIS_URL: with the secret one gets as far as that.
    assert status(f"{address}/api/cron/backup", Authorization="Bearer cr0n-secret-of-tests") == 503
