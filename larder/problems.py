"""Mistakes in the configuration, collected so that one reading reports them all."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from larder.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)


class Problems:
    """A list of mistakes, each with the path of the key that it is in."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str, str]] = []

    def __contains__(self, path: str) -> bool:
        return any(found == path or found.startswith(f"{path}.") for found, _, _ in self._found)

    def add(self, path: str, what: str, hint: str = "") -> None:
        """Note that `what` is wrong at `path`."""
        self._found.append((path, what, hint))

    def validate(self, model: type[Model], values: dict[str, Any], path: str, *, upper: bool = False) -> Model | None:
        """Check `values` against `model`; None where something is wrong, which is noted.

        `upper` writes the first part of each path in capitals, as environment variables are.
        """
        known = {name for name, info in model.model_fields.items() if not info.exclude}
        for key in sorted(values.keys() - known):
            near = difflib.get_close_matches(key, known, n=1)
            self.add(f"{path}.{key}".lstrip("."), "unknown key", f"did you mean '{near[0]}'?" if near else "")
        try:
            return model.model_validate({key: value for key, value in values.items() if key in known})
        except ValidationError as error:
            for mistake in error.errors(include_input=False, include_url=False, include_context=False):
                parts = [str(part) for part in mistake["loc"]]
                if upper and parts:
                    parts[0] = parts[0].upper()
                if mistake["type"] == "extra_forbidden":
                    self.add(".".join(filter(None, [path, *parts])), "unknown key")
                    continue
                self.add(".".join(filter(None, [path, *parts])), _plain(mistake["msg"]))
            return None

    def raise_if_any(self) -> None:
        """Raise `ConfigurationError` naming every mistake, if there is one."""
        if not self._found:
            return
        count = "1 mistake" if len(self._found) == 1 else f"{len(self._found)} mistakes"
        lines = [f"unable to use the configuration: {count}"]
        for path, what, hint in self._found:
            lines.append(f"  {path}: {what}" + (f" ({hint})" if hint else ""))
        raise ConfigurationError("\n".join(lines), "larder.example.toml shows every key with its default")


def _plain(message: str) -> str:
    """A pydantic message as a lower-case clause."""
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
