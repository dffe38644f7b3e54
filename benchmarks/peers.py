"""Ways to back up a PostgreSQL database: Larder's, the user's script, pg_dump's own formats, restic, borg."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.contestants import Contestant, Different, Taken
from benchmarks.data import Contents, postgres_contents
from benchmarks.larder_side import approver, backup, configured, restore
from benchmarks.running import Place
from benchmarks.watching import size_of
from tests.servers import PASSWORD, USER, Cluster

USER_SCRIPT = Path(__file__).parent / "user_script.sh"

#: The database that is backed up, and the one that its backups are brought back as.
SOURCE, SCRATCH = "bench", "restored"


def environment(cluster: Cluster, name: str = SOURCE) -> dict[str, str]:
    """How all of them reach the server: over TCP, with a password that no argument list holds."""
    return {
        "PATH": f"{cluster.bin}:{cluster.environment(name)['PATH']}",
        "LC_ALL": "C",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(cluster.port),
        "PGUSER": USER,
        "PGPASSWORD": PASSWORD,
        "PGDATABASE": name,
        "DATABASE_URL": f"postgresql://{USER}@127.0.0.1:{cluster.port}/{name}",
        "BENCH_URL": cluster.url(name),
    }


def backups(cluster: Cluster) -> list[Contestant]:
    """All of them, in the order in which they run."""
    expected = postgres_contents(cluster, SOURCE)
    kinds = (
        Alone,
        Script,
        LarderGzip,
        LarderZstd,
        LarderDirectory,
        Custom,
        Directory,
        DirectoryFast,
        Restic,
        Borg,
    )
    return [kind(cluster, expected) for kind in kinds]


class OfPostgres(Contestant):
    """What backs up `SOURCE`; a subclass says how, and how that is brought back into `SCRATCH`."""

    def __init__(self, cluster: Cluster, expected: Contents) -> None:
        self.cluster = cluster
        self.expected = expected

    def check(self, place: Place) -> None:
        self.cluster.createdb(SCRATCH)
        self.bring_back(replace(place, environment={**place.environment, "PGDATABASE": SCRATCH}))
        compare(self.cluster, SCRATCH, self.expected)

    def bring_back(self, place: Place) -> None:
        """Load what was made into `SCRATCH`, which is empty."""

    def tidy(self) -> None:
        self.cluster.dropdb(SCRATCH)


def compare(cluster: Cluster, name: str, expected: Contents) -> None:
    """Raise `Different` unless every table holds what it did."""
    found = postgres_contents(cluster, name)
    if found != expected:
        tables = sorted(table for table in found | expected if found.get(table) != expected.get(table))
        raise Different(f"not what it was: {', '.join(tables)}")


class Alone(OfPostgres):
    key, label, kind = "limit", "pg_dump alone", "limit"
    note = "writes to /dev/null: what no plain dump can be faster than"

    def run(self, place: Place) -> Taken:
        return Taken.of(place.run("pg_dump", stdout=subprocess.DEVNULL))

    def check(self, place: Place) -> None:
        """It makes nothing."""


class Script(OfPostgres):
    key, label, kind = "script", "the user's script", "script"
    note = "`pg_dump | gzip`, `sha256sum`, `find -delete`"
    programs = ("bash", "gzip", "sha256sum")

    def run(self, place: Place) -> Taken:
        done = place.run(USER_SCRIPT)
        return Taken.of(done, _artifact(place).stat().st_size)

    def bring_back(self, place: Place) -> None:
        place.shell('gunzip -c "$1" | psql -q -v ON_ERROR_STOP=1', _artifact(place))


def _artifact(place: Place) -> Path:
    return next(place.folder.glob("backups/backup_*.gz"))


class OfLarder(OfPostgres):
    """Larder's chain: dump, encoding, decoded to its end, signed, copied into the store, read back, rotated."""

    kind = "larder"
    options: str

    def run(self, place: Place) -> Taken:
        here = configured(
            place,
            f'postgres_bin = ["{self.cluster.bin}"]\n[databases.bench]\nurl_env = "BENCH_URL"\n{self.options}',
        )
        return backup(here)[1]

    def check(self, place: Place) -> None:
        here = replace(
            place, environment={**place.environment, "LARDER_CONFIG": str(place.folder / "larder.toml")}
        )
        approver(here)
        restore(here, "bench", SCRATCH)
        compare(self.cluster, SCRATCH, self.expected)


class LarderGzip(OfLarder):
    key, label = "larder-gzip", "Larder, plain, gzip"
    options = 'format = "plain"\ncompression = "gzip"\n'


class LarderZstd(OfLarder):
    key, label = "larder-zstd", "Larder, plain, zstd"
    options = 'format = "plain"\ncompression = "zstd"\n'


class LarderDirectory(OfLarder):
    key, label = "larder-directory", "Larder, directory"
    options = 'format = "directory"\njobs = 2\n'


class Custom(OfPostgres):
    """A format of pg_dump's own, which pg_restore loads."""

    key, label = "pg_dump-Fc", "pg_dump -Fc"
    note = "no checksum, nothing read back"
    options: Sequence[str] = ("-Fc",)

    def run(self, place: Place) -> Taken:
        target = place.folder / "dump"
        done = place.run("pg_dump", *self.options, "-f", target)
        return Taken.of(done, size_of(target) if target.is_dir() else target.stat().st_size)

    def bring_back(self, place: Place) -> None:
        place.run("pg_restore", "-j", "2", "-e", "-d", SCRATCH, place.folder / "dump")


class Directory(Custom):
    key, label = "pg_dump-Fd", "pg_dump -Fd -j2"
    options = ("-Fd", "-j", "2")


class DirectoryFast(Custom):
    key, label = "pg_dump-Fd-Z1", "pg_dump -Fd -j2 -Z1"
    options = ("-Fd", "-j", "2", "-Z", "1")


class Restic(OfPostgres):
    key, label = "restic", "pg_dump | restic"
    note = "into a new repository; encrypted"
    programs = ("restic",)

    def run(self, place: Place) -> Taken:
        here = self._settled(place)
        replace(here, watched=False).run("restic", "init", "-q")
        done = here.shell("pg_dump | restic backup -q --stdin --stdin-filename bench.sql")
        return Taken.of(done, size_of(place.folder / "repository"))

    def bring_back(self, place: Place) -> None:
        self._settled(place).shell("restic dump latest /bench.sql | psql -q -v ON_ERROR_STOP=1")

    def _settled(self, place: Place) -> Place:
        folder = place.folder
        more = {
            "HOME": str(folder),
            "RESTIC_REPOSITORY": str(folder / "repository"),
            "RESTIC_CACHE_DIR": str(folder / "cache"),
            "RESTIC_PASSWORD": "benchmark",
        }
        return replace(place, environment={**place.environment, **more})


class Borg(OfPostgres):
    key, label = "borg", "pg_dump | borg"
    note = "into a new repository; encrypted"
    programs = ("borg",)

    def run(self, place: Place) -> Taken:
        here = self._settled(place)
        replace(here, watched=False).run("borg", "init", "--encryption=repokey")
        done = here.shell("pg_dump | borg create --stdin-name bench.sql ::bench -")
        return Taken.of(done, size_of(place.folder / "repository"))

    def bring_back(self, place: Place) -> None:
        self._settled(place).shell("borg extract --stdout ::bench | psql -q -v ON_ERROR_STOP=1")

    def _settled(self, place: Place) -> Place:
        folder = place.folder
        more = {
            "HOME": str(folder),
            "BORG_BASE_DIR": str(folder),
            "BORG_REPO": str(folder / "repository"),
            "BORG_PASSPHRASE": "benchmark",
        }
        return replace(place, environment={**place.environment, **more})
