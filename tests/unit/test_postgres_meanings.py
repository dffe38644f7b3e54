"""What a server's words say of a backup: whether it is to blame, or the server and what it has."""

from __future__ import annotations

import pytest

from larder.databases._postgres_load import meaning
from larder.errors import ExhaustedError, LarderError, RefusedError, RejectedError, UnreachableError


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('insert or update on table "a" violates foreign key constraint "b"', RejectedError),
        ('relation "orders" does not exist', RejectedError),
        ('could not create unique index "a_key"', RejectedError),
        ('invalid byte sequence for encoding "UTF8": 0xff', RejectedError),
        ('syntax error at or near ";"', RejectedError),
        ('role "carol" does not exist', RefusedError),
        ('collation "de_DE" for encoding "UTF8" does not exist', LarderError),
        ('extension "postgis" is not available', RefusedError),
        ("could not extend file: No space left on device", ExhaustedError),
        ("server closed the connection unexpectedly", UnreachableError),
        ("out of memory", LarderError),
    ],
)
def test_what_a_server_says(said: str, kind: type[LarderError]) -> None:
    assert type(meaning("unable to restore database 'shop'", said)) is kind
