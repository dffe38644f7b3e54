"""Wires: how a fault is aimed at a moment of a step in another process, and what can only be done from within it.

A worker of `tests.faults.quick` that comes to a point at which a wire lies (`backup.dump.taken`) takes it, so that
nobody else does, and stops; whoever laid it finds the process standing there, and does to it, or to the world, what it
likes. Disks that fail and clocks that were set are files too. Where there are none, nothing happens.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: A wire that lies everywhere.
ANY = "any"


@dataclass(frozen=True)
class Disk:
    """How a host's disk fails: with `errno`, once a process has written `after` more bytes."""

    errno: int
    after: int


class Wires:
    """The folder that they lie in."""

    def __init__(self, folder: Path) -> None:
        self._laid = folder / "laid"
        self._at = folder / "at"
        self._folder = folder

    def make(self) -> None:
        """Make the folders."""
        for path in (self._laid, self._at):
            path.mkdir(parents=True)

    def lay(self, point: str) -> str:
        """Have the next process stop that comes to `point`, or to any point where that is `ANY`; gives the wire."""
        wire = f"{point}#{secrets.token_hex(4)}"
        (self._laid / wire).touch()
        return wire

    def caught(self, wire: str) -> int | None:
        """The process that stands at a wire; it is not to be asked for again."""
        for path in self._laid.glob(f"{wire}@*"):
            path.unlink()
            return int(path.name.rpartition("@")[2])
        return None

    def withdraw(self, wire: str) -> bool:
        """Take a wire away; False where somebody has come to it meanwhile."""
        try:
            (self._laid / wire).unlink()
        except FileNotFoundError:
            return False
        return True

    def reach(self, point: str) -> None:
        """Come to `point`, and stop where a wire lies."""
        for path in sorted(self._laid.iterdir()):
            if "@" not in path.name and path.name.partition("#")[0] in (point, ANY):
                try:
                    path.rename(self._laid / f"{path.name}@{os.getpid()}")
                except FileNotFoundError:
                    continue
                os.kill(os.getpid(), signal.SIGSTOP)
                return

    def begin(self, step: str) -> None:
        """Say that this process is at `step` (`backup.dump`)."""
        (self._at / str(os.getpid())).write_text(step)

    def end(self) -> None:
        """Say that this process is at nothing."""
        (self._at / str(os.getpid())).unlink(missing_ok=True)

    def working(self) -> dict[int, str]:
        """What each process is at, by its number."""
        found = {}
        for path in self._at.iterdir():
            with suppress(FileNotFoundError):
                step = path.read_text()
                if step and Path("/proc", path.name).exists():
                    found[int(path.name)] = step
        return found

    def clear(self) -> None:
        """Take all wires away; every disk is whole again, and every clock is right."""
        for path in (*self._laid.iterdir(), *self._folder.iterdir()):
            if path.is_file():
                path.unlink()

    def set_disk(self, host: str, disk: Disk) -> None:
        """Have the disk of a host fail."""
        self._write(f"failed.{host}", None)
        self._write(f"disk.{host}", json.dumps([disk.errno, disk.after]))

    def mend_disk(self, host: str) -> bool:
        """Have the disk of a host be whole again; says whether anybody has seen it fail."""
        self._write(f"disk.{host}", None)
        return (self._folder / f"failed.{host}").exists()

    def fail(self, host: str) -> None:
        """Say that a host's disk has failed somebody."""
        (self._folder / f"failed.{host}").touch()

    def disk(self, host: str) -> tuple[int, Disk] | None:
        """How a host's disk fails, and the number of that fault."""
        path = self._folder / f"disk.{host}"
        try:
            with path.open() as file:
                return os.fstat(file.fileno()).st_ino, Disk(*json.load(file))
        except FileNotFoundError:
            return None

    def set_clock(self, host: str, seconds: float) -> None:
        """Set a host's clock forwards, or backwards."""
        self._write(f"clock.{host}", str(seconds) if seconds else None)

    def clock(self, host: str) -> float:
        """By how many seconds a host's clock is wrong."""
        try:
            return float((self._folder / f"clock.{host}").read_text())
        except FileNotFoundError:
            return 0.0

    def set_doubled(self, *, doubled: bool) -> None:
        """Have every message sent twice, or once again."""
        self._write("doubled", "yes" if doubled else None)

    @property
    def doubled(self) -> bool:
        """Whether every message is sent twice."""
        return (self._folder / "doubled").exists()

    def _write(self, name: str, text: str | None) -> None:
        path = self._folder / name
        if text is None:
            path.unlink(missing_ok=True)
            return
        # Faults of one kind may be made at once.
        draft = path.with_name(f"{name}.{secrets.token_hex(4)}.draft")
        draft.write_text(text)
        draft.rename(path)
