"""A real S3 server for tests, and a proxy before it that fails on purpose, counts, and can be as strict as AWS is.

    client ──> Proxy ──> ObjectServer (moto, a process of its own)

A test sends its client to `proxy.url`, and looks at what is really there through `Bucket`, which asks the server.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import io
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Self, cast
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.servers import free_port

ACCESS_KEY = "AKIALARDERTESTS00000"
#: With what trips up parsers, and easily found where it should not be.
SECRET_KEY = "s3cr3t+access/key=of%40tests"
REGION = "eu-central-1"

#: Seconds that the server may take to start, or to answer.
PATIENCE = 120

#: Bodies up to this many bytes are held in memory; larger ones go through a temporary file.
IN_MEMORY = 20 << 20

_LIBC = ctypes.CDLL(None)
_PDEATHSIG = 1


class ObjectServer:
    """moto's S3 server as a process. Measured: 1 GB in 5 MB parts takes 5 s to send and 6 s to complete.

    It holds an object in memory two or three times while a multipart upload is completed: 3.5 GB at the peak for 1 GB.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="larder-s3-"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = None

    @property
    def environment(self) -> dict[str, str]:
        """What a subprocess needs to find this server and nothing else."""
        return environment_for(self.url)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # Objects lie in files, until they are asked for.
                env={
                    "PATH": os.environ["PATH"],
                    "TMPDIR": str(self.folder),
                    "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(1 << 20),
                },
                start_new_session=True,
                # Does not outlive the tests, however they end.
                preexec_fn=lambda: _LIBC.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
            )
        self._wait_until_ready()
        self.client = client_for(self.url)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"moto did not start: {self._log.read_text()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
                return
            except OSError:
                # One turn of waiting for the condition above; nothing tells us of it.
                time.sleep(0.05)
        raise RuntimeError(f"moto did not start in {PATIENCE} s")

    def bucket(self, *, versioned: bool = False, object_lock: bool = False) -> Bucket:
        """A new, empty bucket of its own name. One with object lock is versioned too."""
        name = f"larder-{uuid.uuid4().hex[:16]}"
        self.client.create_bucket(
            Bucket=name,
            ObjectLockEnabledForBucket=object_lock,
            CreateBucketConfiguration={"LocationConstraint": REGION},
        )
        if versioned and not object_lock:
            self.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return Bucket(name, self.url, self.client)

    def remove(self) -> None:
        """Stop it and remove its files."""
        if self.client is not None:
            self.client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)


def environment_for(url: str) -> dict[str, str]:
    """What AWS's SDK reads from the environment to talk to the server at `url`."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }


def client_for(url: str, **options: Any) -> Any:
    """boto3's client for the server at `url`, whatever the environment says; whoever asks closes it.

    It adds no checksums of its own, and takes what comes.
    """
    session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
    config = Config(
        max_pool_connections=20,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **options,
    )
    return session.client("s3", endpoint_url=url, config=config)


@dataclass(frozen=True)
class Bucket:
    """A bucket, and what is really in it: asked of the server itself, past any proxy."""

    name: str
    #: The server's endpoint.
    url: str
    client: Any = field(repr=False)

    @property
    def port(self) -> int:
        """The server's port."""
        return urlsplit(self.url).port or 80

    def objects(self) -> dict[str, bytes]:
        """Every object's bytes by key."""
        return {key: self.read(key) for key in self.keys()}

    def keys(self) -> list[str]:
        """Every object's key, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return sorted(found["Key"] for page in pages for found in page.get("Contents", []))

    def read(self, key: str) -> bytes:
        """One object's bytes."""
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def find(self, key: str) -> bytes | None:
        """One object's bytes, or None where there is no such key."""
        try:
            return self.read(key)
        except self.client.exceptions.NoSuchKey:
            return None

    def digest(self, key: str) -> tuple[int, str]:
        """One object's size and SHA-256, for large ones."""
        size, found = 0, hashlib.sha256()
        for chunk in self.client.get_object(Bucket=self.name, Key=key)["Body"].iter_chunks(1 << 20):
            size += len(chunk)
            found.update(chunk)
        return size, found.hexdigest()

    def put(self, key: str, content: bytes) -> None:
        """Put an object there behind everybody's back."""
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def uploads(self) -> dict[tuple[str, str], list[int]]:
        """Multipart uploads under way: (key, upload id) and the numbers of the parts that the server has."""
        found = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return {(one["Key"], one["UploadId"]): self._parts(one["Key"], one["UploadId"]) for one in found}

    def _parts(self, key: str, upload: str) -> list[int]:
        pages = self.client.get_paginator("list_parts").paginate(Bucket=self.name, Key=key, UploadId=upload)
        return [part["PartNumber"] for page in pages for part in page.get("Parts", [])]

    def versions(self) -> list[tuple[str, str]]:
        """Every version and delete marker there is: key and version id."""
        found = []
        for page in self.client.get_paginator("list_object_versions").paginate(Bucket=self.name):
            found += page.get("Versions", []) + page.get("DeleteMarkers", [])
        return [(one["Key"], one["VersionId"]) for one in found]

    def empty(self) -> None:
        """Remove everything that is in it, and what was begun: the server's memory is ours. What is locked stays."""
        for key, upload in self.uploads():
            self.client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)
        for key, version in self.versions():
            try:
                self.client.delete_object(Bucket=self.name, Key=key, VersionId=version)
            except ClientError as error:
                if error.response["Error"]["Code"] != "AccessDenied":
                    raise


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with one request. Make one with the functions below."""

    kind: str
    #: The byte at which it happens, counted in the body and taken modulo its size.
    at: int = 0
    seconds: float = 0.0
    status: int = 0
    code: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.status} {self.code}" if self.status else self.kind


def drop(at: int = 0) -> Fault:
    """Reset the connection after `at` bytes of the request's body; the server never hears of it."""
    return Fault("drop", at)


def lose_answer() -> Fault:
    """The server does it, and the connection is reset before its answer."""
    return Fault("lose answer")


def delay(seconds: float) -> Fault:
    """The server does it, and its answer comes `seconds` late."""
    return Fault("delay", seconds=seconds)


def answer(status: int, code: str) -> Fault:
    """Answer with an S3 error, as 503 SlowDown; the server never hears of it."""
    return Fault("answer", status=status, code=code)


def answer_afterwards(status: int, code: str) -> Fault:
    """The server does it, and the client hears of an error."""
    return Fault("answer afterwards", status=status, code=code)


def cut_request(at: int) -> Fault:
    """The server gets the first `at` bytes of the body, and takes them for all of it."""
    return Fault("cut request", at)


def cut_response(at: int) -> Fault:
    """The client gets the first `at` bytes of the answer's body, and then the connection ends."""
    return Fault("cut response", at)


def flip_request(at: int) -> Fault:
    """A byte of the request's body is another when it gets to the server."""
    return Fault("flip request", at)


def flip_response(at: int) -> Fault:
    """A byte of the answer's body is another when it gets to the client."""
    return Fault("flip response", at)


def hang(seconds: float = 3600) -> Fault:
    """No answer until the client hangs up, or `seconds` have passed; the server never hears of it."""
    return Fault("hang", seconds=seconds)


@dataclass
class Request:
    """A request that came to the proxy. Times are `time.monotonic`'s."""

    #: S3's name for it: PutObject, UploadPart, …
    operation: str
    bucket: str
    key: str
    #: The number of the part of an UploadPart.
    part: int | None
    #: The id of the multipart upload that it belongs to.
    upload: str | None
    #: Bytes of the body, as the client announced them.
    size: int
    method: str
    #: By lower-case name.
    headers: Mapping[str, str] = field(repr=False)
    began: float = field(default_factory=time.monotonic)
    fault: Fault | None = None
    #: When the last byte of the body had come.
    arrived: float | None = None
    #: What the server said to it, with what the proxy refuses in its place.
    status: int | None = None
    #: When the client had been answered or given up.
    ended: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the server took it."""
        return self.status is not None and 200 <= self.status < 300


FaultMaker = Callable[[Request], Fault | None]

#: What servers answer on a bad day.
ERRORS = ((500, "InternalError"), (503, "SlowDown"), (400, "RequestTimeout"), (403, "AccessDenied"))


def faults(seed: int | str, rate: float, seconds: float = 0.2) -> FaultMaker:
    """Faults of every kind, for a share `rate` of all requests; delays and silences last up to `seconds`.

    The same request, the n-th of its operation, key and part, has the same fate whenever the seed is the same, in
    whatever order threads send theirs.
    """
    seen: Counter[tuple[str, str, int | None]] = Counter()
    lock = threading.Lock()

    def decide(request: Request) -> Fault | None:
        name = (request.operation, request.key, request.part)
        with lock:
            seen[name] += 1
            dice = random.Random(f"{seed} {name} {seen[name]}")
        if dice.random() >= rate:
            return None
        return dice.choice(_possible(request, dice, seconds))

    return decide


def _possible(request: Request, dice: random.Random, seconds: float) -> list[Fault]:
    at = dice.randrange(1 << 30)
    found = [drop(at), lose_answer(), delay(dice.uniform(0, seconds)), hang(dice.uniform(0, seconds))]
    found += [answer(*dice.choice(ERRORS)), answer_afterwards(*dice.choice(ERRORS[:2]))]
    if request.size:
        found += [cut_request(at), flip_request(at)]
    if request.method in ("GET", "POST"):
        found += [cut_response(at), flip_response(at)]
    if request.operation == "CompleteMultipartUpload":
        # S3 says 200 before it knows whether it will succeed.
        found += [answer(200, "InternalError"), answer_afterwards(200, "InternalError")]
    return found


class Proxy:
    """A reverse proxy before `server`, in threads of this process, from the beginning of a block to its end.

    `fault` is asked about each request as its head has come, from many threads. SHA-256 checksums are kept and given
    back as AWS does it, which moto does not. Where `honest`, they are checked too, so that what a fault has altered on
    the way is refused; otherwise the server is one that repeats any checksum that it was told.
    """

    def __init__(
        self, server: ObjectServer, fault: FaultMaker | None = None, *, honest: bool = False
    ) -> None:
        self.server = server
        self.fault = fault
        self.checksums = _Checksums(checked=honest)
        self.closing = threading.Event()
        #: Mistakes of the proxy itself.
        self.mistakes: list[BaseException] = []
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._http = _Listener(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What a subprocess needs to talk to the server through this proxy."""
        return environment_for(self.url)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        with self._lock:
            for connection in self._connections:
                _hang_up(connection)
        self._http.server_close()
        self._thread.join()
        if self.mistakes:
            raise self.mistakes[0]

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in the order in which they began."""
        with self._lock:
            return list(self._requests)

    def sent(
        self, operation: str, key: str | None = None, part: int | None = None, *, kept: bool = False
    ) -> int:
        """How many requests for `operation` came, of those for `key` and `part`; with `kept`, that the server took."""
        return len(self.select(operation, key, part, kept=kept))

    def select(
        self, operation: str, key: str | None = None, part: int | None = None, *, kept: bool = False
    ) -> list[Request]:
        """The requests that `sent` counts."""
        return [
            request
            for request in self.requests
            if request.operation == operation
            and key in (None, request.key)
            and part in (None, request.part)
            and (request.kept or not kept)
        ]

    def faults_made(self) -> Counter[str]:
        """How often each fault was made."""
        return Counter(str(request.fault) for request in self.requests if request.fault)

    def most_at_once(self, operation: str) -> int:
        """The largest number of requests for `operation` that were under way at one time."""
        changes = []
        for request in self.select(operation):
            changes += [(request.began, 1), (request.ended or float("inf"), -1)]
        now = most = 0
        for _, change in sorted(changes):
            now += change
            most = max(most, now)
        return most

    def opened(self, connection: socket.socket) -> None:
        """A client has connected."""
        with self._lock:
            self._connections.add(connection)
            if self.closing.is_set():
                _hang_up(connection)

    def closed(self, connection: socket.socket) -> None:
        """A client's connection is over."""
        with self._lock:
            self._connections.discard(connection)

    def came(self, request: Request) -> None:
        """The head of a request has come: record it, and decide what shall go wrong."""
        with self._lock:
            self._requests.append(request)
        if self.fault is not None:
            request.fault = self.fault(request)


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The other end was first.
        return


class _Listener(ThreadingHTTPServer):
    #: `server_close` waits for every thread.
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)
        # What has not been read yet is with the client, not in a buffer between.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        # Clients may hang up or be killed.
        if error is not None and not isinstance(error, ConnectionError):
            self.proxy.mistakes.append(error)


@dataclass
class _Answer:
    status: int
    headers: dict[str, str]
    body: IO[bytes]
    #: None where there is a body; else the size that a HEAD tells of.
    size: str | None = None

    def text(self) -> str:
        self.body.seek(0)
        return self.body.read().decode()

    def replace(self, text: str) -> None:
        self.body.seek(0)
        self.body.truncate()
        self.body.write(text.encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.server.proxy.opened(self.connection)

    def finish(self) -> None:
        self.server.proxy.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: `Proxy.requests` knows."""

    def _serve(self) -> None:
        proxy = self.server.proxy
        request = _understood(self.command, self.path, self.headers)
        proxy.came(request)
        try:
            with _body() as body:
                self._pass_on(request, body)
        finally:
            request.ended = time.monotonic()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _pass_on(self, request: Request, body: IO[bytes]) -> None:
        fault = request.fault or Fault("")
        if fault.kind == "drop":
            _pour(self.rfile, body, fault.at % (request.size + 1))
            self._reset()
            return
        if _pour(self.rfile, body, request.size) < request.size:
            self.close_connection = True
            return
        request.arrived = time.monotonic()
        if fault.kind == "hang":
            self._hang(fault.seconds)
        elif fault.kind == "answer":
            self._tell(_error(request, fault.status, fault.code))
        else:
            _spoil(body, fault, "request")
            with _body() as content:
                self._reply(fault, self._ask(request, body, content), request)

    def _ask(self, request: Request, body: IO[bytes], content: IO[bytes]) -> _Answer:
        """The server's answer, its body in `content`; or the refusal of a wrong checksum."""
        checksums = self.server.proxy.checksums
        answered = checksums.refusal(request, body)
        if answered is None:
            answered = self._forward(request, body, content)
            checksums.amend(request, body, answered)
        request.status = answered.status
        return answered

    def _forward(self, request: Request, body: IO[bytes], content: IO[bytes]) -> _Answer:
        server = HTTPConnection("127.0.0.1", self.server.proxy.server.port, PATIENCE, blocksize=1 << 16)
        try:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {"connection", "expect", "content-length"}:
                    server.putheader(name, value)
            server.putheader("Content-Length", str(_size(body)))
            body.seek(0)
            server.endheaders(body)
            response = server.getresponse()
            shutil.copyfileobj(response, content)
            unwanted = {"connection", "transfer-encoding", "content-length"}
            headers = {name: value for name, value in response.getheaders() if name.lower() not in unwanted}
            told = response.getheader("Content-Length") if self.command == "HEAD" else None
            return _Answer(response.status, headers, content, told)
        finally:
            server.close()

    def _reply(self, fault: Fault, answered: _Answer, request: Request) -> None:
        if fault.kind == "delay":
            self.server.proxy.closing.wait(fault.seconds)
        if fault.kind == "lose answer":
            self._reset()
        elif fault.kind == "answer afterwards":
            self._tell(_error(request, fault.status, fault.code))
        elif fault.kind == "cut response":
            size = _size(answered.body)
            self._tell(answered, fault.at % size if size else 0)
            self.close_connection = True
        else:
            _spoil(answered.body, fault, "response")
            self._tell(answered)

    def _tell(self, answered: _Answer, limit: int | None = None) -> None:
        """Answer the client, with the first `limit` bytes of the body where there is a limit."""
        size = _size(answered.body)
        self.send_response_only(answered.status)
        for name, value in answered.headers.items():
            self.send_header(name, value)
        if answered.status != 204:
            self.send_header("Content-Length", answered.size or str(size))
        self.end_headers()
        if self.command != "HEAD":
            answered.body.seek(0)
            _pour(answered.body, self.wfile, size if limit is None else limit)

    def _hang(self, seconds: float) -> None:
        """Wait until the client, or `Proxy.__exit__`, hangs up."""
        self.close_connection = True
        self.connection.settimeout(seconds)
        try:
            self.connection.recv(1)
        except TimeoutError:
            return

    def _reset(self) -> None:
        """End the connection as a crash does: with RST, and whatever lay in buffers is gone."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()


def _body() -> IO[bytes]:
    return cast(IO[bytes], tempfile.SpooledTemporaryFile(max_size=IN_MEMORY))


def _size(body: IO[bytes]) -> int:
    return body.seek(0, os.SEEK_END)


def _pour(source: Any, sink: Any, size: int) -> int:
    """Copy `size` bytes, or what there is of them; gives how many."""
    left = size
    while left and (chunk := source.read(min(left, 1 << 18))):
        sink.write(chunk)
        left -= len(chunk)
    return size - left


def _spoil(body: IO[bytes], fault: Fault, side: str) -> None:
    """Cut or flip `body`, where the fault is one of this `side`."""
    size = _size(body)
    if not size:
        return
    at = fault.at % size
    if fault.kind == f"cut {side}":
        body.truncate(at)
    elif fault.kind == f"flip {side}":
        body.seek(at)
        (byte,) = body.read(1)
        body.seek(at)
        body.write(bytes([byte ^ (1 << fault.at % 8)]))


def _error(request: Request, status: int, code: str, message: str = "this is a test") -> _Answer:
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
        f"<Resource>/{request.bucket}</Resource><RequestId>TEST</RequestId></Error>"
    )
    body = b"" if request.method == "HEAD" else text.encode()
    return _Answer(status, {"Content-Type": "application/xml"}, io.BytesIO(body))


#: What a request is, by its method, whether it has a key, and a word of its query or headers; "" is any.
_OPERATIONS = {
    ("PUT", True): {
        "partNumber": "UploadPart",
        "retention": "PutObjectRetention",
        "legal-hold": "PutObjectLegalHold",
        "tagging": "PutObjectTagging",
        "x-amz-copy-source": "CopyObject",
        "": "PutObject",
    },
    ("POST", True): {"uploads": "CreateMultipartUpload", "uploadId": "CompleteMultipartUpload"},
    ("POST", False): {"delete": "DeleteObjects"},
    ("GET", True): {
        "uploadId": "ListParts",
        "attributes": "GetObjectAttributes",
        "retention": "GetObjectRetention",
        "tagging": "GetObjectTagging",
        "": "GetObject",
    },
    ("GET", False): {
        "uploads": "ListMultipartUploads",
        "list-type": "ListObjectsV2",
        "versions": "ListObjectVersions",
        "versioning": "GetBucketVersioning",
        "object-lock": "GetObjectLockConfiguration",
        "lifecycle": "GetBucketLifecycleConfiguration",
        "location": "GetBucketLocation",
        "": "ListObjects",
    },
    ("HEAD", True): {"": "HeadObject"},
    ("HEAD", False): {"": "HeadBucket"},
    ("DELETE", True): {"uploadId": "AbortMultipartUpload", "": "DeleteObject"},
    ("DELETE", False): {"": "DeleteBucket"},
    ("PUT", False): {"versioning": "PutBucketVersioning", "": "CreateBucket"},
}


def _understood(method: str, path: str, headers: Any) -> Request:
    address = urlsplit(path)
    _, bucket, *rest = [*unquote(address.path).split("/", 2), ""]
    key = rest[0]
    query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
    lower = {name.lower(): value for name, value in headers.items()}
    if "transfer-encoding" in lower or "aws-chunked" in lower.get("content-encoding", ""):
        raise NotImplementedError("the proxy reads bodies of a stated length only")
    words = _OPERATIONS.get((method, bool(key)), {})
    known = {**lower, **query, "": ""}
    operation = next((name for word, name in words.items() if word in known), f"{method} {path}")
    part = int(query["partNumber"]) if operation == "UploadPart" else None
    size = int(lower.get("content-length", 0))
    return Request(operation, bucket, key, part, query.get("uploadId"), size, method, lower)


_SHA256 = "x-amz-checksum-sha256"


class _Checksums:
    """What AWS does with SHA-256 checksums and moto does not; but for looking at them, unless they are `checked`.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """

    def __init__(self, *, checked: bool) -> None:
        self._checked = checked
        self._lock = threading.Lock()
        #: Uploads that were created with SHA-256 checksums, and those of their parts.
        self._uploads: dict[str, dict[int, str]] = {}
        #: Uploads that were created without.
        self._plain: set[str] = set()
        #: The checksum of an object, by bucket, key and entity tag: so that of each version is found.
        self._objects: dict[tuple[str, str, str], str] = {}

    def refusal(self, request: Request, body: IO[bytes]) -> _Answer | None:
        """The error with which AWS answers, where it refuses."""
        if not self._checked:
            return None
        if request.operation == "CompleteMultipartUpload":
            return self._refused_completion(request, body)
        if request.operation not in {"PutObject", "UploadPart"}:
            return None
        stated = request.headers.get(_SHA256)
        if request.upload in (self._plain if stated else self._uploads):
            return _error(request, 400, "InvalidRequest", "Checksum Type mismatch occurred")
        body.seek(0)
        if stated and stated != _encoded(hashlib.file_digest(cast(Any, body), "sha256").digest()):
            message = "The SHA256 you specified did not match the calculated checksum."
            return _error(request, 400, "BadDigest", message)
        return None

    def _refused_completion(self, request: Request, body: IO[bytes]) -> _Answer | None:
        known = self._uploads.get(request.upload or "")
        parts = _parts_named(body)
        if parts is None:
            return _error(request, 400, "MalformedXML", "The XML you provided was not well-formed")
        for number, stated in parts.items():
            if known is None:
                continue
            if stated is None:
                message = "The complete request must include the checksum for each part."
                return _error(request, 400, "InvalidRequest", message)
            if known.get(number) != stated:
                return _error(request, 400, "InvalidPart", "One or more of the parts could not be found.")
        return None

    def amend(self, request: Request, body: IO[bytes], answered: _Answer) -> None:
        """Remember what the server has taken, and add checksums to what it says."""
        if not 200 <= answered.status < 300:
            return
        with self._lock:
            match request.operation:
                case "CreateMultipartUpload":
                    self._created(request, answered)
                case "UploadPart" | "PutObject":
                    self._put(request, answered)
                case "CompleteMultipartUpload":
                    self._completed(request, body, answered)
                case "ListParts":
                    self._listed(request, answered)
                case "HeadObject" | "GetObject":
                    self._looked_at(request, answered)

    def _created(self, request: Request, answered: _Answer) -> None:
        found = re.search("<UploadId>(.*?)</UploadId>", answered.text())
        assert found
        if request.headers.get("x-amz-checksum-algorithm") != "SHA256":
            self._plain.add(found[1])
            return
        self._uploads[found[1]] = {}
        answered.headers["x-amz-checksum-algorithm"] = "SHA256"
        answered.headers["x-amz-checksum-type"] = "COMPOSITE"

    def _put(self, request: Request, answered: _Answer) -> None:
        if not (stated := request.headers.get(_SHA256)):
            return
        if request.part is not None:
            self._uploads.get(request.upload or "", {})[request.part] = stated
        else:
            self._objects[self._name(request, answered)] = stated
            answered.headers["x-amz-checksum-type"] = "FULL_OBJECT"
        answered.headers[_SHA256] = stated

    def _completed(self, request: Request, body: IO[bytes], answered: _Answer) -> None:
        known = self._uploads.pop(request.upload or "", {})
        numbers = sorted(_parts_named(body) or ())
        text = answered.text()
        tag = re.search("<ETag>(.*?)</ETag>", text)
        if tag is None or not numbers or not known.keys() >= set(numbers):
            return
        joined = hashlib.sha256(b"".join(base64.b64decode(known[number]) for number in numbers))
        checksum = f"{_encoded(joined.digest())}-{len(numbers)}"
        self._objects[request.bucket, request.key, _bare(tag[1])] = checksum
        end = "</CompleteMultipartUploadResult>"
        added = f"<ChecksumSHA256>{checksum}</ChecksumSHA256><ChecksumType>COMPOSITE</ChecksumType>"
        answered.replace(re.sub("<Checksum.*?</Checksum.*?>", "", text).replace(end, added + end))

    def _listed(self, request: Request, answered: _Answer) -> None:
        known = self._uploads.get(request.upload or "", {})

        def added(found: re.Match[str]) -> str:
            stated = known.get(int(found[1]))
            return found[0] + (f"<ChecksumSHA256>{stated}</ChecksumSHA256>" if stated else "")

        answered.replace(re.sub("<PartNumber>([0-9]+)</PartNumber>", added, answered.text()))

    def _looked_at(self, request: Request, answered: _Answer) -> None:
        for name in [name for name in answered.headers if name.lower().startswith("x-amz-checksum-")]:
            del answered.headers[name]
        found = self._objects.get(self._name(request, answered))
        wanted = request.headers.get("x-amz-checksum-mode") == "ENABLED" and "range" not in request.headers
        if found and wanted:
            answered.headers[_SHA256] = found
            answered.headers["x-amz-checksum-type"] = "COMPOSITE" if "-" in found else "FULL_OBJECT"

    def _name(self, request: Request, answered: _Answer) -> tuple[str, str, str]:
        tag = next(value for name, value in answered.headers.items() if name.lower() == "etag")
        return request.bucket, request.key, _bare(tag)


def _encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _bare(tag: str) -> str:
    return tag.replace("&quot;", "").replace('"', "")


def _parts_named(body: IO[bytes]) -> dict[int, str | None] | None:
    """The parts that a CompleteMultipartUpload names, and their checksums; None where `body` is not its body."""
    found: dict[int, str | None] = {}
    body.seek(0)
    try:
        for part in ElementTree.parse(body).getroot():
            fields = {child.tag.rpartition("}")[2]: child.text for child in part}
            found[int(fields["PartNumber"] or "")] = fields.get("ChecksumSHA256")
    except (ElementTree.ParseError, KeyError, ValueError):
        return None
    return found
