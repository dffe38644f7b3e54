"""The report of evidence: whole, without a script, and without a way for a text to become anything else."""

from __future__ import annotations

import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from larder.evidence import Document
from larder.evidence_report import report_of
from larder.evidence_style import SHEET
from larder.markup import Markup, element
from tests.evidence import HOSTILE, SIGNER, Month, fill, gathered, settings_in
from tests.evidence import START as DAY

#: What a report is made of.
ELEMENTS = set(
    """html head meta title style body header main section footer h1 h2 h3 p b code small dl div dt dd figure figcaption
    table caption thead tbody tr th td ul li svg g rect text line polyline circle""".split()
)


class Reader(HTMLParser):
    """Notes the elements, their attributes, and the text of a page, and that each element ends where it should."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    folder = tmp_path_factory.mktemp("home")
    url = f"sqlite:///{folder / 'ledger.sqlite3'}"
    fill(url)
    return gathered(url, settings_in(folder))


@pytest.fixture(scope="module")
def page(document: Document) -> bytes:
    return report_of(document, SIGNER.public_key, "evidence.json")


def test_it_is_well_formed_and_holds_nothing_that_runs_or_loads(page: bytes) -> None:
    found = Reader(page)
    assert {name for name, _ in found.elements} == ELEMENTS
    attributes = {key for _, given in found.elements for key in given}
    assert not {key for key in attributes if key.startswith("on")} | (
        attributes & {"src", "href", "style", "srcset"}
    )
    assert not re.search(r"url\(|@import|https?:", SHEET)


def test_its_policy_allows_its_own_style_and_nothing_else(page: bytes) -> None:
    (policy,) = [
        given["content"]
        for name, given in Reader(page).elements
        if name == "meta" and given.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='",
        policy,
    )


def test_what_is_hostile_is_text(page: bytes) -> None:
    assert b"<script" not in page
    assert b"<img" not in page
    shown = HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
    assert Reader(page).text.count(shown) >= 3


def test_a_hostile_name_in_the_ledger_is_text_in_headings_and_charts(tmp_path: Path) -> None:
    month = Month(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    name = '"><svg onload=alert(1)>'
    month.backup(name, DAY, 7, **{name: name})
    month.drill(f"{name}/x", DAY + timedelta(hours=1), "proven", 9, database=name)
    month.write()
    found = Reader(report_of(gathered(month.url, settings_in(tmp_path)), SIGNER.public_key, "evidence.json"))
    assert {name for name, _ in found.elements} <= ELEMENTS
    assert "onload" not in {key for _, given in found.elements for key in given}
    assert name in found.text


def test_what_an_auditor_looks_for_is_there(page: bytes, document: Document) -> None:
    text = Reader(page).text
    for wanted in (
        "Backup evidence, 2026-10-01 to 2026-11-01",
        "alice, handed in 2026-10-15 09:05:00",
        document["restores"][0]["approval"]["fingerprint"],
        "Carol Müller (account carol@web1)",
        "table public.orders: rows: expected 1204, found 1203",
        "the newest backup is 26 hours old",
        "it has another SHA-256 than its manifest says",
        "permission denied for table orders",
        document["audit"]["head"]["hash"],
        SIGNER.public_key,
        "larder evidence verify evidence.json",
        "line: 10 min 0 s allowed",
    ):
        assert wanted in text


def test_every_table_and_every_chart_says_what_it_is(page: bytes) -> None:
    elements = Reader(page).elements
    names = [name for name, _ in elements]
    assert names.count("table") == names.count("caption") == names.count("thead")
    assert all(given["scope"] == "col" for name, given in elements if name == "th")
    charts = [given for name, given in elements if name == "svg"]
    assert len(charts) == 4
    assert all(given["role"] == "img" and given["aria-label"] for given in charts)


def test_nothing_at_all_is_told_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    document = gathered(url, settings_in(tmp_path))
    assert document["audit"]["head"]["number"] == 0
    text = Reader(report_of(document, SIGNER.public_key, "evidence.json")).text
    assert "Runs that failed. None." in text


def test_only_elements_are_markup() -> None:
    inner = element("b", "a < b")
    assert element("p", inner, "<i>", [1, 2.5, None], title='"&') == Markup(
        '<p title="&quot;&amp;"><b>a &lt; b</b>&lt;i&gt;12.5</p>'
    )
