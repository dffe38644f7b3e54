"""The catalog: every backup that a store holds, by its manifests alone.

A backup exists in a store exactly when its manifest does. What a backup is, is read from there and never parsed from
names, so that pruning `app` cannot touch `app2`. Files that belong to no manifest are foreign: listed, never deleted.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from larder.errors import IntegrityError, LarderError, NotFoundError, RefusedError
from larder.manifest import Manifest, digest_of, sidecar_text
from larder.naming import MANIFEST_SUFFIX, manifest_name, pin_name, sidecar_name
from larder.stores import Store
from larder.trust import Trust

#: Bytes that are read of a manifest at most. One of 100,000 tables has about 8 MB.
LARGEST_MANIFEST = 1 << 26

#: Bytes that are read of a sidecar at most. It has a line of about 120 for each file.
LARGEST_SIDECAR = 1 << 16

#: How many manifests are read at once. A server takes its time for each, and hardly more for several.
READERS = 8

#: The trust of callers that have no keys at hand: nothing is said about who signed.
ANYBODY = Trust()


@dataclass(frozen=True)
class Entry:
    """One backup in one store, as its manifest tells it."""

    #: The key of the manifest.
    manifest_key: str
    #: None where it cannot be read.
    manifest: Manifest | None
    #: What is wrong with this copy, one clause each; none for a good one.
    problems: tuple[str, ...] = ()
    #: The hexadecimal SHA-256 of the manifest's bytes, as they are in the store; None where they could not be read.
    digest: str | None = None
    #: Whether somebody wants it kept, whatever the retention policy says: its pin lies beside it.
    pinned: bool = False

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
        pin = (pin_name(artifact),) if self.pinned else ()
        return (self.manifest_key, *pin, sidecar_name(artifact), *beside, artifact)


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


def read(store: Store, folder: str = "", trust: Trust = ANYBODY) -> Catalog:
    """Read every manifest below `folder`, and the sidecar that goes with it; an empty folder means the whole store.

    A manifest that cannot be read or that no trusted key signed, a sidecar that is missing or says something else, and
    an artifact that is missing or has another size than its manifest says, are problems of their entry. A store that is
    out of reach raises: nobody shall take it for an empty one.
    """
    sizes = store.sizes(folder)
    keys = [key for key in sizes if key.endswith(MANIFEST_SUFFIX)]
    with ThreadPoolExecutor(READERS, thread_name_prefix="catalog") as readers:
        # Where one raises, those that have not begun are cancelled.
        found = list(readers.map(partial(_entry, store, sizes, trust), keys))
    entries = [_with_pin(entry, sizes) for entry in found if entry is not None]
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


def _entry(store: Store, sizes: Mapping[str, int], trust: Trust, key: str) -> Entry | None:
    """The backup whose manifest is under `key`; None where it was deleted since the keys were listed."""
    try:
        data = _read(store, key, LARGEST_MANIFEST)
    except NotFoundError:
        return None
    except RefusedError as error:
        return Entry(key, None, (error.message,))
    except OSError as error:
        return Entry(key, None, (f"unable to read manifest: {_reason(error)}",))
    digest = digest_of(data)
    try:
        manifest = Manifest.from_bytes(data)
    except IntegrityError as error:
        return Entry(key, None, (error.message,), digest)
    problems = (*_problems(sizes, key, manifest), *_problems_of_papers(store, key, manifest, trust))
    if problems and store.size(key) is None:
        # It was being deleted meanwhile, and its manifest went first.
        return None
    return Entry(key, manifest, problems, digest)


def _with_pin(entry: Entry, sizes: Mapping[str, int]) -> Entry:
    return replace(entry, pinned=pin_name(entry.artifact_key) in sizes)


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


def _problems_of_papers(store: Store, key: str, manifest: Manifest, trust: Trust) -> Iterator[str]:
    """What is wrong with the manifest's signer, and with the sidecar."""
    if (problem := trust.problem(manifest.signature.key)) is not None:
        yield problem
    sidecar = posixpath.join(posixpath.dirname(key), sidecar_name(manifest.artifact.name))
    try:
        # To the letter: `sha256sum -c` reads over several kinds of damage.
        if _read(store, sidecar, LARGEST_SIDECAR) != sidecar_text(manifest).encode():
            yield "its sidecar does not agree with its manifest"
    except NotFoundError:
        yield "its sidecar is missing"
    except RefusedError as error:
        yield f"its sidecar cannot be read: {error.message}"
    except OSError as error:
        yield f"its sidecar cannot be read: {_reason(error)}"


def _read(store: Store, key: str, most: int) -> bytes:
    with store.open(key) as source:
        return source.read(most)


def _reason(error: OSError) -> str:
    return str(error.strerror or error).lower()


def _order(entry: Entry) -> tuple[str, str]:
    return (entry.manifest.created if entry.manifest else "", entry.backup)
