"""The group of all commands, and what each of them has: `--json`, and errors that are printed as they should be."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Mapping
from typing import Any

import click

import larder
from console import output
from larder.errors import ConfigurationError, LarderError
from workers import log

_EXIT_CODES = """
\b
Exit codes:
  0  done
  1  failed
  2  usage or configuration
  3  no such database, backup, run or request
  4  not authorised: nobody with the right key has approved it
  5  integrity: checksum, signature, size, end mark, a backup that is gone
  6  database, store or broker out of reach
"""


@click.group(
    help=f"""Back up databases, have every backup read back before it counts, and restore them behind an approval.

The database comes from DATABASE_URL, or many of them from larder.toml (see larder.example.toml). Without REDIS_URL a
command starts the Redis and the worker that it needs, and ends them.
{_EXIT_CODES}""",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(larder.__version__, prog_name="larder")
def main() -> None:
    """The group of all commands."""
    output.take_any_text()
    log.mask_tracebacks()
    # Ended by its reader (`larder list | head`), a command has nothing to say about it.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _see_that_it_is_text(arguments: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` for bytes that are no UTF-8, which neither a ledger nor JSON can hold."""
    for value in arguments.values():
        for text in value if isinstance(value, tuple) else (value,):
            try:
                str(text).encode()
            except UnicodeEncodeError:
                raise ConfigurationError(
                    f"unable to read an argument: {str(text)!r} is not UTF-8", "see how the shell quoted it"
                ) from None


def command(name: str, group: click.Group = main) -> Callable[[Callable[..., int | None]], click.Command]:
    """A command with `--json`, whose function gives an exit code, and whose errors are printed as they should be."""

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, **arguments: Any) -> None:
            try:
                _see_that_it_is_text(arguments)
                code = function(as_json=as_json, **arguments)
            except LarderError as error:
                output.fail(error, as_json=as_json)
            raise SystemExit(code or 0)

        option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
        return group.command(name)(option(run))

    return decorate
