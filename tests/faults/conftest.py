"""What tests of faults share: a bucket of one's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.object_storage import Bucket, ObjectServer


@pytest.fixture
def bucket(object_server: ObjectServer) -> Iterator[Bucket]:
    """A new bucket, emptied when the test is over."""
    made = object_server.bucket()
    yield made
    made.empty()
