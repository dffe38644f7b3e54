"""PostgreSQL connection strings: read, checked, connected with, and handed on to pg_dump by environment.

libpq itself does the reading, so every shape that psql takes is taken here. What is added: SQLAlchemy's spelling of
the scheme, the query parameters of Prisma and its like, which libpq rejects, and the socket's folder, which libpq
looks for where its builder had it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import LiteralString
from urllib.parse import quote, unquote

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from larder import secret
from larder.errors import ConfigurationError, LarderError, RefusedError, UnreachableError
from larder.problems import nearest

#: Seconds that a server may take to answer, where the connection string does not say.
CONNECT_TIMEOUT = 10

_SCHEME = re.compile(r"(?:postgres|postgresql)(?:\+[a-z0-9_]+)?://", re.IGNORECASE)
_KEYWORDS = frozenset(option.keyword.decode() for option in Conninfo.get_defaults())
_KEYWORD_FORM = re.compile(rf"\s*(?:{'|'.join(sorted(_KEYWORDS))})\s*=")

#: Query parameters that object mappers and poolers write into connection strings, and libpq does not know.
FOREIGN = frozenset(
    """
    binary_parameters charset checkout_timeout connection_lifetime connection_limit
    default_query_exec_mode driver encoding idle_timeout max_connection_lifetime
    max_idle_connection_lifetime max_overflow pgbouncer pool pool_max_conns pool_max_conn_idle_time
    pool_max_conn_lifetime pool_min_conns pool_mode pool_pre_ping pool_recycle pool_size pool_timeout
    poolsize preparethreshold prepared_statement_cache_size prepared_statements schema search_path
    serverversion single_use_connections socket_timeout sslaccept sslidentity statement_cache_capacity
    statement_cache_size statement_timeout supa uselibpqcompat workaround
    """.split()
)

#: Where a server's socket may lie: Debian's and Red Hat's folder, then PostgreSQL's own.
SOCKET_FOLDERS = (Path("/var/run/postgresql"), Path("/tmp"))  # noqa: S108 - that is where it is

#: A dead connection is noticed within about two minutes, where the connection string does not say.
_KEEPALIVES = {"keepalives_idle": "60", "keepalives_interval": "10", "keepalives_count": "6"}

#: Options that pg_dump must not be given: what they stand for has been settled by our own connection.
_SETTLED = frozenset(
    """
    service servicefile host hostaddr port password passfile client_encoding replication
    target_session_attrs load_balance_hosts
    """.split()
)

#: Where names are looked for in our own sessions: nowhere that anybody else may make something. A function in `public`
#: whose arguments fit better than those of PostgreSQL's own goes before it, and `ALTER DATABASE … SET search_path`,
#: which takes an owner, puts any schema first; both would run as us, and we may be a superuser.
HARDENED = "SET search_path = pg_catalog, pg_temp"

#: How catalogs word names and literals, whatever role, database and configuration file say.
WORDING: tuple[LiteralString, ...] = ("quote_all_identifiers = off", "standard_conforming_strings = on")

#: What may end a session while it works or waits, and the version that has it first.
_TIMEOUTS = {
    "statement_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
    "idle_session_timeout": 140000,
    "transaction_timeout": 170000,
}
#: The version that has event triggers on login, and may switch them off.
_LOGIN_TRIGGERS = 170000
_UNTRIGGERED: ContextVar[bool] = ContextVar("untriggered", default=False)

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

_ENCODE = "percent-encode what is special in the password: @ is %40, / is %2F, : is %3A, # is %23, ? is %3F, % is %25"

_WAIT = re.compile(
    r"starting up|shutting down|recovery mode|not yet accepting|too many (?:clients|connections)"
    r"|remaining connection slots|timeout|timed out|refused|temporary failure|no such file|unreachable"
    r"|no route|closed the connection|reset by peer|could not (?:connect|translate|receive|send)",
    re.IGNORECASE,
)
#: What a server says when it refuses, and the cure.
_REFUSALS = (
    (r"password authentication failed", "see that user and password in the connection string are right"),
    (r"no password supplied", "write the password into the connection string, or into ~/.pgpass"),
    (
        r"role .* does not exist|no such user",
        "create the role, or name another user in the connection string",
    ),
    (
        r"database .* does not exist|no such database",
        "create the database, or name another one in the connection string",
    ),
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        "allow this host, user and database in the server's pg_hba.conf",
    ),
    (r"not permitted to log in", "ALTER ROLE … LOGIN, or name another user in the connection string"),
    (r"not currently accepting connections", "ALTER DATABASE … ALLOW_CONNECTIONS true"),
    (r"permission denied for database", "GRANT CONNECT ON DATABASE … to the role"),
    (r"does not support SSL|SSL|certificate", "see sslmode and sslrootcert in the connection string"),
    (r"authentication|SASL|GSSAPI|peer", "see that the server's pg_hba.conf and the connection string agree"),
    (r"definition of service|service file", "see the service in ~/.pg_service.conf, or PGSERVICEFILE"),
    (r"invalid .*(?:port|integer|value|option)", "see the connection string"),
)


def recognises(url: str) -> bool:
    """Whether `url` is a PostgreSQL connection string: a URL, or `host=… dbname=…`."""
    return bool(_SCHEME.match(url) or _KEYWORD_FORM.match(url))


def check_url(url: str) -> str | None:
    """What is wrong with the connection string, secrets left out; None where it can be used."""
    try:
        parameters(url)
    except ConfigurationError as error:
        return f"{error.message} ({error.hint})"
    return None


def parameters(url: str) -> dict[str, str]:
    """What the connection string says, by libpq's keywords; what only object mappers know is left out.

    Raises `ConfigurationError`, without quoting the string, where libpq would not take it.
    """
    cleaned = _without_foreign(url)
    try:
        options = Conninfo.parse(cleaned.encode())
    except (psycopg.Error, ValueError) as error:
        raise ConfigurationError(*_explain(str(error))) from None
    found = {option.keyword.decode(): option.val.decode() for option in options if option.val is not None}
    for keyword in ("password", "sslpassword"):
        secret.register(found.get(keyword, ""))
    path = url.partition("://")[2].partition("?")[0].partition("/")[2] if _SCHEME.match(url) else ""
    _check(found, path)
    return found


def _check(found: Mapping[str, str], path: str) -> None:
    """Raise `ConfigurationError` for what libpq would notice later, and then quote."""
    if "@" in found.get("host", "") or "@" in path:
        raise ConfigurationError("it has more than one @", _ENCODE)
    for port in filter(None, found.get("port", "").split(",")):
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigurationError(
                "its port is not a number from 1 to 65535",
                "if the password holds : or /, percent-encode them",
            )
    if found.get("sslmode", "prefer") not in _SSL_MODES:
        raise ConfigurationError("its sslmode is unknown", f"use one of: {', '.join(_SSL_MODES)}")
    if found.get("sslpassword"):
        raise ConfigurationError(
            "it has an sslpassword, which pg_dump takes on its command line only",
            "use a key without a password",
        )


def _explain(reason: str) -> tuple[str, str]:
    """What libpq found wrong, without its words: they quote the string."""
    if "percent-encoded" in reason or "%00" in reason:
        return "it has a % that is not followed by two hexadecimal digits", _ENCODE
    if "IPv6" in reason or "]" in reason:
        return "its IPv6 address is not closed", "write it as postgresql://user@[::1]:5432/name"
    if "connection option" in reason or "query parameter" in reason:
        return "it has a parameter that PostgreSQL does not know", "the documentation of libpq lists them"
    return (
        "PostgreSQL does not understand it",
        f"write it as postgresql://user:password@host:5432/name; {_ENCODE}",
    )


def _without_foreign(url: str) -> str:
    match = _SCHEME.match(url)
    if match is None:
        return url
    rest = url[match.end() :]
    mark = rest.find("?", _end_of_login(rest))
    if mark < 0:
        return f"postgresql://{rest}"
    kept = []
    for pair in filter(None, rest[mark + 1 :].split("&")):
        key = unquote(pair.partition("=")[0])
        if key in _KEYWORDS or key == "ssl":
            kept.append(pair)
        elif key.lower() not in FOREIGN:
            if "@" in rest[mark:]:
                raise ConfigurationError("it has an @ after a ?", _ENCODE)
            near = nearest(key, sorted(_KEYWORDS))
            raise ConfigurationError(
                f"it has the parameter '{key}', which PostgreSQL does not know",
                f"did you mean '{near}'?" if near else "remove it",
            )
    return f"postgresql://{rest[:mark]}" + (f"?{'&'.join(kept)}" if kept else "")


def _end_of_login(rest: str) -> int:
    # As libpq does it: user and password end at the first @ that no / comes before, and may hold a ?.
    first = re.search(r"[@/]", rest)
    return first.end() if first is not None and first[0] == "@" else 0


def database_in(url: str) -> str:
    """The database's name that libpq would find; empty where a service file has it."""
    found = parameters(url)
    if found.get("dbname"):
        return found["dbname"]
    if found.get("service") or _default("service"):
        return ""
    return _default("dbname") or found.get("user") or _default("user")


def with_database(url: str, name: str) -> str:
    """The same connection string, for another database of the same server; what else is in it stays."""
    match = _SCHEME.match(url)
    if match is None:
        return make_conninfo(url, dbname=name)
    rest = url[match.end() :]
    begin = _end_of_login(rest)
    path = re.compile(r"[/?]|$").search(rest, begin)
    assert path is not None  # noqa: S101 - it matches at the end
    query = rest[begin:].partition("?")[2]
    kept = [pair for pair in filter(None, query.split("&")) if unquote(pair.partition("=")[0]) != "dbname"]
    start = url[: match.end()] + rest[: path.start()]
    return f"{start}/{quote(name, safe='')}" + (f"?{'&'.join(kept)}" if kept else "")


def address_in(url: str) -> str:
    """Where the connection string leads, in one spelling, without user and secrets, with libpq's defaults filled in.

    A `hostaddr` is where libpq connects to, whatever the host is called, and a service may hold one.
    """
    found = parameters(url)
    name = quote(database_in(url), safe="")
    service = found.get("service") or _default("service")
    numeric = found.get("hostaddr") or _default("hostaddr")
    given = {**found, **_socket(found)}
    host = given.get("host") or ("" if service else numeric or _default("host") or "localhost")
    places = ""
    if host:
        hosts = host.split(",")
        ports = (given.get("port") or _default("port") or "5432").split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        places = ",".join(f"{_spelt(one)}:{port or 5432}" for one, port in zip(hosts, ports, strict=False))
    more = {"hostaddr": "" if numeric == host else numeric, "service": service}
    if service and not host:
        more["port"] = found.get("port", "")
    query = "&".join(f"{key}={quote(value, safe=':')}" for key, value in more.items() if value)
    return f"postgresql://{places}/{name}" + (f"?{query}" if query else "")


def _spelt(host: str) -> str:
    if host.startswith("/"):
        return quote(host, safe="")
    return _bracketed(host) if ":" in host else quote(host.lower(), safe="")


def connect(name: str, url: str) -> psycopg.Connection:
    """Connect to the database that `url` leads to, which messages call `name`; the connection is in autocommit.

    It is `HARDENED`: what is not PostgreSQL's own has to be named with its schema. Nothing times out. Raises
    `UnreachableError` where nothing answers (a later try may fare better), and `RefusedError`.
    """
    given = _given(name, url)
    try:
        connection = (_untriggered(given) if _UNTRIGGERED.get() else None) or _patient(given)
    except psycopg.Error as error:
        raise refusal(name, address(given), str(error)) from None
    if connection.pgconn.password:
        secret.register(connection.pgconn.password.decode(errors="replace"))
    return connection


@contextlib.contextmanager
def untriggered() -> Iterator[None]:
    """Within this block `connect` leads to a database that we have restored, whose event triggers are not to fire.

    One on login is somebody's own, and may write into the very tables that we are about to compare. It takes PostgreSQL
    17 and a superuser to keep it from that, and no pooler on the way: see `fires_on_login`.
    """
    token = _UNTRIGGERED.set(True)
    try:
        yield
    finally:
        _UNTRIGGERED.reset(token)


def fires_on_login(connection: psycopg.Connection) -> bool:
    """Whether the database had a trigger fired when `connection` was made."""
    if connection.info.server_version < _LOGIN_TRIGGERS:
        return False
    (fired,) = connection.execute(
        "SELECT current_setting('event_triggers')::bool AND EXISTS (SELECT FROM pg_event_trigger"
        " WHERE evtevent = 'login' AND evtenabled IN ('O', 'A'))"
    ).fetchone() or (False,)
    return bool(fired)


def _given(name: str, url: str) -> dict[str, str]:
    """What libpq is told of the database that messages call `name`."""
    try:
        found = parameters(url)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"unable to use the connection string of '{name}': {error.message}", error.hint
        ) from None
    given = {
        **_KEEPALIVES,
        "application_name": "larder",
        **found,
        "client_encoding": "UTF8",
        **_socket(found),
    }
    if "connect_timeout" not in given and not _default("connect_timeout"):
        given["connect_timeout"] = str(CONNECT_TIMEOUT)
    return given


def _opened(given: Mapping[str, str]) -> psycopg.Connection:
    # Only what libpq knows gets here, and no cursor factory or the like can.
    return psycopg.connect(make_conninfo(**given), autocommit=True, prepare_threshold=None)


def _untriggered(given: Mapping[str, str]) -> psycopg.Connection | None:
    """A hardened connection without event triggers; None where the server is older, or this role no superuser."""
    options = " ".join(["-c event_triggers=off", *(f"-c {name}=0" for name in _TIMEOUTS)])
    try:
        return harden(_opened(_with_options(given, options)))
    except psycopg.Error as error:
        if "event_triggers" in str(error):
            # It would be so for the next connection too.
            _UNTRIGGERED.set(False)
        return None


def _patient(given: Mapping[str, str]) -> psycopg.Connection:
    """A hardened connection, even where role or database have a timeout so short that it ends the first statement."""
    connection = _opened(given)
    options = " ".join(f"-c {name}=0" for name in _timeouts(connection))
    try:
        return harden(connection)
    except psycopg.OperationalError as error:
        try:
            # Poolers reject options, so it begins without.
            return harden(_opened(_with_options(given, options)))
        except psycopg.Error:
            raise error from None


def _with_options(given: Mapping[str, str], options: str) -> dict[str, str]:
    return {**given, "options": f"{given.get('options') or _default('options')} {options}".strip()}


def harden(connection: psycopg.Connection) -> psycopg.Connection:
    """Give a connection that was just made our own search path and wording, and all the time that it needs.

    As statements, which beat the settings of database and role: poolers reject them, or ignore them, as options. Closes
    it and raises `psycopg.Error` where that fails.
    """
    settings = [*WORDING, *(f"{name} = 0" for name in _timeouts(connection))]
    try:
        connection.execute("; ".join([HARDENED, *(f"SET {setting}" for setting in settings)]).encode())
    except BaseException:
        connection.close()
        raise
    return connection


def _timeouts(connection: psycopg.Connection) -> list[str]:
    version = connection.pgconn.server_version
    return [name for name, since in _TIMEOUTS.items() if since <= version]


def _default(keyword: str) -> str:
    for option in Conninfo.get_defaults():
        if option.keyword.decode() == keyword:
            return (option.val or b"").decode()
    return ""


def _socket(found: Mapping[str, str]) -> dict[str, str]:
    """Where to connect when neither the string nor the environment says it."""
    if any(found.get(key) or _default(key) for key in ("host", "hostaddr", "service")):
        return {}
    port = found.get("port") or _default("port") or "5432"
    for folder in SOCKET_FOLDERS:
        if (folder / f".s.PGSQL.{port}").exists():
            return {"host": str(folder)}
    return {"host": "localhost"}


def address(given: Mapping[str, str]) -> str:
    """Where a connection string leads, for people: `db.example:5432`."""
    if given.get("service") and not given.get("host"):
        return f"service {given['service']}"
    hosts = (given.get("host") or given.get("hostaddr") or _default("host") or "localhost").split(",")
    ports = (given.get("port") or _default("port") or "5432").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    return ", ".join(f"{_bracketed(host)}:{port}" for host, port in zip(hosts, ports, strict=False))


def address_of(connection: psycopg.Connection) -> str:
    """Where a connection has arrived, for people."""
    return f"{_bracketed(connection.info.host)}:{connection.info.port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def refusal(name: str, where: str, reason: str) -> LarderError:
    """The error for a connection that failed with libpq's words `reason`."""
    fatal = re.findall(r"FATAL:\s+(.+)", reason)
    refused = [line for line in fatal if not _WAIT.search(line)]
    # Of several hosts, one that is down may be the one that would have let us in.
    waiting = ("," in where or not refused) and _WAIT.search(reason)
    hint = next((hint for pattern, hint in _REFUSALS if re.search(pattern, " ".join(refused) or reason)), "")
    if waiting or not (refused or hint):
        return UnreachableError(
            f"unable to reach database '{name}' at {where}: {_first_line(fatal, reason)}",
            "see that the server is up, and that this machine may connect to it",
        )
    return RefusedError(
        f"unable to connect to database '{name}' at {where}: {_first_line(refused, reason)}", hint
    )


def _first_line(fatal: list[str], reason: str) -> str:
    """The point of a libpq message: the server's own words, without the list of attempts around them."""
    if fatal:
        return fatal[0].strip()
    line = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    line = re.sub(r"^connection failed: |connection to server .*? failed: ", "", line).strip()
    return line[:1].lower() + line[1:]


def child_environment(connection: psycopg.Connection) -> dict[str, str]:
    """The environment that leads pg_dump to the very server that `connection` has arrived at.

    All secrets travel here and nowhere else. A service file has been read by then, and of several hosts the one
    that answered is named. Raises `UnreachableError` where the connection is lost.
    """
    info, found = connection.pgconn, {}
    for option in info.info:
        keyword = option.keyword.decode()
        if option.val is None or keyword in _SETTLED or option.val == option.compiled:
            continue
        if option.dispchar == b"*":
            raise ConfigurationError(
                f"unable to hand {keyword} to pg_dump, which takes it on its command line only",
                "use a key without one",
            )
        if option.envvar is not None:
            found[option.envvar.decode()] = option.val.decode()
    found |= {"PGHOST": info.host.decode(), "PGPORT": info.port.decode(), "PGDATABASE": info.db.decode()}
    if info.hostaddr and not info.host.startswith(b"/"):
        found["PGHOSTADDR"] = info.hostaddr.decode()
    if info.password:
        found["PGPASSWORD"] = info.password.decode()
    if options := _child_options(connection):
        found["PGOPTIONS"] = f"{found.get('PGOPTIONS', '')} {options}".strip()
    return found


def _child_options(connection: psycopg.Connection) -> str:
    """What programs ask of their sessions: time. Nothing where a pooler would reject it."""
    try:
        (process,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
    except psycopg.Error as error:
        reason = error.diag.message_primary or str(error).strip().partition("\n")[0]
        raise UnreachableError(
            f"unable to go on: the connection to the database server was lost: {reason}",
            "see the server's log",
        ) from None
    if process != connection.info.backend_pid:
        return ""
    return " ".join(f"-c {name}=0" for name in _timeouts(connection))


def child_conninfo(connection: psycopg.Connection) -> str:
    """What no environment variable can say, for pg_dump's `--dbname`: keepalives; nothing secret."""
    wanted = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
    given = {option.keyword.decode(): option.val.decode() for option in connection.pgconn.info if option.val}
    return make_conninfo("", **{keyword: given[keyword] for keyword in wanted if keyword in given})
