"""The command line. Each command is one call into a module of its own; what they share is here."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from typing import Any

import click

import larder
from console import backup, catalogue, doctor, output, runs, status
from larder.errors import LarderError

_EXIT_CODES = """
\b
Exit codes:
  0  done
  1  failed
  2  usage or configuration
  3  no such database, backup or run
  5  integrity: checksum, size, end mark
  6  database, store or broker out of reach
"""


@click.group(
    help=f"""Back up databases, and have every backup read back before it counts.

    The database comes from DATABASE_URL, or many of them from larder.toml (see larder.example.toml).
    Without REDIS_URL a command starts the Redis and the worker that it needs, and ends them.
    {_EXIT_CODES}""",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(larder.__version__, prog_name="larder")
def main() -> None:
    """The group of all commands."""
    # Ended by its reader (`larder list | head`), a command has nothing to say about it.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def command(name: str) -> Callable[[Callable[..., int | None]], click.Command]:
    """A command with `--json`, whose function gives an exit code, and whose errors are printed as they should be."""

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, **arguments: Any) -> None:
            try:
                code = function(as_json=as_json, **arguments)
            except LarderError as error:
                output.fail(error, as_json=as_json)
            raise SystemExit(code or 0)

        option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
        return main.command(name)(option(run))

    return decorate


@command("backup")
@click.argument("databases", nargs=-1, metavar="[DB …]")
@click.option("--no-wait", is_flag=True, help="Leave it to the workers at REDIS_URL, and return at once.")
def _backup(databases: tuple[str, ...], *, no_wait: bool, as_json: bool) -> int:
    """Back up databases: all that are configured, or those named.

    Shows each step as it goes, and where the backup is. Exits with 0 only when every copy has been read back.

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
    """Show each database at a glance: newest backup, last run, next run.

    Exits with 1 when a database has no good backup, or its last run failed.
    """
    return status.print_status(as_json=as_json)


@command("doctor")
def _doctor(*, as_json: bool) -> int:
    """Check that backups can work here, one line a check, with a hint where one is needed.

    Looks at client against server versions, reachability, permissions, disk space against the last dump's size, the
    Redis version, and the clock. Exits with 1 when a check fails.
    """
    return doctor.print_checks(as_json=as_json)
