"""Back up, destroy, restore, compare, undo, compare: PostgreSQL through real commands, a worker and an approver."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from urllib.parse import quote

import pytest

from tests.house import House
from tests.restores import (
    Approver,
    Prober,
    ask,
    back_up,
    command_lines,
    drop_all,
    pgbench,
    restored,
    run,
    standing,
    trail,
    undone,
    whole,
)
from tests.servers import PASSWORD, SAMPLE, Cluster, Clusters, postgres_installs

VERSIONS = (16, 18)
NEWEST = max(VERSIONS)
FORMATS = ("plain", "directory")

#: Seconds that the name of a live database may lead nowhere.
BOUND = 1.0

SPELLINGS = [PASSWORD.encode(), quote(PASSWORD, safe="").encode(), quote(PASSWORD).encode()]

#: Owns what is restored in directory format, where nobody is a superuser.
KEEPER = "CREATE ROLE shopkeeper LOGIN CREATEDB PASSWORD '{}'"

Stand = tuple[House, Approver]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, clusters: Clusters) -> Iterator[Stand]:
    """A worker for databases of every version and format, and for some of the newest."""
    environment, lines = {}, f"postgres_bin = {[str(path) for path in postgres_installs().values()]}\n"
    for version in VERSIONS:
        server = clusters.get(version)
        server.execute(KEEPER.format(PASSWORD) + "; CREATE ROLE visitor")
        databases = {"plain": "postgres", "directory": "shopkeeper"}
        if version == NEWEST:
            databases |= {"load": "postgres", "lost": "postgres", "copied": "postgres"}
        for name, user in databases.items():
            environment[f"URL_{name}{version}"] = server.url(f"shop_{name}", user)
            lines += f'[databases.{name}{version}]\nurl_env = "URL_{name}{version}"\n'
            lines += 'format = "directory"\n' if name == "directory" else ""
    with standing(tmp_path_factory.mktemp("stand"), lines, **environment) as made:
        yield made
    for version in VERSIONS:
        drop_all(clusters.get(version), "shop")
        clusters.get(version).execute("DROP ROLE shopkeeper; DROP ROLE visitor")


@pytest.fixture
def server(clusters: Clusters) -> Cluster:
    return clusters.get(NEWEST)


@contextmanager
def shop(server: Cluster, name: str) -> Iterator[str]:
    """A database that belongs to somebody, and is like no other of its server."""
    server.createdb(name)
    server.execute(
        f"ALTER DATABASE {name} OWNER TO shopkeeper; ALTER DATABASE {name} SET work_mem = '17MB';"
        f'ALTER ROLE shopkeeper IN DATABASE {name} SET search_path = public, "Ünïcode schema";'
        f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO visitor WITH GRANT OPTION;"
        f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; ALTER DATABASE {name} CONNECTION LIMIT 30;"
        f"COMMENT ON DATABASE {name} IS 'the shop''s own'"
    )
    server.execute(f"SET ROLE shopkeeper; {SAMPLE}", name)
    try:
        yield name
    finally:
        drop_all(server, name)


def destroy(server: Cluster, name: str) -> dict[str, object]:
    """What happens at 3 a.m.; gives what is left."""
    server.execute(
        "SET ROLE shopkeeper; UPDATE customers SET name = 'gone' WHERE id < 9; TRUNCATE events; DROP TABLE guarded;"
        'DELETE FROM "Order" WHERE id % 3 = 0; SELECT lo_unlink(oid) FROM pg_largeobject_metadata;'
        "REFRESH MATERIALIZED VIEW order_totals; CREATE TABLE junk AS SELECT 1 AS a",
        name,
    )
    return whole(server, name)


def unfinished(server: Cluster) -> list[str]:
    """Databases of restores that are not over."""
    return [name for name in server.databases() if "__restore_" in name]


@pytest.mark.parametrize("form", FORMATS)
def test_every_mode_brings_back_what_was_destroyed_and_takes_it_back(
    stand: Stand, clusters: Clusters, form: str
) -> None:
    with command_lines() as seen, ThreadPoolExecutor() as pool:
        servers = [clusters.get(version) for version in VERSIONS]
        for done in [pool.submit(_every_mode, stand, server, form) for server in servers]:
            done.result()
    for program in (b"pg_dump", b"psql" if form == "plain" else b"pg_restore"):
        assert any(program in line for line in seen), program
    house, _ = stand
    where = {"argv": b"\n".join(seen), "log": (house.folder / "worker.log").read_bytes()}
    where |= {str(path): path.read_bytes() for path in house.backups.rglob("*") if path.is_file()}
    for name, content in where.items():
        for spelling in SPELLINGS:
            assert spelling not in content, name


def _every_mode(stand: Stand, server: Cluster, form: str) -> None:
    house, alice = stand
    configured = f"{form}{server.version}"
    with shop(server, f"shop_{form}") as name:
        before = whole(server, name)
        backup = back_up(house, configured)
        destroyed = destroy(server, name)

        swapped = restored(house, alice, backup, configured)
        assert swapped["mode"] == "swap"
        assert whole(server, name) == before
        assert whole(server, swapped["kept"])["public.customers"] == destroyed["public.customers"]
        undone(house, swapped["request"])
        assert whole(server, name) == destroyed

        replaced = restored(house, alice, backup, configured, "--mode", "in-place")
        assert whole(server, name) == before
        assert replaced["kept"] is None
        assert replaced["safety_backup"] not in (None, backup)
        told = f"What was there is kept as safety backup {replaced['safety_backup']} until "
        assert told in house.larder("watch", replaced["run"]).stderr
        undone(house, replaced["request"])
        assert whole(server, name) == destroyed

        restored(house, alice, backup, f"{name}_again", "--mode", "new")
        assert whole(server, f"{name}_again") == before
        assert whole(server, name) == destroyed
        assert not unfinished(server)
        assert not server.sessions(f"larder-restore-{swapped['request']}")


def test_what_was_set_since_the_backup_stays(stand: Stand, server: Cluster) -> None:
    house, alice = stand
    with shop(server, "shop_plain") as name:
        before = whole(server, name)
        backup = back_up(house, f"plain{NEWEST}")
        destroy(server, name)
        server.execute(
            f"ALTER DATABASE {name} SET work_mem = '18MB'; ALTER DATABASE {name} SET app.secret = 'of today';"
            f"ALTER DATABASE {name} OWNER TO postgres; COMMENT ON DATABASE {name} IS 'as of today';"
            f"ALTER DATABASE {name} CONNECTION LIMIT 31; REVOKE ALL ON DATABASE {name} FROM visitor"
        )
        of_today = whole(server, name)["database"]
        done = restored(house, alice, backup, f"plain{NEWEST}")
        assert whole(server, name) == {**before, "database": of_today}
        undone(house, done["request"])
        assert whole(server, name)["database"] == of_today


def test_under_load_the_name_leads_nowhere_for_less_than_a_second(
    stand: Stand, server: Cluster, record_property: Callable[[str, object], None]
) -> None:
    house, alice = stand
    with server.database("shop_load") as name:
        environment = server.environment(name)
        subprocess.run([server.bin / "pgbench", "-i", "-q"], env=environment, check=True, capture_output=True)
        before = whole(server, name)
        backup = back_up(house, f"load{NEWEST}")
        # What else this machine does can only make it longer.
        for _ in range(3):
            window = _restored_under_load(house, alice, server, name, backup, before)
            if window < BOUND:
                break
        # Whoever was thrown out comes back to the restored database.
        again = [server.bin / "pgbench", "-n", "-c", "4", "-t", "5"]
        subprocess.run(again, env=environment, check=True, capture_output=True)
        drop_all(server, name)
    record_property("window", window)
    assert window < BOUND


def _restored_under_load(
    house: House, alice: Approver, server: Cluster, name: str, backup: str, before: dict[str, object]
) -> float:
    """Restore a database that four clients write to; gives the seconds in which nobody got in."""
    server.execute("DELETE FROM pgbench_accounts WHERE aid % 2 = 0", name)
    with pgbench(server, name) as load, Prober(server, name) as prober:
        done = restored(house, alice, backup, f"load{NEWEST}")
        _, complaints = load.communicate(timeout=30)
    assert load.returncode != 0
    assert "terminating connection" in complaints
    assert whole(server, name) == before
    with server.connect(done["kept"]) as connection:
        sums = connection.execute(
            "SELECT (SELECT sum(delta) FROM pgbench_history), (SELECT sum(tbalance) FROM pgbench_tellers)"
        ).fetchone()
    assert sums is not None
    # Every transaction of theirs is in what is kept, or none of it.
    assert sums[0] == sums[1]
    (swapped,) = (row for row in trail(house, done["request"]) if row["event"] == "swapped")
    committed = datetime.fromisoformat(swapped["moment"]).timestamp()
    (seconds,) = (step["seconds"] for step in done["steps"] if step["name"] == "swap")
    for began, ended, said in prober.failures():
        assert committed - seconds - 0.5 < began <= ended < committed + 0.5, said
    window = prober.window()
    failed, tried = len(prober.failures()), len(prober.tries)
    sys.stdout.write(f"nobody got in for {window:.3f} s; {failed} of {tried} tries failed\n")
    return window


@pytest.mark.parametrize("mode", ["swap", "new"])
def test_a_database_that_was_dropped_comes_back_as_it_was(stand: Stand, server: Cluster, mode: str) -> None:
    house, alice = stand
    with shop(server, "shop_lost") as name:
        before = whole(server, name)
        backup = back_up(house, f"lost{NEWEST}")
        server.dropdb(name)
        done = restored(house, alice, backup, f"lost{NEWEST}", "--mode", mode)
        assert whole(server, name) == before
        assert (done["kept"], done["safety_backup"], done["undo_until"]) == (None, None, None)
        refused = house.larder("restore", "undo", done["request"], "--yes")
        assert refused.returncode == 4
        assert "it replaced nothing" in refused.stderr
        assert whole(server, name) == before


def test_into_a_new_database_by_its_address(stand: Stand, server: Cluster) -> None:
    house, alice = stand
    with shop(server, "shop_copied") as name:
        before = whole(server, name)
        backup = back_up(house, f"copied{NEWEST}")
        url = server.url(f"{name}_2")
        other = server.url(f"{name}_2", password="an0ther")
        for command in (["plan"], ["request", "--reason", "x"]):
            done = house.larder("restore", *command, backup, "--into", other, "--mode", "new")
            assert done.returncode == 2, done.stderr
            assert "unable to take the password in --into" in done.stderr
            assert "an0ther" not in done.stderr
        document = ask(house, backup, url, "--mode", "new")
        for spelling in SPELLINGS:
            assert spelling.decode() not in json.dumps(document)
        done = run(house, document["request"], alice.approve(document))
        assert done.returncode == 0, done.stderr
        assert whole(server, f"{name}_2") == before
        # By now it is there.
        done = house.larder("restore", "request", backup, "--into", url, "--mode", "new", "--reason", "x")
        assert done.returncode == 6
        assert "it exists" in done.stderr


def test_a_plan_tells_what_stands_in_the_way_and_touches_nothing(stand: Stand, clusters: Clusters) -> None:
    house, alice = stand
    old, new = clusters.get(min(VERSIONS)), clusters.get(NEWEST)
    with shop(new, "shop_plain") as name, old.database(name):
        new.execute("CREATE ROLE ghost; GRANT SELECT ON customers TO ghost", name)
        try:
            backup = back_up(house, f"plain{NEWEST}")
        finally:
            new.execute("DROP OWNED BY ghost; DROP ROLE ghost", name)
        before = old.databases(), new.databases(), whole(new, name)
        done = house.larder("restore", "plan", backup, "--into", f"plain{old.version}", "--json")
        planned = json.loads(done.stdout)
        told = [refusal["error"] for refusal in planned["refusals"]]
        assert any(f"the backup is of PostgreSQL {NEWEST}" in one for one in told)
        assert any("its server has no role 'ghost'" in one for one in told)
        assert done.returncode == planned["refusals"][0]["exit_code"] == 6
        assert (planned["mode"], planned["exists"], planned["approvers"]) == ("swap", True, ["alice"])
        words = ("restore", "plan", backup, "--into", f"plain{NEWEST}", "--create-roles", "--json")
        planned = json.loads(house.larder(*words).stdout)
        assert planned["refusals"] == []
        assert planned["safety_backup"] == ["local"]
        assert (old.databases(), new.databases(), whole(new, name)) == before
        restored(house, alice, backup, f"plain{NEWEST}", "--create-roles")
        done = house.larder(*words)
        assert done.returncode == 0
        assert json.loads(done.stdout)["seconds"] > 0
        new.execute("DROP OWNED BY ghost; DROP ROLE ghost", name)
