"""The command line. Each command is one call into a module of its own; what they share is in `console.root`.

A command imports its module when it is called: help, and completion of its name, need not wait for what it takes.

Here are the everyday ones. What runs Larder, its keys among it, is in `running_cli`; restores and evidence have
modules of their own.
"""

from __future__ import annotations

from pathlib import Path

import click

from console import completion, evidence_cli, restore_cli, running_cli
from console.root import command, main

__all__ = ["evidence_cli", "main", "restore_cli", "running_cli"]


@command("backup")
@click.argument("databases", nargs=-1, metavar="[DB …]")
@click.option("--no-wait", is_flag=True, help="Leave it to the workers at REDIS_URL, and return at once.")
def _backup(databases: tuple[str, ...], *, no_wait: bool, as_json: bool) -> int:
    """Back up databases: all that are configured, or those named.

    Shows each step as it goes, and where the backup is. Exits with 0 when at least min_copies stores hold a copy
    that was read back, or vouched for; a store that has none is a warning.

    \b
    Examples:
      DATABASE_URL=postgresql://backup@db/shop larder backup
      larder backup shop crm
      larder backup shop --json | jq -r .artifact
    """
    from console import backup

    return backup.back_up(databases, wait=not no_wait, as_json=as_json)


@command("list")
@click.argument("database", required=False, metavar="[DB]")
@click.option("--store", metavar="NAME", help="Look into this store only.")
def _list(database: str | None, *, store: str | None, as_json: bool) -> int:
    """List the backups that the stores hold, newest first.

    The stores themselves are read, not a record of them. Files that belong to no backup are named as foreign.

    \b
    Examples:
      larder list shop
      larder list --store s3 --json | jq -r '.[].artifact'
    """
    from console import catalogue

    return catalogue.print_list(database, store, as_json=as_json)


@command("show")
@click.argument("backup_id", metavar="BACKUP")
def _show(backup_id: str, *, as_json: bool) -> int:
    """Show a backup's manifest, and where its copies are.

    BACKUP is DB/20251016_020000 or DB/latest.

    \b
    Example:
      larder show shop/latest
    """
    from console import catalogue

    return catalogue.print_backup(backup_id, as_json=as_json)


@command("pin")
@click.argument("backup_id", metavar="BACKUP")
def _pin(backup_id: str, *, as_json: bool) -> int:
    """Keep a backup, whatever the retention policy says.

    It stays in every store that has a copy, until it is unpinned. BACKUP is DB/20251016_020000 or DB/latest.

    \b
    Example, before something risky:
      larder backup shop && larder pin shop/latest
    """
    from console import pins

    return pins.set_pin(backup_id, pinned=True, as_json=as_json)


@command("unpin")
@click.argument("backup_id", metavar="BACKUP")
def _unpin(backup_id: str, *, as_json: bool) -> int:
    """Leave a pinned backup to the retention policy again.

    Exits with 6 where a store refuses to delete the pin.

    \b
    Example:
      larder unpin shop/20251016_020000
    """
    from console import pins

    return pins.set_pin(backup_id, pinned=False, as_json=as_json)


@command("prune")
@click.argument("database", required=False, metavar="[DB]")
@click.option("--dry-run", is_flag=True, help="Delete nothing; show what would go and what would stay.")
@click.option("--force", is_flag=True, help="Delete although rotation is halted, once the cause is known.")
def _prune(database: str | None, *, dry_run: bool, force: bool, as_json: bool) -> int:
    """Delete what the retention policy lets go, and say why.

    Each backup that stays has its reason, too. The newest stored and the newest proven one stay in any case. Exits
    with 1 when rotation is halted and something would have gone.

    \b
    Examples:
      larder prune --dry-run
      larder prune shop
    """
    from console import prune

    return prune.prune(database, dry_run=dry_run, force=force, as_json=as_json)


@command("verify")
@click.argument("backup_id", metavar="[BACKUP]", required=False)
@click.option("--all", "everything", is_flag=True, help="Every backup of every database.")
@click.option("--store", metavar="NAME", help="Only the copies in this store.")
@click.option(
    "--identity",
    "identities",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An age identity, beside those of the configuration, for what is encrypted.",
)
def _verify(
    backup_id: str | None, *, everything: bool, store: str | None, identities: tuple[Path, ...], as_json: bool
) -> int:
    """Read copies to their end, and compare with their manifests.

    They come from their stores, and nothing is written to the disk: bytes are hashed, decrypted, decompressed and
    hashed again as they come. Size, SHA-256, signature, sidecar and the link to the backup before have to be right.
    What is encrypted and cannot be opened here is hashed only, and said so. Exits with 5 where anything is broken
    or missing.

    \b
    Examples:
      larder verify shop/latest
      larder verify --all --store s3 --json
      larder verify shop/20251016_020000 --identity /media/usb/age.key
    """
    from console import verify

    return verify.verify(backup_id, store, identities, everything=everything, as_json=as_json)


@command("drill")
@click.argument("wanted", required=False, metavar="[DB|BACKUP]")
def _drill(wanted: str | None, *, as_json: bool) -> int:
    """Restore a backup into a scratch database, and compare it.

    What comes back is compared with what was there when it was dumped. The newest backup of every database, of one,
    or one backup. PostgreSQL is restored into a throw-away cluster on the worker, or on scratch_url, never on the
    live server; SQLite into a file. The backup is fetched from one of its stores, and is proven, or broken, from
    then on. Needs no approval: nothing is replaced, and nothing stays.

    Exits with 5 where what came back differs, and with 1 or the cause's own code where nothing could be proven.

    \b
    Examples:
      larder drill
      larder drill shop
      larder drill shop/20251016_020000 --json | jq .differences
    """
    from console import drill

    return drill.drill(wanted, as_json=as_json)


@command("runs")
@click.argument("database", required=False, metavar="[DB]")
@click.option("--failed", is_flag=True, help="Only runs that failed.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="How many at most.")
def _runs(database: str | None, *, failed: bool, limit: int, as_json: bool) -> int:
    """List the newest runs: state, time taken, and why one failed.

    \b
    Examples:
      larder runs --failed
      larder runs shop --limit 5 --json
    """
    from console import runs

    return runs.print_runs(database, failed=failed, limit=limit, as_json=as_json)


@command("watch")
@click.argument("run", metavar="RUN")
def _watch(run: str, *, as_json: bool) -> int:
    """Follow a run to its end, and exit as it did.

    RUN is an id, as larder runs shows it, and larder backup --no-wait prints it.

    \b
    Example:
      larder watch d6d5223348fe
    """
    from console import runs

    return runs.watch(run, as_json=as_json)


@command("status")
def _status(*, as_json: bool) -> int:
    """Show each database at a glance, and whether it is safe.

    Newest backup, newest proven one, measured recovery against what it may take, last run, next run; and below,
    what is wrong. Exits with 1 when a database has no good backup, its last run failed, its last drill found a
    backup broken, or an objective is missed.

    \b
    Examples:
      larder status
      larder status --json | jq -r '.[] | select(.safe | not) | .database'
    """
    from console import status

    return status.print_status(as_json=as_json)


@command("doctor")
@click.option("--tell", is_flag=True, help="Send a message to every notifier, to see that it arrives.")
def _doctor(*, tell: bool, as_json: bool) -> int:
    """Check that backups can work here, one line a check.

    There is a hint where one is needed. Looks at client against server versions, reachability, permissions, disk
    space against the last dump's size, the Redis version, and the clock. Exits with 1 when a check fails.

    \b
    Examples:
      larder doctor
      larder doctor --tell
    """
    from console import doctor

    return doctor.print_checks(tell=tell, as_json=as_json)


# Once all are there, those of the other modules too.
completion.teach(main)
