"""The console's pages in a real Chromium: what a person sees, clicks, types and hears, and what happens meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from larder.errors import LarderError
from larder.ledger import Ledger, open_ledger
from larder.ledger.leases import Lease
from larder.manifest_fields import TIME
from tests.approvals import REQUEST
from tests.house import House
from tests.processes import answers, eventually, running
from tests.servers import Cluster, Clusters, free_port, postgres_installs

#: What would show as an element, or run, if it were not taken for text.
HTML = '<img src=x onerror="document.title=1"><script>alert(1)</script>'

#: As long as a name may be.
LONG = "a-very-long-name-of-a-database-that-somebody-has-generated-0001"

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


@dataclass
class Stand:
    """A console that runs, what it tells of, and its ledger."""

    house: House
    ledger: Ledger
    port: int
    #: The run of `attic`, which failed.
    failed: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def console(house: House, port: int) -> Iterator[None]:
    with running(house.start("larder", "console", "--port", str(port))):
        eventually(lambda: answers(port))
        yield


def fill(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
        database.executemany("INSERT INTO orders (what) VALUES (?)", [("thing",)] * 500)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """`shop`, backed up and proven; `crm` and one with a long name, backed up; `attic`, whose file is gone."""
    house = House(tmp_path_factory.mktemp("page"))
    names = ("shop", "crm", LONG)
    for name in names:
        fill(house.folder / f"{name}.db")
    house.configure(
        "".join(f'[databases.{name}]\nurl = "sqlite:///{name}.db"\n' for name in ("attic", *names))
        + '[console]\nflower_url = "http://127.0.0.1:5555/"\n'
    )
    assert house.larder("backup").returncode != 0
    for command in (["backup", "shop"], ["drill", "shop/latest"]):
        done = house.larder(*command)
        assert done.returncode == 0, done.stderr
    ledger, port = open_ledger(f"sqlite:///{house.backups}/.larder/ledger.sqlite3"), free_port()
    (failed,) = ledger.runs.latest("attic")
    later = (datetime.now(UTC) + timedelta(days=1)).strftime(TIME)
    ledger.requests.create(replace(REQUEST, reason=f"orders are gone {HTML}", expires=later), "shop")
    with console(house, port):
        yield Stand(house, ledger, port, failed.id)
    ledger.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None and not os.environ.get("LARDER_TEST_REQUIRE_SERVERS"):
        pytest.skip("not installed: chromium (Debian, Ubuntu: apt install chromium)")
    assert program, "chromium is not installed"
    with sync_playwright() as playwright:
        # Chromium's own sandbox is not for root, and needs more of the system than a container gives.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page of a fresh visitor. Whatever the browser complains of, or asks elsewhere for, fails the test."""
    complaints: list[str] = []
    with ExitStack() as stack:

        def opened(url: str, **options: object) -> Page:
            context: BrowserContext = browser.new_context(**{"viewport": WIDE, **options})  # type: ignore[arg-type]
            stack.callback(context.close)
            page = context.new_page()
            origin = "/".join(url.split("/")[:3])
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "console",
                lambda said: (
                    complaints.append(said.text) if "Failed to load resource" not in said.text else None
                ),
            )
            page.on(
                "request",
                lambda asked: None if asked.url.startswith(f"{origin}/") else complaints.append(asked.url),
            )
            page.on("dialog", lambda dialog: complaints.append(dialog.message))
            # The page's own clock: three seconds pass when a test says so.
            page.clock.install()
            page.goto(url)
            return page

        yield opened
    assert complaints == []


def pass_time(page: Page, seconds: float = 3.1) -> None:
    page.clock.run_for(int(seconds * 1000))


@contextmanager
def under_way(stand: Stand, database: str) -> Iterator[Lease]:
    """A backup that somebody is at, for the length of a block."""
    run, _ = stand.ledger.runs.create(database, "schedule", stores=["local"])
    lease = stand.ledger.leases.take(run.id, "dump", "host-1")
    assert isinstance(lease, Lease)
    try:
        yield lease
    finally:
        stand.ledger.runs.abandon(run.id, LarderError(f"it was stopped {HTML}", f"see {HTML}"))


def test_from_what_needs_somebody_to_the_reason_and_the_cure(
    stand: Stand, open_page: Callable[..., Page]
) -> None:
    page = open_page(stand.url)
    assert page.title() == "1 of 4 databases needs somebody · Larder"
    expect(page.locator("h1")).to_contain_text("1 of 4 databases needs somebody")
    cards = page.locator(".card")
    assert cards.locator("h3 > a:first-child").all_inner_texts() == ["attic", LONG, "crm", "shop"]
    first = cards.first
    expect(first).to_contain_text("UNSAFE")
    expect(first.locator(".alarm")).to_contain_text("unable to")
    expect(first.locator(".alarm")).to_contain_text("What to do:")
    expect(cards.last).to_contain_text("safe")
    expect(cards.last.locator(".spark")).to_have_count(2)
    first.get_by_role("link", name="attic").click()
    expect(page.locator("h1")).to_contain_text("attic")
    page.get_by_role("link", name=stand.failed).click()
    expect(page.locator("h1")).to_have_text(re.compile(r"Backup of attic\s+✖ failed"))
    expect(page.locator(".alarm")).to_contain_text("dump: unable to")
    expect(page.get_by_role("row", name="dump")).to_contain_text("failed")
    expect(page.locator(".log")).to_contain_text("Starting database backup at")
    page.get_by_role("navigation").get_by_role("link", name="Databases").click()
    expect(page.get_by_role("link", name="Flower")).to_have_attribute("href", "http://127.0.0.1:5555/")


def test_a_database_shows_its_backups_drills_charts_policy_and_commands(
    stand: Stand, open_page: Callable[..., Page]
) -> None:
    page = open_page(f"{stand.url}/databases/shop")
    newest, older = stand.ledger.backups.latest("shop", 2)
    rows = page.locator("#backups-table tbody tr")
    assert rows.locator("th").all_inner_texts() == [newest.id, older.id]
    expect(rows.first).to_contain_text("proven")
    expect(page.locator("#drills-table tbody tr")).to_contain_text("1 tables, 500 rows")
    expect(page.get_by_role("img", name="Size of its backups")).to_be_visible()
    expect(page.locator("main")).to_contain_text("for 30 days")
    expect(page.locator("pre")).to_contain_text("larder restore plan shop/latest --into shop")


def test_finding_databases_by_name_and_by_need(stand: Stand, open_page: Callable[..., Page]) -> None:
    page = open_page(stand.url)
    page.get_by_role("searchbox", name="Name").fill("SHO")
    page.get_by_role("searchbox", name="Name").press("Enter")
    expect(page.locator(".card h3")).to_have_text(re.compile("shop"))
    expect(page.locator(".filter")).to_contain_text("1 of 4")
    page.get_by_label("only those that need somebody").check()
    page.get_by_role("button", name="Show").click()
    expect(page.locator("main")).to_contain_text("No database is called so and needs somebody.")
    # The headline is of all of them, whatever is shown.
    expect(page.locator("h1")).to_contain_text("1 of 4")
    page.get_by_role("link", name="show all").click()
    expect(page.locator(".card")).to_have_count(4)


def test_dark_is_remembered_and_otherwise_as_the_system_has_it(
    stand: Stand, open_page: Callable[..., Page]
) -> None:
    def ground(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page = open_page(stand.url)
    light = ground(page)
    page.get_by_role("button", name="Switch to dark colours").click()
    dark = ground(page)
    assert dark != light
    page.goto(f"{stand.url}/audit")
    assert ground(page) == dark
    expect(page.get_by_role("button")).to_have_text("Light")
    assert ground(open_page(stand.url, color_scheme="dark")) == dark
    assert ground(open_page(stand.url, color_scheme="dark", java_script_enabled=False)) == dark


def test_progress_moves_by_itself_and_disturbs_nobody(stand: Stand, open_page: Callable[..., Page]) -> None:
    page = open_page(f"{stand.url}/databases/shop")
    page.evaluate("window.isTheSame = true")
    details, link = page.locator("details").first, page.get_by_role("link", name="All runs of shop")
    details.locator("summary").click()
    link.focus()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#backups-table th code'))")
    scrolled = page.evaluate("scrollY")
    with under_way(stand, "shop") as lease:
        pass_time(page)
        bar = page.get_by_role("progressbar", name="backup of shop")
        expect(bar).to_have_count(1)
        expect(bar).not_to_have_attribute("value", re.compile("."))
        stand.ledger.leases.report(lease, "62 % · 1.2 MB of 2.0 MB · 1.0 MB/s")
        pass_time(page)
        expect(bar).to_have_attribute("value", "62")
        expect(page.locator(".progress")).to_contain_text("dump, step 1 of 6: 62 % · 1.2 MB of 2.0 MB")
        expect(page.locator(f"#run-{lease.run}")).to_contain_text("running")
        assert page.evaluate("window.isTheSame") is True
        assert page.evaluate("getSelection().toString()").startswith("shop/")
        assert page.evaluate("scrollY") >= scrolled > 0
        expect(details).to_have_attribute("open", "")
        expect(link).to_be_focused()
    pass_time(page)
    expect(bar).to_have_count(0)
    expect(page.locator("h1")).to_contain_text("UNSAFE")
    expect(link).to_be_focused()
    # Nobody needs to look after it: the next good one makes it safe again.
    assert stand.house.larder("backup", "shop").returncode == 0
    pass_time(page)
    expect(page.locator("h1")).not_to_contain_text("UNSAFE")


def test_what_is_typed_stays_and_the_log_is_followed(stand: Stand, open_page: Callable[..., Page]) -> None:
    page = open_page(stand.url)
    page.get_by_role("searchbox", name="Name").press_sequentially("cr")
    with under_way(stand, "crm") as lease:
        pass_time(page)
        expect(page.locator("#now")).to_be_visible()
        page.keyboard.type("m")
        expect(page.get_by_role("searchbox", name="Name")).to_have_value("crm")
        page.goto(f"{stand.url}/runs/{lease.run}")
        for number in range(80):
            stand.ledger.journal.write(lease.run, "INFO", f"line {number}")
        pass_time(page)
        expect(page.locator(".log")).to_contain_text("line 79")
        log = "document.querySelector('.log')"
        assert page.evaluate(f"{log}.scrollTop + {log}.clientHeight >= {log}.scrollHeight - 8")
        page.evaluate(f"{log}.scrollTop = 40")
        stand.ledger.journal.write(lease.run, "WARN", HTML)
        pass_time(page)
        expect(page.locator(".log")).to_contain_text(HTML)
        assert page.evaluate(f"{log}.scrollTop") == 40


def test_html_in_whatever_text_is_text(stand: Stand, open_page: Callable[..., Page]) -> None:
    with under_way(stand, LONG) as lease:
        pass
    try:
        for path in ("/", f"/databases/{LONG}", f"/runs/{lease.run}", "/runs", "/restores", "/audit"):
            page = open_page(f"{stand.url}{path}")
            expect(page.locator("main")).to_contain_text('<img src=x onerror="document.title=1">')
            assert page.locator("main img, main script").count() == 0
            assert "Larder" in page.title()
        page = open_page(f"{stand.url}/databases/{HTML.partition('<script>')[0]}")
        expect(page.locator("h1")).to_contain_text("There is no such thing")
        assert page.locator("main img").count() == 0
    finally:
        assert stand.house.larder("backup", LONG).returncode == 0


def test_everything_can_be_reached_and_seen_with_the_keyboard(
    stand: Stand, open_page: Callable[..., Page]
) -> None:
    page = open_page(f"{stand.url}/databases/shop")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "[document.activeElement.innerText.trim(), getComputedStyle(document.activeElement).outlineWidth]"
        )
        if not focused[0] or focused[0] == "Skip to the content":
            break
        assert focused[1] == "3px", focused
        seen.append(focused[0])
    assert {"Databases", "The last values as a table", "All runs of shop"} <= set(seen)
    assert any("larder verify" in text for text in seen)


@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", PHONE)], ids=["light", "dark phone"])
def test_no_page_keeps_anybody_out(
    stand: Stand, open_page: Callable[..., Page], scheme: str, size: dict[str, int]
) -> None:
    drill = stand.ledger.drills.latest("shop")[0].run
    with under_way(stand, "crm") as lease:
        stand.ledger.leases.report(lease, "62 % · 1.2 MB of 2.0 MB · 1.0 MB/s")
        paths = ("/", "/?name=nothing", "/databases/shop", "/databases/attic", "/databases/none", "/runs")
        page = open_page(stand.url, color_scheme=scheme, viewport=size)
        for path in (*paths, f"/runs/{lease.run}", f"/runs/{drill}", "/restores", "/audit"):
            page.goto(f"{stand.url}{path}")
            for details in page.locator("summary").all():
                details.click()
            found = Axe().run(page)
            assert found.violations_count == 0, f"{path}: {found.generate_report()}"
            wide = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide == 0, path
    stand.house.larder("backup", "crm")


def test_without_a_script_it_is_all_there(stand: Stand, open_page: Callable[..., Page]) -> None:
    page = open_page(stand.url, java_script_enabled=False)
    page.get_by_role("searchbox", name="Name").fill("shop")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".card")).to_have_count(1)
    expect(page.get_by_role("button", name="Switch")).to_be_hidden()


def test_older_runs_are_a_link_away(stand: Stand) -> None:
    for _ in range(60):
        run, _ = stand.ledger.runs.create("crm", "call", stores=["local"])
        stand.ledger.runs.abandon(run.id, LarderError("enough"))
    assert stand.house.larder("backup", "crm").returncode == 0
    seen: list[str] = []
    path: str | None = "/runs?database=crm"
    while path:
        text = httpx.get(f"{stand.url}{path}").text
        seen += re.findall(r'id="run-([0-9a-f]+)"', text)
        older = re.search(r'rel="next" href="([^"]+)"', text)
        path = f"/runs{older[1].replace('&amp;', '&')}" if older else None
    assert seen == [run.id for run in stand.ledger.runs.latest("crm", kind=None, limit=1000)]
    assert len(seen) > 60
    assert httpx.get(f"{stand.url}/runs?before=none").status_code == 404


def test_a_console_that_is_away_is_told_and_so_is_its_return(
    stand: Stand, open_page: Callable[..., Page]
) -> None:
    port = free_port()
    with console(stand.house, port):
        page = open_page(f"http://127.0.0.1:{port}/")
        page.evaluate("window.isTheSame = true")
        as_of = page.locator("#as-of").inner_text()
        expect(page.get_by_role("status")).to_be_empty()
    pass_time(page)
    told = f"The console does not answer. What is shown is as of {as_of}."
    expect(page.get_by_role("status")).to_have_text(told)
    expect(page.locator(".card")).to_have_count(4)
    with console(stand.house, port):
        pass_time(page, 11)
        expect(page.get_by_role("status")).to_be_empty()
        assert page.evaluate("window.isTheSame") is True


@pytest.fixture
def far_ledger(clusters: Clusters) -> Iterator[tuple[Cluster, str]]:
    """A database for a ledger, on a server."""
    server = clusters.get(max(postgres_installs()))
    with server.database("page_ledger") as name:
        yield server, name


def test_a_ledger_that_is_away_is_told_and_so_is_its_return(
    tmp_path: Path, far_ledger: tuple[Cluster, str], open_page: Callable[..., Page]
) -> None:
    server, name = far_ledger
    house, port = House(tmp_path, LARDER_LEDGER_URL=server.url(name)), free_port()
    house.configure("".join(f'[databases.db-{number:03}]\nurl = "sqlite:///x.db"\n' for number in range(60)))
    with console(house, port):
        page = open_page(f"http://127.0.0.1:{port}/")
        expect(page.locator("h1")).to_contain_text("60 of 60 databases need somebody")
        expect(page.locator(".card")).to_have_count(48)
        page.get_by_role("link", name="After").click()
        expect(page.locator(".card")).to_have_count(12)
        expect(page.locator(".card").last).to_contain_text("db-059")
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        pass_time(page)
        expect(page.locator("h1")).to_contain_text("Larder cannot tell just now")
        expect(page.locator("main")).to_contain_text("the ledger does not answer")
        expect(page.locator(".card")).to_have_count(0)
        assert page.title() == "Larder cannot tell just now · Larder"
        assert httpx.get(page.url).status_code == 503
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        pass_time(page, 20)
        expect(page.locator(".card")).to_have_count(12)


def test_with_no_database_it_says_what_to_do(tmp_path: Path) -> None:
    house, port = House(tmp_path), free_port()
    with console(house, port):
        said = httpx.get(f"http://127.0.0.1:{port}/")
    assert said.status_code == 200
    assert "No database is configured" in said.text
    assert "DATABASE_URL" in said.text
