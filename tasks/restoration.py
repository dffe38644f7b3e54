"""What the links of a restore have in common: the request that they carry out, its target, and the backup's content."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from larder.config import DatabaseSettings
from larder.databases import open_restorer
from larder.drilling import Scratch
from larder.encoding import decoding
from larder.errors import IntegrityError, LarderError, NotFoundError, RejectedError
from larder.ledger.requests import Request
from larder.manifest import Manifest
from larder.progress import Progress
from larder.restore_plan import source_of
from larder.restore_target import settings_for
from larder.restoring import Content, Restorer, Source
from larder.streams import digest_file
from tasks.closing import SCRATCH
from tasks.drill_closing import scratch_for
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
class Bound:
    """The very bytes that a run is about: the artifact's size and SHA-256, and its manifest's."""

    backup: str
    size: int
    sha256: str
    #: None for a backup from before manifests were linked.
    manifest: str | None


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


def bound(work: Work) -> Bound:
    """What a restore was approved for, or what the ledger knows of the backup that a drill is of."""
    if work.run.kind == "restore":
        wanted = work.ledger.requests.of_run(work.run.id).document.wanted
        return Bound(wanted.backup, wanted.size, wanted.sha256, wanted.manifest)
    backup = work.ledger.drills.get(work.run.id).backup
    known = work.ledger.backups.get(backup)
    if known is None:
        raise NotFoundError(
            f"unable to find backup {backup}: it was deleted since", "larder list shows what there is"
        )
    return Bound(known.id, known.size, known.sha256, known.manifest)


def scratch_of(work: Work) -> Scratch:
    """Where this drill restores into."""
    return scratch_for(work.run)


def scratch_folder(work: Work) -> Path:
    """A private folder in the run's spool for whatever restores have to write, removed with the run."""
    folder = work.spool.folder / SCRATCH
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def refusals(work: Work, source: Source) -> list[LarderError]:
    """Every reason why the target, or the scratch database, could not take `source`."""
    if work.run.kind == "drill":
        return scratch_of(work).refusals(source)
    found = restoration(work)
    return found.restorer.refusals(source, found.restorer.look())


def loader(work: Work) -> Callable[[Content, Progress, Callable[[str], None]], list[str]]:
    """What builds the database: beside the live one, or as a scratch database."""
    if work.run.kind == "drill":
        return scratch_of(work).load
    found = restoration(work)
    # Before there is anything: whoever ends this restore then knows that there may be something to remove.
    work.ledger.requests.note_leftover(found.request.id, there=True)
    return found.restorer.load


def compared(work: Work) -> str:
    """What was compared with the backup before it counts, in words."""
    if restoration(work).request.document.plan.selective:
        return "the rows of each chosen table are as in the backup; checks were not run"
    if manifest_of(work).fingerprint.get("row_counts") == "exact":
        return "the rows of every table are as in the backup, every check is true"
    return "every table is there, every check is true; the backup has no row counts"


@contextmanager
def condemning(work: Work) -> Iterator[None]:
    """Have a drill's backup counted as broken where it cannot be restored, in all the bytes that it was made with.

    The bytes are looked at again: the disk that they were fetched to may be at fault. What the scratch server lacks
    (an extension, room, a connection) says nothing of the backup.
    """
    try:
        yield
    except (IntegrityError, RejectedError) as error:
        if work.run.kind != "drill" or not _has_its_bytes(work):
            raise
        backup, why = bound(work).backup, error.message
        work.also = lambda connection: work.ledger.drills.condemn(connection, work.run.id, backup, why)
        raise IntegrityError(why, error.hint) from None


def _has_its_bytes(work: Work) -> bool:
    fetched = work.spool.result("fetch", Fetched)
    return digest_file(work.spool.path("fetch") / fetched.artifact).sha256 == bound(work).sha256


def manifest_of(work: Work) -> Manifest:
    """The manifest that `fetch` brought."""
    fetched = work.spool.result("fetch", Fetched)
    return Manifest.from_bytes((work.spool.path("fetch") / fetched.manifest).read_bytes())


def content_of(work: Work) -> Content:
    """The backup's content in the spool, as `check` has left it."""
    manifest = manifest_of(work)
    fetched = work.spool.result("fetch", Fetched)
    artifact = work.spool.path("fetch") / fetched.artifact
    return Content(
        source=source_of(manifest),
        open=lambda: opened(artifact, manifest, work.settings.identities),
        folder=work.spool.path("check") / UNPACKED if manifest.form == "folder" else None,
        scratch=scratch_folder(work),
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
