"""The catalog: what manifests say, on a real folder."""

from __future__ import annotations

import hashlib
import io
import random
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from larder import catalog
from larder.errors import LarderError, NotFoundError, RefusedError, UnreachableError
from larder.manifest import Content, File, Manifest, sidecar_text
from larder.naming import artifact_name, backup_id, globals_name, manifest_name, sidecar_name
from larder.signing import Signer
from larder.stores.local import Local
from larder.trust import Trust

STAMP = "20251016_020000"
SIGNER = Signer(Ed25519PrivateKey.generate())


@pytest.fixture
def store(tmp_path: Path) -> Local:
    return Local("nas", tmp_path)


def manifest_at(
    database: str, stamp: str, content: bytes = b"content", roles: bytes | None = None
) -> Manifest:
    """A manifest of `content`, for a backup taken at `stamp`."""
    name = artifact_name("postgres", stamp, ".sql", ".gz")
    created = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T{stamp[9:11]}:{stamp[11:13]}:{stamp[13:]}Z"
    beside = None
    if roles is not None:
        beside = File(globals_name("postgres", stamp, ".gz"), len(roles), hashlib.sha256(roles).hexdigest())
    return Manifest(
        backup=backup_id(database, stamp),
        database=database,
        engine="postgres",
        created=created,
        artifact=File(name, len(content), hashlib.sha256(content).hexdigest()),
        raw=Content(1, "0" * 64),
        encoding=("gzip",),
        form="file",
        suffix=".sql",
        server_version="16.4",
        tool="pg_dump 16.4",
        fingerprint={"row_counts": "off", "tables": {}},
        run="r1",
        host="here",
        larder="0.1.0",
        globals=beside,
        globals_raw=Content(1, "0" * 64) if beside else None,
    ).signed(SIGNER)


def keep(
    folder: Path, database: str, stamp: str = STAMP, content: bytes = b"content", roles: bytes | None = None
) -> Manifest:
    """Lay a whole backup into `folder`."""
    manifest = manifest_at(database, stamp, content, roles)
    name = manifest.artifact.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    if manifest.globals and roles is not None:
        (folder / manifest.globals.name).write_bytes(roles)
    (folder / sidecar_name(name)).write_text(sidecar_text(manifest))
    (folder / manifest_name(name)).write_bytes(manifest.to_bytes())
    return manifest


def test_an_empty_store_has_an_empty_catalog(store: Local) -> None:
    assert catalog.read(store) == catalog.Catalog("", (), ())
    assert catalog.read(store, "shop") == catalog.Catalog("shop", (), ())


def test_a_backup_is_what_its_manifest_says(store: Local, tmp_path: Path) -> None:
    manifest = keep(tmp_path / "shop", "shop", roles=b"roles")
    found = catalog.read(store, "shop")
    (entry,) = found.of("shop")
    assert entry.manifest == manifest
    assert entry.digest == manifest.digest
    assert (entry.good, entry.backup, entry.folder) == (True, f"shop/{STAMP}", "shop")
    assert entry.artifact_key == f"shop/backup_postgres_{STAMP}.sql.gz"
    assert entry.keys == (
        f"shop/backup_postgres_{STAMP}.sql.gz.manifest.json",
        f"shop/backup_postgres_{STAMP}.sql.gz.sha256",
        f"shop/backup_postgres_{STAMP}.globals.sql.gz",
        f"shop/backup_postgres_{STAMP}.sql.gz",
    )
    assert found.foreign == ()


def test_an_artifact_without_a_manifest_is_no_backup(store: Local, tmp_path: Path) -> None:
    name = keep(tmp_path / "shop", "shop").artifact.name
    (tmp_path / "shop" / manifest_name(name)).unlink()
    (tmp_path / "shop" / "notes.txt").touch()
    found = catalog.read(store, "shop")
    assert found.backups == ()
    assert found.foreign == (f"shop/{name}", f"shop/{name}.sha256", "shop/notes.txt")


def test_names_that_begin_alike_are_not_mixed_up(store: Local, tmp_path: Path) -> None:
    for name in ("app", "app2", "app_2"):
        keep(tmp_path / name, name)
    # Two databases of one folder, which nobody configures and somebody may copy together.
    keep(tmp_path / "app", "app2", "20251017_020000")
    assert [entry.backup for entry in catalog.read(store, "app").of("app")] == [f"app/{STAMP}"]
    assert [entry.folder for entry in catalog.read(store, "app2").of("app2")] == ["app2"]
    assert len(catalog.read(store).backups) == 4


def test_the_only_database_lies_at_the_top_and_others_may_lie_below(store: Local, tmp_path: Path) -> None:
    keep(tmp_path, "shop")
    keep(tmp_path / "shop", "shop", "20251017_020000")
    keep(tmp_path / "other", "other")
    (tmp_path / ".larder").mkdir()
    (tmp_path / ".larder" / "ledger.sqlite3").touch()
    found = catalog.read(store)
    assert [entry.backup for entry in found.of("shop")] == [f"shop/{STAMP}"]
    assert len(found.backups) == 3
    assert found.foreign == ()


def test_entries_come_by_time(store: Local, tmp_path: Path) -> None:
    for stamp in ("20251016_020000", "20240101_000000", "20251016_015959"):
        keep(tmp_path, "shop", stamp)
    stamps = [entry.backup.partition("/")[2] for entry in catalog.read(store).of("shop")]
    assert stamps == ["20240101_000000", "20251016_015959", "20251016_020000"]


def problems(store: Local) -> list[str]:
    (entry,) = catalog.read(store, "shop").of("shop")
    assert not entry.good
    return list(entry.problems)


def test_what_is_wrong_is_told(store: Local, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    manifest = keep(folder, "shop", roles=b"roles")
    assert manifest.globals is not None
    artifact = folder / manifest.artifact.name
    artifact.write_bytes(b"cont")
    assert problems(store) == [f"{artifact.name} has 4 bytes, and its manifest says 7"]
    artifact.unlink()
    (folder / manifest.globals.name).unlink()
    assert problems(store) == [f"{artifact.name} is missing", f"{manifest.globals.name} is missing"]
    artifact.mkdir()
    assert problems(store)[0] == f"{artifact.name} is missing"


def test_only_bytes_that_are_known_to_be_wrong_are_damage(store: Local, tmp_path: Path) -> None:
    folder = tmp_path / "shop"

    def damaged(trust: Trust = catalog.ANYBODY) -> bool:
        (entry,) = catalog.read(store, "shop", trust).of("shop")
        assert not entry.good
        return entry.damaged

    manifest = keep(folder, "shop", roles=b"roles")
    artifact = folder / manifest.artifact.name
    for file in manifest.files:
        for content in (b"", b"more than there was", None):
            path = folder / file.name
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            assert damaged()
            # Sizes that a stranger vouches for say nothing.
            assert not damaged(Trust(known=["another"]))
            keep(folder, "shop", roles=b"roles")
    sidecar = folder / sidecar_name(artifact.name)
    sidecar.write_text("other")
    assert not damaged()
    sidecar.unlink()
    assert not damaged()
    artifact.unlink()
    assert damaged()
    keep(folder, "shop", roles=b"roles")
    path = folder / manifest_name(artifact.name)
    path.rename(folder / "copy.manifest.json")
    artifact.unlink()
    assert not damaged()
    (folder / "copy.manifest.json").write_text("{")
    assert not damaged()


def test_a_missing_sidecar_is_told(store: Local, tmp_path: Path) -> None:
    manifest = keep(tmp_path / "shop", "shop")
    (tmp_path / "shop" / sidecar_name(manifest.artifact.name)).unlink()
    assert problems(store) == ["its sidecar is missing"]
    (entry,) = catalog.read(store, "shop").of("shop")
    catalog.remove(store, entry)
    assert store.sizes() == {}


def test_every_single_bit_that_is_flipped_in_a_sidecar_is_found(store: Local, tmp_path: Path) -> None:
    manifest = keep(tmp_path / "shop", "shop")
    path = tmp_path / "shop" / sidecar_name(manifest.artifact.name)
    data = path.read_bytes()
    for place in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert problems(store) == ["its sidecar does not agree with its manifest"]
    for other in (b"", data + b"\n", data[: len(data) // 2], data * 1000):
        path.write_bytes(other)
        assert problems(store) == ["its sidecar does not agree with its manifest"]


def test_a_bit_that_is_flipped_in_a_manifest_is_found(store: Local, tmp_path: Path) -> None:
    manifest = keep(tmp_path / "shop", "shop")
    path = tmp_path / "shop" / manifest_name(manifest.artifact.name)
    data = path.read_bytes()
    for place in random.Random(5).sample(range(len(data) * 8), 200):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        (entry,) = catalog.read(store, "shop").of("shop")
        assert entry.problems[0].startswith("unable to read manifest: ")
        assert entry.digest == hashlib.sha256(flipped).hexdigest()


def test_a_signer_that_is_not_trusted_is_told(store: Local, tmp_path: Path) -> None:
    keep(tmp_path / "shop", "shop")
    stranger = Signer(Ed25519PrivateKey.generate()).public_key
    (entry,) = catalog.read(store, "shop", Trust({"web1": stranger})).of("shop")
    assert entry.manifest is not None
    assert not entry.good
    assert not entry.trusted
    (problem,) = entry.problems
    assert problem.startswith("it is signed by the unknown key ")
    assert problem.endswith("(configured are: web1)")
    for trust in (
        Trust({"web1": stranger, "web2": SIGNER.public_key}),
        Trust(known=[SIGNER.public_key]),
        Trust(),
    ):
        (entry,) = catalog.read(store, "shop", trust).of("shop")
        assert entry.good
        assert entry.trusted


def test_what_a_stranger_signed_owns_its_manifest_alone(store: Local, tmp_path: Path) -> None:
    keep(tmp_path / "shop", "shop", roles=b"roles")
    (tmp_path / "shop" / f"backup_postgres_{STAMP}.sql.gz.pin").touch()
    found = catalog.read(store, "shop", Trust(known=["another"]))
    (entry,) = found.of("shop")
    assert entry.keys == (entry.manifest_key,)
    # It is somebody's backup all the same, and no file that belongs to no manifest.
    assert found.foreign == ()
    catalog.remove(store, entry)
    assert len(store.sizes()) == 4


@pytest.mark.parametrize(
    "name",
    [
        "backup_postgres_20251015_020000.sql.gz",
        "backup_postgres_20251015_020000.globals.sql.gz",
        "backup_postgres_20251016_020000.globals.sql",
        "backup_postgres_20251016_020000.globals.sql.zst",
        "backup_sqlite_20251016_020000.globals.sql.gz",
        "backup_postgres_20251016_020000.sql.gz",
    ],
)
def test_globals_of_another_name_than_the_artifacts_are_not_its_own(
    store: Local, tmp_path: Path, name: str
) -> None:
    """Whoever may sign, a backup takes away no file that could be another's."""
    folder = tmp_path / "shop"
    other = keep(folder, "shop", "20251015_020000", roles=b"roles")
    manifest = keep(folder, "shop", roles=b"roles")
    assert manifest.globals
    evil = replace(manifest, globals=replace(manifest.globals, name=name)).signed(SIGNER)
    (folder / manifest_name(manifest.artifact.name)).write_bytes(evil.to_bytes())
    (folder / sidecar_name(manifest.artifact.name)).write_text(sidecar_text(evil))
    good, wrong = catalog.read(store, "shop").of("shop")
    assert wrong.problems == (f"its globals are called {name}",)
    assert not wrong.damaged
    assert f"shop/{name}" not in wrong.keys or name == manifest.artifact.name
    catalog.remove(store, wrong)
    (left,) = catalog.read(store, "shop").of("shop")
    assert left == good
    assert {f"shop/{file.name}" for file in other.files} <= store.sizes().keys()


@pytest.mark.parametrize("suffix", [".sql", ".sql.zst", ".dir.tar.age", ".sql.gz.age"])
def test_globals_are_called_as_the_artifact_is(store: Local, tmp_path: Path, suffix: str) -> None:
    manifest = keep(tmp_path / "shop", "shop", roles=b"roles")
    form = ".dir.tar" if suffix.startswith(".dir.tar") else ".sql"
    codec = suffix.removeprefix(form)
    assert manifest.globals
    renamed = replace(
        manifest,
        suffix=form,
        artifact=replace(manifest.artifact, name=artifact_name("postgres", STAMP, form, codec)),
        globals=replace(manifest.globals, name=globals_name("postgres", STAMP, codec)),
    ).signed(SIGNER)
    folder = tmp_path / "shop"
    name = renamed.artifact.name
    (folder / manifest.artifact.name).rename(folder / name)
    assert renamed.globals
    (folder / manifest.globals.name).rename(folder / renamed.globals.name)
    (folder / sidecar_name(name)).write_text(sidecar_text(renamed))
    (folder / manifest_name(manifest.artifact.name)).unlink()
    (folder / manifest_name(name)).write_bytes(renamed.to_bytes())
    (entry,) = catalog.read(store, "shop").of("shop")
    assert entry.problems == ()
    assert f"shop/{renamed.globals.name}" in entry.keys


def test_what_another_claims_is_spared(store: Local, tmp_path: Path) -> None:
    manifest = keep(tmp_path / "shop", "shop", roles=b"roles")
    assert manifest.globals
    found = catalog.read(store, "shop")
    (entry,) = found.of("shop")
    shared = f"shop/{manifest.globals.name}"
    catalog.remove(store, entry, spared={shared})
    assert list(store.sizes()) == [shared]


@pytest.mark.parametrize("text", ["", "{", "null", '{"format": "larder-manifest/9"}'])
def test_a_manifest_that_cannot_be_read_is_a_problem(store: Local, tmp_path: Path, text: str) -> None:
    keep(tmp_path / "shop", "shop", "20251015_020000")
    manifest = keep(tmp_path / "shop", "shop")
    path = tmp_path / "shop" / manifest_name(manifest.artifact.name)
    path.write_text(text)
    found = catalog.read(store, "shop")
    broken, good = found.of("shop")
    assert good.good
    assert (broken.manifest, broken.good, broken.backup) == (None, False, f"shop/{path.name}")
    assert broken.problems[0].startswith("unable to read manifest: ")
    # What lies beside it is its own as far as anybody can tell, and no stranger's.
    assert found.foreign == ()


def test_a_manifest_under_another_name_owns_nothing(store: Local, tmp_path: Path) -> None:
    manifest = keep(tmp_path / "shop", "shop")
    copy = tmp_path / "shop" / "copy.manifest.json"
    copy.write_bytes(manifest.to_bytes())
    entries = catalog.read(store, "shop").of("shop")
    assert sorted(entry.good for entry in entries) == [False, True]
    (wrong,) = (entry for entry in entries if not entry.good)
    assert wrong.problems == ("its manifest lies under the name copy.manifest.json",)
    catalog.remove(store, wrong)
    (left,) = catalog.read(store, "shop").of("shop")
    assert left.good


class Slow(Local):
    """A store whose first answer takes its time, and whose further ones wait until `together` are under way."""

    def __init__(self, folder: Path, together: int) -> None:
        super().__init__("nas", folder)
        self.barrier = threading.Barrier(together, timeout=30)
        self.asked_by: list[str] = []

    def open(self, key: str) -> BinaryIO:
        if key.endswith(".json"):
            self.asked_by.append(threading.current_thread().name)
            if len(self.asked_by) == 1:
                time.sleep(0.01)
            else:
                self.barrier.wait()
        return super().open(key)


def test_several_manifests_are_read_at_once_and_their_order_stays(tmp_path: Path) -> None:
    for day in range(10, 11 + 2 * catalog.READERS):
        keep(tmp_path / "shop", "shop", f"202510{day}_020000")
    at_once = catalog.read(Slow(tmp_path, catalog.READERS), "shop")
    assert at_once == catalog.read(Slow(tmp_path, 1), "shop")
    ids = [entry.backup for entry in at_once.backups]
    assert ids == sorted(ids)


def test_a_store_that_answers_at_once_has_one_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(10, 15):
        keep(tmp_path / "shop", "shop", f"202510{day}_020000")
    # Not even a machine that is busy is that slow.
    monkeypatch.setattr(catalog, "SLOW", 30)
    store = Slow(tmp_path, 1)
    catalog.read(store, "shop")
    assert store.asked_by == [threading.current_thread().name] * 5


class Failing(Local):
    """A store in which the files that end in `suffix` cannot be opened."""

    def __init__(self, folder: Path, suffix: str, error: Exception) -> None:
        super().__init__("nas", folder)
        self.suffix = suffix
        self.error = error
        self.asked = 0

    def open(self, key: str) -> BinaryIO:
        if key.endswith(self.suffix):
            self.asked += 1
            time.sleep(0.02)
            raise self.error
        return super().open(key)


@pytest.mark.parametrize("suffix", [".json", ".sha256"])
def test_a_store_that_stops_to_answer_raises_and_is_not_asked_for_the_rest(
    tmp_path: Path, suffix: str
) -> None:
    for number in range(200):
        keep(tmp_path / "shop", "shop", f"20251016_02{number // 60:02}{number % 60:02}")
    store = Failing(tmp_path, suffix, UnreachableError("unable to reach nas"))
    with pytest.raises(UnreachableError, match="unable to reach nas"):
        catalog.read(store, "shop")
    assert store.asked < 100


@pytest.mark.parametrize(
    ("suffix", "error", "problem"),
    [
        (".json", RefusedError("unable to read x: no permission"), "unable to read x: no permission"),
        (".json", OSError(5, "Input/output error"), "unable to read manifest: input/output error"),
        (".sha256", RefusedError("unable to read x"), "its sidecar cannot be read: unable to read x"),
        (".sha256", OSError(5, "Input/output error"), "its sidecar cannot be read: input/output error"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(
    tmp_path: Path, suffix: str, error: Exception, problem: str
) -> None:
    keep(tmp_path / "shop", "shop")
    assert problems(Failing(tmp_path, suffix, error)) == [problem]


class Vanishing(Local):
    """A store from which a backup is deleted while it is read: its manifest has been, its sidecar has not."""

    def open(self, key: str) -> BinaryIO:
        if key.endswith(".sha256"):
            raise NotFoundError("gone")
        with super().open(key) as source:
            data = source.read()
        self.delete(key)
        return io.BytesIO(data)


def test_a_backup_that_is_deleted_meanwhile_is_none(tmp_path: Path) -> None:
    keep(tmp_path / "shop", "shop")
    assert catalog.read(Vanishing("nas", tmp_path), "shop").backups == ()


class Watched(Local):
    """Remembers the order of deletions, and breaks off where it is told to."""

    def __init__(self, folder: Path, most: int = 100) -> None:
        super().__init__("nas", folder)
        self.deleted: list[str] = []
        self.most = most

    def delete(self, key: str) -> None:
        if len(self.deleted) == self.most:
            raise RefusedError("unable to delete: stopped")
        self.deleted.append(key.rpartition(".")[2])
        super().delete(key)


def test_a_backup_goes_manifest_first_and_artifact_last(tmp_path: Path) -> None:
    store = Watched(tmp_path)
    keep(tmp_path / "shop", "shop", roles=b"roles")
    keep(tmp_path / "shop", "shop", "20251017_020000")
    old, new = catalog.read(store, "shop").of("shop")
    catalog.remove(store, old)
    assert store.deleted == ["json", "sha256", "gz", "gz"]
    assert catalog.read(store, "shop").backups == (new,)
    assert catalog.read(store, "shop").foreign == ()
    catalog.remove(store, old)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_deletion_that_is_cut_short_leaves_no_backup_that_is_not_whole(tmp_path: Path, most: int) -> None:
    store = Watched(tmp_path, most)
    keep(tmp_path / "shop", "shop", roles=b"roles")
    (entry,) = catalog.read(store, "shop").of("shop")
    with pytest.raises(RefusedError):
        catalog.remove(store, entry)
    assert catalog.read(store, "shop").backups == ()


class Keeper(Local):
    """A store that says yes to a deletion and keeps the file, as one with object lock does."""

    def delete(self, key: str) -> None:
        if not key.endswith(".gz"):
            super().delete(key)


def test_a_store_that_does_not_delete_is_found_out(tmp_path: Path) -> None:
    store = Keeper("nas", tmp_path)
    manifest = keep(tmp_path / "shop", "shop")
    (entry,) = catalog.read(store, "shop").of("shop")
    with pytest.raises(
        LarderError, match=f"unable to delete backup 'shop/{STAMP}' .*{manifest.artifact.name} is still"
    ):
        catalog.remove(store, entry)


def test_a_store_out_of_reach_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RefusedError):
        catalog.read(Local("nas", tmp_path / "file"))


def test_time_grows_as_the_number_of_files_does(store: Local, tmp_path: Path) -> None:
    """Some hundred backups and ten times as many strangers take about what their files take to be read."""
    template = keep(tmp_path / "shop", "shop").to_dict()
    for n in range(300):
        name = f"backup_postgres_{n}.sql.gz"
        manifest = replace(
            manifest_at("shop", STAMP), artifact=File(name, 0, template["artifact"]["sha256"])
        ).signed(SIGNER)
        (tmp_path / "shop" / name).touch()
        (tmp_path / "shop" / manifest_name(name)).write_bytes(manifest.to_bytes())
    for n in range(3000):
        (tmp_path / "shop" / f"stranger_{n}").touch()
    found = catalog.read(store, "shop")
    assert (len(found.backups), len(found.foreign)) == (301, 3000)
