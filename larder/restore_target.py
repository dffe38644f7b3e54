"""Where a restore goes: what `--into` says, as settings that an engine can work with.

A request holds no secret. A configured database is found by its name, and has to lead to the address that was approved.
For any other, the request says where it is without the password: that comes from a configured database of the same
server and user, or from where the engine's own programs look for one (~/.pgpass).
"""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from larder import databases
from larder.config import DatabaseSettings, Settings
from larder.databases import open_restorer
from larder.errors import ConfigurationError, LarderError, NotAuthorisedError, NotFoundError
from larder.naming import parse_backup_id
from larder.restore_request import Into, RestoreRequest
from larder.restoring import Mode, Restorer

#: How addresses begin that mean another place on every host: files, sockets, loopback.
_OF_ONE_HOST = (
    "sqlite:",
    "postgresql://localhost",
    "postgresql://127.",
    "postgresql://[::1]",
    "postgresql://%2F",
)

#: What tells a connection string from the name of a database.
_URL_SIGNS = (":", "=", "/")


def settings_of(settings: Settings, into: str, source: str, mode: Mode) -> DatabaseSettings:
    """The settings of what `--into` names: a configured database, by its name or connection string; or another.

    `source` is the database that the backup is of. In mode `new`, a name that is not configured is a new database on
    the server of `source`. Raises `ConfigurationError` and `NotFoundError`.
    """
    if into in settings.databases:
        return settings.databases[into]
    if not any(sign in into for sign in _URL_SIGNS):
        if mode != "new" or source not in settings.databases:
            # Says which names there are.
            return settings.database(into)
        beside = settings.databases[source]
        return _unnamed(settings, databases.sibling(beside.url.get_secret_value(), into), source)
    problem = databases.check_url(into)
    if problem:
        raise ConfigurationError(f"unable to use the connection string of --into: {problem}")
    address = databases.address_in(into, Path.cwd())
    for configured in settings.databases.values():
        if address_of(configured) == address:
            return configured
    # A relative file name would begin elsewhere on a worker.
    whole = address if databases.engine_of(into) == "sqlite" else _with_known_secrets(settings, into)
    return _unnamed(settings, whole, source)


def is_configured(settings: Settings, target: DatabaseSettings) -> bool:
    """Whether a target is one of the configured databases."""
    return settings.databases.get(target.name) is target


def into_of(
    settings: Settings, target: DatabaseSettings, description: str, replaces: int | None, host: str
) -> Into:
    """What a request says of its target.

    `replaces` is the size in bytes of what is there, None where nothing is. `host` is where this is asked: a file's
    name, or a loopback address, belongs to that host.
    """
    configured = is_configured(settings, target)
    url = None if configured else databases.public_url(target.url.get_secret_value())
    address = address_of(target)
    of_host = host if address.startswith(_OF_ONE_HOST) else None
    return Into(target.name if configured else None, address, description, replaces, url, of_host)


def restorer_for(settings: Settings, document: RestoreRequest) -> Restorer:
    """What carries a request out, on the worker that restores; raises what `settings_for` does."""
    return open_restorer(settings_for(settings, document), document.plan)


def settings_for(settings: Settings, document: RestoreRequest) -> DatabaseSettings:
    """The settings of what was approved, on the worker that restores into it.

    Raises `NotAuthorisedError` where the configuration leads to another place now.
    """
    into, source = document.into, parse_backup_id(document.wanted.backup)[0]
    if into.database is not None:
        try:
            target = settings.database(into.database)
        except NotFoundError:
            raise NotAuthorisedError(
                f"unable to restore into '{into.database}': this worker's configuration has no such database",
                "have every worker of the queue read the same larder.toml",
            ) from None
    else:
        assert into.url is not None  # noqa: S101 - the one or the other, which the document's own check sees to
        target = _unnamed(settings, databases.with_secrets_of(into.url, _urls(settings)), source)
    if address_of(target) != into.address:
        raise NotAuthorisedError(
            f"unable to restore into {into.address}: on this worker the target leads to {address_of(target)}",
            "the configuration has changed since the request: ask for it again",
        )
    return target


def address_of(target: DatabaseSettings) -> str:
    """Where a database is, without user and secrets."""
    return databases.address_in(target.url.get_secret_value(), target.base)


def _with_known_secrets(settings: Settings, url: str) -> str:
    """`url`, whose password has to be one that workers can find too."""
    public = databases.public_url(url)
    known = databases.with_secrets_of(public, _urls(settings))
    given = databases.with_secrets_of(public, [url])
    if given not in (public, known):
        raise ConfigurationError(
            "unable to take the password in --into: a request holds no secret, and workers would not have it",
            "leave it out, and write it into ~/.pgpass of the user that workers run as; or configure the database",
        )
    return known


def _urls(settings: Settings) -> list[str]:
    return [configured.url.get_secret_value() for configured in settings.databases.values()]


def _unnamed(settings: Settings, url: str, source: str) -> DatabaseSettings:
    """Settings of a database that is not configured: how it is worked with is what holds for the source."""
    like = settings.databases.get(source)
    try:
        made = DatabaseSettings(url=SecretStr(url))
    except ValueError:
        raise LarderError("unable to use the connection string of the target") from None
    taken = ("jobs", "stall_timeout", "checks", "post_restore", "postgres_bin") if like else ()
    binaries = () if like else tuple(next((one.postgres_bin for one in settings.databases.values()), ()))
    values = {key: getattr(like, key) for key in taken} or {"postgres_bin": binaries}
    return made.model_copy(update={**values, "name": databases.name_in(url), "base": Path.cwd()})
