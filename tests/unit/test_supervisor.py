"""What `larder up` has its processes under: one that ends ends all, in an order, and none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.processes import eventually, running

#: Runs a base and another, each a script of Python, and says how it went.
SCRIPT = """
import sys
from console import supervisor
supervisor.PATIENCE = float(sys.argv[1])
made = supervisor.Supervisor("base", sys.stderr)
for number, name in enumerate(["base", "other", "third"][: len(sys.argv) - 2]):
    made.add(name, [sys.executable, "-u", "-c", sys.argv[2 + number]], {"PATH": "", "LINE": "x; echo shell"})
made.loop()
print(made.lost, made.killed)
"""

#: Ends at once when it is told to, and says so; and one that does not.
OBEYS = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('told')));"
    "print('here'); time.sleep(60)"
)
DEFIES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here'); time.sleep(60)"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def start(log: Path) -> Start:
    def start(*scripts: str, patience: float = 30) -> subprocess.Popen[str]:
        with log.open("w") as sink:
            return subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(patience), *scripts],
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
            )

    return start


def test_one_that_ends_ends_the_others_and_is_named(start: Start, log: Path) -> None:
    with running(start(OBEYS, "raise SystemExit(7)")) as process:
        said, _ = process.communicate(timeout=30)
    assert said == "('other', 7) False\n"


def test_what_the_others_stand_on_ends_last(start: Start, log: Path) -> None:
    waits = OBEYS.replace("sys.exit(print('told'))", "(time.sleep(0.5), sys.exit(print('told late')))")
    with running(start(OBEYS, waits)) as process:
        eventually(lambda: log.read_text().count("here") == 2)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    told = [line.split()[1] for line in log.read_text().splitlines() if "| told" in line]
    assert told == ["other", "base"]
    assert said == "None False\n"


def test_a_second_signal_ends_at_once(start: Start, log: Path) -> None:
    with running(start(OBEYS, DEFIES)) as process:
        eventually(lambda: log.read_text().count("here") == 2)
        process.send_signal(signal.SIGINT)
        eventually(lambda: "asked again" in log.read_text())
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert said == "None True\n"


def test_patience_ends(start: Start, log: Path) -> None:
    with running(start(DEFIES, DEFIES, patience=0.3)) as process:
        eventually(lambda: log.read_text().count("here") == 2)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert said == "None True\n"
    assert "killing base, other" in log.read_text()


def test_whoever_is_killed_leaves_nobody(start: Start, log: Path) -> None:
    with running(start(OBEYS, OBEYS)) as process:
        eventually(lambda: log.read_text().count("here") == 2)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(children, timeout=30)
    assert len(children) == 2
    assert alive == []


def test_no_shell_reads_a_command(start: Start, log: Path) -> None:
    with running(start("import os; print(os.environ['LINE'], os.getppid())")) as process:
        process.communicate(timeout=30)
    assert f"| x; echo shell {process.pid}" in log.read_text()


def test_one_that_cannot_be_started_ends_those_that_were(log: Path) -> None:
    script = SCRIPT.replace(
        'made.add(name, [sys.executable, "-u"',
        'made.add(name, ["/nowhere" if number else sys.executable, "-u"',
    )
    found = subprocess.run(
        [sys.executable, "-c", script, "30", DEFIES, OBEYS],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert found.returncode == 1
    assert "unable to start other: no such file or directory" in found.stderr
    assert not [
        one
        for one in psutil.process_iter(["cmdline"])
        if DEFIES in (one.info["cmdline"] or []) and one.ppid() in (1, os.getpid())
    ]
