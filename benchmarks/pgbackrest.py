"""pgBackRest copies a server's files, and its log of changes: it has a server of its own, with the same rows."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.contestants import Contestant, Taken
from benchmarks.data import Contents, process_of
from benchmarks.peers import SOURCE, compare
from benchmarks.running import Failed, Place
from benchmarks.watching import size_of
from tests.servers import USER, Cluster, postgres_installs

PROGRAM = "pgbackrest"

#: As it comes, and what is as good in less time.
COMPRESSIONS = ("gz", "zst")


class Server:
    """A server that archives its changes, of the newest version that pgBackRest knows; made when first asked for."""

    def __init__(self, source: Cluster) -> None:
        self.source = source
        self.cluster: Cluster | None = None
        self.why: str | None = None

    def missing(self) -> str | None:
        """Why there is none; None when there is one, which is started now."""
        if self.cluster is None and self.why is None:
            self.why = f"{PROGRAM} not installed" if shutil.which(PROGRAM) is None else self._make()
        return self.why

    def remove(self) -> None:
        """Stop it and remove its files."""
        if self.cluster is not None:
            self.cluster.remove()

    def command(self, compression: str, *words: str) -> list[str]:
        """A command, as whoever runs the server: it reads the server's own files."""
        assert self.cluster is not None
        return [PROGRAM, f"--config={self.cluster.folder / f'{compression}.conf'}", "--stanza=bench", *words]

    def _make(self) -> str | None:
        versions = [version for version in postgres_installs() if version <= self.source.version]
        for version in sorted(versions, reverse=True):
            self.cluster = Cluster(version)
            try:
                self._start(self.cluster)
                self._copy(self.cluster)
                return None
            except Failed:
                # It says so of a version that is newer than itself.
                self.cluster.remove()
                self.cluster = None
            except BaseException:
                self.cluster.remove()
                raise
        return f"it takes no PostgreSQL of {', '.join(map(str, versions))}"

    def _start(self, cluster: Cluster) -> None:
        cluster.create(as_it_comes=True)
        for compression in COMPRESSIONS:
            self._configure(cluster, compression)
        archive = " ".join(self.command("gz", "archive-push", "%p"))
        with (cluster.data / "postgresql.conf").open("a") as settings:
            settings.write(f"archive_mode = on\narchive_command = '{archive}'\n")
        cluster.start()
        as_owner(cluster, self.command("gz", "stanza-create"))

    def _configure(self, cluster: Cluster, compression: str) -> None:
        folder = cluster.folder
        (folder / f"{compression}.conf").write_text(
            f"[global]\nrepo1-path={folder}/repository\nlog-path={folder}/log-of-pgbackrest\nlock-path={folder}/lock\n"
            f"spool-path={folder}/spool\nlog-level-console=warn\nlog-level-file=off\nstart-fast=y\nprocess-max=2\n"
            # A full backup leans on no other, and the one before goes. Many small files go into few large ones.
            f"repo1-retention-full=1\nrepo1-bundle=y\n"
            f"compress-type={compression}\n[bench]\npg1-path={cluster.data}\npg1-port={cluster.port}\n"
            f"pg1-socket-path={folder}\npg1-user={USER}\n"
        )

    def _copy(self, cluster: Cluster) -> None:
        cluster.createdb(SOURCE)
        # The newer pg_dump, into the older server: it may set what that does not know, and says so; rows are compared.
        with subprocess.Popen(
            [self.source.bin / "pg_dump", SOURCE], env=self.source.environment(SOURCE), stdout=subprocess.PIPE
        ) as dump:
            subprocess.run(
                [self.source.bin / "psql", "-q", SOURCE],
                env=cluster.environment(SOURCE),
                stdin=dump.stdout,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
        cluster.execute("CHECKPOINT")


def as_owner(cluster: Cluster, command: Sequence[str | Path]) -> None:
    """Run a command as whoever runs the server; raises `Failed`."""
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        user=cluster.user,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(
            f"{command[0]} exited with {done.returncode}: {(done.stdout + done.stderr).strip()[-600:]}"
        )


class PgBackRest(Contestant):
    """A full backup by two processes."""

    def __init__(self, server: Server, expected: Contents, compression: str) -> None:
        self.server = server
        self.expected = expected
        self.compression = compression
        self.key = f"pgbackrest-{compression}"
        self.label = f"pgBackRest, {compression}"

    @property
    def note(self) -> str:  # type: ignore[override]
        """What it is, with the version of its server."""
        version = self.server.cluster.version if self.server.cluster else "?"
        return f"copies the whole server's files (PostgreSQL {version}): another kind of backup"

    def missing(self) -> str | None:
        return self.server.missing()

    def run(self, place: Place) -> Taken:
        cluster = self._cluster
        here = replace(place, server=process_of(cluster), user=cluster.user)
        done = here.run(*self.server.command(self.compression, "--type=full", "backup"))
        return Taken.of(done, size_of((cluster.folder / "repository/backup/bench/latest").resolve()))

    def check(self, place: Place) -> None:  # noqa: ARG002 - others need it
        cluster = self._cluster
        again = Cluster(cluster.version)
        try:
            again.data.mkdir()
            if again.user is not None:
                os.chown(again.data, again.user, -1)
            again.data.chmod(0o700)
            command = self.server.command(
                self.compression, f"--pg1-path={again.data}", "--archive-mode=off", "restore"
            )
            as_owner(cluster, command)
            with (again.data / "postgresql.auto.conf").open("a") as settings:
                settings.write(f"port = {again.port}\nunix_socket_directories = '{again.folder}'\n")
            again.start()
            compare(again, SOURCE, self.expected)
        finally:
            again.remove()

    @property
    def _cluster(self) -> Cluster:
        assert self.server.cluster is not None
        return self.server.cluster


def contestants(server: Server, expected: Contents) -> list[Contestant]:
    """pgBackRest with each compression."""
    return [PgBackRest(server, expected, compression) for compression in COMPRESSIONS]
