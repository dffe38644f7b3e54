"""`larder restore approve`: what an approver is shown, asked, and gets; with neither ledger nor Redis."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from console import approve as command
from larder.approval import verify
from larder.approver_keys import create, public_key_of
from larder.errors import ConfigurationError, IntegrityError, LarderError, NotAuthorisedError, NotFoundError
from larder.manifest_fields import TIME
from larder.restore_request import RestoreRequest
from tests import approvals, terminals

NOW = datetime.now(UTC).replace(microsecond=0)


def ago(**span: float) -> str:
    return (NOW - timedelta(**span)).strftime(TIME)


REQUEST = replace(
    approvals.REQUEST,
    wanted=replace(
        approvals.REQUEST.wanted, created=ago(hours=5), size=1_200_000_000, raw_size=9_000_000_000
    ),
    into=replace(approvals.REQUEST.into, replaces=4_300_000_000),
    requester="carol",
    requested=ago(minutes=10),
    expires=ago(days=-1),
)


def nowhere(request: str) -> NoReturn:
    raise NotFoundError(f"unable to find request '{request}'")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create(tmp_path / "alice.approver.key", None)
    (tmp_path / "request.json").write_bytes(REQUEST.to_bytes())
    return tmp_path


@pytest.fixture
def approve(folder: Path) -> Callable[..., int]:
    def run(request: str = "request.json", **more: Any) -> int:
        asked: dict[str, Any] = {"yes": True, "find": nowhere, "approvers": {}, "as_json": False, **more}
        name = request if request in ("-", "0123456789ab", "f" * 12) else str(folder / request)
        return command.approve(name, folder / "alice.approver.key", **asked)

    return run


def checked(token: str, folder: Path, request: RestoreRequest = REQUEST) -> str:
    key = public_key_of(folder / "alice.approver.key")
    return verify(token, request, {"alice": key}, request.token_life).approver


def test_the_token_alone_is_on_standard_output(
    folder: Path, approve: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert approve() == 0
    told = capsys.readouterr()
    token = told.out.removesuffix("\n")
    assert "\n" not in token
    assert checked(token, folder) == "alice"
    assert token not in told.err


def test_the_token_as_json(
    folder: Path, approve: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    approve(as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["request", "token", "expires"]
    assert document["request"] == REQUEST.request
    assert checked(document["token"], folder) == "alice"
    now = datetime.now(UTC)
    assert now < datetime.fromisoformat(document["expires"]) <= now + timedelta(seconds=900)


def test_everything_that_is_approved_is_shown(
    approve: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    approve()
    shown = capsys.readouterr().err
    for text in (
        "0123456789ab",
        "shop/20251019_020000 (postgres)",
        "5 hours ago",
        "1.2 GB; 9.0 GB unpacked",
        "5" * 64,
        "proven: restored on trial",
        "shop: PostgreSQL 16.4 at db.example:5432/shop",
        "postgresql://db.example:5432/shop",
        "swap: replaces the live database, which is kept beside it for undo",
        "4.3 GB that are there now",
        "made first",
        "someone dropped orders",
        "carol, from account carol@web1",
        " minutes ago",
        "within 15 minutes",
        REQUEST.digest,
    ):
        assert text in shown
    assert "danger" not in shown
    assert "mind " not in shown


@pytest.mark.parametrize(
    ("change", "grade", "what"),
    [
        ({"safety_backup": False}, "danger", "what is replaced is NOT backed up first"),
        ({"mode": "in-place", "safety_backup": False}, "danger", "cannot be put back by undo"),
        ({"wanted": replace(REQUEST.wanted, proof="broken")}, "danger", "the backup is broken"),
        ({"wanted": replace(REQUEST.wanted, proof="unverified")}, "danger", "the backup is unverified"),
        ({"wanted": replace(REQUEST.wanted, proof="odd")}, "danger", "nobody knows whether it restores"),
        ({"wanted": replace(REQUEST.wanted, proof="stored")}, "mind", "never restored on trial"),
        ({"wanted": replace(REQUEST.wanted, created=ago(days=8))}, "mind", "8 days old"),
        (
            {"into": replace(REQUEST.into, database="crm")},
            "danger",
            "a backup of 'shop', and goes into 'crm'",
        ),
        ({"into": replace(REQUEST.into, database=None)}, "danger", "into a database that is not configured"),
    ],
)
def test_what_is_dangerous_stands_out(
    folder: Path,
    approve: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    grade: str,
    what: str,
) -> None:
    request = replace(REQUEST, **change)
    (folder / "request.json").write_bytes(request.to_bytes())
    approve()
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.strip().startswith(("danger", "mind"))]
    assert [grade for line in lines if what in line and line.strip().startswith(grade)] == [grade]
    assert checked(told.out.strip(), folder, request) == "alice"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            {"mode": "new", "into": replace(REQUEST.into, replaces=None, database=None)},
            "makes a new database",
        ),
        (
            {"mode": "schema", "tables": ("public.orders",), "schemas": ("crm",)},
            "public.orders, all of schema crm",
        ),
        ({"create_roles": True}, "made where they are missing"),
        ({"into": replace(REQUEST.into, url="postgresql://me@h/shop")}, "postgresql://me@h/shop"),
    ],
)
def test_what_else_is_wanted_is_shown(
    change: dict[str, Any], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command.show(replace(REQUEST, **change))
    assert what in capsys.readouterr().err


def test_nothing_shown_commands_the_terminal_or_looks_like_another_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = replace(
        REQUEST,
        reason="[bold]x[/] \x1b[2J\u202e",
        into=replace(REQUEST.into, database="shop\n  safety backup made"),
    )
    command.show(request)
    shown = capsys.readouterr().err
    assert "[bold]x[/] \\x1b[2J\\u202e" in shown
    assert "shop\\n  safety backup made" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)


# Where the document comes from


def test_an_id_is_looked_up(
    folder: Path, approve: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    found = {REQUEST.request: REQUEST}
    approve("0123456789ab", find=found.__getitem__)
    assert checked(capsys.readouterr().out.strip(), folder) == "alice"
    with pytest.raises(NotFoundError):
        approve("ffffffffffff")


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", IntegrityError), (b"{}", IntegrityError), (REQUEST.to_bytes() + b" " * (1 << 20), IntegrityError)],
)
def test_a_document_that_is_none_is_told(
    folder: Path, approve: Callable[..., int], content: bytes, error: type[LarderError]
) -> None:
    (folder / "request.json").write_bytes(content)
    with pytest.raises(error):
        approve()


def test_a_file_that_cannot_be_read_is_told(folder: Path, approve: Callable[..., int]) -> None:
    with pytest.raises(NotFoundError, match="unable to find request"):
        approve("absent.json")
    with pytest.raises(ConfigurationError, match="is a directory"):
        approve(".")
    with pytest.raises(ConfigurationError, match="unable to read request"):
        approve("a\0b")


# What is not signed


def test_an_expired_request_is_refused(
    folder: Path, approve: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "request.json").write_bytes(replace(REQUEST, expires=ago(seconds=1)).to_bytes())
    with pytest.raises(NotAuthorisedError, match="the request expired at"):
        approve()
    assert capsys.readouterr().out == ""


def test_ones_own_request_is_refused_where_it_can_be_known(folder: Path, approve: Callable[..., int]) -> None:
    (folder / "request.json").write_bytes(replace(REQUEST, requester="Alice").to_bytes())
    approvers = {"alice": public_key_of(folder / "alice.approver.key")}
    with pytest.raises(NotAuthorisedError, match="'alice' asked for it"):
        approve(approvers=approvers)
    assert approve(approvers={"alicia": approvers["alice"]}) == 0


def test_a_key_that_workers_will_not_take_is_told(
    folder: Path, approve: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    approve(approvers={"bob": "A" * 43 + "="})
    assert "this key is no approver's in the configuration here" in capsys.readouterr().err


# At a terminal

COMMAND = ("restore", "approve", "--key", "alice.approver.key")


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    create(tmp_path / "alice.approver.key", "correct horse")
    (tmp_path / "request.json").write_bytes(REQUEST.to_bytes())
    return tmp_path


def test_a_yes_and_the_passphrase_are_typed_though_the_document_is_piped(locked: Path) -> None:
    done = terminals.run(
        [*COMMAND, "-"],
        locked,
        [("Type yes", "yes"), ("Passphrase of alice.approver.key: ", "correct horse")],
        stdin=REQUEST.to_bytes(),
    )
    assert done.code == 0, done.stderr
    assert checked(done.stdout.removesuffix("\n"), locked) == "alice"
    assert "correct" not in done.stderr + done.screen


@pytest.mark.parametrize("answer", ["no", "yes please", "\x04"])
def test_anything_but_yes_signs_nothing(locked: Path, answer: str) -> None:
    done = terminals.run([*COMMAND, "request.json"], locked, [("Type yes", answer)])
    assert (done.code, done.stdout) == (1, "")
    assert "the answer was not yes" in done.stderr
    assert "Passphrase" not in done.screen


def test_a_wrong_passphrase_signs_nothing(locked: Path) -> None:
    done = terminals.run([*COMMAND, "request.json", "--yes"], locked, [("Passphrase of", "wrong horse")])
    assert (done.code, done.stdout) == (2, "")
    assert "the passphrase is wrong" in done.stderr
    assert "wrong horse" not in done.stderr + done.screen


def test_without_a_terminal_nothing_is_approved(locked: Path) -> None:
    for yes in ([], ["--yes"]):
        done = terminals.run(
            [*COMMAND, "request.json", *yes],
            locked,
            stdin=b"yes\ncorrect horse\n",
            terminal=False,
        )
        assert (done.code, done.stdout) == (2, "")
        assert "there is no terminal" in done.stderr
