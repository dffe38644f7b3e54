"""Every secret that there is, through every path, and then a search of every place where one might have been left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.canaries import sink
from tests.canary_stand import Found, Stand
from tests.object_storage import ObjectServer
from tests.restores import drop_all
from tests.servers import Cluster, Clusters

#: What Larder may hand a program that it starts, and so shows to root and to its own user: (program, variable).
HANDED_ON = {
    ("pg_dump", "PGPASSWORD"),
    ("psql", "PGPASSWORD"),
    ("pg_restore", "PGPASSWORD"),
    ("sh", "DATABASE_URL"),
}

PLACES = (
    "output", "printed", "log", "redis", "messages", "events", "flower", "ledger", "stores", "evidence", "webhook",
    "sentry", "ps", "spool", "state", "screen",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory, clusters: Clusters, object_server: ObjectServer
) -> Iterator[Found]:
    server = clusters.get(16)
    with ExitStack() as stack:
        taker = stack.enter_context(sink())
        stack.callback(_drop_roles, server)
        for name in ("shop", "ledger"):
            server.createdb(name)
            stack.callback(drop_all, server, name)
        server.execute("CREATE TABLE orders AS SELECT n AS id FROM generate_series(1, 100) n", "shop")
        stand = Stand(tmp_path_factory.mktemp("secrets"), server, object_server, taker)
        yield stand.live()
        stand.bucket.empty()


def _drop_roles(server: Cluster) -> None:
    for name in ("canary", "canary_scratch", "canary_ledger"):
        server.execute(f"DROP ROLE IF EXISTS {name}")


#: What was sent through Redis by whoever has its password crosses it, and lies there until a worker takes it.
SENT = {"redis": ("sent token",), "messages": ("sent token",)}


SEEN = {
    "output": "unable to connect to database", "printed": "leaking: ", "log": "TaskPool: Apply", "redis": "PUBLISH",
    "messages": "request", "events": "task-failed", "flower": "StatementError", "ledger": "stored",
    "stores": "sha256", "evidence": "signature", "webhook": "failed", "sentry": "StatementError", "ps": "post",
    "spool": "age-encryption.org", "state": "-", "screen": "Passphrase",
}  # fmt: skip


def test_no_secret_is_left_anywhere(found: Found) -> None:
    """One test: to make all that is searched takes half a minute, in each process that has a test of it."""
    assert found.places.keys() == set(PLACES)
    hits = [
        hit
        for place in PLACES
        for hit in found.canaries.hits({place: found.places[place]}, SENT.get(place, ()))
    ]
    assert not hits, "\n".join(hits)
    unseen = [place for place in PLACES if SEEN[place].encode() not in found.places[place]]
    assert unseen == []
    _sentry_is_told_what_failed_and_where(found)
    _a_program_is_handed_its_own_secret_and_no_other(found)
    _the_spool_is_its_owners_alone(found)


def _sentry_is_told_what_failed_and_where(found: Found) -> None:
    kinds = {event["exception"]["values"][-1]["type"] for event in found.events}
    assert kinds >= {"StatementError", "RefusedError"}
    # What somebody asked for by mistake is told to them.
    assert not kinds & {"NotFoundError", "NotAuthorisedError"}
    for event in found.events:
        for value in event["exception"]["values"]:
            assert value["stacktrace"]["frames"]
            assert not any("vars" in frame for frame in value["stacktrace"]["frames"])
        assert not event.get("extra")
        assert not event.get("breadcrumbs", {}).get("values")


def _a_program_is_handed_its_own_secret_and_no_other(found: Found) -> None:
    handed = {
        (tool, variable)
        for tool, variable, value in found.watch.environments
        if found.canaries.hits({"it": value})
    }
    assert handed
    assert handed <= HANDED_ON


def _the_spool_is_its_owners_alone(found: Found) -> None:
    assert not found.watch.open_to_others
    assert found.watch.spooled
