"""Evidence: what a document says, that it says the same again, and that whatever is altered shows."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from larder import evidence, evidence_check
from larder.config import Settings
from larder.errors import ConfigurationError, IntegrityError
from larder.evidence import Document, Period, moment_in
from larder.evidence_report import report_of
from larder.ledger.schema import open_engine
from larder.signing import Signer
from tests.approvals import ALICE
from tests.evidence import (
    HOSTILE,
    MADE,
    PASSWORD,
    PERIOD,
    SIGNER,
    START,
    Month,
    fill,
    gathered,
    lay,
    settings_in,
)

TRUSTED = {SIGNER.public_key: "web1"}
STRANGER = Signer(Ed25519PrivateKey.from_private_bytes(b"x" * 32))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    fill(url_in(folder))
    return folder


@pytest.fixture(scope="module")
def settings(home: Path) -> Settings:
    return settings_in(home)


@pytest.fixture(scope="module")
def document(home: Path, settings: Settings) -> Document:
    return gathered(url_in(home), settings)


def url_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.sqlite3'}"


def named(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


def test_its_numbers(document: Document) -> None:
    assert document["summary"] == {
        "databases": 2,
        "backups": {
            "kept": 40,
            "proven": 4,
            "stored": 35,
            "broken": 1,
            "bytes": sum(backup["size"] for backup in document["backups"]),
            "no_longer_kept": 2,
            "gone_unexplained": 1,
        },
        "copies": {"kept": 80, "read_back": 80, "with_a_problem": 1, "deleted": 2},
        "runs": {"backups": 44, "failed_backups": 2, "with_warnings": 1},
        "drills": {"all": 6, "proven": 4, "broken": 1, "failed": 1, "under_way": 0},
        "restores": {"all": 3, "denied": 1, "done": 1, "pending": 1},
        "misses": {"all": 2, "open": 1},
        "audit_rows": 2,
    }


def test_every_backup_with_its_copies_and_those_that_are_gone(document: Document) -> None:
    backup = named(document["backups"], backup="shop/20261016_020000")
    assert (backup["created"], backup["proof"], backup["drilled"]) == ("2026-10-16T02:00:00Z", "stored", None)
    bad = named(backup["copies"], store="nas")
    assert bad == {
        "store": "nas",
        "key": "shop/backup_postgres_20261016_020000.sql.gz",
        "location": "/mnt/nas/shop/backup_postgres_20261016_020000.sql.gz",
        "verified": "2026-10-16T02:01:00Z",
        "problem": "it has another SHA-256 than its manifest says",
    }
    # Its store is configured no more.
    old = named(document["backups"], backup="crm/20261004_030100")["copies"][1]
    assert (old["store"], old["location"]) == ("old", None)
    assert [(gone["backup"], len(gone["removed"])) for gone in document["gone"]] == [
        ("shop/20261003_120000", 2),
        ("crm/20261007_000000", 0),
    ]
    assert {row["why"] for row in document["deletions"]} == {"by its retention policy"}


def test_restores_drills_misses_and_failures(document: Document) -> None:
    done = named(document["restores"], state="done")
    assert (done["requester"], done["account"], done["reason"]) == (
        "Carol Müller",
        "carol@web1",
        "orders of Monday are gone",
    )
    approval = done["approval"]
    assert (approval["approver"], approval["key"]) == ("alice", ALICE.public_key)
    assert approval["fingerprint"] == ALICE.fingerprint
    assert approval["document_sha256"] == done["document_sha256"]
    assert (done["kept"], done["safety_backup"]) == ("shop__before_20261015_090500", "shop/20261015_090502")
    assert named(document["restores"], state="denied")["approval"] is None

    broken = named(document["drills"], outcome="broken")
    assert broken["differences"] == ["table public.orders: rows: expected 1204, found 1203"]
    assert named(document["drills"], outcome="failed")["error"] == HOSTILE
    assert [(miss["objective"], miss["ended"]) for miss in document["misses"]] == [
        ("rpo", "2026-10-12T02:00:00Z"),
        ("proof", None),
    ]
    assert [run["step"] for run in document["runs"]["failed"]] == [None, "dump", "dump"]
    assert document["runs"]["counts"]["backup"] == {"failed": 2, "stored": 42}


def test_the_audit_trail_as_it_is_kept_and_the_keys_in_force(document: Document) -> None:
    audit = document["audit"]
    assert [row["number"] for row in audit["rows"]] == [2, 3]
    assert (audit["head"]["number"], audit["problem"]) == (4, None)
    keys = document["keys"]
    assert keys["signers"] == [{"name": "web1", "key": SIGNER.public_key}]
    assert keys["known_signers"][0]["since"] == "2026-07-03T00:00:00Z"
    assert keys["approvers"] == [{"name": "alice", "key": ALICE.public_key, "fingerprint": ALICE.fingerprint}]


def test_what_is_configured_without_what_is_secret(document: Document) -> None:
    shop = named(document["databases"], database="shop")
    assert shop["address"] == "postgresql://db.example:5432/shop"
    assert (shop["retention"], shop["rto"]) == ("daily 7, weekly 4, monthly 12", 600)
    told = evidence.canonical(document).decode() + report_of(document, SIGNER.public_key, "e.json").decode()
    assert PASSWORD not in told
    assert "signer.key" not in told


def test_the_same_again_makes_the_same_bytes(
    home: Path, settings: Settings, document: Document, tmp_path: Path
) -> None:
    again = gathered(url_in(home), settings)
    first, second = lay(document, tmp_path, "a.json"), tmp_path / "b"
    second.mkdir()
    other = lay(again, second, "a.json")
    assert first.read_bytes() == other.read_bytes()
    assert first.with_suffix(".html").read_bytes() == other.with_suffix(".html").read_bytes()


def test_a_ledger_on_postgresql_tells_the_same(
    empty_postgres_database: str, settings: Settings, document: Document
) -> None:
    fill(empty_postgres_database)
    assert gathered(empty_postgres_database, settings) == document


def test_what_is_whole_and_trusted_is_good(document: Document, tmp_path: Path) -> None:
    path = lay(document, tmp_path)
    found = evidence_check.verify(path, TRUSTED)
    assert (found.problems, found.name, found.trusted, found.report_state) == ((), "web1", True, "good")
    path.with_suffix(".html").unlink()
    found = evidence_check.verify(path, TRUSTED)
    assert (found.problems, found.report_state) == ((), "missing")


def test_a_strangers_signature_is_told(document: Document, tmp_path: Path) -> None:
    found = evidence_check.verify(lay(document, tmp_path, signer=STRANGER), TRUSTED)
    assert (found.name, found.trusted) == (None, False)
    (problem,) = found.problems
    assert STRANGER.public_key in problem


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"proof": "broken"', b'"proof": "stored"'),
        (b'"gone_unexplained": 1', b'"gone_unexplained": 0'),
        (b"alice", b"carol"),
        (b'"made": "2026-11-02', b'"made": "2026-11-03'),
        (b"\n  ", b"\n\t"),
        (b'"size": ', b'"size": 1e400,\n  "size": '),
        (b'"made": ', b'"made": "2020-01-01T00:00:00Z",\n  "made": '),
    ],
)
def test_whatever_is_altered_shows(document: Document, tmp_path: Path, old: bytes, new: bytes) -> None:
    path = lay(document, tmp_path)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    with pytest.raises(IntegrityError, match=r"altered|canonical|no number"):
        evidence_check.verify(path, TRUSTED)


def test_every_byte_counts(document: Document, tmp_path: Path) -> None:
    path = lay({**document, "backups": [], "drills": []}, tmp_path)
    data = path.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 200)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(IntegrityError):
            evidence_check.verify(path, TRUSTED)


def test_another_report_beside_it_shows(document: Document, tmp_path: Path) -> None:
    path = lay(document, tmp_path)
    page = path.with_suffix(".html")
    page.write_bytes(page.read_bytes().replace(b"broken", b"proven"))
    found = evidence_check.verify(path, TRUSTED)
    assert found.report_state == "altered"
    assert found.problems == ("the report evidence.html is not the one that was signed with it",)


def _altered_row(document: Document) -> None:
    document["audit"]["rows"][1]["actor"] = "nobody"


def _missing_row(document: Document) -> None:
    rows = document["audit"]["rows"]
    document["audit"]["rows"] = [rows[0], {**rows[1], "number": 4}]


def _flattered(document: Document) -> None:
    document["summary"]["backups"]["broken"] = 0


def _broken_trail(document: Document) -> None:
    document["audit"] |= {"head": None, "problem": "row 1 was altered"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_altered_row, "row 3 of the audit trail was altered"),
        (_missing_row, "row 4 of the audit trail stands where row 3 should"),
        (_flattered, "its summary of backups is not what it lists"),
        (_broken_trail, "as it was made: row 1 was altered"),
    ],
)
def test_what_does_not_hold_together_shows_though_it_is_signed(
    document: Document, tmp_path: Path, change: Callable[[Document], None], problem: str
) -> None:
    copy = json.loads(json.dumps(document))
    change(copy)
    assert evidence_check.verify(lay(copy, tmp_path), TRUSTED).problems == (problem,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"format": "larder-evidence/2"}',
        b"\xff",
        b"[" * 100_000,
        b'{"format": "larder-evidence/1"}',
    ],
)
def test_what_is_no_evidence_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "evidence.json"
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        evidence_check.verify(path, TRUSTED)
    assert caught.value.hint


def test_signed_nonsense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    path.write_bytes(evidence.sealed({"format": evidence.FORMAT}, "e.html", b"", SIGNER))
    with pytest.raises(IntegrityError, match="not whole"):
        evidence_check.verify(path, TRUSTED)


@pytest.mark.parametrize("change", [{"period": "always"}, {"made": None}])
def test_what_a_stranger_signs_in_the_wrong_shape_is_refused(
    document: Document, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "evidence.json"
    path.write_bytes(evidence.sealed({**document, **change}, "e.html", b"", SIGNER))
    with pytest.raises(IntegrityError, match="not whole"):
        evidence_check.verify(path, TRUSTED)


def test_numbers_are_those_of_what_is_listed(document: Document, tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    path.write_bytes(evidence.sealed({**document, "summary": {"backups": None}}, "e.html", b"", SIGNER))
    found = evidence_check.verify(path, TRUSTED)
    assert "its summary of backups is not what it lists" in found.problems
    assert found.document["summary"] == document["summary"]


def test_an_altered_trail_is_told_and_shown(tmp_path: Path) -> None:
    fill(url_in(tmp_path))
    engine = open_engine(url_in(tmp_path))
    with engine.begin() as connection:
        for (name,) in connection.execute(
            sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        ).fetchall():
            connection.execute(sa.text(f'DROP TRIGGER "{name}"'))
        connection.execute(sa.text("UPDATE audit SET actor = 'nobody' WHERE number = 3"))
    engine.dispose()
    found = gathered(url_in(tmp_path), settings_in(tmp_path))
    assert found["audit"]["head"] is None
    assert found["audit"]["problem"] == "unable to verify the audit trail: row 3 was altered"
    assert len(found["audit"]["rows"]) == 2


def test_a_long_list_is_told_whole_and_shown_in_part(tmp_path: Path) -> None:
    month = Month(url_in(tmp_path))
    for number in range(2500):
        month.backup(f"db{number % 10}", START + timedelta(minutes=4 * number), number, local=None)
    month.write()
    found = gathered(url_in(tmp_path), settings_in(tmp_path))
    assert found["summary"]["backups"]["kept"] == 2500
    page = report_of(found, SIGNER.public_key, "e.json")
    assert page.count(b"<tr>") < 10 * 51 + 50
    assert b"200 more are in the signed document" in page


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-10-01", datetime(2026, 10, 1, tzinfo=UTC)),
        ("2026-10-01T12:30", datetime(2026, 10, 1, 12, 30, tzinfo=UTC)),
        ("2026-10-01T12:30:00+02:00", datetime(2026, 10, 1, 10, 30, tzinfo=UTC)),
        ("2026-10-01T12:30:05Z", datetime(2026, 10, 1, 12, 30, 5, tzinfo=UTC)),
    ],
)
def test_times(text: str, moment: datetime) -> None:
    assert moment_in(text) == moment


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "2026-10-01T00:00:00.5Z", "0001-01-01T00:00:00+14:00"]
)
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError):
        moment_in(text)


def test_a_period_without_length_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Period(MADE, MADE)


def test_where_it_is_written(tmp_path: Path) -> None:
    file, page = evidence.places(PERIOD, tmp_path)
    assert (file.name, page.name) == (
        "evidence_2026-10-01_2026-11-01.json",
        "evidence_2026-10-01_2026-11-01.html",
    )
    noon = Period(START + timedelta(hours=12), MADE)
    assert evidence.places(noon, None)[0].name == "evidence_2026-10-01T120000Z_2026-11-02T083000Z.json"
    assert evidence.places(PERIOD, tmp_path / "q4.json")[1] == tmp_path / "q4.html"
    with pytest.raises(ConfigurationError):
        evidence.places(PERIOD, tmp_path / "fourth quarter.json")


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    page, file = tmp_path / "new" / "e.html", tmp_path / "new" / "e.json"
    evidence.keep({page: b"page", file: b"file"})
    assert [stat.S_IMODE(path.stat().st_mode) for path in (page, file, file.parent)] == [0o600, 0o600, 0o700]
    evidence.keep({page: b"page", file: b"file"})
    file.unlink()
    with pytest.raises(ConfigurationError, match="the file exists"):
        evidence.keep({file: b"file", page: b"another"})
    assert {path.name: path.read_bytes() for path in file.parent.iterdir()} == {"e.html": b"page"}
