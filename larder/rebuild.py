"""Rebuilding the ledger from what the stores hold: a new machine needs their credentials and nothing else.

The manifests are the truth about backups. One that is signed and lies beside its artifact was put there by a worker
after the artifact had been read back: such a backup counts as stored, and its copies as not read yet by this ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from larder import shelf
from larder.ledger import Ledger
from larder.ledger.backups import GONE
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
    #: Backups with a copy that is gone, or of which only a later manifest knows: nobody here removed them.
    gaps: tuple[str, ...]


def rebuild(settings: Settings, ledger: Ledger, *, store: str | None = None) -> Rebuilt:
    """Have the ledger know every good backup of every store, or of one, and no other. Doing it again changes nothing.

    What the ledger knew there and is gone, is forgotten. Where no signer is configured, whoever signed is trusted from
    now on. Raises what reading the only store raises.
    """
    trust = Trust(settings.signer_keys)
    found = shelf.read(settings, ledger, trust, store=store, emptied=True)
    copies: dict[str, int] = {}
    for one in found.backups:
        for name, entry in one.copies.items():
            if entry.manifest is not None and entry.good:
                ledger.backups.adopt(entry.manifest, {name: entry.artifact_key})
                copies[one.database] = copies.get(one.database, 0) + 1
        if one.pinned:
            ledger.backups.set_pinned(one.backup, pinned=True)
    signers = {} if settings.signer_keys else _adopt_signers(ledger, found.backups)
    return Rebuilt(found, copies, signers, _accept_gaps(ledger, found))


def _adopt_signers(ledger: Ledger, shelved: Iterable[Shelved]) -> dict[str, str]:
    found = {
        entry.manifest.signature.key: entry.manifest.host
        for one in shelved
        for entry in one.copies.values()
        if entry.manifest is not None and entry.trusted
    }
    return {key: host for key, host in found.items() if ledger.signers.remember(key, host)}


def _accept_gaps(ledger: Ledger, found: Shelf) -> tuple[str, ...]:
    """Note what is gone, so that nobody is alarmed for ever: the operator is told of it once, here."""
    gaps = []
    for one in found.backups:
        gone = [store for store, problem in one.faults if problem == GONE]
        if not one.copies and one.known is None:
            # Which stores it was in, nobody knows.
            gone.append("")
        for store in gone:
            ledger.backups.forget(store, [one.backup], "missing when the ledger was rebuilt")
        if gone:
            gaps.append(one.backup)
    return tuple(gaps)
