"""Rebuilding the ledger from what the stores hold: a new machine needs their credentials and nothing else.

The manifests are the truth about backups. One that is signed and lies beside its artifact was put there by a worker
after the artifact had been read back: such a backup counts as stored, and its copies as not read yet by this ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from larder import shelf
from larder.ledger import Ledger
from larder.settings import Settings
from larder.shelf import Shelf, Shelved
from larder.trust import Trust


@dataclass(frozen=True)
class Rebuilt:
    """What was found, and is in the ledger now."""

    shelf: Shelf
    #: How many copies each database has.
    copies: dict[str, int]
    #: Keys that were trusted because nobody has said which are to be, by the host that signed.
    new_signers: dict[str, str]
    #: Backups that a later manifest names, and that are in no store: nobody here knows who removed them.
    gaps: tuple[str, ...]


def rebuild(settings: Settings, ledger: Ledger, *, store: str | None = None) -> Rebuilt:
    """Take up every good backup of every store, or of one, into the ledger. Doing it again changes nothing.

    Raises what reading the only store raises.
    """
    trust = Trust(settings.signer_keys, ledger.signers.known())
    found = shelf.read(settings, ledger, trust, store=store)
    adopted = [one for one in found.backups if one.copies]
    copies: dict[str, int] = {}
    for one in adopted:
        for name, entry in one.copies.items():
            if entry.manifest is not None and entry.good:
                ledger.backups.adopt(entry.manifest, {name: entry.artifact_key})
                copies[one.database] = copies.get(one.database, 0) + 1
        if one.pinned:
            ledger.backups.set_pinned(one.backup, pinned=True)
    nobody_said = not settings.signer_keys and not trust.known
    return Rebuilt(
        shelf=found,
        copies=copies,
        new_signers=_adopt_signers(ledger, adopted) if nobody_said else {},
        gaps=_accept_gaps(ledger, found),
    )


def _adopt_signers(ledger: Ledger, adopted: Iterable[Shelved]) -> dict[str, str]:
    signers = {}
    for one in adopted:
        for entry in one.copies.values():
            if entry.manifest is not None and entry.good:
                key = entry.manifest.signature.key
                signers[key] = entry.manifest.host
                ledger.signers.remember(key, entry.manifest.host)
    return signers


def _accept_gaps(ledger: Ledger, found: Shelf) -> tuple[str, ...]:
    """Note backups that are gone, so that nobody is alarmed for ever: the operator is told of them once, here."""
    gaps = [one for one in found.backups if not one.copies and one.known is None]
    for one in gaps:
        ledger.backups.forget("", [one.backup], "missing when the ledger was rebuilt")
    return tuple(one.backup for one in gaps)
