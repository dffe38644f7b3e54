"""checksum: the papers that go with the artifact: its SHA-256 for `sha256sum -c`, and its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import larder
from larder.artifact import Artifact
from larder.databases import Dump, open_database
from larder.errors import IntegrityError
from larder.manifest import Manifest, manifest_of
from larder.naming import manifest_name, sidecar_name
from larder.sidecar import sidecar_text
from larder.streams import durable_file
from tasks import context
from tasks.step import Work, step


@dataclass(frozen=True)
class Papers:
    """The names of the files that `checksum` made."""

    sidecar: str
    manifest: str


@step("checksum")
def checksum(work: Work) -> None:
    """Write the sidecar and the manifest, and read both back."""
    made = work.spool.result("compress", Artifact)
    manifest = _manifest(work, work.spool.result("dump", Dump), made)

    def make(folder: Path) -> Papers:
        papers = Papers(sidecar_name(made.content.name), manifest_name(made.content.name))
        _write(folder / papers.sidecar, sidecar_text(manifest).encode())
        _write(folder / papers.manifest, manifest.to_bytes())
        return papers

    papers = work.spool.once("checksum", work.lease.attempt, Papers, make)
    work.say(f"Checksum created: {papers.sidecar}")
