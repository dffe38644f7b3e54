"""What restores look like to people: a plan, a request."""

from __future__ import annotations

from collections.abc import Sequence

from console import documents, output
from console.output import escape
from larder.ledger.requests import Request
from larder.progress import human_seconds, human_size
from larder.restore_plan import Outline
from larder.restore_request import RestoreRequest
from tasks import context

#: What modes do, for people.
_MODES = {
    "swap": "builds the new database beside the live one, then exchanges their names",
    "in-place": "replaces the contents of the live database in one transaction",
    "new": "makes a database that does not exist yet; nothing is replaced",
    "schema": "adds schemas of their own to the live database; nothing is replaced",
}


def sentence(document: RestoreRequest) -> str:
    """A request in one line."""
    return f"{document.wanted.backup} into {document.into.description} ({document.mode})"


def print_plan(planned: Outline, estimate: tuple[float, int] | None) -> None:
    """What a restore would do. `estimate` is its time in seconds, and by how many earlier ones that is known."""
    wish, manifest, found = planned.wish, planned.manifest, planned.found
    facts: list[tuple[str, str]] = [
        ("backup", f"{manifest.backup}, {output.age(manifest.created_at)} old, {planned.shelved.proof}"),
        ("size", f"{human_size(manifest.artifact.size)}, {human_size(manifest.raw.size)} when decoded"),
        ("into", found.description if found else documents.address_of(planned)),
        ("mode", f"{wish.mode}: {_MODES[wish.mode]}"),
    ]
    if found and found.exists:
        word = "replaces" if wish.mode in ("swap", "in-place") else "there is"
        facts.append((word, f"{human_size(found.size or 0)}, {_sessions(found.sessions)}"))
    if found and found.free is not None:
        facts.append(("free there", human_size(found.free)))
    facts.append(("safety backup", ", ".join(planned.safety_in) or _no_safety(planned)))
    facts.append(("steps", " → ".join(documents.plan_steps(planned))))
    facts.append(("takes", _takes(estimate)))
    facts.append(("approvers", ", ".join(context.settings().approvers) or "none"))
    width = max(len(name) for name, _ in facts)
    for name, text in facts:
        output.out.print(f"[bold]{name:<{width}}[/]  {escape(text)}")
    for warning in planned.warnings:
        output.out.print(f"[yellow]warning:[/] {escape(warning)}")
    for reason in planned.refusals:
        output.out.print(f"[bold red]would be refused:[/] {escape(reason.message)}")
        if reason.hint:
            output.out.print(f"[yellow]HINT:[/] {escape(reason.hint)}")
    if not planned.refusals:
        output.out.print("[green]Nothing stands in its way.[/] Nothing was touched.")


def _no_safety(planned: Outline) -> str:
    there = planned.found is not None and planned.found.exists
    replaces = there and planned.wish.mode in ("swap", "in-place")
    return "NONE is made of what is replaced" if replaces else "none: nothing is replaced"


def _sessions(sessions: Sequence[str]) -> str:
    return f"in use by {'; '.join(sessions)}" if sessions else "in use by nobody"


def _takes(estimate: tuple[float, int] | None) -> str:
    if estimate is None:
        return "nobody knows: nothing was restored into it before"
    seconds, count = estimate
    return f"about {human_seconds(seconds)}, by {count} earlier restore{'' if count == 1 else 's'}"


def print_request(found: Request) -> None:
    """Everything about one request, with its part of the audit trail."""
    document = found.document
    facts = [
        ("request", f"{found.id}, {documents.state_of(found)}"),
        ("backup", f"{found.backup}, of {document.wanted.created}, {document.wanted.proof}"),
        ("into", document.into.description),
        ("mode", f"{document.mode}: {_MODES[document.mode]}"),
        ("reason", document.reason),
        ("asked by", f"{document.requester} ({document.account}) at {document.requested}"),
        ("run", found.run or "-"),
        ("note", found.note or "-"),
    ]
    for name, text in facts:
        output.out.print(f"[bold]{name:<9}[/] {escape(text)}")
    for entry in context.ledger().audit.read(found.id):
        told = ", ".join(f"{key} {value}" for key, value in entry.facts.items() if value)
        output.out.print(
            f"[dim]{entry.moment[:19]}[/] {escape(entry.event)} by {escape(entry.actor)}  {escape(told)}"
        )
