"""The configuration: what the operator says, read and checked as a whole.

Two ways in. Environment variables alone describe one database (`DATABASE_URL`); `larder.toml` describes many.
Every mistake is found in one reading and reported with its path; a secret is in none of these reports. What can
be said, and its defaults, is in `larder.settings`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from larder import databases, notifiers, secret, stores
from larder.naming import DATABASE_NAME
from larder.notifiers import NotifierSettings
from larder.problems import Problems, nearest
from larder.settings import (
    ApproverSettings,
    ConsoleSettings,
    DatabaseSettings,
    Environment,
    General,
    RetentionSettings,
    Settings,
    SignerSettings,
)
from larder.stores import StoreSettings
from larder.variables import FILE, SecretFileError, is_given, secret_in

__all__ = [
    "ApproverSettings",
    "DatabaseSettings",
    "General",
    "NotifierSettings",
    "RetentionSettings",
    "Settings",
    "SignerSettings",
    "StoreSettings",
    "load",
]

_NAME = re.compile(DATABASE_NAME)

#: What the name of an environment variable looks like. Anything else may be a secret in the wrong place.
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: The tables that hold tables: [databases.NAME].
SECTIONS = ("databases", "stores", "notifiers", "signers", "approvers")

#: The table that stands by itself.
_CONSOLE = "console"

#: The kind, and the name, of the store that BACKUP_S3_BUCKET alone makes.
_BUCKET_STORE = "s3"

#: The kind, and the name, of the notifier that SLACK_WEBHOOK_URL alone makes.
_SLACK = "slack"

#: Variables that hold secrets and are read by others than Larder.
_FOREIGN_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

#: One table of the file, as it was written.
Raw = dict[str, Any]

Key = TypeVar("Key", SignerSettings, ApproverSettings)


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment and larder.toml, and give back settings that can be worked with.

    `environ` stands for the process's environment, and is then the only one that is read. Raises
    `ConfigurationError` with every mistake that was found, each with its path.
    """
    given = {key: value.strip() for key, value in (os.environ if environ is None else environ).items()}
    problems = Problems()
    environment = _environment(problems, given)
    file, raw = _file(problems, environment)
    settings = _Reader(problems, environment, given, file, raw).settings()
    problems.raise_if_any()
    return settings


def _environment(problems: Problems, environ: Mapping[str, str]) -> Environment:
    """The variables that Larder reads; one that is empty counts as not set, and a wrong one spoils no other."""
    found: Raw = {}
    for key, info in Environment.model_fields.items():
        variable = key.upper()
        try:
            value = secret_in(variable, environ) if _is_secret(info.annotation) else environ.get(variable)
        except SecretFileError as error:
            problems.add(variable + FILE, str(error))
            continue
        if value:
            checked = problems.validate(Environment, {key: value}, "", named={key: variable})
            found[key] = getattr(checked, key, None)
    return Environment(**found)


def _is_secret(kind: object) -> bool:
    """Whether a type is that of a secret, or has it as a part."""
    return kind is SecretStr or any(map(_is_secret, get_args(kind)))


def _file(problems: Problems, environment: Environment) -> tuple[Path | None, Raw]:
    """The configuration file and what it holds; nothing, where there is none or it cannot be read."""
    path = environment.larder_config or Path("larder.toml")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if environment.larder_config is not None:
            problems.add("LARDER_CONFIG", f"names the file {path}, which does not exist")
        return None, {}
    except UnicodeDecodeError:
        problems.add(str(path), "cannot be read: it is not UTF-8")
        return None, {}
    except OSError as error:
        problems.add(str(path), f"cannot be read: {(error.strerror or 'input/output error').lower()}")
        return None, {}
    try:
        return path.absolute(), tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        message = str(error)
        problems.add(str(path), f"is not TOML: {message[:1].lower()}{message[1:]}")
        return None, {}


class _Reader:
    """Puts environment and file together, table by table, so that one mistake does not hide the next."""

    def __init__(
        self,
        problems: Problems,
        environment: Environment,
        environ: Mapping[str, str],
        file: Path | None,
        raw: Raw,
    ) -> None:
        self.problems = problems
        self.environment = environment
        self.environ = environ
        self.file = file
        self.raw = raw
        #: Relative paths in a file begin where the file lies; those in the environment, in the working folder.
        #: A link is not followed: a Kubernetes ConfigMap is one, into a folder that each change replaces.
        self.base = file.parent if file else Path.cwd()
        self.warnings: list[str] = []

    def settings(self) -> Settings:
        """All settings, as far as they could be read."""
        tables = {section: self._tables(section) for section in SECTIONS}
        rest = {key: value for key, value in self.raw.items() if key not in (*SECTIONS, _CONSOLE)}
        general = self.problems.validate(General, rest, "", siblings=(*SECTIONS, _CONSOLE)) or General()
        backup_dir = (self.environment.backup_dir or self.base / general.backup_dir).absolute()
        state_dir = self._state_dir(general, backup_dir)
        stores = self._stores(tables["stores"], backup_dir, state_dir)
        found = Settings(
            backup_dir=backup_dir,
            state_dir=state_dir,
            ledger_url=self.environment.larder_ledger_url
            or SecretStr(f"sqlite:///{quote(str(state_dir / 'ledger.sqlite3'))}"),
            redis_url=self.environment.redis_url,
            sentry_dsn=self.environment.sentry_dsn,
            log_format=self.environment.larder_log_format or general.log_format,
            spread=general.spread,
            dumps_per_server=general.dumps_per_server,
            dumps_per_host=general.dumps_per_host,
            spool_limit=general.spool_limit,
            identities=tuple((self.base / path).absolute() for path in general.identities),
            verify=general.verify,
            verify_budget=general.verify_budget,
            config_file=self.file,
            stores=stores,
            databases=(databases := self._databases(tables["databases"], general, stores)),
            notifiers=self._notifiers(tables["notifiers"], databases),
            signers=(signers := self._keys("signers", tables, SignerSettings)),
            approvers=self._approvers(tables, signers),
            console=self._console(),
            cron_secret=self.environment.cron_secret,
            request_life=general.request_life,
            token_life=general.token_life,
            signing_key=(self.base / general.signing_key).absolute() if general.signing_key else None,
            heartbeat_file=self.environment.larder_heartbeat_file,
            warnings=tuple(self.warnings),
        )
        _register_secrets(found)
        for variable in _FOREIGN_SECRETS:
            if self.environ.get(variable):
                secret.register(self.environ[variable])
        return found

    def _tables(self, section: str) -> dict[str, Raw]:
        """The tables of a section by name. What is no table is noted and left out."""
        raw = self.raw.get(section, {})
        if not isinstance(raw, dict):
            self.problems.add(section, f"has to be tables: [{section}.NAME]")
            return {}
        found: dict[str, Raw] = {}
        for name, table in raw.items():
            path = f"{section}.{name}"
            if not isinstance(table, dict):
                self.problems.add(path, "has to be a table", f"write [{section}.NAME] above its keys")
                continue
            if not _NAME.fullmatch(name):
                self.problems.add(path, "a name is letters, digits, - and _, at most 63 of them")
            found[name] = table
        return found

    def _secret(self, table: Raw, path: str) -> Raw:
        """Replace `url_env` by `url`: the value of the environment variable that it names."""
        if "url_env" not in table and "url" not in table:
            self.problems.add(f"{path}.url", "is missing", "write url, or url_env with a variable's name")
        return self._from_variable(table, path, "url")

    def _from_variable(self, table: Raw, path: str, key: str) -> Raw:
        """Replace `KEY_env` by `KEY`: the value of the environment variable that it names."""
        values, named = dict(table), f"{key}_env"
        if named not in values:
            return values
        variable = values.pop(named)
        if key in values:
            self.problems.add(f"{path}.{named}", f"stands beside {key}", "keep one of them")
        elif not isinstance(variable, str) or not VARIABLE.fullmatch(variable):
            self.problems.add(f"{path}.{key}", f"{named} has to be the name of an environment variable")
        elif not is_given(variable, self.environ):
            self.problems.add(f"{path}.{key}", f"{named} names the variable {variable}, which is not set")
        else:
            try:
                values[key] = secret_in(variable, self.environ)
            except SecretFileError as error:
                self.problems.add(f"{path}.{key}", f"{named} names {variable}, and {variable}{FILE} {error}")
        return values

    def _state_dir(self, general: General, backup_dir: Path) -> Path:
        if self.environment.larder_state_dir:
            return self.environment.larder_state_dir.absolute()
        return (self.base / general.state_dir if general.state_dir else backup_dir / ".larder").absolute()

    def _stores(self, tables: dict[str, Raw], backup_dir: Path, state_dir: Path) -> dict[str, StoreSettings]:
        found: dict[str, StoreSettings] = {}
        for name, table in (tables or {stores.DEFAULT: {"path": str(backup_dir)}}).items():
            store = self._store(name, table)
            if store is not None:
                self._keep_apart(store, found.values())
                found[name] = store
        if self.environment.backup_s3_bucket:
            self._add_bucket(self.environment.backup_s3_bucket, found)
        for name, store in found.items():
            if store.lists(state_dir):
                what = f"lies in the folder of store '{name}', where it would be taken for backups"
                self.problems.add("state_dir", what, "put it elsewhere, or begin its name with a dot")
        return found

    def _add_bucket(self, bucket: str, found: dict[str, StoreSettings]) -> None:
        """BACKUP_S3_BUCKET keeps a second copy of everything in s3://bucket/backups/."""
        if _BUCKET_STORE in found or any(store.type == _BUCKET_STORE for store in found.values()):
            self.warnings.append(
                f"BACKUP_S3_BUCKET is not used: the configuration has a store '{_BUCKET_STORE}', or one of that type"
            )
            return
        values = {"type": _BUCKET_STORE, "bucket": bucket}
        named = {"bucket": "BACKUP_S3_BUCKET"}
        checked = self.problems.validate(stores.settings_of(_BUCKET_STORE), values, "", named=named)
        if checked is not None:
            found[_BUCKET_STORE] = checked.placed(_BUCKET_STORE, self.base)

    def _store(self, name: str, table: Raw) -> StoreSettings | None:
        """The store of one table, by what its kind says; None where something is wrong, which is noted."""
        path, word = f"stores.{name}", table.get("type", stores.DEFAULT)
        if not isinstance(word, str) or word not in stores.words():
            what = f"there is no '{word}'" if isinstance(word, str) else "has to be text, in quotation marks"
            self.problems.add(f"{path}.type", f"{what}; use one of: {', '.join(stores.words())}")
            return None
        checked = self.problems.validate(stores.settings_of(word), table, path)
        return checked.placed(name, self.base) if checked else None

    def _keep_apart(self, store: StoreSettings, others: Iterable[StoreSettings]) -> None:
        for other in others:
            if what := store.collides(other):
                key, problem = what
                self.problems.add(f"stores.{store.name}.{key}", problem)

    def _notifiers(
        self, tables: dict[str, Raw], databases: Mapping[str, DatabaseSettings]
    ) -> dict[str, NotifierSettings]:
        found: dict[str, NotifierSettings] = {}
        for name, table in tables.items():
            checked = self._notifier(f"notifiers.{name}", table)
            if checked is not None:
                found[name] = checked.model_copy(update={"name": name})
            self._check_names(f"notifiers.{name}.databases", table.get("databases"), databases)
        slack = self.environment.slack_webhook_url
        if slack and all(slack != getattr(notifier, "url", None) for notifier in found.values()):
            if _SLACK in tables:
                self.warnings.append(
                    "SLACK_WEBHOOK_URL is not used: the configuration has a notifier 'slack'"
                )
            else:
                found[_SLACK] = notifiers.settings_of(_SLACK)(name=_SLACK, url=slack)  # type: ignore[call-arg]
        return found

    def _notifier(self, path: str, table: Raw) -> NotifierSettings | None:
        """The notifier of one table, by what its kind says; None where something is wrong, which is noted."""
        values, word = self._secret(table, path), table.get("type", notifiers.DEFAULT)
        if not isinstance(word, str) or word not in notifiers.words():
            what = f"there is no '{word}'" if isinstance(word, str) else "has to be text, in quotation marks"
            self.problems.add(f"{path}.type", f"{what}; use one of: {', '.join(notifiers.words())}")
            # What all kinds have can be looked at all the same.
            common = {key: table[key] for key in ("on",) if key in table}
            self.problems.validate(NotifierSettings, common, path)
            return None
        kind = notifiers.settings_of(word)
        for key in kind.secret_keys:
            values = self._from_variable(values, path, key)
        return self.problems.validate(kind, values, path)

    def _check_names(self, path: str, names: object, known: Mapping[str, object]) -> None:
        """Note the names of databases that there are not, unless there is a mistake in their own table."""
        for index, name in enumerate(names if isinstance(names, list) else []):
            if isinstance(name, str) and name not in known and f"databases.{name}" not in self.problems:
                near = nearest(name, known)
                hint = f"did you mean '{near}'?" if near else f"configured are: {', '.join(known) or 'none'}"
                self.problems.add(f"{path}.{index}", f"there is no database '{name}'", hint)

    def _console(self) -> ConsoleSettings:
        """The table [console], and the password that the environment has, where the file has none."""
        raw = self.raw.get(_CONSOLE, {})
        if not isinstance(raw, dict):
            self.problems.add(_CONSOLE, "has to be a table", f"write [{_CONSOLE}] above its keys")
            return ConsoleSettings()
        table = self._from_variable(raw, _CONSOLE, "password")
        found = self.problems.validate(ConsoleSettings, table, _CONSOLE) or ConsoleSettings()
        password = found.password or self.environment.larder_console_password
        return found.model_copy(update={"password": password})

    def _keys(self, section: str, tables: dict[str, dict[str, Raw]], kind: type[Key]) -> dict[str, Key]:
        """The public keys of a section by name; one that two names have is a mistake."""
        found: dict[str, Key] = {}
        for name, table in tables[section].items():
            path = f"{section}.{name}"
            checked = self.problems.validate(kind, table, path)
            if checked is None:
                continue
            for other in found.values():
                if other.public_key == checked.public_key:
                    self.problems.add(
                        f"{path}.public_key", f"is the key of {section[:-1]} '{other.name}' too"
                    )
            found[name] = checked.model_copy(update={"name": name})
        return found

    def _approvers(
        self, tables: dict[str, dict[str, Raw]], signers: Mapping[str, SignerSettings]
    ) -> dict[str, ApproverSettings]:
        found = self._keys("approvers", tables, ApproverSettings)
        hosts = {signer.public_key: name for name, signer in signers.items()}
        for name, approver in found.items():
            if approver.public_key in hosts:
                what = f"is the key that '{hosts[approver.public_key]}' signs with, which has no passphrase"
                self.problems.add(
                    f"approvers.{name}.public_key", what, "make one: larder keys new approver NAME"
                )
        return found

    def _databases(
        self, tables: dict[str, Raw], general: General, stores: Mapping[str, StoreSettings]
    ) -> dict[str, DatabaseSettings]:
        url = self.environment.database_url
        if url and not tables:
            return self._only_database(url, general)
        if url and all(table.get("url_env") != "DATABASE_URL" for table in tables.values()):
            self.warnings.append(
                "DATABASE_URL is not backed up: the configuration names its databases, "
                'and none of them has url_env = "DATABASE_URL"'
            )
        found: dict[str, DatabaseSettings] = {}
        first: dict[str, str] = {}
        for name, table in tables.items():
            path = f"databases.{name}"
            other = first.setdefault(name.lower(), name)
            if other != name:
                what = f"its files would collide with those of database '{other}'"
                self.problems.add(path, what, "rename one")
            self._check_stores(table.get("stores"), path, list(stores))
            values = self._from_variable(self._secret(table, path), path, "scratch_url")
            values = self._with_defaults(values)
            checked = self.problems.validate(DatabaseSettings, values, path)
            if checked is not None:
                self._check_copies(checked, path, stores)
                base = Path.cwd() if "url_env" in table else self.base
                found[name] = self._placed(checked, general, name=name, folder=name, base=base)
        return found

    def _only_database(self, url: SecretStr, general: General) -> dict[str, DatabaseSettings]:
        values = self._with_defaults({"url": url})
        checked = self.problems.validate(DatabaseSettings, values, "", named={"url": "DATABASE_URL"})
        if checked is None:
            return {}
        name = databases.name_in(url.get_secret_value())
        return {name: self._placed(checked, general, name=name, folder="", base=Path.cwd())}

    def _check_stores(self, names: object, path: str, known: list[str]) -> None:
        """Note the names of stores that there are not. A list that is none is found by the model."""
        for index, name in enumerate(names if isinstance(names, list) else []):
            place = f"{path}.stores.{index}"
            if isinstance(name, str) and name not in known and f"stores.{name}" not in self.problems:
                near = nearest(name, known)
                hint = f"did you mean '{near}'?" if near else f"configured are: {', '.join(known) or 'none'}"
                self.problems.add(place, f"there is no store '{name}'", hint)
            elif name in names[:index]:  # type: ignore[index]
                self.problems.add(place, f"names the store '{name}' a second time")

    def _check_copies(
        self, checked: DatabaseSettings, path: str, stores: Mapping[str, StoreSettings]
    ) -> None:
        """Note what a database asks of its stores that they cannot give."""
        wanted = [stores[name] for name in checked.stores or stores if name in stores]
        count = len(checked.stores or stores)
        if checked.min_copies > count:
            what = f"asks for {checked.min_copies} copies, and the database has {count} store"
            what += "" if count == 1 else "s"
            self.problems.add(f"{path}.min_copies", what)
        for store in wanted:
            if store.locks and checked.retention.days is None:
                what = f"is missing, and store '{store.name}' locks what it keeps for that long"
                self.problems.add(f"{path}.retention.days", what)

    def _with_defaults(self, values: Raw) -> Raw:
        """BACKUP_RETENTION_DAYS holds for every database that says no rule of its own."""
        days = self.environment.backup_retention_days
        retention = values.get("retention", {})
        if days is None or retention != {}:
            return values
        return {**values, "retention": {"days": days}}

    def _placed(
        self, checked: DatabaseSettings, general: General, *, name: str, folder: str, base: Path
    ) -> DatabaseSettings:
        binaries = tuple(self.base / path for path in general.postgres_bin)
        scratch_dir = (self.base / general.scratch_dir).absolute() if general.scratch_dir else None
        return checked.model_copy(
            update={
                "name": name,
                "folder": folder,
                "base": base,
                "postgres_bin": binaries,
                "scratch_dir": scratch_dir,
            }
        )


def _register_secrets(settings: Settings) -> None:
    """Have everything masked that must never be printed."""
    for database in settings.databases.values():
        for secret_url in filter(None, (database.url, database.scratch_url)):
            for value in databases.secrets_in(secret_url.get_secret_value()):
                secret.register(value)
    for notifier in settings.notifiers.values():
        for value in notifier.secrets():
            secret.register(value)
    # Several Redis that stand in for each other are separated by semicolons.
    brokers = settings.redis_url.get_secret_value().split(";") if settings.redis_url else []
    for url in (*brokers, settings.ledger_url.get_secret_value()):
        for value in databases.secrets_in(url):
            secret.register(value)
    for word in filter(None, (settings.cron_secret, settings.console.password)):
        secret.register(word.get_secret_value())
    if settings.sentry_dsn is not None:
        secret.register(urlsplit(settings.sentry_dsn.get_secret_value()).username or "")
