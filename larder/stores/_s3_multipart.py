"""A large file: sent in parts, several at a time, and going on from what a killed `put` has left."""

from __future__ import annotations

from typing import Any, TypeGuard

from botocore.exceptions import ClientError

from larder.errors import IntegrityError
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
        self._honest = False

    def run(self, progress: Progress | None) -> str | None:
        """Send what the server does not have yet, make one object of it, and give its entity tag.

        A part is sent as soon as it has been read, while the next ones are. Raises `TakenError` where an object is
        there by then, `GoneError` where the upload was given up by somebody, and `IntegrityError` where the file turns
        out not to be what it should be: then the upload is given up.
        """
        self._honest = proof.is_honest(self._bucket, self._key)
        upload, there = self._begun()

        def bring(part: Part) -> str:
            found = there.get(part.number)
            if self._is_good(found, part):
                return str(found["ETag"])
            return self._sender.send_part(upload, part)

        tags: dict[int, str] = {}
        try:
            for part, tag in in_parallel(bring, self._source, self._bucket.settings.parallel):
                tags[part.number] = tag
                if progress is not None:
                    progress.add(part.size)
            return self._sender.end(upload, tags)
        except (TakenError, IntegrityError):
            self._bucket.give_up(self._key, upload)
            raise

    def _begun(self) -> tuple[str, dict[int, dict[str, Any]]]:
        """The upload to go on with, and what the server says of its parts, by number.

        One good part is enough to go on with an earlier one: it was of this file, and the others are looked at in turn.
        """
        left = [(upload["UploadId"], self._parts_of(upload["UploadId"])) for upload in self._left()]
        for upload, there in sorted(left, key=lambda found: len(found[1]), reverse=True):
            if there and any(self._is_good(there.get(part.number), part) for part in self._source):
                return upload, there
        return self._sender.begin(), {}

    def _left(self) -> list[dict[str, Any]]:
        """The uploads that earlier `put`s have left, where these credentials may see them."""
        try:
            found = self._bucket.uploads_of(self._key)
        except ClientError as error:
            if is_denied(error) or status_of(error) in {404, 405, 501}:
                return []
            raise
        # An upload takes checksums of its own algorithm alone, and, strictly, none without.
        usable = (None, "SHA256") if self._bucket.traits.checksums else (None,)
        return [one for one in found if one.get("ChecksumAlgorithm") in usable]

    def _parts_of(self, upload: str) -> dict[int, dict[str, Any]]:
        """What the server says of the parts of `upload` that have the right size."""
        name = {**self._bucket.object(self._key), "UploadId": upload}
        try:
            pages = list(self._bucket.client.get_paginator("list_parts").paginate(**name))
        except ClientError as error:
            if is_denied(error) or status_of(error) == 404:
                return {}
            raise
        return {
            found["PartNumber"]: found
            for page in pages
            for found in page.get("Parts", [])
            if found.get("Size") == self._source.size_of(found["PartNumber"])
        }

    def _is_good(self, found: dict[str, Any] | None, part: Part) -> TypeGuard[dict[str, Any]]:
        """Whether the server has, in the place of `part`, what belongs there."""
        if found is None:
            return False
        if self._honest and "ChecksumSHA256" in found:
            return bool(found["ChecksumSHA256"] == part.checksum)
        return bool(found["ETag"].strip('"') == self._source.md5(part).hex())
