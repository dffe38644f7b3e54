"""docs/plug-ins.md: each example is put in its place, as it stands there, and held to the suite of its seam."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from larder import databases
from larder.encoding import Encoding
from larder.ledger import runs
from larder.ledger.leases import Lease
from tasks import chain, context
from tests.backups import lay

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plug-ins.md").read_text(encoding="utf-8")

#: What stands in each file, by its name.
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))

#: The seams whose suites run over everything that lies in a folder.
SUITES = {
    "tests/contracts/test_codecs.py": "larder/codecs/xz.py",
    "tests/contracts/test_stores.py": "larder/stores/sqlar.py",
    "tests/contracts/test_notifiers.py": "larder/notifiers/ntfy.py",
}

#: Has a package look into another folder too, and a suite's module read what the page adds to it.
PLUGIN = """
import importlib
from pathlib import Path

importlib.import_module({package!r}).__path__.append({folder!r})


def pytest_collection_modifyitems(items):
    exec(Path({added!r}).read_text(), vars(items[0].module))
"""


def placed(name: str, folder: Path) -> Path:
    """An example in a folder of its own."""
    path = folder / Path(name).name
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(FILES[name], encoding="utf-8")
    return path


def test_the_page_has_an_example_for_each_suite() -> None:
    assert FILES.keys() == {*SUITES, *SUITES.values(), "tasks/weigh.py"}


#: A codec's suite tries thousands of damaged streams. What of it is quick, and what each contract stands on.
QUICK = "tool or cut or follows or closing or memory or raises"

WHOLE = [
    pytest.param(suite, "", marks=pytest.mark.slow if "codecs" in suite else (), id=Path(suite).stem)
    for suite in SUITES
]


@pytest.mark.parametrize(
    ("suite", "chosen"), [pytest.param("tests/contracts/test_codecs.py", QUICK, id="quick"), *WHOLE]
)
def test_an_example_passes_the_suite_of_its_seam(suite: str, chosen: str, tmp_path: Path) -> None:
    example = placed(SUITES[suite], tmp_path / "place")
    added = placed(suite, tmp_path / "added")
    package = ".".join(Path(SUITES[suite]).parts[:-1])
    (tmp_path / "with_example.py").write_text(
        PLUGIN.format(package=package, folder=str(example.parent), added=str(added))
    )
    options = [
        "-q",
        "-p",
        "pytest_timeout",
        "-p",
        "with_example",
        "-p",
        "no:cacheprovider",
        "-k",
        example.stem,
    ]
    options[-1] += f" and ({chosen})" if chosen else ""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, suite],
        cwd=ROOT,
        # Other plug-ins of pytest's are imported for seconds, and have no part in it.
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= (10 if chosen else 20)
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("name", FILES)
def test_an_example_is_in_shape(name: str, tmp_path: Path) -> None:
    path = placed(name, tmp_path)
    checked = "I,F,E" if name.startswith("larder") else "I,E"
    for command in (["check", f"--select={checked}"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--line-length=110", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_the_step_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = lay(tmp_path / "nas", "shop/20261016_020000", Encoding([]))
    (tmp_path / "larder.toml").write_text(
        f'state_dir = "{tmp_path / "state"}"\n[databases.shop]\nurl = "sqlite:///shop.db"\n[stores.nas]\npath = "nas"\n'
    )
    monkeypatch.setenv("LARDER_CONFIG", str(tmp_path / "larder.toml"))
    monkeypatch.setattr(chain, "send", lambda *_: None)
    monkeypatch.setattr(runs, "BACKUP_STEPS", ("weigh", *runs.BACKUP_STEPS))
    placed("tasks/weigh.py", tmp_path / "tasks")
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path / "tasks")])
    weigh = importlib.import_module("tasks.weigh").weigh
    context.settings.cache_clear()
    context._ledger_of.cache_clear()
    try:
        ledger = context.ledger()
        run, _ = ledger.runs.create("shop", "command", stores=["nas"])
        monkeypatch.setattr(type(run), "backup", manifest.backup)
        ledger.backups.adopt(manifest, {"nas": manifest.artifact.name})
        weigh(run.id)
        assert ledger.runs.get(run.id).step_named("weigh").state == "done"
        (line,) = [line.text for line in ledger.journal.read(run.id) if "what was dumped" in line.text]
        assert line == "The artifact is 100% of what was dumped"
        # Delivered twice, it has nothing to do.
        weigh(run.id)
        assert isinstance(ledger.leases.take(run.id, "dump", context.host()), Lease)
    finally:
        context.ledger().close()
        context.settings.cache_clear()
        context._ledger_of.cache_clear()


def test_an_engine_has_what_the_page_says() -> None:
    table = PAGE.partition("## An engine")[2]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    names = {name for cell in cells for name in re.findall(r"`(\w+)(?:\([^`]*\))?`", cell)}
    for module in databases._modules():
        assert [name for name in names if not hasattr(module, name)] == []
    assert names >= {"recognises", "DATABASE", "restorer", "scratch"}
