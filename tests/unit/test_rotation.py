"""Rotation and pins: on real folders and a real ledger, exactly what the policy lets go is gone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from larder import catalog, pins, rotation
from larder.errors import IntegrityError, LarderError, NotFoundError, RefusedError, UnreachableError
from larder.ledger import Ledger, open_ledger
from larder.ledger.backups import GONE
from larder.ledger.runs import BACKUP_STEPS, UPLOAD
from larder.manifest import Content, File, Manifest
from larder.naming import globals_name, manifest_name, pin_name, sidecar_name
from larder.rotation import Cleared, Rotation
from larder.settings import DatabaseSettings
from larder.signing import Signer
from larder.stores import open_store, settings_of
from larder.stores.local import Local
from larder.trust import Trust
from tests.object_storage import ObjectServer
from tests.shelves import SIGNER, lay, manifest_of

NOW = datetime(2025, 10, 16, 2, 0, 30, tzinfo=UTC)
TRUST = Trust(known={SIGNER.public_key})
STRANGER = Signer(Ed25519PrivateKey.generate())


class Shelf:
    """One database's folder in one store, and its ledger."""

    def __init__(self, folder: Path, ledger: Ledger, store: Local | None = None) -> None:
        self.folder = folder / "shop"
        self.store = store or Local("nas", folder)
        self.ledger = ledger
        self.database = database()
        self.trust = TRUST

    def keep(self, *ages: float, raw_size: int = 1000, signer: Signer = SIGNER) -> list[str]:
        """Lay a backup of each age in days; gives their ids."""
        ids = []
        for age in ages:
            manifest = manifest_of("shop", NOW - timedelta(days=age), raw_size=raw_size)
            signed = lay(self.folder, manifest, signer=signer)
            self.ledger.backups.adopt(signed, {self.store.name: f"shop/{signed.artifact.name}"})
            ids.append(signed.backup)
        return ids

    @property
    def backups(self) -> list[str]:
        return [entry.backup for entry in catalog.read(self.store, "shop").of("shop")]

    def look(self, **more: Any) -> Rotation:
        return rotation.look(self.store, self.database, self.ledger, self.trust, NOW, **more)

    def rotate(self, **more: Any) -> Cleared:
        return rotation.clear(self.look(**more), self.ledger)


def database(**retention: int) -> DatabaseSettings:
    found = DatabaseSettings.model_validate({"url": "postgresql://db.example/shop", "retention": retention})
    return found.model_copy(update={"name": "shop", "folder": "shop"})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield opened
    opened.close()


@pytest.fixture
def shelf(tmp_path: Path, ledger: Ledger) -> Shelf:
    return Shelf(tmp_path / "store", ledger)


def test_old_backups_go_with_all_that_is_theirs_and_nothing_else(shelf: Shelf) -> None:
    old = shelf.keep(400, 31)
    new = shelf.keep(30, 1, 0)
    strangers = [shelf.folder / name for name in ("backup_postgres_20200101_000000.sql.gz", "notes.txt")]
    for path in strangers:
        path.write_bytes(b"from the script that was there before")
    lay(shelf.folder.parent / "shop2", manifest_of("shop2", NOW - timedelta(days=500)))
    lay(shelf.folder, manifest_of("crm", NOW - timedelta(days=500, seconds=1)))
    before = set(shelf.store.sizes())
    assert shelf.rotate() == Cleared(old, None)
    assert shelf.backups == new
    gone = before - set(shelf.store.sizes())
    stamps = tuple(backup.partition("/")[2] for backup in old)
    assert gone == {key for key in before if any(stamp in key for stamp in stamps)}
    assert len(gone) == 6
    assert all(path.exists() for path in strangers)
    assert set(shelf.ledger.backups.all()) == set(new)
    assert shelf.rotate() == Cleared([], None)


def test_the_ledger_remembers_what_was_removed_and_why(shelf: Shelf) -> None:
    old = shelf.keep(40)
    shelf.keep(0)
    shelf.rotate()
    assert shelf.ledger.backups.removed("shop") == {(old[0], "nas")}


def test_rules_come_from_the_configuration(shelf: Shelf) -> None:
    shelf.keep(*range(50))
    shelf.database = database(keep_last=3, monthly=2)
    assert rotation.policy_of(shelf.database).description == "last 3 backups, monthly 2"
    shelf.rotate()
    assert [backup[5:13] for backup in shelf.backups] == ["20250930", "20251014", "20251015", "20251016"]


def test_a_halt_deletes_nothing(shelf: Shelf) -> None:
    shelf.keep(50, 40, 1)
    shelf.keep(0, raw_size=10)
    found = shelf.look()
    assert found.plan.halted
    assert found.plan.held
    assert shelf.rotate() == Cleared([], None)
    assert len(shelf.backups) == 4
    assert len(shelf.rotate(force=True).deleted) == 2


def test_what_is_broken_counts_for_nothing(shelf: Shelf) -> None:
    good, *_ = shelf.keep(90, 20, 10)
    _, short, unreadable = sorted(shelf.folder.glob("*.sql.gz"))
    short.write_bytes(b"short")
    (shelf.folder / manifest_name(unreadable.name)).write_text("{")
    assert shelf.rotate(force=True).deleted == []
    assert good in shelf.backups


def test_a_copy_that_was_read_and_found_wrong_is_broken_however_good_it_looks(shelf: Shelf) -> None:
    good, wrong = shelf.keep(90, 50)
    shelf.ledger.backups.checked(wrong, "nas", "its checksum is another")
    assert [verdict.keep for verdict in shelf.look().plan.verdicts] == [True, True]
    assert shelf.look().plan.verdicts[0].reason == "it is the newest stored backup"
    shelf.keep(0)
    assert shelf.rotate().deleted == [good, wrong]


def test_a_backup_that_a_stranger_signed_does_not_push_ours_out(shelf: Shelf) -> None:
    (ours,) = shelf.keep(60)
    shelf.keep(0, signer=STRANGER)
    assert shelf.rotate(force=True).deleted == []
    assert ours in shelf.backups


# What is not clear


def path_of(shelf: Shelf, backup: str) -> Path:
    """Its artifact."""
    return shelf.folder.parent / entry_of(shelf, backup).artifact_key


def beside(path: Path, name: Callable[[str], str]) -> Path:
    return path.with_name(name(path.name))


def copy_manifest(shelf: Shelf, backup: str) -> None:
    """Its manifest under another name, its artifact under none that a manifest knows."""
    path = beside(path_of(shelf, backup), manifest_name)
    path.rename(path.with_name("copy.manifest.json"))


def note(shelf: Shelf, backup: str, problem: str) -> None:
    shelf.ledger.backups.checked(backup, "nas", problem)


UNCLEAR: dict[str, tuple[Callable[[Shelf, str], object], str]] = {
    "another key": (
        lambda shelf, _: setattr(shelf, "trust", Trust({"web1": STRANGER.public_key})),
        "it is signed by the unknown key ",
    ),
    "no key": (lambda shelf, _: setattr(shelf, "trust", Trust()), "no signature is known here"),
    "no sidecar": (
        lambda shelf, backup: beside(path_of(shelf, backup), sidecar_name).unlink(),
        "its sidecar is missing",
    ),
    "another sidecar": (
        lambda shelf, backup: beside(path_of(shelf, backup), sidecar_name).write_text("x"),
        "its sidecar does not agree with its manifest",
    ),
    "another name": (copy_manifest, "its manifest lies under the name copy.manifest.json"),
    "no manifest": (
        lambda shelf, backup: beside(path_of(shelf, backup), manifest_name).write_text("{"),
        "its manifest cannot be read",
    ),
    "another name, of what was read and is wrong": (
        lambda shelf, backup: (copy_manifest(shelf, backup), note(shelf, backup, "its bytes are wrong")),
        "its manifest lies under the name copy.manifest.json",
    ),
    "another key, of what was read and is wrong": (
        lambda shelf, backup: (
            note(shelf, backup, "its bytes are wrong"),
            setattr(shelf, "trust", Trust({"web1": STRANGER.public_key})),
        ),
        "it is signed by the unknown key ",
    ),
}


@pytest.mark.parametrize("what", UNCLEAR)
def test_what_is_unclear_never_goes_and_counts_for_nothing(shelf: Shelf, what: str) -> None:
    make, reason = UNCLEAR[what]
    (old,) = shelf.keep(400)
    make(shelf, old)
    signer = STRANGER if what.startswith("another key") else SIGNER
    shelf.keep(350, 340, 320, signer=signer)
    shelf.database = database(keep_last=3)
    before = set(shelf.store.sizes())
    for _ in range(2):
        assert shelf.rotate(force=True) == Cleared([], None)
    assert set(shelf.store.sizes()) == before
    assert any(verdict.reason.startswith(reason) for verdict in shelf.look().plan.verdicts)
    assert old in shelf.ledger.backups.all()


def test_a_copy_that_was_gone_and_is_back_is_as_good_as_before(shelf: Shelf) -> None:
    """As when a disk was not mounted while copies were verified."""
    old, new = shelf.keep(20, 0)
    for backup in (old, new):
        shelf.ledger.backups.checked(backup, "nas", GONE)
    shelf.database = database(keep_last=1)
    assert [verdict.reason for verdict in shelf.look().plan.verdicts] == [
        "no rule keeps it",
        "keep_last: 1 of 1",
    ]


def test_a_copy_that_the_ledger_does_not_know_of_a_broken_backup_is_unclear(shelf: Shelf) -> None:
    (old,) = shelf.keep(400)
    shelf.keep(0)
    elsewhere = entry_of(shelf, old).manifest
    assert elsewhere is not None
    shelf.ledger.backups.forget("nas", [old])
    shelf.ledger.backups.adopt(elsewhere, {"far": "shop/x"})
    shelf.ledger.backups.checked(old, "far", f"{elsewhere.artifact.name} decodes to another")
    assert shelf.rotate(force=True).deleted == []
    assert (
        shelf.look().plan.verdicts[0].reason
        == "every copy of it that was read is wrong, and this one was not"
    )


def test_two_installations_in_one_bucket_leave_each_others_backups(tmp_path: Path) -> None:
    """Staging keeps seven days and production ninety, of one DATABASE_URL and under one name."""
    ledgers = [open_ledger(f"sqlite:///{tmp_path / name}.sqlite3") for name in ("production", "staging")]
    production, staging = (Shelf(tmp_path / "bucket", ledger) for ledger in ledgers)
    staging.trust = Trust(known={STRANGER.public_key})
    production.database, staging.database = database(days=90), database(days=7)
    theirs, ours = [100, 80, 60, 40, 20, 10, 1], [100.5, 30.5, 8.5, 0.5]
    ids = production.keep(*theirs)
    mine = staging.keep(*ours, signer=STRANGER)
    assert staging.rotate(force=True) == Cleared(mine[:-1], None)
    assert set(production.backups) == {*ids, mine[-1]}
    assert all(entry_of(production, backup).good for backup in ids)
    assert production.rotate(force=True) == Cleared(ids[:1], None)
    assert set(staging.backups) == {*ids[1:], mine[-1]}
    # A new machine that has signed nothing yet knows nobody, and deletes nothing.
    staging.trust = Trust()
    assert staging.rotate(force=True) == Cleared([], None)
    for ledger in ledgers:
        ledger.close()


def evil(victim: Manifest, created: datetime, signer: Signer, folder: Path) -> Manifest:
    """A backup of another time whose globals are the victim's artifact."""
    manifest = replace(
        manifest_of("shop", created), globals=victim.artifact, globals_raw=Content(1, "0" * 64)
    )
    return lay(folder, manifest, signer=signer)


@pytest.mark.parametrize("signer", [STRANGER, SIGNER])
@pytest.mark.parametrize("shape", ["whole", "without its artifact"])
def test_a_manifest_that_names_anothers_artifact_takes_nothing_with_it(
    shelf: Shelf, signer: Signer, shape: str
) -> None:
    (newest,) = shelf.keep(0)
    victim = entry_of(shelf, newest).manifest
    assert victim is not None
    made = evil(victim, NOW - timedelta(days=500), signer, shelf.folder)
    if shape != "whole":
        (shelf.folder / made.artifact.name).unlink()
    shelf.rotate(force=True)
    assert entry_of(shelf, newest).good
    if made.backup in shelf.backups:
        catalog.remove(shelf.store, entry_of(shelf, made.backup))
    assert entry_of(shelf, newest).good


def test_globals_that_two_backups_share_go_with_the_last_of_them(shelf: Shelf) -> None:
    """One second, one engine, two forms: their globals have one name."""

    def lay_both(age: float) -> list[Manifest]:
        created = NOW - timedelta(days=age)
        one = manifest_of("shop", created)
        stamp = one.backup.partition("/")[2]
        roles = File(globals_name("postgres", stamp, ".gz"), 5, hashlib.sha256(b"roles").hexdigest())
        one = replace(one, globals=roles, globals_raw=Content(1, "0" * 64))
        other = replace(
            one, suffix=".dir.tar", artifact=replace(one.artifact, name=f"backup_postgres_{stamp}.dir.tar.gz")
        )
        shelf.folder.mkdir(parents=True, exist_ok=True)
        (shelf.folder / roles.name).write_bytes(b"roles")
        return [lay(shelf.folder, manifest) for manifest in (one, other)]

    first, second = lay_both(40)
    pinned = shelf.folder / pin_name(second.artifact.name)
    pinned.touch()
    shelf.keep(0)
    assert first.globals
    assert shelf.rotate().deleted == [first.backup]
    assert (shelf.folder / first.globals.name).exists()
    assert not (shelf.folder / first.artifact.name).exists()
    pinned.unlink()
    assert shelf.rotate().deleted == [second.backup]
    assert not (shelf.folder / first.globals.name).exists()


# A shrunk database, and an emptied store


def test_a_shrunk_database_halts_until_it_is_accepted(shelf: Shelf) -> None:
    shelf.database = database(keep_last=3)
    good = shelf.keep(20, 19, 18)
    for age in range(15, 3, -1):
        shelf.keep(age, raw_size=10)
        assert shelf.rotate().deleted == []
    assert set(good) < set(shelf.backups)
    found = shelf.look(force=True)
    rotation.accept(found, shelf.ledger)
    assert shelf.ledger.backups.accepted("shop") == NOW - timedelta(days=4)
    assert shelf.look().plan.halted is None
    # What is accepted is the database, in every store, and never taken back by an older look.
    rotation.accept(replace(found, plan=replace(found.plan, newest=NOW - timedelta(days=9))), shelf.ledger)
    assert shelf.ledger.backups.accepted("shop") == NOW - timedelta(days=4)
    assert shelf.ledger.backups.accepted("crm") is None
    assert len(shelf.rotate().deleted) == 12
    shelf.keep(1, raw_size=4)
    assert shelf.look().plan.halted


def test_nothing_is_accepted_where_nothing_counts(shelf: Shelf) -> None:
    rotation.accept(shelf.look(force=True), shelf.ledger)
    assert shelf.ledger.backups.accepted("shop") is None


def test_a_store_that_is_empty_and_should_not_be_is_told(shelf: Shelf) -> None:
    assert shelf.rotate() == Cleared([], None)
    shelf.keep(40, 20, 0)
    shelf.folder.rename(shelf.folder.with_name("away"))
    for force in (False, True):
        with pytest.raises(UnreachableError) as caught:
            shelf.look(force=force)
        assert caught.value.message == (
            "unable to rotate nas: the ledger knows 3 backups of 'shop' there, and none is there"
        )
        assert "larder catalog rebuild" in caught.value.hint
        assert not caught.value.retryable
    shelf.folder.with_name("away").rename(shelf.folder)
    assert len(shelf.rotate().deleted) == 1


def test_the_newest_proven_one_stays(shelf: Shelf, ledger: Ledger) -> None:
    proven, _ = shelf.keep(90, 80)
    with ledger._engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE backups SET proof = 'proven' WHERE id = '{proven}'")
    shelf.keep(0)
    shelf.rotate()
    assert shelf.backups[0] == proven
    assert len(shelf.backups) == 2


def test_a_second_manifest_of_a_backup_takes_nothing_with_it(shelf: Shelf) -> None:
    """Somebody copied a manifest: the copy stays, and is no backup that counts."""
    (old,) = shelf.keep(50)
    shelf.keep(0)
    (manifest,) = shelf.folder.glob(f"*{old[5:]}*.manifest.json")
    copy = manifest.with_name("copy.manifest.json")
    copy.write_bytes(manifest.read_bytes())
    shelf.database = database(keep_last=2)
    assert shelf.rotate(force=True).deleted == []
    assert copy.exists()
    assert old in shelf.ledger.backups.all()
    shelf.database = database(keep_last=1)
    shelf.keep(1)
    shelf.rotate(force=True)
    assert copy.exists()
    assert old in shelf.backups


class Refusing(Local):
    """A store whose credential may not delete some keys."""

    def __init__(self, folder: Path, refused: Callable[[str], bool], error: type[LarderError] = RefusedError):
        super().__init__("nas", folder)
        self.refused = refused
        self.error = error

    def delete(self, key: str) -> None:
        if self.refused(key):
            raise self.error(f"unable to delete {key}: access denied", "allow s3:DeleteObject")
        super().delete(key)


def test_a_store_that_deletes_nothing_keeps_everything(tmp_path: Path, ledger: Ledger) -> None:
    shelf = Shelf(tmp_path, ledger, Refusing(tmp_path, lambda _key: True))
    shelf.keep(50, 40, 0)
    cleared = shelf.rotate()
    assert cleared.deleted == []
    assert isinstance(cleared.problem, RefusedError)
    assert "unable to delete 2 of 2 backups from nas: unable to delete shop/" in cleared.problem.message
    assert len(shelf.backups) == 3
    assert len(ledger.backups.all()) == 3


def test_one_that_may_not_be_deleted_does_not_keep_the_others(tmp_path: Path, ledger: Ledger) -> None:
    shelf = Shelf(tmp_path, ledger, Refusing(tmp_path, lambda key: "20250827" in key))
    locked, old, new = shelf.keep(50, 40, 0)
    cleared = shelf.rotate()
    assert cleared.deleted == [old]
    assert cleared.problem is not None
    assert shelf.backups == [locked, new]
    assert set(ledger.backups.all()) == {locked, new}


@pytest.mark.parametrize("error", [RefusedError, UnreachableError])
def test_half_a_deletion_is_one_and_is_noted(
    tmp_path: Path, ledger: Ledger, error: type[LarderError]
) -> None:
    shelf = Shelf(tmp_path, ledger, Refusing(tmp_path, lambda key: key.endswith(".sql.gz"), error))
    old, new = shelf.keep(40, 0)
    if error is UnreachableError:
        with pytest.raises(UnreachableError):
            shelf.rotate()
    else:
        assert shelf.rotate().deleted == [old]
    assert shelf.backups == [new]
    assert set(ledger.backups.all()) == {new}


class Leaking(Local):
    """A store that loses the newest backup as another one is deleted."""

    def delete(self, key: str) -> None:
        super().delete(key)
        for path in (self.folder / "shop").glob("*20251016*.manifest.json"):
            path.unlink()


def test_more_than_should_be_gone_is_noticed(tmp_path: Path, ledger: Ledger) -> None:
    shelf = Shelf(tmp_path, ledger, Leaking("nas", tmp_path))
    shelf.keep(40, 0)
    cleared = shelf.rotate()
    assert isinstance(cleared.problem, IntegrityError)
    assert "shop/20251016_020030 should stay, and is gone" in cleared.problem.message


# Pins


def entry_of(shelf: Shelf, backup: str) -> catalog.Entry:
    return next(entry for entry in catalog.read(shelf.store, "shop").of("shop") if entry.backup == backup)


def test_a_pinned_backup_stays_until_it_is_unpinned(shelf: Shelf) -> None:
    old, _ = shelf.keep(90, 0)
    pins.pin(shelf.store, entry_of(shelf, old), NOW)
    pins.pin(shelf.store, entry_of(shelf, old), NOW + timedelta(days=1))
    entry = entry_of(shelf, old)
    assert entry.pinned
    assert entry.good
    key = pin_name(entry.artifact_key)
    assert json.loads((shelf.folder.parent / key).read_text()) == {"pinned": "2025-10-16T02:00:30Z"}
    assert catalog.read(shelf.store, "shop").foreign == ()
    assert shelf.rotate().deleted == []
    pins.unpin(shelf.store, entry)
    pins.unpin(shelf.store, entry)
    assert not entry_of(shelf, old).pinned
    assert shelf.rotate().deleted == [old]


def test_an_empty_file_pins_too(shelf: Shelf) -> None:
    old, _ = shelf.keep(90, 0)
    (shelf.folder.parent / pin_name(entry_of(shelf, old).artifact_key)).touch()
    assert shelf.rotate().deleted == []


def test_a_pin_outlives_the_ledger(shelf: Shelf, tmp_path: Path) -> None:
    old, _ = shelf.keep(90, 0)
    pins.pin(shelf.store, entry_of(shelf, old), NOW)
    shelf.ledger = open_ledger(f"sqlite:///{tmp_path / 'another.sqlite3'}")
    assert shelf.rotate().deleted == []
    shelf.ledger.close()


def test_a_pin_that_comes_between_the_look_and_the_deletion_counts(shelf: Shelf) -> None:
    old, older, _ = shelf.keep(90, 80, 0)
    found = shelf.look()
    pins.pin(shelf.store, entry_of(shelf, old), NOW)
    assert rotation.clear(found, shelf.ledger) == Cleared([older], None)
    assert old in shelf.backups


def test_a_backup_that_went_before_its_pin_came_leaves_no_pin(shelf: Shelf) -> None:
    old, _ = shelf.keep(90, 0)
    entry = entry_of(shelf, old)
    shelf.rotate()
    with pytest.raises(NotFoundError, match="has just been deleted from nas"):
        pins.pin(shelf.store, entry, NOW)
    assert catalog.read(shelf.store, "shop").foreign == ()


def test_a_store_that_deletes_nothing_says_so_of_a_pin(tmp_path: Path, ledger: Ledger) -> None:
    shelf = Shelf(tmp_path, ledger, Refusing(tmp_path, lambda _key: True))
    (backup,) = shelf.keep(0)
    pins.pin(shelf.store, entry_of(shelf, backup), NOW)
    with pytest.raises(RefusedError, match=r"unable to delete shop/.*_020030\.sql\.gz\.pin"):
        pins.unpin(shelf.store, entry_of(shelf, backup))
    assert entry_of(shelf, backup).pinned


def test_the_ledger_mirrors_pins(shelf: Shelf) -> None:
    (backup,) = shelf.keep(0)
    for pinned in (True, False):
        shelf.ledger.backups.set_pinned(backup, pinned=pinned)
        found = shelf.ledger.backups.get(backup)
        assert found is not None
        assert found.pinned is pinned
    shelf.ledger.backups.set_pinned("shop/20200101_000000", pinned=True)
    assert shelf.ledger.backups.get("shop/20200101_000000") is None


def test_a_pinned_backup_that_is_deleted_by_hand_takes_its_pin_with_it(shelf: Shelf) -> None:
    (backup,) = shelf.keep(0)
    pins.pin(shelf.store, entry_of(shelf, backup), NOW)
    catalog.remove(shelf.store, entry_of(shelf, backup))
    assert shelf.store.sizes() == {}


# Failed runs and abandoned uploads


def run_through(ledger: Ledger, *, fails: bool, artifact: str = "", name: str = "shop") -> str:
    run, _ = ledger.runs.create(name, "command", stores=["nas"])
    for step in BACKUP_STEPS:
        lease = ledger.leases.take(run.id, step, "host", "nas" if step == UPLOAD else "")
        if fails and step == UPLOAD:
            ledger.leases.fail(lease, LarderError("unable to upload"))  # type: ignore[arg-type]
            break
        ledger.leases.finish(lease, artifact=artifact.format(stamp=run.stamp) or None)  # type: ignore[arg-type]
    return run.id


def test_only_the_newest_run_that_is_over_can_have_failed(ledger: Ledger) -> None:
    assert rotation.last_failed(ledger, "shop") is None
    failed = run_through(ledger, fails=True)
    run_through(ledger, fails=False, name="crm")
    ledger.runs.create("shop", "command", stores=["nas"])
    assert rotation.last_failed(ledger, "shop") == failed
    ledger.runs.abandon(ledger.runs.latest("shop", limit=1)[0].id, LarderError("stopped"))
    run_through(ledger, fails=False)
    assert rotation.last_failed(ledger, "shop") is None


def test_what_broken_off_uploads_and_deletions_left_is_discarded_and_nothing_else(shelf: Shelf) -> None:
    begun = run_through(shelf.ledger, fails=True, artifact="backup_postgres_{stamp}.sql.gz")
    whole = run_through(shelf.ledger, fails=False, artifact="backup_postgres_{stamp}.sql.gz")
    shelf.keep(0)
    names = {run: shelf.ledger.runs.get(run).artifact or "" for run in (begun, whole)}
    stem = names[begun].partition(".")[0]
    mine = [names[begun], f"{names[begun]}.sha256", f"{stem}.globals.sql.gz"]
    # The manifest of what was whole has vanished: the artifact may be all that there is of a backup.
    theirs = [names[whole], "backup_postgres_20200101_000000.sql.gz", f"{stem}_copy.sql.gz"]
    for name in (*mine, *theirs):
        (shelf.folder / name).write_bytes(b"bytes")
    discarded = rotation.discard_orphans(shelf.look(), shelf.ledger)
    assert sorted(discarded) == sorted(f"shop/{name}" for name in mine)
    assert {path.name for path in shelf.folder.iterdir()} >= set(theirs)
    # A deletion that is killed once the manifest is gone.
    shelf.ledger.backups.leaves("nas", shelf.ledger.runs.get(whole).backup, "by its retention policy: old")
    assert rotation.discard_orphans(shelf.look(), shelf.ledger) == [f"shop/{names[whole]}"]


class Begun(Local):
    """A server that killed uploads have left bytes on."""

    def __init__(self, folder: Path, *begun: str) -> None:
        super().__init__("nas", folder)
        self.begun = set(begun)

    def unfinished(self, folder: str = "") -> list[str]:
        return sorted(key for key in self.begun if key.startswith(f"{folder}/"))

    def discard(self, key: str) -> None:
        self.begun.remove(key)


def test_only_abandoned_uploads_of_ours_are_discarded(tmp_path: Path, ledger: Ledger) -> None:
    ours = "backup_postgres_20251015_020000.sql.gz"
    run_through(ledger, fails=True, artifact=ours)
    run_through(ledger, fails=True, artifact="backup_postgres_20251015_030000.sql.gz", name="crm")
    active, _ = ledger.runs.create("shop", "command", stores=["nas"])
    lease = ledger.leases.take(active.id, "dump", "host")
    ledger.leases.finish(lease, artifact="backup_postgres_20251015_040000.sql.gz")  # type: ignore[arg-type]
    abandoned = [f"shop/{ours}", "shop/backup_postgres_20251015_020000.globals.sql.gz"]
    others = [
        "shop/backup_postgres_20251015_030000.sql.gz",
        "shop/backup_postgres_20251015_040000.sql.gz",
        "shop/video.mp4",
        f"shop/below/{ours}",
        f"shop2/{ours}",
    ]
    store = Begun(tmp_path, *abandoned, *others)
    assert sorted(rotation.discard_abandoned(store, database(), ledger)) == sorted(abandoned)
    assert store.begun == set(others)


def test_abandoned_uploads_of_ours_go_from_a_bucket_and_others_stay(
    object_server: ObjectServer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = object_server.bucket()
    ours, theirs = "backup_postgres_20251015_020000.sql.gz", "video.mp4"
    run_through(ledger, fails=True, artifact=ours)
    for name in (ours, theirs):
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=f"backups/shop/{name}")
    store = open_store(settings_of("s3")(name="s3", type="s3", bucket=bucket.name))
    assert rotation.discard_abandoned(store, database(), ledger) == [f"shop/{ours}"]
    assert [key for key, _ in bucket.uploads()] == [f"backups/shop/{theirs}"]
    bucket.empty()
