"""Connection strings of PostgreSQL: how they are read, and where they lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder import databases, secret
from larder.databases import _postgres_connection
from larder.databases._postgres_connection import parameters, refusal
from larder.databases._postgres_urls import public_url, with_secrets_of
from larder.errors import ConfigurationError, LarderError, RefusedError, UnreachableError
from tests.dumps import dumped, filled, opened
from tests.servers import PASSWORD, Cluster, Clusters, free_port


@pytest.fixture
def server(clusters: Clusters) -> Cluster:
    """One server, for what does not depend on the version."""
    return clusters.get(16)


#: A password's parts, none of which may turn up in a message.
PARTS = ("hunter2", "s3cr3t", "p@ss", "ss/word")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:hunter2@db.example:5433/shop", "u hunter2 db.example 5433 shop"),
        ("postgres://u:s3cr3t-p%40ss%2Fword@h/shop", "u s3cr3t-p@ss/word h - shop"),
        ("postgresql+psycopg2://u:hunter2@h/shop", "u hunter2 h - shop"),
        ("POSTGRESQL://u@h/shop", "u - h - shop"),
        ("postgresql://u:a?b#c&d=e@h/shop?sslmode=require", "u a?b#c&d=e h - shop"),
        ("postgresql://u@[::1]:5433/shop", "u - ::1 5433 shop"),
        ("postgresql:///shop?host=/run/pg&user=u", "u - /run/pg - shop"),
        ("postgresql://u@%2Frun%2Fpg:5433/sh%C3%B6p", "u - /run/pg 5433 shöp"),
        ("postgresql://u@a:1,b:2/shop?target_session_attrs=primary", "u - a,b 1,2 shop"),
        (
            "postgresql://u@h/shop?schema=public&connection_limit=1&pool_timeout=0&pgbouncer=true",
            "u - h - shop",
        ),
        ("postgresql://u@h/shop?ssl=true", "u - h - shop"),
        ("host=h user=u password='hunter2 x' dbname=shop", "u hunter2 x h - shop"),
        (" dbname = shop", "- - - - shop"),
    ],
)
def test_connection_strings_are_read_as_libpq_reads_them(url: str, expected: str) -> None:
    assert databases.engine_of(url) == "postgres"
    assert databases.check_url(url) is None
    found = parameters(url)
    assert " ".join(found.get(key, "-") for key in ("user", "password", "host", "port", "dbname")) == expected


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cr3t-p%40ss%2Fword@db.example:5433/sh%C3%B6p?sslmode=require&schema=public",
        "postgresql://u:hunter2@a:1,[::1]:2/shop?target_session_attrs=primary",
        "host=a,b port=5433 user='the user' password='hunter2 x' dbname='a /?'",
        "postgresql://u:hunter2@%2Frun%2Fpg:5433/shop?options=-c%20statement_timeout%3D1",
        "host=h hostaddr=127.0.0.1 user=u password=hunter2",
        "postgresql:///shop?port=5433&user=u&password=hunter2",
        "service=shop user=u password=hunter2",
    ],
)
def test_a_public_url_leads_to_the_same_place_and_gets_its_password_back(url: str) -> None:
    found = parameters(url)
    public = public_url(url)
    assert public.startswith("postgresql://")
    assert not [part for part in PARTS if part in public]
    whole = with_secrets_of(public, ["postgresql://somebody:else@elsewhere", url])
    assert whole.startswith("postgresql://")
    ports = found.get("port", "").replace(",", " ").split()
    for given in (parameters(public) | {"password": found["password"]}, parameters(whole)):
        assert {**given, "port": ""} == {**found, "port": ""}
        assert set(given.get("port", "").split(",")) - {""} == set(ports)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://u:s3cr3t-p@ss/word@h/shop", "percent-encode"),
        ("postgresql://u:hunter2@s3cr3t@h/shop", "percent-encode"),
        ("postgresql://u:p@ss?hunter2=1@h/shop", "percent-encode"),
        ("postgresql://u:hunter2%zz@h/shop", "two hexadecimal digits"),
        ("postgresql://u:hunter2@h:s3cr3t/shop", "port"),
        ("postgresql://u:hunter2@h:0/shop", "port"),
        ("postgresql://u:hunter2@[::1/shop", "IPv6"),
        ("postgresql://u:hunter2@h/shop?sslmod=require", "did you mean 'sslmode'?"),
        ("postgresql://u:hunter2@h/shop?sslmode=maybe", "sslmode"),
        ("postgresql://u:hunter2@h/shop?sslpassword=s3cr3t", "sslpassword"),
        ("host=h password=hunter2 secret=s3cr3t", "a parameter that PostgreSQL does not know"),
        ("host=h password='hunter2", "does not understand"),
    ],
)
def test_a_wrong_connection_string_is_explained_without_its_secrets(url: str, problem: str) -> None:
    said = databases.check_url(url)
    assert said is not None
    assert problem in said
    assert not [part for part in PARTS if part in said]
    with pytest.raises(ConfigurationError) as caught:
        _postgres_connection.connect("shop", url)
    assert not [part for part in PARTS if part in str(caught.value)]


def test_a_password_is_masked_from_the_moment_that_it_is_read() -> None:
    parameters("host=h password='only in keyword form'")
    assert secret.redact("x only in keyword form x") == "x **** x"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://u@h/shop", "shop"),
        ("postgresql://u@h/my%20shop", "my_shop"),
        ("service=main", "main"),
        ("postgresql://u@h", "default"),
    ],
)
def test_a_database_is_named_after_what_the_connection_string_tells(url: str, name: str) -> None:
    assert databases.name_in(url) == name


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ('connection to server at "h", port 1 failed: Connection refused', UnreachableError),
        ("connection timeout expired", UnreachableError),
        ("failed to resolve host 'h': [Errno -2] Name or service not known", UnreachableError),
        ("connection failed: FATAL:  the database system is starting up", UnreachableError),
        ("connection failed: FATAL:  sorry, too many clients already", UnreachableError),
        ("connection failed: FATAL:  remaining connection slots are reserved for roles", UnreachableError),
        ("server closed the connection unexpectedly", UnreachableError),
        ('connection failed: FATAL:  password authentication failed for user "u"', RefusedError),
        ('connection failed: FATAL:  no pg_hba.conf entry for host "h", no encryption', RefusedError),
        ("connection failed: server does not support SSL, but SSL was required", RefusedError),
        ("connection failed: FATAL:  something nobody has foreseen", RefusedError),
        ('definition of service "x" not found', RefusedError),
        ("::1: Connection refused\n127.0.0.1: FATAL:  password authentication failed", RefusedError),
    ],
)
def test_what_libpq_says_is_told_apart_by_whether_another_try_can_help(
    reason: str, kind: type[LarderError]
) -> None:
    error = refusal("shop", "localhost:5432", reason)
    assert type(error) is kind
    assert error.retryable == (kind is UnreachableError)
    assert "'shop' at localhost:5432" in error.message
    assert error.hint or "foreseen" in reason


def test_of_several_hosts_one_that_is_down_may_be_the_right_one() -> None:
    reason = "a: Connection refused\nb: FATAL:  password authentication failed"
    assert refusal("shop", "a:1, b:2", reason).retryable


def test_every_way_to_write_the_same_place_leads_there(
    server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, passfile = tmp_path / "services", tmp_path / "pgpass"
    with filled(server, "CREATE TABLE a (n int)") as name:
        service.write_text(f"[shop]\nhost=127.0.0.1\nport={server.port}\nuser=postgres\ndbname={name}\n")
        passfile.write_text(f"127.0.0.1:{server.port}:*:postgres:{PASSWORD}\n")
        passfile.chmod(0o600)
        monkeypatch.setenv("PGSERVICEFILE", str(service))
        monkeypatch.setenv("PGPASSFILE", str(passfile))
        monkeypatch.setenv("LARDER_TEST", "x")
        tcp = server.url(name)
        for number, url in enumerate(
            [
                tcp.replace("postgresql://", "postgres://"),
                tcp.replace("postgresql://", "postgresql+psycopg://"),
                f"{tcp}?sslmode=disable&schema=public&connection_limit=5&pgbouncer=true",
                f"{tcp}?sslmode=prefer&keepalives_idle=30&options=-c%20statement_timeout%3D60000",
                server.socket_url(name),
                f"postgresql:///{name}?host={server.folder}&port={server.port}&user=postgres",
                server.socket_dsn(name),
                f"postgresql://postgres@127.0.0.1:{server.port}/{name}",
                "postgresql://?service=shop",
                "service=shop",
                tcp.replace("@127.0.0.1", f"@127.0.0.1:{free_port()},127.0.0.1"),
            ]
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            assert list(dumped(url, folder).fingerprint["tables"]) == ["public.a"], number


def test_without_a_host_the_socket_is_looked_for(
    server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PGHOST", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(_postgres_connection, "SOCKET_FOLDERS", (tmp_path, server.folder))
    with filled(server, "CREATE TABLE a (n int)") as name:
        look = opened(f"postgresql://postgres@/{name}?port={server.port}").look()
    assert str(server.folder) in look.description
