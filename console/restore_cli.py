"""The commands of restores and of their audit trail: what they are called, and what they say of themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.root import command, main
from larder.errors import LarderError
from larder.restoring import MODES, Mode

if TYPE_CHECKING:
    from larder.restore_plan import Wish
    from larder.restore_request import RestoreRequest


@main.group("restore")
def _restore() -> None:
    """Bring a backup back, once somebody has approved it.

    It is built beside the live database, exchanged with it at the very end, and can be undone.

    \b
    plan      what would happen, and every reason why it would be refused; touches nothing
    request   ask for it; prints the request
    approve   say yes with a private key; prints a token that is good for this one request, once
    run       hand the token in, and have it done
    undo      bring back what was replaced, for as long as it is kept
    """


def _wish(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the arguments that say what is wanted, and its function a `Wish` of them."""
    options: list[Callable[[Any], Any]] = [
        click.argument("backup_id", metavar="BACKUP"),
        click.option(
            "--into", required=True, metavar="URL|DB", help="A configured database, or a connection string."
        ),
        click.option(
            "--mode",
            type=click.Choice(MODES),
            default="swap",
            show_default=True,
            help="swap: beside the live database, then names are exchanged. in-place: in one transaction, where no "
            "database can be made. new: a database that is not there yet. schema: chosen tables, beside the live ones.",
        ),
        click.option(
            "--table", "tables", multiple=True, metavar="NAME", help="Only this table (directory format)."
        ),
        click.option(
            "--schema", "schemas", multiple=True, metavar="NAME", help="Only this schema (directory format)."
        ),
        click.option("--create-roles", is_flag=True, help="Make the roles that are missing, without login."),
        click.option(
            "--no-safety-backup",
            is_flag=True,
            help="For a database that is too broken to be backed up before.",
        ),
    ]

    @functools.wraps(function)
    def wishing(
        *,
        into: str,
        mode: Mode,
        tables: tuple[str, ...],
        schemas: tuple[str, ...],
        create_roles: bool,
        no_safety_backup: bool,
        **others: Any,
    ) -> int:
        from larder.restore_plan import Wish

        return function(wish=Wish(into, mode, not no_safety_backup, create_roles, tables, schemas), **others)

    made: Callable[..., int] = wishing
    for option in reversed(options):
        made = option(made)
    return made


@command("plan", _restore)
@_wish
def _plan(backup_id: str, *, wish: Wish, as_json: bool) -> int:
    """Show what a restore would do, and why it would be refused.

    With sizes, the time it takes, and every reason at once. Nothing is touched, and no approval is needed. BACKUP
    is DB/20251016_020000 or DB/latest. Exits as the first refusal would.

    \b
    Examples:
      larder restore plan shop/latest --into shop
      larder restore plan shop/20251016_020000 --into shop_copy --mode new
    """
    from console import restore

    return restore.plan(backup_id, wish, as_json=as_json)


@command("request", _restore)
@_wish
@click.option(
    "--reason",
    required=True,
    metavar="TEXT",
    help="Why; the approver reads it, and the audit trail keeps it.",
)
@click.option("--requester", metavar="NAME", help="Who asks; by default whoever is logged in.")
def _request(backup_id: str, *, wish: Wish, reason: str, requester: str | None, as_json: bool) -> int:
    """Ask for a restore. It waits for somebody else to approve it.

    Prints the request's id; with --json the whole document, which an approver needs and nothing else.

    \b
    Examples:
      larder restore request shop/latest --into shop --reason "orders of today are gone"
      larder restore request shop/latest --into shop --reason "…" --json > request.json
    """
    from console import restore

    return restore.request(backup_id, wish, reason, requester, as_json=as_json)


@command("approve", _restore)
@click.argument("request", metavar="REQUEST")
@click.option(
    "--key",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The approver's private key.",
)
@click.option("--yes", is_flag=True, help="Do not ask; for whoever has read the request elsewhere.")
def _approve(request: str, *, key: Path, yes: bool, as_json: bool) -> int:
    """Say yes to a restore, and print the token that proves it.

    The token is alone on standard output. REQUEST is a file with the request's document, - for standard input, or
    an id, which the ledger is asked for. With the document, neither ledger nor Redis nor configuration is needed:
    do it where the key lives.

    \b
    Examples:
      larder restore approve request.json --key alice.approver.key
      larder restore approve 0a1b2c3d4e5f --key alice.approver.key | larder restore run 0a1b2c3d4e5f --token -
    """
    from console import approve

    return approve.approve(request, key, yes=yes, find=_find, approvers=_approvers(), as_json=as_json)


def _find(request_id: str) -> RestoreRequest:
    from tasks import context

    return context.ledger().requests.get(request_id).document


def _approvers() -> dict[str, str]:
    """Those that are configured here, which need be none: an approver's own machine has no configuration."""
    from larder.config import load

    try:
        return load().approver_keys
    except LarderError:
        return {}


@command("deny", _restore)
@click.argument("request_id", metavar="REQUEST")
@click.option("--reason", required=True, metavar="TEXT", help="Why; the audit trail keeps it.")
def _deny(request_id: str, *, reason: str, as_json: bool) -> int:
    """Say no to a restore: no approval of it counts from then on.

    \b
    Example:
      larder restore deny 0a1b2c3d4e5f --reason "the wrong backup"
    """
    from console import restore

    return restore.deny(request_id, reason, as_json=as_json)


@command("run", _restore)
@click.argument("request_id", metavar="REQUEST")
@click.option(
    "--token",
    required=True,
    metavar="-|FILE",
    help="Where the token is read from: standard input, or a file.",
)
@click.option("--no-wait", is_flag=True, help="Leave it to the workers at REDIS_URL, and return at once.")
def _run(request_id: str, *, token: str, no_wait: bool, as_json: bool) -> int:
    """Hand an approval in, and have the restore done.

    The token is checked and spent here; workers get the request's id alone. Exits with 4 where it is not good for
    this very request.

    \b
    Examples:
      larder restore run 0a1b2c3d4e5f --token -
      larder restore run 0a1b2c3d4e5f --token token.txt --json
    """
    from console import restore

    return restore.run(request_id, token, wait=not no_wait, as_json=as_json)


@command("undo", _restore)
@click.argument("request_id", metavar="REQUEST")
@click.option("--yes", is_flag=True, help="Do not ask.")
def _undo(request_id: str, *, yes: bool, as_json: bool) -> int:
    """Bring back what a restore replaced, as long as it is kept.

    That is for keep_replaced, a week unless it is set otherwise. What the restore brought is kept in its turn, so
    that an undo can be undone. An in-place restore is undone by its safety backup, after another one of what is
    there now.

    \b
    Example:
      larder restore undo 0a1b2c3d4e5f
    """
    from console import restore

    return restore.undo(request_id, yes=yes, as_json=as_json)


@command("list", _restore)
@click.argument("request_id", metavar="[REQUEST]", required=False)
def _list(request_id: str | None, *, as_json: bool) -> int:
    """List the newest requests, and until when each can be undone.

    With REQUEST, everything about that one; with --json its document, which an approver needs.

    \b
    Examples:
      larder restore list
      larder restore list 0a1b2c3d4e5f --json > request.json
    """
    from console import restore

    return restore.print_requests(request_id, as_json=as_json)


@main.group("audit")
def _audit() -> None:
    """Read the record of restores, and see that it is unaltered."""


@command("verify", _audit)
@click.option("--expect", "expected", metavar="HASH", help="A row's hash that was written down elsewhere.")
def _verify(*, expected: str | None, as_json: bool) -> int:
    """See that every row is as it was written.

    Each holds the hash of the one before it. Prints the last row's hash. Keep it elsewhere, and name it with
    --expect later: rows that were cut off at the end show by that alone. Exits with 5 where something was changed.

    \b
    Examples:
      larder audit verify
      larder audit verify --expect f61b7d04697be285c56516ec1ea0ae75c204790763003a04a8ee58ff540f62c7
    """
    from console import audit

    return audit.verify(expected, as_json=as_json)


@command("list", _audit)
@click.argument("request_id", metavar="[REQUEST]", required=False)
def _rows(request_id: str | None, *, as_json: bool) -> int:
    """List the rows, oldest first; those of one request, or all.

    \b
    Examples:
      larder audit list
      larder audit list 0a1b2c3d4e5f --json
    """
    from console import audit

    return audit.print_rows(request_id, as_json=as_json)
