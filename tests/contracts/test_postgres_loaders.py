"""What the sessions that load a backup are given."""

from __future__ import annotations

import contextlib
import os
from types import SimpleNamespace
from typing import cast

import psycopg
import pytest

from larder.databases._postgres_loaders import is_here, loading_environment, loading_options
from tests.servers import Cluster

NAME = "max_parallel_maintenance_workers"
CORES = os.cpu_count() or 1


def workers(options: list[str]) -> int | None:
    return next((int(one.partition("=")[2]) for one in options if one.startswith(f"{NAME}=")), None)


@pytest.mark.parametrize("over", ["tcp", "socket"])
def test_sessions_beside_each_other_have_a_core_each_for_an_index(postgres: Cluster, over: str) -> None:
    url = postgres.url("postgres") if over == "tcp" else postgres.socket_url("postgres")
    with contextlib.closing(psycopg.connect(url, autocommit=True)) as connection:
        assert workers(loading_options(connection, CORES + 1)) == 0
        assert workers(loading_options(connection, 2)) == max(0, min(2, CORES // 2 - 1))
        # One session has the machine for itself.
        assert workers(loading_options(connection)) is None
        connection.execute(f"SET {NAME} = 0".encode())
        assert workers(loading_options(connection, 2)) == 0


def test_a_session_takes_what_it_is_given(postgres: Cluster) -> None:
    with contextlib.closing(psycopg.connect(postgres.url("postgres"), autocommit=True)) as connection:
        environment = loading_environment(connection, "postgres", "0123456789ab", CORES + 1)
        with psycopg.connect(postgres.url("postgres"), options=environment["PGOPTIONS"]) as session:
            assert session.execute(f"SHOW {NAME}".encode()).fetchone() == ("0",)


def test_a_server_elsewhere_keeps_its_own_number(postgres: Cluster) -> None:
    def seen(address: str, process: int) -> bool:
        info = SimpleNamespace(hostaddr=address, backend_pid=process)
        return is_here(cast(psycopg.Connection, SimpleNamespace(info=info)))

    with postgres.connect() as connection:
        process = connection.info.backend_pid
        assert seen("127.0.0.1", process)
        assert seen("::1", process)
        assert not seen("192.0.2.1", process)
        # At the end of a tunnel: the number is another machine's, and somebody else's here, or nobody's.
        assert not seen("127.0.0.1", os.getpid())
        assert not seen("127.0.0.1", 2**22 + 1)
