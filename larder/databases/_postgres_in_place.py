"""A PostgreSQL backup brought into the live database itself, in one transaction: for servers where none can be created.

Everything is dropped, brought back, counted and checked before the one `COMMIT`, so it is all new or all old. Others
wait meanwhile for what they want to read; whoever holds a lock that we need is disconnected, and nobody else. Nothing
is kept: what takes such a restore back is the backup that was made before it.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import psycopg
from psycopg import sql
from pydantic import SecretStr

from larder.databases import _postgres_client, _postgres_facts, _postgres_target
from larder.databases._postgres_activity import Activity
from larder.databases._postgres_client import Client
from larder.databases._postgres_connection import child_conninfo, connect
from larder.databases._postgres_examine import CHECKER, Table, differences, expected
from larder.databases._postgres_load import Script, checked, explained, for_server, masked
from larder.databases._postgres_loaders import application, loading_environment
from larder.databases._postgres_sessions import MAY_END, WHO
from larder.databases._postgres_snapshot import RELATIONS, trouble
from larder.databases._postgres_target import listed, missing_roles, version_of
from larder.errors import BusyError, HeldError, IntegrityError, LarderError, RefusedError
from larder.process import Process
from larder.progress import Progress
from larder.restoring import Content, Kept, Restorer, Source, Target
from larder.spool import disk_error
from larder.streams import Hashed, durable_file, fsync_folder

Say = Callable[[str], None]

#: In the run's scratch folder: which transaction was about to be committed.
_NOTE = "in_place.json"

#: Seconds that a session may take to end.
_PATIENCE = 30


def _own(catalog: str) -> str:
    """What belongs to no extension."""
    return (
        f"NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{catalog}'::regclass"
        f" AND e.objid = {catalog}.oid AND e.deptype = 'e')"
    )


#: Drops everything that a dump makes again. Event triggers go first, or they would fire at the rest; an extension takes
#: what belongs to it along, and one that is not ours stays where its schema does: a dump makes it `IF NOT EXISTS`.
#: 16384: what initdb has made is below.
_EMPTY = f"""
DO $larder$
DECLARE
    statement text;
    found record;
BEGIN
    FOREACH statement IN ARRAY ARRAY(SELECT s FROM (
        SELECT 1, format('DROP EVENT TRIGGER IF EXISTS %I', evtname)
            FROM pg_event_trigger WHERE {_own("pg_event_trigger")}
        UNION ALL SELECT 2, format('DROP PUBLICATION IF EXISTS %I', pubname) FROM pg_publication
        UNION ALL SELECT 3, 'DROP EXTENSION ' || string_agg(quote_ident(extname), ', ') || ' CASCADE'
            FROM pg_extension WHERE extname <> 'plpgsql' AND pg_has_role(extowner, 'USAGE') HAVING count(*) > 0
        UNION ALL SELECT 4, 'DROP SCHEMA IF EXISTS ' || string_agg(quote_ident(nspname), ', ') || ' CASCADE'
            FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND {_own("pg_namespace")}
            HAVING count(*) > 0
        UNION ALL SELECT 5, format('DROP SERVER IF EXISTS %I CASCADE', srvname)
            FROM pg_foreign_server WHERE {_own("pg_foreign_server")}
        UNION ALL SELECT 6, format('DROP FOREIGN DATA WRAPPER IF EXISTS %I CASCADE', fdwname)
            FROM pg_foreign_data_wrapper WHERE {_own("pg_foreign_data_wrapper")}
        UNION ALL SELECT 7, format('DROP CAST IF EXISTS (%s AS %s) CASCADE', castsource::regtype, casttarget::regtype)
            FROM pg_cast WHERE oid >= 16384 AND {_own("pg_cast")}
        UNION ALL SELECT 8, format('DROP TRANSFORM IF EXISTS FOR %s LANGUAGE %I CASCADE', trftype::regtype,
                                   (SELECT lanname FROM pg_language l WHERE l.oid = trflang))
            FROM pg_transform WHERE {_own("pg_transform")}
        UNION ALL SELECT 9, format('DROP LANGUAGE IF EXISTS %I CASCADE', lanname)
            FROM pg_language WHERE oid >= 16384 AND {_own("pg_language")}
        UNION ALL SELECT 10, format('DROP ACCESS METHOD IF EXISTS %I CASCADE', amname)
            FROM pg_am WHERE oid >= 16384 AND {_own("pg_am")}
        UNION ALL SELECT 11, format('SELECT pg_catalog.lo_unlink(%s)', oid) FROM pg_largeobject_metadata
    ) todo (step, s) ORDER BY step) LOOP
        EXECUTE statement;
    END LOOP;
    -- What new tables are granted by default would be granted to those of the dump too.
    FOR found IN
        SELECT DISTINCT d.defaclrole::regrole AS owner, d.defaclobjtype AS kind, a.grantee,
            CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee_name,
            CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES'
                WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END AS things
        FROM pg_default_acl d, aclexplode(d.defaclacl || acldefault(
            CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END, d.defaclrole)) a
        WHERE d.defaclnamespace = 0 AND pg_has_role(d.defaclrole, 'USAGE')
    LOOP
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %s REVOKE ALL ON %s FROM %s', found.owner, found.things,
                       found.grantee_name);
        IF found.grantee_name = found.owner::text THEN
            EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %s GRANT ALL ON %s TO %s', found.owner, found.things,
                           found.grantee_name);
        ELSIF found.grantee = 0 AND found.kind IN ('f', 'T') THEN
            EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %s GRANT %s ON %s TO PUBLIC', found.owner,
                           CASE found.kind WHEN 'f' THEN 'EXECUTE' ELSE 'USAGE' END, found.things);
        END IF;
    END LOOP;
END $larder$;
"""  # noqa: S608 - constants of our own

#: `public` as initdb makes it, which is what a dump takes for granted: since version 15, and before.
_PUBLIC = (
    "CREATE SCHEMA public AUTHORIZATION pg_database_owner; GRANT USAGE ON SCHEMA public TO PUBLIC;",
    "CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC;",
)
_COMMENT = "COMMENT ON SCHEMA public IS 'standard public schema';"

#: Where what was found is put down: made before the dump's own event triggers are there.
_FINDINGS = (
    "CREATE TEMPORARY TABLE larder_rows (schema_name text, table_name text, rows bigint);",
    "CREATE TEMPORARY TABLE larder_checks (number int, query text, problem text);",
)
_COUNT = f"""
DO $larder$
DECLARE
    found record;
    counted bigint;
BEGIN
    FOR found IN SELECT * FROM ({RELATIONS}) r (id, schema_name, table_name, name, is_table) WHERE is_table LOOP
        EXECUTE format('SELECT count(*) FROM ONLY %I.%I', found.schema_name, found.table_name) INTO counted;
        INSERT INTO pg_temp.larder_rows VALUES (found.schema_name, found.table_name, counted);
    END LOOP;
END $larder$;
"""  # noqa: S608 - constants of our own

_CHECK = "UPDATE pg_temp.larder_checks SET problem = pg_temp.larder_check(query);"

#: What was found, a line each; texts in hexadecimal, whatever they hold. The last is how to know the transaction again:
#: its number, and the oid of a schema that it has made, since a crash may give a number to another one.
_FOUND = (
    "SELECT 'larder rows', encode(convert_to(schema_name, 'UTF8'), 'hex'),"
    " encode(convert_to(table_name, 'UTF8'), 'hex'), rows FROM pg_temp.larder_rows;",
    "SELECT 'larder check', number, encode(convert_to(problem, 'UTF8'), 'hex') FROM pg_temp.larder_checks"
    " WHERE problem IS DISTINCT FROM '' ORDER BY number;",
    "SELECT 'larder transaction', pg_current_xact_id(),"
    " (SELECT oid FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_'"
    " ORDER BY nspname <> 'public', oid LIMIT 1);",
)
_LINE = re.compile(r"^larder (\w+)\|([^|\n]*)\|([^|\n]*)(?:\|(\d+))?$", re.MULTILINE)

_IN_THE_WAY = f"""
    SELECT b.pid, a.pid IS NOT NULL, {WHO}, a.usesysid IS NULL, {MAY_END}
    FROM (SELECT DISTINCT unnest(pg_blocking_pids(pid)) FROM pg_stat_activity
          WHERE application_name = %s AND datname = current_database()) b (pid)
    LEFT JOIN pg_stat_activity a ON a.pid = b.pid AND a.datname = current_database()
    LEFT JOIN pg_roles r ON r.oid = a.usesysid
"""  # noqa: S608 - constants of our own
_OURS = "FROM pg_stat_activity WHERE application_name = %s AND datname = current_database() AND pid <> pg_backend_pid()"
_SUBSCRIPTIONS = """
    SELECT subname FROM pg_subscription
    WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1
"""
#: What has to be dropped, and belongs to somebody whom our role can't act for.
_FOREIGN = f"""
    SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        AND NOT pg_has_role(nspowner, 'USAGE') AND {_own("pg_namespace")}
    UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
        WHERE NOT pg_has_role(evtowner, 'USAGE') AND {_own("pg_event_trigger")}
    UNION ALL SELECT 'publication ' || pubname FROM pg_publication WHERE NOT pg_has_role(pubowner, 'USAGE')
    UNION ALL SELECT 'foreign-data wrapper ' || fdwname FROM pg_foreign_data_wrapper
        WHERE NOT pg_has_role(fdwowner, 'USAGE') AND {_own("pg_foreign_data_wrapper")}
    UNION ALL SELECT 'language ' || lanname FROM pg_language
        WHERE oid >= 16384 AND NOT pg_has_role(lanowner, 'USAGE') AND {_own("pg_language")}
    UNION ALL SELECT 'large object ' || oid FROM pg_largeobject_metadata WHERE NOT pg_has_role(lomowner, 'USAGE')
    ORDER BY 1 LIMIT 20
"""  # noqa: S608 - constants of our own
_SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() ORDER BY 1"


class PostgresInPlace(Restorer):
    """Mode `in-place`."""

    beside: ClassVar[bool] = False

    def look(self) -> Target:
        """See the contract."""
        found = _postgres_target.look(self.settings)
        if not found.exists:
            return found
        with self._connected() as connection:
            slots = [name for (name,) in connection.execute(_SLOTS).fetchall()]
        warnings = [
            "until it is done, everybody else waits for what is in the database; whoever holds a lock is disconnected",
            *(
                f"what reads logical replication slot '{name}' does not see a restore: start it anew"
                for name in slots
            ),
        ]
        if self.settings.exclude:
            warnings.append(
                f"what backups leave out ({listed(list(self.settings.exclude))}) is dropped, and no backup has it"
            )
        return replace(found, warnings=tuple(warnings))

    def refusals(self, source: Source, target: Target) -> list[LarderError]:
        """See the contract."""
        found = _postgres_target.refusals(self.settings, self.plan, source, target)
        doing = f"unable to restore into database '{self.name}'"
        if self.plan.selective:
            found.append(RefusedError(f"{doing}: in-place replaces all of it", "use mode schema for parts"))
        if target.exists:
            with self._connected() as connection:
                subscriptions = [name for (name,) in connection.execute(_SUBSCRIPTIONS).fetchall()]
                foreign = [name for (name,) in connection.execute(_FOREIGN).fetchall()]
            if foreign:
                found.append(
                    RefusedError(
                        f"{doing}: its role may not drop {listed(foreign)}",
                        "connect as who owns them, or as a superuser",
                    )
                )
            if subscriptions:
                found.append(
                    RefusedError(
                        f"{doing}: it has the subscription {listed(subscriptions)}, which no transaction can drop",
                        "DROP SUBSCRIPTION before, or use mode swap",
                    )
                )
        return found

    def load(self, content: Content, progress: Progress, say: Say) -> list[str]:
        """See that the content is whole, and make one SQL script of a folder; the database is not touched."""
        with self._connected() as connection:
            client = self._client(connection, content)
            missing = self._missing_roles(connection, content.source)
        if missing and not self.plan.create_roles:
            raise RefusedError(
                f"unable to restore database '{self.name}': its server has no role {listed(missing)}",
                "create them, or restore with --create-roles",
            )
        if content.folder is None:
            for _ in checked(content, progress):
                pass
        else:
            say(f"Using {client.name('pg_restore')} to make one script")
            self._write_script(client, content, progress)
        return [f"role {listed(missing)} will be created, without the right to log in"] if missing else []

    def examine(self, content: Content, progress: Progress) -> list[str]:
        """Nothing: see `swap`."""
        del content, progress
        return []

    def new_url(self) -> SecretStr:
        """See the contract."""
        return self.settings.url

    def swap(self, content: Content, stamp: str, progress: Progress, say: Say) -> Kept | None:
        """Replace what the database holds. Raises `IntegrityError` where it is not what the backup counted then."""
        del stamp
        note = content.scratch / _NOTE
        with self._connected() as connection:
            self._end_ours(connection)
            if _committed(connection, note):
                return None
            try:
                committing = self._replace(connection, content, progress, say, note)
            finally:
                with contextlib.suppress(psycopg.Error):
                    self._end_ours(connection)
        if committing is not None:
            # Nobody has heard what became of the COMMIT: the server knows.
            with self._connected() as connection:
                self._end_ours(connection)
                if not _committed(connection, note):
                    raise committing
        self._analyze(say)
        return None

    def swapped(self, stamp: str, scratch: Path) -> tuple[bool, Kept | None]:
        """See the contract: whether it was committed. Nothing is kept.

        Only the note in `scratch` knows the transaction: without it, this says that it was not.
        """
        del stamp
        with self._connected() as connection:
            if _committed(connection, scratch / _NOTE):
                return True, None
            if connection.execute(f"SELECT {_OURS}", [application(self.plan.id)]).rowcount:
                raise HeldError(
                    f"unable to tell what became of the restore of database '{self.name}': its session is at work",
                    "wait until it has ended",
                )
            # It may have ended just between the two.
            return _committed(connection, scratch / _NOTE), None

    def drop_new(self) -> bool:
        """Nothing is beside the live database."""
        return False

    def undo(self, kept: Kept, stamp: str, say: Say) -> Kept:
        """Raises `RefusedError`: nothing was kept."""
        del kept, stamp, say
        raise RefusedError(
            f"unable to undo the restore of database '{self.name}': a restore in place keeps nothing",
            "restore the safety backup that was made before it",
        )

    def drop_kept(self, kept: Kept) -> bool:
        """Nothing was kept."""
        del kept
        return False

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        """A connection to the database itself, whose errors are told as the operator should read them."""
        with contextlib.closing(connect(self.name, self.settings.url.get_secret_value())) as connection:
            try:
                yield connection
            except psycopg.Error as error:
                raise trouble(self.name, "unable to restore database", error) from None

    def _client(self, connection: psycopg.Connection, content: Content) -> Client:
        return _postgres_client.choose_loader(
            version_of(connection), content.source.tool, self.settings.postgres_bin
        )

    def _missing_roles(self, connection: psycopg.Connection, source: Source) -> list[str]:
        needs = _postgres_facts.needs(source.fingerprint)
        return missing_roles(connection, set(needs.roles)) if needs else []

    def _write_script(self, client: Client, content: Content, progress: Progress) -> None:
        """Make one script of a folder, and put down its size and hash, by which `swap` knows that it is whole."""
        script = _Script(content.scratch)
        argv = [client.program("pg_restore"), "--no-password", "--file=-", str(content.folder)]
        hashed = Hashed()
        progress.restart(content.source.raw_size)
        try:
            with (
                explained(f"unable to restore database '{self.name}'"),
                durable_file(script.path) as sink,
                Process(argv, stall_seconds=self.settings.stall_timeout) as process,
            ):
                for data in process.output():
                    sink.write(data)
                    hashed.write(data)
                    progress.reach(min(hashed.size, content.source.raw_size))
                process.finish()
            _put_down(script.note, {"raw_size": hashed.size, "raw_sha256": hashed.sha256})
        except OSError as error:
            raise disk_error(error, content.scratch) from error

    def _stream(self, content: Content) -> Content:
        """What psql is fed: the backup itself, or the script that `load` has made of it."""
        if content.folder is None:
            return content
        script = _Script(content.scratch)
        try:
            known = json.loads(script.note.read_text())
        except FileNotFoundError:
            raise LarderError(f"unable to restore database '{self.name}': it has not been loaded") from None
        return replace(content, source=replace(content.source, **known), open=lambda: script.path.open("rb"))

    def _replace(
        self, connection: psycopg.Connection, content: Content, progress: Progress, say: Say, note: Path
    ) -> LarderError | None:
        """Do it; gives the error after which nobody knows whether it was committed."""
        version, ours, given = version_of(connection), application(self.plan.id), self._stream(content)
        progress.restart(given.source.raw_size)
        database = connection.info.dbname
        script = Script(
            f"unable to restore database '{self.name}'",
            self._client(connection, content).program("psql"),
            loading_environment(connection, database, self.plan.id),
            child_conninfo(connection),
            stall_seconds=self.settings.stall_timeout,
            moved=Activity(self.name, connection, database, ours),
            watch=_Way(self.name, connection, ours, say).clear,
        )
        say(f"Replacing what database '{self.name}' holds...")
        try:
            script.run(
                for_server(checked(given, progress), version),
                before=self._before(connection, content.source),
                after=["SET LOCAL row_security = off;", _COUNT, _CHECK, *_FOUND],
                guarded=True,
                confirm=lambda said: self._confirm(said, content.source, note),
            )
        except LarderError as error:
            if not script.committing:
                raise
            return error
        return None

    def _before(self, connection: psycopg.Connection, source: Source) -> list[str]:
        roles = [
            sql.SQL("CREATE ROLE {} NOLOGIN;").format(sql.Identifier(role)).as_string(connection)
            for role in self._missing_roles(connection, source)
        ]
        checks = [
            sql.SQL("INSERT INTO pg_temp.larder_checks VALUES ({}, {});")
            .format(sql.Literal(number), sql.Literal(check))
            .as_string(connection)
            for number, check in enumerate(self.settings.checks)
        ]
        # Loading need not wait for the disk, and its one COMMIT has to.
        lasting = "SET LOCAL synchronous_commit = on;"
        public = _PUBLIC[0 if connection.info.server_version >= 150000 else 1]
        return [
            lasting,
            "SET LOCAL client_min_messages = warning;",
            *roles,
            _EMPTY,
            public,
            _COMMENT,
            *_FINDINGS,
            *CHECKER,
            *checks,
        ]

    def _confirm(self, said: str, source: Source, note: Path) -> None:
        """Raise where what was loaded is not what was backed up; else put down which transaction is committed next."""
        wanted, found, lines, transaction = expected(source.fingerprint), dict[Table, int | None](), [], None
        for kind, first, second, third in _LINE.findall(said):
            if kind == "rows":
                found[_text(first), _text(second)] = int(third)
            elif kind == "check":
                lines.append(f"check {masked(_text(second))}: {self.settings.checks[int(first)]}")
            elif kind == "transaction":
                transaction = {"transaction": first, "schema": second}
        lines = [*differences(wanted, found), *lines]
        if lines or transaction is None:
            raise IntegrityError(
                f"unable to restore database '{self.name}': "
                + ("; ".join(lines) or "psql has not said what it did"),
                "nothing has been changed; see the check, or take another backup",
            )
        _put_down(note, transaction)

    def _end_ours(self, connection: psycopg.Connection) -> None:
        """End what an earlier attempt has left on the server, and wait until it is gone: then its outcome is known."""
        deadline = time.monotonic() + _PATIENCE
        ours = application(self.plan.id)
        while connection.execute(f"SELECT pg_terminate_backend(pid) {_OURS}", [ours]).rowcount:
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"unable to restore database '{self.name}': an earlier attempt's session does not end",
                    f"see application_name '{ours}' in pg_stat_activity",
                )
            time.sleep(0.05)

    def _analyze(self, say: Say) -> None:
        """Gather what the planner goes by; the restore is done, whatever becomes of this."""
        try:
            with self._connected() as connection:
                connection.execute("ANALYZE")
        except LarderError as error:
            say(f"{error.message}: run ANALYZE in it")


@dataclass(frozen=True)
class _Script:
    """What `load` makes of a folder."""

    scratch: Path

    @property
    def path(self) -> Path:
        return self.scratch / "in_place.sql"

    @property
    def note(self) -> Path:
        return self.scratch / "in_place.sql.json"


@dataclass
class _Way:
    """Disconnects whoever holds a lock that our transaction waits for."""

    name: str
    connection: psycopg.Connection
    application: str
    say: Say
    ended: set[int] = field(default_factory=set)

    def clear(self) -> None:
        """For `Process(watch=…)`. Raises `BusyError` for one whom we may not disconnect."""
        try:
            rows = self.connection.execute(_IN_THE_WAY, [self.application]).fetchall()
            for pid, here, who, is_system, may_end in rows:
                if pid == 0:
                    self._refuse("a prepared transaction", "COMMIT PREPARED or ROLLBACK PREPARED it")
                if not here or is_system or pid in self.ended:
                    continue
                if not may_end:
                    self._refuse(who, "GRANT pg_signal_backend TO the role, or end that session")
                self.say(f"Disconnecting {who}, which holds a lock")
                self.connection.execute("SELECT pg_terminate_backend(%s)", [pid])
                self.ended.add(pid)
        except psycopg.Error as error:
            raise trouble(self.name, "unable to restore database", error) from None

    def _refuse(self, who: str, hint: str) -> None:
        raise BusyError(
            f"unable to restore database '{self.name}': a lock in it is held by {who}",
            f"{hint}; nothing has been changed",
        )


def _committed(connection: psycopg.Connection, note: Path) -> bool:
    """Whether the transaction that an earlier call was about to commit has been; its session is gone by now."""
    if not note.exists():
        return False
    known = json.loads(note.read_text())
    query = (
        "SELECT pg_xact_status(%s::text::xid8) = 'committed'"
        " AND (%s = '' OR EXISTS (SELECT FROM pg_namespace WHERE oid = nullif(%s, '')::oid))"
    )
    try:
        row = connection.execute(query, [known["transaction"], known["schema"], known["schema"]]).fetchone()
    except psycopg.errors.InvalidParameterValue:
        # A crash has taken back even the number.
        return False
    return row is not None and row[0] is True


def _put_down(note: Path, known: dict[str, object]) -> None:
    written = note.with_name(f"{note.name}.new")
    with durable_file(written) as file:
        file.write(json.dumps(known).encode())
    written.replace(note)
    fsync_folder(note.parent)


def _text(digits: str) -> str:
    return bytes.fromhex(digits).decode()
