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


#: The commands in the order that somebody meets them, under what they are for. One that is in none comes last.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Back up, and see that it is good": ("backup", "verify", "drill", "status"),
    "What there is": ("list", "show", "runs", "watch"),
    "Bring back": ("restore",),
    "Keep, and let go": ("pin", "unpin", "prune"),
    "Run it": ("doctor", "up", "console", "keys", "catalog", "completion"),
    "For an auditor": ("audit", "evidence"),
}


class _Sections(click.Group):
    """Lists its commands under headings."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections that have commands."""
        placed = {name for names in SECTIONS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in placed)
        shown = [
            (heading, found)
            for heading, names in {**SECTIONS, "Others": others}.items()
            if (found := [(name, self.commands[name]) for name in names if name in self.commands])
        ]
        width = max(len(name) for _, found in shown for name, _ in found)
        for heading, found in shown:
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (name.ljust(width), one.get_short_help_str(formatter.width - width - 6))
                        for name, one in found
                    ]
                )


@click.group(
    cls=_Sections,
    help=f"""Back up databases, have every backup read back before it counts, and restore them behind an approval.

\b
Begin with one database, and nothing else:
  DATABASE_URL=postgresql://user@host/shop larder backup
  larder list                    what there is now, and where
  larder drill                   restore it beside, and compare
  larder doctor                  what would be in the way

The database comes from DATABASE_URL, or many of them from larder.toml (see larder.example.toml). Without REDIS_URL a
command starts the Redis and the worker that it needs, and ends them. Each command says more: larder backup --help.
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
