"""What a restore would do, and every reason why it would be refused: seen beforehand, with nothing touched."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from larder import codecs
from larder.config import DatabaseSettings, Settings
from larder.databases import open_restorer
from larder.errors import (
    ConfigurationError,
    IntegrityError,
    LarderError,
    NotAuthorisedError,
    UnreachableError,
)
from larder.ledger import Ledger
from larder.manifest import Manifest
from larder.manifest_fields import TIME
from larder.restore_request import RestoreRequest, Wanted
from larder.restore_target import address_of, into_of, is_configured, settings_of
from larder.restoring import Mode, Plan, Source, Target
from larder.shelf import Shelved

#: How many earlier restores an estimate looks at.
_COMPARED = 5


@dataclass(frozen=True)
class Wish:
    """What somebody asks for, as they say it."""

    into: str
    mode: Mode
    safety_backup: bool = True
    create_roles: bool = False
    tables: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outline:
    """A restore as it would be."""

    wish: Wish
    shelved: Shelved
    manifest: Manifest
    target: DatabaseSettings
    #: What is there now; None where nobody answered, which is among the refusals.
    found: Target | None
    refusals: tuple[LarderError, ...]
    warnings: tuple[str, ...]
    #: The stores that the safety backup would go into; none where there is nothing to be backed up.
    safety_in: tuple[str, ...]
    #: Whether something is built beside the live database.
    beside: bool

    def raise_if_refused(self) -> None:
        """Raise the first refusal, with all others in its message."""
        raise_all(self.refusals)


def raise_all(reasons: Sequence[LarderError]) -> None:
    """Raise one error that has every reason in it: whoever mends one shall not meet the next an hour later."""
    if reasons:
        hints = dict.fromkeys(reason.hint for reason in reasons if reason.hint)
        raise type(reasons[0])("; ".join(reason.message for reason in reasons), "; ".join(hints))


def outline(settings: Settings, shelved: Shelved, wish: Wish) -> Outline:
    """Look at the backup and at the target. Raises `NotFoundError` and `ConfigurationError` for what makes no sense."""
    entry = shelved.entry
    if entry is None or entry.manifest is None:
        raise IntegrityError(
            f"unable to restore backup {shelved.backup}: no copy of it has a manifest that can be read",
            f"larder show {shelved.backup} says why; larder list shows the others",
        )
    manifest = entry.manifest
    target = settings_of(settings, wish.into, manifest.database, wish.mode)
    plan = Plan(secrets.token_hex(6), wish.mode, wish.create_roles, wish.tables, wish.schemas)
    reasons = [*_of_backup(shelved), *_of_approvers(settings), *_of_identities(settings, manifest)]
    found, beside = None, True
    if target.engine != manifest.engine:
        reasons.append(
            ConfigurationError(
                f"unable to restore a backup of {manifest.engine} into {address_of(target)}, which is {target.engine}"
            )
        )
    else:
        restorer = open_restorer(target, plan)
        beside = restorer.beside
        try:
            found = restorer.look()
            reasons += restorer.refusals(source_of(manifest), found)
        except LarderError as error:
            reasons.append(error)
    reasons += _of_what_is_there(settings, target, found, wish)
    return Outline(
        wish=wish,
        shelved=shelved,
        manifest=manifest,
        target=target,
        found=found,
        refusals=tuple(reasons),
        warnings=tuple(_warnings(settings, shelved, manifest, found)),
        safety_in=_safety_in(settings, target, found, wish),
        beside=beside,
    )


def source_of(manifest: Manifest) -> Source:
    """What an engine wants to know of a backup before it loads it."""
    return Source(
        engine=manifest.engine,
        form=manifest.form,
        raw_size=manifest.raw.size,
        raw_sha256=manifest.raw.sha256,
        server_version=manifest.server_version,
        tool=manifest.tool,
        fingerprint=manifest.fingerprint,
    )


def wanted_of(shelved: Shelved) -> Wanted:
    """The backup as a request names it: bound to its manifest and to its bytes."""
    entry = shelved.entry
    if entry is None or entry.manifest is None or entry.digest is None:
        raise IntegrityError(f"unable to restore backup {shelved.backup}: its manifest cannot be read")
    manifest = entry.manifest
    return Wanted(
        backup=manifest.backup,
        engine=manifest.engine,
        created=manifest.created,
        artifact=manifest.artifact.name,
        size=manifest.artifact.size,
        sha256=manifest.artifact.sha256,
        raw_size=manifest.raw.size,
        manifest=entry.digest,
        proof=shelved.proof,
    )


def document_of(
    settings: Settings, planned: Outline, reason: str, requester: str, account: str, host: str
) -> RestoreRequest:
    """The request for what was outlined, on this `host`; raises every refusal."""
    planned.raise_if_refused()
    if planned.found is None:
        raise UnreachableError("unable to see what is in the target's place")
    now = datetime.now(UTC)
    wish = planned.wish
    return RestoreRequest(
        request=secrets.token_hex(6),
        wanted=wanted_of(planned.shelved),
        into=into_of(settings, planned.target, planned.found.description, planned.found.size, host),
        mode=wish.mode,
        safety_backup=bool(planned.safety_in),
        keep_replaced=planned.target.keep_replaced,
        create_roles=wish.create_roles,
        tables=wish.tables,
        schemas=wish.schemas,
        warnings=tuple(" ".join(line.split()) for line in planned.found.warnings),
        reason=reason,
        requester=requester,
        account=account,
        requested=now.strftime(TIME),
        expires=(now + timedelta(seconds=settings.request_life)).strftime(TIME),
        token_life=settings.token_life,
    )


def seconds_by_earlier(ledger: Ledger, database: str, raw_size: int) -> tuple[float, int] | None:
    """How long it may take by earlier restores into this database, and how many those are; None without any."""
    rates = []
    for run in ledger.runs.latest(database, kind="restore", limit=4 * _COMPARED):
        if run.state == "done" and any(step.name == "load" for step in run.steps):
            size = ledger.requests.of_run(run.id).document.wanted.raw_size
            rates.append(sum(step.seconds or 0 for step in run.steps) / max(size, 1))
    if not rates:
        return None
    compared = rates[:_COMPARED]
    return raw_size * sum(compared) / len(compared), len(compared)


def _of_backup(shelved: Shelved) -> Sequence[LarderError]:
    if shelved.good_copies:
        return []
    return [
        IntegrityError(
            f"unable to restore backup {shelved.backup}, which is broken: {'; '.join(shelved.problems)}",
            f"larder list {shelved.database} shows the others",
        )
    ]


def _of_approvers(settings: Settings) -> Sequence[LarderError]:
    if settings.approvers:
        return []
    return [
        NotAuthorisedError(
            "unable to restore anything: nobody is configured to approve it",
            "make a key for somebody, and add the lines that it prints to larder.toml: larder keys new approver NAME",
        )
    ]


def _of_identities(settings: Settings, manifest: Manifest) -> Sequence[LarderError]:
    """Where no workers are elsewhere, this machine is the one that has to open what is encrypted."""
    if codecs.ENCRYPTION not in manifest.encoding or settings.identities or settings.redis_url is not None:
        return []
    return [
        ConfigurationError(
            f"unable to restore backup {manifest.backup}: it is encrypted, and this machine has no identity",
            'name the file with the private key in larder.toml, above every table: identities = ["age.key"]',
        )
    ]


def _of_what_is_there(
    settings: Settings, target: DatabaseSettings, found: Target | None, wish: Wish
) -> Sequence[LarderError]:
    if found is None or not found.exists or wish.mode == "new" or is_configured(settings, target):
        return []
    return [
        ConfigurationError(
            f"unable to replace {found.description}: it is not configured, so it cannot be backed up before",
            "name it in larder.toml as [databases.NAME], or restore into a new database: --mode new",
        )
    ]


def _safety_in(
    settings: Settings, target: DatabaseSettings, found: Target | None, wish: Wish
) -> tuple[str, ...]:
    """A mode that replaces nothing needs no safety backup."""
    replaces = found is not None and found.exists and wish.mode in ("swap", "in-place")
    if not replaces or not wish.safety_backup or not is_configured(settings, target):
        return ()
    return tuple(store.name for store in settings.stores_of(target))


def _warnings(
    settings: Settings, shelved: Shelved, manifest: Manifest, found: Target | None
) -> Sequence[str]:
    lines = list(found.warnings) if found else []
    if shelved.good_copies:
        lines += [f"a copy is not good: {problem}" for problem in shelved.problems]
    if codecs.ENCRYPTION in manifest.encoding and not settings.identities:
        lines.append("the backup is encrypted: the worker that restores needs identities in its larder.toml")
    return lines
