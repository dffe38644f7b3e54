"""fetch: the wanted bytes, and no others, come from a store into the spool."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

from larder.catalog import read_named
from larder.errors import IntegrityError, LarderError, NotFoundError
from larder.naming import manifest_name
from larder.progress import Progress, human_size
from larder.stores import Store, open_store
from larder.streams import Hashed, durable_file, pour
from tasks import context
from tasks.restoration import Bound, Fetched, bound
from tasks.step import Work, step


@step("fetch", "restore", "drill")
def fetch(work: Work) -> None:
    """Copy the artifact and its manifest from the first store whose copy is what is wanted.

    A drill begins with the store that was chosen for it, a restore with one on this machine.
    """
    wanted = bound(work)

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
    approved = ", as it was approved" if work.run.kind == "restore" else ""
    work.say(f"Backup fetched from {fetched.store}: {fetched.artifact}{approved}")


def _copies(work: Work, wanted: Bound) -> Iterator[tuple[Store, str]]:
    """Each store that has a copy, with its key there: the chosen one, then those on this machine; damaged ones last."""
    known = work.ledger.backups.get(wanted.backup)
    chosen = work.ledger.drills.get(work.run.id).store if work.run.kind == "drill" else None
    found = [
        (copy.problem is not None, name != chosen, work.settings.stores[name].type != "local", name, copy.key)
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


def _copy(work: Work, store: Store, key: str, wanted: Bound, folder: Path) -> Fetched:
    manifest = read_named(store, manifest_name(key), context.trust(), wanted.backup, wanted.manifest)
    if manifest.artifact.sha256 != wanted.sha256:
        raise IntegrityError(
            f"unable to use the manifest of {wanted.backup} in {store.name}: it tells of other bytes than are wanted"
        )
    work.say(f"Fetching {human_size(wanted.size)} from {store.name}: {store.location(key)}")
    work.progress.restart(wanted.size)
    name = posixpath.basename(manifest.artifact.name)
    got = _pour(store, key, folder / name, work.progress)
    if (got.size, got.sha256) != (wanted.size, wanted.sha256):
        expected = f"{wanted.size} with {wanted.sha256} are wanted"
        problem = f"it has {got.size} bytes with SHA-256 {got.sha256}, and {expected}"
        # It was read to its end, and whoever looks at the backup next should know. Whom this host trusts says nothing.
        work.ledger.backups.checked(wanted.backup, store.name, problem)
        raise IntegrityError(
            f"unable to use the copy of {wanted.backup} in {store.name}: {problem}",
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
