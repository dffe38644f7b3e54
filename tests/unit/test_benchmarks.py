"""Benchmarks: figures, verdicts, the page and its charts, from results that are given; the suite from end to end."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import clocks, page, suite
from benchmarks.chart import Bar, Stack, bars, stacks
from benchmarks.contestants import Contestant, Different, Taken, compete, in_one_line
from benchmarks.figures import TARGETS, Target, failures, median, ratio, spread, verdicts
from benchmarks.running import Failed, Place
from benchmarks.watching import OWN, TOOLS, Watch, size_of
from tests.processes import eventually

ROOT = Path(__file__).parents[2]

MACHINE = {"cores": 2, "memory": 25e9, "kernel": "Linux 6.1", "versions": {"Larder": "0.1.0"}}
CPU = {"own": 1.0, "tools": 2.0, "server": 0.5, "redis": 0.0}


def one(key: str, kind: str, *seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "key": key, "label": f"with {key} | gzip", "kind": kind, "note": "", "restored": True,
        "seconds": list(seconds), "size": 1_000_000, "peak_memory": 100_000_000, "cpu": CPU, "read": 0, "written": 0,
        "steps": [], **more,
    }  # fmt: skip


@pytest.fixture
def parts() -> dict[str, Any]:
    """Results of a run in which every target holds that they have."""
    step = {"name": "dump", "seconds": [4.0, 5.0], "cpu": CPU, "read": 3_000_000, "written": 1_000_000}
    backup = {
        "settings": {"megabytes": 300, "data": "mixed", "partitions": 6, "postgres": 16, "rounds": 3},
        "contestants": [
            one("limit", "limit", 5.0, 4.0, 6.0),
            one("script", "script", 10.0, 30.0, 9.0),
            one("larder-gzip", "larder", 5.8, 5.0, 5.9, raw=300_000_000, peak_spool=30_000_000, steps=[step]),
            one("borg", "peer", 8.0, 8.0, 8.0),
        ],
        "skipped": [{"label": "pg_dump | restic", "why": "restic not installed"}],
    }
    found = {
        "backup": backup,
        "memory": {"settings": {}, "sizes": [{"megabytes": 10, "raw": 1e7, "peak": 1e8, "seconds": 1.0},
                                             {"megabytes": 99, "raw": 1e8, "peak": 1.1e8, "seconds": 2.0}]},
        "idle": {"settings": {"seconds": 60}, "figures": {"percent": 0.5, "worker": 0.3, "beat": 0.1, "console": 0.1}},
    }  # fmt: skip
    return {
        name: {"measured": "2026-11-26", "load": 0.1, "machine": MACHINE, **part}
        for name, part in found.items()
    }


@pytest.mark.parametrize(
    ("values", "middle"), [([3.0], 3.0), ([9.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 100.0], 3.0)]
)
def test_a_median_is_not_moved_by_one_slow_round(values: list[float], middle: float) -> None:
    assert median(values) == middle


def test_a_spread_is_from_the_least_to_the_greatest() -> None:
    assert spread([3.0, 1.234, 2.0]) == "1.23–3.00"


def test_a_ratio_is_that_of_medians(parts: dict[str, Any]) -> None:
    assert ratio(parts["backup"], "larder-gzip", "script") == pytest.approx(0.58)
    assert ratio(parts["backup"], "larder-gzip", "restic") is None


def test_targets_are_judged_where_they_were_measured(parts: dict[str, Any]) -> None:
    found = {
        verdict.target.what: (verdict.shown, verdict.good) for verdict in verdicts("backup", parts["backup"])
    }
    assert found["plain, gzip: of the script"] == ("0.58", True)
    assert found["plain, gzip: of `pg_dump` alone"] == ("1.16", True)
    assert found["largest process"] == ("100 MB", True)
    assert "directory: of the script" not in found
    assert failures(parts) == []


@pytest.mark.parametrize(("value", "good"), [(0.581, True), (0.586, False)])
def test_a_figure_is_judged_as_it_is_printed(value: float, good: bool) -> None:
    assert Target("any", "any", lambda _found: None, 0.58).holds(value) is good


def test_what_is_wanted_at_least_is_missed_by_less() -> None:
    target = next(target for target in TARGETS if target.least)
    assert (target.wanted, target.holds(5.0), target.holds(4.9)) == ("≥ 5.00", True, False)


def test_what_is_wrong_is_told(parts: dict[str, Any]) -> None:
    worse = copy.deepcopy(parts)
    worse["backup"]["contestants"][2]["seconds"] = [9.0]
    worse["backup"]["contestants"][2]["restored"] = "not what it was: public.events"
    worse["idle"]["figures"]["percent"] = 1.4
    assert failures(worse) == [
        "backup: plain, gzip: of the script: 0.90 (wanted ≤ 0.58)",
        "backup: plain, gzip: of `pg_dump` alone: 1.80 (wanted ≤ 1.20)",
        "backup: with larder-gzip | gzip does not restore: not what it was: public.events",
        "idle: worker, beat and console together, of a core: 1.40 % (wanted ≤ 1.00 %)",
    ]


def test_a_peer_that_does_not_restore_is_shown_and_is_not_our_fault(parts: dict[str, Any]) -> None:
    parts["backup"]["contestants"][3] |= {"restored": "not what it was: public.events", "seconds": []}
    assert failures(parts) == []
    row = next(line for line in page.measured(parts).splitlines() if line.startswith("| with borg"))
    assert "**no**: not what it was: public.events" in row


def test_the_page_has_tables_with_as_many_cells_in_each_row(parts: dict[str, Any]) -> None:
    text = page.measured(parts)
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert len(tables) == 5
    for found in tables:
        # A bar within a cell is told from one between two.
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in found.strip().splitlines()}
        assert len(cells) == 1, found
    assert "- pg_dump | restic: skipped, restic not installed." in text
    assert "| Backups of PostgreSQL: plain, gzip: of the script | 0.58 | ≤ 0.58 | holds |" in text


def test_a_machine_that_is_not_quiet_is_told_of(parts: dict[str, Any]) -> None:
    assert "not quiet" not in page.measured(parts)
    parts["idle"]["load"] = 3.21
    assert "**The machine was not quiet**: its load was 3.2 when a part began" in page.measured(parts)


def test_parts_that_were_measured_elsewhere_say_so(parts: dict[str, Any]) -> None:
    assert (
        "Measured 2026-11-26 on 2 cores that everybody shares, 25 GB of memory, Linux 6.1; Larder 0.1.0."
        in (page.measured(parts))
    )
    parts["idle"] |= {"measured": "2026-12-01", "machine": {**MACHINE, "cores": 8}}
    text = page.measured(parts)
    assert "- backups of postgresql (2026-11-26), memory (2026-11-26): 2 cores" in text
    assert "- idle (2026-12-01): 8 cores" in text


def test_the_page_keeps_what_is_written_by_hand() -> None:
    whole = f"# Title\n\n{page.BEGIN}\nold\n{page.END}\n\n## By hand\n"
    again = page.placed(page.placed(whole, "new"), "newer")
    assert again == f"# Title\n\n{page.BEGIN}\n\nnewer\n\n{page.END}\n\n## By hand\n"
    with pytest.raises(ValueError, match="has no lines"):
        page.placed("# Title\n", "new")


def drawn(text: str) -> ET.Element:
    return ET.fromstring(text)


def test_a_chart_stands_alone_and_says_what_it_shows(parts: dict[str, Any]) -> None:
    charts = page.charts(parts)
    assert sorted(charts) == ["benchmarks-backup-steps.svg", "benchmarks-backup.svg"]
    for text in charts.values():
        root = drawn(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("aria-label")
        assert "prefers-color-scheme: dark" in text
    said = [
        title.text
        for title in drawn(charts["benchmarks-backup.svg"]).iter("{http://www.w3.org/2000/svg}title")
    ]
    assert "with script | gzip: 10.00 s (9.00–30.00 s)" in said


def test_bars_are_as_long_as_their_medians() -> None:
    text = bars("Title", [Bar("half", "larder", [1.0, 2.0, 9.0]), Bar("whole", "peer", [4.0, 4.0])])
    found = [float(rect.get("width", 0)) for rect in drawn(text).iter("{http://www.w3.org/2000/svg}rect")]
    assert found[0] == pytest.approx(found[1] / 2, abs=0.2)


def test_steps_that_take_least_share_a_colour() -> None:
    names = [f"step {number}" for number in range(8)]
    text = stacks("Title", [Stack("chain", [(name, 1.0 + at) for at, name in enumerate(names)])])
    assert "the rest" in text
    rects = list(drawn(text).iter("{http://www.w3.org/2000/svg}rect"))
    assert [rect.get("class") for rect in rects][:8] == ["s5", "s5", "s5", "s4", "s3", "s2", "s1", "s0"]


class Sleeper(Contestant):
    """Writes who ran into a file, and fails as it is told."""

    def __init__(self, key: str, log: list[str], problem: Exception | None = None) -> None:
        self.key = self.label = key
        self.log = log
        self.problem = problem

    def run(self, place: Place) -> Taken:
        self.log.append(self.key)
        assert list(place.folder.iterdir()) == []
        return Taken.of(place.run("sh", "-c", "echo > made"), 1)

    def check(self, place: Place) -> None:
        assert (place.folder / "made").exists()
        if self.problem:
            raise self.problem


def test_everybody_runs_in_turn_in_a_folder_that_goes(tmp_path: Path) -> None:
    log: list[str] = []
    told: list[str] = []
    absent = Sleeper("absent", log)
    absent.programs = ("no-such-program",)
    everybody = [
        Sleeper("a", log),
        Sleeper("b", log, Different("less")),
        Sleeper("c", log, Failed("no")),
        absent,
    ]
    found = compete(everybody, 2, Place(tmp_path, os.environ), told.append)
    assert "".join(log) == "abc" * 3
    assert [len(one["seconds"]) for one in found["contestants"]] == [2, 2, 2]
    assert [one["restored"] for one in found["contestants"]] == [True, "less", "no"]
    assert found["skipped"] == [{"label": "absent", "why": "no-such-program not installed"}]
    assert "absent: skipped, no-such-program not installed" in told
    assert list(tmp_path.iterdir()) == []


def test_a_problem_is_told_in_a_line_without_paths() -> None:
    said = in_one_line("psql exited with 3: unable to read '/tmp/here/x y':\nno such file /var/lib: 1/2 done")
    assert said == "psql exited with 3: unable to read '… y': no such file …: 1/2 done"


def test_a_failure_says_what_was_written_last(tmp_path: Path) -> None:
    place = Place(tmp_path, os.environ)
    with pytest.raises(Failed, match="bash exited with 3: no such table"):
        place.shell("echo no such table >&2; exit 3")
    with pytest.raises(Failed):
        place.shell("false | cat")


def test_a_watch_counts_cpu_and_bytes_by_who_they_are(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    place = Place(tmp_path, os.environ, watched=True)
    work = "head -c 50000000 /dev/zero | sha256sum; head -c 300000 /dev/zero > spool/a; sleep 0.5"
    program = (
        f"import subprocess, sys; sum(range(8_000_000)); subprocess.run(['sh', '-c', {work!r}], check=True)"
    )
    done = place.run(sys.executable, "-c", program, spool=tmp_path / "spool")
    assert isinstance(done.watch, Watch)
    used = done.watch.used()
    assert used[OWN].cpu > 0
    assert used[TOOLS].cpu > 0
    assert done.watch.peak_spool == 300_000
    assert done.watch.peak_memory > 5_000_000


def test_time_belongs_to_the_innermost_room(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 11.0, 14.0, 14.5])
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(clocks, "_seconds", defaultdict(float))
    ask = clocks.clocked("ledger", lambda: None)
    clocks.clocked("work", ask)()
    assert dict(clocks._seconds) == {"work": 1.5, "ledger": 3.0}


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"12345")
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    assert size_of(tmp_path) == 5
    with (tmp_path / "hole").open("wb") as sparse:
        sparse.truncate(1 << 20)
    assert size_of(tmp_path) == 5


def test_an_unknown_part_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suite.main(["--only", "sqlight"])
    assert "no part sqlight: there are backup, sqlite" in capsys.readouterr().err


def test_the_published_page_is_what_its_results_say(tmp_path: Path) -> None:
    parts = json.loads((ROOT / suite.RESULTS).read_text())
    suite.write(tmp_path, parts)
    assert (tmp_path / suite.PAGE).read_text() == (ROOT / suite.PAGE).read_text()
    drawings = {path.name: path.read_text() for path in (tmp_path / suite.IMAGES).iterdir()}
    assert drawings
    assert drawings == {name: (ROOT / suite.IMAGES / name).read_text() for name in drawings}


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.suite", "--out", str(folder / "out"), *arguments]
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_the_suite_measures_and_writes_its_page(tmp_path: Path) -> None:
    process = started(
        tmp_path, "--only", "sqlite", "--size", "1", "--rounds", "1", "--peers", "script|larder$"
    )
    said, _ = process.communicate(timeout=200)
    # Whether targets hold depends on the machine, and on a file of a megabyte they do not.
    assert process.returncode in (0, 1), said
    assert "round 1 of 1: the user's script" in said
    found = json.loads((tmp_path / "out" / suite.RESULTS).read_text())["sqlite"]
    assert [(one["key"], one["restored"], len(one["seconds"])) for one in found["contestants"]] == [
        ("script", True, 1), ("larder", True, 1)
    ]  # fmt: skip
    assert [step["name"] for step in found["contestants"][1]["steps"]][::6] == ["dump", "between steps"]
    assert "**Larder, gzip**" in (tmp_path / "out" / suite.PAGE).read_text()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_part_can_be_measured(tmp_path: Path) -> None:
    tiny = "--size 1 --rounds 1 --fleet-sqlite 4 --fleet-postgres 2 --scales 2,4 --memory 1,2 --tiny 2 --idle-seconds 5"
    process = started(tmp_path, *tiny.split())
    said, _ = process.communicate(timeout=1400)
    assert process.returncode in (0, 1), said
    found = json.loads((tmp_path / "out" / suite.RESULTS).read_text())
    assert list(found) == list(suite.PARTS)
    contestants = [one for part in found.values() for one in part.get("contestants", [])]
    assert {one["key"]: one["restored"] for one in contestants if one["restored"] is not True} == {}
    assert {target.part for target in TARGETS} == {name for name in found if verdicts(name, found[name])} | {
        "backup"
    }
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_interrupted_suite_leaves_nothing(tmp_path: Path) -> None:
    process = started(tmp_path, "--only", "sqlite", "--size", "40", "--rounds", "1")
    try:
        # The user's script is at work.
        eventually(lambda: list((tmp_path / "tmp").glob("*/run-*/backups/*")))
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert "everything that was started is ended" in said
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not [line for line in _commands() if str(tmp_path) in line]


def _commands() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found
