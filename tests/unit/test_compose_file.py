"""docker-compose.yml as it is written. That it works is shown in a real Docker, by tests/compose."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from larder.config import load
from workers.farewell import PATIENCE

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

#: These do one thing, and end.
BRIEF = {"check", "bucket"}


@pytest.mark.parametrize("name", list(SERVICES))
def test_every_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["mem_limit"]
    assert service["cpus"]
    if name not in BRIEF:
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"


def test_workers_can_be_scaled_and_have_time_to_end() -> None:
    for name in ("worker", "restore"):
        assert not SERVICES[name].keys() & {"container_name", "ports", "hostname"}
        assert SERVICES[name]["stop_grace_period"] == "1m"
        assert isinstance(SERVICES[name]["command"], list)
    assert 2 * PATIENCE < 60


def test_every_secret_is_asked_for_and_made() -> None:
    script = (ROOT / "deploy/secrets.sh").read_text()
    asked = set(SERVICES["check"]["secrets"])
    used = {name for service in SERVICES.values() if "profiles" not in service for name in service["secrets"]}
    assert used == asked
    checked = SERVICES["check"]["command"][-1]
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}.txt"}
        assert re.search(rf"\b{name}\b", script), name
        assert name not in asked or re.search(rf"\b{name}\b", checked), name


def make_secrets(folder: Path, *words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """Run deploy/secrets.sh in a folder of its own."""
    (folder / "deploy").mkdir(exist_ok=True)
    shutil.copy(ROOT / "deploy" / "secrets.sh", folder / "deploy")
    return subprocess.run(
        ["sh", "deploy/secrets.sh", *words],
        cwd=folder,
        input=answer,
        capture_output=True,
        text=True,
        check=False,
    )


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    assert make_secrets(tmp_path, answer="postgresql://me:pw@db/shop\n").returncode == 0
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert {f"{name}.txt" for name in SERVICES["check"]["secrets"]} <= made.keys()
    assert all(made.values())
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    again = make_secrets(tmp_path)
    assert (again.returncode, again.stdout) == (0, "")
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made


def test_the_demo_has_a_key_for_its_bucket_whatever_was_made_before(tmp_path: Path) -> None:
    assert make_secrets(tmp_path, answer="postgresql://me:pw@db/shop\n").returncode == 0
    (tmp_path / "secrets" / "database_url.txt").unlink()
    assert make_secrets(tmp_path, "demo").returncode == 0
    (identity,) = json.loads((tmp_path / "secrets" / "s3_config.txt").read_text())["identities"]
    (key,) = identity["credentials"]
    assert len(key["secretKey"]) == 48
    assert f"= {key['secretKey']}\n" in (tmp_path / "secrets" / "aws_credentials.txt").read_text()


def test_the_demo_leaves_a_key_that_somebody_has_put_there(tmp_path: Path) -> None:
    (tmp_path / "secrets" / "database_url.txt").mkdir(
        parents=True
    )  # as Docker does for a file that is missing
    own = "# mine\n[default]\naws_access_key_id=larder\naws_secret_access_key=m1ne\n"
    (tmp_path / "secrets" / "aws_credentials.txt").write_text(own)
    assert make_secrets(tmp_path, "demo").returncode == 0
    assert (tmp_path / "secrets" / "aws_credentials.txt").read_text() == own
    assert '"secretKey": "m1ne"' in (tmp_path / "secrets" / "s3_config.txt").read_text()


def test_the_demo_does_not_begin_on_a_database_of_ones_own(tmp_path: Path) -> None:
    assert make_secrets(tmp_path, answer="postgresql://me:s3cr3t@db/shop\n").returncode == 0
    refused = make_secrets(tmp_path, "demo")
    assert refused.returncode == 1
    assert "secrets/database_url.txt is not the sample's" in refused.stderr
    assert "s3cr3t" not in refused.stdout + refused.stderr


def test_no_secret_is_kept_in_git_or_gets_into_the_image() -> None:
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    wanted = {word.partition("/")[0] for line in copied for word in line.split()}
    assert {line[1:] for line in ignored if line.startswith("!")} == wanted


def test_the_variables_for_files_are_those_that_are_read(tmp_path: Path) -> None:
    given = SERVICES["worker"]["environment"]
    for name in ("redis_url", "ledger_url", "console_password", "cron_secret", "database_url"):
        value = {
            "redis_url": "redis://:p@r/0",
            "ledger_url": "postgresql://l/l",
            "database_url": "sqlite:///a",
        }
        (tmp_path / name).write_text(value.get(name, "some words"))
    environ = {
        key: value.replace("/run/secrets", str(tmp_path))
        for key, value in given.items()
        if key.endswith("_FILE")
    }
    for file in ("larder.toml", "demo.toml"):
        settings = load({**environ, "LARDER_CONFIG": str(ROOT / "deploy" / file)})
        assert len(settings.databases) == 1
        assert settings.redis_url is not None
        assert settings.cron_secret is not None
        assert settings.console.password is not None
        assert settings.ledger_url.get_secret_value() == "postgresql://l/l"
        assert settings.warnings == ()


def test_the_image_says_where_the_heartbeat_is_looked_for() -> None:
    (path,) = re.findall(r"LARDER_HEARTBEAT_FILE=(\S+)", (ROOT / "Dockerfile").read_text())
    for name in ("worker", "restore"):
        assert path in SERVICES[name]["healthcheck"]["test"][-1]
