"""examples/: each file is what it says it is, and every command of Larder's in it is one."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cronsim import CronSim

from tests.commands import commands_in, see_that_it_is_taken

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

#: A time to ask a schedule for the next one.
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def workflow(name: str) -> dict[str, Any]:
    """A workflow; `on` is a truth value to YAML 1.1."""
    found = yaml.safe_load((EXAMPLES / "github-actions" / name).read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in found.items()}


def test_the_page_names_every_example() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| \[(.*?)\]\(\1\)", page, re.MULTILINE))
    assert named == {path.name for path in EXAMPLES.iterdir()} - {"README.md"}


# GitHub Actions


def test_a_workflow_runs_on_a_clock_by_hand_and_before_a_deployment() -> None:
    backup, deploy = workflow("backup.yml"), workflow("deploy.yml")
    assert set(backup["on"]) == {"schedule", "workflow_dispatch", "workflow_call"}
    assert backup["permissions"] == {"contents": "read"}
    assert backup["concurrency"]["cancel-in-progress"] is False
    for entry in backup["on"]["schedule"]:
        next(CronSim(entry["cron"], NEW_YEAR))
    assert deploy["jobs"]["backup"]["uses"] == "./.github/workflows/backup.yml"
    assert deploy["jobs"]["deploy"]["needs"] == "backup"


def test_a_workflows_steps_are_commands_and_no_secret_is_in_one() -> None:
    (job,) = workflow("backup.yml")["jobs"].values()
    lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    commands = [command for line in lines for command in commands_in(line)]
    assert commands == ["larder catalog rebuild", "larder backup", "larder drill"]
    for command in commands:
        see_that_it_is_taken(command)
    # What GitHub puts into a line stands in argv, and is run by the shell.
    assert "${{" not in "\n".join(lines)
    for requirement in re.findall(r"larder/(requirements/\S+)", "\n".join(lines)):
        assert (ROOT / requirement).is_file()


# cron


def test_a_crontabs_lines_are_times_and_commands() -> None:
    text = (EXAMPLES / "crontab").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    jobs = [line for line in lines if not re.match(r"[A-Z]+=", line)]
    commands = []
    for job in jobs:
        when, line = re.fullmatch(r"((?:\S+ ){4}\S+)\s+(.*)", job).groups()  # type: ignore[union-attr]
        next(CronSim(when, NEW_YEAR))
        # To cron, it is the end of the line.
        assert "%" not in line
        subprocess.run(["sh", "-n", "-c", line], check=True)
        commands += commands_in(line)
    assert len(jobs) == 4
    for command in commands:
        see_that_it_is_taken(command)
    assert {command.split()[1] for command in commands} == {"backup", "drill", "verify", "status"}


# Vercel


class Console:
    """Stands for the console: notes who asks, and answers as it does."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked.append((self.command, self.path, self.headers["authorization"]))
                body = b'{"runs": [], "refused": []}'
                self.send_response(202)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@contextmanager
def console() -> Iterator[Console]:
    made = Console()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_vercels_clock_calls_what_there_is() -> None:
    found = json.loads((EXAMPLES / "vercel" / "vercel.json").read_text(encoding="utf-8"))
    (cron,) = found["crons"]
    next(CronSim(cron["schedule"], NEW_YEAR))
    script = (EXAMPLES / "vercel" / "route.ts").read_text(encoding="utf-8")
    assert f"src/app{cron['path']}/route.ts" in script
    assert f"'{cron['path']}'" in script


@pytest.mark.skipif(shutil.which("node") is None, reason="it takes Node to run what runs on Vercel")
def test_vercels_call_is_handed_on_with_the_right_secret_only(tmp_path: Path) -> None:
    script = (EXAMPLES / "vercel" / "route.ts").read_text(encoding="utf-8")
    # The types that it has, which only newer Nodes leave out by themselves.
    plain = re.sub(r": (?:string|Request|Promise<Response>)(?=[),]| \{)", "", script)
    calls = """
        const answers = [];
        for (const given of [undefined, 'Bearer wrong', 'Bearer s3cr3t-of-cron']) {
          const headers = given ? { authorization: given } : {};
          const answer = await GET(new Request('https://app.example/api/cron/backup', { headers }));
          answers.push([answer.status, await answer.json()]);
        }
        console.log(JSON.stringify(answers));
    """
    (tmp_path / "route.mjs").write_text(plain + calls, encoding="utf-8")
    with console() as larder:
        url = f"http://127.0.0.1:{larder.server.server_port}"
        done = subprocess.run(
            ["node", "route.mjs"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "CRON_SECRET": "s3cr3t-of-cron", "LARDER_CONSOLE_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [status for status, _ in answers] == [401, 401, 202]
    assert larder.asked == [("POST", "/api/cron/backup", "Bearer s3cr3t-of-cron")]
