"""The command line. Each command is one call into a module of its own; what they share is in `console.root`."""

from __future__ import annotations

from pathlib import Path

import click

from console import (
    backup,
    catalogue,
    completion,
    doctor,
    drill,
    evidence_cli,
    keys,
    pins,
    prune,
    rebuild,
    restore_cli,
    runs,
    status,
    verify,
)
from console.root import command, main

__all__ = ["evidence_cli", "main", "restore_cli"]


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
    return backup.back_up(databases, wait=not no_wait, as_json=as_json)


@command("list")
@click.argument("database", required=False, metavar="[DB]")
@click.option("--store", metavar="NAME", help="Look into this store only.")
def _list(database: str | None, *, store: str | None, as_json: bool) -> int:
    """List the backups that the stores hold, newest first.

    The stores themselves are read, not a record of them. Files that belong to no backup are named as foreign.
    """
    return catalogue.print_list(database, store, as_json=as_json)


@command("show")
@click.argument("backup_id", metavar="BACKUP")
def _show(backup_id: str, *, as_json: bool) -> int:
    """Show a backup's manifest, and where its copies are.

    BACKUP is DB/20251016_020000 or DB/latest.
    """
    return catalogue.print_backup(backup_id, as_json=as_json)


@command("pin")
@click.argument("backup_id", metavar="BACKUP")
def _pin(backup_id: str, *, as_json: bool) -> int:
    """Keep a backup, whatever the retention policy says, in every store that has a copy.

    BACKUP is DB/20251016_020000 or DB/latest.
    """
    return pins.set_pin(backup_id, pinned=True, as_json=as_json)


@command("unpin")
@click.argument("backup_id", metavar="BACKUP")
def _unpin(backup_id: str, *, as_json: bool) -> int:
    """Leave a pinned backup to the retention policy again.

    Exits with 6 where a store refuses to delete the pin.
    """
    return pins.set_pin(backup_id, pinned=False, as_json=as_json)


@command("prune")
@click.argument("database", required=False, metavar="[DB]")
@click.option("--dry-run", is_flag=True, help="Delete nothing; show what would go and what would stay.")
@click.option("--force", is_flag=True, help="Delete although rotation is halted, once the cause is known.")
def _prune(database: str | None, *, dry_run: bool, force: bool, as_json: bool) -> int:
    """Delete the backups that the retention policy lets go, and say why each one stays or goes.

    The newest stored and the newest proven backup stay in any case. Exits with 1 when rotation is halted and something
    would have gone.
    """
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
    """Read copies from their stores to the very end, and compare them with their manifests.

    Nothing is written to the disk: bytes are hashed, decrypted, decompressed and hashed again as they come. Size,
    SHA-256, signature, sidecar and the link to the backup before have to be right. What is encrypted and cannot be
    opened here is hashed only, and said so. Exits with 5 where anything is broken or missing.

    \b
    Examples:
      larder verify shop/latest
      larder verify --all --store s3 --json
      larder verify shop/20251016_020000 --identity /media/usb/age.key
    """
    return verify.verify(backup_id, store, identities, everything=everything, as_json=as_json)


@command("drill")
@click.argument("wanted", required=False, metavar="[DB|BACKUP]")
def _drill(wanted: str | None, *, as_json: bool) -> int:
    """Restore a backup into a scratch database, and compare what came back with what was there.

    The newest backup of every database, of one, or one backup. PostgreSQL is restored into a throw-away cluster on the
    worker, or on scratch_url, never on the live server; SQLite into a file. The backup is fetched from one of its
    stores, and is proven, or broken, from then on. Needs no approval: nothing is replaced, and nothing stays.

    Exits with 5 where what came back differs, and with 1 or the cause's own code where nothing could be proven.

    \b
    Examples:
      larder drill
      larder drill shop
      larder drill shop/20251016_020000 --json | jq .differences
    """
    return drill.drill(wanted, as_json=as_json)


@command("runs")
@click.argument("database", required=False, metavar="[DB]")
@click.option("--failed", is_flag=True, help="Only runs that failed.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="How many at most.")
def _runs(database: str | None, *, failed: bool, limit: int, as_json: bool) -> int:
    """List the newest runs: state, time taken, and why one failed."""
    return runs.print_runs(database, failed=failed, limit=limit, as_json=as_json)


@command("watch")
@click.argument("run", metavar="RUN")
def _watch(run: str, *, as_json: bool) -> int:
    """Follow a run to its end, and exit as it did."""
    return runs.watch(run, as_json=as_json)


@command("status")
def _status(*, as_json: bool) -> int:
    """Show each database at a glance: newest backup, newest proven one, measured recovery, last run, next run.

    Exits with 1 when a database has no good backup, its last run failed, its last drill found a backup broken, or an
    objective is missed.
    """
    return status.print_status(as_json=as_json)


@command("doctor")
@click.option("--tell", is_flag=True, help="Send a message to every notifier, to see that it arrives.")
def _doctor(*, tell: bool, as_json: bool) -> int:
    """Check that backups can work here, one line a check, with a hint where one is needed.

    Looks at client against server versions, reachability, permissions, disk space against the last dump's size, the
    Redis version, and the clock. Exits with 1 when a check fails.
    """
    return doctor.print_checks(tell=tell, as_json=as_json)


@command("up")
def _up(*, as_json: bool) -> int:
    """Start everything on this machine, and end it with Ctrl-C: Redis, a worker, beat, Flower and the console.

    The console is at http://127.0.0.1:8000/ ([console] in larder.toml), Flower at http://127.0.0.1:5555/. Backups begin
    by their schedules. With REDIS_URL the Redis there is used. One Ctrl-C has every step finished or given back, a
    second one ends at once.

    \b
    Example:
      DATABASE_URL=postgresql://backup@db/shop larder up
    """
    from console.up import up  # noqa: PLC0415 - brings the web's libraries, which no other command needs

    return up(as_json=as_json)


@command("console")
@click.option("--host", metavar="ADDRESS", help="Listen here, whatever larder.toml says.")
@click.option("--port", type=click.IntRange(1, 65535), help="And at this port.")
def _console(*, host: str | None, port: int | None, as_json: bool) -> int:
    """Serve the page, the API and the metrics, until it is ended.

    For this machine only, at http://127.0.0.1:8000/, until LARDER_CONSOLE_PASSWORD is set or a proxy is configured that
    people log in at ([console] in larder.toml). With CRON_SECRET, /api/cron/backup begins backups.

    \b
    Examples:
      larder console
      LARDER_CONSOLE_PASSWORD=… larder console --host 0.0.0.0
      curl -f http://127.0.0.1:8000/api/health
    """
    from console.web.serve import serve  # noqa: PLC0415 - brings the web's libraries, which no other command needs

    return serve(host, port, as_json=as_json)


@command("completion")
@click.argument("shell", type=click.Choice(completion.SHELLS))
def _completion(shell: str, *, as_json: bool) -> int:
    """Print what a shell reads to complete commands, and the names of databases, backups, runs, requests and stores.

    \b
    For good:
      larder completion bash > ~/.local/share/bash-completion/completions/larder
      larder completion zsh > ~/.zsh/_larder          with ~/.zsh in fpath, before compinit
      larder completion fish > ~/.config/fish/completions/larder.fish
    """
    return completion.print_script(main, shell, as_json=as_json)


@main.group("catalog")
def _catalog() -> None:
    """Work with what the stores hold, and the ledger's record of it."""


@command("rebuild", _catalog)
@click.option("--store", metavar="NAME", help="Only from this store.")
def _rebuild(*, store: str | None, as_json: bool) -> int:
    """Take up every backup that the stores hold into this ledger.

    A new machine needs the stores' credentials and nothing else. Where nobody has configured signers and the ledger
    knows none, the keys that signed are trusted from then on, and named. Doing it twice is fine.

    \b
    Example, on a machine that has nothing yet:
      BACKUP_S3_BUCKET=my-backups larder catalog rebuild && larder verify --all
    """
    return rebuild.rebuild_catalog(store, as_json=as_json)


@main.group("keys")
def _keys() -> None:
    """Make the keys that vouch for backups, and those that approve restores."""


@command("new", _keys)
@click.argument("kind", type=click.Choice(["signer", "approver"]))
@click.argument("name", metavar="NAME")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Where to; NAME.KIND.key here.")
@click.option("--no-passphrase", is_flag=True, help="Keep an approver's key in clear; a signer's always is.")
def _new_key(kind: str, name: str, *, out: Path | None, no_passphrase: bool, as_json: bool) -> int:
    """Write a new private key to a file that only its owner can read, and print the lines for larder.toml.

    A signer is the key that a host signs manifests with; workers use it unattended, so it has no passphrase. An
    approver is the key of a person who may approve restores; it belongs on that person's own machine, never on a
    worker. NAME is what the configuration calls it.

    \b
    Examples:
      larder keys new signer web1 --out /etc/larder/web1.signer.key
      larder keys new approver alice
    """
    if kind == "approver":
        return keys.new_approver(name, out, passphrase=not no_passphrase, as_json=as_json)
    return keys.new_signer(name, out, as_json=as_json)


@command("show", _keys)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--name", required=True, metavar="NAME", help="What the configuration calls it.")
def _show_key(file: Path, *, name: str, as_json: bool) -> int:
    """Print the lines for larder.toml that belong to a key which exists already. Asks for no passphrase.

    \b
    Example, on a new machine:
      larder keys show alice.approver.key --name alice >> larder.toml
    """
    return keys.show(file, name, as_json=as_json)


# Once all are there, those of the other modules too.
completion.teach(main)
