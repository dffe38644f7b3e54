"""Pins: a small file beside the artifact says that its backup is to be kept, whatever the retention policy says.

It lies in the store, so that it survives the loss of the ledger; and it is no part of the manifest, which never
changes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from larder.catalog import Entry
from larder.errors import IntegrityError, NotFoundError
from larder.naming import pin_name
from larder.stores import Store


def pin(store: Store, entry: Entry, now: datetime) -> None:
    """Have the backup kept in `store`. Pinning twice is fine; raises `NotFoundError` where it was deleted meanwhile."""
    pin_artifact(store, entry.artifact_key, entry.manifest_key, now)


def pin_artifact(store: Store, artifact: str, manifest: str, now: datetime) -> None:
    """The same, for a backup whose artifact and manifest are known to have these keys."""
    key = pin_name(artifact)
    if store.size(key) is None:
        _put(store, key, now)
    if store.size(manifest) is None:
        store.delete(key)
        raise NotFoundError(f"unable to pin {artifact}: its backup has just been deleted from {store.name}")


def unpin(store: Store, entry: Entry) -> None:
    """Leave the backup in `store` to the retention policy again. One that is not pinned is fine."""
    unpin_artifact(store, entry.artifact_key)


def unpin_artifact(store: Store, artifact: str) -> None:
    """The same, for the backup whose artifact has this key."""
    key = pin_name(artifact)
    if store.size(key) is not None:
        store.delete(key)


def _put(store: Store, key: str, now: datetime) -> None:
    text = json.dumps({"pinned": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}) + "\n"
    with tempfile.TemporaryDirectory(prefix="larder-") as folder:
        source = Path(folder) / "pin"
        source.write_text(text)
        try:
            store.put(key, source, hashlib.sha256(text.encode()).hexdigest())
        except IntegrityError:
            # Somebody else was faster, at another second: it is pinned.
            if store.size(key) is None:
                raise
