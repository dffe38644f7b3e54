"""A dump on its way into a database: psql is fed a stream, in one transaction, or pg_restore reads a folder.

Nothing is committed that was not read to its end and found to be what its manifest says: `COMMIT` is written by us,
after the last byte. psql's own `--single-transaction` would commit what there is of a stream that ends early.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from larder.databases._postgres_client import major_of
from larder.databases._postgres_connection import HARDENED
from larder.databases._postgres_unwrap import in_one_transaction
from larder.errors import (
    ExhaustedError,
    IntegrityError,
    LarderError,
    RefusedError,
    RejectedError,
    UnreachableError,
)
from larder.process import Process, ProcessError, StalledError
from larder.progress import Progress
from larder.restoring import Content
from larder.streams import HashedReader, chunks

#: How far into a dump its preamble may reach.
_PREAMBLE = 8192

#: The first version whose pg_dump and pg_restore set what older servers do not know, and stop at.
SETS_NEWER_FROM = 17
_NEWER_SETTINGS = ((b"\nSET transaction_timeout = 0;\n", SETS_NEWER_FROM),)

#: An error is raised at a `COMMIT` that is not ours.
_GUARD = (
    "CREATE FUNCTION pg_temp.larder_unfinished() RETURNS trigger LANGUAGE plpgsql"
    " SET search_path = pg_catalog, pg_temp AS $guard$ BEGIN"
    " IF current_setting('larder.finished', true) IS DISTINCT FROM 'yes' THEN"
    " RAISE EXCEPTION 'the backup ends a transaction that it did not begin'; END IF; RETURN NULL; END $guard$;",
    "CREATE TEMPORARY TABLE larder_unfinished (a int);",
    "CREATE CONSTRAINT TRIGGER unfinished AFTER INSERT ON pg_temp.larder_unfinished DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION pg_temp.larder_unfinished();",
    "INSERT INTO pg_temp.larder_unfinished VALUES (1);",
)
_UNGUARD = ("SET LOCAL larder.finished = 'yes';",)

#: What the errors of psql and pg_restore mean: pattern, class, hint.
_MEANINGS: tuple[tuple[str, type[LarderError], str], ...] = (
    (
        r"No space left on device|Disk quota exceeded|could not (?:extend|write to) file|disk full",
        ExhaustedError,
        "free some space on the database server's disk",
    ),
    (
        r"extension .* is not available|could not open extension control file",
        RefusedError,
        "install the extension on the database server",
    ),
    (
        r"permission denied to create extension|must be superuser|permission denied|must be (?:owner|member|able)",
        RefusedError,
        "restore with the role that owned the database, or with a superuser",
    ),
    (r'role ".*" does not exist', RefusedError, "create the role, or restore with --create-roles"),
    (r'tablespace ".*" does not exist', RefusedError, "create the tablespace on the database server"),
    (r'database ".*" does not exist', UnreachableError, "somebody dropped it; see the server's log"),
    (
        r"too many (?:clients|connections)|remaining connection slots",
        UnreachableError,
        "raise max_connections, or the CONNECTION LIMIT of the role",
    ),
    (
        r"server closed the connection|terminating connection|connection to server|could not receive data"
        r"|could not send|SSL SYSCALL|no connection to the server|connection not open|lost synchronization"
        r"|is shutting down|starting up|recovery mode",
        UnreachableError,
        "see the server's log",
    ),
    (
        r"deadlock detected|lock timeout|canceling statement",
        UnreachableError,
        "another session stands in the way; see pg_stat_activity",
    ),
    (
        r"out of shared memory|max_locks_per_transaction",
        LarderError,
        'raise max_locks_per_transaction on the server, or back up with format = "directory"',
    ),
    (
        r"in a read-only transaction",
        RefusedError,
        "see whether the server is a standby; else: ALTER ROLE … RESET default_transaction_read_only",
    ),
    (r"out of memory", LarderError, "see maintenance_work_mem and the memory of the database server"),
    (
        r'(?:collation|conversion|language) ".*" .*does not exist',
        LarderError,
        "see what the database server was built with",
    ),
    (
        r"unrecognized configuration parameter|invalid command",
        LarderError,
        "the backup was made with newer client programs than the server is: restore into a newer one",
    ),
    (
        r"syntax error",
        RejectedError,
        "the backup was made with newer client programs than the server is, or while its objects were changed",
    ),
    (
        r"violates|does not exist|already exists|could not create unique index|invalid input|invalid byte sequence"
        r"|extra data after last expected column|missing data for column|is of type|out of range",
        RejectedError,
        "the backup holds what the server does not take: see whether the database itself could be dumped and restored",
    ),
)


class Script:
    """psql at work on one script, in one transaction, in the database that `environment` leads to.

    `environment` holds the connection (`child_environment`), its password included, and `conninfo` what no environment
    can say. `doing` begins every message: `unable to restore database 'shop'`. `moved` is as `Process` has it: what it
    says changes while the server works for us. Used once.
    """

    def __init__(
        self,
        doing: str,
        psql: str,
        environment: Mapping[str, str],
        conninfo: str = "",
        *,
        stall_seconds: float,
        moved: Callable[[], object] | None = None,
        watch: Callable[[], None] | None = None,
    ) -> None:
        options = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password", "--file=-"]
        # Without context and detail, which quote rows.
        variables = ["ON_ERROR_STOP=1", "VERBOSITY=terse", "SHOW_CONTEXT=never"]
        self.doing = doing
        self._argv = [psql, *options, *(f"--set={given}" for given in variables), f"--dbname={conninfo}"]
        self._environment = environment
        self.stall_seconds = stall_seconds
        self.moved = moved
        self._watch = watch
        #: What `before` and `after` have selected so far, a line each row, columns with | between; also after an error.
        self.said = ""
        #: Whether `COMMIT` may have reached the server: after an error nobody knows then what became of it.
        self.committing = False

    def run(
        self,
        stream: Iterable[bytes],
        *,
        before: Sequence[str] = (),
        after: Sequence[str] = (),
        guarded: bool = False,
        confirm: Callable[[str], None] | None = None,
    ) -> str:
        """Feed `BEGIN`, the statements `before`, `stream`, the statements `after`, and `COMMIT`; gives `said`.

        Whatever `stream` raises ends psql before the `COMMIT`, so it has to raise where it is not whole (`checked`).
        What `stream` selects is thrown away, and only it has the search path of the database; what is ours looks for
        names in PostgreSQL's own schema, so it names every other, in whole statements with their `;`. `confirm` is
        called with `said` when all but the `COMMIT` was done, and stops it by raising. With `guarded`, a `COMMIT`
        within `stream` is an error. (pg_dump's around large objects is left out.)

        Raises what `explained` says.
        """
        with explained(self.doing), self.process() as process:
            output = process.output()
            guard = _GUARD if guarded else ()
            opening = ["\\encoding UTF8", f"{HARDENED};", "BEGIN;", *guard, *before]
            opening += ["RESET search_path;", "\\o /dev/null", ""]
            process.feed("\n".join(opening).encode())
            self._feed(process, iter(stream))
            mark = f"larder-{secrets.token_hex(8)}"
            unguard = _UNGUARD if guarded else ()
            closing = ["", "\\o", "\\encoding UTF8", f"{HARDENED};", *unguard, *after, f"\\echo {mark}", ""]
            process.feed("\n".join(closing).encode())
            self._read(process, output, mark)
            if confirm is not None:
                confirm(self.said)
            self.committing = True
            process.feed(b"COMMIT;\n")
            process.end_input()
            for _ in output:
                pass
            process.finish()
        self.committing = False
        return self.said

    def process(self) -> Process:
        """psql, to be fed whatever it shall do, in the transactions that it is told of; errors end it."""
        return Process(
            self._argv,
            self._environment,
            stall_seconds=self.stall_seconds,
            input=True,
            moved=self.moved,
            watch=self._watch,
        )

    def _feed(self, process: Process, stream: Iterator[bytes]) -> None:
        try:
            for data in in_one_transaction(stream):
                process.feed(data)
        except ProcessError as error:
            if type(_meaning(self.doing, error)) in (LarderError, RejectedError):
                # SQL that makes no sense may be bytes that have changed: then the rest of the stream says so.
                for _ in stream:
                    pass
            raise

    def _read(self, process: Process, output: Iterator[bytes], mark: str) -> None:
        """Read what psql says until it has come to `mark`."""
        raw = b""
        for data in output:
            raw += data
            text = raw.decode("utf-8", errors="replace")
            self.said = text.partition(f"{mark}\n")[0]
            if f"{mark}\n" in text:
                return
        process.finish()
        raise ProcessError(process.tool, 0, process.tail)


def checked(content: Content, progress: Progress) -> Iterator[bytes]:
    """The stream of a backup; raises `IntegrityError` at its end where it is not what the manifest says."""
    source = content.source
    with content.open() as opened:
        reader = HashedReader(opened, progress)
        # It has what `chunks` asks of a file.
        yield from chunks(reader)  # type: ignore[arg-type]
        found = reader.hashed
    if (found.size, found.sha256) != (source.raw_size, source.raw_sha256):
        raise IntegrityError(
            f"unable to restore the backup: it decodes to {found.size} bytes with SHA-256 {found.sha256}, and its"
            f" manifest says {source.raw_size} bytes with {source.raw_sha256}",
            "it has changed since it was fetched: see the disk that the spool is on, and run larder verify",
        )


def for_server(stream: Iterable[bytes], server_version: str) -> Iterator[bytes]:
    """A dump without the settings in its preamble that a server of `server_version` (`16.4`) does not know."""
    major = major_of(server_version)
    unknown = [line for line, since in _NEWER_SETTINGS if major < since]
    pieces, head = iter(stream), b""
    for data in pieces:
        head += data
        if len(head) >= _PREAMBLE:
            break
    start, rest = head[:_PREAMBLE], head[_PREAMBLE:]
    for line in unknown:
        start = start.replace(line, b"\n", 1)
    yield start + rest
    yield from pieces


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Raise what the operator should read, whatever went wrong inside with psql or pg_restore.

    A lost connection, or a program that was killed: `UnreachableError`. The server's disk is full: `ExhaustedError`. A
    right, role, extension or tablespace is missing: `RefusedError`. Everything else of theirs: `LarderError`.
    """
    try:
        yield
    except StalledError as error:
        raise UnreachableError(
            f"{doing}: {error.message.removeprefix('unable to finish ')}",
            "see what holds locks there (pg_stat_activity), or raise stall_timeout",
        ) from None
    except ProcessError as error:
        raise _meaning(doing, error) from None


def _meaning(doing: str, error: ProcessError) -> LarderError:
    found = meaning(doing, _point(error) or f"{error.tool} {error.how}")
    if error.code < 0 and type(found) is LarderError:
        return UnreachableError(found.message, "see the system's log: was it out of memory?")
    return found


def meaning(doing: str, point: str) -> LarderError:
    """The error for what a server or program says is wrong, in `point`, which holds nobody's values (`masked`)."""
    message = f"{doing}: {point}"
    for pattern, kind, hint in _MEANINGS:
        if re.search(pattern, point):
            return kind(message, hint)
    return LarderError(message, "see the server's log")


def _point(error: ProcessError) -> str:
    """The line that says what went wrong, without the values in it, which may be somebody's."""
    said = re.findall(
        r"^psql:[^:\n]*:\d+: (?:ERROR|FATAL|PANIC|error):\s+(.+)$|^(?:psql|pg_restore): error: (.+)$",
        error.tail,
        re.MULTILINE,
    )
    if not said:
        return ""
    # psql goes on with an error that ends it; of pg_restore's the first is the cause.
    psql = [first for first, _ in said if first]
    line = psql[0] if psql else said[0][1]
    line = re.sub(r"^could not execute query: |^query failed: ", "", line)
    line = re.sub(r"\bERROR:\s+", "", line)
    return masked(line)


def masked(line: str) -> str:
    """What a server says is wrong, without the values that it quotes from rows."""
    if re.search(r"invalid (?:input|byte|value)|out of range|too long|malformed", line):
        line = re.sub(r'"[^"]*"?', "…", line)
    # But for a word in capitals: CREATE.
    return line if line[1:2].isupper() else line[:1].lower() + line[1:]
