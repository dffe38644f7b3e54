"""`larder evidence`: a signed bundle for an auditor, and the proof that nobody has altered one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from console import output
from console.output import escape
from larder import evidence, evidence_check
from larder.errors import ConfigurationError, IntegrityError
from larder.evidence import Period
from larder.evidence_check import Verified
from larder.evidence_gather import gather
from larder.evidence_report import report_of
from larder.fields import bytes_of
from larder.manifest import digest_of
from tasks import context

#: What is looked at where nobody says from when.
_USUAL = timedelta(days=30)

#: Bytes of a raw Ed25519 public key.
_KEY_SIZE = 32

_SQLITE = "sqlite:///"


def make(start: str | None, end: str | None, out: Path | None, *, as_json: bool) -> int:
    """Write the document about a period and its report; gives 5 where the audit trail in it is not whole."""
    now = _end_of_this_second()
    period = _period(start, end, now)
    path, page = evidence.places(period, out)
    signer, ledger, settings = context.signer(), context.ledger(), context.settings()
    ledger.signers.remember(signer.public_key, context.host())
    document = gather(ledger, settings, period, now, context.host())
    report = report_of(document, signer.public_key, path.name)
    sealed = evidence.sealed(document, page.name, report, signer)
    # The document comes last: where it is, its report is too.
    evidence.keep({page: report, path: sealed})
    told = {
        "file": str(path),
        "report": str(page),
        **document["period"],
        "size": len(sealed),
        "sha256": digest_of(sealed),
        "key": signer.public_key,
        "summary": document["summary"],
    }
    if as_json:
        output.print_json(told)
    else:
        _print_made(told)
    if settings.signers and signer.public_key not in settings.signer_keys.values():
        output.err.print(
            "[yellow]warning:[/] this host's signing key is not among the configured signers: "
            f'add [signers.NAME] with public_key = "{signer.public_key}"'
        )
    return _exit_code_of(document["audit"])


def verify(path: Path, keys: Sequence[str], *, as_json: bool) -> int:
    """See that a document is as it was signed, by a key that is trusted; gives the exit code.

    `keys` are the only ones that are trusted, where there are some. Raises `IntegrityError` for an altered document.
    """
    found = evidence_check.verify(path, _trusted(keys))
    if as_json:
        output.print_json(_verified(path, found))
    else:
        _print_verified(path, found)
    return IntegrityError.exit_code if found.problems else 0


def _end_of_this_second() -> datetime:
    """Now, to the second, and waited for: what happened a moment ago counts, and nothing more can happen before it."""
    now = datetime.now(UTC)
    end = now.replace(microsecond=0) + timedelta(seconds=1)
    time.sleep((end - now).total_seconds())
    return end


def _period(start: str | None, end: str | None, now: datetime) -> Period:
    last = evidence.moment_in(end) if end else now
    if last > now:
        raise ConfigurationError(
            f"unable to gather evidence: {evidence.shown(last)} lies ahead, and nobody knows what will be",
            "leave --to out, which means until now",
        )
    return Period(evidence.moment_in(start) if start else last - _USUAL, last)


def _trusted(keys: Sequence[str]) -> Mapping[str, str]:
    """The name of each key that is trusted: those given, or else the configuration's, or else the ledger's."""
    if keys:
        return {_checked(key): "whoever --key is of" for key in keys}
    settings = context.settings()
    if settings.signers:
        return {key: name for name, key in settings.signer_keys.items()}
    address = settings.ledger_url.get_secret_value()
    if address.startswith(_SQLITE) and not Path(address.removeprefix(_SQLITE)).exists():
        # An auditor's own machine has none, and is not to be given one.
        return {}
    return context.ledger().signers.known()


def _checked(key: str) -> str:
    try:
        bytes_of(key, _KEY_SIZE)
    except ValueError as error:
        raise ConfigurationError(
            f"unable to trust the key {key!r}: it {error}", "it stands in the document as signature.key"
        ) from None
    return key


def _exit_code_of(audit: Mapping[str, Any]) -> int:
    if not audit["problem"]:
        return 0
    output.err.print(f"[bold red]The audit trail is not whole:[/] {escape(audit['problem'])}")
    return IntegrityError.exit_code


def _print_made(told: Mapping[str, Any]) -> None:
    output.out.print(f"[green]wrote[/] {escape(told['file'])}\n[green]wrote[/] {escape(told['report'])}")
    output.out.print(f"From {told['from']} until {told['to']}: {_in_words(told['summary'])}")
    output.out.print(
        f"Signed with {escape(told['key'])}. Tell whoever gets it that key by another way; "
        f"the SHA-256 of the document is {told['sha256']}"
    )


def _in_words(summary: Mapping[str, Any]) -> str:
    backups, drills, runs = summary["backups"], summary["drills"], summary["runs"]
    return (
        f"backups: {backups['kept']} kept, {backups['proven']} proven, {backups['broken']} broken; "
        f"runs: {runs['failed_backups']} of {runs['backups']} failed; "
        f"drills: {drills['all']}, {drills['broken']} broken; restores: {summary['restores']['all']}; "
        f"objectives missed: {summary['misses']['all']}"
    )


def _verified(path: Path, found: Verified) -> dict[str, Any]:
    document = found.document
    return {
        "file": str(path),
        "state": "bad" if found.problems else "good",
        **document["period"],
        "made": document["made"],
        "host": document["host"],
        "signed_by": {"key": found.key, "name": found.name, "trusted": found.trusted},
        "report": {"name": found.report, "state": found.report_state},
        "problems": list(found.problems),
        "summary": document["summary"],
    }


def _print_verified(path: Path, found: Verified) -> None:
    document, period = found.document, found.document["period"]
    for problem in found.problems:
        output.out.print(f"[bold red]BAD [/] {escape(path.name)}: {escape(problem)}")
    if not found.problems:
        output.out.print(
            f"[green]good[/] {escape(path.name)}: as it was signed by {escape(found.name or '')}"
        )
    if found.report_state == "missing":
        output.out.print(
            f"[yellow]note:[/] {escape(found.report)} does not lie beside it, and was not looked at"
        )
    output.out.print(
        escape(
            f"From {period['from']} until {period['to']}, made {document['made']} on {document['host']}: "
            f"{_in_words(document['summary'])}"
        )
    )
    if not found.trusted:
        output.err.print(
            "[yellow]HINT:[/] once its owner has told you the key by another way, name it: "
            f"--key {escape(found.key)}, or as [signers.NAME] in larder.toml".replace(
                "[signers", r"\[signers"
            )
        )
