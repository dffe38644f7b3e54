"""The configuration: what is read, what is refused, and that no secret is in a refusal."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from larder import notifiers, secret
from larder.config import Settings, load
from larder.errors import ConfigurationError, NotFoundError
from larder.ledger import open_ledger
from larder.notifiers import NotifierSettings, Word
from larder.settings import (
    DatabaseSettings,
    Environment,
    General,
    RetentionSettings,
    SignerSettings,
    Table,
)
from larder.stores.local import LocalSettings
from larder.stores.s3 import S3Settings

EXAMPLE = Path(__file__).parents[2] / "larder.example.toml"
SHOP = "postgresql://backup@db.example/shop"
HOOK = "https://hooks.slack.example/services/T0/B0/abcdef"

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no secrets left over from other tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(secret, "_known", set())
    monkeypatch.setattr(secret, "_ordered", ())
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Write:
    """Writes larder.toml into the working folder."""

    def write(text: str) -> Path:
        path = folder / "larder.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def mistakes(environ: Mapping[str, str]) -> dict[str, str]:
    """What `load` finds wrong, by path."""
    with pytest.raises(ConfigurationError) as caught:
        load(environ)
    head, *lines = caught.value.message.splitlines()
    assert head.startswith("unable to use the configuration: ")
    assert all(line.startswith("  ") for line in lines)
    assert caught.value.exit_code == 2
    return {path: what for path, _, what in (line.strip().partition(": ") for line in lines)}


# The environment alone


def test_nothing_set_gives_the_defaults(folder: Path) -> None:
    settings = load({})
    assert settings.backup_dir == folder / "backups"
    assert settings.state_dir == folder / "backups/.larder"
    assert settings.spool_dir == folder / "backups/.larder/spool"
    assert settings.ledger_url.get_secret_value() == f"sqlite:///{folder}/backups/.larder/ledger.sqlite3"
    assert settings.redis_url is None
    assert settings.config_file is None
    assert (settings.log_format, settings.spread) == ("text", 0)
    assert settings.databases == {}
    assert settings.notifiers == {}
    assert {name: store.path for name, store in settings.stores.items()} == {"local": folder / "backups"}


def test_the_variables_of_the_users_documents(folder: Path) -> None:
    settings = load(
        {
            "DATABASE_URL": SHOP,
            "BACKUP_DIR": "kept",
            "BACKUP_RETENTION_DAYS": "7",
            "SLACK_WEBHOOK_URL": HOOK,
            "REDIS_URL": "redis://localhost:6379/0",
            "LARDER_LEDGER_URL": "postgresql://ledger@db.example/ledger",
            "LARDER_STATE_DIR": "/var/lib/larder",
            "LARDER_LOG_FORMAT": "json",
        }
    )
    assert settings.backup_dir == folder / "kept"
    assert settings.state_dir == Path("/var/lib/larder")
    assert settings.log_format == "json"
    assert settings.redis_url is not None
    assert settings.ledger_url.get_secret_value() == "postgresql://ledger@db.example/ledger"
    assert settings.database("shop").retention.days == 7
    assert settings.stores["local"].path == folder / "kept"
    assert list(settings.notifiers["slack"].secrets()) == [HOOK]
    # The document says that Slack is told of success, with the size.
    assert set(settings.notifiers["slack"].on) == set(get_args(Word))
    assert settings.warnings == ()


def test_a_database_from_the_environment_lies_in_backup_dir_itself() -> None:
    settings = load({"DATABASE_URL": SHOP})
    shop = settings.database("shop")
    assert (shop.name, shop.folder, shop.engine) == ("shop", "", "postgres")
    assert settings.stores_of(shop) == [settings.stores["local"]]
    assert (shop.schedule, shop.timezone, shop.retention.days) == ("0 2 * * *", "UTC", 30)
    assert (shop.format, shop.compression, shop.row_counts) == ("plain", "gzip", "exact")


def test_databases_of_the_file_each_have_a_folder(write: Write) -> None:
    write('[databases.shop]\nurl = "postgresql://h/a"\n[databases.crm]\nurl = "sqlite:///crm.db"\n')
    settings = load({})
    assert {name: database.folder for name, database in settings.databases.items()} == {
        "shop": "shop",
        "crm": "crm",
    }
    assert settings.database("crm").engine == "sqlite"


@pytest.mark.parametrize("variable", [name.upper() for name in Environment.model_fields])
@pytest.mark.parametrize("value", ["", "  \n"])
def test_an_empty_variable_counts_as_not_set(variable: str, value: str) -> None:
    assert load({variable: value}) == load({})


def test_a_line_end_after_a_value_is_no_part_of_it() -> None:
    assert list(load({"SLACK_WEBHOOK_URL": f"{HOOK}\n"}).notifiers["slack"].secrets()) == [HOOK]


def test_the_processs_own_environment_is_left_out_when_another_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("DATABASE_URL", "REDIS_URL", "SLACK_WEBHOOK_URL", "BACKUP_RETENTION_DAYS"):
        monkeypatch.setenv(variable, "nonsense")
    settings = load({})
    assert (settings.databases, settings.notifiers, settings.redis_url) == ({}, {}, None)


def test_without_one_the_processs_own_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Environment.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATABASE_URL", SHOP)
    assert list(load().databases) == ["shop"]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("abc", "has to be a whole number"),
        ("1.5", "has to be a whole number"),
        ("0", "has to be at least 1"),
        ("-1", "has to be at least 1"),
        ("1000000", "has to be at most 36500"),
        ("9" * 5000, "has to be a smaller number"),
    ],
)
def test_days_that_are_no_days(value: str, what: str) -> None:
    assert mistakes({"BACKUP_RETENTION_DAYS": value}) == {"BACKUP_RETENTION_DAYS": what}


def test_a_wrong_variable_does_not_hide_another() -> None:
    found = mistakes(
        {
            "BACKUP_RETENTION_DAYS": "abc",
            "DATABASE_URL": "mysql://root@h/shop",
            "SLACK_WEBHOOK_URL": "hooks.slack.example",
            "REDIS_URL": "localhost:6379",
            "LARDER_LEDGER_URL": "ledger.db",
            "LARDER_LOG_FORMAT": "xml",
            "LARDER_CONFIG": "absent.toml",
            "BACKUP_S3_BUCKET": "s3://my-backups",
        }
    )
    assert found.keys() == {
        "BACKUP_RETENTION_DAYS",
        "DATABASE_URL",
        "SLACK_WEBHOOK_URL",
        "REDIS_URL",
        "LARDER_LEDGER_URL",
        "LARDER_LOG_FORMAT",
        "LARDER_CONFIG",
        "BACKUP_S3_BUCKET",
    }
    assert found["LARDER_LOG_FORMAT"] == "has to be 'text' or 'json'"


def test_a_bucket_in_the_environment_is_a_second_store() -> None:
    settings = load({"DATABASE_URL": SHOP, "BACKUP_S3_BUCKET": "my-backups"})
    assert list(settings.stores) == ["local", "s3"]
    found = settings.stores["s3"]
    assert isinstance(found, S3Settings)
    assert (found.name, found.bucket, found.prefix) == ("s3", "my-backups", "backups")
    (database,) = settings.databases.values()
    assert [store.name for store in settings.stores_of(database)] == ["local", "s3"]


def test_a_bucket_in_the_environment_goes_with_the_folders_of_the_file(write: Write) -> None:
    write(f'[databases.shop]\nurl = "{SHOP}"\n[stores.disk]\npath = "disk"\n')
    settings = load({"BACKUP_S3_BUCKET": "my-backups"})
    assert (list(settings.stores), settings.warnings) == (["disk", "s3"], ())


def test_a_bucket_in_the_environment_is_not_used_beside_one_of_the_file(write: Write) -> None:
    write(f'[databases.shop]\nurl = "{SHOP}"\n[stores.offsite]\ntype = "s3"\nbucket = "other-backups"\n')
    settings = load({"BACKUP_S3_BUCKET": "my-backups"})
    assert list(settings.stores) == ["offsite"]
    assert "BACKUP_S3_BUCKET is not used" in settings.warnings[0]


@pytest.mark.parametrize("variable", [key.upper() for key in Environment.model_fields])
def test_a_variable_that_is_no_text_is_a_mistake(variable: str) -> None:
    assert mistakes({variable: "x\udcff"})[variable] == "is not UTF-8"


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis://:s3cr3t@h:abc/0", "is no address"),
        ("redis://:s3cr3t@[::1/0", "is no address"),
        ("redis://:s3cr3t@h:99999/0", "is no address"),
        ("redis://:s3cr3t@h/0;redis://:s3cr3t@i:abc/0", "is no address"),
        ("redis://:s3cr3t@h/shop", "has to end in the number of a database"),
        ("redis://:s3cr3t@h/0/1", "has to end in the number of a database"),
        ("redis+socket:///run/redis.sock?virtual_host=s3cr3t", "has to end in the number of a database"),
        ("redis://:s3cr3t@h/0?foo=s3cr3t", "parameter"),
        ("rediss://:s3cr3t@h/0?ssl_cert_reqs=s3cr3t", "ssl_cert_reqs"),
        ("sentinel://:s3cr3t@h:26379", "has to start with redis://"),
    ],
)
def test_a_broker_that_celery_cannot_call_is_a_mistake(url: str, what: str) -> None:
    found = mistakes({"DATABASE_URL": SHOP, "REDIS_URL": url})
    assert what in found["REDIS_URL"]
    assert "s3cr3t" not in str(found)


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://h",
        "redis://h/",
        "redis://:pw@[::1]:6379/15",
        "redis://a/0;redis://b/0",
        "redis+socket:///run/redis/redis.sock",
        "redis+socket:///run/redis/redis.sock?virtual_host=3",
        "rediss://user:pw@h:6380/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem",
    ],
)
def test_brokers_that_celery_can_call(url: str) -> None:
    found = load({"DATABASE_URL": SHOP, "REDIS_URL": url}).redis_url
    assert found is not None
    assert found.get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("postgresql://u:s3cr3t@h:notaport/ledger", "is no address"),
        ("postgresql://u:s3cr3t@[::1/ledger", "is no address"),
        ("sqlite:///", "has to name a file"),
        ("sqlite:///:memory:", "has to name a file"),
        ("sqlite:////srv/ledger.db?timeout=s3cr3t", "takes no parameters"),
    ],
)
def test_a_ledger_that_is_none_is_a_mistake(url: str, what: str) -> None:
    found = mistakes({"DATABASE_URL": SHOP, "LARDER_LEDGER_URL": url})
    assert what in found["LARDER_LEDGER_URL"]
    assert "s3cr3t" not in str(found)


def test_a_state_folder_of_any_name_has_the_ledger_in_it(folder: Path) -> None:
    state = folder / "a?b %2f#c"
    ledger = open_ledger(load({"LARDER_STATE_DIR": str(state)}).ledger_url.get_secret_value())
    ledger.close()
    assert (state / "ledger.sqlite3").is_file()


def test_secrets_for_buckets_are_masked() -> None:
    load(
        {
            "DATABASE_URL": SHOP,
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
            "AWS_SESSION_TOKEN": "FwoGZXIvYXdz",
        }
    )
    assert secret.redact("SignatureDoesNotMatch: wJalrXUtnFEMI/K7MDENG FwoGZXIvYXdz") == (
        "SignatureDoesNotMatch: **** ****"
    )


def test_a_store_that_locks_has_to_know_for_how_long(write: Write) -> None:
    write(
        f'[databases.shop]\nurl = "{SHOP}"\nretention.daily = 7\n[databases.crm]\nurl = "{SHOP}2"\n'
        '[stores.s3]\ntype = "s3"\nbucket = "my-backups"\nobject_lock = "compliance"\n'
    )
    what = "is missing, and store 's3' locks what it keeps for that long"
    assert mistakes({}) == {"databases.shop.retention.days": what}


def test_no_database_asks_for_more_copies_than_it_has_stores(write: Write) -> None:
    write(
        f'[databases.shop]\nurl = "{SHOP}"\nmin_copies = 2\n[databases.crm]\nurl = "{SHOP}2"\nmin_copies = 2\n'
        'stores = ["a"]\n[stores.a]\npath = "a"\n[stores.b]\npath = "b"\n'
    )
    what = "asks for 2 copies, and the database has 1 store"
    assert mistakes({}) == {"databases.crm.min_copies": what}


@pytest.mark.parametrize(
    ("text", "size"), [("500 MB", 500 * 10**6), ("50GB", 50 * 10**9), ("2 tb", 2 * 10**12)]
)
def test_sizes_are_written_in_units(write: Write, text: str, size: int) -> None:
    write(f'verify = "0 5 * * *"\nverify_budget = "{text}"\n[databases.shop]\nurl = "{SHOP}"\n')
    assert load({}).verify_budget == size


def test_a_size_that_is_none_is_told(write: Write) -> None:
    write(f'verify = "0 25 * * *"\nverify_budget = "much"\n[databases.shop]\nurl = "{SHOP}"\n')
    found = mistakes({})
    assert found["verify_budget"] == "has to be a size, written as 500 MB, 50 GB or 2 TB"
    assert "verify" in found


# The file


def test_paths_in_the_file_begin_where_it_lies(folder: Path) -> None:
    etc = folder / "etc"
    etc.mkdir()
    (etc / "larder.toml").write_text(
        """
        backup_dir = "kept"
        postgres_bin = ["pg/bin"]
        [databases.crm]
        url = "sqlite:///crm.db"
        [databases.shop]
        url_env = "SHOP"
        [stores.disk]
        path = "../disk"
        """
    )
    settings = load({"LARDER_CONFIG": "etc/larder.toml", "SHOP": "sqlite:///shop.db"})
    assert settings.config_file == etc / "larder.toml"
    assert settings.backup_dir == etc / "kept"
    assert settings.state_dir == etc / "kept/.larder"
    assert settings.stores["disk"].path.resolve() == folder / "disk"
    assert settings.database("crm").base == etc
    assert settings.database("crm").postgres_bin == (etc / "pg/bin",)
    assert settings.database("shop").base == folder, "what the environment says begins in the working folder"


def test_paths_in_the_environment_begin_in_the_working_folder(folder: Path) -> None:
    etc = folder / "etc"
    etc.mkdir()
    (etc / "larder.toml").write_text('state_dir = "state"')
    settings = load(
        {"LARDER_CONFIG": "etc/larder.toml", "BACKUP_DIR": "kept", "DATABASE_URL": "sqlite:///shop.db"}
    )
    assert settings.backup_dir == folder / "kept"
    assert settings.state_dir == etc / "state"
    assert settings.database("shop").base == folder


def test_a_linked_file_counts_as_lying_where_the_link_is(folder: Path) -> None:
    versions = folder / "..2026_01"
    versions.mkdir()
    (versions / "larder.toml").write_text('backup_dir = "kept"')
    (folder / "larder.toml").symlink_to(versions / "larder.toml")
    assert load({}).backup_dir == folder / "kept"


def test_a_tilde_is_the_home_folder(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/keeper")
    write('backup_dir = "~/backups"')
    assert load({}).backup_dir == Path("/home/keeper/backups")
    assert load({"BACKUP_DIR": "~/kept"}).backup_dir == Path("/home/keeper/kept")


def test_a_file_that_was_named_has_to_exist() -> None:
    assert mistakes({"LARDER_CONFIG": "absent.toml"}) == {
        "LARDER_CONFIG": "names the file absent.toml, which does not exist"
    }


def test_a_folder_is_no_file(folder: Path) -> None:
    assert mistakes({"LARDER_CONFIG": str(folder)}) == {str(folder): "cannot be read: is a directory"}


def test_a_syntax_error_is_told_with_its_line(write: Write) -> None:
    write('backup_dir = "kept"\n\nspread 5\n')
    [(path, what)] = mistakes({}).items()
    assert path == "larder.toml"
    assert what.startswith("is not TOML: ")
    assert "line 3" in what


def test_what_is_not_utf8_is_told(folder: Path) -> None:
    (folder / "larder.toml").write_bytes(b'backup_dir = "\xff"')
    assert mistakes({}) == {"larder.toml": "cannot be read: it is not UTF-8"}


@pytest.mark.parametrize("text", ["spread = " + "9" * 5000, "x = " + "[" * 20_000])
def test_what_breaks_the_reader_is_a_mistake_too(write: Write, text: str) -> None:
    write(text)
    assert mistakes({}).keys() == {"larder.toml"}


def test_an_editors_byte_order_mark_is_read_over(folder: Path) -> None:
    (folder / "larder.toml").write_text('log_format = "json"', encoding="utf-8-sig")
    assert load({}).log_format == "json"


def test_all_mistakes_are_told_at_once_each_with_its_path(write: Write) -> None:
    write(
        """
        spread = "soon"
        log_fromat = "json"

        [database.old]
        url = "sqlite:///old.db"

        [databases.shop]
        url = "postgresql://h/shop"
        shedule = "0 3 * * *"
        schedule = "0 25 * * *"
        timezone = "Europe/Berln"
        compression = "rar"
        stores = ["lokal", "local", "local"]
        jobs = "4"
        globals = "yes"
        stall_timeout = 0
        [databases.shop.retention]
        dys = 3

        [databases.crm]
        format = "tar"

        [databases."a/b"]
        url = "sqlite:///x.db"

        [stores.local]
        type = "ftp"

        [stores.nas]
        pth = "backups"

        [notifiers.ops]
        type = "pigeon"
        on = ["sucess"]
        """
    )
    found = mistakes({})
    assert found == found | {
        "spread": "has to be a duration, written as 90s, 10m, 2h or 7d",
        "log_fromat": "unknown key (did you mean 'log_format'?)",
        "database": "unknown key (did you mean 'databases'?)",
        "databases.shop.shedule": "unknown key (did you mean 'schedule'?)",
        "databases.shop.timezone": "there is no such time zone (write it as Europe/Berlin)",
        "databases.shop.jobs": "has to be a whole number",
        "databases.shop.globals": "has to be true or false",
        "databases.shop.stall_timeout": "has to be at least 1",
        "databases.shop.retention.dys": "unknown key (did you mean 'days'?)",
        "databases.crm.url": "is missing (write url, or url_env with a variable's name)",
        "databases.crm.format": "has to be 'plain' or 'directory'",
        "databases.a/b": "a name is letters, digits, - and _, at most 63 of them",
        "stores.nas.path": "is missing",
        "stores.nas.pth": "unknown key (did you mean 'path'?)",
        "notifiers.ops.url": "is missing (write url, or url_env with a variable's name)",
        "notifiers.ops.on.0": "has to be 'failure', 'recovered', 'drill', 'restore', 'anomaly' or 'success'",
    }
    assert found["databases.shop.compression"].startswith("there is no 'rar'; use one of: gzip")
    assert found["stores.local.type"].startswith("there is no 'ftp'")
    assert found["notifiers.ops.type"].startswith("there is no 'pigeon'")
    assert "databases.shop.schedule" in found


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("databases = 5", "databases"),
        ("[[databases]]\nurl = 'sqlite:///x.db'", "databases"),
        ("[databases]\nurl = 'sqlite:///x.db'", "databases.url"),
        ("[databases.shop]\nurl = 5", "databases.shop.url"),
        ("[databases.shop]\nurl = ''", "databases.shop.url"),
        ("[databases.shop]\nurl = 'sqlite:///x.db'\nretention = 5", "databases.shop.retention"),
        ("[databases.shop]\nurl = 'sqlite:///x.db'\nretention.days = true", "databases.shop.retention.days"),
        ("[databases.shop]\nurl = 'sqlite:///x.db'\nstores = 'local'", "databases.shop.stores"),
        ("[databases.shop]\nurl = 'sqlite:///x.db'\nstores = 5", "databases.shop.stores"),
        ("[databases.shop]\nurl = 'sqlite:///x.db'\nstores = [{ a = 1 }]", "databases.shop.stores.0"),
        ("[databases.shop]\nurl = 'sqlite:///x.db'\nstores = [['local']]", "databases.shop.stores.0"),
        ("[databases.shop]\nurl = 'sqlite:///x.db'\nqueue = ''", "databases.shop.queue"),
        ("[databases.shop]\nurl = 'sqlite:///x.db'\nschedule = 'daily'", "databases.shop.schedule"),
        ("[databases.shop]\nurl = 'sqlite:///x.db'\nschedule = '0 0 30 2 *'", "databases.shop.schedule"),
        ("[databases.shop]\nurl = 'sqlite:///x.db'\ntimezone = '../zone'", "databases.shop.timezone"),
        ("[databases.shop]\nurl = 'sqlite:///x.db'\nname = 'other'", "databases.shop.name"),
        ("[stores.local]\npath = ''", "stores.local.path"),
        ("backup_dir = ''", "backup_dir"),
        ('backup_dir = "a\\u0000b"', "backup_dir"),
        ("backup_dir = 5", "backup_dir"),
        ("postgres_bin = '/usr/bin'", "postgres_bin"),
        ("spread = nan", "spread"),
        ("spread = '2d'", "spread"),
    ],
)
def test_what_has_the_wrong_shape_is_a_mistake_and_no_crash(write: Write, text: str, path: str) -> None:
    write(text)
    assert list(mistakes({})) == [path]


def test_names_that_differ_only_in_case_collide(write: Write) -> None:
    write('[databases.shop]\nurl = "sqlite:///a.db"\n[databases.Shop]\nurl = "sqlite:///b.db"\n')
    assert mistakes({}) == {
        "databases.Shop": "its files would collide with those of database 'shop' (rename one)"
    }


def test_a_name_that_collides_with_a_broken_database_is_told_too(write: Write) -> None:
    write('[databases.shop]\nurl = "nonsense"\n[databases.SHOP]\nurl = "sqlite:///b.db"\n')
    assert mistakes({}).keys() == {"databases.shop.url", "databases.SHOP"}


def test_url_and_url_env_exclude_each_other(write: Write) -> None:
    write('[databases.shop]\nurl = "sqlite:///a.db"\nurl_env = "SHOP"\n')
    assert mistakes({"SHOP": "sqlite:///b.db"}) == {
        "databases.shop.url_env": "stands beside url (keep one of them)"
    }


@pytest.mark.parametrize("environ", [{}, {"SHOP": ""}])
def test_url_env_names_a_variable_that_is_set(write: Write, environ: dict[str, str]) -> None:
    write('[databases.shop]\nurl_env = "SHOP"\n')
    assert mistakes(environ) == {"databases.shop.url": "url_env names the variable SHOP, which is not set"}


def test_a_secret_written_where_a_variables_name_belongs_is_not_told_on(write: Write) -> None:
    write(f'[notifiers.slack]\nurl_env = "{HOOK}"\n')
    assert mistakes({}) == {"notifiers.slack.url": "url_env has to be the name of an environment variable"}


def test_a_store_that_is_not_known(write: Write) -> None:
    write('[databases.shop]\nurl = "sqlite:///a.db"\nstores = ["offsite"]\n[stores.disk]\npath = "/mnt"\n')
    assert mistakes({}) == {"databases.shop.stores.0": "there is no store 'offsite' (configured are: disk)"}


def test_a_store_that_is_broken_is_not_called_unknown_too(write: Write) -> None:
    write('[databases.shop]\nurl = "sqlite:///a.db"\nstores = ["disk"]\n[stores.disk]\ntype = "local"\n')
    assert mistakes({}).keys() == {"stores.disk.path"}


def test_a_database_keeps_its_copies_in_the_stores_it_names(write: Write) -> None:
    write(
        """
        [databases.shop]
        url = "sqlite:///shop.db"
        stores = ["b"]
        [databases.crm]
        url = "sqlite:///crm.db"
        [stores.a]
        path = "a"
        [stores.b]
        path = "b"
        """
    )
    settings = load({})
    assert [store.name for store in settings.stores_of(settings.database("shop"))] == ["b"]
    assert [store.name for store in settings.stores_of(settings.database("crm"))] == ["a", "b"]


@pytest.mark.parametrize("path", ["kept", "./kept", "other/../kept", "link", "kept/deeper", "."])
def test_stores_that_share_a_folder_are_refused(write: Write, folder: Path, path: str) -> None:
    (folder / "kept").mkdir()
    (folder / "link").symlink_to("kept")
    write(f'state_dir = "/var/lib/larder"\n[stores.a]\npath = "kept"\n[stores.b]\npath = "{path}"\n')
    assert mistakes({}).keys() == {"stores.b.path"}


@pytest.mark.parametrize("state", ["backups", "backups/state", "backups/a/.b/../c"])
def test_a_spool_in_the_open_part_of_a_store_is_refused(state: str) -> None:
    assert mistakes({"LARDER_STATE_DIR": state}).keys() == {"state_dir"}


def test_a_hidden_spool_inside_a_store_is_fine(folder: Path) -> None:
    assert load({"LARDER_STATE_DIR": "backups/.state"}).state_dir == folder / "backups/.state"


def test_days_of_the_environment_are_the_default_of_databases_that_say_no_rule(write: Write) -> None:
    write(
        """
        [databases.a]
        url = "sqlite:///a.db"
        [databases.b]
        url = "sqlite:///b.db"
        retention = {}
        [databases.c]
        url = "sqlite:///c.db"
        retention.days = 3
        [databases.d]
        url = "sqlite:///d.db"
        retention.daily = 7
        """
    )
    days = {name: one.retention.days for name, one in load({"BACKUP_RETENTION_DAYS": "9"}).databases.items()}
    assert days == {"a": 9, "b": 9, "c": 3, "d": None}
    assert [one.retention.days for one in load({}).databases.values()] == [30, 30, 3, None]


@pytest.mark.parametrize(
    ("written", "seconds"), [("90", 90), ('"90s"', 90), ('"10m"', 600), ('" 2 h "', 7200), ('"7d"', 604800)]
)
def test_durations(write: Write, written: str, seconds: int) -> None:
    write(f'[databases.a]\nurl = "sqlite:///a.db"\nstall_timeout = {written}\n')
    assert load({}).database("a").stall_timeout == seconds


def test_a_database_url_beside_configured_databases_is_not_passed_over_in_silence(write: Write) -> None:
    write('[databases.crm]\nurl = "sqlite:///crm.db"\n')
    settings = load({"DATABASE_URL": SHOP})
    assert list(settings.databases) == ["crm"]
    assert ["DATABASE_URL is not backed up" in warning for warning in settings.warnings] == [True]
    write('[databases.crm]\nurl_env = "DATABASE_URL"\n')
    assert load({"DATABASE_URL": SHOP}).warnings == ()


def test_one_webhook_is_told_once(write: Write) -> None:
    write('[notifiers.ops]\nurl_env = "SLACK_WEBHOOK_URL"\non = ["failure"]\n')
    settings = load({"SLACK_WEBHOOK_URL": HOOK})
    assert list(settings.notifiers) == ["ops"]
    assert settings.warnings == ()


def test_a_webhook_that_a_notifier_of_the_file_replaces_is_told(write: Write) -> None:
    write('[notifiers.slack]\nurl = "https://hooks.slack.example/services/other"\n')
    settings = load({"SLACK_WEBHOOK_URL": HOOK})
    assert next(settings.notifiers["slack"].secrets()).endswith("/other")
    assert len(settings.warnings) == 1


def test_asking_for_a_database_that_there_is_not(write: Write) -> None:
    with pytest.raises(NotFoundError, match="unable to find database 'shop'") as caught:
        load({}).database("shop")
    assert "DATABASE_URL" in caught.value.hint
    tables = "".join(f'[databases.db{number}]\nurl = "sqlite:///{number}.db"\n' for number in range(20))
    write(tables)
    with pytest.raises(NotFoundError) as caught:
        load({}).database("db1O")
    assert caught.value.hint.startswith("did you mean 'db")
    with pytest.raises(NotFoundError) as caught:
        load({}).database("warehouse")
    assert caught.value.hint == "configured are: db0, db1, db2, db3, db4, db5, db6, db7, db8, db9 …"


def test_two_thousand_databases_can_be_configured(write: Write) -> None:
    tables = [
        f'[databases.db{number}]\nurl = "postgresql://u:secret-{number}@h/db{number}"\n'
        f'schedule = "{number % 60} 2 * * *"\ntimezone = "Europe/Berlin"\n'
        for number in range(2000)
    ]
    write("".join(tables))
    assert len(load({}).databases) == 2000


# Signers

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2)]


def test_signers_and_this_hosts_signing_key(write: Write, folder: Path) -> None:
    write(
        f"""
        signing_key = "keys/web1.key"
        [signers.web1]
        public_key = "{KEYS[0]}"
        [signers.web2]
        public_key = "{KEYS[1]}"
        """
    )
    settings = load({})
    assert settings.signing_key == folder / "keys/web1.key", "which is read when something is signed"
    assert settings.signer_keys == {"web1": KEYS[0], "web2": KEYS[1]}
    assert settings.signers["web2"].name == "web2"


def test_no_signer_has_to_be_configured() -> None:
    settings = load({})
    assert (settings.signing_key, settings.signers, settings.signer_keys) == (None, {}, {})


@pytest.mark.parametrize(
    "key",
    [
        "",
        "AAAA",
        KEYS[0][:-1],
        KEYS[0] + "\\n",
        KEYS[0].replace("AQEBAQE=", "AQEBAQF="),
        KEYS[0].replace("A", "-"),
        "größe",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_a_public_key_is_32_bytes_in_one_spelling(write: Write, key: str) -> None:
    write(f'[signers.web1]\npublic_key = "{key}"\n')
    assert mistakes({}) == {"signers.web1.public_key": "has to be 32 bytes in base64"}


def test_mistakes_in_signers(write: Write) -> None:
    write(
        f"""
        signing_key = ""
        [signers.a]
        public_key = "{KEYS[0]}"
        [signers.b]
        public_key = "{KEYS[0]}"
        [signers.c]
        publickey = "{KEYS[1]}"
        [signers.d]
        public_key = 5
        """
    )
    assert mistakes({}) == {
        "signing_key": "is empty, or no path",
        "signers.b.public_key": "is the key of signer 'a' too",
        "signers.c.publickey": "unknown key (did you mean 'public_key'?)",
        "signers.c.public_key": "is missing",
        "signers.d.public_key": "has to be text, in quotation marks",
    }


# Secrets

PASSWORD = "s3cr3t-p@ss/word"
PARTS = (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), "s3cr3t", "ss/word", "ss%2Fword")
GOOD = f"postgresql://backup:{quote(PASSWORD, safe='')}@db.example:5432/shop"


def leaks(text: str) -> list[str]:
    return [part for part in PARTS if part in text]


def shown(thing: Any) -> str:
    """A thing in every way that it might be printed."""
    texts = [repr(thing), str(thing), f"{thing}"]
    if isinstance(thing, BaseModel):
        texts += [
            repr(thing.model_dump()),
            thing.model_dump_json(),
            json.dumps(thing.model_dump(mode="json")),
        ]
    return "\n".join(texts)


def test_no_settings_print_a_password() -> None:
    settings = load(
        {
            "DATABASE_URL": GOOD,
            "SLACK_WEBHOOK_URL": "https://hooks.slack.example/services/s3cr3t-p@ss/word",
            "REDIS_URL": f"redis://:{quote(PASSWORD, safe='')}@redis.example:6379/0",
            "LARDER_LEDGER_URL": f"postgresql://ledger:{quote(PASSWORD, safe='')}@db.example/ledger",
        }
    )
    things: list[object] = [settings, *settings.databases.values(), *settings.notifiers.values()]
    assert [leaks(shown(thing)) for thing in things] == [[]] * 3
    assert settings.database("shop").url.get_secret_value() == GOOD
    assert leaks(secret.redact(f"FATAL: {PASSWORD} and {quote(PASSWORD, safe='')}")) == []


MALFORMED = [
    f"postgresql://backup:{PASSWORD}@db.example/shop",
    f"postgresql://backup:{PASSWORD}@db.example:port/shop",
    f"postgresql://backup:{quote(PASSWORD, safe='')}@db.example:99999/shop",
    f"postgresql://backup:{quote(PASSWORD, safe='')}@db.example:abc/shop",
    f"postgresql://backup:{quote(PASSWORD, safe='')}@[::1/shop",
    f"postgresql://backup:{quote(PASSWORD, safe='')}%zz@db.example/shop",
    f"postgresql://backup:{quote(PASSWORD, safe='')}@db.example/shop?nonsense=1",
    f"postgresql://backup:{quote(PASSWORD, safe='')}@db.example/shop?sslmode=maybe",
    f"postgresql://db.example/shop?passwort={PASSWORD}",
    f"mysql://backup:{PASSWORD}@db.example/shop",
    f"postgresql//backup:{PASSWORD}@db.example/shop",
    f"postgres:/backup:{PASSWORD}@db.example/shop",
    f"host=db.example password={PASSWORD} nonsense=1",
    f"host=db.example password='{PASSWORD} dbname=shop",
    f"backup:{PASSWORD}@db.example",
    PASSWORD,
]


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_connection_string_is_refused_and_not_quoted(write: Write, url: str) -> None:
    with pytest.raises(ConfigurationError) as alone:
        load({"DATABASE_URL": url})
    assert "  DATABASE_URL: " in alone.value.message
    text = json.dumps(url)
    write(f'[databases.shop]\nurl = {text}\nshedule = "x"\n[databases.crm]\nurl_env = "CRM"\n')
    with pytest.raises(ConfigurationError) as several:
        load({"CRM": url, "SLACK_WEBHOOK_URL": url, "REDIS_URL": url, "LARDER_LEDGER_URL": f"x{url}"})
    for error in (alone.value, several.value):
        seen: BaseException | None = error
        while seen is not None:
            assert leaks("\n".join([str(seen), repr(seen), repr(seen.args)])) == []
            seen = seen.__cause__ or seen.__context__
    assert several.value.message.splitlines()[0].endswith("6 mistakes")


def test_a_password_in_a_broken_file_is_not_quoted(write: Write) -> None:
    write(f'[databases.shop]\nurl = "{GOOD}\nschedule = "0 2 * * *"\n')
    with pytest.raises(ConfigurationError) as caught:
        load({})
    assert leaks(str(caught.value)) == []
    assert "line 2" in caught.value.message


# The example


def keys_of(model: type[Table]) -> dict[str, Any]:
    """The keys of a table and their defaults, as TOML has them; None where there is none."""
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        if not info.exclude:
            value = info.get_default(call_default_factory=True)
            value = None if value is PydanticUndefined else value
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (General, ()),
        (DatabaseSettings, ("databases", "shop")),
        (RetentionSettings, ("databases", "shop", "retention")),
        (LocalSettings, ("stores", "local")),
        (notifiers.settings_of("slack"), ("notifiers", "slack")),
    ],
)
def test_the_example_has_every_key_with_its_default(
    example: dict[str, Any], model: type[Table], path: tuple[str, ...]
) -> None:
    table = example
    for part in path:
        table = table[part]
    written = {key: value for key, value in table.items() if not isinstance(value, dict)}
    wanted = {key: value for key, value in keys_of(model).items() if not isinstance(value, BaseModel)}
    # A secret comes from the environment, and what has no fixed default stands with the one that it takes.
    if "url" in wanted:
        wanted["url_env"] = wanted.pop("url")
    missing = wanted.keys() - written.keys()
    assert written.keys() <= wanted.keys()
    assert {key for key in missing if wanted[key] is not None} == set()
    assert missing <= set(re.findall("^# ([a-z_]+) = ", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE))
    for key, default in wanted.items():
        if default is not None and key in written:
            read = model.model_validate({**_required(model), key: written[key]})
            assert getattr(read, key) == getattr(model.model_validate(_required(model)), key), key


def test_the_rules_of_retention_that_the_example_shows_are_rules(write: Write) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    first, table = text.partition("[databases.shop.retention]\n")[::2]
    table = table.partition("\n\n\n")[0]
    write(
        f"{first}[databases.shop.retention]\n" + re.sub("^# ([a-z_]+ = )", r"\1", table, flags=re.MULTILINE)
    )
    rules = load({"SHOP_DATABASE_URL": SHOP}).database("shop").retention.model_dump()
    assert rules.keys() == keys_of(RetentionSettings).keys()
    assert None not in rules.values()


@pytest.mark.parametrize("word", list(RetentionSettings.model_fields))
def test_a_rule_that_would_keep_nothing_is_a_mistake(write: Write, word: str) -> None:
    write(f'[databases.a]\nurl = "sqlite:///a.db"\nretention.{word} = 0\n')
    assert mistakes({}) == {f"databases.a.retention.{word}": "has to be at least 1"}


def test_the_example_shows_a_signer(write: Write) -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").partition("# [signers.web1]\n")[2].partition("\n\n\n")[0]
    table = tomllib.loads("\n".join(line[2:] for line in lines.splitlines() if " = " in line))
    assert table.keys() == keys_of(SignerSettings).keys()
    write(f'[signers.web1]\npublic_key = "{table["public_key"]}"\n')
    assert load({}).signer_keys == {"web1": table["public_key"]}


def test_the_example_shows_every_key_of_a_bucket_with_its_default(write: Write) -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").partition("# [stores.s3]\n")[2].partition("\n\n\n")[0]
    written = re.findall("^# ([a-z_]+ = .*)$", lines, re.MULTILINE)
    table = tomllib.loads("\n".join(written))
    wanted = keys_of(S3Settings)
    assert list(table) == list(wanted)
    write("\n".join(["[stores.s3]", *written]))
    found = load({}).stores["s3"]
    for key, default in wanted.items():
        if default is not None and key != "type":
            assert getattr(found, key) == default, key


def _required(model: type[Table]) -> dict[str, str]:
    given = {"url": HOOK if issubclass(model, NotifierSettings) else SHOP, "path": "backups"}
    return {key: given[key] for key, info in model.model_fields.items() if info.is_required()}


def test_every_key_of_the_example_says_why() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith(("#", "[")):
            assert lines[number - 1].startswith("# "), line


def test_the_example_loads_and_says_what_the_defaults_say(write: Write) -> None:
    environ = {"SHOP_DATABASE_URL": SHOP, "SLACK_WEBHOOK_URL": HOOK}
    write(EXAMPLE.read_text(encoding="utf-8"))
    settings = load(environ)
    write('[databases.shop]\nurl_env = "SHOP_DATABASE_URL"\n')
    assert settings == load(environ)
    assert isinstance(settings, Settings)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("sentry.example", "has to start with https:// or http://"),
        ("https://sentry.example/42", "has to be a project's DSN, as https://KEY@sentry.example/42"),
        ("https://s3cr3tk3y@sentry.example/", "has to be a project's DSN, as https://KEY@sentry.example/42"),
        ("https://s3cr3tk3y@/42", "has to be a project's DSN, as https://KEY@sentry.example/42"),
    ],
)
def test_what_is_no_address_of_sentrys(value: str, what: str) -> None:
    assert mistakes({"SENTRY_DSN": value}) == {"SENTRY_DSN": what}


@pytest.mark.parametrize(
    "environ",
    [
        {"SENTRY_DSN": "https://s3cr3tk3y@sentry.example/prefix/42"},
        {"REDIS_URL": "redis://:first@h1/0;redis://:s3cr3tk3y@h2/0"},
        {"REDIS_URL": "redis://:first@h1;redis://u:s3cr3tk3y@h2"},
        {"LARDER_LEDGER_URL": "postgresql://u:1#s3cr3tk3y?x@h/ledger"},
        {"LARDER_LEDGER_URL": "postgresql://u@h/ledger?password=s3cr3tk3y"},
        {"AWS_SECRET_ACCESS_KEY": "s3cr3tk3y"},
    ],
)
def test_what_must_not_be_printed_is_known_once_it_is_read(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret, "_known", set())
    monkeypatch.setattr(secret, "_ordered", ())
    load(environ)
    whole = "1#s3cr3tk3y?x" if "#" in str(environ) else "s3cr3tk3y"
    assert secret.redact(f"it is {whole} here") == f"it is {secret.MASK} here"


# Secrets in files


@pytest.fixture
def file(folder: Path) -> Callable[[str], str]:
    """Writes a secret's file, and gives its name."""

    def file(text: str) -> str:
        path = folder / "secret.txt"
        path.write_text(text)
        return str(path)

    return file


#: What each secret variable can hold, with what must not be printed in it.
SECRETS = {
    "DATABASE_URL": "postgresql://u:s3cr3tk3y@h/shop",
    "REDIS_URL": "redis://:s3cr3tk3y@h/0",
    "LARDER_LEDGER_URL": "postgresql://u:s3cr3tk3y@h/ledger",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.example/s3cr3tk3y",
    "SENTRY_DSN": "https://s3cr3tk3y@sentry.example/42",
    "CRON_SECRET": "s3cr3tk3y",
    "LARDER_CONSOLE_PASSWORD": "s3cr3tk3y",
}


def test_every_secret_of_the_environment_is_tried_as_a_file() -> None:
    found = {key.upper() for key, info in Environment.model_fields.items() if "Secret" in repr(info)}
    assert found == set(SECRETS)


@pytest.mark.parametrize("variable", list(SECRETS))
def test_a_secret_may_lie_in_a_file(variable: str, file: Callable[[str], str]) -> None:
    in_file = load({f"{variable}_FILE": file(SECRETS[variable] + "\n")})
    assert secret.redact(f"it is {SECRETS[variable]}").find("s3cr3tk3y") == -1
    assert in_file == load({variable: SECRETS[variable]}) != load({})


def test_a_file_that_a_variable_of_the_configuration_is_in(write: Write, file: Callable[[str], str]) -> None:
    write('[databases.shop]\nurl_env = "SHOP"\n')
    settings = load({"SHOP_FILE": file("postgresql://u:s3cr3tk3y@h/shop\n")})
    assert settings.database("shop").url.get_secret_value() == "postgresql://u:s3cr3tk3y@h/shop"
    assert secret.redact("s3cr3tk3y") == secret.MASK


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "names a file that does not exist"),
        (b"\n", "names a file that is empty"),
        (b"s3cr3tk3y\xff", "names a file that is not UTF-8"),
    ],
)
def test_a_secrets_file_that_cannot_be_used(
    write: Write, folder: Path, content: bytes | None, what: str
) -> None:
    write('[databases.shop]\nurl_env = "SHOP"\n')
    if content is not None:
        (folder / "s3cr3tk3y").write_bytes(content)
    found = mistakes({"CRON_SECRET_FILE": "s3cr3tk3y", "SHOP_FILE": "s3cr3tk3y"})
    assert found == {
        "CRON_SECRET_FILE": what,
        "databases.shop.url": f"url_env names SHOP, and SHOP_FILE {what}",
    }


def test_a_folder_in_the_place_of_a_secrets_file(folder: Path) -> None:
    # What Docker makes where the file of a bind mount is missing.
    what = "names a file that cannot be read: is a directory"
    assert mistakes({"REDIS_URL_FILE": str(folder)}) == {"REDIS_URL_FILE": what}


def test_a_secret_and_its_file_exclude_each_other(file: Callable[[str], str]) -> None:
    what = "stands beside CRON_SECRET (keep one of them)"
    assert mistakes({"CRON_SECRET": "one", "CRON_SECRET_FILE": file("two")}) == {"CRON_SECRET_FILE": what}


def test_what_is_in_a_file_is_checked_as_if_it_were_in_the_variable(file: Callable[[str], str]) -> None:
    assert mistakes({"SENTRY_DSN_FILE": file("sentry.example")}) == {
        "SENTRY_DSN": "has to start with https:// or http://"
    }


def test_only_secrets_may_lie_in_files(file: Callable[[str], str]) -> None:
    assert load({"BACKUP_DIR_FILE": file("/elsewhere")}) == load({})
