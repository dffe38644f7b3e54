"""Whole backups for tests, made without a chain: real encodings, real checksums, real signatures."""

from __future__ import annotations

import hashlib
import io
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from larder.encoding import Encoding
from larder.manifest import Content, File, Manifest, Previous, sidecar_text
from larder.naming import artifact_name, backup_id, globals_name, manifest_name, sidecar_name
from larder.signing import Signer

SIGNER = Signer(Ed25519PrivateKey.generate())

RAW = b"".join(b"INSERT INTO users VALUES (%d, 'user %d');\n" % (n, n * 7919) for n in range(200))


def lay(
    folder: Path,
    backup: str,
    encoding: Encoding,
    *,
    raw: bytes = RAW,
    roles: bytes | None = None,
    previous: Manifest | None = None,
    signer: Signer = SIGNER,
) -> Manifest:
    """Lay the backup `backup` (`shop/20251016_020000`) of `raw` into `folder`, with `roles` beside it."""
    database, stamp = backup.split("/")
    folder.mkdir(parents=True, exist_ok=True)
    content = _write(folder / artifact_name("postgres", stamp, ".sql", encoding.suffix), encoding, raw)
    beside = None
    if roles is not None:
        beside = _write(folder / globals_name("postgres", stamp, encoding.suffix), encoding, roles)
    manifest = Manifest(
        backup=backup_id(database, stamp),
        database=database,
        engine="postgres",
        created=f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T{stamp[9:11]}:{stamp[11:13]}:{stamp[13:]}Z",
        artifact=content,
        raw=_content(raw),
        encoding=encoding.names,
        form="file",
        suffix=".sql",
        server_version="16.4",
        tool="pg_dump 16.4",
        fingerprint={"row_counts": "exact", "tables": {"public.users": {"rows": 200}}},
        run="r1",
        host="here",
        larder="0.1.0",
        globals=beside,
        globals_raw=_content(roles) if roles is not None else None,
        previous=Previous(previous.backup, previous.digest) if previous else None,
    ).signed(signer)
    name = manifest.artifact.name
    (folder / sidecar_name(name)).write_text(sidecar_text(manifest))
    (folder / manifest_name(name)).write_bytes(manifest.to_bytes())
    return manifest


def _write(path: Path, encoding: Encoding, raw: bytes) -> File:
    sink = io.BytesIO()
    with closing(encoding.writer(cast(BinaryIO, sink))) as writer:
        writer.write(raw)
    path.write_bytes(sink.getvalue())
    found = _content(sink.getvalue())
    return File(path.name, found.size, found.sha256)


def _content(data: bytes) -> Content:
    return Content(len(data), hashlib.sha256(data).hexdigest())
