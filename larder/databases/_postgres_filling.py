"""A backup on its way into an empty database: by sessions of ours where that can be, else by psql or pg_restore."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg

from larder.config import DatabaseSettings
from larder.databases import _postgres_folder, _postgres_load, _postgres_parallel
from larder.databases._postgres_activity import Activity, growth
from larder.databases._postgres_client import Client
from larder.databases._postgres_connection import child_conninfo, connect, with_database
from larder.databases._postgres_load import Script, explained
from larder.databases._postgres_loaders import application, loading_environment, loading_options
from larder.databases._postgres_parallel import Folder, OneSessionError
from larder.databases._postgres_target import version_of
from larder.pipes import ReadAhead
from larder.process import Process
from larder.progress import Progress
from larder.restoring import Content
from larder.spool import disk_error
from larder.streams import chunks

#: In the run's scratch folder: the folder of which pg_restore makes the script.
_OUTLINE = "outline"


@dataclass(frozen=True)
class Filling:
    """All of `content` on its way into `database`, which is empty; `connection` is to another one of its server."""

    settings: DatabaseSettings
    plan_id: str
    connection: psycopg.Connection
    database: str
    client: Client
    content: Content
    progress: Progress
    say: Callable[[str], None]
    #: Makes the database empty again, and begins counting anew.
    empty: Callable[[], None]

    def run(self) -> None:
        """Do it. Raises what `explained` says, and `IntegrityError` where the content is not what its manifest says."""
        if self.content.folder is None:
            if not self._beside(self._load_stream, "with one session"):
                stream = _postgres_load.checked(self.content, self.progress)
                self._script().run(_postgres_load.for_server(stream, self._version))
        elif not (
            _postgres_folder.has_only_rows(self.content.folder)
            and self._beside(partial(self._load_folder, self.content.folder), "with pg_restore")
        ):
            self._restore(self.content.folder)

    @property
    def _version(self) -> str:
        return version_of(self.connection)

    @property
    def _doing(self) -> str:
        return f"unable to restore database '{self.settings.name}'"

    def _script(self) -> Script:
        return Script(
            self._doing,
            self.client.program("psql"),
            self._environment,
            child_conninfo(self.connection),
            stall_seconds=self.settings.stall_timeout,
            moved=self._activity(None),
        )

    @property
    def _environment(self) -> dict[str, str]:
        return loading_environment(self.connection, self.database, self.plan_id, self.settings.jobs)

    def _activity(self, progress: Progress | None) -> Activity:
        return growth(
            self.settings.name, self.connection, self.database, self.plan_id, self.content.source, progress
        )

    def _beside(self, load: Callable[[], None], otherwise: str) -> bool:
        """Have `load` done by several sessions; says whether that could be. If not, the database is empty again."""
        if self.settings.jobs == 1:
            return False
        try:
            load()
        except OneSessionError as reason:
            self.say(f"Loading anew, {otherwise}: {reason}")
            self.empty()
            return False
        return True

    def _load_stream(self) -> None:
        # Decoding and hashing is as much work as cutting.
        with ReadAhead(_postgres_load.checked(self.content, Progress()), depth=4) as ahead:
            # It has what `chunks` asks of a file.
            self._load(_counted(chunks(ahead), self.progress))  # type: ignore[arg-type]

    def _load_folder(self, folder: Path) -> None:
        outline = self.content.scratch / _OUTLINE
        try:
            shutil.rmtree(outline, ignore_errors=True)
            _postgres_folder.outline(folder, outline)
        except OSError as error:
            raise disk_error(error, self.content.scratch) from error
        with self._scripting(outline) as process:
            self._load(_whole(process), Folder(folder, self.progress))
        self.progress.reach(self.content.source.raw_size)

    def _load(self, script: Iterator[bytes], folder: Folder | None = None) -> None:
        """Load a script with several sessions. Raises `OneSessionError` where that cannot be."""
        stream = _postgres_load.for_server(script, self._version)
        _postgres_parallel.load(self._script(), stream, self._sessions(), self.settings.jobs, folder)

    def _sessions(self) -> Callable[[], psycopg.Connection]:
        """What makes a session that loads. Raises `OneSessionError` where it could not be told what it has to be."""
        options = loading_options(self.connection, self.settings.jobs)
        if not options:
            raise OneSessionError("a pooler is between this machine and the server")
        given = {"application_name": application(self.plan_id)}
        given |= dict(option.split("=", 1) for option in options)
        if self.connection.info.server_version >= 140000:
            given["idle_session_timeout"] = "0"
        url = with_database(self.settings.url.get_secret_value(), self.database)

        def session() -> psycopg.Connection:
            made = connect(self.settings.name, url)
            try:
                for name, value in given.items():
                    made.execute("SELECT set_config(%s, %s, false)", [name, value])
            except BaseException:
                made.close()
                raise
            return made

        return session

    def _restore(self, folder: Path) -> None:
        """Load a folder with pg_restore."""
        server = self.connection.info.server_version // 10000
        if self.client.major >= _postgres_load.SETS_NEWER_FROM > server:
            # It would set what this server does not know, and stop there.
            with self._scripting(folder) as process:
                script = _counted(_whole(process), self.progress)
                self._script().run(_postgres_load.for_server(script, self._version))
            return
        jobs = [f"--jobs={self.settings.jobs}", f"--dbname={child_conninfo(self.connection)}"]
        with (
            explained(self._doing),
            Process(
                [*self._pg_restore, *jobs, str(folder)],
                self._environment,
                stall_seconds=self.settings.stall_timeout,
                output=False,
                moved=self._activity(self.progress),
                # It ends the processes that it loads with.
                death_signal=signal.SIGTERM,
            ) as process,
        ):
            process.finish()

    @property
    def _pg_restore(self) -> list[str]:
        return [self.client.program("pg_restore"), "--exit-on-error", "--no-password"]

    @contextlib.contextmanager
    def _scripting(self, folder: Path) -> Iterator[Process]:
        """pg_restore that writes the script of `folder`."""
        with (
            explained(self._doing),
            Process(
                [*self._pg_restore, "--file=-", str(folder)], stall_seconds=self.settings.stall_timeout
            ) as process,
        ):
            yield process


def _counted(pieces: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    for data in pieces:
        progress.add(len(data))
        yield data


def _whole(process: Process) -> Iterator[bytes]:
    """What a program writes, which has to end well."""
    yield from process.output()
    process.finish()
