"""What tests share: database servers and an S3 server, started once a session when somebody first asks for them."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.object_storage import ObjectServer
from tests.processes import redis_server
from tests.servers import Cluster, Clusters, postgres_installs

# How long an example takes says how busy the machine is, and nothing about the code.
hypothesis.settings.register_profile("larder", deadline=None)
hypothesis.settings.load_profile("larder")

# Where a suite is begun in the background, shells have it ignore these, and all that it starts with it.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A command that is run within a test leaves SIGPIPE as shells' programs have it, which would end the next test.

    It leaves hooks too, for errors that nobody catches, which pytest would not hear of.
    """
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


@pytest.fixture(scope="session")
def clusters() -> Iterator[Clusters]:
    """PostgreSQL servers by major version: `clusters.get(16)`."""
    found = Clusters()
    yield found
    found.remove()


@pytest.fixture(scope="session", params=list(postgres_installs()), ids=lambda version: f"postgres{version}")
def postgres(request: pytest.FixtureRequest, clusters: Clusters) -> Cluster:
    """A PostgreSQL server, of each version that this machine has."""
    return clusters.get(request.param)


@pytest.fixture
def empty_postgres_database(clusters: Clusters) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    server = clusters.get(max(postgres_installs()))
    with server.database("empty") as name:
        yield server.url(name)


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    """An S3 server, to make buckets on: `object_server.bucket()`."""
    server = ObjectServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis of the test's own."""
    with redis_server(tmp_path) as url:
        yield url
