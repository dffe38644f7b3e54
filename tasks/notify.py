"""notify: whoever is to know is told how it went, and the run is over."""

from __future__ import annotations

from contextlib import closing

from larder import anomalies, notifiers
from larder.catalog import LARGEST_MANIFEST
from larder.errors import IntegrityError, LarderError
from larder.ledger.runs import Run, good_end
from larder.manifest import Manifest, Previous, digest_of
from larder.naming import manifest_name
from larder.notifiers import Notice
from larder.secret import redact
from larder.stores import Store, open_store
from tasks import context
from tasks.checksum import Papers
from tasks.step import Work, step, stored

#: The links whose time is a backup's own. How long it waited for a worker says nothing of the database.
_TIMED = ("dump", "compress", "checksum", "upload")

#: How many runs are looked at for those whose time it is compared with.
_LATEST = 50


@step("notify", "backup", spares=stored)
def notify(work: Work) -> None:
    """Tell the notifiers about the run, success or failure. A notice that can't be sent never fails a backup."""
    failed = work.run.state == "failed"
    odd = [] if failed else _odd(work)
    for line in odd:
        work.warn(line)
    notice = _notice(work, failed=failed, odd=odd)
    # A store that has no copy is a failure to whoever wants to hear of failures, though the backup stands.
    events = ["failure" for link in work.run.uploads if link.state == "failed"]
    for problem in notifiers.tell(work.settings.notifiers.values(), notice, events):
        work.warn(problem)
    work.spool.remove()
    if not failed:
        work.say("Backup completed successfully!")


def _odd(work: Work) -> list[str]:
    """What is odd about the backup, seen beside those before it. Whatever hinders that is no fault of the backup."""
    if not work.spool.path("checksum").exists():
        # An earlier delivery of this link has looked, and cleared the spool.
        return []
    try:
        return [redact(line) for line in _compared(work)]
    except Exception as error:  # noqa: BLE001 - the backup stands, and people are to be told of it
        why = error.message if isinstance(error, LarderError) else type(error).__name__
        work.mention(f"The backup could not be compared with those before it: {why}")
        return []


def _compared(work: Work) -> list[str]:
    papers = work.spool.result("checksum", Papers)
    manifest = Manifest.from_bytes((work.spool.path("checksum") / papers.manifest).read_bytes())
    history = [one for one in work.ledger.backups.all(work.run.database).values() if one.proof != "broken"]
    good = good_end(work.run.kind)
    times = [
        _seconds(run)
        for run in work.ledger.runs.latest(work.run.database, over=True, limit=_LATEST)
        if run.state == good and run.parent is None and run.id != work.run.id
    ]
    return anomalies.odd(manifest, history, _previous(work, manifest.previous), _seconds(work.run), times)


def _seconds(run: Run) -> float:
    return sum(link.seconds or 0 for link in run.steps if link.name in _TIMED)


def _previous(work: Work, named: Previous | None) -> Manifest | None:
    """The manifest of the backup before, from a store on this machine first; None where it cannot be read now."""
    if named is None:
        return None
    known, stores = work.ledger.backups.get(named.backup), work.settings.stores
    copies = sorted(
        (copy.problem is not None, stores[name].type != "local", name, copy.key)
        for name, copy in (known.copies.items() if known else ())
        if name in stores
    )
    reasons = []
    for *_, name, key in copies:
        try:
            return _manifest(open_store(stores[name]), key, named)
        except LarderError as error:
            reasons.append(error.message)
        except OSError as error:
            reasons.append(f"unable to read {name}: {error.strerror or type(error).__name__}")
    why = "; ".join(reasons) or "no configured store has a copy of it"
    work.mention(f"Rows and schema were not compared with those of {named.backup}: {why}")
    return None


def _manifest(store: Store, key: str, named: Previous) -> Manifest:
    """The very manifest that the new one names, by a signer who is trusted."""
    with closing(store.open(manifest_name(key))) as stored_there:
        data = stored_there.read(LARGEST_MANIFEST)
    manifest = Manifest.from_bytes(data)
    problem = context.trust().problem(manifest.signature.key)
    if digest_of(data) != named.sha256:
        problem = "it is not the one that was written"
    if problem:
        raise IntegrityError(f"unable to use the manifest of {named.backup} in {store.name}: {problem}")
    return manifest


def _notice(work: Work, *, failed: bool, odd: list[str]) -> Notice:
    run: Run = work.run
    backup = work.ledger.backups.get(run.backup)
    return Notice(
        event="failure" if failed else "success",
        database=run.database,
        run=run.id,
        artifact=run.artifact,
        size=backup.size if backup else None,
        seconds=run.seconds,
        created=(backup.created if backup else run.created).strftime("%Y-%m-%dT%H:%M:%SZ"),
        proof=backup.proof if backup else None,
        stores=tuple(sorted(backup.copies)) if backup else (),
        warnings=tuple(dict.fromkeys((*run.warnings, *odd))),
        step=run.failed_step,
        error=run.error,
        hint=run.hint,
    )
