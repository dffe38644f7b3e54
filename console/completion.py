"""Shell completion: the script that a shell reads, and the names that it offers where Tab is pressed.

Names come from the configuration and the ledger. Somebody waits for them in the middle of a line: what is not there in
time is not offered, and nothing is ever said or made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import click
from click.shell_completion import CompletionItem, get_completion_class

from console import output

if TYPE_CHECKING:
    from larder.config import Settings
    from larder.ledger import Ledger

#: The shells that there is a script for.
SHELLS = ("bash", "zsh", "fish")

#: The variable by which a shell's script asks for names.
_ASKS = "_LARDER_COMPLETE"

#: Seconds that configuration and ledger have.
_PATIENCE = 1.0

#: How many of the newest are offered.
_MOST = 50

_SQLITE = "sqlite:///"

Find = Callable[[str], Iterable[str]]


def print_script(main: click.Command, shell: str, *, as_json: bool) -> int:
    """Print what `shell` has to read for `main` to be completed there; gives the exit code."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - one of SHELLS
    script = kind(main, {}, "larder", _ASKS).source()
    if as_json:
        output.print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
    return 0


class Offered(click.types.StringParamType):
    """A word, of which `find` knows some that there are; and files, where it may be the name of one."""

    def __init__(self, find: Find, *, files: bool = False) -> None:
        self._find = find
        self._files = files

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click gives both
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """What begins like `incomplete`, as far as it was found in time."""
        # Before the time runs in which names have to be found: on a slow machine this takes as long.
        import tasks.context  # noqa: F401

        found: list[str] = []

        def work() -> None:
            try:
                found.extend(self._find(incomplete))
            except Exception:  # noqa: BLE001, S110 - a line that is being typed is no place for errors
                pass

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(_PATIENCE)
        known = [CompletionItem(name) for name in list(found) if name.startswith(incomplete)]
        return known or ([CompletionItem(incomplete, type="file")] if self._files else [])


def _settings() -> Settings:
    from tasks import context

    return context.settings()


def _ledger() -> Ledger | None:
    """The ledger, where there is one: pressing Tab makes none."""
    from tasks import context

    url = _settings().ledger_url.get_secret_value()
    if url.startswith(_SQLITE) and not Path(unquote(url.removeprefix(_SQLITE))).is_file():
        return None
    return context.ledger()


def _databases(_typed: str) -> Iterable[str]:
    return _settings().databases


def _backups(typed: str) -> Iterator[str]:
    """`shop/latest` for each database, and the backups of the one that is being typed."""
    name, slash, _ = typed.partition("/")
    yield from (f"{database}/latest" for database in _settings().databases)
    ledger = _ledger()
    if ledger is not None:
        for backup in ledger.backups.latest(name if slash else None, _MOST):
            yield backup.id


def _databases_and_backups(typed: str) -> Iterator[str]:
    yield from _databases(typed)
    yield from _backups(typed)


def _runs(_typed: str) -> Iterable[str]:
    ledger = _ledger()
    return () if ledger is None else [run.id for run in ledger.runs.latest(kind=None, limit=_MOST)]


def _requests(_typed: str) -> Iterable[str]:
    ledger = _ledger()
    return () if ledger is None else [request.id for request in ledger.requests.latest(_MOST)]


def _stores(_typed: str) -> Iterable[str]:
    return _settings().stores


#: What help calls a parameter, and what is offered for it.
_KNOWN: dict[str, Find] = {
    "DB": _databases,
    "URL|DB": _databases,
    "BACKUP": _backups,
    "DB|BACKUP": _databases_and_backups,
    "RUN": _runs,
    "REQUEST": _requests,
}

#: The parameter that takes a request's file too, and the one that names a store.
_REQUEST_OR_FILE = "request"
_STORE = "store"


def teach(command: click.Command) -> None:
    """Have every parameter below `command` offer what there is of what its help calls it."""
    for parameter in command.params:
        called = (parameter.metavar or "").strip("[] …")
        find = _stores if parameter.name == _STORE else _KNOWN.get(called)
        if find is not None:
            parameter.type = Offered(find, files=parameter.name == _REQUEST_OR_FILE)
    if isinstance(command, click.Group):
        for one in command.commands.values():
            teach(one)
