"""What tests of object storage stand on: the server, and the proxy before it, do as they say."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.object_storage import (
    Bucket,
    Fault,
    ObjectServer,
    Proxy,
    answer,
    answer_afterwards,
    client_for,
    cut_request,
    cut_response,
    delay,
    drop,
    faults,
    flip_request,
    flip_response,
    hang,
    lose_answer,
)

KEY = "shop/a file.sql"
#: As much as a part of a multipart upload has at least.
PART = bytes(range(256)) * (5 << 12)


@pytest.fixture
def bucket(object_server: ObjectServer) -> Iterator[Bucket]:
    made = object_server.bucket()
    yield made
    made.empty()


@contextmanager
def proxied(
    server: ObjectServer, fault: Fault | None = None, *, honest: bool = False
) -> Iterator[tuple[Proxy, Any]]:
    """A proxy with one fault, for the first request; and a client that tries once."""
    left = [fault]
    proxy = Proxy(server, lambda _request: left.pop() if left else None, honest=honest)
    with proxy, closing(client_for(proxy.url, retries={"total_max_attempts": 1}, read_timeout=5)) as client:
        yield proxy, client


def checksum(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def test_an_honest_server_refuses_a_wrong_checksum_and_a_lying_one_repeats_it(
    object_server: ObjectServer, bucket: Bucket
) -> None:
    wrong = checksum(b"other")
    with proxied(object_server, honest=True) as (proxy, client):
        with pytest.raises(ClientError, match="BadDigest"):
            client.put_object(Bucket=bucket.name, Key=KEY, Body=b"x", ChecksumSHA256=wrong)
        assert bucket.objects() == {}
        assert (proxy.sent("PutObject", KEY), proxy.sent("PutObject", KEY, kept=True)) == (1, 0)
    with proxied(object_server) as (_, client):
        client.put_object(Bucket=bucket.name, Key=KEY, Body=b"x", ChecksumSHA256=wrong)
        seen = client.head_object(Bucket=bucket.name, Key=KEY, ChecksumMode="ENABLED")
    assert seen["ChecksumSHA256"] == wrong
    assert bucket.objects() == {KEY: b"x"}


def test_an_honest_server_tells_checksums(object_server: ObjectServer, bucket: Bucket) -> None:
    contents = [PART, PART[::-1], b"end"]
    with proxied(object_server, honest=True) as (proxy, client):
        name = {"Bucket": bucket.name, "Key": KEY}
        upload = {
            **name,
            "UploadId": client.create_multipart_upload(**name, ChecksumAlgorithm="SHA256")["UploadId"],
        }
        for number, content in enumerate(contents, 1):
            client.upload_part(**upload, PartNumber=number, Body=content, ChecksumSHA256=checksum(content))
        assert list(bucket.uploads().values()) == [[1, 2, 3]]
        parts = client.list_parts(**upload)["Parts"]
        assert [part["ChecksumSHA256"] for part in parts] == [checksum(content) for content in contents]
        chosen = [{name: part[name] for name in ("PartNumber", "ETag", "ChecksumSHA256")} for part in parts]
        with pytest.raises(ClientError, match="must include the checksum"):
            client.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": parts[0]["ETag"]}]}
            )
        done = client.complete_multipart_upload(**upload, MultipartUpload={"Parts": chosen})
        joined = checksum(b"".join(hashlib.sha256(content).digest() for content in contents))
        seen = client.head_object(**name, ChecksumMode="ENABLED")
        assert done["ChecksumSHA256"] == seen["ChecksumSHA256"] == f"{joined}-3"
        assert "ChecksumSHA256" not in client.head_object(**name)
        client.put_object(**name, Body=b"x", ChecksumSHA256=checksum(b"x"))
        assert client.head_object(**name, ChecksumMode="ENABLED")["ChecksumSHA256"] == checksum(b"x")
        assert [proxy.sent("UploadPart", KEY, number) for number in (1, 2, 3, 4)] == [1, 1, 1, 0]
        assert proxy.most_at_once("UploadPart") == 1


#: What each fault does to a PutObject: whether the client hears of success, and what the server has then.
PUTS = [
    (drop(3), False, None),
    (lose_answer(), False, b"content"),
    (delay(0.01), True, b"content"),
    (answer(503, "SlowDown"), False, None),
    (answer_afterwards(500, "InternalError"), False, b"content"),
    (cut_request(3), True, b"con"),
    (flip_request(0), True, b"bontent"),
    (hang(0.1), False, None),
]


@pytest.mark.parametrize(("fault", "succeeds", "left"), PUTS, ids=str)
def test_faults_of_requests(
    object_server: ObjectServer, bucket: Bucket, fault: Fault, succeeds: bool, left: bytes | None
) -> None:
    with proxied(object_server, fault) as (proxy, client):
        assert put(client, bucket, KEY) == succeeds
        (request,) = proxy.requests
    assert (request.fault, request.size, request.kept) == (fault, 7, left is not None)
    assert proxy.faults_made() == {str(fault): 1}
    assert bucket.objects() == ({} if left is None else {KEY: left})


def put(client: Any, bucket: Bucket, key: str) -> bool:
    """Whether the client hears of success."""
    try:
        client.put_object(Bucket=bucket.name, Key=key, Body=b"content")
    except (BotoCoreError, ClientError):
        return False
    return True


def test_faults_of_answers(object_server: ObjectServer, bucket: Bucket) -> None:
    bucket.put(KEY, b"content")
    with proxied(object_server, flip_response(8)) as (_, client):
        assert client.get_object(Bucket=bucket.name, Key=KEY)["Body"].read() == b"cnntent"
    with (
        proxied(object_server, cut_response(3)) as (_, client),
        closing(client.get_object(Bucket=bucket.name, Key=KEY)["Body"]) as body,
        pytest.raises(BotoCoreError, match="3 bytes read, 4 more expected"),
    ):
        body.read()


def test_random_faults_are_the_same_again(object_server: ObjectServer, bucket: Bucket) -> None:
    made = []
    for _ in range(2):
        with proxied(object_server) as (proxy, client):
            proxy.fault = faults(seed=3, rate=0.5, seconds=0.01)
            for number in range(30):
                put(client, bucket, str(number))
            made.append([request.fault for request in proxy.requests])
    assert made[0] == made[1]
    assert 5 < sum(fault is not None for fault in made[0]) < 25
