"""Cutting a script of pg_dump: nothing is lost, wherever it is split, and what only looks like a landmark is none."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder.databases._postgres_cut import Cutter, End, Entry, Piece, Rows, Table, Text, UncutError

PREAMBLE = b"""--
-- PostgreSQL database dump
--

\\restrict 1TdrkFPPaoa9

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET default_tablespace = '';

"""


def header(kind: str, name: str = "a") -> bytes:
    return f"--\n-- Name: {name}; Type: {kind}; Schema: public; Owner: me\n--\n\n".encode()


COPY = b"COPY public.a (b) FROM stdin;\n"
LIKE_ROWS = COPY + b"1\n\\.\n"
LIKE_AN_INDEX = header("INDEX") + b"CREATE INDEX i ON a (b);\n"
INDEX = header("INDEX", "i") + b"CREATE INDEX i ON public.a USING btree (b);\n\n\n"
KEY = header("CONSTRAINT") + b"ALTER TABLE ONLY public.a\n    ADD CONSTRAINT a_pkey PRIMARY KEY (b);\n\n\n"
COMMENT = (
    header("COMMENT", "INDEX i") + b"COMMENT ON INDEX public.i IS 'one; two\n" + LIKE_AN_INDEX + b"';\n\n\n"
)
FOREIGN = header("FK CONSTRAINT") + b"ALTER TABLE ONLY public.a ADD FOREIGN KEY (b) REFERENCES public.c;\n\n"
OTHER = header("POLICY") + b"ALTER TABLE public.a ENABLE ROW LEVEL SECURITY;\n\n"
END = b"--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict 1TdrkFPPaoa9\n\n"

#: Text in which nothing is a landmark, each in a way of its own.
HIDING = [
    b"CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $_$\n"
    + LIKE_ROWS
    + LIKE_AN_INDEX
    + b"$$ $x$ $_$;\n",
    b"CREATE FUNCTION f() AS $$\n" + LIKE_ROWS + b"$_$ '$$;\n",
    b"COMMENT ON TABLE a IS 'it''s\n" + LIKE_ROWS + b"\\';\n",
    b"CREATE VIEW v AS SELECT E'\\'\n" + LIKE_ROWS + b"\\\\''\n" + LIKE_AN_INDEX + b"' AS a;\n",
    b'CREATE VIEW v AS SELECT 1 AS "odd""\n' + LIKE_ROWS + b'";\n',
    b"/* /* \n" + LIKE_ROWS + b"*/\n" + LIKE_AN_INDEX + b"*/\n",
    b"CREATE TABLE a$b$c (d text DEFAULT 'x$y$', e$f int);\n",
    b"CREATE TABLE t (a int -- it's\n, b int /* \" */);\n",
    b"SELECT (1\n" + COPY[:-2] + b");\n",
    b"CREATE VIEW v AS SELECT ne'\\' AS a;\n",
]


def cut(script: bytes, sizes: Iterable[int] = ()) -> list[Piece]:
    """The pieces, those of one kind that follow each other joined."""
    cutter, at, found = Cutter(), 0, list[Piece]()
    for size in sizes:
        found += cutter.feed(script[at : at + size])
        at += size
    found += cutter.feed(script[at:])
    found += cutter.end()
    joined: list[Piece] = []
    for piece in found:
        last = joined[-1] if joined else None
        if isinstance(piece, Text) and isinstance(last, Text):
            joined[-1] = Text(last.data + piece.data, last.silent and piece.silent)
        elif isinstance(piece, Rows):
            rows = piece.first + piece.data
            if isinstance(last, Rows):
                joined[-1] = Rows(last.data + rows)
            else:
                joined.append(Rows(rows))
        else:
            joined.append(piece)
    return joined


def whole(pieces: Iterable[Piece]) -> bytes:
    spelt = []
    for piece in pieces:
        match piece:
            case Table(statement):
                spelt.append(statement + b";\n")
            case End():
                spelt.append(b"\\.\n")
            case Rows(data, first):
                spelt += [first, data]
            case Text(data) | Entry(_, data):
                spelt.append(data)
    return b"".join(spelt)


ROWS = st.lists(
    st.sampled_from(
        [b"1", b"", b"\\\\.", b"\\N", b"\\. ", b"x\\.", b"--", b"-- Name: a; Type: INDEX", b"'", COPY[:-1]]
    ),
    max_size=4,
).map(lambda rows: COPY + b"".join(row + b"\n" for row in rows) + b"\\.\n\n\n")
PARTS = st.lists(
    st.one_of(
        st.sampled_from([INDEX, KEY, COMMENT, FOREIGN, OTHER, *HIDING]),
        ROWS,
        st.just(b"\n--\n-- a comment\n--\n"),
    ),
    max_size=8,
)


@given(PARTS, st.lists(st.integers(1, 60), max_size=60), st.booleans())
def test_however_it_is_split_it_is_cut_alike(parts: list[bytes], sizes: list[int], has_end: bool) -> None:
    script = PREAMBLE + b"".join(parts) + (END if has_end else b"")
    once = cut(script)
    assert whole(once) == script
    assert cut(script, sizes) == once
    wanted = sum(part.startswith(b"COPY") for part in parts)
    assert sum(isinstance(piece, Table) for piece in once) == wanted
    entries = [piece.kind for piece in once if isinstance(piece, Entry)]
    # What follows an entry without a header of its own belongs to it, and only its own kind of statement may.
    assert len(entries) <= sum(part in (INDEX, KEY, COMMENT, FOREIGN) for part in parts)
    assert all(isinstance(piece, Entry | Text | Rows | Table | End) for piece in once)


def test_a_script_in_pieces() -> None:
    rows = COPY + b"1\n2\n\\.\n"
    script = (
        PREAMBLE
        + OTHER
        + rows
        + b"\n\n--\n-- Data for it\n--\n\n"
        + COPY
        + b"\\.\n\n"
        + INDEX
        + COMMENT
        + KEY
        + FOREIGN
        + OTHER
        + END
    )
    table = Table(COPY[:-2])
    assert cut(script) == [
        Text(PREAMBLE + OTHER, silent=False),
        table,
        Rows(b"1\n2\n"),
        End(),
        Text(b"\n\n--\n-- Data for it\n--\n\n", silent=True),
        table,
        End(),
        Text(b"\n", silent=True),
        Entry(b"INDEX", INDEX),
        Entry(b"COMMENT", COMMENT),
        Entry(b"CONSTRAINT", KEY),
        Entry(b"FK CONSTRAINT", FOREIGN),
        Text(OTHER + END, silent=False),
    ]
    cutter = Cutter()
    list(cutter.feed(script))
    assert b"".join(cutter.settings) == PREAMBLE.partition(b"9\n\n")[2].rstrip(b"\n") + b"\n"


@pytest.mark.parametrize("hidden", HIDING)
def test_what_only_looks_like_a_landmark_is_none(hidden: bytes) -> None:
    found = cut(PREAMBLE + header("FUNCTION") + hidden + b"\n" + INDEX)
    assert found == [
        Text(PREAMBLE + header("FUNCTION") + hidden + b"\n", silent=False),
        Entry(b"INDEX", INDEX),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        header("INDEX") + b"SELECT evil();\n",
        header("INDEX") + b"CREATE INDEX i ON a (b);\n\nSET default_tablespace = '';\n",
        header("INDEX") + b"SET default_tablespace = fast;\n\nCREATE INDEX i ON a (b);\n",
        header("CONSTRAINT") + b"CREATE INDEX i ON a (b);\n",
        header("INDEX") + b"CREATE INDEX i ON a (b) WHERE b = '" + b"x" * (5 << 20) + b"';\n",
        header("INDEX") + b"CREATE INDEX i ON a (b) WHERE b = 'no end",
        header("INDEX"),
    ],
)
def test_an_entry_that_is_not_what_it_says_stays_text(entry: bytes) -> None:
    found = cut(PREAMBLE + entry)
    assert [type(piece) for piece in found] == [Text]
    assert whole(found) == PREAMBLE + entry


def test_indexes_in_another_tablespace_are_left_to_psql() -> None:
    there, back = b"SET default_tablespace = fast;\n\n", b"SET default_tablespace = '';\n\n"
    found = cut(PREAMBLE + OTHER + there + INDEX + COMMENT + OTHER + back + INDEX)
    assert [type(piece) for piece in found] == [Text, Entry, Text, Entry]
    assert found[-1] == Entry(b"INDEX", INDEX)


def test_large_text_is_passed_on_as_it_comes() -> None:
    cutter = Cutter()
    list(cutter.feed(PREAMBLE + header("BLOBS") + b"BEGIN;\n\n"))
    for _ in range(3):
        line = b"SELECT pg_catalog.lowrite(0, '\\x" + b"ab" * 20000 + b"');\n"
        assert list(cutter.feed(line)) == [Text(line, silent=False)]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (COPY, "does not begin as"),
        (INDEX, "does not begin as"),
        (b"SET client_encoding = 'UTF8';\n" + COPY, "does not begin as"),
        (PREAMBLE.replace(b"= on", b"= off"), "old way"),
        (PREAMBLE.replace(b"UTF8", b"SJIS"), "backslash"),
        (PREAMBLE + b"\\! rm\n", "command for psql"),
        (PREAMBLE + b"SELECT 1 \\gexec\n", "command for psql"),
        (PREAMBLE + OTHER + b"SET search_path = a;\n", "sets something"),
        (PREAMBLE + OTHER + b"RESET search_path;\n", "sets something"),
        (PREAMBLE + b"BEGIN;\n" + COPY, "transaction of its own"),
        (PREAMBLE + COPY + b"1\n", "no end"),
        (PREAMBLE + b"SELECT 1; " + COPY + b"1\n\\.\n", "end in a name"),
        (PREAMBLE + b'COPY public."a\nb" (c) FROM stdin;\n' + INDEX + b"\\.\n", "end in a name"),
        (PREAMBLE + b'COPY public."a FROM stdin;\n" (c) FROM stdin;\n' + INDEX + b"\\.\n", "end in a name"),
    ],
)
def test_what_several_sessions_cannot_be_trusted_with_is_refused(script: bytes, reason: str) -> None:
    with pytest.raises(UncutError, match=reason):
        cut(script)
