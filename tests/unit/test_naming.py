"""Names: as the user's documents have them, and never misread."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder.errors import NotFoundError
from larder.naming import (
    LATEST,
    artifact_name,
    backup_id,
    globals_name,
    manifest_name,
    parse_backup_id,
    sidecar_name,
    stamp_of,
)


def test_names_are_those_that_the_user_knows() -> None:
    stamp = stamp_of(datetime(2025, 10, 16, 2, 0, 0, tzinfo=UTC))
    artifact = artifact_name("postgres", stamp, ".sql", ".gz")
    assert artifact == "backup_postgres_20251016_020000.sql.gz"
    assert artifact_name("sqlite", stamp, ".db", "") == "backup_sqlite_20251016_020000.db"
    assert globals_name("postgres", stamp, ".gz") == "backup_postgres_20251016_020000.globals.sql.gz"
    assert sidecar_name(artifact) == "backup_postgres_20251016_020000.sql.gz.sha256"
    assert manifest_name(artifact) == "backup_postgres_20251016_020000.sql.gz.manifest.json"


def test_a_stamp_is_in_utc() -> None:
    berlin = timezone(timedelta(hours=2))
    assert stamp_of(datetime(2025, 10, 16, 1, 30, 59, 999_999, tzinfo=berlin)) == "20251015_233059"
    with pytest.raises(ValueError, match="time zone"):
        stamp_of(datetime(2025, 10, 16))  # noqa: DTZ001 - the very mistake


@given(
    st.integers(0, 7_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    st.from_regex(r"\A[a-z0-9][a-z_-]{0,9}\Z"),
)
def test_an_id_is_read_back(moment: datetime, database: str) -> None:
    assert parse_backup_id(backup_id(database, stamp_of(moment))) == (database, stamp_of(moment))


def test_latest_stands_for_a_stamp() -> None:
    assert parse_backup_id("shop/latest") == ("shop", LATEST)


@pytest.mark.parametrize(
    "text",
    [
        "", "shop", "shop/", "/latest", "shop/20251016", "shop/20251016_020000.sql", "shop/20251316_020000",
        "shop/20251016_250000", "shop/latest/", "../latest", "shop/../latest", "a b/latest", "shop/Latest",
        "shop/latest\n", "shop/２０２５１０１６_020000", "-x/latest",
    ],
)  # fmt: skip
def test_what_can_be_no_id_is_not_found(text: str) -> None:
    with pytest.raises(NotFoundError, match="unable to find backup") as caught:
        parse_backup_id(text)
    assert "shop/latest" in caught.value.hint
