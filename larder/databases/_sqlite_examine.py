"""What a SQLite file holds, and whether it is whole: read without a lock, and without a trace beside it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from larder.databases._sqlite_holders import immutable, pragma
from larder.errors import IntegrityError


def tables(path: Path, counted: bool) -> dict[str, dict[str, Any]]:
    """The ordinary tables, with their rows; not those of SQLite itself, nor those that make up a virtual one."""
    with immutable(path) as made:
        found = [
            name
            for (name,) in made.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
                " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
            )
        ]
        if sqlite3.sqlite_version_info >= (3, 37):
            shadows = {row[1] for row in made.execute("PRAGMA main.table_list") if row[2] == "shadow"}
            found = [name for name in found if name not in shadows]
        return {name: {"rows": _rows(made, name)} if counted else {} for name in found}


def _rows(connection: sqlite3.Connection, name: str) -> int:
    quoted = name.replace('"', '""')
    return int(connection.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 - quoted


def differences(wanted: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """How the tables that are there differ from those of a fingerprint."""
    found = [f"table '{name}' is missing" for name in wanted if name not in there]
    found += [f"table '{name}' is not in the backup" for name in there if name not in wanted]
    for name in wanted.keys() & there.keys():
        had, has = wanted[name].get("rows"), there[name].get("rows")
        if None not in (had, has) and had != has:
            found.append(f"table '{name}' has {has} rows, and the backup had {had}")
    return sorted(found)


def check(connection: sqlite3.Connection, query: str) -> str | None:
    """What is wrong with what one of `checks` gives, without telling it; None where it is true."""
    try:
        rows = connection.execute(query).fetchmany(2)
    except (sqlite3.Error, sqlite3.Warning) as error:
        return f"check '{query}' cannot be run: {error}"
    if len(rows) != 1 or len(rows[0]) != 1:
        return f"check '{query}' does not give one row with one value"
    if not isinstance(rows[0][0], int) or rows[0][0] == 0:
        return f"check '{query}' is not true"
    return None


def integrity(path: Path) -> list[str]:
    """See that a database is whole, page by page; gives warnings of what is odd, and may always have been."""
    with immutable(path) as made:
        expected = pragma(made, "page_count") * pragma(made, "page_size")
        if expected != path.stat().st_size:
            raise IntegrityError(
                f"unable to restore {path.name}: it has {path.stat().st_size} bytes of {expected}"
            )
        warnings = []
        try:
            problem = made.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if problem != "ok":
                raise IntegrityError(
                    f"unable to restore {path.name}: the backup is damaged: {problem.splitlines()[-1]}",
                    "restore an earlier backup",
                )
        except sqlite3.OperationalError as error:
            if not str(error).startswith("no such"):
                raise
            # A function, collation or module of the application's own.
            warnings.append(f"the new file could not be checked wholly: {error}")
        try:
            broken = Counter((row[0], row[2]) for row in made.execute("PRAGMA foreign_key_check"))
        except sqlite3.OperationalError as error:
            return [*warnings, f"foreign keys could not be checked: {error}"]
    return warnings + [
        f"{count} rows of table '{table}' refer to rows of '{parent}' that are not there, as they did in the backup"
        for (table, parent), count in sorted(broken.items())
    ]
