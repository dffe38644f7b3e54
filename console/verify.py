"""`larder verify`: copies are read from their stores, through the filters of a restore, to their very end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from console import catalogue, output
from console.output import escape
from larder import codecs, verification
from larder.errors import ConfigurationError, IntegrityError, NotFoundError
from larder.progress import Progress, Report, human_seconds, short_size
from larder.shelf import Shelved
from larder.stores import open_store
from larder.verification import Finding
from tasks import context


def verify(
    backup_id: str | None, store: str | None, identities: Sequence[Path], *, everything: bool, as_json: bool
) -> int:
    """Verify a backup, or all of them, in every store or in one; gives the exit code."""
    if everything == (backup_id is not None):
        said = "a backup and --all were named" if everything else "nothing was named"
        raise ConfigurationError(
            f"unable to tell what to verify: {said}", "name a backup, as shop/latest, or say --all"
        )
    for path in identities:
        codecs.cipher().load_identities(path)
    found = catalogue.read(store)
    shelved = list(found.backups) if backup_id is None else [catalogue.find(found, backup_id)]
    if not shelved:
        raise NotFoundError(
            "unable to find a backup to verify",
            "make one with: larder backup; larder doctor tries the stores",
        )
    keys = [*context.settings().identities, *identities]
    findings = _read(shelved, keys, as_json=as_json)
    missing = _missing(shelved)
    if as_json:
        output.print_json([*map(_document, findings), *missing])
    else:
        for document in missing:
            _print_problem(document["backup"], document["store"], document["problems"])
        _print_sum(findings, len(missing))
    if missing or any(finding.state == "broken" for finding in findings):
        return IntegrityError.exit_code
    unread = [finding.failure.exit_code for finding in findings if finding.failure]
    return max([*unread, catalogue.exit_code(found, [])])


def _read(shelved: Sequence[Shelved], identities: Sequence[Path], *, as_json: bool) -> list[Finding]:
    """Read every copy, and write what was found into the ledger, as it is found."""
    stores = {name: open_store(place) for name, place in context.settings().stores.items()}
    copies = verification.copies_of(shelved, stores)
    ledger = context.ledger()
    findings: list[Finding] = []
    with output.err.status("verifying") as status:

        def watch(report: Report) -> None:
            status.update(f"verifying: {len(findings)} of {len(copies)} copies · {report}")

        progress = Progress(watch, total=sum(copy.size for copy in copies))
        for finding in verification.verify(copies, identities, progress):
            findings.append(finding)
            verification.record(ledger, finding)
            if not as_json:
                # The results go to standard output, which may be the same terminal.
                status.stop()
                _print(finding)
                status.start()
    return findings


def _missing(shelved: Sequence[Shelved]) -> list[dict[str, Any]]:
    """Copies that should be there and are not, and backups that another manifest names."""
    documents = []
    for one in shelved:
        for store, problem in one.faults:
            if store not in one.copies and (store or not one.copies):
                if store:
                    verification.record_gone(context.ledger(), one.backup, store)
                documents.append(
                    {
                        "backup": one.backup,
                        "database": one.database,
                        "store": store or None,
                        "state": "missing",
                        "problems": [problem],
                        "notes": [],
                        "size": None,
                        "seconds": 0.0,
                    }
                )
    return documents


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "backup": finding.copy.backup,
        "database": finding.copy.database,
        "store": finding.copy.store.name,
        "state": finding.state,
        "problems": [*finding.wrong, *([finding.unread.message] if finding.unread else [])],
        "notes": list(finding.notes),
        "size": finding.read,
        "seconds": round(finding.seconds, 3),
    }


def _print(finding: Finding) -> None:
    copy = finding.copy
    if finding.state != "good":
        why = [finding.unread.message] if finding.unread else finding.wrong
        _print_problem(copy.backup, copy.store.name, why)
        return
    output.out.print(
        f"[green]good[/] {escape(copy.backup)} in {escape(copy.store.name)}: "
        f"{short_size(finding.read)} read in {human_seconds(finding.seconds)}"
    )
    for note in finding.notes:
        output.out.print(f"       [yellow]note:[/] {escape(note)}")


def _print_problem(backup: str, store: str | None, problems: Sequence[str]) -> None:
    where = f" in {escape(store)}" if store else ""
    output.out.print(f"[bold red]BAD [/] {escape(backup)}{where}: {escape('; '.join(problems))}")


def _print_sum(findings: Sequence[Finding], missing: int) -> None:
    read = sum(finding.read for finding in findings)
    counts = Counter(finding.state for finding in findings)
    hashed = sum(finding.state == "good" and bool(finding.notes) for finding in findings)
    good = f"{counts['good']} good" + (f" ({hashed} of them not decrypted, only hashed)" if hashed else "")
    rest = [
        f"{count} {word}" for word, count in (("unread", counts["unread"]), ("missing", missing)) if count
    ]
    output.out.print(
        f"{len(findings)} {'copy' if len(findings) == 1 else 'copies'}, {short_size(read)} read: "
        + ", ".join([good, f"{counts['broken']} broken", *rest])
    )
    if counts["broken"] or missing:
        output.err.print(
            "[yellow]HINT:[/] see who can write to the store; keep the damaged copy as evidence; back up again"
        )
