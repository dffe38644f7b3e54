"""Two PostgreSQL databases exchange names, in one transaction; and back again; and the old one is let go.

`ALTER DATABASE … RENAME` takes the database's lock first and waits for its sessions to leave after that. So the name is
held first, and a second connection ends the sessions once it is: whoever connects meanwhile waits, and is told at the
end that the database has `just been dropped or renamed`; the next try arrives in the new one. Closing the database to
connections first (`ALLOW_CONNECTIONS false`) fails every try in that time, and leaves it closed when we are killed.

What was done is told by oids, which a rename does not change.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from larder.databases import _postgres_facts as database_facts
from larder.databases._postgres_connection import address_of, harden, refusal
from larder.databases._postgres_facts import Facts
from larder.databases._postgres_sessions import TICK, Connect, Evictor, end_sessions, session_words
from larder.databases._postgres_snapshot import trouble
from larder.errors import BusyError, LarderError, RefusedError, UnreachableError
from larder.restoring import Kept
from larder.streams import durable_file, fsync_folder

Say = Callable[[str], None]

#: Seconds to go on trying where sessions come in between, or somebody holds a lock.
PATIENCE = 30

#: Seconds that the first try may hold the name, and the last ones: longer, and clients are better off with the old
#: database for a while. A session can take its time to end, so later tries have more.
_HOLD, _LONGEST_HOLD = 1, 5

#: Seconds between two tries.
_PAUSE = 0.25

_MEANWHILE = "somebody else has renamed or dropped databases meanwhile"


def exchange(
    connect: Connect,
    live: str,
    new: str,
    kept: str,
    facts: Facts | None,
    say: Say,
    note: Path | None = None,
    *,
    may_replace: bool = True,
) -> Kept | None:
    """Have the database `new` take the place of `live`, which stays as `kept`; gives that, None where none was live.

    What `live` is told and allowed at that moment (owner, settings, grants) goes over to the new one; `facts` is for
    where nothing is live. Called again after a kill, it gives the same. `note` is a file that it may write, which has
    to outlive a kill: without it, a swap into an empty place that was done already can't be told from a lost `new`.

    Raises `BusyError` naming who holds a database, and `RefusedError`, also where something is live and `may_replace`
    is not true; the live database is untouched then.
    """
    found = _look(connect, live, new, kept)
    move = _noted(note)
    if move is None or not move.done(found):
        if live in found and not may_replace:
            raise _unapproved(live)
        if new in found and kept not in found:
            move = _Move(live, new, found[new], kept, found.get(live))
            _write(note, move)
        elif move is None and new not in found and live in found and kept in found:
            move = _Move(live, new, found[live], kept, found[kept])
        else:
            raise _out_of_place(
                live,
                f"there is no database '{new}'"
                if new not in found
                else f"there is a database '{kept}' already",
            )
        _carry_out(connect, move, facts, say)
    return _kept(connect, move)


def exchanged(
    connect: Connect, live: str, new: str, kept: str, note: Path, *, may_replace: bool = True
) -> tuple[bool, Kept | None]:
    """Whether `exchange` has been made, and is not undone, and what it keeps.

    Where neither `note` nor what is kept can tell, and its folder is gone: by whether something is live, and `new` is
    not there, where nothing was to be replaced.
    """
    found = _look(connect, live, new, kept)
    move = _noted(note)
    if move is not None and found.get(live) == move.incoming_oid:
        # What was kept may have been let go of since.
        there = move.outgoing_oid is not None and found.get(move.outgoing) == move.outgoing_oid
        return True, _kept(connect, move) if there else None
    if new in found or live not in found:
        return False, None
    if kept in found:
        return True, _kept(connect, _Move(live, new, found[live], kept, found[kept]))
    return not may_replace and not note.parent.exists(), None


def put_back(connect: Connect, live: str, kept: Kept, undone: str, say: Say) -> Kept:
    """Have `kept` take the place of `live` again, which stays as `undone`; gives that. Called again, the same.

    Where nothing is live there is nothing to keep: what is given then has the identity `0`.
    Raises `RefusedError` where `kept` is gone, or its name is another database's; else as `exchange`.
    """
    oid = int(kept.identity)
    found = _look(connect, live, kept.name, undone)
    if found.get(live) == oid:
        move = _Move(live, kept.name, oid, undone, found.get(undone))
    elif found.get(kept.name) != oid:
        gone = "is another one by now" if kept.name in found else "is gone"
        raise RefusedError(
            f"unable to put back database '{live}': what was kept, '{kept.name}', {gone}",
            "restore the safety backup, or an earlier one",
        )
    elif undone in found:
        raise _out_of_place(live, f"there is a database '{undone}' already")
    else:
        move = _Move(live, kept.name, oid, undone, found.get(live))
        _carry_out(connect, move, None, say)
    return _kept(connect, move) or Kept(undone, "0", 0)


def drop(connect: Connect, kept: Kept) -> bool:
    """Remove the database that was kept, with its sessions; says whether there was one of that name and oid.

    Raises `BusyError` where it is held by a prepared transaction, a replication slot or a subscription.
    """
    with contextlib.closing(connect()) as connection:
        try:
            if _oids(connection, kept.name).get(kept.name) != int(kept.identity):
                return False
            name = sql.Identifier(kept.name)
            # A template can't be dropped, and what was kept of one still is one.
            if (facts := database_facts.read(connection, kept.name)) and facts.is_template:
                connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(name))
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        except psycopg.errors.InvalidCatalogName:
            return False
        except psycopg.errors.ObjectInUse as error:
            raise BusyError(
                f"unable to drop database '{kept.name}': {_words(error)}",
                "end what uses it: a prepared transaction, a replication slot, a subscription or a session",
            ) from None
        except psycopg.Error as error:
            raise _meaning(kept.name, "unable to drop database", error) from None
    return True


@dataclass(frozen=True)
class _Move:
    """Which database takes which one's place."""

    live: str
    incoming: str
    incoming_oid: int
    outgoing: str
    #: None where nothing is live.
    outgoing_oid: int | None

    @property
    def names(self) -> tuple[str, str, str]:
        return self.live, self.incoming, self.outgoing

    @property
    def oids(self) -> list[int]:
        return [oid for oid in (self.outgoing_oid, self.incoming_oid) if oid is not None]

    def done(self, found: dict[str, int]) -> bool:
        return found.get(self.live) == self.incoming_oid and self.outgoing_oid in (
            None,
            found.get(self.outgoing),
        )

    def ready(self, found: dict[str, int]) -> bool:
        return (
            found.get(self.incoming) == self.incoming_oid
            and found.get(self.live) == self.outgoing_oid
            and self.outgoing not in found
        )


def _carry_out(connect: Connect, move: _Move, facts: Facts | None, say: Say) -> None:
    """Try until it is done, looking afresh before each try: after a lost connection nobody knows whether it was."""
    deadline = time.monotonic() + PATIENCE
    reason: psycopg.Error | None = None
    hold = _HOLD
    while True:
        try:
            with contextlib.closing(connect()) as connection:
                found = _oids(connection, *move.names)
                if move.done(found):
                    _arrive(connection, move, say)
                    return
                if not move.ready(found):
                    # With an empty place approved, RENAME itself has refused what appeared in it.
                    raise _out_of_place(move.live, _MEANWHILE)
                _refuse_hindrances(connection, move)
                if reason is not None and time.monotonic() >= deadline:
                    raise _busy(connection, move, reason)
                held = _attempt(connection, connect, move, facts, hold)
                say(
                    f"Put '{move.incoming}' in the place of '{move.live}', whose name was held for {held:.2f} s"
                    if move.outgoing_oid is not None
                    else f"Gave '{move.incoming}' the name '{move.live}'"
                )
                continue
        except psycopg.Error as error:
            if not _passing(error):
                raise _meaning(move.live, "unable to exchange database", error) from None
            reason, hold = error, min(hold + 1, _LONGEST_HOLD)
        except UnreachableError as error:
            # It went away while we were at it, and may come back to say what became of the last try.
            if isinstance(error, RefusedError) or reason is None or time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE)


def _attempt(
    connection: psycopg.Connection, connect: Connect, move: _Move, facts: Facts | None, hold: int
) -> float:
    """Exchange the names, all or nothing, within about `hold` seconds; gives those that the live one's was held."""
    _empty(connection, move.incoming_oid)
    with connection.transaction():
        connection.execute(
            "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
            [f"{_HOLD}s", f"{hold}s"],
        )
        # An answer that a crash of the server could take back would be none.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
        )
        (process,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        since = time.monotonic()
        if move.outgoing_oid is not None:
            with Evictor(connect, move.outgoing_oid, process):
                since = time.monotonic()
                _rename(connection, move.live, move.outgoing)
            # What somebody has changed while the new one was loaded counts.
            facts = database_facts.read(connection, move.outgoing)
        _rename(connection, move.incoming, move.live)
        if facts is not None:
            database_facts.apply(connection, move.live, facts)
        if not move.done(_oids(connection, *move.names)):
            raise _out_of_place(move.live, _MEANWHILE)
    return time.monotonic() - since


def _rename(connection: psycopg.Connection, old: str, new: str) -> None:
    connection.execute(
        sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))
    )


def _empty(connection: psycopg.Connection, oid: int) -> None:
    """End the sessions of the incoming database, so that RENAME need not wait for them while a name is held."""
    deadline = time.monotonic() + _PAUSE
    while end_sessions(connection, [oid]) and time.monotonic() < deadline:
        time.sleep(TICK)


def _look(connect: Connect, *names: str) -> dict[str, int]:
    try:
        with contextlib.closing(connect()) as connection:
            return _oids(connection, *names)
    except psycopg.Error as error:
        raise _meaning(names[0], "unable to exchange database", error) from None


def _oids(connection: psycopg.Connection, *names: str) -> dict[str, int]:
    query = "SELECT datname, oid::bigint FROM pg_database WHERE datname = ANY (%s)"
    return {str(name): int(oid) for name, oid in connection.execute(query, [list(names)]).fetchall()}


def _kept(connect: Connect, move: _Move) -> Kept | None:
    """What was live, with its size, where our role may know that."""
    if move.outgoing_oid is None:
        return None
    query = (
        "SELECT CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) ELSE 0 END"
        " FROM pg_database WHERE oid = %s"
    )
    row = None
    # Done is done: a size is not worth an error.
    with contextlib.suppress(psycopg.Error, LarderError), contextlib.closing(connect()) as connection:
        row = connection.execute(query, [move.outgoing_oid]).fetchone()
    return Kept(move.outgoing, str(move.outgoing_oid), int(row[0]) if row else 0)


def _noted(note: Path | None) -> _Move | None:
    """What an earlier call was about to do; None where there was none."""
    if note is None or not note.exists():
        return None
    said: dict[str, Any] = json.loads(note.read_text())
    return _Move(**said)


def _write(note: Path | None, move: _Move) -> None:
    if note is not None:
        written = note.with_name(f"{note.name}.new")
        with durable_file(written) as file:
            file.write(json.dumps(asdict(move)).encode())
        written.replace(note)
        fsync_folder(note.parent)


def _arrive(connection: psycopg.Connection, move: _Move, say: Say) -> None:
    """Connect by the live name, and see that this leads to the new database; raises nothing, for it is done."""
    given = {
        option.keyword.decode(): option.val.decode()
        for option in connection.pgconn.info
        if option.val is not None and option.val != option.compiled
    }
    try:
        conninfo = make_conninfo("", **(given | {"dbname": move.live}))
        with contextlib.closing(harden(psycopg.connect(conninfo, autocommit=True))) as arrived:
            row = arrived.execute(
                "SELECT oid::bigint FROM pg_database WHERE datname = current_database()"
            ).fetchone()
    except psycopg.Error as error:
        # The exchange is done, whoever may connect.
        say(refusal(move.live, address_of(connection), str(error)).message)
        return
    if row is None or row[0] != move.incoming_oid:
        say(
            f"The exchange is done, and the name '{move.live}' leads to another database from here: "
            "see what stands between this machine and the server: a pooler?"
        )


def _refuse_hindrances(connection: psycopg.Connection, move: _Move) -> None:
    """Raise what would stop the exchange, before anybody's session is ended for it."""
    doing = f"unable to exchange database '{move.live}'"
    if connection.info.dbname in move.names:
        raise RefusedError(
            f"{doing}: no other database of its server can be connected to, and nobody renames the one they are in",
            "let the role connect to database postgres, or restore in mode in-place",
        )
    for query, kind, what, hint in _HINDRANCES:
        found = [str(name) for (name,) in connection.execute(query, {"oids": move.oids}).fetchall()]
        if found:
            raise kind(f"{doing}: {what} {', '.join(found[:5])}", hint)
    for who, may_end in session_words(connection, *move.oids):
        if not may_end:
            raise BusyError(
                f"{doing}: it is in use by {who}, whom role '{connection.info.user}' may not disconnect",
                "GRANT pg_signal_backend TO the role (a superuser's sessions only a superuser can end), or end it",
            )


#: What stops an exchange: query, class, message, hint.
_HINDRANCES: tuple[tuple[str, type[LarderError], str, str], ...] = (
    (
        "SELECT datname FROM pg_database WHERE oid = ANY (%(oids)s) AND NOT pg_has_role(datdba, 'USAGE')",
        RefusedError,
        "the role of the connection string does not own",
        "connect as the owner of the database, or as a superuser",
    ),
    (
        "SELECT rolname FROM pg_roles WHERE rolname = current_user AND NOT (rolsuper OR rolcreatedb)",
        RefusedError,
        "renaming takes the right to create databases, which is not had by role",
        "ALTER ROLE … CREATEDB, or restore in mode in-place",
    ),
    (
        "SELECT p.gid FROM pg_prepared_xacts p JOIN pg_database d ON d.datname = p.database"
        " WHERE d.oid = ANY (%(oids)s)",
        BusyError,
        "it is held by the prepared transaction",
        "COMMIT PREPARED or ROLLBACK PREPARED it; pg_prepared_xacts shows who prepared it",
    ),
    (
        "SELECT s.slot_name FROM pg_replication_slots s JOIN pg_database d ON d.datname = s.database"
        " WHERE s.active AND d.oid = ANY (%(oids)s)",
        BusyError,
        "somebody reads from its logical replication slot",
        "disable the subscription (ALTER SUBSCRIPTION … DISABLE) or stop the reader: a slot stays with the old "
        "database, so the reader has to begin anew with the restored one",
    ),
)


def _busy(connection: psycopg.Connection, move: _Move, reason: psycopg.Error) -> LarderError:
    holders = [who for who, _ in session_words(connection, *move.oids)]
    if not holders and not isinstance(reason, psycopg.errors.ObjectInUse | psycopg.errors.LockNotAvailable):
        return _meaning(move.live, "unable to exchange database", reason)
    return BusyError(
        f"unable to exchange database '{move.live}': it was in use for {PATIENCE} s, by "
        + (", ".join(holders[:5]) or "somebody who holds its lock")
        + f" ({_words(reason)})",
        "stop what connects to it, or see pg_stat_activity and pg_locks; nothing has been changed",
    )


def _out_of_place(live: str, what: str) -> RefusedError:
    return RefusedError(
        f"unable to exchange database '{live}': {what}",
        "see which databases there are; nothing has been changed",
    )


def _unapproved(live: str) -> RefusedError:
    return RefusedError(
        f"unable to put a new database in the place of '{live}': something of that name is there now, "
        "which nobody has approved to replace",
        "ask for the restore again, or rename what is there; nothing has been changed",
    )


def _passing(error: psycopg.Error) -> bool:
    """Whether another try may end otherwise: somebody came in between, or the connection was lost."""
    state = error.sqlstate or ""
    # 3D000 and 42P04: a name that was there is not, or the other way round; looking again tells what happened.
    return (
        state in ("", "55006", "55P03", "57014", "40001", "40P01", "3D000", "42P04")
        or state[:2] in ("08", "57")
        or "tuple concurrently" in str(error)
    )


def _meaning(name: str, doing: str, error: psycopg.Error) -> LarderError:
    if error.sqlstate == "42501":
        return RefusedError(
            f"{doing} '{name}': {_words(error)}",
            "connect as its owner with CREATEDB, or as a superuser; nothing has been changed",
        )
    return trouble(name, doing, error)


def _words(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error).partition("\n")[0]).strip()
