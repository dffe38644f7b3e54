"""Mistakes in the configuration, collected so that one reading reports them all."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from larder.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)

#: pydantic's kinds of mistake, in the words of somebody who writes a configuration file.
_WORDS = {
    "bool_type": "has to be true or false",
    "dict_type": "has to be a table",
    "int_from_float": "has to be a whole number",
    "int_parsing": "has to be a whole number",
    "int_parsing_size": "has to be a smaller number",
    "int_type": "has to be a whole number",
    "missing": "is missing",
    "model_type": "has to be a table",
    "path_type": "has to be a path",
    "string_too_short": "is empty",
    "string_type": "has to be text, in quotation marks",
    "tuple_type": "has to be a list",
}


class Problems:
    """The mistakes found so far: one for each path, the first that was noted."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def __contains__(self, path: str) -> bool:
        return any(found == path or found.startswith(f"{path}.") for found in self._found)

    def add(self, path: str, what: str, hint: str = "") -> None:
        """Note that `what` is wrong at `path`; a second mistake in one place is the first one's shadow."""
        self._found.setdefault(path, f"{what} ({hint})" if hint else what)

    def validate(
        self,
        model: type[Model],
        values: Mapping[str, Any],
        path: str,
        *,
        named: Mapping[str, str] | None = None,
        siblings: Iterable[str] = (),
    ) -> Model | None:
        """Check `values` against `model`; None where something is wrong, which is noted.

        `named` holds the full paths of keys that the operator knows by other names, such as an environment
        variable's. `siblings` are keys that are read elsewhere, and may be what a misspelt one was meant to be.
        """
        known = self._without_unknown(model, values, path, siblings)
        try:
            return model.model_validate(known)
        except ValidationError as error:
            for mistake in error.errors(include_input=False, include_url=False):
                first, *rest = [str(part) for part in mistake["loc"]] or [""]
                start = (named or {}).get(first) or _joined(path, first)
                self.add(_joined(start, *rest), _words(mistake))
            return None

    def _without_unknown(
        self, model: type[BaseModel], values: Mapping[str, Any], path: str, siblings: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Note the keys that `model` and its tables do not know, and give back the others."""
        fields = {name: info for name, info in model.model_fields.items() if not info.exclude}
        known: dict[str, Any] = {}
        for key, value in values.items():
            if key not in fields:
                near = nearest(key, [*fields, *siblings])
                self.add(_joined(path, key), "unknown key", f"did you mean '{near}'?" if near else "")
                continue
            kind = fields[key].annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, dict):
                value = self._without_unknown(kind, value, _joined(path, key))
            known[key] = value
        return known

    def raise_if_any(self) -> None:
        """Raise `ConfigurationError` naming every mistake, if there is one."""
        if not self._found:
            return
        count = "1 mistake" if len(self._found) == 1 else f"{len(self._found)} mistakes"
        lines = [f"unable to use the configuration: {count}"]
        lines += [f"  {path}: {what}" for path, what in self._found.items()]
        raise ConfigurationError("\n".join(lines), "larder.example.toml shows every key with its default")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` was most likely meant to be, or None."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _words(mistake: ErrorDetails) -> str:
    """A pydantic mistake as a clause that goes on from the key's path. It never holds what was written there."""
    kind, context = mistake["type"], mistake.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"has to be {context['expected']}"
    if kind == "greater_than_equal":
        return f"has to be at least {context['ge']}"
    if kind == "less_than_equal":
        return f"has to be at most {context['le']}"
    message = mistake["msg"]
    return _WORDS.get(kind) or message[:1].lower() + message[1:]
