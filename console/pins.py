"""`larder pin` and `larder unpin`: a backup that stays, whatever the retention policy says."""

from __future__ import annotations

from datetime import UTC, datetime

from console import catalogue, output
from console.output import escape
from larder import pins
from larder.catalog import Entry
from larder.errors import LarderError, NotFoundError
from larder.shelf import Shelf
from larder.stores import Store, open_store
from tasks import context


def set_pin(backup_id: str, *, pinned: bool, as_json: bool) -> int:
    """Pin a backup in every store that has a copy, or unpin it there; gives the exit code.

    A store that refuses does not keep the others. Raises `NotFoundError` where there is no such backup.
    """
    found = catalogue.read(None)
    one = catalogue.find(found, backup_id, good=True)
    if not one.copies:
        raise NotFoundError(
            f"unable to find a copy of backup '{one.backup}'", f"larder show {one.backup} says where one was"
        )
    # Those that cannot be read have been named already, and may hold a copy that is not as it should be now.
    unread = _unread(found, one.database)
    code = max((error.exit_code for error in unread), default=0)
    holding = []
    for name, entry in sorted(one.copies.items()):
        now_pinned = pinned
        try:
            _set(open_store(context.settings().stores[name]), entry, pinned=pinned)
        except LarderError as error:
            output.print_error(error)
            code, now_pinned = max(code, error.exit_code), entry.pinned
        if now_pinned:
            holding.append(name)
    if holding or not unread:
        context.ledger().backups.set_pinned(one.backup, pinned=bool(holding))
    if as_json:
        output.print_json({"backup": one.backup, "pinned": bool(holding), "stores": holding})
    elif holding:
        output.out.print(f"[bold]{escape(one.backup)}[/] is pinned in {escape(', '.join(holding))}")
    else:
        output.out.print(f"[bold]{escape(one.backup)}[/] is not pinned")
    return code


def _set(store: Store, entry: Entry, *, pinned: bool) -> None:
    if pinned:
        pins.pin(store, entry, datetime.now(UTC))
    else:
        pins.unpin(store, entry)


def _unread(found: Shelf, database: str) -> list[LarderError]:
    """The errors of stores that could not be read and that may keep copies of `database`."""
    settings = context.settings()
    places = settings.stores_of(settings.databases[database]) if database in settings.databases else ()
    names = {place.name for place in places} or set(found.unreachable)
    return [error for name, error in found.unreachable.items() if name in names]
