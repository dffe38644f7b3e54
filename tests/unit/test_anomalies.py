"""What is odd about a backup beside those before it: told, with its numbers, and never in a backup's way."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from larder import anomalies
from larder.ledger.backups import Backup
from larder.manifest import Content, File, Manifest, Previous
from larder.naming import backup_id
from larder.notifiers import Notice, slack
from larder.notifiers.slack import Slack
from tasks import backup as backups
from tasks import chain, context, notify
from tasks.checksum import checksum
from tasks.compress import compress
from tasks.dump import dump
from tasks.rotate import rotate
from tasks.upload import upload

GB, MB = 1_000_000_000, 1_000_000


def stamp(day: int) -> str:
    return f"202510{day:02}_020000"


def manifest(
    size: int = 10 * MB, raw: int = 50 * MB, day: int = 20, ending: str = ".sql.gz", **fingerprint: Any
) -> Manifest:
    return Manifest(
        backup=backup_id("shop", stamp(day)),
        database="shop",
        engine="postgres",
        created="2025-10-20T02:00:00Z",
        artifact=File(f"backup_postgres_{stamp(day)}{ending}", size, "0" * 64),
        raw=Content(raw, "0" * 64),
        encoding=("gzip",),
        form="file",
        suffix=".sql",
        server_version="16.4",
        tool="pg_dump 16.4",
        fingerprint={"row_counts": "exact", "tables": {}, **fingerprint},
        run="r1",
        host="here",
        larder="0.1.0",
        previous=Previous(backup_id("shop", stamp(day - 1)), "0" * 64),
    )


def known(day: int, size: int = 10 * MB, raw: int = 50 * MB, ending: str = ".sql.gz") -> Backup:
    return Backup(
        id=backup_id("shop", stamp(day)),
        database="shop",
        engine="postgres",
        created=datetime(2025, 10, day, 2, tzinfo=UTC),
        artifact=f"backup_postgres_{stamp(day)}{ending}",
        size=size,
        sha256="0" * 64,
        raw_size=raw,
        manifest="0" * 64,
        proof="stored",
        pinned=False,
        copies={},
    )


USUAL = [known(day) for day in range(10, 20)]


def odd(
    new: Manifest,
    history: Sequence[Backup] = USUAL,
    previous: Manifest | None = None,
    seconds: float = 10,
    earlier: Sequence[float] = (10, 10, 10),
) -> list[str]:
    return anomalies.odd(new, history, previous, seconds, earlier)


def rows(**counts: int) -> dict[str, Any]:
    return {name: {"rows": count} for name, count in counts.items()}


def test_a_backup_like_those_before_it_is_nothing_to_tell() -> None:
    assert odd(manifest(), previous=manifest(day=19)) == []


def test_a_first_backup_has_nothing_to_be_compared_with() -> None:
    first = replace(manifest(size=9 * GB, raw=50 * GB, tables=rows(a=1)), previous=None)
    assert odd(first, [], None, 9999, []) == []


def test_growth_by_more_than_a_gigabyte_is_told() -> None:
    before = [
        known(19, size=3 * GB, raw=9 * GB),
        *(known(day, size=3 * GB, raw=9 * GB) for day in (16, 17, 18)),
    ]
    assert odd(manifest(size=4 * GB, raw=9 * GB), before) == []
    (line,) = odd(manifest(size=4 * GB + 1, raw=9 * GB), before)
    assert line == (
        "The artifact grew by 1.0 GB since shop/20251019_020000, from 3.0 GB to 4.0 GB: "
        "more than 1.0 GB is worth a look"
    )


@pytest.mark.parametrize(
    ("size", "raw", "line"),
    [
        (10, 100, None),
        (
            10,
            101,
            "The content has 101.0 MB, more than twice the 50.0 MB that is the median of the last 10 backups",
        ),
        (10, 25, None),
        (
            10,
            24,
            "The content has 24.0 MB, less than half of the 50.0 MB that is the median of the last 10 backups",
        ),
        (
            21,
            50,
            "The artifact has 21.0 MB, more than twice the 10.0 MB that is the median of the last 10 backups",
        ),
        (
            4,
            50,
            "The artifact has 4.0 MB, less than half of the 10.0 MB that is the median of the last 10 backups",
        ),
        (
            4,
            20,
            "The content has 20.0 MB, less than half of the 50.0 MB that is the median of the last 10 backups",
        ),
    ],
)
def test_a_size_is_compared_with_the_median(size: int, raw: int, line: str | None) -> None:
    assert odd(manifest(size=size * MB, raw=raw * MB)) == ([line] if line else [])


def test_a_small_difference_is_no_news() -> None:
    before = [known(day, size=1000, raw=2000) for day in range(10, 20)]
    assert odd(manifest(size=MB // 2, raw=MB), before) == []
    assert len(odd(manifest(size=MB // 2, raw=2 * MB), before)) == 1


def test_only_backups_that_were_made_alike_count_and_the_newest_of_them() -> None:
    other = [known(day, raw=5 * MB, ending=".dir.tar") for day in range(10, 20)]
    assert odd(manifest(), [*other, *USUAL[:2]]) == []
    older = [known(day, raw=5 * MB) for day in range(1, 10)]
    assert odd(manifest(raw=90 * MB), [*older, *USUAL]) == []
    later = [known(day, raw=5 * MB) for day in range(21, 31)]
    assert odd(manifest(), [*USUAL[:1], *later]) == []


@pytest.mark.parametrize(
    ("seconds", "earlier", "told"),
    [
        (400, (100, 120, 90), True),
        (300, (100, 100, 100), False),
        (70, (5, 5, 5), True),
        (65, (5, 5, 5), False),
        (999, (1, 1), False),
        (400, (*[100] * 10, *[9000] * 40), True),
    ],
)
def test_a_duration_is_compared_with_the_median(seconds: float, earlier: Sequence[float], told: bool) -> None:
    lines = odd(manifest(), seconds=seconds, earlier=earlier)
    assert len(lines) == told
    if seconds == 400:
        assert lines[0].startswith("The backup took 6 min 40 s, more than 3 times the 1 min 40 s")


def test_tables_that_lost_their_rows_are_named_the_worst_first() -> None:
    before = rows(orders=1200, empty=400, gone=100, few=99, half=200, fine=500, uncounted=500)
    now = {**rows(orders=3, empty=0, few=0, half=100, fine=900), "uncounted": {}}
    (line,) = odd(manifest(tables=now), previous=manifest(day=19, tables=before))
    assert line == (
        "More than half of the rows went since shop/20251019_020000: table 'orders' has 3 rows, and had 1,200 rows; "
        "table 'empty' is empty, and had 400 rows; table 'gone' is gone, and had 100 rows"
    )


def test_of_many_tables_ten_are_named() -> None:
    before = rows(**{f"t{n:04}": 1000 for n in range(1011)})
    (line,) = odd(manifest(), previous=manifest(day=19, tables=before))
    assert line.count("is gone") == 10
    assert line.endswith("; and 1,001 more")


def test_a_changed_schema_is_told() -> None:
    had = {"table a": "x", "table b": "x", "view c": "x", "index auto": ""}
    has = {"table a": "y", "view c": "x", "index other": "", **{f"table t{n}": "x" for n in range(7)}}
    (line,) = odd(manifest(schema=has), previous=manifest(day=19, schema=had))
    assert line == (
        "The schema changed since shop/20251019_020000: added table t0, table t1, table t2, table t3, table t4, "
        "and 2 more; removed table b; changed table a"
    )
    assert odd(manifest(schema=has), previous=manifest(day=19)) == []


def test_sequences_that_went_back_are_told() -> None:
    def at(**values: int) -> dict[str, object]:
        by = {"down": -1}
        return {
            name: {"from": [value, True], "to": [value, True], "by": by.get(name, 1)}
            for name, value in values.items()
        }

    had, has = at(s=500, t=5, gone=7, down=9), at(s=1, t=5, new=1, down=3)
    (line,) = odd(manifest(sequences=has), previous=manifest(day=19, sequences=had))
    assert line.endswith(": 's' is at 1, and was at 500")


def test_a_sequence_that_cycles_may_go_back() -> None:
    at = [{"s": {"from": [value, True], "to": [value, True], "by": 1}} for value in (9, 2)]
    had, has = (
        manifest(sequences=one, schema={"sequence s": "bigint by 1 cache 1 cycle owner joe"}) for one in at
    )
    assert odd(has, previous=replace(had, backup=backup_id("shop", stamp(19)))) == []


def test_partitions_count_with_the_table_that_they_are_parts_of() -> None:
    def parts(**counts: int) -> dict[str, Any]:
        return {name: {"rows": count, "partition_of": "log"} for name, count in counts.items()}

    before = {**parts(may=400, june=500), **rows(orders=100)}
    rotated = {**parts(june=500, july=10), **rows(orders=100)}
    assert odd(manifest(tables=rotated), previous=manifest(day=19, tables=before)) == []
    (line,) = odd(manifest(tables=parts(july=10)), previous=manifest(day=19, tables=parts(may=400, june=500)))
    assert line.endswith(": table 'log' has 10 rows, and had 900 rows")
    # A manifest from before that was written down.
    (line,) = odd(manifest(tables=parts(june=0)), previous=manifest(day=19, tables=rows(june=500)))
    assert line.endswith(": table 'log' is empty, and had 500 rows")


def test_a_definition_that_a_restore_words_anew_is_no_change() -> None:
    had = {
        "constraint c on a": "CHECK (((s)::text = ANY ((ARRAY['new'::character varying])::text[])))",
        "column a.b": "text default 'key'::text",
    }
    digest = hashlib.sha256(b"key").hexdigest()[:16]
    has = {
        "constraint c on a": "CHECK ((s)::text = ANY (ARRAY[('new'::character varying)::text]))",
        "column a.b": f"text default 'sha256:{digest}'::text",
    }
    assert odd(manifest(schema=has), previous=manifest(day=19, schema=had)) == []
    (line,) = odd(
        manifest(schema={**has, "column a.b": "text default 'other'"}), previous=manifest(day=19, schema=had)
    )
    assert line.endswith(": changed column a.b")
    assert "other" not in line


def test_another_engine_is_another_history() -> None:
    before = replace(manifest(day=19, tables=rows(a=1000), schema={"table a": "x"}), engine="sqlite")
    assert odd(manifest(schema={}), previous=before) == []


def test_odd_names_stay_on_their_line() -> None:
    before = {"a\nb\ud800": {"rows": 100}, "x" * 500: {"rows": 200}}
    (line,) = odd(manifest(), previous=manifest(day=19, tables=before))
    assert line.isprintable()
    assert "table 'a\\nb\\ud800' is gone" in line
    assert len(line) < 400


class Shop:
    """A SQLite database with a store, whose backups are made link by link in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[Notice] = []

    def sql(self, script: str) -> None:
        with closing(sqlite3.connect(self.folder / "shop.db")) as connection:
            connection.executescript(script)

    def back_up(self) -> list[str]:
        """The warnings of a backup."""
        run = backups.start("shop", "command")
        for link in (dump, compress, checksum):
            link(run.id)
        upload(run.id, "nas")
        rotate(run.id)
        notify.notify(run.id)
        ended = context.ledger().runs.get(run.id)
        assert ended.state == "stored"
        assert self.told[-1].event == "success"
        assert list(self.told[-1].warnings) == list(self.told[-1].anomalies) == ended.warnings
        return ended.warnings

    def lines(self) -> list[str]:
        """The journal of the newest run."""
        (run,) = context.ledger().runs.latest("shop", limit=1)
        return [line.text for line in context.ledger().journal.read(run.id)]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    (tmp_path / "larder.toml").write_text(
        f'state_dir = "{tmp_path / "state"}"\n'
        f'[databases.shop]\nurl = "sqlite:///{tmp_path / "shop.db"}"\n'
        f'[stores.nas]\npath = "{tmp_path / "nas"}"\n'
        '[notifiers.team]\nurl = "https://hooks.example/x"\n'
    )
    for variable in ("DATABASE_URL", "BACKUP_DIR", "REDIS_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LARDER_CONFIG", str(tmp_path / "larder.toml"))
    monkeypatch.setattr(chain, "send", lambda *_: None)
    made = Shop(tmp_path)

    class Kept(Slack):
        def send(self, notice: Notice) -> None:
            made.told.append(notice)

    monkeypatch.setattr(slack, "NOTIFIER", Kept)
    context.settings.cache_clear()
    context._ledger_of.cache_clear()
    context.signer.cache_clear()
    made.sql(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY); CREATE TABLE notes (a);"
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200)"
        "INSERT INTO orders SELECT i FROM n;"
    )
    yield made
    context.ledger().close()
    context.settings.cache_clear()
    context._ledger_of.cache_clear()
    context.signer.cache_clear()


def test_a_backup_of_an_emptied_database_is_stored_and_told_of(shop: Shop) -> None:
    assert shop.back_up() == []
    assert shop.back_up() == []
    before = shop.told[-1].artifact
    shop.sql("DELETE FROM orders WHERE id > 10; DROP TABLE notes; CREATE INDEX quick ON orders (id);")
    rows_, schema = shop.back_up()
    assert before is not None
    since = f"shop/{before.removeprefix('backup_sqlite_').partition('.')[0]}"
    assert (
        rows_
        == f"More than half of the rows went since {since}: table 'orders' has 10 rows, and had 200 rows"
    )
    assert schema == f"The schema changed since {since}: added index quick on orders; removed table notes"
    assert shop.back_up() == []


@pytest.mark.parametrize("damage", ["gone", "other", "locked away"])
def test_a_backup_before_that_cannot_be_read_is_a_line_in_the_journal(damage: str, shop: Shop) -> None:
    assert shop.back_up() == []
    (path,) = (shop.folder / "nas").rglob("*.manifest.json")
    if damage == "other":
        path.write_bytes(path.read_bytes().replace(b"200", b"201"))
    shop.sql("DELETE FROM orders")
    run = backups.start("shop", "command")
    for link in (dump, compress, checksum):
        link(run.id)
    upload(run.id, "nas")
    rotate(run.id)
    if damage == "gone":
        path.unlink()
    elif damage == "locked away":
        (shop.folder / "nas").rename(shop.folder / "elsewhere")
    notify.notify(run.id)
    ended = context.ledger().runs.get(run.id)
    assert (ended.state, ended.warnings) == ("stored", [])
    assert [
        line for line in shop.lines() if line.startswith("Rows and schema were not compared with those of ")
    ]


def test_whatever_goes_wrong_in_looking_the_backup_stands(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(anomalies, "odd", broken)
    assert shop.back_up() == []
    assert "The backup could not be compared with those before it: ZeroDivisionError" in shop.lines()


def test_the_time_of_earlier_backups_is_that_of_their_work(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, Sequence[float]]] = []

    def watch(*given: Any) -> list[str]:
        *_, seconds, earlier = given
        seen.append((seconds, earlier))
        return []

    monkeypatch.setattr(anomalies, "odd", watch)
    for _ in range(3):
        shop.back_up()
    firsts = [seconds for seconds, _ in seen]
    # The ledger adds up in an order of its own.
    wanted = [[], firsts[:1], [firsts[1], firsts[0]]]
    assert [list(earlier) for _, earlier in seen] == [pytest.approx(times) for times in wanted]
    runs = context.ledger().runs.latest("shop", limit=1)
    assert firsts[-1] == sum(link.seconds or 0 for link in runs[0].steps[:4])
    assert timedelta(seconds=firsts[-1]) < timedelta(seconds=runs[0].seconds)
