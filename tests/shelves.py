"""Backups of any age to lay on a shelf, as if they had been made then."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from larder.manifest import Content, File, Manifest, sidecar_text
from larder.naming import artifact_name, backup_id, manifest_name, sidecar_name, stamp_of
from larder.signing import Signer

#: Whoever signs where a test does not care.
SIGNER = Signer(Ed25519PrivateKey.generate())


def manifest_of(
    database: str, created: datetime, content: bytes = b"content", raw_size: int = 1000
) -> Manifest:
    """A manifest, not signed yet, of `content`, as if it had been dumped at `created`."""
    stamp = stamp_of(created)
    return Manifest(
        backup=backup_id(database, stamp),
        database=database,
        engine="postgres",
        created=created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        artifact=File(
            artifact_name("postgres", stamp, ".sql", ".gz"), len(content), hashlib.sha256(content).hexdigest()
        ),
        raw=Content(raw_size, "0" * 64),
        encoding=("gzip",),
        form="file",
        suffix=".sql",
        server_version="16.4",
        tool="pg_dump 16.4",
        fingerprint={"row_counts": "off", "tables": {}},
        run="r1",
        host="here",
        larder="0.1.0",
    )


def moved(manifest: Manifest, created: datetime) -> Manifest:
    """The same backup, not signed yet, as if it had been made at `created`."""
    stamp, before = stamp_of(created), manifest.backup.partition("/")[2]
    return replace(
        manifest,
        backup=backup_id(manifest.database, stamp),
        created=created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        artifact=replace(manifest.artifact, name=manifest.artifact.name.replace(before, stamp)),
        previous=None,
    )


def lay(folder: Path, manifest: Manifest, content: bytes = b"content", signer: Signer = SIGNER) -> Manifest:
    """Put a whole backup into `folder`, signed."""
    signed = manifest.signed(signer)
    name = signed.artifact.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    (folder / sidecar_name(name)).write_text(sidecar_text(signed))
    (folder / manifest_name(name)).write_bytes(signed.to_bytes())
    return signed
