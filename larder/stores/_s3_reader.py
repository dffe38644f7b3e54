"""A reader of an object that goes on where the connection broke off, and never seems to have ended early."""

from __future__ import annotations

import hashlib
import io
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from larder.errors import IntegrityError, LarderError, UnreachableError
from larder.stores._s3_bucket import Bucket
from larder.stores._s3_errors import plain, status_of
from larder.stores._s3_source import Part
from larder.streams import CHUNK

#: How often in a row a reader takes up a connection that broke off, with less than `CHUNK` bytes between.
TRIES = 5

#: Seconds before the first of them; twice as long before each other one.
_WAIT = 0.2


class Reader(io.RawIOBase):
    """The bytes from `start` up to `end` of the object of `key`; `answer` is what the server said to the first request.

    What is read is one object, by its entity tag, even where another takes its place meanwhile.
    """

    def __init__(self, bucket: Bucket, key: str, answer: dict[str, Any], start: int, end: int) -> None:
        super().__init__()
        self._bucket = bucket
        self._key = key
        self._what = f"unable to read {bucket.url(key)}"
        self._body = answer["Body"]
        self._tag = answer.get("ETag")
        self._at = start
        self._end = end
        self._failures = 0
        self._failed_at = start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self.closed:
            # What was stopped on the way would seem to have ended.
            raise ValueError("unable to read: the file is closed")
        view = memoryview(buffer)[: self._end - self._at]
        while len(view):
            try:
                if self._body is None:
                    self._body = self._rest()
                data = self._body.read(len(view))
                if data:
                    view[: len(data)] = data
                    self._at += len(data)
                    return len(data)
                self._broke_off(None)
            except ClientError as error:
                raise self._refused(error) from error
            except (BotoCoreError, HTTPError, OSError) as error:
                self._broke_off(error)
        return 0

    def close(self) -> None:
        if not self.closed:
            self._let_go()
            super().close()

    def _rest(self) -> Any:
        wanted = {"Range": f"bytes={self._at}-{self._end - 1}"} | (
            {"IfMatch": self._tag} if self._tag else {}
        )
        answer = self._bucket.client.get_object(**self._bucket.object(self._key), **wanted)
        see_length(self._what, answer, self._end - self._at)
        return answer["Body"]

    def _broke_off(self, error: Exception | None) -> None:
        self._let_go()
        if self._at - self._failed_at >= CHUNK:
            self._failures = 0
        self._failures += 1
        self._failed_at = self._at
        if self._failures > TRIES:
            # Another read tries once more.
            why = "".join(str(error or "it ended early").split("\n")[:1])
            raise UnreachableError(
                f"{self._what}: the connection broke off at byte {self._at} of {self._end}, again and again: {why}",
                "see that this machine reaches the store's endpoint",
            ) from error
        time.sleep(_WAIT * 2 ** (self._failures - 1))

    def _refused(self, error: ClientError) -> LarderError:
        if status_of(error) == 412:
            return IntegrityError(f"{self._what}: another object has taken its place while it was read")
        return plain(self._what, error)

    def _let_go(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


def digest_of_part(bucket: Bucket, key: str, tag: str | None, part: Part) -> bytes:
    """The SHA-256 of what the object of `key`, as long as its entity tag is `tag`, has in the place of `part`."""
    wanted = {"IfMatch": tag} if tag else {}
    end = part.offset + part.size
    if part.size:
        wanted["Range"] = f"bytes={part.offset}-{end - 1}"
    found = hashlib.sha256()
    answer = bucket.client.get_object(**bucket.object(key), **wanted)
    with Reader(bucket, key, answer, part.offset, end) as content:
        see_length(f"unable to read {bucket.url(key)}", answer, part.size)
        while data := content.read(CHUNK):
            found.update(data)
    return found.digest()


def see_length(what: str, answer: dict[str, Any], size: int) -> None:
    """See that a server has understood which bytes it was asked for."""
    if answer["ContentLength"] != size:
        answer["Body"].close()
        raise UnreachableError(
            f"{what}: the server sends {answer['ContentLength']} bytes where {size} were asked for"
        )
