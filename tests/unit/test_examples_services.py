"""examples/systemd and examples/kubernetes: services that start what there is, stop as they should, may do little."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from celery.bin.beat import beat
from celery.bin.worker import worker

from beat_schedule import beat_schedule
from larder import config
from larder.variables import FILE
from tasks.queues import DRILL_QUEUE, RESTORE_QUEUE
from tests.commands import see_that_it_is_taken
from workers.farewell import PATIENCE

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "examples" / "systemd").glob("*.service"))
MANIFESTS = sorted((ROOT / "examples" / "kubernetes").glob("*.yaml"))

#: Bits of a score of systemd's, from 0 to 100, that a service may be open to.
MOST_EXPOSED = "25"


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",))
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


#: What Celery's commands know; Flower reads its settings from elsewhere.
CELERY = {"worker": worker, "beat": beat, "flower": click.Command("flower")}


def see_that_it_is_a_program_of_ours(line: str) -> None:
    """A command line of a service: Larder's own, or one of Celery's that knows its options."""
    if line.startswith("larder "):
        see_that_it_is_taken(line)
        return
    matched = re.fullmatch(r"celery -A workers (worker|beat|flower)((?: --[a-z-]+ \S+)*)", line)
    assert matched, line
    known = {option for parameter in CELERY[matched[1]].params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", matched[2])) <= known


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_and_stops_what_there_is(path: Path) -> None:
    service = unit(path)["Service"]
    program = service["ExecStart"].removeprefix("/opt/larder/.venv/bin/")
    see_that_it_is_a_program_of_ours(program)
    assert service["User"] == "larder"
    assert service["EnvironmentFile"] == "/etc/larder/larder.env"
    if " worker " in program:
        # SIGTERM for all processes would be a cold stop.
        assert (service["KillSignal"], service["KillMode"]) == ("SIGTERM", "mixed")
        limit = re.fullmatch(r"(\d+)(min)?", service["TimeoutStopSec"])
        assert limit
        assert int(limit[1]) * (60 if limit[2] else 1) > 2 * PATIENCE


def see_that_every_queue_is_somebodys(programs: list[str]) -> None:
    """Fail unless one worker takes some queues, and the other all but those, whatever they are called."""
    lines = "\n".join(programs)
    (left,) = re.findall(r"--exclude-queues (\S+)", lines)
    (taken,) = re.findall(r"--queues (\S+)", lines)
    assert left == taken
    assert set(taken.split(",")) == {RESTORE_QUEUE, DRILL_QUEUE}


def test_units_take_every_queue_among_them() -> None:
    see_that_every_queue_is_somebodys([unit(path)["Service"]["ExecStart"] for path in UNITS])


def test_units_variables_are_ones_that_are_read(tmp_path: Path) -> None:
    lines = (ROOT / "examples" / "systemd" / "larder.env").read_text(encoding="utf-8").splitlines()
    given = dict(
        line.removeprefix("# ").split("=", 1) for line in lines if re.match(r"(# )?[A-Z_]+=\S+$", line)
    )
    for name in ("SHOP_DATABASE_URL", "LARDER_CONSOLE_PASSWORD"):
        held = tmp_path / name
        held.write_text("sqlite:///shop.db\n")
        given[f"{name}{FILE}"] = str(held)
    given["LARDER_CONFIG"] = str(tmp_path / "larder.toml")
    (tmp_path / "larder.toml").write_text('[databases.shop]\nurl_env = "SHOP_DATABASE_URL"\n')
    found = config.load(given)
    assert found.console.has_login
    assert str(found.state_dir) == "/var/lib/larder"
    assert found.ledger_url.get_secret_value() == given["LARDER_LEDGER_URL"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="it takes systemd to judge units")
def test_systemd_takes_the_units_and_finds_little_to_say_against_them(tmp_path: Path) -> None:
    for path in [*UNITS, ROOT / "examples" / "systemd" / "larder.target"]:
        text = path.read_text(encoding="utf-8")
        # It looks for the program, too.
        text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", text, flags=re.MULTILINE)
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    files = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, check=False
    )
    # It reads this machine's other units with them.
    said = [line for line in done.stderr.splitlines() if "larder" in line]
    assert (done.returncode, said) == (0, [])
    for file in files:
        if file.endswith(".service"):
            subprocess.run(
                [
                    "systemd-analyze",
                    "security",
                    "--offline=true",
                    f"--threshold={MOST_EXPOSED}",
                    "--no-pager",
                    file,
                ],
                capture_output=True,
                check=True,
            )


# Kubernetes


def objects() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def pods() -> dict[str, dict[str, Any]]:
    """What runs, by name."""
    return {
        one["metadata"]["name"]: one["spec"]
        for one in objects()
        if one["kind"] in ("Deployment", "StatefulSet")
    }


def container(name: str) -> dict[str, Any]:
    (found,) = pods()[name]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_kustomize_names_every_file() -> None:
    found = yaml.safe_load((ROOT / "examples" / "kubernetes" / "kustomization.yaml").read_text("utf-8"))
    assert sorted(found["resources"]) == [
        path.name for path in MANIFESTS if path.name != "kustomization.yaml"
    ]
    (made,) = found["configMapGenerator"]
    assert all((ROOT / "examples" / "kubernetes" / name).is_file() for name in made["files"])
    # By which the network policy finds pods.
    assert found["labels"][0]["includeTemplates"] is True


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="it takes kubectl to build what it would apply")
def test_kubectl_builds_it() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "examples" / "kubernetes")],
        capture_output=True,
        text=True,
        check=True,
    )
    built = list(yaml.safe_load_all(done.stdout))
    assert {one["kind"] for one in built} >= {
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "Service",
        "StatefulSet",
    }
    for one in built:
        if one["kind"] in ("Deployment", "StatefulSet"):
            labels = one["spec"]["template"]["metadata"]["labels"]
            assert labels["app.kubernetes.io/part-of"] == "larder"


@pytest.mark.parametrize("name", pods())
def test_a_pod_starts_what_there_is_with_what_it_mounts(name: str) -> None:
    spec, one = pods()[name], container(name)
    pod = spec["template"]["spec"]
    see_that_it_is_a_program_of_ours(" ".join(one["command"]))
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
    mounted = {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
    assert mounted.keys() == volumes
    environment = {variable["name"]: variable["value"] for variable in one["env"]}
    for variable, value in environment.items():
        if value.startswith("/"):
            assert any(Path(value).is_relative_to(folder) for folder in mounted.values()), variable
    # A secret in a variable is seen by everybody who may look at the pod.
    assert not {"REDIS_URL", "LARDER_LEDGER_URL", "SHOP_DATABASE_URL"} & environment.keys()


@pytest.mark.parametrize("name", pods())
def test_a_pod_may_do_little(name: str) -> None:
    pod, one = pods()[name]["template"]["spec"], container(name)
    image = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert image
    user, group = (pod["securityContext"][key] for key in ("runAsUser", "runAsGroup"))
    assert (str(user), str(group)) == image.groups()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_no_probe_ends_a_dump_and_workers_have_time_to_stop() -> None:
    for name, spec in pods().items():
        one = container(name)
        if "worker" not in one["command"]:
            continue
        assert not {"readinessProbe", "startupProbe"} & one.keys()
        probe = one["livenessProbe"]
        environment = {variable["name"]: variable["value"] for variable in one["env"]}
        # What is asked is the file that it touches, and neither Redis nor the ledger; and it has minutes.
        assert environment["LARDER_HEARTBEAT_FILE"] in probe["exec"]["command"][-1]
        assert "celery" not in " ".join(probe["exec"]["command"])
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 300
        assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 2 * PATIENCE
        # Without its spool, a pod that comes back is another host.
        assert spec["volumeClaimTemplates"][0]["metadata"]["name"] == "state"
    see_that_every_queue_is_somebodys([" ".join(container(name)["command"]) for name in pods()])


def see_that_it_tells_young_from_old(probe: list[str], path: Path, old: int) -> None:
    """Fail unless a probe passes for a file that is young, and for none that is away or `old`, in seconds."""
    assert subprocess.run(probe, capture_output=True, check=False).returncode == 1
    path.touch()
    assert subprocess.run(probe, capture_output=True, check=False).returncode == 0
    before = time.time() - old
    os.utime(path, (before, before))
    assert subprocess.run(probe, capture_output=True, check=False).returncode == 1


def test_the_probe_of_workers_tells_a_heartbeat_from_none(tmp_path: Path) -> None:
    beat_file = container("larder-worker")["env"]
    (path,) = (one["value"] for one in beat_file if one["name"] == "LARDER_HEARTBEAT_FILE")
    command = container("larder-worker")["livenessProbe"]["exec"]["command"]
    command = [word.replace(path, str(tmp_path / "heartbeat")) for word in command]
    see_that_it_tells_young_from_old(command, tmp_path / "heartbeat", 180)


def test_the_probe_of_beat_tells_whether_it_writes_its_schedule(tmp_path: Path) -> None:
    one = container("larder-beat")
    schedule = Path(one["command"][one["command"].index("--schedule") + 1])
    command = [
        word.replace(str(schedule.parent), str(tmp_path)) for word in one["livenessProbe"]["exec"]["command"]
    ]
    see_that_it_tells_young_from_old(command, tmp_path / f"{schedule.name}.dat", 660)


def test_the_consoles_probes_ask_what_everybody_may_ask() -> None:
    one = container("larder-console")
    probes = {one[kind]["httpGet"]["path"] for kind in ("livenessProbe", "readinessProbe")}
    assert probes == {"/api/live", "/api/ready"}


def test_the_pods_configuration_is_one(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "kubernetes" / "larder.toml").read_text(encoding="utf-8")
    given = {"LARDER_CONFIG": str(tmp_path / "larder.toml")}
    (tmp_path / "larder.toml").write_text(text)
    values = {
        "REDIS_URL": "redis://redis:6379/0",
        "LARDER_LEDGER_URL": "postgresql://larder@ledger/larder",
        "SHOP_DATABASE_URL": "postgresql://backup@db/shop",
        "LARDER_CONSOLE_PASSWORD": "as good as any",
        "CRON_SECRET": "as good as any other",
    }
    wanted = {variable["name"] for name in pods() for variable in container(name)["env"]}
    for variable, value in values.items():
        assert f"{variable}{FILE}" in wanted
        (tmp_path / variable).write_text(f"{value}\n")
        given[f"{variable}{FILE}"] = str(tmp_path / variable)
    found = config.load(given)
    assert found.console.has_login
    assert set(beat_schedule(found)) == {"backup shop", "drill shop", "guard"}


def test_every_file_is_made_of_known_kinds() -> None:
    kinds = {(one["apiVersion"], one["kind"]) for one in objects()}
    assert kinds == {
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("v1", "Service"),
    }
