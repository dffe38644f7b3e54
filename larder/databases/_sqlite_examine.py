"""What a SQLite file holds, and whether it is whole: read without a lock, and without a trace beside it."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from larder.databases._sqlite_holders import immutable, pragma
from larder.errors import IntegrityError

#: A definition of this many characters or more stands in the fingerprint as its SHA-256.
LONG: Final = 200

#: Names that need no quotes to be told apart from what stands beside them.
_PLAIN: Final = re.compile(r"\w+")


def tables(path: Path, counted: bool, known: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """The ordinary tables, with their rows; not those of SQLite itself, nor those that make up a virtual one.

    Which ones do, only a SQLite that has the virtual table's module can tell: those that are `known` to be ordinary, or
    were taken for it, are given all the same.
    """
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
            found = [name for name in found if name in known or name not in shadows]
        return {name: {"rows": _rows(made, name)} if counted else {} for name in found}


def _rows(connection: sqlite3.Connection, name: str) -> int:
    quoted = name.replace('"', '""')
    return int(connection.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 - quoted


def schema(path: Path) -> dict[str, str]:
    """The definition of everything in the schema, as it was written, by `index by_name on log`.

    A long one is given as `sha256:…`. What SQLite has made for itself has none.
    """
    with immutable(path) as made:
        # A text that is no UTF-8 goes into the manifest spelled out.
        made.text_factory = lambda data: data.decode(errors="backslashreplace")
        rows = made.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    found = {}
    for kind, name, table, definition in rows:
        owner = f" on {_named(table)}" if table != name else ""
        found[f"{kind} {_named(name)}{owner}"] = _short(definition or "")
    return dict(sorted(found.items()))


def _named(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    quoted = name.replace('"', '""')
    return f'"{quoted}"'


def _short(definition: str) -> str:
    if len(definition) < LONG:
        return definition
    return f"sha256:{hashlib.sha256(definition.encode()).hexdigest()}"


def orphans(path: Path) -> tuple[dict[str, int], list[str]]:
    """How many rows of each table refer to rows that are not there, and what could not be checked, a line each.

    SQLite lets them in unless the application asks it not to. A table without any is not given.
    """
    found: dict[str, int] = {}
    unchecked: list[str] = []
    with immutable(path) as made:
        for (name,) in made.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        ).fetchall():
            try:
                (count,) = made.execute(
                    "SELECT count(*) FROM pragma_foreign_key_check(?)", (name,)
                ).fetchone()
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorname", "") != "SQLITE_ERROR":
                    raise
                # It refers to what cannot be referred to, or takes what only its application brings.
                unchecked.append(f"the foreign keys of table '{name}': {error}")
                continue
            if count:
                found[name] = count
    return found, unchecked


def differences(wanted: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """How the tables that are there differ from those of a fingerprint."""
    found = [f"table '{name}' is missing" for name in wanted if name not in there]
    found += [f"table '{name}' is not in the backup" for name in there if name not in wanted]
    for name in wanted.keys() & there.keys():
        had, has = wanted[name].get("rows"), there[name].get("rows")
        if None not in (had, has) and had != has:
            found.append(f"table '{name}' has {has} rows, and the backup had {had}")
    return sorted(found)


def schema_differences(wanted: dict[str, str], there: dict[str, str]) -> list[str]:
    """How the definitions that are there differ from those of a fingerprint, by object."""
    found = [f"{name} is missing" for name in wanted if name not in there]
    found += [f"{name} is not in the backup" for name in there if name not in wanted]
    for name in wanted.keys() & there.keys():
        if wanted[name] != there[name]:
            found.append(f"{name} is defined as {there[name]}, and was as {wanted[name]}")
    return sorted(found)


def check(connection: sqlite3.Connection, query: str) -> str | None:
    """What is wrong with what one of `checks` gives, without telling it; None where it is true.

    It can read this one file: that the connection is for reading alone keeps nobody from writing another one.
    """
    connection.set_authorizer(_allowed)
    try:
        rows = connection.execute(query).fetchmany(2)
    except (sqlite3.Error, sqlite3.Warning) as error:
        return f"check '{query}' cannot be run: {error}"
    if len(rows) != 1 or len(rows[0]) != 1:
        return f"check '{query}' does not give one row with one value"
    if not isinstance(rows[0][0], int) or rows[0][0] == 0:
        return f"check '{query}' is not true"
    return None


def _allowed(action: int, name: str | None, *_more: str | None) -> int:
    """What SQLite asks of a statement's every part. VACUUM INTO, too, attaches the file that it writes."""
    # Where temporary files lie is the whole process's.
    elsewhere = action == sqlite3.SQLITE_PRAGMA and (name or "").lower().endswith("_directory")
    attaches = action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
    return sqlite3.SQLITE_DENY if attaches or elsewhere else sqlite3.SQLITE_OK


def damage(path: Path, most: int) -> tuple[list[str], str | None]:
    """What SQLite finds wrong with a database, `most` lines at most, and what kept it from looking at all of it."""
    with immutable(path) as made:
        try:
            answers = made.execute(f"PRAGMA integrity_check({most:d})").fetchall()
        except sqlite3.OperationalError as error:
            if not str(error).startswith("no such"):
                raise
            # A function, collation or module of the application's own.
            return [], str(error)
    lines = [line for (answer,) in answers for line in answer.splitlines()]
    return [line for line in lines if line != "ok" and not line.startswith("***")][:most], None


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
