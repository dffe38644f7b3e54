"""The configuration tables of extensions: tables that came with one, of which a dump holds the rows that people add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from larder.databases import _postgres_content

#: What an extension has told `pg_extension_config_dump`: a table, and which of its rows are people's own.
_TABLES = """
    SELECT e.extname, c.oid, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), u.condition
    FROM pg_extension e, unnest(e.extconfig, e.extcondition) u (relation, condition)
         JOIN pg_class c ON c.oid = u.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE e.oid >= 16384 AND c.relkind = 'r'
    ORDER BY 3, 4
"""
_VERSIONS = "SELECT extname, extversion FROM pg_extension"


@dataclass(frozen=True)
class Configured:
    """One such table."""

    extension: str
    oid: int
    schema: str
    table: str
    #: As SQL writes it.
    name: str
    #: `WHERE …`, as the extension's script has it; empty for all rows.
    condition: str

    def read(self, connection: psycopg.Connection, *, hashed: bool) -> dict[str, Any]:
        """What a fingerprint holds of it. `SETTINGS` of content hold in the session. Raises `psycopg.Error`."""
        if hashed:
            rows, content = _postgres_content.content(connection, self.schema, self.table, self.condition)
            return {"extension": self.extension, "rows": rows, "content": content}
        query = sql.SQL("SELECT count(*) FROM ONLY {} {}").format(
            sql.Identifier(self.schema, self.table), sql.SQL(self.condition)
        )
        (rows,) = connection.execute(query).fetchone() or (0,)
        return {"extension": self.extension, "rows": int(rows)}


def tables(connection: psycopg.Connection) -> list[Configured]:
    """All of a database. Raises `psycopg.Error`."""
    return [Configured(*row) for row in connection.execute(_TABLES).fetchall()]


def compare(
    connection: psycopg.Connection, database: dict[str, Any], differences: list[str], not_covered: list[str]
) -> None:
    """Add to `differences` how the tables differ from what a fingerprint says of its `database`.

    What it does not say, and whatever differs where the extension is of another version here, whose script may have
    other rows of its own, goes to `not_covered`. Raises `psycopg.Error`.
    """
    there = {found.name: found for found in tables(connection)}
    wanted = database.get("configuration")
    if wanted is None:
        not_covered += [f"the rows of {name}, which the fingerprint does not hold" for name in there]
        return
    here = {str(name): str(version) for name, version in connection.execute(_VERSIONS).fetchall()}
    for name, before in wanted.items():
        extension, line = before["extension"], ""
        if name not in there:
            line = f"table {name} of extension {extension} is missing"
        else:
            now = there[name].read(connection, hashed="content" in before)
            if now["rows"] != before["rows"]:
                line = f"table {name} of extension {extension}: expected {before['rows']} rows, found {now['rows']}"
            elif now.get("content") != before.get("content"):
                line = f"table {name} of extension {extension}: its content differs (it has as many rows as it had)"
        if not line:
            continue
        version = database.get("extensions", {}).get(extension)
        if version == here.get(extension):
            differences.append(line)
        else:
            not_covered.append(
                f"{line}; the extension was of version {version}, and is {here.get(extension)}"
            )
