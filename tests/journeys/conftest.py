"""What journeys share: real Redis, real worker processes, and the proof that none of them is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


@pytest.fixture
def no_process_left(tmp_path: Path) -> Iterator[None]:
    """Fail the test when a process that it started is still there at its end."""
    yield
    left = [process for process in _ours(tmp_path) if process.pid not in _ancestors()]
    assert not left, f"left running: {[process.cmdline() for process in left]}"


def _ancestors() -> set[int]:
    return {process.pid for process in [psutil.Process(), *psutil.Process().parents()]}


def _ours(folder: Path) -> list[psutil.Process]:
    """Processes whose environment or working folder is the test's: whatever a House starts inherits both."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(folder) or process.cwd() == str(folder):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found
