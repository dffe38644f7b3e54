"""The catalog: every backup that a store holds, by its manifests alone.

A backup exists in a store exactly when its manifest does. What a backup is, is read from there and never parsed from
names, so that pruning `app` cannot touch `app2`. Files that belong to no manifest are foreign: listed, never deleted.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from larder.errors import IntegrityError, LarderError, NotFoundError, RefusedError
from larder.manifest import Manifest
from larder.naming import MANIFEST_SUFFIX, manifest_name, sidecar_name
from larder.stores import Store

#: Bytes that are read of a manifest at most. One of 100,000 tables has about 8 MB.
LARGEST_MANIFEST = 1 << 26


@dataclass(frozen=True)
class Entry:
    """One backup in one store, as its manifest tells it."""

    #: The key of the manifest.
    manifest_key: str
    #: None where it cannot be read.
    manifest: Manifest | None
    #: What is wrong with this copy, one clause each; none for a good one.
    problems: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The folder that manifest and artifact lie in; empty at the top of the store."""
        return posixpath.dirname(self.manifest_key)

    @property
    def backup(self) -> str:
        """The backup's id; the manifest's key where that cannot be read."""
        return self.manifest.backup if self.manifest else self.manifest_key

    @property
    def good(self) -> bool:
        """Whether nothing is known to be wrong. The bytes themselves have not been read."""
        return self.manifest is not None and not self.problems

    @property
    def artifact_key(self) -> str:
        """The key of the artifact."""
        if self.manifest is None:
            return self.manifest_key.removesuffix(MANIFEST_SUFFIX)
        return posixpath.join(self.folder, self.manifest.artifact.name)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of everything that belongs to this backup, in the order that it is deleted in."""
        artifact = self.artifact_key
        if manifest_name(artifact) != self.manifest_key:
            # A manifest under another name than its own owns nothing: the artifact may be another's.
            return (self.manifest_key,)
        globals_ = self.manifest.globals if self.manifest else None
        beside = (posixpath.join(self.folder, globals_.name),) if globals_ else ()
        return (self.manifest_key, sidecar_name(artifact), *beside, artifact)


@dataclass(frozen=True)
class Catalog:
    """What lies below one folder of a store."""

    folder: str
    #: By time, then by id; those that cannot be read come first.
    backups: tuple[Entry, ...]
    #: Keys of files that belong to no manifest, sorted.
    foreign: tuple[str, ...]

    def of(self, database: str) -> list[Entry]:
        """The entries in this very folder that are the database's, and those that cannot be read.

        An entry that cannot be read is nobody else's either: where every database has its folder, it was this one's.
        """
        return [
            entry
            for entry in self.backups
            if entry.folder == self.folder and (entry.manifest is None or entry.manifest.database == database)
        ]


def read(store: Store, folder: str = "") -> Catalog:
    """Read every manifest below `folder`; an empty one means the whole store.

    A manifest that cannot be read, and an artifact that is missing or has another size than its manifest says, are
    problems of their entry. A store that is out of reach raises: nobody shall take it for an empty one.
    """
    sizes = store.sizes(folder)
    entries = list(_entries(store, sizes))
    claimed = {key for entry in entries for key in entry.keys}
    return Catalog(folder, tuple(sorted(entries, key=_order)), tuple(sorted(sizes.keys() - claimed)))


def remove(store: Store, entry: Entry) -> None:
    """Delete a backup from its store: manifest first, artifact last, and see that all of it is gone.

    Raises what the store raises. Done twice is fine.
    """
    for key in entry.keys:
        store.delete(key)
    left = [key for key in entry.keys if store.size(key) is not None]
    if left:
        raise LarderError(
            f"unable to delete backup '{entry.backup}' from {store.name}: {', '.join(left)} is still there",
            "see whether the store keeps deleted files, or somebody put them back",
        )


def _entries(store: Store, sizes: Mapping[str, int]) -> Iterator[Entry]:
    for key in sizes:
        if not key.endswith(MANIFEST_SUFFIX):
            continue
        try:
            with store.open(key) as source:
                manifest = Manifest.from_bytes(source.read(LARGEST_MANIFEST))
        except NotFoundError:
            # Deleted since the keys were listed.
            continue
        except (IntegrityError, RefusedError) as error:
            yield Entry(key, None, (error.message,))
            continue
        except OSError as error:
            yield Entry(key, None, (f"unable to read manifest: {error.strerror or error}".lower(),))
            continue
        yield Entry(key, manifest, tuple(_problems(sizes, key, manifest)))


def _problems(sizes: Mapping[str, int], key: str, manifest: Manifest) -> Iterator[str]:
    folder, name = posixpath.split(key)
    if name != manifest_name(manifest.artifact.name):
        yield f"its manifest lies under the name {name}"
    for file in manifest.files:
        size = sizes.get(posixpath.join(folder, file.name))
        if size is None:
            yield f"{file.name} is missing"
        elif size != file.size:
            yield f"{file.name} has {size} bytes, and its manifest says {file.size}"


def _order(entry: Entry) -> tuple[str, str]:
    return (entry.manifest.created if entry.manifest else "", entry.backup)
