"""What `larder up` has its processes under: one that ends ends all, in an order, and none is left."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.processes import eventually, running

ROOT = Path(__file__).parents[2]

#: Runs a base and another, each a script of Python, and says how it went.
SCRIPT = """
import sys
from console import supervisor
supervisor.PATIENCE = float(sys.argv[1])
made = supervisor.Supervisor("base", sys.stderr)
for number, name in enumerate(["base", "other", "third"][: len(sys.argv) - 2]):
    made.add(name, [sys.executable, "-u", "-c", sys.argv[2 + number], name], {"PATH": "", "LINE": "x; echo shell"})
made.loop()
print(made.lost, made.killed)
"""

#: Ends at once when it is told to, and says so; and one that does not.
OBEYS = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('told')));"
    "print('here'); time.sleep(60)"
)
DEFIES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here'); time.sleep(60)"

#: Starts many, the first of which signals before the last is there; says how it went. `sys.argv[1]` is its signal.
MANY = """
import sys
from console.supervisor import Supervisor
made = Supervisor("base", sys.stderr)
for number in range(40):
    told = f"kill -{sys.argv[1]} $PPID;" if number == 0 else ""
    made.add(f"other {number}", ["sh", "-c", f"{told} exec sleep 60"], {"PATH": sys.argv[2]})
made.loop()
print(made.lost, made.killed)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def start(log: Path) -> Start:
    def start(*scripts: str, patience: float = 30, stderr: int | None = None) -> subprocess.Popen[str]:
        with log.open("w") as sink:
            return subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(patience), *scripts],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=stderr or sink,
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


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_signal_while_they_are_started_is_heard(name: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", MANY, name, os.environ["PATH"]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (found.stdout, "Traceback" in found.stderr) == ("None False\n", False)


def test_a_terminal_that_is_closed_ends_all_in_order(start: Start, log: Path) -> None:
    waits = OBEYS.replace("sys.exit(print('told'))", "(time.sleep(0.5), sys.exit(print('told late')))")
    with running(start(OBEYS, waits)) as process:
        eventually(lambda: log.read_text().count("here") == 2)
        # A shell tells its jobs once more.
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        said, _ = process.communicate(timeout=30)
    told = [line.split()[1] for line in log.read_text().splitlines() if "| told" in line]
    assert (told, said) == (["other", "base"], "None False\n")


def test_with_nohup_a_terminal_that_is_closed_ends_nothing(start: Start, log: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start(
            OBEYS, "import os, signal; os.kill(os.getppid(), signal.SIGHUP); print('sent');" + OBEYS
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    with running(process):
        eventually(lambda: log.read_text().count("here") == 2)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert "| sent" in log.read_text()
    assert said == "None False\n"


def test_where_nobody_reads_the_lines_all_end_in_order(start: Start, tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    late = OBEYS.replace("print('told')", f"open({str(ends)!r}, 'a').write(sys.argv[1] + ' ')")
    chatty = late.replace("time.sleep(60)", "[(print('line'), time.sleep(0.01)) for _ in range(6000)]")
    with running(start(late, chatty, stderr=subprocess.PIPE)) as process:
        assert process.stderr is not None
        assert "here" in process.stderr.readline()
        process.stderr.close()
        process.stderr = None
        said, _ = process.communicate(timeout=30)
    assert said == "None False\n"
    assert ends.read_text() == "other base "


def test_what_is_held_is_held_until_the_last_has_ended(tmp_path: Path, log: Path) -> None:
    with (tmp_path / "lock").open("w") as held, log.open("w") as sink:
        fcntl.flock(held, fcntl.LOCK_EX)
        script = SCRIPT.replace("sys.stderr)", f"sys.stderr, held=[{held.fileno()}])")
        process = subprocess.Popen(
            [sys.executable, "-c", script, "30", DEFIES],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            pass_fds=[held.fileno()],
        )
    with running(process), (tmp_path / "lock").open() as another:
        eventually(lambda: "here" in log.read_text())
        (child,) = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        with pytest.raises(BlockingIOError):
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
        child.kill()
        fcntl.flock(another, fcntl.LOCK_EX)


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
        cwd=ROOT,
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
