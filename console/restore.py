"""`larder restore plan|request|run|undo|deny|list`: a restore from the wish to its end, and back."""

from __future__ import annotations

import getpass
import os
import pwd
import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from console import catalogue, documents, output, restore_shown
from console.follow import follow
from console.interruption import interruptible
from console.output import escape
from larder import restore_plan
from larder.errors import ConfigurationError, InterruptedByOperator, LarderError, NotAuthorisedError
from larder.ledger.requests import Request
from larder.ledger.runs import Run
from larder.manifest_fields import TIME
from larder.progress import human_seconds
from larder.restore_plan import Outline, Wish
from larder.restore_request import RestoreRequest
from tasks import context

#: Bytes of what is read as a token at most.
_LARGEST_TOKEN = 1 << 16

#: Steps that are not stopped half-way.
_TO_THE_END = ("swap", "migrate", "notify")


def plan(backup_id: str, wish: Wish, *, as_json: bool) -> int:
    """Print what a restore would do, and every reason why it would be refused; gives the first one's exit code."""
    planned = _outline(backup_id, wish)
    estimate = restore_plan.seconds_by_earlier(
        context.ledger(), planned.target.name, planned.manifest.raw.size
    )
    if as_json:
        output.print_json(documents.of_plan(planned, context.settings(), estimate))
    else:
        restore_shown.print_plan(planned, estimate)
    return planned.refusals[0].exit_code if planned.refusals else 0


def request(backup_id: str, wish: Wish, reason: str, requester: str | None, *, as_json: bool) -> int:
    """Ask for a restore: write the request down, and print it; gives the exit code."""
    planned = _outline(backup_id, wish)
    who, account = _who(requester)
    document = restore_plan.document_of(context.settings(), planned, reason, who, account, context.host())
    ledger = context.ledger()
    entry = planned.shelved.entry
    if entry is not None and entry.good:
        # The worker looks for copies in the ledger, which may be younger than the stores.
        keys = {name: one.artifact_key for name, one in planned.shelved.copies.items() if one.good}
        ledger.backups.adopt(planned.manifest, keys)
    found = ledger.requests.create(document, document.into.database or planned.manifest.database)
    for warning in planned.warnings:
        output.err.print(f"[yellow]warning:[/] {escape(warning)}")
    if as_json:
        output.print_json(document.to_dict())
    # Whoever sends the document into a file has not seen its id.
    line = output.err if as_json else output.out
    line.print(f"[bold]{found.id}[/]  {escape(restore_shown.sentence(document))}")
    output.err.print(
        f"[dim]It waits for an approval until {document.expires}. An approver runs\n"
        f"  larder restore approve {found.id} --key NAME.approver.key\n"
        "or, on a machine of their own, the same with the document: larder restore list "
        f"{found.id} --json > request.json\nThen: larder restore run {found.id} --token -[/]"
    )
    from tasks import telling  # noqa: PLC0415 - brings Celery, which the other commands do without

    for problem in telling.asked(context.settings(), document, found.database):
        output.err.print(f"[yellow]warning:[/] {escape(problem)}")
    return 0


def run(request_id: str, token: str, *, wait: bool, as_json: bool) -> int:
    """Hand in an approval, and have the restore done; gives the exit code that it ended with.

    The token goes to the ledger from here, as its hash: no message has it.
    """
    settings = context.settings()
    if not wait and settings.redis_url is None:
        raise ConfigurationError(
            "unable to leave a restore to workers: REDIS_URL is not set",
            "leave --no-wait out, or set REDIS_URL",
        )
    text = _read_token(token)
    from tasks import restore  # noqa: PLC0415 - brings Celery, which the other commands do without

    return _carry_out(lambda: restore.start(request_id, text, _account()), wait=wait, as_json=as_json)


def undo(request_id: str, *, yes: bool, as_json: bool) -> int:
    """Bring back what a restore replaced; gives the exit code."""
    ledger = context.ledger()
    before = ledger.requests.get(request_id)
    if not before.undoable:
        raise NotAuthorisedError(
            f"unable to undo request {request_id}: {_past_undoing(before)}",
            "larder restore list shows what can be undone",
        )
    document = _undoing(before)
    what = before.kept.name if before.kept else f"the safety backup {before.safety}"
    output.err.print(
        f"Undoing request {before.id}: {escape(what)} becomes {escape(before.document.into.description)} again."
    )
    place = "beside" if before.kept else "in another safety backup"
    output.err.print(
        f"[yellow]What was written there since the restore is kept {place}, and is live no longer.[/]"
    )
    if not yes and not click.confirm("Go on?", err=True):
        raise InterruptedByOperator("stopped: nothing was changed")
    from tasks import undo as task  # noqa: PLC0415

    return _carry_out(lambda: task.start(before, document, _account()), wait=True, as_json=as_json)


def _past_undoing(before: Request) -> str:
    if before.state != "done":
        return f"it is {documents.state_of(before)}"
    if before.document.into.replaces is None or before.document.mode in ("new", "schema"):
        return "it replaced nothing, so there is nothing to bring back"
    return "what it replaced is kept no longer"


def deny(request_id: str, reason: str, *, as_json: bool) -> int:
    """Refuse a request for good; gives the exit code."""
    found = context.ledger().requests.deny(request_id, _account(), reason)
    if as_json:
        output.print_json(documents.of_request(found, context.ledger()))
    else:
        output.out.print(f"[bold]{found.id}[/] is denied: nobody can approve it any more")
    return 0


def print_requests(request_id: str | None, *, as_json: bool) -> int:
    """Print the newest requests, or one with its document; gives the exit code."""
    ledger = context.ledger()
    if request_id is not None:
        found = ledger.requests.get(request_id)
        output.print_json(found.document.to_dict()) if as_json else restore_shown.print_request(found)
        return 0
    requests = ledger.requests.latest()
    if as_json:
        output.print_json([documents.of_request(one, ledger) for one in requests])
        return 0
    rows = [
        (
            one.id,
            documents.state_of(one),
            one.backup,
            one.document.into.database or one.document.into.address,
            one.document.mode if one.undoes is None else f"undo of {one.undoes}",
            one.document.requester,
            output.moment(one.requested),
            f"until {output.moment(one.kept_until)}" if one.undoable else "",
        )
        for one in requests
    ]
    headings = ("request", "state", "backup", "into", "mode", "asked by", "at (UTC)", "can be undone")
    output.print_table(headings, rows)
    return 0


def _outline(backup_id: str, wish: Wish) -> Outline:
    found = catalogue.read(None)
    planned = restore_plan.outline(context.settings(), catalogue.find(found, backup_id, good=True), wish)
    for request in context.ledger().requests.latest():
        if request.safety == planned.manifest.backup:
            # `latest` leads to it after every restore: to the very state that somebody wanted to get rid of.
            told = f"this is the safety backup of restore {request.id}: what was there before that restore"
            return replace(planned, warnings=(*planned.warnings, told))
    return planned


def _carry_out(begin: Callable[[], Run], *, wait: bool, as_json: bool) -> int:
    settings = context.settings()
    if settings.redis_url is None:
        ended = _on_this_machine(begin)
    else:
        ended = _sent(begin)
        if wait:
            (ended,) = follow(context.ledger(), [ended.id])
    _report(ended, as_json=as_json)
    return documents.exit_code(ended)


def _sent(begin: Callable[[], Run]) -> Run:
    from workers.celery import app  # noqa: PLC0415

    app.set_current()
    return begin()


def _on_this_machine(begin: Callable[[], Run]) -> Run:
    from workers.embedded import embedded  # noqa: PLC0415 - only this mode needs it

    with embedded(context.settings(), concurrency=min(2, os.cpu_count() or 1)) as stack:
        context.ledger().runs.alone = True
        begun = _sent(begin)
        try:
            with interruptible("larder restore list says how it ended; to do it again takes a new request"):
                (ended,) = follow(context.ledger(), [begun.id], stack.raise_if_dead)
        except BaseException as error:
            run = context.ledger().runs.get(begun.id)
            if run.step not in _TO_THE_END or run.over:
                stack.kill()
                _abandon(run, error)
                raise
            # Names are being exchanged, or have been: what is kept has to be written down.
            output.err.print("[yellow]too late to stop: the swap has begun, and goes on to its end[/]")
            (ended,) = follow(context.ledger(), [begun.id], stack.raise_if_dead)
        return ended


def _abandon(run: Run, error: BaseException) -> None:
    from tasks import closing  # noqa: PLC0415 - brings Celery

    reason = error if isinstance(error, LarderError) else LarderError(f"stopped: {type(error).__name__}")
    closing.abandon(context.ledger().requests.of_run(run.id), run.id, reason)


def _report(ended: Run, *, as_json: bool) -> None:
    ledger = context.ledger()
    found = ledger.requests.of_run(ended.id)
    if as_json:
        output.print_json(documents.of_restore(ended, found, ledger))
    elif ended.state == "failed":
        output.print_error(LarderError(documents.failure_of(ended), ended.hint or ""))
    elif ended.state == "done":
        into = found.document.into.description
        how = f"undone {found.undoes}" if found.undoes else f"restored {found.backup}"
        where = f": {into} is as it was before it" if found.undoes else f" into {into}"
        output.out.print(f"[bold green]{escape(how)}[/]{escape(where)}, in {human_seconds(ended.seconds)}")
    else:
        output.out.print(f"queued as run {ended.id}; follow it with: larder watch {ended.id}")


def _undoing(before: Request) -> RestoreRequest:
    """The document of what takes a request back: names exchanged once more, or the safety backup in place."""
    document, now = before.document, datetime.now(UTC)
    wanted = document.wanted
    if before.kept is None:
        shelf = catalogue.read(None)
        wanted = restore_plan.wanted_of(catalogue.find(shelf, before.safety or "", good=True))
    who, account = _who(None)
    return replace(
        document,
        request=secrets.token_hex(6),
        wanted=wanted,
        reason=f"undo of request {before.id}",
        requester=who,
        account=account,
        requested=now.strftime(TIME),
        expires=(now + timedelta(hours=1)).strftime(TIME),
    )


def _who(requester: str | None) -> tuple[str, str]:
    """The name that somebody goes by, and the account that they say it from: neither may approve."""
    return requester or os.environ.get("SUDO_USER") or getpass.getuser(), _account()


def _account() -> str:
    """`alice@web1`, by the system's own word: what the environment says is anybody's."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    if os.getuid() == 0 and os.environ.get("SUDO_USER"):
        name = os.environ["SUDO_USER"]
    return f"{name}@{socket.gethostname()}"


def _read_token(where: str) -> str:
    """The token, from standard input or a file. On the command line everybody on the machine could read it."""
    if where.count(".") == 2 and "/" not in where and len(where) > 200:
        raise ConfigurationError(
            "unable to take a token from the command line: everybody on this machine can read it there",
            "larder restore run REQUEST --token -, and paste it",
        )
    if where == "-":
        if sys.stdin.isatty():
            output.err.print("Paste the token, and press Enter:")
            return sys.stdin.readline(_LARGEST_TOKEN).strip()
        return sys.stdin.read(_LARGEST_TOKEN).strip()
    try:
        return Path(where).read_text(encoding="ascii", errors="replace")[:_LARGEST_TOKEN].strip()
    except OSError as error:
        raise ConfigurationError(
            f"unable to read the token from {where}: {(error.strerror or str(error)).lower()}"
        ) from None
