"""The commands of evidence: what they are called, and what they say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from console.root import command, main


@command("evidence", click.Group())
@click.option("--from", "start", metavar="TIME", help="The first moment that counts; 30 days before --to.")
@click.option("--to", "end", metavar="TIME", help="The first moment that does not any more; now.")
@click.option(
    "--out",
    metavar="FOLDER|FILE",
    type=click.Path(path_type=Path),
    help="Where to: a folder, or a name that ends in .json; here.",
)
def _make(*, start: str | None, end: str | None, out: Path | None, as_json: bool) -> int:
    """Write a signed account of a period, for an auditor.

    It is a JSON document, and a report of it to read. It holds every backup and where its copies are, what was
    deleted and why, drills and their results, restores with who asked and who approved, the audit trail, missed
    objectives, failed runs, and the keys in force. The signature covers both files. TIME is 2026-10-01 or
    2026-10-01T12:00:00Z, in UTC where it says no zone. No file is overwritten.

    \b
    Examples:
      larder evidence --from 2026-10-01 --to 2026-11-01
      larder evidence --out /media/auditor --json
      larder evidence verify evidence_2026-10-01_2026-11-01.json
    """
    from console import evidence

    return evidence.make(start, end, out, as_json=as_json)


@click.pass_context
def _begin(context: click.Context, /, **arguments: Any) -> None:
    """Make evidence, where no command was named that does something else with it."""
    if context.invoked_subcommand is None:
        assert _make.callback is not None  # noqa: S101 - every command has one
        _make.callback(**arguments)
    elif any(arguments.values()):
        raise click.UsageError(
            f"options go behind the command: larder evidence {context.invoked_subcommand} …"
        )


_evidence = click.Group(
    "evidence", callback=_begin, params=_make.params, help=_make.help, invoke_without_command=True
)
main.add_command(_evidence)


@command("verify", _evidence)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--key", "keys", metavar="BASE64", multiple=True, help="Trust this signer's key, and no other.")
def _verify(file: Path, *, keys: tuple[str, ...], as_json: bool) -> int:
    """See that evidence is as it was signed, and by whom. Needs neither ledger nor configuration where --key is given.

    The report beside it is compared too. Sums and the hashes of the audit trail are calculated again. Without
    --key, the configured signers are trusted, or else those that the ledger knows. Exits with 5 where anything was
    altered, or the key is not trusted.

    \b
    Examples:
      larder evidence verify evidence_2026-10-01_2026-11-01.json
      larder evidence verify evidence.json --key q0YWpp37gJf+RQkOIDmprLJ+aS/XtACcCdW3AZUDvdw=
    """
    from console import evidence

    return evidence.verify(file, keys, as_json=as_json)
