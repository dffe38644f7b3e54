"""upload: every store of the database gets a copy, and each copy is read back."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from larder.artifact import Artifact
from larder.manifest import Manifest
from larder.progress import human_size
from larder.stores import Store, open_store
from larder.streams import digest_file
from tasks.checksum import Papers
from tasks.step import Work, step


@step("upload")
def upload(work: Work) -> None:
    """Put the artifact, its sidecar and its manifest, in that order, into each store.

    A backup exists in a store exactly when its manifest does, so the manifest goes last.
    """
    made = work.spool.result("compress", Artifact)
    papers = work.spool.result("checksum", Papers)
    manifest = Manifest.from_bytes((work.spool.path("checksum") / papers.manifest).read_bytes())
    keys: dict[str, str] = {}
    for settings in work.settings.stores_of(work.database):
        store = open_store(settings)
        keys[store.name] = _key(work, made.content.name)
        _put_all(work, store, made, papers)

    def record(connection: sa.Connection) -> None:
        work.ledger.backups.record(connection, manifest, keys)

    work.also = record


def _put_all(work: Work, store: Store, made: Artifact, papers: Papers) -> None:
    work.say(f"Uploading backup to {store.name}: {store.location(_key(work, made.content.name))}")
    work.progress.restart(made.content.size)
    encoded, written = work.spool.path("compress"), work.spool.path("checksum")
    if made.globals is not None:
        store.put(_key(work, made.globals.name), encoded / made.globals.name, made.globals.sha256)
    store.put(_key(work, made.content.name), encoded / made.content.name, made.content.sha256, work.progress)
    for name in (papers.sidecar, papers.manifest):
        _put_paper(work, store, written / name)
    work.say(f"Backup uploaded to {store.name} successfully: {human_size(made.content.size)} read back")


def _put_paper(work: Work, store: Store, path: Path) -> None:
    store.put(_key(work, path.name), path, digest_file(path).sha256)


def _key(work: Work, name: str) -> str:
    folder = work.database.folder
    return f"{folder}/{name}" if folder else name
