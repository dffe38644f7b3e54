"""Names of files and backups. They are for people: facts are read from manifests, never from names."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from larder.errors import NotFoundError

#: What stands in the place of a stamp for the newest good backup.
LATEST = "latest"

SIDECAR_SUFFIX = ".sha256"
MANIFEST_SUFFIX = ".manifest.json"
PIN_SUFFIX = ".pin"

#: A file's bare name: what every file system, `sha256sum -c` and a shell without quotes take as it is.
BARE_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}"

#: A database's name is a folder's name too, a key in the ledger, and half of a backup's id.
DATABASE_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"

_STAMP = "%Y%m%d_%H%M%S"
#: `shop/20251016_020000`, or `shop/latest`.
BACKUP_ID = re.compile(rf"({DATABASE_NAME})/([0-9]{{8}}_[0-9]{{6}}|{LATEST})")


def stamp_of(moment: datetime) -> str:
    """`20251016_020000`: a moment to the second, in UTC, as names have it. The moment has to know its zone."""
    if moment.tzinfo is None:
        raise ValueError("unable to stamp a time without its time zone")
    return moment.astimezone(UTC).strftime(_STAMP)


def moment_of(stamp: str) -> datetime:
    """The moment, in UTC, that a stamp names."""
    return datetime.strptime(f"{stamp}+0000", f"{_STAMP}%z")


def artifact_name(engine: str, stamp: str, suffix: str, codec_suffix: str) -> str:
    """`backup_postgres_20251016_020000.sql.gz`."""
    return f"backup_{engine}_{stamp}{suffix}{codec_suffix}"


def globals_name(engine: str, stamp: str, codec_suffix: str) -> str:
    """`backup_postgres_20251016_020000.globals.sql.gz`: the server's roles and tablespaces, beside the artifact."""
    return artifact_name(engine, stamp, ".globals.sql", codec_suffix)


def sidecar_name(artifact: str) -> str:
    """The name of the file with the SHA-256 of `artifact`, a name or a key."""
    return artifact + SIDECAR_SUFFIX


def manifest_name(artifact: str) -> str:
    """The name of the manifest of `artifact`, a name or a key."""
    return artifact + MANIFEST_SUFFIX


def pin_name(artifact: str) -> str:
    """The name of the file that pins the backup of `artifact`, a name or a key."""
    return artifact + PIN_SUFFIX


def backup_id(database: str, stamp: str) -> str:
    """`shop/20251016_020000`."""
    return f"{database}/{stamp}"


def parse_backup_id(text: str) -> tuple[str, str]:
    """The database's name and the stamp in a backup's id; the stamp may be `LATEST`.

    Raises `NotFoundError` for what cannot be the id of any backup.
    """
    match = BACKUP_ID.fullmatch(text)
    if match is None or not _is_stamp(match[2]):
        raise NotFoundError(
            f"unable to find backup {text!r}", "write it as shop/20251016_020000, or as shop/latest"
        )
    return match[1], match[2]


def _is_stamp(text: str) -> bool:
    try:
        return text == LATEST or bool(datetime.fromisoformat(text.replace("_", "T")))
    except ValueError:
        return False
