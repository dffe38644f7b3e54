"""The store `s3` itself: what the contract asks for, in S3's requests."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

from botocore.exceptions import ClientError

from larder.errors import NotFoundError
from larder.progress import Progress
from larder.stores import Condition, Store
from larder.stores._s3_bucket import Bucket
from larder.stores._s3_check import check
from larder.stores._s3_errors import code_of, status_of, told
from larder.stores._s3_reader import Reader
from larder.stores._s3_source import Source
from larder.stores._s3_upload import Upload
from larder.stores.s3 import S3Settings
from larder.streams import CHUNK


class S3(Store):
    """Keeps artifacts in a folder of a bucket."""

    def __init__(self, settings: S3Settings) -> None:
        super().__init__(settings.name)
        self.settings = settings
        self._bucket = Bucket(settings)

    def location(self, key: str) -> str:
        """The URL of `key`: `s3://bucket/backups/key`."""
        return self._bucket.url(key)

    def put(
        self,
        key: str,
        source: Path,
        sha256: str,
        progress: Progress | None = None,
        keep_until: datetime | None = None,
    ) -> None:
        """Keep the file `source` under `key`; `progress` counts its bytes as they are sent.

        Raises `IntegrityError` where `source` is not what `sha256` says, where the server does not give back what was
        sent, and where `key` already holds something else.
        """
        self._bucket.path(key)
        with told(f"unable to keep {self.location(key)}"):
            file = Source(source, sha256, self.settings.part_size)
            Upload(self._bucket, key, file, keep_until).run(progress)

    def open(self, key: str) -> BinaryIO:
        """The bytes under `key`, as a file to read and close; raises `NotFoundError` where there is none."""
        name = self._bucket.object(key)
        with told(f"unable to read {self.location(key)}"):
            try:
                answer = self._bucket.client.get_object(**name)
            except ClientError as error:
                if status_of(error) != 404 or code_of(error) == "NoSuchBucket":
                    raise
                raise NotFoundError(f"unable to find '{key}' in store '{self.name}'") from None
        reader = Reader(self._bucket, key, answer, 0, answer["ContentLength"])
        return cast(BinaryIO, io.BufferedReader(reader, CHUNK))

    def size(self, key: str) -> int | None:
        """The size of what is under `key` in bytes, or None."""
        self._bucket.path(key)
        with told(f"unable to look at {self.location(key)}"):
            found = self._bucket.head(key)
            if found is None:
                self._bucket.see()
                return None
            return int(found["ContentLength"])

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The size in bytes of every key below `folder`, sorted; a thousand with each request."""
        with told(f"unable to list {self.location(folder)}"):
            return dict(sorted(self._bucket.objects(folder)))

    def delete(self, key: str) -> None:
        """Remove `key`. Where the bucket keeps versions, what was there stays as an old one."""
        name = self._bucket.object(key)
        with told(f"unable to delete {self.location(key)}"):
            self._bucket.client.delete_object(**name)

    def check(self) -> Condition:
        """Write, read, list and delete a small object; says what hinders rotation or costs money."""
        with told(f"unable to use {self.location('')}"):
            return check(self._bucket)

    def unfinished(self, folder: str = "") -> list[str]:
        """The keys below `folder` with uploads that were begun and not ended, by a killed `put` or one under way."""
        with told(f"unable to list the uploads below {self.location(folder)}"):
            return sorted({key for key, _ in self._bucket.uploads(folder)})

    def discard(self, key: str) -> None:
        """Give up every upload of `key` that was begun and not ended."""
        self._bucket.path(key)
        with told(f"unable to remove what was begun of {self.location(key)}"):
            for upload in self._bucket.uploads_of(key):
                self._bucket.abort(key, upload["UploadId"])
