"""fetch: the approved bytes, and no others, come from a store into the spool."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

from larder.catalog import LARGEST_MANIFEST
from larder.errors import IntegrityError, LarderError, NotFoundError
from larder.manifest import Manifest, digest_of
from larder.naming import manifest_name
from larder.progress import Progress, human_size
from larder.restore_request import Wanted
from larder.stores import Store, open_store
from larder.streams import Hashed, durable_file, pour
from tasks import context
from tasks.restoration import Fetched
from tasks.step import Work, step


@step("fetch", kind="restore")
def fetch(work: Work) -> None:
    """Copy the artifact and its manifest from the first store whose copy is what was approved."""
    wanted = work.ledger.requests.of_run(work.run.id).document.wanted

    def make(folder: Path) -> Fetched:
        failures: list[LarderError] = []
        for store, key in _copies(work, wanted):
            try:
                return _copy(work, store, key, wanted, folder)
            except LarderError as error:
                work.warn(f"No good copy of {wanted.backup} in {store.name}: {error.message}")
                failures.append(error)
        # One that may answer later is worth another try; a broken one is not.
        raise next((error for error in failures if error.retryable), failures[0])

    fetched = work.spool.once("fetch", work.lease.attempt, Fetched, make)
    work.say(f"Backup fetched from {fetched.store}: {fetched.artifact}, as it was approved")


def _copies(work: Work, wanted: Wanted) -> Iterator[tuple[Store, str]]:
    """Each store that has a copy, with its key there: those on this machine first, those that were damaged last."""
    known = work.ledger.backups.get(wanted.backup)
    found = [
        (copy.problem is not None, work.settings.stores[name].type != "local", name, copy.key)
        for name, copy in (known.copies.items() if known else ())
        if name in work.settings.stores
    ]
    if not found:
        raise NotFoundError(
            f"unable to find a copy of {wanted.backup} in any configured store",
            "larder list shows what there is; larder catalog rebuild takes up what the ledger does not know",
        )
    for *_, name, key in sorted(found):
        yield open_store(work.settings.store(name)), key


def _copy(work: Work, store: Store, key: str, wanted: Wanted, folder: Path) -> Fetched:
    manifest = _manifest(store, manifest_name(key), wanted)
    work.say(f"Fetching {human_size(wanted.size)} from {store.name}: {store.location(key)}")
    work.progress.restart(wanted.size)
    name = posixpath.basename(manifest.artifact.name)
    got = _pour(store, key, folder / name, work.progress)
    if (got.size, got.sha256) != (wanted.size, wanted.sha256):
        raise IntegrityError(
            f"unable to use the copy of {wanted.backup} in {store.name}: it has {got.size} bytes with SHA-256 "
            f"{got.sha256}, and {wanted.size} with {wanted.sha256} were approved",
            "larder verify says which copies are good; keep the damaged one as evidence",
        )
    with durable_file(folder / manifest_name(name)) as sink:
        sink.write(manifest.to_bytes())
    return Fetched(name, manifest_name(name), store.name)


def _pour(store: Store, key: str, target: Path, progress: Progress) -> Hashed:
    with closing(store.open(key)) as stored, durable_file(target) as sink:
        hashed = Hashed(sink, progress)
        pour(stored, cast(BinaryIO, hashed))
    return hashed


def _manifest(store: Store, key: str, wanted: Wanted) -> Manifest:
    """The manifest, which has to be the very one that was approved, by a signer who is trusted."""
    with closing(store.open(key)) as stored:
        data = stored.read(LARGEST_MANIFEST)
    manifest = Manifest.from_bytes(data)
    problem = context.trust().problem(manifest.signature.key)
    if digest_of(data) != wanted.manifest or manifest.artifact.sha256 != wanted.sha256:
        problem = "it is not the manifest that was approved"
    if problem:
        raise IntegrityError(f"unable to use the manifest of {wanted.backup} in {store.name}: {problem}")
    return manifest
