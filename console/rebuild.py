"""`larder catalog rebuild`: a ledger that knows nothing learns from the stores what there is."""

from __future__ import annotations

from console import catalogue, output
from console.output import escape
from larder import rebuild
from larder.errors import IntegrityError
from larder.rebuild import Rebuilt
from tasks import context


def rebuild_catalog(store: str | None, *, as_json: bool) -> int:
    """Take up what the stores hold into the ledger, and print it; gives the exit code."""
    found = rebuild.rebuild(context.settings(), context.ledger(), store=store)
    for error in found.shelf.unreachable.values():
        output.print_error(error)
    kept = [one for one in found.shelf.backups if one.copies]
    problems = [
        f"{one.backup}: {problem}" for one in kept for problem in one.problems if one.backup not in found.gaps
    ]
    if as_json:
        output.print_json(
            {
                "backups": len(kept),
                "copies": sum(found.copies.values()),
                "databases": {name: len(found.shelf.of(name)) for name in sorted(found.copies)},
                "new_signers": found.new_signers,
                "gaps": list(found.gaps),
                "problems": problems,
                "foreign": list(found.shelf.foreign),
            }
        )
    else:
        _print(found, len(kept), problems)
    if problems:
        return IntegrityError.exit_code
    return catalogue.exit_code(found.shelf, [])


def _print(found: Rebuilt, backups: int, problems: list[str]) -> None:
    names = escape(", ".join(sorted(found.copies))) or "none"
    output.out.print(
        f"backups: {backups}, in so many copies: {sum(found.copies.values())}, of these databases: {names}"
    )
    for key, host in found.new_signers.items():
        output.out.print(
            f"  [yellow]trusted from now on:[/] {escape(key)}, which signed on {escape(host)}. "
            "Put it under \\[signers.NAME] in larder.toml if you know it"
        )
    for backup in found.gaps:
        output.out.print(
            f"  [yellow]gone:[/] {escape(backup)}: the ledger or a later backup knows a copy, and it is not there. "
            "Rotation may have deleted it, or somebody else; nobody will be told again"
        )
    for problem in problems:
        output.out.print(f"  [red]broken[/] {escape(problem)}")
    catalogue.print_foreign(found.shelf)
    if backups:
        output.out.print("The bytes have not been read: larder verify --all does that")
    else:
        stores = escape(", ".join(context.settings().stores))
        output.out.print(
            f"nothing was found in: {stores}. See BACKUP_S3_BUCKET, BACKUP_DIR, or \\[stores.NAME]"
        )
