"""What can be configured: the tables and keys of larder.toml, each with its type, its default and what it is for.

`larder.config` reads them. The tables of a plug-in stand in its own module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from larder import addresses, codecs, databases, schedule
from larder.errors import ConfigurationError, NotFoundError
from larder.fields import DAY, Duration, Folder, PublicKey, Size, Table, Whole, YesNo, one_of
from larder.notifiers import NotifierSettings
from larder.posting import Webhook
from larder.problems import nearest
from larder.stores import StoreSettings


def _url(value: SecretStr) -> SecretStr:
    try:
        problem = databases.check_url(value.get_secret_value())
    except ConfigurationError as error:
        problem = f"{error.message} ({error.hint})"
    if problem:
        raise ValueError(problem)
    return value


@cache
def _timezones() -> set[str]:
    """Every time zone. Finding them opens some 600 files, which a thousand databases should not each do."""
    return available_timezones()


#: A schedule is checked by looking for its next time, which can be years ahead; many databases share one.
_problem_with_schedule = cache(schedule.problem_with)


def _cron(value: str) -> str:
    problem = _problem_with_schedule(value)
    if problem:
        raise ValueError(problem)
    return value


def _recipient(value: str) -> str:
    problem = codecs.cipher().check_recipient(value)
    if problem:
        raise ValueError(problem)
    return value


Cron = Annotated[str, AfterValidator(_cron)]
Recipient = Annotated[str, AfterValidator(_recipient)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_url)]


#: How many days backups are kept where nobody says anything about it.
DEFAULT_DAYS = 30


def _count(what: str) -> Any:
    return Field(default=None, ge=1, le=100_000, description=f"the newest backup of this many {what} stays")


class RetentionSettings(Table):
    """How long backups are kept: a backup stays when any rule keeps it. At least one rule always holds."""

    days: Whole | None = Field(
        default=None,
        ge=1,
        le=36500,
        description="a backup older than this many days is deleted; default 30 where there is no other rule",
    )
    keep_last: Whole | None = Field(
        default=None, ge=1, le=100_000, description="this many of the newest backups stay"
    )
    hourly: Whole | None = _count("hours")
    daily: Whole | None = _count("days")
    weekly: Whole | None = _count("weeks")
    monthly: Whole | None = _count("months")
    yearly: Whole | None = _count("years")

    @model_validator(mode="before")
    @classmethod
    def _some_rule(cls, values: object) -> object:
        return values if not isinstance(values, dict) or values else {"days": DEFAULT_DAYS}


class DatabaseSettings(Table):
    """One database to back up."""

    name: str = Field(default="", exclude=True)
    url: DatabaseUrl = Field(description="connection string: postgresql://…, sqlite:///…, file:…")
    schedule: Cron = Field(default="0 2 * * *", description="cron expression: minute hour day month weekday")
    timezone: str = Field(default="UTC", description="the time zone of schedule and retention")
    format: Literal["plain", "directory"] = Field(
        default="plain", description="PostgreSQL: one SQL stream, or pg_dump's directory with several jobs"
    )
    jobs: Whole = Field(
        default=2,
        ge=1,
        le=64,
        description="connections that a directory dump reads with, and that PostgreSQL backups are restored with",
    )
    compression: str = Field(
        default="gzip", description="how the artifact is made smaller: gzip, zstd or none"
    )
    compression_level: Annotated[Whole, Field(ge=1, le=19)] | None = Field(
        default=None, description="zstd: how hard it compresses, 1 to 19; 3 where it is not said"
    )
    long_distance: YesNo = Field(
        default=False, description="zstd: find what repeats within 128 MiB, not only within a few"
    )
    encrypt_to: tuple[Recipient, ...] = Field(
        default=(), description="age: the public keys whose holders alone can read its backups"
    )
    stores: tuple[str, ...] = Field(default=(), description="where copies are kept; empty: every store")
    min_copies: Whole = Field(
        default=1, ge=1, le=64, description="how many stores have to hold a copy for a backup to succeed"
    )
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    exclude: tuple[str, ...] = Field(
        default=(), description="PostgreSQL: tables to leave out, as schema.table or table, with * and ?"
    )
    row_counts: Literal["exact", "off"] = Field(
        default="exact", description="whether the rows of each table are counted in the dump's snapshot"
    )
    fingerprint: Literal["schema", "rows", "content"] = Field(
        default="rows",
        description="what a drill compares: definitions, the rows of each table too, or what is in them too",
    )
    content_up_to: Size | None = Field(
        default=None, ge=1, description='larger tables are counted only with fingerprint = "content"'
    )
    globals: YesNo = Field(
        default=False, description="PostgreSQL: dump the server's roles and tablespaces beside"
    )
    queue: str = Field(
        default="backup", min_length=1, description="the Celery queue that its dumps are sent to"
    )
    stall_timeout: Duration = Field(
        default=1800,
        ge=1,
        le=7 * DAY,
        description="a dump in which no byte moves for this long is ended and tried again",
    )
    time_limit: Duration | None = Field(
        default=None,
        ge=10,
        le=30 * DAY,
        description="a step of its backups or drills that takes longer is ended, and the run fails",
    )
    max_rate: Size | None = Field(
        default=None,
        ge=100_000,
        description="bytes a second that are read of the database, and sent to a store, at most",
    )
    checks: tuple[str, ...] = Field(
        default=(),
        description="SQL queries that have to give true in a restored database before it goes live",
    )
    post_restore: tuple[str, ...] = Field(
        default=(),
        description="a command, word by word, that is run against a restored database before it goes live",
    )
    keep_replaced: Duration = Field(
        default=7 * DAY,
        ge=0,
        le=366 * DAY,
        description="how long a restore can be undone: what it replaced is kept",
    )
    drill: Cron | None = Field(
        default=None, description="cron expression: when a backup is restored to see that it restores"
    )
    drill_every: Annotated[Whole, Field(ge=1, le=100_000)] | None = Field(
        default=None, description="a drill after this many backups"
    )
    scratch_url: DatabaseUrl | None = Field(
        default=None,
        description="PostgreSQL: a server for drills, instead of a throw-away cluster on the worker",
    )
    rpo: Duration = Field(
        default=DAY, ge=60, le=366 * DAY, description="how old the newest backup may become"
    )
    rto: Duration = Field(
        default=1800, ge=1, le=30 * DAY, description="how long a restore may take, as drills measure it"
    )
    #: Where drills build throw-away clusters; None for the spool, or what suits a worker that runs as root.
    scratch_dir: Path | None = Field(default=None, exclude=True)
    #: Folders to look for pg_dump in, beside PATH and the usual ones.
    postgres_bin: tuple[Path, ...] = Field(default=(), exclude=True)
    #: Where relative file names begin.
    base: Path = Field(default_factory=Path.cwd, exclude=True)
    #: Folder inside each store; empty when this is the only database and came from DATABASE_URL.
    folder: str = Field(default="", exclude=True)

    @property
    def fingerprint_level(self) -> str:
        """How closely a drill compares: `schema` where rows are not counted."""
        return "schema" if self.row_counts == "off" else self.fingerprint

    @property
    def engine(self) -> str:
        """The engine's word, by the connection string: `postgres`, `sqlite`."""
        return databases.engine_of(self.url.get_secret_value())

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        if value not in _timezones():
            near = nearest(value, _timezones()) or "Europe/Berlin"
            raise ValueError(f"there is no such time zone (write it as {near})")
        return value

    @model_validator(mode="after")
    def _level(self) -> DatabaseSettings:
        if self.row_counts == "off" and self.fingerprint == "content":
            raise ValueError('row_counts = "off" and fingerprint = "content" exclude each other')
        if self.max_rate is not None and self.format == "directory":
            raise ValueError('max_rate is for format = "plain": pg_dump itself reads and writes a directory')
        if self.content_up_to is not None and self.fingerprint != "content":
            raise ValueError('content_up_to is for fingerprint = "content"')
        return self

    @field_validator("compression")
    @classmethod
    def _compression(cls, value: str) -> str:
        return one_of(value, list(codecs.compressions()))

    @field_validator("checks")
    @classmethod
    def _checks(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not value.strip() or ";" in value.strip().rstrip(";"):
                raise ValueError("has to be one query, without a ; in it")
        return tuple(value.strip().rstrip(";") for value in values)

    @field_validator("post_restore", mode="before")
    @classmethod
    def _command(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(  # noqa: TRY004 - pydantic takes this one
                'has to be a list of words, as ["npx", "prisma", "migrate", "deploy"]: there is no shell'
            )
        return value

    @field_validator("compression_level", "long_distance")
    @classmethod
    def _option(cls, value: int | None, info: ValidationInfo) -> int | None:
        """A key that the compression has no use for is a mistake: somebody counts on it."""
        compression = info.data.get("compression")
        option = (info.field_name or "").removeprefix("compression_")
        if value and compression and option not in codecs.kind(compression).options:
            raise ValueError(f'is for compression = "zstd", and this database has "{compression}"')
        return value


class ConsoleSettings(Table):
    """Where the console listens, and who gets in."""

    host: str = Field(default="127.0.0.1", min_length=1, description="the address that it listens at")
    port: Annotated[Whole, Field(ge=1, le=65535)] = Field(
        default=8000, description="the port that it listens at"
    )
    user: str = Field(default="larder", min_length=1, description="who logs in with the password")
    password: SecretStr | None = Field(
        default=None,
        description="the password; or password_env, or LARDER_CONSOLE_PASSWORD in the environment",
    )
    proxy_header: str | None = Field(
        default=None,
        pattern="^[A-Za-z0-9-]{1,64}$",
        description="the header in which a proxy names who has logged in there, instead of a password",
    )
    proxies: tuple[str, ...] = Field(
        default=("127.0.0.1", "::1"),
        description="the proxies whose header is believed, addresses or networks",
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="names that it is reached by, beside localhost; without a login, no others are",
    )
    flower_url: str | None = Field(
        default=None, pattern="^https?://", description="where Flower is, for a link"
    )

    @field_validator("proxies")
    @classmethod
    def _proxies(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                ip_network(value, strict=False)
            except ValueError:
                raise ValueError(f"'{value}' is no address and no network") from None
        return values

    @property
    def has_login(self) -> bool:
        """Whether anybody has to say who they are."""
        return self.password is not None or self.proxy_header is not None


class SignerSettings(Table):
    """One key that manifests may be signed with."""

    name: str = Field(default="", exclude=True)
    public_key: PublicKey = Field(description="the raw Ed25519 public key, 32 bytes in base64")


class ApproverSettings(Table):
    """One key that restores may be approved with."""

    name: str = Field(default="", exclude=True)
    public_key: PublicKey = Field(description="the raw Ed25519 public key, 32 bytes in base64")


class General(Table):
    """The keys of larder.toml that stand outside every table."""

    backup_dir: Folder = Field(default=Path("backups"), description="where the local store keeps artifacts")
    state_dir: Folder | None = Field(
        default=None, description="ledger, spool and locks; default backup_dir/.larder"
    )
    postgres_bin: tuple[Folder, ...] = Field(
        default=(), description="folders to look for pg_dump in, beside PATH and the usual ones"
    )
    scratch_dir: Folder | None = Field(
        default=None,
        description="where drills build throw-away clusters; default: the spool, and for root /var/tmp",
    )
    spread: Duration = Field(
        default=0, ge=0, le=DAY, description="scheduled starts are spread over this time, by name"
    )
    dumps_per_server: Whole = Field(
        default=2, ge=1, le=1000, description="how many dumps one database server serves at a time"
    )
    dumps_per_host: Annotated[Whole, Field(ge=1, le=1000)] | None = Field(
        default=None, description="how many dumps one host makes at a time; default: as its workers can"
    )
    spool_limit: Size | None = Field(
        default=None, ge=1, description="how much of the disk the spool may take; default: all that is free"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="how workers write their log")
    signing_key: Folder | None = Field(
        default=None,
        description="the private key that this host signs manifests with; default state_dir/signer.key",
    )
    identities: tuple[Folder, ...] = Field(
        default=(), description="files with private keys of age, on hosts that may decrypt backups"
    )
    verify: Cron | None = Field(
        default=None,
        description="cron expression, in UTC: when copies are read again, the longest unread first",
    )
    verify_budget: Size = Field(
        default=50 * 10**9, ge=1, description="how many bytes one such verification reads at most"
    )

    request_life: Duration = Field(
        default=DAY, ge=60, le=30 * DAY, description="how long a restore that was asked for can be approved"
    )
    token_life: Duration = Field(default=900, ge=30, le=DAY, description="how long an approval can be used")


class Environment(Table):
    """The environment variables that Larder reads, in small letters."""

    database_url: SecretStr | None = Field(
        default=None,
        description="the database, where larder.toml names none: postgresql://…, sqlite:///…, file:…",
    )
    backup_dir: Folder | None = Field(default=None, description="where backups are kept; ./backups")
    backup_retention_days: Annotated[int, Field(ge=1, le=36500)] | None = Field(
        default=None, description="days to keep backups of databases that have no rule of their own; 30"
    )
    backup_s3_bucket: str | None = Field(
        default=None, description="a bucket for a second copy, in its folder backups/"
    )
    slack_webhook_url: Webhook | None = Field(
        default=None, description="where to tell of backups, drills, restores, and of what is missed"
    )
    sentry_dsn: SecretStr | None = Field(
        default=None, description="where workers and beat report errors, and backups check in"
    )
    cron_secret: SecretStr | None = Field(
        default=None,
        description="what begins backups at the console's /api/cron/backup; nothing does without it",
    )
    larder_console_password: SecretStr | None = Field(
        default=None, description="what people log in to the console with"
    )
    redis_url: SecretStr | None = Field(
        default=None, description="the Redis that workers listen on; without it, commands bring their own"
    )
    larder_ledger_url: SecretStr | None = Field(
        default=None,
        description="the ledger, when workers run on several hosts: postgresql://…; SQLite in the state folder",
    )
    larder_config: Folder | None = Field(
        default=None, description="the configuration file; ./larder.toml, if it exists"
    )
    larder_state_dir: Folder | None = Field(
        default=None, description="ledger, spool and locks; $BACKUP_DIR/.larder"
    )
    larder_log_format: Literal["text", "json"] | None = Field(
        default=None, description="how workers write their log; text"
    )
    larder_heartbeat_file: Folder | None = Field(
        default=None, description="a file that a worker touches while it lives, for probes; none"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        """A folder whose name is not UTF-8 could be written to, and named in no ledger and no JSON."""
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("is not UTF-8")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        return _without(addresses.problem_with_broker, value)

    @field_validator("larder_ledger_url")
    @classmethod
    def _ledger(cls, value: SecretStr | None) -> SecretStr | None:
        return _without(addresses.problem_with_ledger, value)

    @field_validator("sentry_dsn")
    @classmethod
    def _sentry(cls, value: SecretStr | None) -> SecretStr | None:
        return _without(addresses.problem_with_sentry, value)


@dataclass(frozen=True)
class Settings:
    """Everything that was configured, checked."""

    backup_dir: Path
    state_dir: Path
    ledger_url: SecretStr
    redis_url: SecretStr | None
    #: Where workers report errors; None for nowhere.
    sentry_dsn: SecretStr | None
    log_format: str
    spread: int
    #: Files with private keys of age; empty on a host that only makes backups.
    identities: tuple[Path, ...]
    #: When copies are read again, in UTC; None for never.
    verify: str | None
    #: Bytes that one scheduled verification reads at most.
    verify_budget: int
    #: The file that was read, or None.
    config_file: Path | None
    databases: Mapping[str, DatabaseSettings] = field(default_factory=dict)
    stores: Mapping[str, StoreSettings] = field(default_factory=dict)
    notifiers: Mapping[str, NotifierSettings] = field(default_factory=dict)
    #: Whose manifests are trusted; none configured: those of the ledger's own hosts.
    signers: Mapping[str, SignerSettings] = field(default_factory=dict)
    #: Who may approve restores; none configured: nobody.
    approvers: Mapping[str, ApproverSettings] = field(default_factory=dict)
    #: Where the console listens, and what starts backups by HTTP; None: nothing does.
    console: ConsoleSettings = field(default_factory=ConsoleSettings)
    cron_secret: SecretStr | None = None
    #: Seconds that a request for a restore can be approved, and that an approval can be used.
    request_life: int = DAY
    token_life: int = 900
    #: How many dumps one database server serves, and one host makes, at a time; None: as its workers can.
    dumps_per_server: int = 2
    dumps_per_host: int | None = None
    #: Bytes that the spool may take; None: all that are free.
    spool_limit: int | None = None
    #: The file of this host's signing key; None for the one in the state folder.
    signing_key: Path | None = None
    #: What a worker touches as long as it lives, for whoever watches over it; None for nothing.
    heartbeat_file: Path | None = None
    #: What can be worked with, and may not be what was meant.
    warnings: tuple[str, ...] = ()

    @property
    def spool_dir(self) -> Path:
        """Where runs do their work, a folder a run."""
        return self.state_dir / "spool"

    @property
    def signer_keys(self) -> dict[str, str]:
        """The public key of each configured signer."""
        return {name: signer.public_key for name, signer in self.signers.items()}

    @property
    def approver_keys(self) -> dict[str, str]:
        """The public key of each configured approver."""
        return {name: approver.public_key for name, approver in self.approvers.items()}

    def database(self, name: str) -> DatabaseSettings:
        """The database `name`; raises `NotFoundError`, with the nearest name, where there is none."""
        if name in self.databases:
            return self.databases[name]
        if not self.databases:
            hint = "none is configured: set DATABASE_URL, or write larder.toml"
        elif near := nearest(name, self.databases):
            hint = f"did you mean '{near}'?"
        else:
            first = list(self.databases)[:10]
            hint = f"configured are: {', '.join(first)}{' …' if len(first) < len(self.databases) else ''}"
        raise NotFoundError(f"unable to find database '{name}'", hint)

    def store(self, name: str) -> StoreSettings:
        """The store `name`; raises `NotFoundError`, with those that there are, where there is none."""
        if name not in self.stores:
            raise NotFoundError(
                f"unable to find store '{name}'", f"configured are: {', '.join(self.stores) or 'none'}"
            )
        return self.stores[name]

    def stores_of(self, database: DatabaseSettings) -> list[StoreSettings]:
        """The stores that keep a database's copies."""
        return [self.stores[name] for name in database.stores or tuple(self.stores)]


def _without(problem_with: Callable[[str], str | None], value: SecretStr | None) -> SecretStr | None:
    if value is not None and (problem := problem_with(value.get_secret_value())):
        raise ValueError(problem)
    return value
