"""Verification: what is read, in which order, what comes of it, and who is told."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import pyrage
import pytest

from larder import catalog, verification
from larder.codecs import codec
from larder.codecs.age import Age
from larder.encoding import Encoding
from larder.errors import IntegrityError, RefusedError, UnreachableError
from larder.ledger import Ledger, open_ledger
from larder.progress import Progress
from larder.stores.local import Local
from larder.verification import Copy, Finding
from tasks import context
from tasks.verify import verify as verify_task
from tests.backups import RAW, SIGNER, lay

GZIP = Encoding([codec("gzip")])
FIRST, SECOND, THIRD = (f"shop/202510{day}_020000" for day in (14, 15, 16))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(f"sqlite:///{tmp_path / 'ledger' / 'ledger.sqlite3'}")
    yield opened
    opened.close()


def copies_in(store: Local) -> list[Copy]:
    return [Copy(entry.backup, "shop", store, entry, entry.problems) for entry in catalog.read(store).backups]


def read(store: Local, *identities: Path) -> list[Finding]:
    return list(verification.verify(copies_in(store), identities, Progress()))


def test_what_a_good_copy_came_to(tmp_path: Path) -> None:
    manifest = lay(tmp_path / "nas", FIRST, GZIP, roles=b"CREATE ROLE clerk;")
    (finding,) = read(Local("nas", tmp_path / "nas"))
    assert (finding.state, finding.problems, finding.notes) == ("good", (), ())
    assert finding.read == sum(file.size for file in manifest.files) == finding.copy.size


def test_an_encrypted_copy_is_hashed_here_and_opened_where_an_identity_is(tmp_path: Path) -> None:
    identity, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(str(identity))
    (tmp_path / "other").write_text(str(other))
    encoding = Encoding([codec("gzip"), Age.read_back([str(identity.to_public())])])
    lay(tmp_path / "nas", FIRST, encoding)
    store = Local("nas", tmp_path / "nas")
    (closed,) = read(store)
    assert (closed.state, len(closed.notes)) == ("good", 1)
    assert "this host has no identity" in closed.notes[0]
    (opened,) = read(store, tmp_path / "key")
    assert (opened.state, opened.notes) == ("good", ())
    (wrong,) = read(store, tmp_path / "other")
    assert (wrong.state, "none of the identities" in wrong.notes[0]) == ("good", True)


def test_an_artifact_that_decodes_to_something_else_is_broken(tmp_path: Path) -> None:
    """Somebody who can sign made an artifact whose own checksum is right, of other content."""
    store = Local("nas", tmp_path / "nas")
    right = lay(tmp_path / "nas", FIRST, GZIP)
    wrong = lay(tmp_path / "other", FIRST, GZIP, raw=RAW[:-1] + b" ")
    forged = replace(wrong, raw=right.raw).signed(SIGNER)
    shutil.copytree(tmp_path / "other", tmp_path / "nas", dirs_exist_ok=True)
    (tmp_path / "nas" / f"{forged.artifact.name}.manifest.json").write_bytes(forged.to_bytes())
    (finding,) = read(store)
    assert finding.state == "broken"
    assert "decodes to" in finding.problems[0]


def test_a_store_that_does_not_answer_says_nothing_about_the_copy(tmp_path: Path, ledger: Ledger) -> None:
    lay(tmp_path / "nas", FIRST, GZIP)

    class Gone(Local):
        def open(self, key: str) -> object:  # type: ignore[override]
            raise UnreachableError("unable to read: no answer")

    copies = copies_in(Local("nas", tmp_path / "nas"))
    gone = [Copy(copy.backup, "shop", Gone("nas", tmp_path), copy.entry) for copy in copies]
    (finding,) = verification.verify(gone, [], Progress())
    assert (finding.state, finding.problems) == ("unread", ())
    assert not verification.record(ledger, finding)
    assert ledger.backups.all() == {}


def test_the_longest_unread_come_first_within_the_budget(tmp_path: Path, ledger: Ledger) -> None:
    store = Local("nas", tmp_path / "nas")
    for backup in (FIRST, SECOND, THIRD):
        lay(tmp_path / "nas", backup, GZIP)
    copies = copies_in(store)
    size = copies[0].size

    def chosen(budget: int) -> list[str]:
        return [copy.backup for copy in verification.longest_unread(copies, ledger, budget)]

    assert chosen(10 * size) == [FIRST, SECOND, THIRD]
    assert chosen(2 * size) == [FIRST, SECOND]
    assert chosen(1) == [FIRST], "at least one, or a large one would never be read"
    for finding in verification.verify(copies[:2], [], Progress()):
        verification.record(ledger, finding)
    assert chosen(10 * size) == [THIRD, FIRST, SECOND]
    ledger.backups.checked(FIRST, "nas", None)
    assert chosen(10 * size) == [THIRD, SECOND, FIRST]


def test_bad_news_is_news_once(tmp_path: Path, ledger: Ledger) -> None:
    manifest = lay(tmp_path / "nas", FIRST, GZIP)
    path = tmp_path / "nas" / manifest.artifact.name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\1")
    store = Local("nas", tmp_path / "nas")
    assert [verification.record(ledger, read(store)[0]) for _ in range(2)] == [True, False]
    found = ledger.backups.get(FIRST)
    assert found is not None
    assert found.proof == "broken"
    path.write_bytes(whole)
    assert not verification.record(ledger, read(store)[0])
    path.write_bytes(whole[:-1] + b"\1")
    assert verification.record(ledger, read(store)[0])


# The task, as a worker runs it.


class Channel(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.received: list[str] = []


class _Answer(BaseHTTPRequestHandler):
    server: Channel

    def do_POST(self) -> None:
        self.server.received.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Channel]:
    """A worker's environment, with a database whose copies lie in `nas` and a channel that is told."""
    (tmp_path / "larder.toml").write_text(
        f'verify = "0 5 * * *"\nverify_budget = "1 MB"\nstate_dir = "{tmp_path / "state"}"\n'
        '[databases.shop]\nurl = "sqlite:///shop.db"\n[stores.nas]\npath = "nas"\n'
    )
    with Channel() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for variable in ("DATABASE_URL", "BACKUP_DIR", "http_proxy", "HTTP_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("LARDER_CONFIG", str(tmp_path / "larder.toml"))
        monkeypatch.setenv("SLACK_WEBHOOK_URL", f"http://127.0.0.1:{made.server_port}/services/T/B/x")
        context.settings.cache_clear()
        context._ledger_of.cache_clear()
        yield made
        context.ledger().close()
        context.settings.cache_clear()
        context._ledger_of.cache_clear()
        made.shutdown()
        thread.join()


def test_the_task_reads_records_and_tells_once(tmp_path: Path, channel: Channel) -> None:
    good = lay(tmp_path / "nas" / "shop", FIRST, GZIP)
    bad = lay(tmp_path / "nas" / "shop", SECOND, GZIP, previous=good)
    (tmp_path / "nas" / "shop" / bad.artifact.name).write_bytes(b"x" * bad.artifact.size)
    with pytest.raises(
        IntegrityError, match=f"{SECOND} in nas: .*has SHA-256|{SECOND} in nas: .*decode gzip"
    ):
        verify_task()
    (told,) = channel.received
    assert "Verification of the backups of shop failed" in told
    assert SECOND in told
    assert FIRST not in json.loads(told)["text"]
    known = context.ledger().backups.all()
    assert {backup: found.proof for backup, found in known.items()} == {FIRST: "stored", SECOND: "broken"}
    assert all(found.copies["nas"].verified for found in known.values())
    with pytest.raises(IntegrityError):
        verify_task()
    assert len(channel.received) == 1


def test_the_task_tells_of_a_copy_that_is_gone(tmp_path: Path, channel: Channel) -> None:
    first = lay(tmp_path / "nas" / "shop", FIRST, GZIP)
    second = lay(tmp_path / "nas" / "shop", SECOND, GZIP, previous=first)
    verify_task()
    gone = list((tmp_path / "nas" / "shop").glob(f"{first.artifact.name}*"))
    kept = {path: path.read_bytes() for path in gone}
    for path in gone:
        path.unlink()
    for _ in range(2):
        with pytest.raises(IntegrityError, match=f"{FIRST} in nas: its manifest is gone"):
            verify_task()
    assert len(channel.received) == 1
    assert FIRST in channel.received[0]
    assert second.backup not in json.loads(channel.received[0])["text"]
    for path, content in kept.items():
        path.write_bytes(content)
    verify_task()
    found = context.ledger().backups.all()
    assert {backup: one.proof for backup, one in found.items()} == {FIRST: "stored", SECOND: "stored"}


def test_the_task_tells_of_a_store_that_is_empty(tmp_path: Path, channel: Channel) -> None:
    lay(tmp_path / "nas" / "shop", FIRST, GZIP)
    verify_task()
    shutil.rmtree(tmp_path / "nas")
    with pytest.raises(UnreachableError, match="the ledger knows 1 backups there"):
        verify_task()
    assert "store nas" in channel.received[0]


def test_the_task_does_not_succeed_with_what_it_could_not_read(
    tmp_path: Path, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path / "nas" / "shop", FIRST, GZIP)
    opened = Local.open

    def refuse_artifacts(self: Local, key: str) -> BinaryIO:
        if key.endswith(".gz"):
            raise RefusedError("unable to read: access denied (s3:GetObject)")
        return opened(self, key)

    monkeypatch.setattr(Local, "open", refuse_artifacts)
    with pytest.raises(RefusedError, match="s3:GetObject"):
        verify_task()
    assert "store nas" in channel.received[0]
    assert context.ledger().backups.all() == {}


def test_the_task_tells_of_a_backup_that_only_another_manifest_knows(
    tmp_path: Path, channel: Channel
) -> None:
    first = lay(tmp_path / "nas" / "shop", FIRST, GZIP)
    second = lay(tmp_path / "gone", SECOND, GZIP, previous=first)
    lay(tmp_path / "nas" / "shop", THIRD, GZIP, previous=second)
    with pytest.raises(IntegrityError, match=f"backup {SECOND} is missing: {THIRD} names it"):
        verify_task()
    assert SECOND in channel.received[0]


def test_what_a_second_manifest_says_does_not_count_against_the_copy(
    tmp_path: Path, channel: Channel
) -> None:
    real = lay(tmp_path / "nas" / "shop", FIRST, GZIP)
    verify_task()
    lay(tmp_path / "nas" / "a_shop", FIRST, GZIP)
    (tmp_path / "nas" / "a_shop" / real.artifact.name).write_bytes(b"x" * real.artifact.size)
    with pytest.raises(IntegrityError, match="a second manifest of it lies at a_shop/"):
        verify_task()
    found = context.ledger().backups.all()[FIRST]
    assert (found.proof, found.copies["nas"].key) == ("stored", f"shop/{real.artifact.name}")
    assert found.copies["nas"].problem is None
    for path in (tmp_path / "nas" / "a_shop").iterdir():
        path.unlink()
    verify_task()


def test_one_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, ledger: Ledger) -> None:
    manifests = [lay(tmp_path / "nas", backup, GZIP) for backup in (FIRST, SECOND)]

    class BadSector(Local):
        def open(self, key: str) -> BinaryIO:
            if key == manifests[0].artifact.name:
                # Whose reading fails with EIO, as a bad sector's does.
                return Path("/proc/self/mem").open("rb")
            return super().open(key)

    copies = copies_in(Local("nas", tmp_path / "nas"))
    bad = [replace(copy, store=BadSector("nas", tmp_path / "nas")) for copy in copies]
    states = {finding.copy.backup: finding for finding in verification.verify(bad, [], Progress())}
    assert states[FIRST].state == "broken"
    assert "cannot be read: input/output error" in states[FIRST].problems[0]
    assert states[SECOND].state == "good"


def test_what_is_deleted_while_it_is_read_is_no_alarm(tmp_path: Path, ledger: Ledger) -> None:
    lay(tmp_path / "nas", FIRST, GZIP)
    store = Local("nas", tmp_path / "nas")
    copies = copies_in(store)
    for path in (tmp_path / "nas").iterdir():
        path.unlink()
    (finding,) = verification.verify(copies, [], Progress())
    assert (finding.state, finding.failure) == ("unread", None)
    assert not verification.record(ledger, finding)
    assert ledger.backups.all() == {}


def test_of_two_schedulers_one_reads(tmp_path: Path, channel: Channel) -> None:
    lay(tmp_path / "nas" / "shop", FIRST, GZIP)
    verify_task("schedule")
    first = context.ledger().backups.all()[FIRST].copies["nas"].verified
    assert first is not None
    assert (datetime.now(UTC) - first).total_seconds() < 60
    verify_task("schedule")
    assert context.ledger().backups.all()[FIRST].copies["nas"].verified == first
    verify_task()
    assert context.ledger().backups.all()[FIRST].copies["nas"].verified != first
