"""One folder of one bucket: the client that talks to it, what it lists, and what is known of its server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from larder.errors import UnreachableError
from larder.stores import parts_of
from larder.stores._s3_client import make_client
from larder.stores._s3_errors import code_of, is_denied, status_of
from larder.stores.s3 import S3Settings

#: How much is listed with one request: as much as servers give.
PAGE = 1000

_ENCRYPTIONS = {"sse-s3": "AES256", "sse-kms": "aws:kms"}

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Traits:
    """What was found out about a server, for as long as this process lives."""

    #: Whether it refuses what does not have the SHA-256 that it was told; None until it was tried.
    honest: bool | None = None
    #: Whether it takes SHA-256 checksums at all.
    checksums: bool = True
    #: Whether it knows If-None-Match, and so never puts an object in the place of another.
    conditions: bool = True

    def learn(self, error: ClientError, used: Iterable[str]) -> bool:
        """Whether `error` says that the server lacks one of the features `used`, which is then left out from now on."""
        said = f"{code_of(error)} {error.response.get('Error', {})}".lower()
        lacking = status_of(error) == 501 or "unsupported" in said or "invalidargument" in said
        if "conditions" in used and (status_of(error) == 501 or (lacking and "none-match" in said)):
            self.conditions = False
            return True
        if "checksums" in used and lacking and (status_of(error) == 501 or "checksum" in said):
            self.checksums = False
            return True
        return False


_traits: dict[tuple[str, str], Traits] = {}


class Bucket:
    """The folder that a store keeps its artifacts in. Nothing is touched until the client is asked for."""

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self.name = settings.bucket
        self._clients: dict[int, Any] = {}

    @property
    def client(self) -> Any:
        """boto3's client. Each process makes its own: two must not write to one connection after a fork."""
        process = os.getpid()
        if process not in self._clients:
            self._clients.setdefault(process, make_client(self.settings))
        return self._clients[process]

    @property
    def traits(self) -> Traits:
        """What this process knows of the server."""
        return _traits.setdefault((self.client.meta.endpoint_url, self.name), Traits())

    @property
    def properties(self) -> dict[str, Any]:
        """What every object is made with."""
        found = {
            "StorageClass": self.settings.storage_class,
            "ServerSideEncryption": _ENCRYPTIONS.get(self.settings.encryption or ""),
            "SSEKMSKeyId": self.settings.kms_key,
        }
        return {name: value for name, value in found.items() if value}

    def object(self, key: str) -> dict[str, str]:
        """What names the object of `key` in a request."""
        return {"Bucket": self.name, "Key": self.path(key)}

    def path(self, key: str) -> str:
        """The name of `key` in the bucket; raises `ValueError` for what is no key."""
        parts_of(key)
        return self.start() + key

    def start(self, folder: str = "") -> str:
        """What the names of all keys below `folder` begin with."""
        if folder:
            parts_of(folder)
        return "".join(f"{part}/" for part in (self.settings.prefix, folder) if part)

    def url(self, key: str = "") -> str:
        """Where an operator finds `key`, or the folder."""
        return f"s3://{self.name}/{self.start()}{key}".rstrip("/")

    def head(self, key: str) -> dict[str, Any] | None:
        """What the server says of the object of `key`, with its checksum; None where there is none."""
        try:
            found: dict[str, Any] = self.client.head_object(**self.object(key), ChecksumMode="ENABLED")
        except ClientError as error:
            if status_of(error) == 404:
                return None
            raise self._with_words(key, error) from None
        return found

    def see(self) -> None:
        """See that there is a bucket: to `head`, a missing object and a missing bucket are the same."""
        try:
            self.client.head_bucket(Bucket=self.name)
        except ClientError as error:
            if not is_denied(error):
                raise

    def objects(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """The key and size in bytes of everything below `folder`."""
        for found in self._listed("list_objects_v2", "Contents", self.start(folder)):
            key = self._key(found["Key"])
            if key is not None:
                yield key, found["Size"]

    def uploads(self, folder: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """The multipart uploads that were begun below `folder` and not ended: the key of each, and what it is."""
        for found in self._listed("list_multipart_uploads", "Uploads", self.start(folder)):
            key = self._key(found["Key"])
            if key is not None:
                yield key, found

    def uploads_of(self, key: str) -> list[dict[str, Any]]:
        """The multipart uploads of exactly this key, the newest first."""
        path = self.path(key)
        found = [one for one in self._listed("list_multipart_uploads", "Uploads", path) if one["Key"] == path]
        return sorted(found, key=lambda one: str(one.get("Initiated", "")), reverse=True)

    def abort(self, key: str, upload: str) -> None:
        """Have the server let go of what it got in `upload`; one that is gone is fine."""
        try:
            self.client.abort_multipart_upload(**self.object(key), UploadId=upload)
        except ClientError as error:
            if status_of(error) != 404:
                raise

    def give_up(self, key: str, upload: str) -> None:
        """The same, as far as it is allowed: `discard`, or a rule of the bucket's, removes what stays."""
        try:
            self.abort(key, upload)
        except ClientError:
            return

    def _listed(self, operation: str, what: str, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self.client.get_paginator(operation).paginate(
            Bucket=self.name, Prefix=prefix, PaginationConfig={"PageSize": PAGE}
        )
        page: dict[str, Any] = {}
        for page in pages:
            yield from page.get(what, [])
        if page.get("IsTruncated", what == "Contents"):
            # Objects that are not listed would be taken for lost.
            raise UnreachableError(f"unable to list {self.url()}: the server's list has no end")

    def _key(self, path: str) -> str | None:
        """The key of an object; None for one that is not ours: hidden, or with a name that is no key."""
        key = path.removeprefix(self.start())
        try:
            parts_of(key)
        except ValueError:
            return None
        return key

    def _with_words(self, key: str, error: ClientError) -> ClientError:
        """The same failure with the server's words, which it cannot put into the answer to a HEAD."""
        if status_of(error) >= 500:
            return error
        try:
            self.client.get_object(**self.object(key), Range="bytes=0-0")["Body"].close()
        except ClientError as spoken:
            return spoken if status_of(spoken) == status_of(error) else error
        return error


def in_parallel(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[tuple[Item, Result]]:
    """Do `work` with each of `items`, so many at a time, and give each back with its result as it is done.

    Items are taken not much sooner than there is a thread for them. The first failure, of an item or of `items`, is
    raised once what was under way has ended; nothing else is begun.
    """
    under_way: dict[Future[Result], Item] = {}

    def done(at_most: int) -> Iterator[tuple[Item, Result]]:
        """What is done by now, and as it is done until `at_most` are left."""
        while under_way:
            patience = None if len(under_way) > at_most else 0
            found, _ = wait(under_way, patience, FIRST_COMPLETED)
            if not found:
                return
            for future in found:
                yield under_way.pop(future), future.result()

    with ThreadPoolExecutor(threads, thread_name_prefix="s3") as pool:
        try:
            for item in items:
                under_way[pool.submit(work, item)] = item
                yield from done(at_most=2 * threads)
            yield from done(at_most=0)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
