"""The console's API as programs use it: a real `larder console`, Redis and worker, asked by HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from console.web.openapi import document
from larder.ledger import open_ledger
from tests.house import SCRIPTS, House
from tests.processes import answers, eventually, redis_server, running, worker
from tests.servers import Cluster, Clusters, free_port, postgres_installs

PASSWORD, SECRET = "c0nsole-pw", "cr0n-secret-of-tests"
CRON = {"Authorization": f"Bearer {SECRET}"}

#: One slot for the whole of the test.
CONFIGURED = "".join(
    f'[databases.{name}]\nurl = "sqlite:///{name}.db"\nschedule = "0 0 1 1 *"\n' for name in ("shop", "attic")
)


@dataclass
class Stand:
    """A console that runs, and who asks it with a password."""

    house: House
    client: httpx.Client

    def get(self, path: str, **query: Any) -> Any:
        said = self.client.get(path, params=query)
        assert said.status_code == 200, said.text
        return said.json()


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """`shop`, which the cron endpoint has had backed up, and `attic`, whose file is gone."""
    folder, port = tmp_path_factory.mktemp("api"), free_port()
    with redis_server(folder) as url:
        house = House(folder, REDIS_URL=url, LARDER_CONSOLE_PASSWORD=PASSWORD, CRON_SECRET=SECRET)
        house.configure(CONFIGURED)
        with closing(sqlite3.connect(folder / "shop.db")) as database, database:
            database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        console = house.start("larder", "console", "--port", str(port))
        with worker(house), running(console), client_of(port) as client:
            eventually(lambda: answers(port))
            stand = Stand(house, client)
            begun = cron(stand, "POST")
            assert (begun.status_code, begun.json()["refused"]) == (202, [])
            assert {run["state"] for run in begun.json()["runs"]} <= {"queued", "running"}
            eventually(lambda: all(run["finished"] for run in stand.get("/api/runs")))
            yield stand


def client_of(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("larder", PASSWORD), timeout=30)


def cron(stand: Stand, method: str = "GET", query: str = "") -> httpx.Response:
    # Without the client's own login, which would stand where the secret has to.
    return httpx.request(method, f"{stand.client.base_url}/api/cron/backup{query}", headers=CRON)


def test_a_cron_begins_each_backup_of_a_slot_once(stand: Stand) -> None:
    first = cron(stand, "POST")
    assert first.status_code == 202
    runs = {run["database"]: run for run in first.json()["runs"]}
    assert (runs["shop"]["state"], runs["attic"]["state"]) == ("stored", "failed")
    again = cron(stand, "GET", "?database=shop&database=shop")
    assert [run["run"] for run in again.json()["runs"]] == [runs["shop"]["run"]]
    assert len(stand.get("/api/runs", database="shop")) == 1
    unknown = cron(stand, "POST", "?database=shpo")
    assert unknown.status_code == 404
    assert "shop" in unknown.json()["hint"]


def test_a_cron_that_comes_while_another_run_is_under_way_is_told(stand: Stand, tmp_path: Path) -> None:
    house = House(tmp_path, REDIS_URL=stand.house.environment["REDIS_URL"], CRON_SECRET=SECRET)
    house.configure(CONFIGURED)
    house.backups.mkdir()
    with closing(open_ledger(f"sqlite:///{house.backups}/.larder/ledger.sqlite3")) as ledger:
        run, _ = ledger.runs.create("shop", "call", stores=["local"])
    port = free_port()
    with running(house.start("larder", "console", "--port", str(port))):
        eventually(lambda: answers(port))
        said = httpx.post(f"http://127.0.0.1:{port}/api/cron/backup?database=shop", headers=CRON)
    assert (said.status_code, said.json()["runs"]) == (409, [])
    assert run.id in said.json()["refused"][0]["error"]


def test_a_broker_that_is_away_uses_up_no_slot(tmp_path: Path) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    house, port = House(tmp_path, REDIS_URL=nowhere, CRON_SECRET=SECRET), free_port()
    house.configure(CONFIGURED)
    with running(house.start("larder", "console", "--port", str(port))):
        eventually(lambda: answers(port))
        said = httpx.post(f"http://127.0.0.1:{port}/api/cron/backup", headers=CRON, timeout=30)
        runs = httpx.get(f"http://127.0.0.1:{port}/api/runs").json()
    assert said.status_code == 503
    assert [one["database"] for one in said.json()["refused"]] == ["shop", "attic"]
    assert "unable to reach the broker" in said.json()["refused"][0]["error"]
    assert runs == []


def test_what_there_is_reads_as_the_commands_print_it(stand: Stand) -> None:
    (backup,) = stand.get("/api/backups")
    listed = json.loads(stand.house.larder("list", "--json").stdout)
    assert {key: backup[key] for key in backup if key in listed[0]} == {
        key: value for key, value in listed[0].items() if key in backup
    }
    assert stand.get(f"/api/backups/{backup['backup']}") == backup
    for path, command in (("/api/status", "status"), ("/api/runs", "runs")):
        told, printed = stand.get(path), json.loads(stand.house.larder(command, "--json").stdout)
        for one in (*told, *printed):
            # Ages: they go on between the two.
            one.pop("objectives", None)
        assert told == printed
    failed, good = stand.get("/api/runs", failed="true"), stand.get("/api/runs", database="shop")
    assert [run["database"] for run in (*failed, *good)] == ["attic", "shop"]
    run = stand.get(f"/api/runs/{good[0]['run']}")
    assert run["steps"][0]["name"] == "dump"
    assert any("Starting database backup" in line["text"] for line in run["log"])


def test_all_is_read_a_page_at_a_time(stand: Stand) -> None:
    for path, key in (("/api/runs", "run"), ("/api/backups", "backup")):
        whole, seen, before = [one[key] for one in stand.get(path)], [], {}
        while page := stand.get(path, limit=1, **before):
            seen += [one[key] for one in page]
            before = {"before": page[-1][key]}
        assert seen == whole


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/runs?limit=0", 400),
        ("/api/runs?limit=1001", 400),
        ("/api/runs?limit=-1", 400),
        ("/api/runs?limit=²", 400),
        ("/api/runs?failed=perhaps", 400),
        ("/api/runs?database=shpo", 404),
        ("/api/runs?before=none", 404),
        ("/api/runs/none", 404),
        ("/api/backups/shop/latest", 404),
        ("/api/backups?before=shop/20200101_000000", 404),
        ("/api/none", 404),
        ("/api/live/", 404),
        ("/static/%2e%2e/login.py", 404),
        ("/api/runs/%3Cscript%3E", 404),
    ],
)
def test_what_cannot_be_is_told_as_json(stand: Stand, path: str, status: int) -> None:
    said = stand.client.get(path)
    assert (said.status_code, said.headers["Content-Type"]) == (status, "application/json")
    assert said.json()["error"]


def test_health_says_which_part_is_away(stand: Stand) -> None:
    told = httpx.get(f"{stand.client.base_url}/api/health")
    assert (told.status_code, told.json()) == (503, {"status": "unsafe"})
    detailed = stand.client.get("/api/health?detailed=true").json()
    described = {**document()["components"]["schemas"]["Health"], "components": document()["components"]}
    jsonschema_rs.validate(described, detailed)
    assert {name: detailed[name]["ok"] for name in ("ledger", "broker", "disk", "workers")} == dict.fromkeys(
        ("ledger", "broker", "disk", "workers"), True
    )
    assert detailed["stores"]["local"]["detail"] == "answers, and has its newest copy"
    assert {one["database"]: one["safe"] for one in detailed["databases"]} == {"shop": True, "attic": False}


def test_metrics_are_read_by_prometheus_own_parser(stand: Stand) -> None:
    assert httpx.get(f"{stand.client.base_url}/metrics").status_code == 401
    said = stand.client.get("/metrics")
    assert said.headers["Content-Type"].startswith("text/plain; version=")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(said.text)
        for sample in family.samples
    }
    shop, attic = ("database", "shop"), ("database", "attic")
    (backup,) = stand.get("/api/backups")
    assert found["larder_backup_size_bytes", shop] == backup["size"]
    assert found["larder_database_safe", shop] == 1
    assert found["larder_database_safe", attic] == 0
    assert found["larder_failed_runs", attic] == 1
    assert found["larder_newest_copy_good", shop, ("store", "local")] == 1
    assert found["larder_objective_met", shop, ("objective", "rpo")] == 1
    assert found["larder_hosts",] == 1
    assert ("larder_last_success_timestamp_seconds", attic) not in found
    assert all(f"# HELP {name[0]} " in said.text for name in found)


@pytest.mark.slow
def test_whatever_is_sent_is_answered_as_described(stand: Stand) -> None:
    # Left out: wrong logins, ten of which have the rest hear of nothing else; parameters that nobody knows, which are
    # passed over; and what answers 503 on purpose, for a database that is not safe, or to a wrong secret.
    command: list[str | Path] = [SCRIPTS / "schemathesis", "run", f"{stand.client.base_url}/api/openapi.json"]
    command += ["--auth", f"larder:{PASSWORD}", "--exclude-checks", "ignored_auth,negative_data_rejection"]
    command += ["--exclude-path", "/api/cron/backup", "--exclude-path", "/api/health"]
    command += ["--max-examples", "15", "--seed", "1", "--generation-database", "none"]
    done = subprocess.run(
        command, cwd=stand.house.folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_secret_is_in_what_it_writes_and_a_port_in_use_is_told(stand: Stand, tmp_path: Path) -> None:
    house, port = House(tmp_path, LARDER_CONSOLE_PASSWORD=PASSWORD, CRON_SECRET=SECRET), free_port()
    house.configure(CONFIGURED)
    first = house.start("larder", "console", "--port", str(port), "--json")
    eventually(lambda: answers(port))
    with client_of(port) as client:
        client.get(f"/api/runs?token={SECRET}")
    httpx.get(f"http://127.0.0.1:{port}/api/cron/backup", headers=CRON)
    second = house.larder("console", "--port", str(port))
    assert second.returncode == 1
    assert f"127.0.0.1:{port}: somebody else listens there" in second.stderr
    assert "HINT: choose another port" in second.stderr
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=30)
    assert first.returncode == 0
    assert json.loads(out) == {"url": f"http://127.0.0.1:{port}/", "login": True}
    assert PASSWORD not in out + err
    assert SECRET not in out + err


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_it_does_not_listen_elsewhere_without_a_login(tmp_path: Path, host: str) -> None:
    done = House(tmp_path, DATABASE_URL="sqlite:///shop.db").larder("console", "--host", host)
    assert done.returncode == 2
    assert "there is no login" in done.stderr


@pytest.mark.slow
def test_what_is_silent_delays_health_and_the_end_by_seconds_only(tmp_path: Path, clusters: Clusters) -> None:
    server = clusters.get(max(postgres_installs()))
    with server.database("api_ledger") as name, socket.create_server(("127.0.0.1", 0)) as silent:
        house = House(
            tmp_path, LARDER_LEDGER_URL=server.url(name), AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="y"
        )
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        stores = "".join(
            f'[stores.s{number}]\ntype = "s3"\nbucket = "bucket-{number}"\nendpoint = "{endpoint}"\n'
            for number in range(6)
        )
        house.configure(CONFIGURED + stores)
        port = free_port()
        console = house.start("larder", "console", "--port", str(port))
        eventually(lambda: answers(port))
        with running(console), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15) as client:
            # Longer than all together would take one after the other: then this times out.
            detailed = client.get("/api/health?detailed=true").json()
            assert detailed["ledger"]["ok"]
            assert {part["detail"] for part in detailed["stores"].values()} == {"no answer within 4 s"}
            with frozen(server, name):
                with pytest.raises(httpx.ReadTimeout):
                    client.get("/api/runs", timeout=1)
                assert client.get("/api/live").status_code == 200
                assert client.get("/api/health").status_code == 503
                console.send_signal(signal.SIGTERM)
                assert console.wait(15) == 0


@contextmanager
def frozen(server: Cluster, name: str) -> Iterator[None]:
    """Have every session of a database say nothing any more, for the length of a block."""
    with server.connect() as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", [name]).fetchall()
    for (process,) in rows:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for (process,) in rows:
            os.kill(process, signal.SIGCONT)
