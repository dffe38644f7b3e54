"""The configuration: what the operator says, checked as a whole.

Two ways in. Environment variables alone describe one database (`DATABASE_URL`); `larder.toml` describes many.
Every mistake is found in one reading and reported with its path; a secret is in none of these reports.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from larder import codecs, databases, notifiers, schedule, secret, stores
from larder.errors import ConfigurationError, NotFoundError
from larder.problems import Problems

#: A database's name is a folder name, a key in the ledger and half of a backup's name.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")

_DURATION = re.compile(r"(\d+)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(value: object) -> object:
    """`"90s"`, `"10m"`, `"2h"`, `"7d"` as seconds; a number stays one."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError("write a duration as 90s, 10m, 2h or 7d")
        return int(match[1]) * _SECONDS[match[2]]
    return value


class Table(BaseModel):
    """A table of larder.toml: unknown keys are mistakes, and no input is ever printed."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class RetentionSettings(Table):
    """How long backups are kept."""

    days: int = Field(default=30, ge=1, description="a backup older than this many days is deleted")


class DatabaseSettings(Table):
    """One database to back up."""

    name: str = Field(default="", exclude=True)
    url: SecretStr = Field(description="connection string: postgresql://…, sqlite:///…, file:…")
    schedule: str = Field(default="0 2 * * *", description="cron expression: minute hour day month weekday")
    timezone: str = Field(default="UTC", description="the time zone that the schedule is read in")
    format: Literal["plain", "directory"] = Field(
        default="plain", description="PostgreSQL: one SQL stream, or pg_dump's directory with several jobs"
    )
    jobs: int = Field(default=2, ge=1, le=64, description="connections that a directory dump reads with")
    compression: str = Field(default="gzip", description="how the artifact is encoded: gzip, zstd or none")
    stores: tuple[str, ...] = Field(default=(), description="where copies are kept; empty: every store")
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    exclude: tuple[str, ...] = Field(
        default=(), description="PostgreSQL: tables to leave out, as schema.table or table, with * and ?"
    )
    row_counts: Literal["exact", "off"] = Field(
        default="exact", description="whether the rows of each table are counted in the dump's snapshot"
    )
    globals: bool = Field(default=False, description="PostgreSQL: dump the server's roles and tablespaces beside")
    queue: str = Field(default="backup", min_length=1, description="the Celery queue that its dumps are sent to")
    stall_timeout: int = Field(
        default=1800, ge=1, description="a dump in which no byte moves for this long is ended and tried again"
    )
    #: Folders to look for pg_dump in, beside PATH and the usual ones.
    postgres_bin: tuple[Path, ...] = Field(default=(), exclude=True)
    #: Where relative file names begin.
    base: Path = Field(default_factory=Path.cwd, exclude=True)
    #: Folder inside each store; empty when this is the only database and came from DATABASE_URL.
    folder: str = Field(default="", exclude=True)

    @property
    def engine(self) -> str:
        """The engine's word, by the connection string: `postgres`, `sqlite`."""
        return databases.engine_of(self.url.get_secret_value())

    @field_validator("url")
    @classmethod
    def _url(cls, value: SecretStr) -> SecretStr:
        try:
            problem = databases.check_url(value.get_secret_value())
        except ConfigurationError as error:
            problem = f"{error.message}; {error.hint}"
        if problem:
            raise ValueError(problem)
        return value

    @field_validator("schedule")
    @classmethod
    def _schedule(cls, value: str) -> str:
        problem = schedule.problem_with(value)
        if problem:
            raise ValueError(problem)
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("there is no such time zone; write it as Europe/Berlin")
        return value

    @field_validator("compression")
    @classmethod
    def _compression(cls, value: str) -> str:
        return _one_of(value, codecs.words())

    @field_validator("stall_timeout", mode="before")
    @classmethod
    def _stall_timeout(cls, value: object) -> object:
        return seconds(value)


class StoreSettings(Table):
    """One place that keeps artifacts."""

    name: str = Field(default="", exclude=True)
    type: str = Field(default="local", description="the kind of store: local")
    path: Path = Field(description="the folder that artifacts are kept in")

    @field_validator("type")
    @classmethod
    def _type(cls, value: str) -> str:
        return _one_of(value, stores.words())


class NotifierSettings(Table):
    """One place that is told how backups went."""

    name: str = Field(default="", exclude=True)
    type: str = Field(default="slack", description="the kind of notifier: slack")
    url: SecretStr = Field(description="the webhook's address, which is a secret")
    on: tuple[Literal["success", "failure"], ...] = Field(
        default=("success", "failure"), description="what it is told about"
    )

    @field_validator("type")
    @classmethod
    def _type(cls, value: str) -> str:
        return _one_of(value, notifiers.words())

    @field_validator("url")
    @classmethod
    def _url(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("a webhook's address starts with https://")
        return value


class General(Table):
    """The keys of larder.toml that stand outside every table."""

    backup_dir: Path = Field(default=Path("backups"), description="where the local store keeps artifacts")
    state_dir: Path | None = Field(default=None, description="ledger, spool and locks; default backup_dir/.larder")
    postgres_bin: tuple[Path, ...] = Field(
        default=(), description="folders to look for pg_dump in, beside PATH and the usual ones"
    )
    spread: int = Field(default=0, ge=0, description="scheduled starts are spread over this time, by name")
    log_format: Literal["text", "json"] = Field(default="text", description="how workers write their log")

    @field_validator("spread", mode="before")
    @classmethod
    def _spread(cls, value: object) -> object:
        return seconds(value)


class Environment(BaseSettings):
    """The environment variables that Larder reads."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True, env_ignore_empty=True)

    database_url: SecretStr | None = None
    backup_dir: Path | None = None
    backup_retention_days: int | None = Field(default=None, ge=1)
    backup_s3_bucket: str | None = None
    slack_webhook_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    larder_ledger_url: SecretStr | None = None
    larder_config: Path | None = None
    larder_state_dir: Path | None = None
    larder_log_format: Literal["text", "json"] | None = None


@dataclass(frozen=True)
class Settings:
    """Everything that was configured, checked."""

    backup_dir: Path
    state_dir: Path
    ledger_url: SecretStr
    redis_url: SecretStr | None
    log_format: str
    spread: int
    #: The file that was read, or None.
    config_file: Path | None
    databases: Mapping[str, DatabaseSettings] = field(default_factory=dict)
    stores: Mapping[str, StoreSettings] = field(default_factory=dict)
    notifiers: Mapping[str, NotifierSettings] = field(default_factory=dict)

    @property
    def spool_dir(self) -> Path:
        """Where runs do their work, a folder a run."""
        return self.state_dir / "spool"

    def database(self, name: str) -> DatabaseSettings:
        """The database `name`; raises `NotFoundError`, with the nearest names, where there is none."""
        if name in self.databases:
            return self.databases[name]
        known = ", ".join(self.databases) or "none; set DATABASE_URL, or write larder.toml"
        raise NotFoundError(f"unable to find database '{name}'", f"configured are: {known}")

    def stores_of(self, database: DatabaseSettings) -> list[StoreSettings]:
        """The stores that keep a database's copies."""
        return [self.stores[name] for name in database.stores or tuple(self.stores)]


Model = TypeVar("Model", bound=BaseModel)


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment and larder.toml, and give back settings that can be worked with.

    Raises `ConfigurationError` with every mistake that was found, each with its path.
    """
    problems = Problems()
    environment = _environment(problems, os.environ if environ is None else environ)
    file, raw = _read_file(problems, environment)
    settings = _Reader(problems, environment, os.environ if environ is None else environ, file, raw).settings()
    problems.raise_if_any()
    return settings


class _Reader:
    """Puts environment and file together, table by table, so that one mistake does not hide the next."""

    def __init__(
        self,
        problems: Problems,
        environment: Environment,
        environ: Mapping[str, str],
        file: Path | None,
        raw: dict[str, Any],
    ) -> None:
        self.problems = problems
        self.environment = environment
        self.environ = environ
        self.file = file
        self.raw = raw
        #: Relative paths in a file begin where the file lies; those in the environment, in the working folder.
        self.base = file.resolve().parent if file else Path.cwd()

    def settings(self) -> Settings:
        tables = {key: self._tables(key) for key in ("databases", "stores", "notifiers")}
        rest = {key: value for key, value in self.raw.items() if key not in tables}
        general = self._check(General, rest, "") or General()
        backup_dir = self.environment.backup_dir or self.base / general.backup_dir
        state_dir = self.environment.larder_state_dir or (
            self.base / general.state_dir if general.state_dir else backup_dir / ".larder"
        )
        backup_dir, state_dir = backup_dir.absolute(), state_dir.absolute()
        found_stores = self._stores(tables["stores"], backup_dir)
        found = Settings(
            backup_dir=backup_dir,
            state_dir=state_dir,
            ledger_url=self._ledger_url(state_dir),
            redis_url=self.environment.redis_url,
            log_format=self.environment.larder_log_format or general.log_format,
            spread=general.spread,
            config_file=self.file,
            stores=found_stores,
            databases=self._databases(tables["databases"], general, found_stores),
            notifiers=self._notifiers(tables["notifiers"]),
        )
        _register_secrets(found)
        return found

    def _tables(self, key: str) -> dict[str, dict[str, Any]]:
        section = self.raw.get(key, {})
        if not isinstance(section, dict) or not all(isinstance(table, dict) for table in section.values()):
            self.problems.add(key, f"has to be tables: [{key}.NAME]")
            return {}
        for name in section:
            if not NAME.fullmatch(name):
                self.problems.add(f"{key}.{name}", "a name is letters, digits, - and _, at most 63 of them")
        return section

    def _check(self, model: type[Model], values: dict[str, Any], path: str) -> Model | None:
        return self.problems.validate(model, values, path)

    def _ledger_url(self, state_dir: Path) -> SecretStr:
        url = self.environment.larder_ledger_url or SecretStr(f"sqlite:///{state_dir / 'ledger.sqlite3'}")
        if not url.get_secret_value().startswith(("sqlite:///", "postgresql://", "postgres://")):
            self.problems.add("LARDER_LEDGER_URL", "is not a ledger's address", "use sqlite:///… or postgresql://…")
        return url

    def _secret(self, table: dict[str, Any], key: str, path: str) -> dict[str, Any]:
        """Replace `<key>_env` by the value of the environment variable that it names."""
        values = dict(table)
        variable = values.pop(f"{key}_env", None)
        if variable is None:
            if key not in values:
                self.problems.add(f"{path}.{key}", "is missing", f"write {key}, or {key}_env with a variable's name")
        elif key in values:
            self.problems.add(f"{path}.{key}_env", f"stands beside {key}; keep one of them")
        elif not isinstance(variable, str) or not self.environ.get(variable):
            self.problems.add(f"{path}.{key}_env", f"names the environment variable {variable!r}, which is not set")
        else:
            values[key] = self.environ[variable]
        return values

    def _stores(self, tables: dict[str, dict[str, Any]], backup_dir: Path) -> dict[str, StoreSettings]:
        if self.environment.backup_s3_bucket:
            self.problems.add(
                "BACKUP_S3_BUCKET", "is set, and this version keeps backups in local folders only", "unset it"
            )
        if not tables:
            return {"local": StoreSettings(name="local", type="local", path=backup_dir)}
        found: dict[str, StoreSettings] = {}
        for name, table in tables.items():
            checked = self._check(StoreSettings, table, f"stores.{name}")
            if checked is None:
                continue
            path = (self.base / checked.path).absolute()
            for other in found.values():
                if other.path == path:
                    self.problems.add(f"stores.{name}.path", f"is the folder of store '{other.name}' too")
            found[name] = checked.model_copy(update={"name": name, "path": path})
        return found

    def _notifiers(self, tables: dict[str, dict[str, Any]]) -> dict[str, NotifierSettings]:
        found: dict[str, NotifierSettings] = {}
        for name, table in tables.items():
            values = self._secret(table, "url", f"notifiers.{name}")
            checked = self._check(NotifierSettings, values, f"notifiers.{name}") if "url" in values else None
            if checked is not None:
                found[name] = checked.model_copy(update={"name": name})
        if self.environment.slack_webhook_url and "slack" not in tables:
            checked = self._check(NotifierSettings, {"url": self.environment.slack_webhook_url}, "SLACK_WEBHOOK_URL")
            if checked is not None:
                found["slack"] = checked.model_copy(update={"name": "slack"})
        return found

    def _databases(
        self, tables: dict[str, dict[str, Any]], general: General, known: dict[str, StoreSettings]
    ) -> dict[str, DatabaseSettings]:
        if not tables and self.environment.database_url:
            return self._only_database(self.environment.database_url, general)
        found: dict[str, DatabaseSettings] = {}
        for name, table in tables.items():
            path = f"databases.{name}"
            values = self._secret(table, "url", path)
            for store in values.get("stores", ()):
                if store not in known and f"stores.{store}" not in self.problems:
                    self.problems.add(
                        f"{path}.stores", f"there is no store '{store}'", f"configured are: {', '.join(known)}"
                    )
            checked = self._check(DatabaseSettings, self._with_defaults(values), path) if "url" in values else None
            for other in found:
                if other.lower() == name.lower():
                    self.problems.add(path, f"its files would collide with those of database '{other}'", "rename one")
            if checked is not None:
                found[name] = self._placed(checked, name, name, general)
        return found

    def _only_database(self, url: SecretStr, general: General) -> dict[str, DatabaseSettings]:
        checked = self._check(DatabaseSettings, self._with_defaults({"url": url}), "DATABASE_URL")
        if checked is None:
            return {}
        name = databases.name_in(url.get_secret_value())
        return {name: self._placed(checked, name, "", general)}

    def _with_defaults(self, values: dict[str, Any]) -> dict[str, Any]:
        days = self.environment.backup_retention_days
        if days is None or "retention" in values:
            return values
        return {**values, "retention": {"days": days}}

    def _placed(self, checked: DatabaseSettings, name: str, folder: str, general: General) -> DatabaseSettings:
        binaries = tuple(self.base / path for path in general.postgres_bin)
        return checked.model_copy(
            update={"name": name, "folder": folder, "base": self.base, "postgres_bin": binaries}
        )


def _environment(problems: Problems, environ: Mapping[str, str]) -> Environment:
    given = {key.lower(): value for key, value in environ.items() if key.lower() in Environment.model_fields and value}
    return problems.validate(Environment, given, "", upper=True) or Environment.model_construct()


def _read_file(problems: Problems, environment: Environment) -> tuple[Path | None, dict[str, Any]]:
    path = environment.larder_config or Path("larder.toml")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if environment.larder_config is not None:
            problems.add("LARDER_CONFIG", f"names the file {path}, which does not exist")
        return None, {}
    except (OSError, UnicodeDecodeError) as error:
        problems.add(str(path), f"cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}")
        return None, {}
    try:
        return path, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.add(str(path), f"is not TOML: {str(error).lower()}")
        return None, {}


def _register_secrets(settings: Settings) -> None:
    """Have everything masked that must never be printed."""
    for database in settings.databases.values():
        for value in databases.secrets_in(database.url.get_secret_value()):
            secret.register(value)
    for notifier in settings.notifiers.values():
        secret.register(notifier.url.get_secret_value())
    for url in (settings.redis_url, settings.ledger_url):
        if url is not None:
            for value in databases.secrets_in(url.get_secret_value()):
                secret.register(value)


def _one_of(value: str, words: list[str]) -> str:
    if value not in words:
        raise ValueError(f"there is no '{value}'; use one of: {', '.join(words)}")
    return value
