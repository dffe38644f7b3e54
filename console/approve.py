"""`larder restore approve`: show somebody with a key what a restore will do, and sign that.

It needs the request's document and the key, and neither workers, Redis nor ledger: it can be done on the approver's own
machine, and should be.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from console import output, terminal
from console.output import escape
from larder import approval, approver_keys
from larder.errors import ConfigurationError, LarderError, NotAuthorisedError, NotFoundError
from larder.naming import parse_backup_id
from larder.progress import human_size
from larder.restore_request import LARGEST, RestoreRequest
from larder.restoring import Mode

#: Days after which a backup is called old.
OLD_DAYS = 7

#: How warnings are printed: what may destroy something, and what is to be known.
DANGER = "bold red"
MIND = "yellow"

_ID = re.compile(r"[0-9a-f]{12}")

_WORDS: dict[Mode, str] = {
    "swap": "replaces the live database, which is kept beside it for undo",
    "in-place": "overwrites the live database in one transaction; undo restores its safety backup",
    "new": "makes a new database, and touches no other",
    "schema": "puts tables into schemas of their own in the live database, and replaces none",
}

_PROOFS = {
    "proven": "restored on trial, and found complete",
    "stored": "read back from its stores, never restored on trial",
    "unverified": "never read back",
    "broken": "known to be broken",
}


def approve(
    request: str,
    key: Path,
    *,
    yes: bool,
    find: Callable[[str], RestoreRequest],
    approvers: Mapping[str, str],
    as_json: bool,
) -> int:
    """Show what `request` will do, ask, and print the token that says yes to it; gives the exit code.

    `request` is the file of its document, `-` for standard input, or an id that `find` knows. `key` is the file of the
    approver's key; its passphrase is asked for at the terminal, and so is a yes, unless `yes` was said. `approvers`
    are those of a configuration at hand, if there is one: workers look into theirs. Raises `NotAuthorisedError` for a
    request that has expired or is the approver's own, and `ConfigurationError` for the wrong key or passphrase.
    """
    document = _document(request, find)
    if document.expired():
        raise approval.expired(document)
    public_key = approver_keys.public_key_of(key)
    approver = _approver(public_key, approvers)
    if approver is not None and approval.is_own_request(approver, document):
        raise NotAuthorisedError(
            f"unable to approve request '{document.request}': '{approver}' asked for it",
            "somebody else has to approve it",
        )
    show(document)
    if approvers and approver is None:
        fingerprint = approver_keys.fingerprint_of(public_key)
        output.err.print(f"[yellow]this key is no approver's in the configuration here:[/] {fingerprint}")
    if not yes:
        _ask(document)
    opened = approver_keys.load(
        key,
        lambda: terminal.ask_hidden(
            f"Passphrase of {key}: ",
            otherwise="run it at a terminal: a passphrase is typed, and never handed over",
        ),
    )
    token = approval.approve(document, opened)
    _print(document, token, as_json=as_json)
    return 0


def show(request: RestoreRequest, now: datetime | None = None) -> None:
    """Print what `request` will do on standard error, for somebody who has to answer for it, and what is dangerous."""
    now = now or datetime.now(UTC)
    output.err.print(f"[bold]Restore request {escape(request.request)}[/]")
    for word, text in _facts(request, now):
        output.err.print(f"  [dim]{word:<13}[/] {_line(text)}")
    for style, text in warnings(request, now):
        output.err.print(f"  [{style}]{'danger' if style == DANGER else 'mind':<13}[/] {_line(text)}")


def warnings(request: RestoreRequest, now: datetime) -> list[tuple[str, str]]:
    """What is to be thought about twice before `request` is approved: how it is printed, and what it is."""
    found = []
    wanted, into = request.wanted, request.into
    if request.replacing and not request.safety_backup:
        found.append((DANGER, "what is replaced is NOT backed up first"))
    if request.mode == "in-place" and request.replacing and not request.safety_backup:
        found.append((DANGER, "what is overwritten cannot be put back by undo"))
    if wanted.proof != "proven":
        what = _PROOFS.get(wanted.proof, "nobody knows whether it restores")
        found.append((MIND if wanted.proof == "stored" else DANGER, f"the backup is {wanted.proof}: {what}"))
    database, _ = parse_backup_id(wanted.backup)
    if request.mode != "new" and into.database != database:
        where = f"'{into.database}'" if into.database else "a database that is not configured"
        found.append((DANGER, f"it is a backup of '{database}', and goes into {where}"))
    if request.mode == "swap" and request.replacing and not request.keep_replaced:
        found.append((DANGER, "what is replaced is NOT kept: it is dropped within a minute (keep_replaced)"))
    grade = DANGER if request.mode == "in-place" else MIND
    found += [(grade, text) for text in request.warnings]
    created = datetime.fromisoformat(wanted.created)
    if now - created > timedelta(days=OLD_DAYS):
        found.append(
            (MIND, f"the backup is {output.age(created, now)} old: what was written since is not in it")
        )
    return found


def _kept(request: RestoreRequest) -> str:
    """For how long what is replaced can be brought back, and by what."""
    what = "its safety backup" if request.mode == "in-place" else "beside the restored one"
    now = datetime.now(UTC)
    life = output.age(now, now + timedelta(seconds=request.keep_replaced))
    return f"for {life}, {what}" if request.keep_replaced else "no longer than a minute"


def _facts(request: RestoreRequest, now: datetime) -> list[tuple[str, str]]:
    wanted, into = request.wanted, request.into
    created, requested = (datetime.fromisoformat(text) for text in (wanted.created, request.requested))
    replaces = f"{human_size(into.replaces or 0)} that are there now" if request.replacing else "nothing"
    safety = "made first, of what is there now" if request.safety_backup else "NOT made"
    return [
        ("backup", f"{wanted.backup} ({wanted.engine})"),
        ("made", f"{output.moment(created)} UTC, {output.age(created, now)} ago"),
        ("artifact", f"{wanted.artifact}, {human_size(wanted.size)}; {human_size(wanted.raw_size)} unpacked"),
        ("sha256", wanted.sha256),
        ("proof", f"{wanted.proof}: {_PROOFS.get(wanted.proof, 'unknown')}"),
        ("into", f"{into.database or 'not configured'}: {into.description}"),
        ("address", f"{into.address}{f' on host {into.host}' if into.host else ''}"),
        *([("connection", into.url)] if into.url else []),
        ("mode", f"{request.mode}: {_WORDS[request.mode]}"),
        ("replaces", replaces),
        *([("kept", _kept(request))] if request.replacing else []),
        ("safety backup", safety),
        ("roles", "made where they are missing" if request.create_roles else "not made"),
        ("tables", _selected(request)),
        ("reason", request.reason),
        ("asked by", f"{request.requester}, from account {request.account}"),
        ("asked", f"{output.moment(requested)} UTC, {output.age(requested, now)} ago"),
        ("expires", f"{output.moment(request.expires_at)} UTC, in {output.age(now, request.expires_at)}"),
        (
            "approval",
            f"can be used once, within {output.age(now, now + timedelta(seconds=request.token_life))}",
        ),
        ("document", request.digest),
    ]


def _line(text: str) -> str:
    """`text` for printing on one line: nothing in it can look like another fact."""
    return escape(text).replace("\n", "\\n")


def _selected(request: RestoreRequest) -> str:
    if not request.plan.selective:
        return "all"
    return ", ".join([*request.tables, *(f"all of schema {schema}" for schema in request.schemas)])


def _document(request: str, find: Callable[[str], RestoreRequest]) -> RestoreRequest:
    if request == "-":
        return RestoreRequest.from_bytes(_at_most(sys.stdin.buffer))
    if _ID.fullmatch(request):
        return find(request)
    try:
        with Path(request).open("rb") as source:
            return RestoreRequest.from_bytes(_at_most(source))
    except FileNotFoundError:
        raise NotFoundError(
            f"unable to find request '{request}'",
            "name the file of its document, - for standard input, or its id of 12 digits",
        ) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or "it cannot be read"
        raise ConfigurationError(f"unable to read request {request}: {reason.lower()}") from None


def _at_most(source: IO[bytes]) -> bytes:
    """What is in `source`, and no more of it than shows that it is too large."""
    return source.read(LARGEST + 1)


def _approver(public_key: str, approvers: Mapping[str, str]) -> str | None:
    return next((name for name, key in approvers.items() if key == public_key), None)


def _ask(request: RestoreRequest) -> None:
    answer = terminal.ask(
        "Type yes to approve exactly this: ", otherwise="run it at a terminal, or say yes beforehand: --yes"
    )
    if answer.lower() != "yes":
        raise LarderError(
            f"unable to approve request '{request.request}': the answer was not yes", "nothing was signed"
        )


def _print(request: RestoreRequest, token: approval.Token, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"request": request.request, "token": token.text, "expires": token.expires})
        return
    print(token.text)
    output.err.print(
        f"[green]approved[/] until {output.moment(token.expires)} UTC. Whoever has this token can have the restore "
        f"done, once:\n  larder restore run {escape(request.request)} --token -"
    )
