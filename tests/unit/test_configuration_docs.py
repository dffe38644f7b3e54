"""docs/configuration.md: as it would be made now, with words for every key, and defaults that are taken as written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from console.reference import page
from larder import notifiers, stores
from larder.fields import Table
from larder.settings import ConsoleSettings, DatabaseSettings, Environment, General, RetentionSettings
from larder.variables import FILE

FOUND = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")

TABLES: dict[str, type[Table]] = {
    "Outside every table": General,
    "[databases.NAME]": DatabaseSettings,
    "[databases.NAME.retention]": RetentionSettings,
    "[console]": ConsoleSettings,
    **{f'[stores.NAME] with type = "{word}"': stores.settings_of(word) for word in stores.words()},
    **{f'[notifiers.NAME] with type = "{word}"': notifiers.settings_of(word) for word in notifiers.words()},
}


def rows(title: str) -> list[list[str]]:
    """The cells of the table below a title."""
    (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", FOUND, re.MULTILINE | re.DOTALL)
    return [re.split(r" (?<!\\)\| ", line[2:-2]) for line in section.splitlines() if line.startswith("| `")]


def test_it_is_as_it_would_be_made_now() -> None:
    assert page() == FOUND, "make docs"


@pytest.mark.parametrize("title", TABLES)
def test_every_key_has_words_and_its_default(title: str) -> None:
    model, found = TABLES[title], rows(title)
    fields = {name: info for name, info in model.model_fields.items() if not info.exclude}
    assert {key.strip("`") for key, *_ in found} == fields.keys() - {"retention"}
    for key, words, takes, default in found:
        assert words, key
        assert takes, key
        name = key.strip("`")
        if default.startswith("`") and name != "type":
            written = tomllib.loads(f"{name} = {default.strip('`')}")
            assert getattr(_with(model, name, written[name]), name) == fields[name].default, key


def _with(model: type[Table], key: str, value: object) -> object:
    """A table with one key as it was written, whatever else it takes."""
    return model.__pydantic_validator__.validate_assignment(model.model_construct(), key, value)


def test_every_variable_is_told_and_what_files_may_hold() -> None:
    found = {
        name.strip("`"): takes for name, _, takes in (row for row in rows("Environment") if len(row) == 3)
    }
    assert {name.upper() for name in Environment.model_fields} <= found.keys()
    assert f"`NAME{FILE}`" in FOUND
