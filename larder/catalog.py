"""The catalog: every backup that a store holds, by its manifests alone.

A backup exists in a store exactly when its manifest does. What a backup is, is read from there and never parsed from
names, so that pruning `app` cannot touch `app2`. Files that belong to no manifest are foreign: listed, never deleted.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from larder.errors import IntegrityError, LarderError, NotFoundError, RefusedError
from larder.manifest import Manifest, digest_of, sidecar_text
from larder.naming import MANIFEST_SUFFIX, artifact_name, globals_name, manifest_name, pin_name, sidecar_name
from larder.stores import Store
from larder.trust import Trust

#: Bytes that are read of a manifest at most. One of 100,000 tables has about 8 MB.
LARGEST_MANIFEST = 1 << 26

#: Bytes that are read of a sidecar at most. It has a line of about 120 for each file.
LARGEST_SIDECAR = 1 << 16

#: How many manifests are read at once. A server takes its time for each, and hardly more for several.
READERS = 8

#: Seconds for one, from which on several readers are worth it: on a disk at hand, they are in each other's way.
SLOW = 0.005

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
    #: Whether its manifest can be read, and nothing is wrong with who signed it. What another says is not acted on.
    trusted: bool = False
    #: Whether its very bytes are known to be wrong: a file is missing, or of another size than a trusted manifest says.
    damaged: bool = False

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
    def beside(self) -> tuple[str, ...]:
        """The keys that its files have by its name, in the order that they are deleted in, whoever put them there."""
        artifact = self.artifact_key
        if manifest_name(artifact) != self.manifest_key:
            # A manifest under another name than its own owns nothing: the artifact may be another's.
            return ()
        globals_ = self.manifest.globals if self.manifest and _names_its_globals(self.manifest) else None
        own = (posixpath.join(self.folder, globals_.name),) if globals_ else ()
        pin = (pin_name(artifact),) if self.pinned else ()
        return (*pin, sidecar_name(artifact), *own, artifact)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of everything that belongs to this backup, in the order that it is deleted in.

        Anybody can write a manifest that names the files of others: one that is not trusted owns itself alone.
        """
        return (self.manifest_key, *self.beside) if self.trusted else (self.manifest_key,)


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
    found = _all(partial(_entry, store, sizes, trust), keys)
    entries = [_with_pin(entry, sizes) for entry in found if entry is not None]
    claimed = {key for entry in entries for key in (entry.manifest_key, *entry.beside)}
    return Catalog(folder, tuple(sorted(entries, key=_order)), tuple(sorted(sizes.keys() - claimed)))


def _all(reader: Callable[[str], Entry | None], keys: Iterable[str]) -> Iterator[Entry | None]:
    """What `reader` makes of each key: one after the other, until one takes its time."""
    left = iter(keys)
    for key in left:
        began = time.monotonic()
        yield reader(key)
        if time.monotonic() - began > SLOW:
            break
    with ThreadPoolExecutor(READERS, thread_name_prefix="catalog") as readers:
        # Where one raises, those that have not begun are cancelled.
        yield from readers.map(reader, left)


def read_named(store: Store, key: str, trust: Trust, backup: str, digest: str | None) -> Manifest:
    """The manifest under `key`, which has to be the very one of `backup`, by a signer who is trusted.

    `digest` is the hexadecimal SHA-256 of its bytes; None where nobody has written it down. Raises `IntegrityError`.
    """
    data = _read(store, key, LARGEST_MANIFEST)
    manifest = Manifest.from_bytes(data)
    problem = trust.problem(manifest.signature.key)
    if digest is not None and digest_of(data) != digest:
        problem = "it is not the manifest that is wanted"
    if problem:
        raise IntegrityError(f"unable to use the manifest of {backup} in {store.name}: {problem}")
    return manifest


def remove(store: Store, entry: Entry, spared: Collection[str] = ()) -> None:
    """Delete a backup from its store: manifest first, artifact last, and see that all of it is gone.

    `spared` are keys that another backup claims, and that are left. Raises what the store raises. Done twice is fine.
    """
    keys = [key for key in entry.keys if key not in spared]
    for key in keys:
        store.delete(key)
    left = [key for key in keys if store.size(key) is not None]
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
    stranger, misnamed = trust.problem(manifest.signature.key), _misnamed(key, manifest)
    names = (*misnamed, *_misnamed_globals(manifest))
    damages = tuple(_damages(sizes, key, manifest))
    papers = tuple(_problems_of_sidecar(store, key, manifest))
    problems = ((stranger,) if stranger else ()) + names + damages + papers
    if problems and store.size(key) is None:
        # It was being deleted meanwhile, and its manifest went first.
        return None
    trusted = stranger is None
    damaged = bool(damages) and trusted and not misnamed
    return Entry(key, manifest, problems, digest, trusted=trusted, damaged=damaged)


def _with_pin(entry: Entry, sizes: Mapping[str, int]) -> Entry:
    return replace(entry, pinned=pin_name(entry.artifact_key) in sizes)


def _misnamed(key: str, manifest: Manifest) -> list[str]:
    name = posixpath.basename(key)
    wanted = manifest_name(manifest.artifact.name)
    return [] if name == wanted else [f"its manifest lies under the name {name}"]


def _misnamed_globals(manifest: Manifest) -> Iterator[str]:
    if manifest.globals is not None and not _names_its_globals(manifest):
        yield f"its globals are called {manifest.globals.name}"


def _names_its_globals(manifest: Manifest) -> bool:
    """Whether the globals, if there are any, have the name that goes with the artifact's, and no other file's."""
    if manifest.globals is None:
        return True
    artifact, engine = manifest.artifact.name, manifest.engine
    stem, dot, rest = artifact.partition(".")
    stamp, codec = stem.removeprefix(f"backup_{engine}_"), (dot + rest).removeprefix(manifest.suffix)
    return (
        artifact_name(engine, stamp, manifest.suffix, codec) == artifact
        and globals_name(engine, stamp, codec) == manifest.globals.name
    )


def _damages(sizes: Mapping[str, int], key: str, manifest: Manifest) -> Iterator[str]:
    folder = posixpath.dirname(key)
    # What is called otherwise may be another's, whose size is nothing to this one.
    files = manifest.files if _names_its_globals(manifest) else (manifest.artifact,)
    for file in files:
        size = sizes.get(posixpath.join(folder, file.name))
        if size is None:
            yield f"{file.name} is missing"
        elif size != file.size:
            yield f"{file.name} has {size} bytes, and its manifest says {file.size}"


def _problems_of_sidecar(store: Store, key: str, manifest: Manifest) -> Iterator[str]:
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
