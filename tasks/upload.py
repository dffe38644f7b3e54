"""upload: one store gets its copy, which is read back. There is one such link for each store of the database."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from larder import retention, rotation
from larder.artifact import Artifact
from larder.errors import LarderError, RefusedError
from larder.ledger.runs import Step
from larder.manifest import Manifest
from larder.naming import manifest_name
from larder.progress import Progress, short_size
from larder.stores import Store, open_store
from larder.streams import digest_file
from tasks.checksum import Papers
from tasks.step import Work, step


def _goes_on_without(work: Work) -> bool:
    """Whether the run goes on although this store has no copy: others are still to be asked, or enough hold one."""
    return not _is_last(work) or len(_holding(work)) >= work.database.min_copies


@step("upload", "backup", spares=_goes_on_without)
def upload(work: Work) -> None:
    """Put the artifact, its sidecar and its manifest, in that order, into the store.

    A backup exists in a store exactly when its manifest does, so the manifest goes last. The last of a run's uploads
    sees that enough stores hold a copy; what holds stays, whatever becomes of the run.
    """
    made = work.spool.result("compress", Artifact)
    papers = work.spool.result("checksum", Papers)
    manifest = Manifest.from_bytes((work.spool.path("checksum") / papers.manifest).read_bytes())
    store = open_store(work.store)
    keep_until = retention.kept_until(rotation.policy_of(work.database), manifest.created_at)
    try:
        _see_that_it_is_there(work, store)
        _put_all(work, store, made, papers, keep_until)
    except LarderError as error:
        raise _with_count(work, error) from None

    def record(connection: sa.Connection) -> None:
        keys = {store.name: _key(work, made.content.name)}
        work.ledger.backups.record(connection, manifest, keys, verified=datetime.now(UTC))

    work.also = record
    if _is_last(work):
        _see_that_enough_hold(work)


def _see_that_it_is_there(work: Work, store: Store) -> None:
    """Refuse a store in which none of the newest copies is that the ledger knows.

    A disk that is not mounted is an empty folder, and what is written to it then is on the wrong disk.
    """
    keys = work.ledger.backups.newest_keys(store.name)
    if keys and all(store.size(manifest_name(key)) is None for key in keys):
        raise RefusedError(
            f"unable to keep a copy in '{store.name}': none of the newest backups that the ledger knows there is there",
            "see whether its disk is mounted, or the bucket is the right one; "
            f"if it was emptied on purpose: larder catalog rebuild --store {store.name}",
        )


def _put_all(work: Work, store: Store, made: Artifact, papers: Papers, keep_until: datetime | None) -> None:
    """Put every file; a store that locks what it keeps locks it for as long as rotation leaves it there for sure."""
    work.pace()
    work.say(f"Uploading backup to {store.name}: {store.location(_key(work, made.content.name))}")
    work.progress.restart(made.content.size)
    encoded, written = work.spool.path("compress"), work.spool.path("checksum")

    def put(path: Path, sha256: str, progress: Progress | None = None) -> None:
        # Whoever was away for so long that somebody else goes on with this run writes nothing any more.
        work.hold()
        store.put(_key(work, path.name), path, sha256, progress, keep_until)

    if made.globals is not None:
        put(encoded / made.globals.name, made.globals.sha256)
    put(encoded / made.content.name, made.content.sha256, work.progress)
    for name in (papers.sidecar, papers.manifest):
        put(written / name, digest_file(written / name).sha256)
    work.say(f"Backup uploaded to {store.name} successfully: {short_size(made.content.size)} verified there")


def _key(work: Work, name: str) -> str:
    folder = work.database.folder
    return f"{folder}/{name}" if folder else name


def _is_last(work: Work) -> bool:
    return work.run.uploads[-1].store == work.lease.store


def _holding(work: Work) -> list[Step]:
    """The uploads to other stores that are done."""
    return [link for link in work.run.uploads if link.state == "done" and link.store != work.lease.store]


def _with_count(work: Work, error: LarderError) -> LarderError:
    """The same error; where it fails the run for want of copies, it says which there are."""
    if _goes_on_without(work) or work.database.min_copies == 1:
        return error
    held = [link.store for link in _holding(work)]
    count = f"min_copies asks for {work.database.min_copies} copies, and {len(held)} hold"
    return type(error)(f"{error.message} ({count}{': ' if held else ''}{', '.join(held)})", error.hint)


def _see_that_enough_hold(work: Work) -> None:
    wanted, held = work.database.min_copies, len(_holding(work)) + 1
    if held < wanted:
        failed = "; ".join(
            f"{link.store}: {link.error}" for link in work.run.uploads if link.state == "failed"
        )
        raise RefusedError(
            f"unable to keep enough copies: min_copies asks for {wanted}, and {held} could be made ({failed})",
            "the copies that were made are good and stay; mend the other stores and back up again",
        )
