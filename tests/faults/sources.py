"""Databases to be backed up whose every row says which version of the whole it is of: a mixture shows."""

from __future__ import annotations

import random
import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path

from psycopg import sql

from tests.servers import Cluster

#: Rows of each table, and bytes of noise in each row.
TABLES = {"orders": (300, 200), "pictures": (60, 1500)}

_BIRTH = "CREATE TABLE {} (id int PRIMARY KEY, version int NOT NULL, noise text NOT NULL)"


class Source(ABC):
    """One database."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def lines(self, environment: dict[str, str]) -> str:
        """Its lines of larder.toml; what is secret in its addresses goes into the environment."""

    @abstractmethod
    def fill(self) -> None:
        """Make it, of version 0."""

    @abstractmethod
    def become(self, version: int) -> None:
        """Make all of it one version, in one transaction."""

    @abstractmethod
    def facts(self) -> list[tuple[str, int, int]]:
        """Of each table and version in it, how many rows there are."""

    @abstractmethod
    def leftovers(self) -> list[str]:
        """What restores and drills have left beside it."""

    @abstractmethod
    def forget_kept(self) -> None:
        """Let go of what restores have replaced."""

    def version(self) -> int | str:
        """The version that it is, as a whole; what is there instead, where it is none."""
        facts = self.facts()
        versions = {version for _, version, _ in facts}
        whole = [(table, rows) for table, (rows, _) in TABLES.items()]
        if len(versions) == 1 and sorted((table, rows) for table, _, rows in facts) == sorted(whole):
            return versions.pop()
        return f"no whole: {facts}"


class File(Source):
    """A SQLite database."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self.path = folder / f"{name}.db"

    def lines(self, environment: dict[str, str]) -> str:
        return f'url = "sqlite:///{self.path}"\n'

    def fill(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for table, rows in _contents(self.name).items():
                connection.execute(_BIRTH.format(table))
                connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)

    def become(self, version: int) -> None:
        with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            for table in TABLES:
                connection.execute(f"UPDATE {table} SET version = ?", [version])

    def facts(self) -> list[tuple[str, int, int]]:
        query = " UNION ALL ".join(
            f"SELECT '{table}', version, count(*) FROM {table} GROUP BY version" for table in TABLES
        )
        with closing(sqlite3.connect(f"file:{self.path}?mode=rw", uri=True)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return list(connection.execute(query))

    def leftovers(self) -> list[str]:
        found = self.path.parent.glob(f".{self.path.name}.restore_*")
        return [path.name for path in found]

    def forget_kept(self) -> None:
        for word in ("before", "undone"):
            for path in self.path.parent.glob(f"{self.path.name}.{word}_restore_*"):
                path.unlink()


class Served(Source):
    """A PostgreSQL database, which is reached at `port` of this machine."""

    def __init__(self, name: str, cluster: Cluster, port: int, scratch: Cluster | None, more: str) -> None:
        super().__init__(name)
        self.cluster = cluster
        self._port = port
        self._scratch = scratch
        self._more = more

    def lines(self, environment: dict[str, str]) -> str:
        key = self.name.upper()
        environment[f"{key}_URL"] = self.cluster.url(self.name).replace(
            f":{self.cluster.port}/", f":{self._port}/"
        )
        lines = f'url_env = "{key}_URL"\n{self._more}'
        if self._scratch is not None:
            environment[f"{key}_SCRATCH"] = self._scratch.url("postgres")
            lines += f'scratch_url_env = "{key}_SCRATCH"\n'
        return lines

    def fill(self) -> None:
        self.cluster.createdb(self.name)
        with self.cluster.connect(self.name) as connection, connection.transaction():
            for table, rows in _contents(self.name).items():
                connection.execute(_BIRTH.format(table))
                with connection.cursor() as cursor:
                    cursor.executemany(
                        sql.SQL("INSERT INTO {} VALUES (%s, %s, %s)").format(sql.Identifier(table)), rows
                    )

    def become(self, version: int) -> None:
        with self.cluster.connect(self.name) as connection, connection.transaction():
            for table in TABLES:
                statement = sql.SQL("UPDATE {} SET version = %s").format(sql.Identifier(table))
                connection.execute(statement, [version])

    def facts(self) -> list[tuple[str, int, int]]:
        query = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}, version, count(*) FROM {} GROUP BY version").format(
                sql.Literal(table), sql.Identifier(table)
            )
            for table in TABLES
        )
        with self.cluster.connect(self.name) as connection:
            return [
                (str(table), int(version), int(rows)) for table, version, rows in connection.execute(query)
            ]

    def leftovers(self) -> list[str]:
        places = [self.cluster, self._scratch or self.cluster]
        return [
            name
            for place in places
            for name in place.databases()
            if (name.startswith(f"{self.name}__") and "__restore_" in name) or "drill" in name
        ]

    def forget_kept(self) -> None:
        for name in self.cluster.databases():
            if name.startswith(f"{self.name}__before_"):
                self.cluster.dropdb(name)

    def remove(self) -> None:
        """Drop it, and what is beside it."""
        for name in self.cluster.databases():
            if name == self.name or name.startswith(f"{self.name}__"):
                self.cluster.dropdb(name)


def _contents(name: str) -> dict[str, list[tuple[int, int, str]]]:
    dice = random.Random(name)
    return {
        table: [(number, 0, dice.randbytes(noise // 2).hex()) for number in range(rows)]
        for table, (rows, noise) in TABLES.items()
    }
