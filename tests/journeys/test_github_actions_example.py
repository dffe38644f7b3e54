"""examples/github-actions: the job's steps, line by line as GitHub runs them, twice, each time on a new machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import venv
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from larder.signing import create_signer
from tests.house import SCRIPTS
from tests.object_storage import ObjectServer, environment_for

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "examples" / "github-actions" / "backup.yml"

#: The steps that bring programs onto the machine, which a test has there already.
INSTALLING = ("Install PostgreSQL", "Install Larder")


def job() -> dict[str, Any]:
    (found,) = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()
    assert isinstance(found, dict)
    return found


class Machine:
    """A new machine of GitHub's: a workspace, a folder for what is temporary, and nothing else."""

    def __init__(self, folder: Path, secrets: dict[str, str], programs: Path) -> None:
        self.workspace, self.temp = folder / "workspace", folder / "temp"
        for made in (self.workspace, self.temp):
            made.mkdir(parents=True)
        self._secrets = secrets
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_ENV": str(folder / "env"),
            **self._filled(job()["env"]),
        }

    def _filled(self, values: dict[str, str]) -> dict[str, str]:
        """Values with their secrets; one that is not set is empty, as GitHub has it."""
        found = {}
        for name, value in values.items():
            found[name] = re.sub(
                r"\$\{\{ secrets\.(\w+) \}\}", lambda match: self._secrets.get(match[1], ""), value
            )
            assert "${{" not in found[name]
        return found

    def run(self, step: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """Run a step's lines, and take over what it leaves for the next ones."""
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
            cwd=self.workspace,
            env={**self.environment, **self._filled(step.get("env", {}))},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        left = Path(self.environment["GITHUB_ENV"])
        for line in left.read_text().splitlines() if left.exists() else []:
            name, _, value = line.partition("=")
            self.environment[name] = value
        return done

    def wants(self, step: dict[str, Any]) -> bool:
        """Whether a step is to be run here: of conditions, GitHub's language is spoken as far as the example does."""
        if "if" not in step:
            return True
        condition = re.fullmatch(r"env\.(\w+) != ''", step["if"])
        assert condition, step["if"]
        return bool(self.environment.get(condition[1]))


def pass_through(machine: Machine, *, installing: bool = False) -> None:
    for step in job()["steps"]:
        if "run" in step and machine.wants(step) and (installing or step["name"] not in INSTALLING):
            done = machine.run(step)
            assert done.returncode == 0, (step["name"], done.stdout, done.stderr)


def shop(folder: Path, rows: int) -> str:
    with closing(sqlite3.connect(folder / "shop.db")) as made, made:
        made.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, what TEXT)")
        made.executemany("INSERT INTO orders (what) VALUES (?)", [("thing",)] * rows)
    return f"sqlite:///{folder / 'shop.db'}"


@pytest.fixture
def signing_key(tmp_path: Path) -> str:
    create_signer(tmp_path / "github.signer.key")
    return (tmp_path / "github.signer.key").read_text()


def test_without_a_bucket_a_backup_lies_in_the_workspace(tmp_path: Path, signing_key: str) -> None:
    secrets = {"DATABASE_URL": shop(tmp_path, 50), "LARDER_SIGNING_KEY": signing_key}
    machine = Machine(tmp_path / "first", secrets, SCRIPTS)
    pass_through(machine)
    kept = job()["steps"][-1]["with"]["path"]
    names = sorted(path.suffix for path in (machine.workspace / kept).iterdir())
    assert names == [".gz", ".json", ".sha256"]


@pytest.mark.slow
def test_a_new_machine_knows_what_the_one_before_made(
    tmp_path: Path, signing_key: str, object_server: ObjectServer
) -> None:
    bucket = object_server.bucket()
    secrets = {
        "DATABASE_URL": shop(tmp_path, 50),
        "LARDER_SIGNING_KEY": signing_key,
        "BACKUP_S3_BUCKET": bucket.name,
    }
    secrets |= environment_for(object_server.url)
    for number, name in enumerate(("first", "second"), start=1):
        machine = Machine(tmp_path / name, secrets, SCRIPTS)
        machine.environment |= environment_for(object_server.url)
        pass_through(machine)
        found = subprocess.run(
            [SCRIPTS / "larder", "list", "--store", "s3", "--json"],
            cwd=machine.workspace,
            env=machine.environment,
            capture_output=True,
            check=True,
        )
        backups = json.loads(found.stdout)
        assert len(backups) == number
        # Signed by one host, one after the other.
        checked = subprocess.run(
            [SCRIPTS / "larder", "verify", "--all", "--store", "s3"],
            cwd=machine.workspace,
            env=machine.environment,
            capture_output=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
    bucket.empty()


@pytest.mark.slow
def test_it_installs_what_it_needs(tmp_path: Path, signing_key: str) -> None:
    """With packages from the index, into a Python of its own; `sudo` stands for the machine's administrator."""
    programs = tmp_path / "programs"
    venv.create(programs, with_pip=True)
    sudo = programs / "bin" / "sudo"
    sudo.write_text("#!/bin/sh\ncase $1 in apt-get) exit 0 ;; *) exit 1 ;; esac\n")
    sudo.chmod(0o755)
    secrets = {"DATABASE_URL": shop(tmp_path, 50), "LARDER_SIGNING_KEY": signing_key}
    machine = Machine(tmp_path / "first", secrets, programs / "bin")
    for name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE", "HTTPS_PROXY", "SSL_CERT_FILE"):
        if name in os.environ:
            machine.environment[name] = os.environ[name]
    machine.environment["HOME"] = os.environ.get("HOME", str(tmp_path))
    shutil.copytree(
        ROOT,
        machine.workspace / "larder",
        ignore=shutil.ignore_patterns(".*", "sample", "backups", "build", "*.egg-info", "__pycache__"),
    )
    pass_through(machine, installing=True)
