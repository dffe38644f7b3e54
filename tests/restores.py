"""What tests of restores do again and again: an approver with a key, a request, an approval, a run."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.house import House


class Approver:
    """Alice, who has a machine of her own, and on it her key and nothing else."""

    def __init__(self, house: House, name: str = "alice") -> None:
        folder = house.folder / f"machine-of-{name}"
        folder.mkdir()
        self._machine = House(folder)
        self.key = folder / f"{name}.approver.key"
        made = self._machine.larder("keys", "new", "approver", name, "--no-passphrase")
        assert made.returncode == 0, made.stderr
        #: Her lines of larder.toml.
        self.lines = made.stdout

    def approve(self, document: dict[str, Any]) -> str:
        """The token that says yes to a request, of which she sees the document alone."""
        path = self._machine.folder / f"{document['request']}.json"
        path.write_text(json.dumps(document))
        done = self._machine.larder("restore", "approve", str(path), "--key", str(self.key), "--yes")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def ask(house: House, backup: str, into: str, *options: str) -> dict[str, Any]:
    """The document of a new request."""
    words = ("restore", "request", backup, "--into", into, "--reason", "a test wants it", "--json")
    done = house.larder(*words, *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(house: House, request: str, token: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`larder restore run`, with the token in a file."""
    path = house.folder / "token"
    path.write_text(token)
    return house.larder("restore", "run", request, "--token", str(path), "--json", *options)


def restored(house: House, approver: Approver, backup: str, into: str, *options: str) -> dict[str, Any]:
    """Ask, approve, run, and see that it went well; gives what `run --json` printed."""
    document = ask(house, backup, into, *options)
    done = run(house, document["request"], approver.approve(document))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["state"] == "done"
    return found


def undone(house: House, request: str) -> dict[str, Any]:
    """`larder restore undo`, which has to go well."""
    done = house.larder("restore", "undo", request, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def trail(house: House, request: str | None = None) -> list[dict[str, Any]]:
    """The rows of the audit trail."""
    found: list[dict[str, Any]] = json.loads(
        house.larder("audit", "list", *filter(None, [request]), "--json").stdout
    )
    return found
