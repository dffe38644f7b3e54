"""What is shipped: every package, the files that go with them, and locks that hold for anybody."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import larder

ROOT = Path(__file__).parents[2]
LOCKS = ("runtime", "dev", "redis")
#: What markers ask of a system: a package may be wanted on more of them by the development's tools.
SYSTEMS = {"linux": ("posix", "Linux"), "darwin": ("posix", "Darwin"), "win32": ("nt", "Windows")}
#: One requirement of a lock, with its lines.
ENTRY = re.compile(
    r"^(?P<requirement>[^#\s].*?)(?P<hashes>(?: \\\n {4}--hash=sha256:[0-9a-f]{64})*)$", re.MULTILINE
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def entries(lock: str) -> dict[str, tuple[Requirement, int]]:
    """The requirements of a lock by name, each with the number of its hashes."""
    text = (ROOT / f"requirements/{lock}.txt").read_text(encoding="utf-8")
    found = {}
    for match in ENTRY.finditer(text):
        requirement = Requirement(match["requirement"].strip())
        found[canonicalize_name(requirement.name)] = (requirement, match["hashes"].count("--hash="))
    return found


def folders() -> set[str]:
    """The packages that there are, by what lies in the tree."""
    return {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for top in ("larder", "tasks", "workers", "console")
        for path in (ROOT / top).rglob("__init__.py")
    }


def test_every_package_is_listed(project: dict[str, Any]) -> None:
    assert set(project["tool"]["setuptools"]["packages"]) == folders()


def test_every_package_is_looked_through_by_mypy_and_import_linter(project: dict[str, Any]) -> None:
    tops = {name for name in folders() if "." not in name}
    assert tops <= set(project["tool"]["mypy"]["files"])
    assert tops == set(project["tool"]["importlinter"]["root_packages"])


@pytest.fixture(scope="module")
def wheel(project: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installed wheel looks like: a folder to import from. Built from a copy, which leaves the tree alone."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "beat_schedule.py"):
        shutil.copy(ROOT / name, source)
    for name in project["tool"]["importlinter"]["root_packages"]:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    built, installed = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("installed")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", built, source],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = built.iterdir()
    assert path.name == f"larder-{larder.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(installed)
    return installed


def test_a_wheel_holds_all_of_the_code_and_nothing_else(wheel: Path) -> None:
    shipped = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    shipped = {name for name in shipped if not name.startswith("larder-")}
    written = {
        path.relative_to(ROOT).as_posix()
        for top in ("larder", "tasks", "workers", "console")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == written | {"beat_schedule.py"}


def test_a_wheel_says_what_it_is(wheel: Path) -> None:
    [facts] = wheel.glob("larder-*.dist-info")
    about = Parser().parsestr((facts / "METADATA").read_text(encoding="utf-8"))
    assert (about["Name"], about["Version"]) == ("larder", larder.__version__)
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == ">=3.11"
    assert (facts / "licenses/LICENSE").exists()
    assert "larder = console.cli:main" in (facts / "entry_points.txt").read_text(encoding="utf-8")


def test_an_installed_wheel_is_enough_for_worker_beat_and_command(wheel: Path, tmp_path: Path) -> None:
    code = "import beat_schedule, console.cli, larder, tasks, workers.celery; print(larder.__file__, workers.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(wheel), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(wheel)) for path in done.stdout.split())


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_hashes_and_tells_nothing_of_where_it_was_made(lock: str) -> None:
    text = (ROOT / f"requirements/{lock}.txt").read_text(encoding="utf-8")
    for requirement, hashes in entries(lock).values():
        assert [pin.operator for pin in requirement.specifier] == ["=="], requirement
        assert hashes > 0, requirement
    assert not re.search(r"://|index-url|find-links|trusted-host|(?<![\w.])/\w", text)


def test_a_lock_holds_for_every_platform() -> None:
    """What has compiled parts has many files; the hash of one machine's alone would be of no use elsewhere."""
    found = entries("runtime")
    for name in ("isal", "psycopg-binary", "pydantic-core", "zstandard", "sqlalchemy"):
        assert found[name][1] > 20, name


def test_the_development_lock_holds_the_runtimes_packages_in_the_same_versions() -> None:
    runtime, development = entries("runtime"), entries("dev")
    for name, (wanted, hashes) in runtime.items():
        held, held_hashes = development[name]
        assert (held.specifier, held.extras, held.url) == (wanted.specifier, wanted.extras, wanted.url), name
        assert held_hashes == hashes, name
        for system, (os_name, platform_system) in SYSTEMS.items():
            here = {"sys_platform": system, "os_name": os_name, "platform_system": platform_system}
            assert applies(held, here) or not applies(wanted, here), (name, system)


def applies(requirement: Requirement, system: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(dict(system))


def test_the_locks_are_up_to_date_with_the_requirements(project: dict[str, Any]) -> None:
    about, groups = project["project"], project["dependency-groups"]
    extras = about["optional-dependencies"]
    assert extras["embedded"] == groups["redis"]
    runtime = [
        *about["dependencies"],
        *extras["flower"],
        *groups["build"],
        *project["build-system"]["requires"],
    ]
    development = [*runtime, *(text for text in groups["dev"] if isinstance(text, str))]
    for lock, wanted in (("runtime", runtime), ("dev", development), ("redis", extras["embedded"])):
        locked = entries(lock)
        for requirement in map(Requirement, wanted):
            [pin] = locked[canonicalize_name(requirement.name)][0].specifier
            assert requirement.specifier.contains(pin.version), requirement


def test_every_make_target_says_what_it_does() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    described = re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE)
    assert described == phony.split()
