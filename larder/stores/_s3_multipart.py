"""A large file: sent in parts, several at a time, and going on from what a killed `put` has left."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from larder.progress import Progress
from larder.stores import _s3_proof as proof
from larder.stores._s3_bucket import Bucket, in_parallel
from larder.stores._s3_errors import is_denied, status_of
from larder.stores._s3_sender import Sender, TakenError
from larder.stores._s3_source import Part, Source


class Multipart:
    """Sends `source` in parts as the object of `key`."""

    def __init__(self, bucket: Bucket, key: str, source: Source, sender: Sender) -> None:
        self._bucket = bucket
        self._key = key
        self._source = source
        self._sender = sender

    def run(self, progress: Progress | None) -> str | None:
        """Send what the server does not have yet, make one object of it, and give its entity tag.

        Raises `TakenError` where an object is there by then, and `GoneError` where the upload was given up by somebody.
        """
        upload, tags = self._begun()
        for part in self._source.parts:
            if progress is not None and part.number in tags:
                progress.add(part.size)
        missing = [part for part in self._source.parts if part.number not in tags]
        for part, tag in in_parallel(
            lambda part: self._sender.send_part(upload, part), missing, self._bucket.settings.parallel
        ):
            tags[part.number] = tag
            if progress is not None:
                progress.add(part.size)
        return self._ended(upload, tags)

    def _ended(self, upload: str, tags: dict[int, str]) -> str | None:
        try:
            return self._sender.end(upload, tags)
        except TakenError:
            self._bucket.give_up(self._key, upload)
            raise

    def _begun(self) -> tuple[str, dict[int, str]]:
        """The upload to go on with, and the entity tags of its parts that are as they should be, by number."""
        honest = proof.is_honest(self._bucket, self._key)
        best: tuple[str, dict[int, str]] | None = None
        for upload in self._left():
            tags = self._good_parts(upload["UploadId"], honest=honest)
            if tags and (best is None or len(tags) > len(best[1])):
                best = upload["UploadId"], tags
        return best or (self._sender.begin(), {})

    def _left(self) -> list[dict[str, Any]]:
        """The uploads that earlier `put`s have left, where these credentials may see them."""
        try:
            found = self._bucket.uploads_of(self._key)
        except ClientError as error:
            if is_denied(error) or status_of(error) in {404, 405, 501}:
                return []
            raise
        # To one with another algorithm no SHA-256 can be sent.
        return [one for one in found if one.get("ChecksumAlgorithm") in (None, "SHA256")]

    def _good_parts(self, upload: str, *, honest: bool) -> dict[int, str]:
        parts = {part.number: part for part in self._source.parts}
        name = {**self._bucket.object(self._key), "UploadId": upload}
        try:
            pages = list(self._bucket.client.get_paginator("list_parts").paginate(**name))
        except ClientError as error:
            if is_denied(error) or status_of(error) == 404:
                return {}
            raise
        return {
            found["PartNumber"]: found["ETag"]
            for page in pages
            for found in page.get("Parts", [])
            if self._is_good(parts.get(found["PartNumber"]), found, honest=honest)
        }

    def _is_good(self, part: Part | None, found: dict[str, Any], *, honest: bool) -> bool:
        """Whether the server has, in the place of `part`, what belongs there."""
        if part is None or found.get("Size") != part.size:
            return False
        if honest and "ChecksumSHA256" in found:
            return bool(found["ChecksumSHA256"] == part.checksum)
        return bool(found["ETag"].strip('"') == self._source.md5(part).hex())
