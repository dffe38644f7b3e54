"""Health: whether backups can work here, asked of everything that they need."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from larder import codecs
from larder.config import DatabaseSettings, Settings, StoreSettings
from larder.databases import open_database
from larder.errors import LarderError
from larder.ledger import Ledger
from larder.objectives import is_drilled
from larder.progress import human_size
from larder.signing import host_signer
from larder.spool import make_private
from larder.stores import open_store

#: How far the clocks of two machines may be apart, in seconds, before it is worth a word.
CLOCK_TOLERANCE = 5.0

#: How many times the last artifact's size should be free in the spool: two encodings may lie there side by side.
SPOOL_FACTOR = 2


@dataclass(frozen=True)
class Check:
    """One line of `larder doctor`."""

    name: str
    subject: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    hint: str = ""


def checks(settings: Settings, open_ledger: Callable[[], Ledger]) -> Iterator[Check]:
    """Everything that backups need and Celery has no part in, one check at a time."""
    yield _configuration(settings)
    for warning in settings.warnings:
        yield Check("configuration", "environment", "warning", warning)
    yield from _checked("state folder", str(settings.state_dir), lambda: _state_dir(settings.state_dir))
    ledger: list[Ledger] = []

    def ledger_opens() -> str:
        ledger.append(open_ledger())
        return "opens, and its tables are up to date"

    yield from _signing(settings)
    for path in settings.identities:
        yield from _identity(path)
    yield _approvers(settings)
    yield from _notifiers(settings)
    yield from _checked("ledger", "sqlite" if _is_file(settings) else "postgresql", ledger_opens)
    for store in settings.stores.values():
        yield from _store(store)
    for database in settings.databases.values():
        yield from _database(database, settings)
        yield from _recipients(database)
        yield from _drills(database)
        if ledger:
            yield from _space(database, settings, ledger[0])


def clock_check(subject: str, difference: float) -> Check:
    """Whether a clock that is `difference` seconds away from ours is near enough."""
    if abs(difference) <= CLOCK_TOLERANCE:
        return Check("clock", subject, "ok", f"within {CLOCK_TOLERANCE:.0f} s of this machine's")
    return Check(
        "clock",
        subject,
        "warning",
        f"{abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} this machine's",
        "have both machines keep time with NTP; leases and retention go by the clock",
    )


def _configuration(settings: Settings) -> Check:
    source = str(settings.config_file) if settings.config_file else "environment"
    count = len(settings.databases)
    if count == 0:
        return Check(
            "configuration", source, "failed", "no database", "set DATABASE_URL, or write larder.toml"
        )
    return Check("configuration", source, "ok", f"{count} database{'' if count == 1 else 's'}")


def _state_dir(folder: Path) -> str:
    make_private(folder)
    probe = folder / ".probe"
    probe.write_bytes(b"larder")
    probe.unlink()
    return f"can be written to, {human_size(shutil.disk_usage(folder).free)} free"


def _signing(settings: Settings) -> Iterator[Check]:
    """Whether this host can sign, and whether those who trust configured signers only will trust it."""
    with _caught() as problem:
        key = host_signer(settings).public_key
    if problem:
        yield Check("signing key", "this host", "failed", problem[0].message, problem[0].hint)
        return
    yield Check("signing key", "this host", "ok", f"signs manifests as {key}")
    if settings.signers and key not in settings.signer_keys.values():
        yield Check(
            "signing key",
            "this host",
            "warning",
            "it is none of the configured signers, so what this host makes is not trusted",
            f'add [signers.NAME] with public_key = "{key}"',
        )


def _approvers(settings: Settings) -> Check:
    """Whether anybody could say yes to a restore when one is needed."""
    if settings.approvers:
        return Check("approvers", "restores", "ok", f"can be approved by {', '.join(settings.approvers)}")
    return Check(
        "approvers",
        "restores",
        "warning",
        "nobody can approve a restore, so none can be done",
        "make a key for somebody before it is needed: larder keys new approver NAME",
    )


def _notifiers(settings: Settings) -> Iterator[Check]:
    """Who is told of what, without telling anybody: `larder doctor --tell` does."""
    for notifier in settings.notifiers.values():
        yield Check("notifier", notifier.name, "ok", f"{notifier.type}, is told of {notifier.told_of}")
    if not settings.notifiers:
        yield Check(
            "notifier",
            "failures",
            "warning",
            "nobody is told when a backup fails",
            "set SLACK_WEBHOOK_URL, or write [notifiers.NAME]: docs/notices.md",
        )


def _identity(path: Path) -> Iterator[Check]:
    """Whether a file with private keys can be used, and by this user only."""
    with _caught() as problem:
        count = len(codecs.cipher().load_identities(path))
    if problem:
        yield Check("identity", str(path), "failed", problem[0].message, problem[0].hint)
        return
    yield Check("identity", str(path), "ok", f"holds {count} key{'' if count == 1 else 's'}")
    if path.stat().st_mode & 0o077:
        yield Check(
            "identity", str(path), "warning", "others on this machine can read it", f"chmod 600 {path}"
        )


def _recipients(database: DatabaseSettings) -> Iterator[Check]:
    if len(set(database.encrypt_to)) == 1:
        yield Check(
            "encryption",
            database.name,
            "warning",
            "has one recipient: who loses that key has lost the backups",
            "add a second one to encrypt_to, whose key is kept elsewhere",
        )


def _drills(database: DatabaseSettings) -> Iterator[Check]:
    """Whether anything proves its backups; a stored one has been read back, and not restored."""
    if not is_drilled(database):
        yield Check(
            "drills",
            database.name,
            "warning",
            "its backups are never proven",
            'set drill = "0 4 * * 0"',
        )


def _is_file(settings: Settings) -> bool:
    return settings.ledger_url.get_secret_value().startswith("sqlite")


def _store(settings: StoreSettings) -> Iterator[Check]:
    with _caught() as problem:
        found = open_store(settings).check()
    if problem:
        yield Check("store", settings.name, "failed", problem[0].message, problem[0].hint)
        return
    yield Check("store", settings.name, "ok", found.detail)
    for warning in found.warnings:
        yield Check("store", settings.name, "warning", warning)


def _database(database: DatabaseSettings, settings: Settings) -> Iterator[Check]:
    with _caught() as problem:
        look = open_database(database, settings.state_dir).look()
    if problem:
        yield Check("database", database.name, "failed", problem[0].message, problem[0].hint)
        return
    yield Check(
        "database", database.name, "ok", f"{look.description}, {human_size(look.size)}, read with {look.tool}"
    )
    for warning in look.warnings:
        yield Check("database", database.name, "warning", warning)
    if look.clock_difference is not None:
        yield clock_check(f"server of {database.name}", look.clock_difference)


def _space(database: DatabaseSettings, settings: Settings, ledger: Ledger) -> Iterator[Check]:
    backups = list(ledger.backups.all(database.name).values())
    if not backups:
        return
    needed = backups[-1].size * SPOOL_FACTOR
    free = shutil.disk_usage(settings.state_dir).free
    detail = f"{human_size(free)} free; the last artifact has {human_size(backups[-1].size)}"
    if free >= needed:
        yield Check("disk space", database.name, "ok", detail)
    else:
        yield Check(
            "disk space",
            database.name,
            "failed",
            f"{detail}, and {human_size(needed)} may be needed",
            "free some space, or move the state folder with LARDER_STATE_DIR",
        )


def _checked(name: str, subject: str, check: Callable[[], str]) -> Iterator[Check]:
    with _caught() as problem:
        detail = check()
    if problem:
        yield Check(name, subject, "failed", problem[0].message, problem[0].hint)
    else:
        yield Check(name, subject, "ok", detail)


@contextmanager
def _caught() -> Iterator[list[LarderError]]:
    """A list that holds the error which ended the block, if one did."""
    problem: list[LarderError] = []
    try:
        yield problem
    except LarderError as error:
        problem.append(error)
    except OSError as error:
        reason = f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
        problem.append(LarderError(reason, "see who owns the folder"))
