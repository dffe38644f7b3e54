"""`larder audit`: who did what about restores, and the proof that nobody has changed that record."""

from __future__ import annotations

from dataclasses import asdict

from console import output
from tasks import context


def verify(expected: str | None, *, as_json: bool) -> int:
    """See that every row is as it was written; gives the exit code. Raises `IntegrityError`."""
    count, last = context.ledger().audit.verify(expected)
    if as_json:
        output.print_json({"rows": count, "hash": last})
    else:
        output.out.print(f"[green]{count} rows[/], each as it was written; the last one's hash is {last}")
    return 0


def print_rows(request_id: str | None, *, as_json: bool) -> int:
    """Print the trail, oldest first; gives the exit code."""
    rows = context.ledger().audit.read(request_id)
    if as_json:
        output.print_json([asdict(row) for row in rows])
        return 0
    output.print_table(
        ("", "at (UTC)", "event", "request", "by", ""),
        [
            (
                row.number,
                row.moment[:19].replace("T", " "),
                row.event,
                row.request or "-",
                row.actor,
                ", ".join(f"{key} {value}" for key, value in row.facts.items() if value not in (None, "")),
            )
            for row in rows
        ],
    )
    return 0
