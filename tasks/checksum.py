"""checksum: the papers that go with the artifact: its SHA-256 for `sha256sum -c`, and its signed manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from larder.artifact import Artifact
from larder.databases import Dump
from larder.errors import IntegrityError
from larder.manifest import Manifest, manifest_of, parse_sidecar, sidecar_text
from larder.naming import manifest_name, sidecar_name
from larder.signing import Signer
from larder.streams import durable_file
from tasks import context
from tasks.step import Work, step


@dataclass(frozen=True)
class Papers:
    """The names of the files that `checksum` made."""

    sidecar: str
    manifest: str


@step("checksum", "backup")
def checksum(work: Work) -> None:
    """Write the sidecar and the manifest, which this host signs, and read both back."""

    def make(folder: Path) -> Papers:
        made = work.spool.result("compress", Artifact)
        signer = _signer(work)
        manifest = _manifest(work, made).signed(signer)
        papers = Papers(sidecar_name(made.content.name), manifest_name(made.content.name))
        _write(folder / papers.sidecar, sidecar_text(manifest).encode())
        _write(folder / papers.manifest, manifest.to_bytes())
        _read_back(folder, papers, manifest)
        return papers

    papers = work.spool.once("checksum", work.lease.attempt, Papers, make)
    work.say(f"Checksum created: {papers.sidecar}")


def _manifest(work: Work, made: Artifact) -> Manifest:
    return manifest_of(
        work.spool.result("dump", Dump),
        made,
        backup=work.run.backup,
        database=work.database.name,
        engine=work.database.engine,
        run=work.run.id,
        host=context.host(),
        previous=work.ledger.backups.newest_manifest(work.database.name, before=work.run.backup),
    )


def _signer(work: Work) -> Signer:
    """This host's signer, which the ledger knows from now on. One that will not be trusted is told."""
    signer = context.signer()
    work.ledger.signers.remember(signer.public_key, context.host())
    configured = work.settings.signer_keys
    if configured and signer.public_key not in configured.values():
        work.warn(
            "This host's signing key is not among the configured signers, and its backups are not trusted: "
            f'add [signers.NAME] with public_key = "{signer.public_key}"'
        )
    return signer


def _write(path: Path, content: bytes) -> None:
    with durable_file(path) as sink:
        sink.write(content)


def _read_back(folder: Path, papers: Papers, manifest: Manifest) -> None:
    sums = parse_sidecar((folder / papers.sidecar).read_text())
    same = sums == {file.name: file.sha256 for file in manifest.files}
    if not same or Manifest.from_bytes((folder / papers.manifest).read_bytes()) != manifest:
        raise IntegrityError(
            f"unable to read back {papers.manifest} as it was written", "see the system's log for disk errors"
        )
