"""Subprocesses under supervision, with small real commands."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from larder import process, secret
from larder.errors import ConfigurationError, UnreachableError
from larder.process import Process, ProcessError, StalledError

LONG = 60


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int) -> None:
    try:
        found = psutil.Process(pid)
        psutil.wait_procs([found], timeout=10)
    except psutil.NoSuchProcess:
        return
    assert gone(pid)


def test_output_comes_whole_and_in_large_pieces() -> None:
    with Process(
        python("import os; [os.write(1, b'x' * 65536) for _ in range(100)]"), stall_seconds=LONG
    ) as run:
        pieces = list(run.output())
        run.finish()
    assert b"".join(pieces) == b"x" * 6_553_600
    assert max(map(len, pieces)) <= process.CHUNK


def test_an_exit_code_and_the_end_of_standard_error_are_told() -> None:
    code = "import sys; print('noise ' * 10000, file=sys.stderr); print('it broke', file=sys.stderr); sys.exit(3)"
    with Process(python(code), stall_seconds=LONG) as run:
        assert list(run.output()) == []
        with pytest.raises(ProcessError, match="exited with 3: it broke") as caught:
            run.finish()
    assert caught.value.code == 3
    assert len(caught.value.tail) <= process.TAIL


def test_the_end_is_waited_for_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(_seconds: float) -> None:
        raise AssertionError("looked again after a while")

    monkeypatch.setattr(process.time, "sleep", sleep)
    before = psutil.Process().num_fds()
    for _ in range(5):
        with Process(python("import time; time.sleep(0.05)"), stall_seconds=LONG, output=False) as command:
            command.finish()
        assert command.over
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize("code", [0, 3])
def test_without_a_way_to_wait_for_a_process_its_end_is_seen(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_process: int) -> int:
        raise PermissionError

    monkeypatch.setattr(process.os, "pidfd_open", refused, raising=False)
    with Process(python(f"raise SystemExit({code})"), stall_seconds=LONG) as command:
        assert list(command.output()) == []
        if code == 0:
            command.finish()
        else:
            with pytest.raises(ProcessError, match="exited with 3"):
                command.finish()


def test_a_process_error_can_be_rebuilt_from_its_arguments() -> None:
    error = ProcessError("pg_dump", -9, "pg_dump: error: no")
    again = type(error)(*error.args)
    assert str(again) == str(error) == "unable to finish pg_dump: was ended by SIGKILL: pg_dump: error: no"


def test_standard_error_is_masked() -> None:
    secret.register("hidden-in-here")
    with (
        Process(
            python("import sys; sys.exit('oh hidden-in-here no')"), stall_seconds=LONG, output=False
        ) as run,
        pytest.raises(ProcessError) as caught,
    ):
        run.finish()
    assert "hidden-in-here" not in str(caught.value)
    assert "oh **** no" in caught.value.tail


def test_a_command_that_writes_nothing_is_ended() -> None:
    began = time.monotonic()
    with (
        pytest.raises(StalledError, match=r"no byte has moved for 0\.3 s") as caught,
        Process(python("import signal; signal.pause()"), stall_seconds=0.3) as run,
    ):
        list(run.output())
    assert isinstance(caught.value, UnreachableError)
    assert caught.value.retryable
    assert time.monotonic() - began < 10
    assert gone(run.pid)


def test_a_command_that_closes_its_output_and_stays_is_ended() -> None:
    code = "import os, signal; os.close(1); os.close(2); signal.pause()"
    with Process(python(code), stall_seconds=0.3) as run:
        assert list(run.output()) == []
        with pytest.raises(StalledError):
            run.finish()
    assert gone(run.pid)


def test_what_moves_elsewhere_keeps_a_command_alive() -> None:
    seen = iter(range(1000))
    lasting = "import select; select.select([], [], [], 1.5)"
    with Process(python(lasting), stall_seconds=1, output=False, moved=lambda: next(seen)) as run:
        run.finish()


def test_a_command_that_moves_nothing_elsewhere_is_ended() -> None:
    pause = python("import signal; signal.pause()")
    with Process(pause, stall_seconds=0.3, output=False, moved=lambda: 1) as run, pytest.raises(StalledError):
        run.finish()


def test_what_the_watch_raises_ends_the_command() -> None:
    def watch() -> None:
        raise KeyError("stop")

    endless = "import os\nwhile True: os.write(1, b'x' * 65536)"
    with pytest.raises(KeyError), Process(python(endless), stall_seconds=LONG, watch=watch) as run:
        for _ in run.output():
            pass
    assert gone(run.pid)


def test_the_whole_group_is_gone_after_the_block() -> None:
    code = (
        "import subprocess, sys, signal\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "print(child.pid, flush=True); signal.pause()"
    )
    with Process(python(code), stall_seconds=LONG) as run:
        child = int(next(run.output()))
    assert gone(run.pid)
    wait_until_gone(child)


def test_what_a_command_leaves_behind_is_ended_too() -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], stdout=2)\n"
        "print(child.pid, flush=True)"
    )
    with Process(python(code), stall_seconds=LONG) as run:
        child = int(b"".join(run.output()))
        run.finish()
    wait_until_gone(child)


def test_nothing_can_be_typed_and_little_is_told() -> None:
    os.environ["LARDER_TEST_SECRET"] = "x"
    code = "import os, sys; print(repr(sys.stdin.read()), sorted(os.environ), os.environ['LC_ALL'])"
    try:
        with Process(python(code), {"PGHOST": "there"}, stall_seconds=LONG) as run:
            said = b"".join(run.output()).decode()
            run.finish()
    finally:
        del os.environ["LARDER_TEST_SECRET"]
    assert said.startswith("''")
    assert "PGHOST" in said
    assert "LARDER_TEST_SECRET" not in said
    assert said.rstrip().endswith(" C")


def test_what_is_fed_arrives_whole() -> None:
    code = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    data = os.urandom(3_000_000)
    with Process(python(code), stall_seconds=LONG, input=True) as run:
        run.feed(data[:7])
        run.feed(memoryview(data)[7:])
        run.end_input()
        said = b"".join(run.output()).decode().strip()
        run.finish()
    assert said == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("code", [0, 4])
def test_a_command_that_ends_before_it_has_read_everything_is_an_error(code: int) -> None:
    ending = python(f"import sys; print('enough', file=sys.stderr); sys.exit({code})")
    with (
        Process(ending, stall_seconds=LONG, input=True, output=False) as run,
        pytest.raises(ProcessError, match=f"exited with {code}: enough"),
    ):
        run.feed(bytes(1 << 22))
    assert gone(run.pid)


def test_a_command_that_reads_nothing_is_ended() -> None:
    pause = python("import signal; signal.pause()")
    with (
        Process(pause, stall_seconds=0.3, input=True, output=False) as run,
        pytest.raises(StalledError, match="no byte has moved"),
    ):
        run.feed(bytes(1 << 22))
    assert gone(run.pid)


def test_one_that_works_on_what_it_was_fed_is_not_ended() -> None:
    seen = iter(range(1000))
    slow = python("import select, sys; select.select([], [], [], 1.5); sys.stdin.read()")
    with Process(slow, stall_seconds=1, input=True, output=False, moved=lambda: next(seen)) as run:
        run.feed(bytes(1 << 22))
        run.end_input()
        run.finish()


def test_nothing_can_be_fed_to_one_that_reads_nothing() -> None:
    with (
        Process(python("pass"), stall_seconds=LONG) as run,
        pytest.raises(ValueError, match="standard input"),
    ):
        run.feed(b"x")


@pytest.mark.parametrize("argv", [["/nonexistent/pg_dump"], ["/etc/passwd"]])
def test_a_command_that_cannot_be_started_is_named(argv: list[str]) -> None:
    with (
        pytest.raises(ConfigurationError, match=f"unable to start {argv[0]}"),
        Process(argv, stall_seconds=LONG),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_command_dies_with_its_worker() -> None:
    code = (
        "import sys\nfrom larder.process import Process\n"
        "with Process([sys.executable, '-c', 'import signal; signal.pause()'], stall_seconds=60) as run:\n"
        "    print(run.pid, flush=True)\n    list(run.output())"
    )
    worker = subprocess.Popen(
        python(code), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    assert worker.stdout is not None
    child = int(worker.stdout.readline())
    assert not gone(child)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    wait_until_gone(child)
