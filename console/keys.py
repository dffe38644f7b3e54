"""`larder keys`: new keys, and what the configuration has to say about them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from console import output
from console.output import escape
from larder.errors import ConfigurationError
from larder.naming import DATABASE_NAME
from larder.signing import create_signer

_NAME = re.compile(DATABASE_NAME)


def new_signer(name: str, out: Path | None, *, as_json: bool) -> int:
    """Make the key that a host signs manifests with, and print its lines for larder.toml; gives the exit code."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"unable to make a key called {name!r}",
            "a name is letters, digits, - and _, at most 63 of them",
        )
    path = (out or Path(f"{name}.signer.key")).absolute()
    public_key = create_signer(path).public_key
    if as_json:
        output.print_json({"name": name, "file": str(path), "public_key": public_key})
    else:
        print(_lines(name, path, public_key), end="")
        output.err.print(f"[green]wrote[/] {escape(str(path))}: whoever has this file can sign as {name}")
    return 0


def _lines(name: str, path: Path, public_key: str) -> str:
    """What larder.toml has to say, as TOML: keys of their own have to stand above the tables."""
    return f"""\
# On the host that signs as {name}, above every table. Leave the line out on other hosts.
signing_key = {_toml(str(path))}

# On every host that reads its backups.
[signers.{name}]
public_key = "{public_key}"
"""


def _toml(text: str) -> str:
    """A text as TOML has it: as JSON does, but for what lies beyond 16 bits."""
    quoted = json.dumps(text, ensure_ascii=False)
    return output.printable(quoted, spell=lambda character: f"\\U{ord(character):08x}")
