"""Trust: whose signatures count. That a signature fits, `larder.signing` has seen before.

With signers in the configuration, those alone are trusted. Without, the keys that the caller has met count, which are
those of the ledger's own hosts: a stranger's shows, unless it was there first. With neither, nothing can be said.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Trust:
    """The keys that are trusted, each a raw public key in base64."""

    #: The configuration's signers: the public key of each name.
    configured: Mapping[str, str] = field(default_factory=dict)
    #: Keys that were met before. They count only where no signer is configured.
    known: Collection[str] = ()

    def problem(self, key: str) -> str | None:
        """What is wrong with something that `key` signed, as a clause; None where nothing is, or can be said."""
        trusted = self.configured.values() if self.configured else self.known
        if not trusted or key in trusted:
            return None
        return f"it is signed by the unknown key {key[:8]}…{key[-4:]} ({self._instead()})"

    def _instead(self) -> str:
        if self.configured:
            return f"configured are: {', '.join(self.configured)}"
        return (
            "no host of this ledger signs with it; larder catalog rebuild, or [signers.NAME], makes it known"
        )
