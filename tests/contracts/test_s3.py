"""What only a bucket can show: parts, checksums that are believed or not, conditions, locks, and what a server says.

Most tests talk to the server through a proxy: it counts requests, makes faults, and can be as honest as Amazon.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.loaders import JSONFileLoader
from pydantic import ValidationError

from larder import secret
from larder.errors import (
    ConfigurationError,
    ExhaustedError,
    IntegrityError,
    LarderError,
    RefusedError,
    UnreachableError,
)
from larder.progress import Progress
from larder.stores import Store, _s3_check, _s3_reader, open_store
from larder.stores._s3_bucket import in_parallel
from larder.stores._s3_client import _Signer, make_client
from larder.stores._s3_errors import plain
from larder.stores._s3_source import MOST_PARTS, Slice, Source, _part_size
from larder.stores.s3 import S3Settings
from tests.object_storage import (
    ACCESS_KEY,
    REGION,
    SECRET_KEY,
    Bucket,
    Fault,
    FaultMaker,
    ObjectServer,
    Proxy,
    Request,
    answer,
    answer_afterwards,
    cut_request,
    cut_response,
    drop,
    environment_for,
    faults,
    flip_request,
    flip_response,
    hang,
    lose_answer,
)

KEY = "shop/backup_postgres_20251016_020000.sql.gz"
#: Where it lies in the bucket.
PATH = f"backups/{KEY}"

PART = 5 << 20
SMALL = random.Random(1).randbytes(100_000)
#: Three parts.
LARGE = random.Random(2).randbytes(2 * PART + 1234)
OTHER = LARGE[:PART] + bytes(len(LARGE) - PART)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials, and nothing else of the developer's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment_for("").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setattr(secret, "_known", set())
    monkeypatch.setattr(secret, "_ordered", ())
    monkeypatch.setattr(_s3_reader, "_WAIT", 0.001)


@pytest.fixture
def bucket(object_server: ObjectServer) -> Iterator[Bucket]:
    made = object_server.bucket()
    yield made
    made.empty()


def store_at(url: str, bucket: str, **keys: Any) -> Store:
    given = {"part_size": PART, **keys}
    return open_store(S3Settings(name="cloud", type="s3", bucket=bucket, endpoint=url, **given))


@dataclass
class Cloud:
    """A store whose requests pass through a proxy."""

    proxy: Proxy
    bucket: Bucket
    store: Store
    folder: Path

    def put(self, content: bytes, key: str = KEY, **options: Any) -> None:
        source = self.folder / "source"
        source.write_bytes(content)
        self.store.put(key, source, hashlib.sha256(content).hexdigest(), **options)

    def sent(self, since: int = 0) -> list[str]:
        """The operations so far, parts with their numbers."""
        return [
            request.operation + (f" {request.part}" if request.part else "")
            for request in self.proxy.requests[since:]
        ]


Open = Callable[..., Cloud]


@pytest.fixture
def cloud(object_server: ObjectServer, bucket: Bucket, tmp_path: Path) -> Iterator[Open]:
    """Opens the store behind a proxy."""
    proxies = []

    def open_cloud(*, honest: bool = True, fault: FaultMaker | None = None, **keys: Any) -> Cloud:
        proxy = Proxy(object_server, fault, honest=honest)
        proxies.append(proxy.__enter__())
        return Cloud(proxy, bucket, store_at(proxy.url, bucket.name, **keys), tmp_path)

    yield open_cloud
    for proxy in proxies:
        proxy.__exit__()


def once(operation: str, fault: Fault, part: int | None = None, times: int = 1) -> FaultMaker:
    """A fault for the first such request of the key, or the first so many."""
    left = [fault] * times

    def decide(request: Request) -> Fault | None:
        wanted = (request.operation, request.key, request.part) == (operation, PATH, part)
        return left.pop() if wanted and left and not is_trial(request) else None

    return decide


def always(operation: str, fault: Fault, part: int | None = None) -> FaultMaker:
    def decide(request: Request) -> Fault | None:
        wanted = (request.operation, request.part) == (operation, part)
        return fault if wanted and not is_trial(request) else None

    return decide


def is_trial(request: Request) -> bool:
    return request.operation == "UploadPart" and request.size == 1


# Sending, and what is believed.


@pytest.mark.parametrize("honest", [True, False])
def test_what_is_small_is_sent_once_and_read_back(cloud: Open, *, honest: bool) -> None:
    here = cloud(honest=honest)
    here.put(SMALL)
    assert here.sent() == ["HeadObject", "PutObject", "HeadObject", "GetObject"]
    (request,) = here.proxy.select("PutObject")
    assert request.headers["if-none-match"] == "*"
    assert "x-amz-checksum-sha256" in request.headers
    assert here.bucket.objects() == {PATH: SMALL}


def test_what_an_honest_server_vouches_for_is_not_read_back(cloud: Open) -> None:
    here, progress = cloud(), Progress()
    here.put(LARGE, progress=progress)
    assert here.proxy.sent("GetObject") == 0
    assert sorted(here.sent())[-5:] == [f"UploadPart {number}" for number in (1, 1, 1, 2, 3)]
    assert here.proxy.select("CompleteMultipartUpload")[0].headers["if-none-match"] == "*"
    assert (here.bucket.objects(), here.bucket.uploads()) == ({PATH: LARGE}, {})
    assert progress.done == len(LARGE)

    before = len(here.sent())
    here.put(LARGE)
    assert here.sent(before) == ["HeadObject"]
    here.put(LARGE[::-1], KEY + "2")
    # One trial is enough for a process.
    assert len(here.proxy.select("CreateMultipartUpload")) == 3


def test_what_a_credulous_server_says_is_read_back(cloud: Open) -> None:
    here = cloud(honest=False)
    here.put(LARGE)
    assert here.proxy.sent("GetObject", PATH) == 3
    assert here.bucket.objects() == {PATH: LARGE}
    assert here.bucket.uploads() == {}
    before = len(here.sent())
    here.put(LARGE)
    assert here.sent(before) == ["HeadObject", *["GetObject"] * 3]


def test_an_honest_server_is_read_back_on_request(cloud: Open) -> None:
    here = cloud(read_back=True)
    here.put(LARGE)
    assert here.proxy.sent("GetObject", PATH) == 3


def test_the_server_of_another_is_tried_by_itself(cloud: Open) -> None:
    cloud(honest=False).put(LARGE)
    here = cloud()
    here.put(LARGE)
    # What the first one was told is not known to this proxy.
    assert here.proxy.sent("GetObject") == 3


def test_an_object_made_in_other_parts_is_read(cloud: Open) -> None:
    here = cloud()
    here.put(LARGE)
    other = Cloud(
        here.proxy, here.bucket, store_at(here.proxy.url, here.bucket.name, part_size=PART + 1), here.folder
    )
    other.put(LARGE)
    assert here.proxy.sent("GetObject") == 3


def test_parts_are_sent_at_one_time(cloud: Open) -> None:
    here = cloud(parallel=2, honest=False)
    here.put(random.Random(4).randbytes(5 * PART + 1))
    assert here.proxy.most_at_once("UploadPart") <= 2
    assert here.proxy.sent("UploadPart", part=6) == 1


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("fault", [flip_request(70_000), cut_request(70_000)], ids=["flip", "cut"])
def test_what_a_credulous_server_keeps_altered_is_found_and_sent_once_more(
    cloud: Open, content: bytes, fault: Fault
) -> None:
    operation, part = ("PutObject", None) if content is SMALL else ("UploadPart", 3)
    here, progress = cloud(honest=False), Progress()
    if content is LARGE and fault.kind == "cut request":
        content = LARGE + SMALL
    here.proxy.fault = once(operation, fault, part)
    here.put(content, progress=progress)
    assert here.proxy.sent("DeleteObject") == 1
    assert here.bucket.objects() == {PATH: content}
    assert progress.done == len(content)

    here.store.delete(KEY)
    here.proxy.fault = once(operation, fault, part, times=2)
    with pytest.raises(IntegrityError, match=r"unable to keep s3://.*came back .* which were deleted"):
        here.put(content)
    assert (here.bucket.objects(), here.bucket.uploads()) == ({}, {})


def test_what_may_not_be_deleted_is_told(cloud: Open) -> None:
    here = cloud(honest=False)
    flip = once("PutObject", flip_request(7))
    here.proxy.fault = lambda request: (
        answer(403, "AccessDenied") if request.operation == "DeleteObject" else flip(request)
    )
    with pytest.raises(IntegrityError, match="it could not be deleted, and has to be: AccessDenied"):
        here.put(SMALL)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_what_is_altered_on_its_way_back_is_read_once_more(cloud: Open, content: bytes) -> None:
    here = cloud(honest=False, fault=once("GetObject", flip_response(7)))
    here.put(content)
    assert here.proxy.sent("GetObject") == (2 if content is SMALL else 4)


def test_what_is_altered_on_its_way_is_refused_by_an_honest_server(cloud: Open) -> None:
    here = cloud(fault=once("UploadPart", flip_request(7), part=2))
    with pytest.raises(UnreachableError, match="UploadPart: BadDigest") as caught:
        here.put(LARGE)
    assert caught.value.retryable
    here.put(LARGE)
    assert [here.proxy.sent("UploadPart", part=number) for number in (2, 3)] == [2, 1]
    assert here.bucket.objects() == {PATH: LARGE}


def test_nothing_is_sent_of_what_has_changed(cloud: Open, tmp_path: Path) -> None:
    here = cloud()
    source = tmp_path / "changed"
    source.write_bytes(SMALL)
    with pytest.raises(IntegrityError, match="should have"):
        here.store.put(KEY, source, hashlib.sha256(LARGE).hexdigest())
    with pytest.raises(LarderError, match="gone: it is not there"):
        here.store.put(KEY, tmp_path / "gone", "")
    assert here.sent() == []


@pytest.mark.parametrize("honest", [True, False])
def test_nothing_is_made_of_parts_of_what_has_changed(cloud: Open, tmp_path: Path, *, honest: bool) -> None:
    here, source = cloud(honest=honest), tmp_path / "changed"
    source.write_bytes(LARGE)
    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"changed: it has SHA-256 .*, and should have"):
            here.store.put(KEY, source, hashlib.sha256(OTHER).hexdigest())
        assert (here.bucket.objects(), here.bucket.uploads()) == ({}, {})
    assert here.proxy.sent("UploadPart", part=2) == 2
    assert here.proxy.sent("UploadPart", part=3) == here.proxy.sent("CompleteMultipartUpload") == 0
    assert here.proxy.sent("AbortMultipartUpload") == 3


def test_what_changes_while_it_is_sent_is_not_kept(cloud: Open) -> None:
    """The first part arrives while the last has not been read."""
    content, here = random.Random(5).randbytes(5 * PART), cloud(parallel=1)

    def change(request: Request) -> Fault | None:
        if request.operation == "UploadPart" and not is_trial(request) and request.part == 1:
            with (here.folder / "source").open("r+b") as source:
                source.seek(-1, os.SEEK_END)
                source.write(bytes([content[-1] ^ 1]))
        return None

    here.proxy.fault = change
    with pytest.raises(IntegrityError, match="and should have"):
        here.put(content)
    assert (here.bucket.objects(), here.bucket.uploads()) == ({}, {})


def test_what_is_sent_is_signed_with_the_digest_that_is_known(
    cloud: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, readinto = cloud(), Slice.readinto
    # Parts are read by several threads at once: appending is atomic, adding to a number is not.
    read: list[int] = []

    def counted(self: Slice, buffer: bytearray) -> int:
        read.append(size := readinto(self, buffer))
        return size

    monkeypatch.setattr(Slice, "readinto", counted)
    here.put(SMALL)
    here.put(LARGE, KEY + "2")
    # To be sent, and not to be signed.
    assert sum(read) == len(SMALL) + len(LARGE)
    parts = [LARGE[:PART], LARGE[PART : 2 * PART], LARGE[2 * PART :]]
    (small,) = here.proxy.select("PutObject")
    large = [here.proxy.select("UploadPart", part=number)[-1] for number in (1, 2, 3)]
    for request, content in zip([small, *large], [SMALL, *parts], strict=True):
        assert request.headers["x-amz-content-sha256"] == hashlib.sha256(content).hexdigest()


def test_a_part_is_signed_as_botocore_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime(2025, 10, 16))  # noqa: DTZ001
    path = tmp_path / "source"
    path.write_bytes(SMALL)
    file = Source(path, hashlib.sha256(SMALL).hexdigest(), PART)

    def signed(signer: Any) -> str:
        with file.slice(file.parts[0]) as body:
            request = AWSRequest("PUT", "http://127.0.0.1/bucket/key", data=body)
            signer(Credentials(ACCESS_KEY, SECRET_KEY), "s3", REGION).add_auth(request)
        return str(request.headers["Authorization"])

    assert signed(_Signer) == signed(S3SigV4Auth)


# Going on.


@pytest.mark.parametrize("honest", [True, False])
def test_an_interrupted_put_goes_on(cloud: Open, *, honest: bool) -> None:
    here = cloud(honest=honest, fault=always("UploadPart", answer(403, "AccessDenied"), part=3), parallel=1)
    with pytest.raises(RefusedError, match=r"UploadPart: AccessDenied.*\(s3:PutObject\)"):
        here.put(LARGE)
    assert (here.store.sizes(), here.store.size(KEY)) == ({}, None)
    assert here.store.unfinished() == here.store.unfinished("shop") == [KEY]
    assert here.store.unfinished("sho") == []
    here.proxy.fault = None
    before, progress = len(here.proxy.requests), Progress()
    here.put(LARGE, progress=progress)
    assert [name for name in here.sent(before) if name.startswith("UploadPart")] == ["UploadPart 3"]
    assert progress.done == len(LARGE)
    assert here.bucket.objects() == {PATH: LARGE}
    assert here.store.unfinished() == []


def test_the_upload_with_most_good_parts_is_gone_on_with(cloud: Open) -> None:
    here = cloud()
    name = {"Bucket": here.bucket.name, "Key": PATH}
    contents = [LARGE[:PART], LARGE[PART : 2 * PART], LARGE[2 * PART :]]
    # The last two have none: what is there has the wrong size, or other bytes.
    for parts in (
        {1: contents[0]},
        {1: contents[0], 3: contents[2]},
        {1: contents[2]},
        {number + 1: bytes(len(content)) for number, content in enumerate(contents)},
    ):
        upload = here.bucket.client.create_multipart_upload(**name)["UploadId"]
        for number, content in parts.items():
            here.bucket.client.upload_part(**name, UploadId=upload, PartNumber=number, Body=content)
    # Without checksums: these are known by their MD5.
    credulous = cloud(honest=False)
    credulous.put(LARGE)
    assert [credulous.proxy.sent("UploadPart", part=number) for number in (2, 3)] == [1, 0]
    assert (here.bucket.objects(), here.bucket.uploads()) == ({PATH: LARGE}, {})
    here.bucket.client.create_multipart_upload(**name)
    here.store.discard(KEY[:-1])
    assert here.store.unfinished() == [KEY]
    here.store.discard(KEY)
    assert (here.bucket.uploads(), here.store.unfinished()) == ({}, [])
    here.store.discard(KEY)


def test_bad_parts_among_good_ones_are_replaced(cloud: Open) -> None:
    here = cloud(honest=False)
    name = {"Bucket": here.bucket.name, "Key": PATH}
    upload = here.bucket.client.create_multipart_upload(**name)["UploadId"]
    for number, content in {1: bytes(PART), 2: LARGE[PART : 2 * PART], 3: bytes(7)}.items():
        here.bucket.client.upload_part(**name, UploadId=upload, PartNumber=number, Body=content)
    here.put(LARGE)
    # One of part 1 is the trial.
    assert [here.proxy.sent("UploadPart", part=number) for number in (1, 2, 3)] == [2, 0, 1]
    assert here.bucket.objects() == {PATH: LARGE}


def test_a_part_that_was_cut_is_replaced(cloud: Open) -> None:
    here = cloud(honest=False, fault=once("UploadPart", cut_request(70_000), part=2))
    with pytest.raises(UnreachableError, match="CompleteMultipartUpload: EntityTooSmall") as caught:
        here.put(LARGE)
    assert caught.value.retryable
    before = len(here.sent())
    here.put(LARGE)
    assert [name for name in here.sent(before) if name.startswith("UploadPart")] == ["UploadPart 2"]
    assert here.bucket.objects() == {PATH: LARGE}


def test_a_list_of_parts_that_was_cut_is_sent_again(cloud: Open) -> None:
    here = cloud(fault=once("CompleteMultipartUpload", cut_request(70)))
    with pytest.raises(UnreachableError, match="CompleteMultipartUpload: MalformedXML") as caught:
        here.put(LARGE)
    assert caught.value.retryable
    before = len(here.sent())
    here.put(LARGE)
    assert not [name for name in here.sent(before) if name.startswith("UploadPart")]
    assert here.bucket.objects() == {PATH: LARGE}


def test_other_uploads_of_what_is_kept_are_given_up(cloud: Open) -> None:
    # The answer to the first creation of the upload that counts is lost, and the trial may not be given up.
    numbers = count()

    def decide(request: Request) -> Fault | None:
        if request.operation == "CreateMultipartUpload" and next(numbers) == 1:
            return lose_answer()
        return once_denied(request)

    once_denied = once("AbortMultipartUpload", answer(403, "AccessDenied"))
    here = cloud(fault=decide)
    for key in (PATH, PATH + "2"):
        here.bucket.client.create_multipart_upload(Bucket=here.bucket.name, Key=key)
    here.put(LARGE)
    assert here.bucket.objects() == {PATH: LARGE}
    assert [key for key, _ in here.bucket.uploads()] == [PATH + "2"]


@pytest.mark.parametrize("operation", ["ListMultipartUploads", "AbortMultipartUpload"])
@pytest.mark.parametrize("fault", [answer(403, "AccessDenied"), cut_response(40), drop()], ids=str)
def test_what_is_kept_is_kept_whatever_is_left_behind(
    cloud: Open, monkeypatch: pytest.MonkeyPatch, operation: str, fault: Fault
) -> None:
    monkeypatch.setattr("larder.stores._s3_client.ATTEMPTS", 2)
    here = cloud()
    here.bucket.client.create_multipart_upload(Bucket=here.bucket.name, Key=PATH)
    here.proxy.fault = lambda request: (
        fault if request.operation == operation and here.proxy.sent("CompleteMultipartUpload") else None
    )
    here.put(LARGE)
    assert here.bucket.objects() == {PATH: LARGE}
    here.put(SMALL, KEY + "2")
    assert here.proxy.requests[-1].operation == "GetObject"


KILLED = """
    import sys
    from pathlib import Path
    from larder.stores import open_store
    from larder.stores.s3 import S3Settings

    settings = S3Settings(name="cloud", type="s3", bucket=sys.argv[1], part_size=5 << 20, parallel=1)
    open_store(settings).put(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
"""


def test_a_put_that_was_killed_goes_on(cloud: Open, tmp_path: Path) -> None:
    here, source = cloud(), tmp_path / "source"
    source.write_bytes(LARGE)
    killed: list[subprocess.Popen[bytes]] = []

    def kill(request: Request) -> Fault | None:
        if request.operation == "UploadPart" and request.part == 3:
            killed[0].kill()
            return hang()
        return None

    here.proxy.fault = kill
    command = [sys.executable, "-c", textwrap.dedent(KILLED), here.bucket.name, KEY, source]
    environ = {**os.environ, **here.proxy.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed.append(subprocess.Popen([*command, hashlib.sha256(LARGE).hexdigest()], env=environ))
    assert killed[0].wait(60) == -9
    assert list(here.bucket.uploads().values()) == [[1, 2]]
    here.proxy.fault = None
    before = len(here.proxy.requests)
    here.put(LARGE)
    sent = [request.part for request in here.proxy.requests[before:] if request.operation == "UploadPart"]
    assert sent[-1] == 3
    assert 2 not in sent
    assert here.bucket.objects() == {PATH: LARGE}


def test_credentials_that_may_not_look_for_uploads_start_over(cloud: Open) -> None:
    hidden = {"ListMultipartUploads", "ListParts", "AbortMultipartUpload"}
    here = cloud(fault=lambda request: answer(403, "AccessDenied") if request.operation in hidden else None)
    here.put(LARGE)
    assert here.bucket.objects() == {PATH: LARGE}


def test_a_server_that_cannot_be_tried_is_read_back(cloud: Open) -> None:
    def decide(request: Request) -> Fault | None:
        begins = request.operation == "CreateMultipartUpload"
        return answer(403, "AccessDenied") if begins and here.proxy.sent(request.operation) == 1 else None

    here = cloud()
    here.proxy.fault = decide
    here.put(LARGE)
    assert here.bucket.objects() == {PATH: LARGE}


# Others at the same time.


def behind(operation: str, act: Callable[[], object]) -> FaultMaker:
    """Have `act` done when the first such request has come."""
    left = [act]

    def decide(request: Request) -> Fault | None:
        if request.operation == operation and left:
            left.pop()()
        return None

    return decide


@pytest.mark.parametrize(("operation", "content"), [("PutObject", SMALL), ("CompleteMultipartUpload", LARGE)])
def test_who_was_first_stays(cloud: Open, operation: str, content: bytes) -> None:
    here = cloud()
    here.proxy.fault = behind(operation, lambda: here.bucket.put(PATH, content))
    here.put(content)
    assert (here.bucket.objects(), here.bucket.uploads()) == ({PATH: content}, {})
    here.store.delete(KEY)
    for other, perhaps in ((content[::-1], True), (content[:-1], False)):
        here.bucket.empty()
        here.proxy.fault = behind(operation, lambda other=other: here.bucket.put(PATH, other))
        with pytest.raises(
            IntegrityError, match="a file with other content is there, which was left as it is"
        ) as caught:
            here.put(content)
        assert ("may be a damaged copy" in caught.value.hint) == perhaps
        assert (here.bucket.objects(), here.bucket.uploads()) == ({PATH: other}, {})


def test_who_came_later_is_left(cloud: Open) -> None:
    """On a server without conditions another may take the place of what was sent before it was read back."""
    here = cloud()
    here.proxy.fault = behind("GetObject", lambda: here.bucket.put(PATH, SMALL[::-1]))
    with pytest.raises(IntegrityError, match="a file with other content is there"):
        here.put(SMALL)
    assert here.bucket.objects() == {PATH: SMALL[::-1]}


@pytest.mark.parametrize(("operation", "content"), [("PutObject", SMALL), ("CompleteMultipartUpload", LARGE)])
@pytest.mark.parametrize("status", [501, 400])
def test_a_server_without_conditions_is_asked_first(
    cloud: Open, operation: str, content: bytes, status: int
) -> None:
    code = "NotImplemented" if status == 501 else "InvalidArgument: If-None-Match"
    here = cloud(fault=lambda request: answer(status, code) if "if-none-match" in request.headers else None)
    here.put(content)
    assert here.bucket.objects() == {PATH: content}
    at = here.sent().index(operation)
    assert here.sent()[at : at + 3] == [operation, "HeadObject", operation]
    with pytest.raises(IntegrityError, match="a file with other content"):
        here.put(content[::-1])
    here.put(content, KEY + "2")
    assert here.proxy.sent(operation) == 3


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_server_without_checksums_is_sent_none(cloud: Open, content: bytes) -> None:
    def decide(request: Request) -> Fault | None:
        known = any("checksum" in name for name in request.headers if name != "x-amz-checksum-mode")
        return answer(501, "NotImplemented") if known else None

    here = cloud(honest=False, fault=decide)
    here.put(content)
    assert here.bucket.objects() == {PATH: content}
    taken = here.proxy.select("PutObject" if content is SMALL else "UploadPart", kept=True)
    assert all("content-md5" in request.headers for request in taken)
    assert here.proxy.sent("GetObject") == len(taken)


@pytest.mark.parametrize("number", [1, 3])
def test_a_part_that_is_refused_does_not_end_checksums(cloud: Open, number: int) -> None:
    here = cloud(fault=once("UploadPart", answer(501, "NotImplemented"), part=number))
    with pytest.raises(UnreachableError, match="UploadPart: NotImplemented") as caught:
        here.put(LARGE)
    assert caught.value.retryable
    here.put(LARGE)
    assert "x-amz-checksum-sha256" in here.proxy.select("UploadPart", part=number)[-1].headers
    assert here.proxy.sent("GetObject") == 0
    assert here.bucket.objects() == {PATH: LARGE}


@pytest.mark.parametrize(("operation", "content"), [("PutObject", SMALL), ("CompleteMultipartUpload", LARGE)])
@pytest.mark.parametrize(
    "fault",
    [
        answer(409, "ConditionalRequestConflict"),
        lose_answer(),
        answer_afterwards(500, "InternalError"),
        answer(503, "SlowDown"),
    ],
    ids=str,
)
def test_what_passes_is_tried_again(cloud: Open, operation: str, content: bytes, fault: Fault) -> None:
    here = cloud(fault=once(operation, fault))
    here.put(content)
    assert (here.bucket.objects(), here.bucket.uploads()) == ({PATH: content}, {})
    assert here.proxy.sent(operation) == 2


def test_an_end_that_is_said_to_be_good_and_is_not_is_tried_again(cloud: Open) -> None:
    here = cloud(fault=once("CompleteMultipartUpload", answer(200, "InternalError")))
    here.put(LARGE)
    assert here.bucket.objects() == {PATH: LARGE}
    assert here.proxy.sent("CompleteMultipartUpload") == 2


def test_an_upload_that_was_ended_unheard_is_found(cloud: Open) -> None:
    here = cloud(fault=once("CompleteMultipartUpload", answer_afterwards(404, "NoSuchUpload")))
    here.put(LARGE)
    assert here.bucket.objects() == {PATH: LARGE}
    assert here.proxy.sent("CompleteMultipartUpload") == 1


def test_an_upload_that_was_given_up_starts_over(cloud: Open) -> None:
    here = cloud()
    gone = once("CompleteMultipartUpload", answer(404, "NoSuchUpload"))

    def give_up(request: Request) -> Fault | None:
        fault = gone(request)
        if fault:
            here.store.discard(KEY)
        return fault

    here.proxy.fault = give_up
    progress = Progress()
    here.put(LARGE, progress=progress)
    assert progress.done == len(LARGE)
    assert [here.proxy.sent("UploadPart", part=number) for number in (2, 3)] == [2, 2]
    assert here.bucket.objects() == {PATH: LARGE}


def is_right(content: bytes, there: dict[str, bytes]) -> bool:
    return there in ({}, {PATH: content})


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_whatever_goes_wrong_success_is_success(
    cloud: Open, monkeypatch: pytest.MonkeyPatch, content: bytes, seed: int, *, honest: bool
) -> None:
    """Faults of every kind, in one request of ten: a `put` that returns has kept it, and one of the next ones does."""
    monkeypatch.setattr("larder.stores._s3_client.ATTEMPTS", 2)
    monkeypatch.setattr("larder.stores._s3_client.READ_TIMEOUT", 2)
    here = cloud(honest=honest, fault=faults(seed, 0.1))
    for _ in range(20):
        try:
            here.put(content)
        except UnreachableError:
            # An honest server holds nothing wrong at any time.
            assert not honest or is_right(content, here.bucket.objects())
        except IntegrityError:
            # What was altered on its way to a credulous server, and could not be deleted at once.
            assert not honest
            here.bucket.empty()
        else:
            break
    assert here.bucket.objects() == {PATH: content}
    here.proxy.fault = None
    with here.store.open(KEY) as found:
        assert found.read() == content
    here.store.discard(KEY)
    assert here.bucket.uploads() == {}


# Locks and versions.


def test_what_is_kept_can_be_locked(object_server: ObjectServer, source: Path) -> None:
    locked, content = object_server.bucket(object_lock=True), SMALL
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    store = store_at(object_server.url, locked.name, object_lock="governance")
    store.put(KEY, source, hashlib.sha256(content).hexdigest(), keep_until=until)
    store.put("unlocked", source, hashlib.sha256(content).hexdigest())
    found = locked.client.head_object(Bucket=locked.name, Key=PATH)
    assert (found["ObjectLockMode"], found["ObjectLockRetainUntilDate"]) == ("GOVERNANCE", until)
    assert "ObjectLockMode" not in locked.client.head_object(Bucket=locked.name, Key="backups/unlocked")
    assert not store.check().warnings or "old versions" in store.check().warnings[0]
    store.delete(KEY)
    assert list(store.sizes()) == ["unlocked"]
    assert len([key for key, _ in locked.versions() if key == PATH]) == 2


def test_what_is_sent_in_parts_is_locked_from_the_beginning(cloud: Open) -> None:
    # moto takes the request, and locks nothing.
    here, until = cloud(object_lock="compliance"), datetime.now(UTC) + timedelta(days=30)
    here.put(LARGE, keep_until=until)
    headers = here.proxy.select("CreateMultipartUpload")[-1].headers
    assert headers["x-amz-object-lock-mode"] == "COMPLIANCE"
    assert headers["x-amz-object-lock-retain-until-date"][:16] == until.isoformat()[:16]


def test_a_bucket_that_cannot_lock_is_told(cloud: Open) -> None:
    here = cloud(object_lock="compliance")
    for use in (lambda: here.put(SMALL, keep_until=datetime.now(UTC) + timedelta(days=1)), here.store.check):
        with pytest.raises(RefusedError, match="unable to") as caught:
            use()
        assert "object lock" in caught.value.hint
    # What is no longer to be kept need not be locked.
    here.put(SMALL, keep_until=datetime.now(UTC) - timedelta(days=1))


def test_options_are_sent(cloud: Open) -> None:
    here = cloud(storage_class="STANDARD_IA", encryption="sse-kms", kms_key="alias/backups")
    here.put(SMALL)
    here.put(LARGE, KEY + "2")
    for operation in ("PutObject", "CreateMultipartUpload"):
        # The trial too: a bucket's policy may refuse what has no encryption.
        for request in here.proxy.select(operation):
            assert request.headers["x-amz-storage-class"] == "STANDARD_IA"
            assert request.headers["x-amz-server-side-encryption"] == "aws:kms"
            assert request.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/backups"


# Reading.


def test_a_reader_goes_on_where_the_connection_broke_off(cloud: Open) -> None:
    here = cloud()
    here.bucket.put(PATH, LARGE)
    left = [
        cut_response(5_000_000),
        cut_response(0),
        answer(503, "SlowDown"),
        lose_answer(),
        cut_response(10),
    ]
    here.proxy.fault = lambda request: left.pop(0) if left and request.operation == "GetObject" else None
    with here.store.open(KEY) as content:
        assert content.read(10) == LARGE[:10]
        assert content.read() == LARGE[10:]
        assert content.read() == b""
    assert not left
    assert here.proxy.select("GetObject")[-1].headers["if-match"]
    with pytest.raises(ValueError, match="closed"):
        content.read()


def test_a_reader_never_seems_to_have_ended_early(cloud: Open) -> None:
    here = cloud(fault=always("GetObject", cut_response(1000)))
    here.bucket.put(PATH, SMALL)
    with here.store.open(KEY) as content:
        for _ in range(2):
            with pytest.raises(UnreachableError, match="the connection broke off at byte") as caught:
                content.read()
        assert caught.value.retryable
    assert here.proxy.sent("GetObject") < 10


def test_a_reader_does_not_mix_two_objects(cloud: Open) -> None:
    here = cloud(fault=once("GetObject", cut_response(1000)))
    here.bucket.put(PATH, SMALL)
    with here.store.open(KEY) as content:
        here.bucket.put(PATH, SMALL[::-1])
        with pytest.raises(IntegrityError, match="another object has taken its place"):
            content.read()


def test_a_listing_leaves_out_what_is_not_ours(cloud: Open) -> None:
    here = cloud()
    ours = ["shop/a b+c%20d&é=ü.sql", "shop/b", "z"]
    foreign = [".hidden", "shop/.larder/x", "shop/", "shop//x", "shop/../x"]
    for name in [*ours, *foreign]:
        here.bucket.client.put_object(Bucket=here.bucket.name, Key=f"backups/{name}", Body=b"x")
    here.bucket.put("elsewhere/y", b"x")
    here.bucket.put("backups2/y", b"x")
    assert here.store.sizes() == dict.fromkeys(ours, 1)
    top = store_at(here.proxy.url, here.bucket.name, prefix="")
    assert list(top.sizes()) == sorted(["backups2/y", "elsewhere/y", *(f"backups/{name}" for name in ours)])
    assert top.location("y") == f"s3://{here.bucket.name}/y"
    with here.store.open(ours[0]) as content:
        assert content.read() == b"x"


def test_a_listing_has_many_pages(cloud: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("larder.stores._s3_bucket.PAGE", 7)
    here = cloud()
    names = [f"{number:04}" for number in range(50)]
    for name in names:
        here.bucket.put(f"backups/{name}", b"")
    assert list(here.store.sizes()) == names
    assert here.proxy.sent("ListObjectsV2") == 8


@pytest.mark.parametrize("at", [0, 1, 100, 300])
def test_a_listing_that_breaks_off_is_not_an_empty_one(
    cloud: Open, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    here = cloud(fault=always("ListObjectsV2", cut_response(at)))
    here.bucket.put(PATH, SMALL)
    monkeypatch.setattr("larder.stores._s3_client.ATTEMPTS", 2)
    with pytest.raises(UnreachableError, match="IncompleteBody: the answer broke off"):
        here.store.sizes()
    here.proxy.fault = None
    assert list(here.store.sizes()) == [KEY]


class _Empty(BaseHTTPRequestHandler):
    """Says yes to everything, with nothing in it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_a_server_that_is_none_has_not_an_empty_bucket() -> None:
    with HTTPServer(("127.0.0.1", 0), _Empty) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            with pytest.raises(UnreachableError, match="the server's list has no end"):
                store_at(f"http://127.0.0.1:{server.server_address[1]}", "larder").sizes()
        finally:
            server.shutdown()
            thread.join()


# What a server says.

SAID = [
    (403, "AccessDenied", RefusedError, "s3:PutObject", "allow s3:PutObject"),
    (404, "NoSuchBucket", RefusedError, "NoSuchBucket", "create the bucket"),
    (403, "RequestTimeTooSkewed", RefusedError, "this is a test", "clock"),
    (400, "ExpiredToken", RefusedError, "ExpiredToken", "AWS_SESSION_TOKEN"),
    (403, "InvalidAccessKeyId", RefusedError, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
    (403, "SignatureDoesNotMatch", RefusedError, "SignatureDoesNotMatch", "secret key"),
    (400, "AuthorizationHeaderMalformed", RefusedError, "AuthorizationHeaderMalformed", "region"),
    (501, "NotImplemented", RefusedError, "NotImplemented", ""),
    (418, "Teapot", RefusedError, "Teapot", ""),
    (400, "EntityTooLarge", ExhaustedError, "EntityTooLarge", "room"),
    (507, "XMinioStorageFull", ExhaustedError, "XMinioStorageFull", "room"),
    (400, "BadDigest", UnreachableError, "BadDigest", ""),
    (409, "OperationAborted", UnreachableError, "OperationAborted", ""),
    (429, "TooManyRequests", UnreachableError, "TooManyRequests", ""),
    (520, "Unknown", UnreachableError, "520|Unknown", ""),
]


@pytest.mark.parametrize(("status", "code", "kind", "words", "hint"), SAID, ids=lambda value: str(value)[:20])
def test_refusals_are_told_by_what_they_are(
    cloud: Open,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    kind: type[LarderError],
    words: str,
    hint: str,
) -> None:
    monkeypatch.setattr("larder.stores._s3_client.ATTEMPTS", 1)
    here = cloud(fault=lambda request: answer(status, code) if request.operation == "PutObject" else None)
    with pytest.raises(LarderError, match=words) as caught:
        here.put(SMALL)
    assert type(caught.value) is kind
    assert caught.value.message.startswith(f"unable to keep s3://{here.bucket.name}/{PATH}: PutObject: ")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (400, "RequestTimeout")]
)
def test_a_server_in_trouble_is_asked_a_few_times(cloud: Open, status: int, code: str) -> None:
    here = cloud(fault=always("DeleteObject", answer(status, code)))
    with pytest.raises(UnreachableError, match=rf"unable to delete s3://.*: DeleteObject: {code}") as caught:
        here.store.delete(KEY)
    assert caught.value.retryable
    assert here.proxy.sent("DeleteObject") == 4


def test_the_answer_to_a_head_is_told_with_words(cloud: Open) -> None:
    denied = {"HeadObject", "GetObject"}
    here = cloud(fault=lambda request: answer(403, "AccessDenied") if request.operation in denied else None)
    with pytest.raises(RefusedError, match=r"GetObject: AccessDenied: this is a test \(s3:GetObject\)"):
        here.store.size(KEY)
    here.proxy.fault = lambda request: answer(403, "AccessDenied") if request.method == "HEAD" else None
    with pytest.raises(RefusedError, match=r"HeadObject: 403: Forbidden \(s3:GetObject\)") as caught:
        here.store.size(KEY)
    assert "s3:ListBucket" in caught.value.hint


def uses(store: Store, source: Path) -> list[Callable[[], object]]:
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    return [
        lambda: store.put(KEY, source, sha256), lambda: store.open(KEY), lambda: store.size(KEY),
        lambda: store.delete(KEY), lambda: store.discard(KEY), store.sizes, store.unfinished, store.check,
    ]  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "small"
    path.write_bytes(SMALL)
    return path


def test_a_missing_bucket_is_told(object_server: ObjectServer, source: Path) -> None:
    for use in uses(store_at(object_server.url, "larder-is-not-there"), source):
        with pytest.raises(
            RefusedError, match=r"unable to .*s3://larder-is-not-there.*NoSuchBucket"
        ) as caught:
            use()
        assert not caught.value.retryable


def test_nobody_there_is_told(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    monkeypatch.setattr("larder.stores._s3_client.ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for use in uses(store_at(f"http://127.0.0.1:{port}", "larder"), source):
        with pytest.raises(UnreachableError, match=rf"unable to .*127\.0\.0\.1:{port}") as caught:
            use()
        assert caught.value.retryable


def test_a_server_that_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch, cloud: Open) -> None:
    monkeypatch.setattr("larder.stores._s3_client.ATTEMPTS", 1)
    monkeypatch.setattr("larder.stores._s3_client.READ_TIMEOUT", 0.2)
    here = cloud(fault=always("DeleteObject", hang()))
    with pytest.raises(UnreachableError, match="timeout"):
        here.store.delete(KEY)


def test_the_right_region_is_named() -> None:
    told = {
        "Error": {"Code": "AuthorizationHeaderMalformed", "Message": "wrong", "Region": "eu-west-1"},
        "ResponseMetadata": {"HTTPStatusCode": 400, "HTTPHeaders": {}},
    }
    assert 'region = "eu-west-1"' in plain("unable to look", ClientError(told, "GetObject")).hint
    told = {
        "Error": {"Code": "301", "Message": "Moved Permanently"},
        "ResponseMetadata": {"HTTPStatusCode": 301, "HTTPHeaders": {"x-amz-bucket-region": "eu-west-3"}},
    }
    error = plain("unable to look", ClientError(told, "HeadObject"))
    assert type(error) is RefusedError
    assert 'region = "eu-west-3"' in error.hint


def test_what_amazon_says_is_missing_is_named() -> None:
    words = "User: arn:aws:iam::1:user/b is not authorized to perform: s3:PutObjectRetention on resource: x"
    told = {"Error": {"Code": "AccessDenied", "Message": words}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    error = plain("unable to keep", ClientError(told, "PutObject"))
    assert "allow s3:PutObjectRetention" in error.hint


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_address_without_a_domain_gets_the_bucket_in_the_path(
    object_server: ObjectServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    bucket.put(PATH, SMALL)
    url = f"http://{host}:{object_server.port}"
    assert store_at(url, bucket.name).sizes() == {KEY: len(SMALL)}
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    assert open_store(S3Settings(type="s3", bucket=bucket.name)).sizes() == {KEY: len(SMALL)}


def test_tls_that_is_none_is_told(object_server: ObjectServer, source: Path) -> None:
    store = store_at(object_server.url.replace("http:", "https:"), "larder")
    with pytest.raises(RefusedError, match="unable to list") as caught:
        store.sizes()
    assert "AWS_CA_BUNDLE" in caught.value.hint


def test_no_credentials_are_told(monkeypatch: pytest.MonkeyPatch, object_server: ObjectServer) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigurationError, match="unable to locate credentials") as caught:
        store_at(object_server.url, "larder").sizes()
    assert "AWS_PROFILE" in caught.value.hint
    with pytest.raises(ConfigurationError, match=r"profile \(backup\) could not be found"):
        store_at(object_server.url, "larder", profile="backup").sizes()


def test_the_secret_is_masked(cloud: Open) -> None:
    here = cloud()
    assert here.store.size(KEY) is None
    assert SECRET_KEY not in str(LarderError(f"unable to use {SECRET_KEY}"))
    assert SECRET_KEY not in repr(here.store.__dict__)


# The check.


def test_a_check_says_what_can_be_done(cloud: Open) -> None:
    here = cloud()
    found = here.store.check()
    assert found.detail == (
        f"s3://{here.bucket.name}/backups, region eu-central-1; can be written, read, deleted"
    )
    assert found.warnings == ()
    assert here.bucket.keys() == []


def test_a_check_warns(object_server: ObjectServer) -> None:
    versioned = object_server.bucket(versioned=True)
    denied = {"DeleteObject": "", "ListMultipartUploads": ""}
    fault = lambda request: answer(403, "AccessDenied") if request.operation in denied else None  # noqa: E731
    with Proxy(object_server, fault) as proxy:
        store = store_at(proxy.url, versioned.name)
        found = store.check()
        assert found.detail.endswith("can be written, read")
        assert [warning.partition(",")[0].partition(":")[0] for warning in found.warnings] == [
            "may not delete (s3",
            "keeps old versions",
            "may not list uploads (s3",
        ]
        store.check()
        assert set(versioned.keys()) == {f"backups/{_s3_check.PROBE}"}
        assert store.sizes() == {}
        versioned.client.put_bucket_lifecycle_configuration(
            Bucket=versioned.name,
            LifecycleConfiguration={
                "Rules": [
                    {
                        "ID": "old versions",
                        "Status": "Enabled",
                        "Filter": {"Prefix": "backups/"},
                        "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
                    }
                ]
            },
        )
        assert not any("old versions" in warning for warning in store.check().warnings)


def test_a_check_sees_clocks_that_differ() -> None:
    told = {"ResponseMetadata": {"HTTPHeaders": {"date": "Thu, 16 Oct 2025 02:00:00 GMT"}}}
    assert _s3_check._clock_difference(told) < -86400
    assert _s3_check._clock_difference({"ResponseMetadata": {"HTTPHeaders": {}}}) == 0


# Processes, memory, sizes.


def test_a_forked_process_has_connections_of_its_own(cloud: Open) -> None:
    here = cloud()
    here.put(SMALL)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if here.store.size(KEY) == len(SMALL) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert here.store.size(KEY) == len(SMALL)
    assert here.proxy.mistakes == []


MEMORY = """
    import hashlib, sys
    from pathlib import Path
    from larder.stores import open_store
    from larder.stores.s3 import S3Settings

    source = Path(sys.argv[2])
    store = open_store(S3Settings(name="cloud", type="s3", bucket=sys.argv[1]))
    store.put("large", source, hashlib.file_digest(source.open("rb"), "sha256").hexdigest())
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(int(line.split()[1]) // 1024)
"""


def test_only_the_first_client_of_a_process_reads_what_amazon_offers(
    monkeypatch: pytest.MonkeyPatch, bucket: Bucket
) -> None:
    settings = S3Settings(name="cloud", type="s3", bucket=bucket.name, endpoint=bucket.url)
    make_client(settings)
    with monkeypatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: pytest.fail(f"{path} is read again"))
        assert make_client(settings).head_bucket(Bucket=bucket.name)


def test_parts_do_not_stay_in_memory(object_server: ObjectServer, bucket: Bucket, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as sink:
        sink.truncate(300 << 20)
    environ = {**os.environ, **object_server.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(MEMORY), bucket.name, source]
    most = int(subprocess.run(command, env=environ, check=True, capture_output=True).stdout)
    assert most < 150


def test_there_are_never_too_many_parts() -> None:
    for size in (0, 1, 16_000_000 * MOST_PARTS, 16_000_000 * MOST_PARTS + 1, 5 << 40):
        part = _part_size(size, 16_000_000)
        assert part >= 16_000_000
        assert -(-size // part) <= MOST_PARTS
    assert _part_size(16_000_000 * MOST_PARTS, 16_000_000) == 16_000_000


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 250])
def test_parts_are_the_whole_file(tmp_path: Path, size: int) -> None:
    path, content = tmp_path / "source", random.Random(size).randbytes(size)
    path.write_bytes(content)
    source = Source(path, hashlib.sha256(content).hexdigest(), 100)
    assert (source.size, source.count) == (size, max(1, -(-size // 100)))
    assert [part.size for part in source.parts] == [
        source.size_of(number) for number in range(1, source.count + 1)
    ]
    assert source.size_of(0) is source.size_of(source.count + 1) is None
    pieces = []
    for part in source.parts:
        with source.slice(part) as piece:
            pieces.append(piece.read())
        assert hashlib.sha256(pieces[-1]).digest() == part.sha256
        assert len(pieces[-1]) == part.size
    assert b"".join(pieces) == content


@pytest.mark.parametrize("change", [b"x" * 250, b"x" * 251, b"x" * 150, b"x" * 100, b""], ids=len)
def test_the_last_part_of_what_has_changed_is_not_given(tmp_path: Path, change: bytes) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"x" * 249 + b"y")
    source = Source(path, hashlib.sha256(path.read_bytes()).hexdigest(), 100)
    assert next(iter(source)).size == 100
    path.write_bytes(change)
    found = []
    for _ in range(2):
        with pytest.raises(IntegrityError, match=hashlib.sha256(change or b"x" * 100).hexdigest()):
            found += list(source)
        assert found == []


def test_what_grows_after_its_end_is_not_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"x" * 250)
    source = Source(path, hashlib.sha256(b"x" * 251).hexdigest(), 100)
    path.write_bytes(b"x" * 251)
    with pytest.raises(IntegrityError):
        assert source.parts


def test_work_is_not_taken_long_before_it_is_done() -> None:
    begun, gate = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            begun.append(number)
            if len(begun) == 5:
                gate.set()
            yield number

    def work(number: int) -> int:
        assert gate.wait(60)
        return number * 2

    found = in_parallel(work, items(), 2)
    first = next(found)
    assert len(begun) == 5
    assert dict([first, *found]) == {number: number * 2 for number in range(100)}


# Its keys.


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({}, "required"),
        ({"bucket": "s3://my-backups"}, "a bucket's name alone"),
        ({"bucket": "ab"}, "a bucket's name alone"),
        ({"bucket": "abc", "prefix": "/backups"}, "without / at its ends"),
        ({"bucket": "abc", "prefix": "a//b"}, "without / at its ends"),
        ({"bucket": "abc", "prefix": "a/../b"}, "without / at its ends"),
        ({"bucket": "abc", "endpoint": "minio:9000"}, "https://"),
        ({"bucket": "abc", "endpoint": "https://key:s3cr3t@minio"}, "must not hold credentials"),
        ({"bucket": "abc", "endpoint": "https://minio/?x=y"}, "before"),
        ({"bucket": "abc", "kms_key": "k"}, "sse-kms"),
        ({"bucket": "abc", "kms_key": "k", "encryption": "sse-s3"}, "sse-kms"),
        ({"bucket": "abc", "storage_class": "DEEP_ARCHIVE"}, "cannot be read back"),
        ({"bucket": "abc", "part_size": "1 MB"}, "5242880"),
        ({"bucket": "abc", "parallel": 0}, "1"),
        ({"bucket": "abc", "secret_key": "s3cr3t"}, "Extra"),
    ],
    ids=str,
)
def test_mistakes_in_its_keys(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as caught:
        S3Settings(**keys)
    assert "s3cr3t" not in str(caught.value)


def test_every_key_says_what_it_is_for() -> None:
    fields = S3Settings.model_fields.items()
    assert all(field.description or field.exclude for _, field in fields)


@pytest.mark.parametrize(
    ("one", "other", "problem"),
    [
        ({}, {}, "is the folder of store 'other' too"),
        ({"prefix": ""}, {}, "overlap"),
        ({}, {"prefix": "backups/shop"}, "overlap"),
        ({}, {"prefix": "backups/.shop"}, None),
        ({}, {"prefix": "backups2"}, None),
        ({}, {"bucket": "another"}, None),
        ({"endpoint": "https://a.example"}, {}, None),
        ({"endpoint": "https://a.example/"}, {"endpoint": "https://A.example"}, "too"),
    ],
    ids=str,
)
def test_stores_that_would_list_each_other(
    one: dict[str, Any], other: dict[str, Any], problem: str | None
) -> None:
    first = S3Settings(**{"name": "one", "bucket": "abc", **one})
    second = S3Settings(**{"name": "other", "bucket": "abc", **other})
    found = first.collides(second)
    assert found is None if problem is None else problem in (found or ("", ""))[1]
    assert (second.collides(first) is None) == (problem is None)
