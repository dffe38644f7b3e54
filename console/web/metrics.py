"""Metrics: numbers for Prometheus, read from the ledger when they are asked for. Times in seconds, sizes in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import larder
from console.glance import Glance, glance
from console.web.health import spool_use
from larder.ledger import Ledger
from larder.settings import Settings
from larder.spool import free_bytes
from tasks import context

#: What is told of every database: the metric, what it is, and its value; None where there is none.
_OF_DATABASES: tuple[tuple[str, str, Any], ...] = (
    (
        "database_safe",
        "1 where nothing about the database needs somebody, as larder status says it",
        lambda one: one.safe,
    ),
    (
        "last_success_timestamp_seconds",
        "when the newest backup was taken that is not broken and has a good copy",
        lambda one: _stamp(one.facts.newest),
    ),
    (
        "last_proof_timestamp_seconds",
        "when the newest backup was taken that a drill has proven",
        lambda one: _stamp(one.facts.proven_created),
    ),
    ("backup_size_bytes", "the newest backup's artifact", lambda one: one.newest and one.newest.size),
    (
        "backup_raw_size_bytes",
        "the newest backup before compression",
        lambda one: one.newest and one.newest.raw_size,
    ),
    (
        "backup_duration_seconds",
        "how long the last backup run took that is over",
        lambda one: one.last and one.last.seconds,
    ),
    (
        "last_run_failed",
        "1 where the last backup run failed",
        lambda one: one.last and one.last.state == "failed",
    ),
    (
        "recovery_duration_seconds",
        "how long the last proven recovery took",
        lambda one: one.facts.recovery_seconds,
    ),
    ("next_run_timestamp_seconds", "when the next backup is due", lambda one: _stamp(one.next_run)),
)

#: What is told of every objective of every database.
_OF_OBJECTIVES: tuple[tuple[str, str, Any], ...] = (
    (
        "objective_met",
        "1 where the objective is met, 0 where it is missed; none where it is not judged",
        lambda o: o.met,
    ),
    ("objective_value_seconds", "how the objective stands: an age, or a time", lambda o: o.value),
    ("objective_target_seconds", "what the objective may be at most", lambda o: o.target),
)


def routes() -> list[Route]:
    """`/metrics`."""
    return [Route("/metrics", _metrics)]


def _metrics(request: Request) -> Response:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics(request.app.state.settings, context.ledger()))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class Metrics(Collector):
    """Everything that there is to count, as it is now."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The metrics."""
        found = glance(self._settings, self._ledger, datetime.now(UTC))
        yield from _of_databases(found)
        yield from _of_objectives(found)
        yield _copies(found)
        yield from self._runs()
        yield from self._of_this_host()
        yield _gauge("build_info", "which version this is", ["version"], [([larder.__version__], 1)])

    def _runs(self) -> Iterator[GaugeMetricFamily]:
        counts = self._ledger.runs.counts()
        rows = [([kind, state], count) for (kind, state), count in sorted(counts.items())]
        yield _gauge("runs", "runs in the ledger, by kind and state", ["kind", "state"], rows)
        failed = self._ledger.runs.failed()
        rows = [([name], failed.get(name, 0)) for name in self._settings.databases]
        yield _gauge("failed_runs", "backup runs in the ledger that failed", ["database"], rows)

    def _of_this_host(self) -> Iterator[GaugeMetricFamily]:
        now, settings = datetime.now(UTC), self._settings
        hosts = [one for one in self._ledger.hosts.known().values() if one.is_there(now)]
        yield _gauge(
            "hosts", "hosts with workers that were heard of within the last minute", [], [([], len(hosts))]
        )
        yield _gauge(
            "spool_bytes", "what lies in the spool of the console's host", [], [([], spool_use(settings))]
        )
        free = free_bytes(settings.state_dir)
        yield _gauge("spool_free_bytes", "what is free on the disk of that spool", [], [([], free)])
        if settings.spool_limit is not None:
            yield _gauge("spool_limit_bytes", "what the spool may take", [], [([], settings.spool_limit)])


def _of_databases(found: Iterable[Glance]) -> Iterator[GaugeMetricFamily]:
    for name, what, value in _OF_DATABASES:
        yield _gauge(name, what, ["database"], [([one.settings.name], value(one)) for one in found])


def _of_objectives(found: Iterable[Glance]) -> Iterator[GaugeMetricFamily]:
    for name, what, value in _OF_OBJECTIVES:
        rows = [
            ([one.settings.name, objective.name], value(objective))
            for one in found
            for objective in one.objectives
        ]
        yield _gauge(name, what, ["database", "objective"], rows)


def _copies(found: Iterable[Glance]) -> GaugeMetricFamily:
    """Whether each store has the newest backup."""
    rows = []
    for one in found:
        copies = one.newest.copies if one.newest else {}
        for store in sorted({*one.stores, *copies}):
            good = store in copies and copies[store].problem is None
            rows.append(([one.settings.name, store], good))
    what = "1 where the store has a good copy of the newest backup, as far as is known"
    return _gauge("newest_copy_good", what, ["database", "store"], rows)


def _gauge(
    name: str, what: str, labels: list[str], rows: Iterable[tuple[list[str], float | bool | None]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"larder_{name}", what, labels=labels)
    for values, value in rows:
        if value is not None:
            family.add_metric(values, float(value))
    return family


def _stamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
