"""Backups of one PostgreSQL database by everybody, and of one SQLite database by Larder and the user's script."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import pgbackrest
from benchmarks.contestants import Contestant, Different, Taken, compete
from benchmarks.data import (
    Contents,
    fill_postgres,
    fill_sqlite,
    postgres_contents,
    process_of,
    settings_of,
    sqlite_contents,
)
from benchmarks.larder_side import backup, configured
from benchmarks.peers import SOURCE, USER_SCRIPT, backups, environment
from benchmarks.running import Place
from benchmarks.stage import Stage
from tests.servers import started


def postgres(stage: Stage, options: Namespace) -> dict[str, Any]:
    """Everybody's backups of one database of about `options.size` megabytes."""
    cluster = started(options.postgres, as_it_comes=True)
    server = pgbackrest.Server(cluster)
    try:
        fill_postgres(cluster, SOURCE, options.size, options.partitions, mixed=options.data == "mixed")
        place = Place(stage.folder, environment(cluster), process_of(cluster))
        everybody = backups(cluster)
        everybody += pgbackrest.contestants(server, postgres_contents(cluster, SOURCE))
        found = compete(stage.chosen(everybody), options.rounds, place, stage.say)
    finally:
        server.remove()
        cluster.remove()
    return {
        "settings": settings_of(options),
        **found,
    }


def sqlite(stage: Stage, options: Namespace) -> dict[str, Any]:
    """Backups of one SQLite database of about `options.size` megabytes."""
    path = stage.folder / "bench.db"
    fill_sqlite(path, options.size)
    expected = sqlite_contents(path)
    place = Place(stage.folder, {**stage.environment, "DATABASE_URL": f"sqlite:///{path}"})
    everybody = [OfSqlite(expected), LarderSqlite(expected), LarderSqliteZstd(expected)]
    found = compete(stage.chosen(everybody), options.rounds, place, stage.say)
    return {"settings": {"bytes": path.stat().st_size, "rounds": options.rounds}, **found}


class OfSqlite(Contestant):
    """The user's script."""

    key, label, kind = "script", "the user's script", "script"
    note = "`.backup`, `gzip`, `sha256sum`, `find -delete`"
    programs: Sequence[str] = ("sqlite3", "gzip", "sha256sum")

    def __init__(self, expected: Contents) -> None:
        self.expected = expected

    def run(self, place: Place) -> Taken:
        done = place.run(USER_SCRIPT)
        return Taken.of(done, artifact(place.folder).stat().st_size)

    def check(self, place: Place) -> None:
        decoded(place, artifact(place.folder), self.expected)


class LarderSqlite(OfSqlite):
    """Larder's chain, with what it does by itself."""

    key, label, kind = "larder", "Larder, gzip", "larder"
    note = ""
    programs: Sequence[str] = ()
    compression = "gzip"

    def run(self, place: Place) -> Taken:
        here = configured(
            place, f'[databases.bench]\nurl_env = "DATABASE_URL"\ncompression = "{self.compression}"\n'
        )
        return backup(
            replace(here, environment={**here.environment, "BACKUP_DIR": str(place.folder / "backups")})
        )[1]


class LarderSqliteZstd(LarderSqlite):
    key, label = "larder-zstd", "Larder, zstd"
    compression = "zstd"
    programs = ("zstd",)


def artifact(folder: Path) -> Path:
    """The one artifact below a folder, whoever made it."""
    return next(path for path in sorted(folder.rglob("backup_*")) if path.suffix in (".gz", ".zst"))


def decoded(place: Place, path: Path, expected: Contents) -> None:
    """Decode an artifact with the tool of its kind, and raise `Different` unless it holds what is expected."""
    tool = "gunzip -c" if path.suffix == ".gz" else "zstd -dcq"
    again = place.folder / "again.db"
    place.shell(f'{tool} "$1" > "$2"', path, again)
    found = sqlite_contents(again)
    if found != expected:
        raise Different(f"not what it was: {', '.join(sorted(found | expected))}")
