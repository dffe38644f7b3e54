"""Restores of one PostgreSQL database: Larder's chain in mode `new`, `gunzip -c … | psql`, and pg_restore."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contestants import Contestant, Taken, compete
from benchmarks.data import Contents, fill_postgres, postgres_contents, process_of, settings_of
from benchmarks.larder_side import BACKUPS, approver, configured, larder, restore
from benchmarks.peers import SCRATCH, SOURCE, compare, environment
from benchmarks.running import Place
from benchmarks.stage import Stage
from tests.servers import Cluster, started


def run(stage: Stage, options: Namespace) -> dict[str, Any]:
    """Everybody's restores into a new database of the same server, which is as it comes."""
    cluster = started(options.postgres, as_it_comes=True)
    try:
        fill_postgres(cluster, SOURCE, options.size, options.partitions, mixed=options.data == "mixed")
        expected = postgres_contents(cluster, SOURCE)
        place = Place(stage.folder, environment(cluster), process_of(cluster))
        home = _backed_up(place, cluster)
        place.run("pg_dump", "-Fd", "-j", "2", "-f", stage.folder / "folder")
        everybody = [
            ByScript(cluster, expected, home),
            ByLarder(cluster, expected, home, "plain"),
            ByLarder(cluster, expected, home, "directory"),
            ByPgRestore(cluster, expected, home),
        ]
        found = compete(stage.chosen(everybody), options.rounds, place, stage.say)
    finally:
        cluster.remove()
    return {
        "settings": settings_of(options),
        **found,
    }


def _backed_up(place: Place, cluster: Cluster) -> Place:
    """A folder in which Larder has a plain backup and one in directory format, and an approver's key."""
    folder = place.folder / "larder"
    folder.mkdir()
    home = configured(
        replace(place, folder=folder),
        f'postgres_bin = ["{cluster.bin}"]\n[databases.plain]\nurl_env = "BENCH_URL"\n'
        '[databases.directory]\nurl_env = "BENCH_URL"\nformat = "directory"\njobs = 2\n',
    )
    approver(home)
    larder(home, "backup", "--json")
    return home


class IntoScratch(Contestant):
    """What brings the database back as `SCRATCH`."""

    def __init__(self, cluster: Cluster, expected: Contents, home: Place) -> None:
        self.cluster = cluster
        self.expected = expected
        self.home = home

    def check(self, place: Place) -> None:  # noqa: ARG002 - others need it
        compare(self.cluster, SCRATCH, self.expected)

    def tidy(self) -> None:
        self.cluster.dropdb(SCRATCH)


class ByScript(IntoScratch):
    key, label, kind = "script", "gunzip -c … | psql", "script"
    note = "one statement after the other, nothing looked at"

    def run(self, place: Place) -> Taken:
        artifact = next((self.home.folder / BACKUPS / "plain").glob("*.sql.gz"))
        self.cluster.createdb(SCRATCH)
        here = replace(place, environment={**place.environment, "PGDATABASE": SCRATCH})
        return Taken.of(here.shell('gunzip -c "$1" | psql -q -v ON_ERROR_STOP=1', artifact))


class ByPgRestore(IntoScratch):
    key, label = "pg_restore", "pg_restore -j2"
    note = "of pg_dump -Fd -j2; nothing looked at"

    def run(self, place: Place) -> Taken:
        self.cluster.createdb(SCRATCH)
        folder: Path = self.home.folder.parent / "folder"
        return Taken.of(place.run("pg_restore", "-j", "2", "-e", "-d", SCRATCH, folder))


class ByLarder(IntoScratch):
    """Fetch, check, load, examine, put in place."""

    kind = "larder"

    def __init__(self, cluster: Cluster, expected: Contents, home: Place, form: str) -> None:
        super().__init__(cluster, expected, home)
        self.form = form
        self.key = f"larder-{form}"
        self.label = f"Larder, {form}"

    def run(self, place: Place) -> Taken:
        return restore(replace(self.home, watched=place.watched), self.form, SCRATCH)
