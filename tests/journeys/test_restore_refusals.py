"""Whoever has no approval, or another one, gets nowhere: by a command, by `celery call`, straight through Redis."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.house import PATIENCE, House
from tests.processes import eventually, redis_server, worker
from tests.restores import Approver, ask, run, trail


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Approver]]:
    """A worker, a backed up database that has lost its rows since, and an approver. Every test finds it like that."""
    folder = tmp_path_factory.mktemp("stand")
    with redis_server(folder) as url:
        house = House(folder, REDIS_URL=url)
        alice = Approver(house)
        house.configure(f'[databases.shop]\nurl = "sqlite:///shop.db"\n{alice.lines}')
        _fill(folder / "shop.db", 100)
        with worker(house):
            done = house.larder("backup", "shop")
            assert done.returncode == 0, done.stderr
            _empty(folder / "shop.db")
            yield house, alice


def _fill(path: Path, count: int) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
        connection.executemany(
            "INSERT INTO orders (what) VALUES (?)", [(f"order {n}",) for n in range(count)]
        )
    connection.close()


def _empty(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM orders")
    connection.close()


def rows(house: House) -> int:
    connection = sqlite3.connect(house.folder / "shop.db")
    try:
        return int(connection.execute("SELECT count(*) FROM orders").fetchone()[0])
    finally:
        connection.close()


def call(house: House, task: str, **arguments: object) -> None:
    """Send a task as anybody can who reaches Redis."""
    done = house.start("celery", "-A", "workers", "call", task, "--kwargs", json.dumps(arguments))
    _, complaints = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0, complaints


def refused(house: House, since: int) -> list[str]:
    """Why something was refused since the trail had so many rows."""
    return [row["facts"]["why"] for row in trail(house)[since:] if row["event"] == "refused"]


def altered(token: str, **claims: object) -> str:
    """The token with other claims, and the signature that it had."""
    head, body, signature = token.split(".")
    found = json.loads(base64.urlsafe_b64decode(body + "=="))
    text = json.dumps({**found, **claims}).encode()
    return f"{head}.{base64.urlsafe_b64encode(text).decode().rstrip('=')}.{signature}"


def headed(token: str, **header: object) -> str:
    """The token with another header, without a signature."""
    _, body, _ = token.split(".")
    return f"{base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip('=')}.{body}."


FORGED: dict[str, tuple[Callable[[str], str], str]] = {
    "empty": (lambda _token: "", "token"),
    "rubbish": (lambda _token: "no token at all", "token"),
    "cut": (lambda token: token[:-2] + ("AA" if token[-2:] != "AA" else "BB"), "token|signature|key"),
    "later": (lambda token: altered(token, exp=9999999999), "token|signature|key"),
    "mode": (lambda token: altered(token, mode="in-place"), "token|signature|key"),
    "none": (lambda token: headed(token, alg="none", typ="JWT"), "token|algorithm|header"),
    "hs256": (lambda token: headed(token, alg="HS256", typ="JWT"), "token|algorithm|header"),
}


def test_forged_tokens_are_refused_and_audited(stand: tuple[House, Approver]) -> None:
    house, alice = stand
    document = ask(house, "shop/latest", "shop")
    good = alice.approve(document)
    before = len(trail(house))
    for name, (make, why) in FORGED.items():
        token = make(good)
        done = run(house, document["request"], token)
        assert done.returncode == 4, (name, done.stderr)
        assert re.search(why, json.loads(done.stdout)["error"]), name
        assert token[:40] not in done.stdout + done.stderr or not token
    assert len(refused(house, before)) == len(FORGED)
    assert rows(house) == 0


def test_an_approval_of_another_request_is_refused(stand: tuple[House, Approver]) -> None:
    house, alice = stand
    one, other = ask(house, "shop/latest", "shop"), ask(house, "shop/latest", "shop")
    done = run(house, other["request"], alice.approve(one))
    assert done.returncode == 4, done.stderr
    changed = {**one, "reason": "something harmless"}
    assert run(house, one["request"], alice.approve(changed)).returncode == 4
    elsewhere = {**one, "into": {**one["into"], "address": "sqlite:////elsewhere.db"}}
    assert run(house, one["request"], alice.approve(elsewhere)).returncode == 4
    assert rows(house) == 0


def test_strangers_and_the_requester_themselves_cannot_approve(stand: tuple[House, Approver]) -> None:
    house, alice = stand
    mallory = Approver(house, "mallory")
    document = ask(house, "shop/latest", "shop")
    done = run(house, document["request"], mallory.approve(document))
    assert done.returncode == 4, done.stderr
    own = ask(house, "shop/latest", "shop", "--requester", "Alice")
    done = run(house, own["request"], alice.approve(own))
    assert done.returncode == 4, done.stderr
    assert rows(house) == 0


def test_what_was_denied_cannot_be_approved(stand: tuple[House, Approver]) -> None:
    house, alice = stand
    document = ask(house, "shop/latest", "shop")
    token = alice.approve(document)
    assert house.larder("restore", "deny", document["request"], "--reason", "not today").returncode == 0
    done = run(house, document["request"], token)
    assert done.returncode == 4
    assert "denied" in json.loads(done.stdout)["error"]
    assert rows(house) == 0


def test_a_key_that_was_removed_since_counts_no_more(stand: tuple[House, Approver]) -> None:
    house, _ = stand
    bob = Approver(house, "bob")
    known = (house.folder / "larder.toml").read_text()
    house.configure(known + bob.lines)
    document = ask(house, "shop/latest", "shop")
    # Only the command's configuration knows him: the worker's does not, as after a removal.
    before = len(trail(house))
    done = run(house, document["request"], bob.approve(document))
    house.configure(known)
    assert done.returncode == 4, done.stderr
    found = json.loads(done.stdout)
    assert (found["failed_step"], found["state"]) == ("authorize", "failed")
    assert any("none of this worker's approvers" in why for why in refused(house, before))
    assert rows(house) == 0


def test_links_sent_straight_into_redis_do_nothing(stand: tuple[House, Approver]) -> None:
    house, _ = stand
    document = ask(house, "shop/latest", "shop")
    backup = next(
        run["run"] for run in json.loads(house.larder("runs", "--json").stdout) if run["kind"] == "backup"
    )
    before = len(trail(house))
    sent = [
        ("restore.load", {"run_id": "0" * 12}),
        ("restore.swap", {"run_id": document["request"]}),
        ("restore.swap", {"run_id": backup}),
        ("restore.authorize", {"run_id": backup}),
        ("restore.load", {"run_id": {"a": 1}}),
        ("restore.load", {"run_id": "\ud800"}),
        ("restore", {"request": "nope", "token": "rubbish"}),
        ("restore.notify", {"run_id": "../../etc"}),
        ("restore", {"request": document["request"], "token": "rubbish"}),
    ]
    for task, arguments in sent:
        call(house, task, **arguments)
    eventually(lambda: len(refused(house, before)) >= len(sent))
    assert house.larder("audit", "verify").returncode == 0
    assert json.loads(house.larder("restore", "list", "--json").stdout)[0]["state"] == "pending"
    assert rows(house) == 0


def test_a_token_is_good_once_whoever_is_first(stand: tuple[House, Approver]) -> None:
    house, alice = stand
    backup = json.loads(house.larder("show", "shop/latest", "--json").stdout)["backup"]
    document = ask(house, backup, "shop")
    token = alice.approve(document)
    before = len(trail(house))
    for _ in range(2):
        call(house, "restore", request=document["request"], token=token)
    eventually(lambda: len(refused(house, before)) >= 1)
    eventually(lambda: _state(house, document["request"]) == "done")
    assert rows(house) == 100
    assert run(house, document["request"], token).returncode == 4
    assert [row["event"] for row in trail(house, document["request"])].count("swapped") == 1
    _empty(house.folder / "shop.db")


def _state(house: House, request: str) -> str:
    found = json.loads(house.larder("restore", "list", "--json").stdout)
    return next(one["state"] for one in found if one["request"] == request)


def test_the_token_is_nowhere_but_in_its_hash(stand: tuple[House, Approver]) -> None:
    house, alice = stand
    url = house.environment["REDIS_URL"]
    backup = json.loads(house.larder("list", "shop", "--json").stdout)[-1]["backup"]
    document = ask(house, backup, "shop")
    token = alice.approve(document)
    recorded: list[str] = []
    client = redis.Redis.from_url(url)
    with client.monitor() as monitor:
        listener = threading.Thread(target=lambda: recorded.extend(_commands(monitor)), daemon=True)
        listener.start()
        done = run(house, document["request"], token)
        client.set("the-end", "1")
        listener.join(PATIENCE)
    assert done.returncode == 0, done.stderr
    crossed = "\n".join(recorded)
    assert "restore.swap" in crossed, "the monitor saw no message"
    bodies = b"".join(
        base64.b64decode(body) for body in re.findall(r'\\"body\\": \\"([A-Za-z0-9+/=]+)\\"', crossed)
    )
    ledger = b"".join(path.read_bytes() for path in (house.backups / ".larder").glob("ledger.sqlite3*"))
    places = {
        "redis": crossed.encode(),
        "bodies": bodies,
        "ledger": ledger,
        "output": (done.stdout + done.stderr).encode(),
    }
    places["log"] = (house.folder / "worker.log").read_bytes()
    for part in [token, *token.split(".")[1:]]:
        for name, content in places.items():
            assert part.encode() not in content, name
    assert hashlib.sha256(token.encode()).hexdigest().encode() in ledger
    _empty(house.folder / "shop.db")


def _commands(monitor: Any) -> Iterator[str]:
    for command in monitor.listen():
        yield command["command"]
        if "the-end" in command["command"]:
            return


def test_without_an_approver_nothing_is_restored(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.configure('[databases.shop]\nurl = "sqlite:///shop.db"\n')
    _fill(tmp_path / "shop.db", 3)
    assert house.larder("backup").returncode == 0
    for into, mode in (("shop", "swap"), (f"sqlite:///{tmp_path}/new.db", "new")):
        words = [
            "restore",
            "request",
            "shop/latest",
            "--into",
            into,
            "--mode",
            mode,
            "--reason",
            "x",
            "--json",
        ]
        done = house.larder(*words)
        assert done.returncode == 4
        assert "larder keys new approver" in json.loads(done.stdout)["hint"]


def test_a_token_on_the_command_line_is_not_taken(stand: tuple[House, Approver]) -> None:
    house, alice = stand
    document = ask(house, "shop/latest", "shop")
    token = alice.approve(document)
    done: subprocess.CompletedProcess[str] = house.larder(
        "restore", "run", document["request"], "--token", token
    )
    assert done.returncode == 2
    assert token not in done.stdout + done.stderr


def test_a_busy_target_is_told_by_name_and_the_approval_is_not_spent(stand: tuple[House, Approver]) -> None:
    house, alice = stand
    backup = json.loads(house.larder("list", "shop", "--json").stdout)[-1]["backup"]
    document = ask(house, backup, "shop")
    token = alice.approve(document)
    held = sqlite3.connect(house.folder / "shop.db")
    try:
        held.execute("SELECT * FROM orders").fetchall()
        done = run(house, document["request"], token)
    finally:
        held.close()
    assert done.returncode == 1, done.stderr
    assert f"pid {os.getpid()}" in json.loads(done.stdout)["error"]
    assert rows(house) == 0
    assert run(house, document["request"], token).returncode == 0
    assert rows(house) == 100
    _empty(house.folder / "shop.db")
