"""notify: whoever is to know is told how it went, and the run is over."""

from __future__ import annotations

from larder import anomalies
from larder.catalog import read_named
from larder.errors import LarderError
from larder.ledger.runs import UPLOAD, Run
from larder.manifest import Manifest, Previous
from larder.naming import manifest_name
from larder.notifiers import Notice
from larder.secret import redact
from larder.stores import open_store
from tasks import announcing, context, telling
from tasks.checksum import Papers
from tasks.step import Work, step, stored
from tasks.telling import notice_of

#: The links whose time is a backup's own. How long it waited for a worker says nothing of the database.
_TIMED = ("dump", "compress", "checksum", "upload")

#: What can be done where a store has no copy.
_CURE = "see whether the store can be reached and written to: larder doctor; the next backup makes a copy there again"

#: How many of the newest backups it is compared with are looked through for those that were made alike.
_LATEST = 50


@step("notify", "backup", spares=stored)
def notify(work: Work) -> None:
    """Tell the notifiers about the run, success or failure. A notice that can't be sent never fails a backup."""
    failed = work.run.state == "failed"
    odd = [] if failed else _odd(work)
    for line in odd:
        work.warn(line)
    stands = _note(work)
    telling.run_ended.send(sender=None, run=work.run)
    each = telling.of_each(work.settings, _notice(work, odd)) if stands else ()
    for problem in announcing.announce(also=each):
        work.warn(problem)
    work.spool.remove()
    if not failed:
        work.say("Backup completed successfully!")


def _note(work: Work) -> bool:
    """Write down that it has failed, or is well again: whoever is told of many together hears of it by that.

    False where it has failed, and a later backup has gone well since: a check that is green for that one stays so.
    """
    run, misses = work.run, work.ledger.misses
    if run.state == "failed":
        return telling.note_failure(work.ledger, run)
    # A store that has no copy is a failure to whoever wants to hear of failures, though the backup stands.
    without = {link.store: link.error or "unknown" for link in run.uploads if link.state == "failed"}
    if without:
        text = "; ".join(f"no copy of {run.backup} in {store}: {why}" for store, why in without.items())
        misses.recover(run.database, "backup")
        misses.fail(run.database, "copies", text, run=run.id, step=UPLOAD, hint=_CURE)
    else:
        misses.recover(run.database, "backup", "copies")
    return True


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
    newest = work.ledger.backups.latest(work.run.database, _LATEST)
    history = [one for one in newest if one.proof != "broken"]
    times = work.ledger.runs.durations(work.run, _TIMED, anomalies.LAST)
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
            store = open_store(stores[name])
            return read_named(store, manifest_name(key), context.trust(), named.backup, named.sha256)
        except LarderError as error:
            reasons.append(error.message)
        except OSError as error:
            reasons.append(f"unable to read {name}: {error.strerror or type(error).__name__}")
    why = "; ".join(reasons) or "no configured store has a copy of it"
    work.mention(f"Rows and schema were not compared with those of {named.backup}: {why}")
    return None


def _notice(work: Work, odd: list[str]) -> Notice:
    backup = work.ledger.backups.get(work.run.backup)
    return notice_of(
        work.run,
        backup,
        artifact=work.run.artifact,
        stores=tuple(sorted(backup.copies)) if backup else (),
        anomalies=tuple(odd),
        warnings=tuple(dict.fromkeys((*work.run.warnings, *odd))),
    )
