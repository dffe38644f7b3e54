"""`larder keys`: new keys, and what the configuration has to say about them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from console import output, terminal
from console.output import escape
from larder import approver_keys
from larder.errors import ConfigurationError
from larder.naming import DATABASE_NAME
from larder.signing import create_signer, load_signer

_NAME = re.compile(DATABASE_NAME)

_NO_TERMINAL = "run it at a terminal, or leave the file without a passphrase: --no-passphrase"


def new_signer(name: str, out: Path | None, *, as_json: bool) -> int:
    """Make the key that a host signs manifests with, and print its lines for larder.toml; gives the exit code."""
    _check(name)
    path = (out or Path(f"{name}.signer.key")).absolute()
    public_key = create_signer(path).public_key
    if as_json:
        output.print_json({"name": name, "file": str(path), "public_key": public_key})
    else:
        print(_signer_lines(name, path, public_key), end="")
        output.err.print(f"[green]wrote[/] {escape(str(path))}: whoever has this file can sign as {name}")
    return 0


def new_approver(name: str, out: Path | None, *, passphrase: bool, as_json: bool) -> int:
    """Make the key that somebody approves restores with, and print its lines for larder.toml; gives the exit code.

    Asks for a passphrase, twice, unless told otherwise.
    """
    _check(name)
    path = (out or Path(f"{name}.approver.key")).absolute()
    approver_keys.see_that_it_is_free(path)
    typed = terminal.ask_new_passphrase(otherwise=_NO_TERMINAL) if passphrase else None
    public_key = approver_keys.create(path, typed)
    if as_json:
        output.print_json(_approver(name, path, public_key))
        return 0
    print(_approver_lines(name, public_key), end="")
    output.err.print(
        f"[green]wrote[/] {escape(str(path))}: for {name} alone to keep, and never to lie on a worker\n"
        "The lines for larder.toml are for every worker; they hold nothing secret."
    )
    if not passphrase:
        output.err.print(
            f"[yellow]It has no passphrase:[/] whoever gets hold of it approves as {name}. "
            f"ssh-keygen -p -f {escape(str(path))} gives it one."
        )
    return 0


def show(path: Path, name: str, *, as_json: bool) -> int:
    """Print the lines for larder.toml of a key that there is, an approver's or a signer's; gives the exit code.

    No passphrase is needed. Raises `ConfigurationError` where the file is neither, or others can read it.
    """
    _check(name)
    path = path.absolute()
    if approver_keys.is_openssh(path):
        public_key = approver_keys.public_key_of(path)
        document, lines = _approver(name, path, public_key), _approver_lines(name, public_key)
    else:
        public_key = load_signer(path).public_key
        document = {"name": name, "file": str(path), "public_key": public_key}
        lines = _signer_lines(name, path, public_key)
    if as_json:
        output.print_json(document)
    else:
        print(lines, end="")
    return 0


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"unable to make a key called {name!r}",
            "a name is letters, digits, - and _, at most 63 of them",
        )


def _signer_lines(name: str, path: Path, public_key: str) -> str:
    """What larder.toml has to say, as TOML: keys of their own have to stand above the tables."""
    return f"""\
# On the host that signs as {name}, above every table. Leave the line out on other hosts.
signing_key = {_toml(str(path))}

# On every host that reads its backups.
[signers.{name}]
public_key = "{public_key}"
"""


def _approver_lines(name: str, public_key: str) -> str:
    return f"""\
# On every worker. The private half is {name}'s alone; ssh-keygen -l shows it as
# {approver_keys.fingerprint_of(public_key)}
[approvers.{name}]
public_key = "{public_key}"
"""


def _approver(name: str, path: Path, public_key: str) -> dict[str, str]:
    return {
        "name": name,
        "file": str(path),
        "public_key": public_key,
        "fingerprint": approver_keys.fingerprint_of(public_key),
    }


def _toml(text: str) -> str:
    """A text as TOML has it: as JSON does, but for what lies beyond 16 bits."""
    quoted = json.dumps(text, ensure_ascii=False)
    return output.printable(quoted, spell=lambda character: f"\\U{ord(character):08x}")
