"""The page of all settings: `python -m console.reference` writes docs/configuration.md from what is read and checked.

A key's words, default and limits are those of `larder.settings` and of the plug-ins' own tables, so that the page says
what is so. larder.example.toml says why one would change it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from larder import notifiers, stores
from larder.fields import DAY, Duration, Folder, PublicKey, Size, Table
from larder.posting import Webhook
from larder.settings import (
    ApproverSettings,
    ConsoleSettings,
    Cron,
    DatabaseSettings,
    DatabaseUrl,
    Environment,
    General,
    Recipient,
    RetentionSettings,
    SignerSettings,
)

#: Kinds of value with a spelling of their own, and what they are called.
_KINDS: tuple[tuple[Any, str], ...] = (
    (Cron, "cron expression"),
    (Duration, "time"),
    (Size, "size"),
    (Folder, "path"),
    (PublicKey, "key in base64"),
    (Recipient, "public key"),
    (DatabaseUrl, "secret"),
    (Webhook, "secret"),
)
_PLAIN = {SecretStr: "secret", bool: "`true` or `false`", int: "whole number", str: "text", Path: "path"}

_TIMES = ((DAY, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES = ((10**9, " GB"), (2**30, " GiB"), (10**6, " MB"), (2**20, " MiB"), (1000, " kB"), (1, ""))

_HEAD = """# Configuration

Every variable and every key, with what it takes and what it is without it. This page is made from the code that reads
them (`make docs`); [larder.example.toml](../larder.example.toml) holds the same keys with the reasons to change them.

One database takes `DATABASE_URL` and nothing else. More of them, and whatever differs from the defaults, stand in
`larder.toml`: in the working folder, or where `LARDER_CONFIG` says. `BACKUP_DIR`, `LARDER_STATE_DIR` and
`LARDER_LOG_FORMAT` win over the file. Backups lie in a folder of the database's name from then on; [those from
before](retention.md#from-one-database-to-many) are moved there once. Every mistake is told at once, each with its
path; `larder doctor` then looks at what the settings lead to.

- A **time** is `"90s"`, `"10m"`, `"2h"`, `"7d"`, or a number of seconds. A **size** is `"500 MB"`, `"50 GB"`,
  `"16 MiB"`, or a number of bytes. A **cron expression** is `"minute hour day month weekday"`.
- A **secret** named `KEY` may stand in a variable: `KEY_env = "NAME"` instead of `KEY = "…"`. Relative **paths** begin
  at the file.
- *Required* keys have no default. *None*: there is nothing, and what that comes to is said beside it."""

_VARIABLES = """## Environment

For each secret `NAME` of this table, and for each variable that a `KEY_env` names, `NAME_FILE` may name a file that
holds it, as Docker, Compose and Kubernetes hand secrets over. Both at once are a mistake. An empty variable counts as
not set."""

_OTHERS = """Others read these, in Larder's processes:

| variable | who | for |
|---|---|---|
| `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_PROFILE`, … | boto3 | buckets: see [stores](stores.md) |
| `PGSSLROOTCERT`, `PGPASSFILE`, … | PostgreSQL's client | what a connection string leaves open |
| `HTTPS_PROXY`, `NO_PROXY` | Python, boto3 | what goes out by HTTP |
| `FLOWER_BASIC_AUTH` (or `FLOWER_BASIC_AUTH_FILE`), `FLOWER_ADDRESS`, `FLOWER_PORT` | Flower | who gets in, and where |
| `NO_COLOR` | commands | any value turns colours off; there are none in a pipe anyway |"""


def page() -> str:
    """docs/configuration.md."""
    return "\n\n".join(_parts()) + "\n"


def _parts() -> Iterator[str]:
    yield _HEAD
    yield _VARIABLES
    yield "\n".join(_of_variables())
    yield _OTHERS
    yield from _section("Outside every table", General)
    yield from _section("[databases.NAME]", DatabaseSettings)
    yield from _section("[databases.NAME.retention]", RetentionSettings)
    for word in sorted(stores.words(), key=lambda one: one != stores.DEFAULT):
        yield from _section(f'[stores.NAME] with type = "{word}"', stores.settings_of(word), word)
    for word in sorted(notifiers.words(), key=lambda one: one != notifiers.DEFAULT):
        yield from _section(f'[notifiers.NAME] with type = "{word}"', notifiers.settings_of(word), word)
    yield from _section("[console]", ConsoleSettings)
    yield from _section("[signers.NAME]", SignerSettings)
    yield from _section("[approvers.NAME]", ApproverSettings)


def _of_variables() -> Iterator[str]:
    yield "| variable | for; what it is without | takes |"
    yield "|---|---|---|"
    hints = get_type_hints(Environment, include_extras=True)
    for name, info in Environment.model_fields.items():
        kind = _kind(hints[name])
        yield _row(f"`{name.upper()}`", info.description or "", kind + _limits(info, kind))


def _section(title: str, model: type[Table], word: str | None = None) -> Iterator[str]:
    """A table of keys, below its title and what the code says of it."""
    yield f"## {title}"
    yield (model.__doc__ or "").partition("\n")[0]
    yield "\n".join(_of_keys(model, word))


def _of_keys(model: type[Table], word: str | None) -> Iterator[str]:
    yield "| key | for | takes | default |"
    yield "|---|---|---|---|"
    hints = get_type_hints(model, include_extras=True)
    for name, info in model.model_fields.items():
        if info.exclude or (isinstance(info.annotation, type) and issubclass(info.annotation, Table)):
            continue
        kind = _kind(hints[name])
        default = f'`"{word}"`' if name == "type" and word else _default(info, kind)
        yield _row(f"`{name}`", info.description or "", kind + _limits(info, kind), default)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _kind(hint: Any) -> str:
    """What a value of this type is called."""
    validators = {getattr(mark, "func", None) for mark in _marks(hint)} - {None}
    for kind, called in _KINDS:
        wanted = {getattr(mark, "func", None) for mark in _marks(kind)} - {None}
        if wanted <= validators:
            return f"list of {called}s" if _is_list(hint) else called
    return _plain(hint)


def _plain(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _plain(arguments[0])
    if origin is Literal:
        return " or ".join(f'`"{one}"`' for one in arguments)
    if origin is tuple:
        called = _plain(arguments[0])
        return f"some of {called.replace(' or ', ', ')}" if called.startswith("`") else f"list of {called}s"
    if arguments:
        return _plain(next(one for one in arguments if one is not NoneType))
    return _PLAIN[hint]


def _is_list(hint: Any) -> bool:
    return get_origin(hint) is tuple or (get_origin(hint) is Annotated and _is_list(get_args(hint)[0]))


def _marks(hint: Any) -> Iterator[Any]:
    """Whatever is said about a type beside what it is, at any depth."""
    yield from getattr(hint, "__metadata__", ())
    for one in get_args(hint):
        yield from _marks(one)


def _limits(info: FieldInfo, kind: str) -> str:
    """`, 1 to 64`: what is the least and the most."""
    marks = [*info.metadata, *_nested(info.annotation)]
    least = next((mark.ge for mark in marks if isinstance(mark, Ge)), None)
    most = next((mark.le for mark in marks if isinstance(mark, Le)), None)
    if most is None:
        return f", from {_spelled(least, kind)}" if least is not None and least != 1 else ""
    return f", {_spelled(least, kind)} to {_spelled(most, kind)}"


def _nested(annotation: Any) -> Iterator[Any]:
    for mark in _marks(annotation):
        yield from mark.metadata if isinstance(mark, FieldInfo) else ()


def _default(info: FieldInfo, kind: str) -> str:
    value = info.get_default(call_default_factory=False)
    if value is PydanticUndefined:
        return "*required*"
    if value is None:
        return "*none*"
    if isinstance(value, tuple):
        return f"`[{', '.join(_quoted(one) for one in value)}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int):
        spelled = _spelled(value, kind)
        return f"`{spelled if spelled.isdecimal() else _quoted(spelled)}`"
    return f"`{_quoted(value)}`"


def _quoted(value: object) -> str:
    return f'"{value}"'


def _spelled(value: Any, kind: str) -> str:
    """A number as it is written in larder.toml: in the largest unit that it is whole in."""
    units = {"time": _TIMES, "size": _SIZES}.get(kind, ())
    for length, unit in units if value else ():
        if value % length == 0:
            return f"{value // length}{unit}"
    return str(value)


def main(arguments: Iterable[str]) -> None:
    """Write the page to the file that is named, or to standard output."""
    text = page()
    for name in arguments:
        Path(name).write_text(text, encoding="utf-8")
        return
    sys.stdout.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
