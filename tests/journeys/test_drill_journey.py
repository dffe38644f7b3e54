"""`larder drill` as people use it: real commands, a worker, PostgreSQL and SQLite; what was left out is found."""

from __future__ import annotations

import json
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.drills import clusters_of, guard_passes, kill_host, left_of
from tests.dumps import wait_for
from tests.house import House
from tests.restores import back_up, standing
from tests.servers import SAMPLE, Cluster, Clusters, postgres_installs

VERSIONS = (16, 18)
NEWEST = max(VERSIONS)

#: A pg_dump that does as it is told by the file `lie` beside it, and whose dumps look as if they were right.
LIAR = """#!{python}
import re, subprocess, sys
from pathlib import Path
lie = (Path(__file__).parent / "lie").read_text()
argv = ["{pg_dump}", *sys.argv[1:]]
if "--version" in argv or not any(word.startswith("--snapshot") for word in argv):
    sys.exit(subprocess.run(argv).returncode)
if lie == "table":
    argv.append("--exclude-table=public.customers")
done = subprocess.run(argv, stdout=subprocess.PIPE)
text = done.stdout
if lie == "rows":
    head, rows = text.split(b"COPY public.orders (id, what) FROM stdin;\\n", 1)
    kept = b"\\n".join(rows.split(b"\\n", 5)[:5])
    rest = rows.split(b"\\n\\\\.\\n", 1)[1]
    text = head + b"COPY public.orders (id, what) FROM stdin;\\n" + kept + b"\\n\\\\.\\n" + rest
if lie == "sequence":
    text = re.sub(rb"setval\\('public.orders_id_seq', \\d+, true\\)", b"setval('public.orders_id_seq', 1, false)", text)
if lie == "index":
    text = re.sub(rb"CREATE INDEX orders_what [^;]*;", b"", text)
if lie == "byte":
    text = text.replace(b"order 42\\n", b"order 43\\n", 1)
sys.stdout.buffer.write(text)
sys.exit(done.returncode)
"""

#: What each lie leaves out, and the object that a drill has to name.
LIES = {
    "table": "public.customers",
    "rows": "public.orders",
    "sequence": "public.orders_id_seq",
    "index": "orders_what",
    "byte": "public.orders",
}

SHOP = """
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    INSERT INTO customers VALUES (1, 'Ada'), (2, 'Blaise');
    CREATE TABLE orders (id serial PRIMARY KEY, what text NOT NULL);
    INSERT INTO orders (what) SELECT 'order ' || n FROM generate_series(1, 100) n;
    CREATE INDEX orders_what ON orders (what);
"""


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, clusters: Clusters) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("drills")
    lines = f"postgres_bin = {[str(path) for path in postgres_installs().values()]}\n"
    environment = {}
    for version in VERSIONS:
        for form in ("plain", "directory"):
            server, name = clusters.get(version), f"{form}{version}"
            server.createdb(f"drill_{name}")
            server.execute(SAMPLE, f"drill_{name}")
            environment[f"URL_{name}"] = server.url(f"drill_{name}")
            lines += (
                f'[databases.{name}]\nurl_env = "URL_{name}"\nformat = "{form}"\nfingerprint = "content"\n'
            )
    lines += '[databases.file]\nurl = "sqlite:///file.db"\n'
    with standing(folder, lines, **environment) as (house, _):
        yield house
    for version in VERSIONS:
        for form in ("plain", "directory"):
            clusters.get(version).dropdb(f"drill_{form}{version}")


def drilled(house: House, wanted: str, code: int = 0) -> dict[str, Any]:
    """`larder drill`; gives what it prints."""
    done = house.larder("drill", wanted, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", ["plain", "directory"])
def test_a_backup_is_proven(stand: House, version: int, form: str) -> None:
    backup = back_up(stand, f"{form}{version}")
    found = drilled(stand, f"{form}{version}")
    assert (found["backup"], found["proof"], found["level"]) == (backup, "proven", "content")
    assert (found["differences"], found["tables"] > 0, found["rows"] > 0) == ([], True, True)
    listed = json.loads(stand.larder("list", f"{form}{version}", "--json").stdout)
    assert [one["proof"] for one in listed] == ["proven"]
    assert clusters_of(stand) == []


def test_a_sqlite_backup_is_proven(stand: House) -> None:
    with closing(sqlite3.connect(stand.folder / "file.db")) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO orders VALUES (1)")
        connection.commit()
    backup = back_up(stand, "file")
    found = drilled(stand, backup)
    assert (found["proof"], found["tables"], found["rows"], found["differences"]) == ("proven", 1, 1, [])


def lying(house: House, server: Cluster) -> Path:
    """A folder of client programs whose pg_dump lies; gives the file that says how."""
    folder = house.folder / "liar"
    folder.mkdir()
    for program in server.bin.iterdir():
        if program.name != "pg_dump":
            (folder / program.name).symlink_to(program)
    script = folder / "pg_dump"
    script.write_text(LIAR.format(python=sys.executable, pg_dump=server.bin / "pg_dump"))
    script.chmod(stat.S_IRWXU)
    return folder / "lie"


def test_what_a_dump_silently_left_out_is_found_and_named(
    tmp_path_factory: pytest.TempPathFactory, clusters: Clusters
) -> None:
    server = clusters.get(NEWEST)
    folder = tmp_path_factory.mktemp("liar")
    with server.database("liar") as name:
        server.execute(SHOP, name)
        lie = lying(House(folder), server)
        lines = (
            f'postgres_bin = ["{lie.parent}"]\n[databases.shop]\nurl_env = "URL"\nfingerprint = "content"\n'
        )
        with standing(folder, lines, URL=server.url(name)) as (house, _):
            for word, named in LIES.items():
                lie.write_text(word)
                backup = back_up(house, "shop")
                found = drilled(house, "shop/latest", code=5)
                assert (found["backup"], found["proof"], found["outcome"]) == (backup, "broken", "broken")
                assert any(named in line for line in found["differences"]), (word, found["differences"])
            lie.write_text("nothing")
            back_up(house, "shop")
            assert drilled(house, "shop")["proof"] == "proven"


def test_a_drill_whose_host_went_down_leaves_nothing_once_the_guard_has_passed(
    tmp_path_factory: pytest.TempPathFactory, clusters: Clusters
) -> None:
    server = clusters.get(NEWEST)
    house = House(tmp_path_factory.mktemp("killed"))
    with server.database("killed") as name:
        server.execute(SHOP, name)
        server.execute(
            "INSERT INTO orders (what) SELECT repeat('x', 200) FROM generate_series(1, 50000)", name
        )
        house.configure(f'postgres_bin = ["{server.bin}"]\n[databases.shop]\nurl = "{server.url(name)}"\n')
        back_up(house, "shop")
        started = house.start("larder", "drill", "shop", "--json")
        wait_for(lambda: bool(clusters_of(house)))
        kill_host(house)
        started.communicate()
    wait_for(lambda: clusters_of(house) == [])
    guard_passes(house)
    assert left_of(house) == []
