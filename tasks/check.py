"""check: the backup is whole, and nothing stands in its way, before anything is touched."""

from __future__ import annotations

import shutil
import tarfile
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

from larder.errors import IntegrityError
from larder.manifest import Content as Raw
from larder.manifest import Manifest
from larder.progress import human_size
from larder.restore_plan import raise_all, source_of
from larder.streams import CHUNK, Hashed, HashedReader, fsync_folder
from tasks.restoration import UNPACKED, Fetched, condemning, manifest_of, opened, refusals
from tasks.step import Work, step

#: Bytes that are unpacked at a time. tarfile copies each piece twice, and larger ones take twice as long: memory of
#: their size comes from the system anew, and empty, for each.
PIECE = 1 << 16


@step("check", "restore", "drill")
def check(work: Work) -> None:
    """Ask the target whether it can take the backup, and unpack what is a folder; a stream is decoded by `load`."""
    manifest = manifest_of(work)
    raise_all(refusals(work, source_of(manifest)))
    with condemning(work):
        _decode(work, manifest)


def _decode(work: Work, manifest: Manifest) -> None:
    fetched = work.spool.result("fetch", Fetched)
    artifact = work.spool.path("fetch") / fetched.artifact
    if manifest.form == "file":
        # `fetch` knows by their SHA-256 that these bytes were decoded to their end when the backup was made.
        # `load` does it again, and compares, before anything live is touched; here it shows that they can be read.
        with closing(opened(artifact, manifest, work.settings.identities)) as plain:
            plain.read(CHUNK)
        work.say("Backup can be decoded: its SHA-256 is compared again while it is loaded")
        return

    def make(folder: Path) -> Raw:
        work.progress.restart(manifest.raw.size)
        with closing(opened(artifact, manifest, work.settings.identities)) as plain:
            got = _unpack(plain, folder / UNPACKED, work)
        return Raw(got.size, got.sha256)

    made = work.spool.once("check", work.lease.attempt, Raw, make)
    _compare(made, manifest)
    work.say(f"Backup verified: decoded to {human_size(made.size)} with the manifest's own SHA-256")


def _unpack(plain: BinaryIO, folder: Path, work: Work) -> Hashed:
    """Unpack a tar of plain files, and hash it on the way to its very end."""
    folder.mkdir(mode=0o700)
    source = HashedReader(plain, work.progress)
    try:
        with tarfile.open(fileobj=cast(BinaryIO, source), mode="r|", bufsize=PIECE) as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isreg() else None
                if content is None or Path(entry.name).name != entry.name or entry.name in ("", ".", ".."):
                    raise IntegrityError(f"unable to unpack the backup: {entry.name!r} is no plain file")
                _write(folder / entry.name, cast(BinaryIO, content))
    except tarfile.TarError as error:
        raise IntegrityError(f"unable to unpack the backup: {error}") from None
    # What follows the archive's own end mark.
    while source.read(CHUNK):
        pass
    fsync_folder(folder)
    return source.hashed


def _write(path: Path, content: BinaryIO) -> None:
    # Not durable, as it need not be: an unfinished `check` is made anew, and a machine that went down lost the run.
    with path.open("xb") as sink:
        path.chmod(0o600)
        shutil.copyfileobj(content, sink, PIECE)


def _compare(made: Raw, manifest: Manifest) -> None:
    if made != manifest.raw:
        raise IntegrityError(
            f"unable to use backup {manifest.backup}: it decodes to {made.size} bytes with SHA-256 {made.sha256}, and "
            f"its manifest says {manifest.raw.size} with {manifest.raw.sha256}",
            "larder verify says which copies are good",
        )
