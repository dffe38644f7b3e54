"""Where a drill builds, written down in its folder before.

By the time that it is to go, `scratch_url` and `scratch_dir` may lead elsewhere, or the database may have left the
configuration.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from larder.spool import disk_error, make_private
from larder.streams import durable_file, fsync_folder

_NAME: Final = "built.json"


@dataclass(frozen=True)
class Note:
    """One of both."""

    #: The folder of the cluster.
    cluster: str = ""
    #: The server that was named for drills, without user and secrets: `postgresql://drills.example:5432`.
    server: str = ""


def read(folder: Path) -> Note | None:
    """What `write` has left in a drill's folder; None where it has not. Raises `LarderError`."""
    try:
        return Note(**json.loads((folder / _NAME).read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_error(error, folder) from error


def write(folder: Path, note: Note) -> None:
    """Write it down, to be found whatever becomes of us. Raises `LarderError`."""
    make_private(folder)
    written = folder / f"{_NAME}.new"
    try:
        with durable_file(written) as file:
            file.write(json.dumps(asdict(note)).encode())
        written.replace(folder / _NAME)
        fsync_folder(folder)
    except OSError as error:
        raise disk_error(error, folder) from error


def forget(folder: Path) -> None:
    """Nothing of what was built is there any more. Raises `LarderError`."""
    try:
        (folder / _NAME).unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, folder) from error
