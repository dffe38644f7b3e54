"""docs/plug-ins.md, docs/plug-in-engine.md: each example is put in its place as it stands, and held to its suite."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import Mock

import pytest
from pydantic import SecretStr

import tasks
from larder import databases
from larder.encoding import Encoding
from larder.errors import IntegrityError
from larder.ledger import runs
from larder.ledger.leases import Lease
from larder.progress import Progress
from larder.restoring import Content, Plan, Restorer, Source
from tasks import chain, context
from tests.backups import lay
from tests.house import House
from tests.restores import Approver, back_up, restored, undone

ROOT = Path(__file__).parents[2]
PAGES = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("plug-ins.md", "plug-in-engine.md")]

#: What stands in each file, by its name.
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", "\n".join(PAGES), re.MULTILINE | re.DOTALL))

#: The seams whose suites run over everything that lies in a folder.
SUITES = {
    "tests/contracts/test_codecs.py": "larder/codecs/xz.py",
    "tests/contracts/test_stores.py": "larder/stores/sqlar.py",
    "tests/contracts/test_notifiers.py": "larder/notifiers/ntfy.py",
    "tests/contracts/test_databases.py": "larder/databases/json.py",
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
    assert int(passed[1]) >= (10 if chosen or "databases" in suite else 20)
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
    cells = re.findall(r"^\| (`.*?) \|", PAGES[1], re.MULTILINE)
    names = {name for cell in cells for name in re.findall(r"`(\w+)(?:\([^`]*\))?`", cell)}
    for module in databases._modules():
        assert [name for name in names if not hasattr(module, name)] == []
    assert names >= {"recognises", "DATABASE", "restorer", "scratch"}


ENGINE = "larder/databases/json.py"


def say(_line: str) -> None:
    """Nobody listens."""


def test_the_engine_brings_back_what_was_lost(tmp_path: Path) -> None:
    place = placed(ENGINE, tmp_path / "place").parent
    # Read by every Python that starts: commands, and the workers that they bring.
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(
        f"import larder.databases\n\nlarder.databases.__path__.append({str(place)!r})\n"
    )
    house = House(tmp_path, PYTHONPATH=f"{tmp_path / 'start'}{os.pathsep}{ROOT}")
    alice, live = Approver(house), tmp_path / "db.json"
    house.configure('[databases.shop]\nurl = "json:///db.json"\n' + alice.lines)
    live.write_text('{"orders": [1, 2, 3]}')
    live.chmod(0o640)
    backup = back_up(house, "shop")
    drilled = house.larder("drill", "shop", "--json")
    assert json.loads(drilled.stdout)["proof"] == "proven", drilled.stderr
    live.write_text('{"orders": []}')
    done = restored(house, alice, backup, "shop")
    assert live.read_text() == '{"orders": [1, 2, 3]}'
    assert live.stat().st_mode & 0o777 == 0o640
    undone(house, done["request"])
    assert live.read_text() == '{"orders": []}'


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The engine of the page, for as long as a test."""
    monkeypatch.setattr(
        databases, "__path__", [*databases.__path__, str(placed(ENGINE, tmp_path / "place").parent)]
    )
    yield importlib.import_module("larder.databases.json")
    sys.modules.pop("larder.databases.json")
    databases.__dict__.pop("json", None)


@pytest.fixture
def loaded(engine: ModuleType, tmp_path: Path) -> tuple[Restorer, Content, Path]:
    """A restorer that has loaded the new document beside the live one, and may swap."""
    live, data = tmp_path / "db.json", b'{"orders": [1, 2]}'
    live.write_text('{"orders": []}')
    fingerprint = {"row_counts": "exact", "tables": {"orders": {"rows": 2}}}
    source = Source(
        "json", "file", len(data), hashlib.sha256(data).hexdigest(), "8259", "python", fingerprint
    )
    (tmp_path / "scratch").mkdir()
    content = Content(source, lambda: io.BytesIO(data), None, tmp_path / "scratch")
    settings = SimpleNamespace(name="shop", url=SecretStr(f"json:///{live}"), base=tmp_path, checks=())
    made = engine.restorer(settings, Plan("0123456789ab", "swap"))
    assert made.load(content, Progress(), say) == []
    assert made.examine(content, Progress()) == []
    return made, content, live


def names(live: Path) -> list[str]:
    return sorted(path.name for path in live.parent.iterdir() if path.is_file())


@pytest.fixture
def killed(
    loaded: tuple[Restorer, Content, Path], monkeypatch: pytest.MonkeyPatch
) -> tuple[Restorer, Content, Path]:
    """The same, killed between the two steps of its swap."""
    made, content, _ = loaded
    with monkeypatch.context() as dying:
        dying.setattr(Path, "rename", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            made.swap(content, "T1", Progress(), say)
    return loaded


def test_the_engine_finds_what_it_did_before_it_was_killed(killed: tuple[Restorer, Content, Path]) -> None:
    made, content, live = killed
    assert (live.read_text(), made.swapped("T1", content.scratch)) == ('{"orders": []}', (False, None))
    first = made.swap(content, "T1", Progress(), say)
    assert first
    assert live.read_text() == '{"orders": [1, 2]}'
    # Asked again, by somebody who knows nothing of it.
    assert made.swap(content, "T1", Progress(), say) == first
    assert made.swapped("T1", content.scratch) == (True, first)
    assert names(live) == ["db.json", "db.json.before_restore_T1"]
    second = made.undo(first, "T2", say)
    assert made.undo(first, "T2", say) == second
    assert live.read_text() == '{"orders": []}'
    assert made.swapped("T1", content.scratch) == (False, None)
    assert (made.drop_kept(first), made.drop_kept(second)) == (False, True)
    assert names(live) == ["db.json"]


def test_the_engine_takes_back_what_does_not_go_on(killed: tuple[Restorer, Content, Path]) -> None:
    made, _, live = killed
    assert len(names(live)) == 3
    assert made.drop_new()
    assert (names(live), live.read_text()) == (["db.json"], '{"orders": []}')


def test_the_engine_refuses_other_bytes(loaded: tuple[Restorer, Content, Path]) -> None:
    made, content, live = loaded
    altered = Content(content.source, lambda: io.BytesIO(b'{"orders": [1, 3]}'), None, content.scratch)
    with pytest.raises(IntegrityError, match="decodes to 18 bytes"):
        made.load(altered, Progress(), say)
    assert names(live) == ["db.json"]
