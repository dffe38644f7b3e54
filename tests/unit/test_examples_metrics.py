"""examples/prometheus and examples/grafana: rules and a dashboard of metrics and labels that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from console.web.metrics import Metrics
from larder import config
from larder.ledger import open_ledger

EXAMPLES = Path(__file__).parents[2] / "examples"
RULES = yaml.safe_load((EXAMPLES / "prometheus" / "larder.rules.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((EXAMPLES / "grafana" / "larder.json").read_text(encoding="utf-8"))

#: What Prometheus adds to every metric.
ADDED = {"job", "instance"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    yield from (one["definition"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query")


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The labels of every metric, by its name."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "larder.toml").write_text('spool_limit = "1 GB"\n[databases.shop]\nurl = "sqlite:///shop.db"\n')
    settings = config.load({"LARDER_CONFIG": str(folder / "larder.toml")})
    settings.state_dir.mkdir(parents=True)
    ledger = open_ledger(settings.ledger_url.get_secret_value())
    found = {family.name: set(family._labelnames) for family in Metrics(settings, ledger).collect()}
    ledger.close()
    return found


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_an_expression_names_metrics_and_labels_that_there_are(
    metrics: dict[str, set[str]], expression: str
) -> None:
    named = re.findall(r"\b(larder_\w+)(?:\{([^}]*)\})?", expression)
    assert named or 'job="larder"' in expression
    for name, wanted in named:
        assert name in metrics
        assert set(re.findall(r"(\w+)\s*[=!]~?", wanted)) <= metrics[name] | ADDED
    for grouped in re.findall(r"\b(?:on|by)\s*\(([\w, ]*)\)", expression):
        for name, _ in named:
            assert set(re.findall(r"\w+", grouped)) <= metrics[name] | ADDED


def test_an_alert_says_what_it_is_and_names_what_it_has(metrics: dict[str, set[str]]) -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        text = " ".join(rule["annotations"][key] for key in ("summary", "description"))
        labels = {label for name in re.findall(r"larder_\w+", rule["expr"]) for label in metrics[name]}
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels


def test_every_metric_of_a_database_is_used(metrics: dict[str, set[str]]) -> None:
    used = set(re.findall(r"larder_\w+", "\n".join(expressions())))
    assert {name for name, labels in metrics.items() if "database" in labels} - used == {
        "larder_objective_value_seconds"
    }


def test_a_dashboards_panels_lie_side_by_side() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert {json.dumps(target["datasource"]) for target in panel["targets"]} == {
            json.dumps(panel["datasource"])
        }


def test_the_scrape_asks_for_the_metrics_with_a_login() -> None:
    found = yaml.safe_load((EXAMPLES / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = found["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("larder", "/metrics")
    assert job["basic_auth"].keys() == {"username", "password_file"}
    assert found["rule_files"] == ["larder.rules.yml"]


#: What is measured, a value a minute, and which alerts go off by it after a while.
SERIES = {
    'larder_database_safe{database="shop"}': "0x120",
    'larder_database_safe{database="new"}': "1x2000",
    'larder_last_success_timestamp_seconds{database="shop"}': "1x120",
    'larder_objective_met{database="shop",objective="rpo"}': "0x120",
    'larder_objective_met{database="crm",objective="rpo"}': "1x120",
    'larder_newest_copy_good{database="shop",store="s3"}': "0x120",
    'larder_backup_raw_size_bytes{database="shop"}': "100x1500 40x100",
    "larder_hosts": "1x10 0x30",
}
GOES_OFF = {
    "LarderBackupIsTooOld": ("10m", {"database": "shop", "objective": "rpo", "severity": "critical"}),
    "LarderDatabaseIsUnsafe": ("90m", {"database": "shop", "severity": "warning"}),
    "LarderCopyIsMissing": ("90m", {"database": "shop", "store": "s3", "severity": "warning"}),
    "LarderHasNoWorkers": ("30m", {"severity": "critical"}),
    "LarderDoesNotAnswer": ("15m", {"job": "larder", "severity": "critical"}),
    "LarderNeverBackedUp": ("30h", {"database": "new", "severity": "critical"}),
    "LarderBackupShrank": ("1550m", {"database": "shop", "severity": "warning"}),
}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="it takes promtool to have alerts go off")
def test_alerts_go_off_when_they_should(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "prometheus", tmp_path, dirs_exist_ok=True)
    tests = {
        "rule_files": ["larder.rules.yml"],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in SERIES.items()],
                "alert_rule_test": [
                    {"eval_time": when, "alertname": name, "exp_alerts": [{"exp_labels": labels}]}
                    for name, (when, labels) in GOES_OFF.items()
                ],
            }
        ],
    }
    for one in tests["tests"][0]["alert_rule_test"]:  # type: ignore[index]
        (rule,) = (rule for rule in rules() if rule["alert"] == one["alertname"])
        labels = one["exp_alerts"][0]["exp_labels"]
        one["exp_alerts"][0]["exp_annotations"] = {
            key: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)  # noqa: B023
            for key, text in rule["annotations"].items()
        }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    for command in (["check", "rules", "larder.rules.yml"], ["test", "rules", "tests.yml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
