"""Secrets: masked in whatever form they turn up, in time that grows as the text does."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from larder import secret
from larder.errors import LarderError
from larder.secret import MASK, redact, redact_end, redact_within, register

JWT = "eyJhbGciOiJFZERTQSJ9.eyJqdGkiOiIwMTIzNDU2NyJ9.c2lnbmF0dXJlLW9m_YW5-YXBwcm92ZXI"


@pytest.fixture(autouse=True)
def nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(secret, "_known", set())
    monkeypatch.setattr(secret, "_ordered", ())
    return


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://app:s3cr3t@db:5432/shop", "postgresql://app:****@db:5432/shop"),
        ("postgres://app:s3cr3t-p@ss/word@db/shop", "postgres://app:****@db/shop"),
        ("postgres://app:a:b?c#d@db/shop", "postgres://app:****@db/shop"),
        ("redis://:hunter2@127.0.0.1/0", "redis://:****@127.0.0.1/0"),
        ("(postgres://u:p@[::1]:5432/x)", "(postgres://u:****@[::1]:5432/x)"),
        ("at postgres://u:p@h/x, see admin@example.org", "at postgres://u:****@h/x, see admin@example.org"),
        ("postgres://u:p@h/x\npostgres://v:q@h/y", "postgres://u:****@h/x\npostgres://v:****@h/y"),
        (
            "postgresql://app@db/shop?password=x%20y&sslmode=require",
            "postgresql://app@db/shop?password=****&sslmode=require",
        ),
        ("host=db password=hunter2 user=app", "host=db password=**** user=app"),
        ("password = 'two words' user=app", "password = '****' user=app"),
        (r"password='it\'s' user=app", "password='****' user=app"),
        ("sslpassword=x", "sslpassword=****"),
        ("PGPASSWORD=hunter2 pg_dump", "PGPASSWORD=**** pg_dump"),
        ("AWS_SECRET_ACCESS_KEY=abc/def+g", "AWS_SECRET_ACCESS_KEY=****"),
        ('{"password": "hunter2", "user": "app"}', '{"password": "****", "user": "app"}'),
        ("{'token': 'abc'}", "{'token': '****'}"),
        ("ALTER ROLE app PASSWORD 'hunter2';", "ALTER ROLE app PASSWORD '****';"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ****"),
        (f"args: ['0123456789ab', '{JWT}'] kwargs: {{}}", "args: ['0123456789ab', '****'] kwargs: {}"),
        (rf"""b'[[\"{JWT}\"]]'""", r"""b'[[\"****\"]]'"""),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, masked: str) -> None:
    assert redact(text) == masked
    assert redact(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        'FATAL:  password authentication failed for user "app"',
        "see https://example.org/docs#passwords and mail admin@example.org",
        "sqlite:////var/lib/shop.db",
        "postgresql://app@db:5432/shop",
        "http://localhost:5555 is Flower",
        "12:30 user@host: 5 tokens, 3 secrets",
        "the token: see larder.toml",
        "eyjafjall.example.org.is and eyJ.a.b are no tokens",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_a_registered_secret_is_masked_in_every_spelling() -> None:
    password = 's3cr3t-p@ss/wörd "x\\y'
    register(password)
    for spelling in (
        password,
        quote(password),
        quote(password, safe=""),
        quote(password).replace("%C3%B6", "%c3%b6").replace("%5C", "%5c"),
        json.dumps(password),
        json.dumps(password, ensure_ascii=False),
        repr(password),
        ascii(password),
        repr(password.encode()),
        html.escape(password),
        make_conninfo(password=password),
        f"ALTER ROLE app PASSWORD '{password}'",
    ):
        found = redact(f"before {spelling} after")
        assert "s3cr3t" not in found
        assert found.startswith("before ")
        assert found.endswith(" after")


@pytest.mark.parametrize(
    "password",
    ["it's l0ng", """both ' and " l0ng""", "back\\slash' l0ng", "\\'l0ng", "wörd\\t's l0ng", "a<l0ng>&b"],
)
def test_quotes_around_a_secret_do_not_hide_it(password: str) -> None:
    register(password)
    for around in ("{}", "it's {}", 'say "{}"', """it's "{}\""""):
        text = around.format(password)
        quoted = text.replace("'", "''")
        quoted_once = (repr(text), ascii(text), json.dumps(text), repr(text.encode()), html.escape(text))
        for spelled in (text, quoted, *quoted_once):
            assert "l0ng" not in redact(f"x {spelled} x"), spelled


def test_each_line_of_a_secret_is_masked() -> None:
    register("-----BEGIN KEY-----\nfirst+line\r\nlast/line=\n")
    for line in ("first+line", "last/line=", "first%2Bline"):
        assert redact(f"before {line} after") == f"before {MASK} after"


def test_bytes_that_are_no_text_are_masked_and_stop_nobody() -> None:
    register("s3cr3t\udcff!")
    assert "s3cr3t" not in redact("s3cr3t\udcff! s3cr3t%FF%21")


def test_every_text_of_a_document_is_masked() -> None:
    register("hunter22")
    document = {"a": ["hunter22", ("b hunter22", 3)], "hunter22": {"c": None, "d": 1.5}}
    assert redact_within(document) == {"a": [MASK, (f"b {MASK}", 3)], MASK: {"c": None, "d": 1.5}}


def test_half_a_secret_at_the_begin_of_what_was_kept_is_left_out() -> None:
    register("hunter22 of mine")
    written = b"the password hunter22 of mine is wrong\nsecond line hunter22 of mine\n"
    kept = written[17:]
    assert redact_end(kept, len(kept)) == f"second line {MASK}\n"
    assert redact_end(written, len(written) + 1) == f"the password {MASK} is wrong\nsecond line {MASK}\n"
    one_line = b"er22 and so on"
    assert redact_end(one_line, len(one_line)) == "and so on"
    assert redact_end(b"", 8) == ""


def test_a_percent_encoded_secret_is_masked_decoded_too() -> None:
    register("p%40ss%2Fword")
    assert redact("wrong password p@ss/word") == f"wrong password {MASK}"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    register("hunter")
    register("hunter22")
    assert redact("hunter22 hunter") == f"{MASK} {MASK}"


def test_a_short_secret_does_not_turn_every_line_into_stars() -> None:
    register("a")
    register("%61%62")
    register("")
    assert redact("an able man at 5 %") == "an able man at 5 %"


def test_errors_never_hold_a_secret() -> None:
    register("hunter2!")
    error = LarderError("unable to use hunter2!", "do not write hunter2! there")
    assert "hunter2" not in f"{error} {error!r} {error.args} {error.message} {error.hint}"


@given(
    user=st.text(st.characters(blacklist_characters="/@: ", blacklist_categories=("Z", "C")), max_size=8),
    password=st.text(st.characters(blacklist_categories=("Z", "C")), min_size=1, max_size=30),
)
def test_no_password_in_a_url_comes_through(user: str, password: str) -> None:
    found = redact(f"unable to reach postgresql://{user}:{password}@db.example:5432/shop now")
    assert found == f"unable to reach postgresql://{user}:{MASK}@db.example:5432/shop now"


@given(st.text("ab @:/='\"\\password?&\n", max_size=60))
def test_masking_again_changes_nothing(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "piece",
    [
        "a", "://a:", "://", "@", "a@://b:", "password", "password=", "password='", "password=\"'", "secret_",
        "token: ", " ", "bearer ", "\\'", "p='\\", "'", "x://y:z@", "\n",
        "eyJ", "eyJ.", "eyJ-aaaaaaaa.", "-",
    ],
)  # fmt: skip
def test_time_grows_as_the_text_does(piece: str) -> None:
    # What takes the square of 200,000 steps meets the time limit that every test has.
    text = piece * (200_000 // len(piece))
    for start in ("", "password='", "postgres://u:", "token "):
        assert redact(start + text)
        assert redact(start + text + "@")
