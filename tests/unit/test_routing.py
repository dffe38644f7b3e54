"""The order in which a worker looks at its queues."""

from __future__ import annotations

import pytest

from tasks import context
from workers.routing import BegunFirst


def test_what_has_begun_goes_on_before_anything_else_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "host", lambda: "here-0a1b2c")
    cycle = BegunFirst()
    cycle.update(["backup", "drill", "host.here-0a1b2c", "restore", "guard"])
    assert cycle.consume(5) == ["guard", "host.here-0a1b2c", "backup", "drill", "restore"]
    for used in ("host.here-0a1b2c", "backup"):
        cycle.rotate(used)
    assert cycle.consume(5) == ["guard", "host.here-0a1b2c", "drill", "restore", "backup"]
