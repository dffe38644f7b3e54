"""What the links of a restore have in common: the request that they carry out, its target, and the backup's content."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from larder.config import DatabaseSettings
from larder.databases import open_restorer
from larder.encoding import decoding
from larder.ledger.requests import Request
from larder.manifest import Manifest
from larder.restore_plan import source_of
from larder.restore_target import settings_for
from larder.restoring import Content, Restorer
from tasks.closing import SCRATCH
from tasks.step import Work

#: The folder that a directory dump is unpacked into, inside what `check` makes.
UNPACKED = "content"


@dataclass(frozen=True)
class Fetched:
    """What `fetch` brought: the names of its files, and where from."""

    artifact: str
    manifest: str
    store: str


@dataclass(frozen=True)
class Restoration:
    """One restore under way."""

    request: Request
    target: DatabaseSettings
    restorer: Restorer


def restoration(work: Work) -> Restoration:
    """The restore that this run carries out; raises `NotAuthorisedError` where its target has moved since."""
    request = work.ledger.requests.of_run(work.run.id)
    target = settings_for(work.settings, request.document)
    return Restoration(request, target, open_restorer(target, request.document.plan))


def compared(work: Work) -> str:
    """What was compared with the backup before it counts, in words."""
    if restoration(work).request.document.plan.selective:
        return "the rows of each chosen table are as in the backup; checks were not run"
    if manifest_of(work).fingerprint.get("row_counts") == "exact":
        return "the rows of every table are as in the backup, every check is true"
    return "every table is there, every check is true; the backup has no row counts"


def manifest_of(work: Work) -> Manifest:
    """The manifest that `fetch` brought."""
    fetched = work.spool.result("fetch", Fetched)
    return Manifest.from_bytes((work.spool.path("fetch") / fetched.manifest).read_bytes())


def content_of(work: Work) -> Content:
    """The backup's content in the spool, as `check` has left it."""
    manifest = manifest_of(work)
    fetched = work.spool.result("fetch", Fetched)
    artifact = work.spool.path("fetch") / fetched.artifact
    scratch = work.spool.folder / SCRATCH
    scratch.mkdir(mode=0o700, exist_ok=True)
    return Content(
        source=source_of(manifest),
        open=lambda: opened(artifact, manifest, work.settings.identities),
        folder=work.spool.path("check") / UNPACKED if manifest.form == "folder" else None,
        scratch=scratch,
    )


def opened(artifact: Path, manifest: Manifest, identities: tuple[Path, ...]) -> BinaryIO:
    """The decoded content of an artifact; closing it closes the file too."""
    stored = artifact.open("rb")
    try:
        reader = decoding(manifest.encoding, identities).reader(cast(BinaryIO, stored))
    except BaseException:
        stored.close()
        raise
    return cast(BinaryIO, _Owned(reader, cast(BinaryIO, stored)))


class _Owned(io.RawIOBase):
    """A reader that closes what it reads from, too."""

    def __init__(self, reader: BinaryIO, stored: BinaryIO) -> None:
        super().__init__()
        self._reader = reader
        self._stored = stored

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, straight from the decoder."""
        return self._reader.read(size)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._reader.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        # What a decoder says when it is left half-way is nothing that its reader would want to know.
        with suppress(Exception):
            self._reader.close()
        self._stored.close()
