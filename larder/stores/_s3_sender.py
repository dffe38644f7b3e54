"""How bytes are sent: with a checksum, a lock, and on condition that nothing is there, as far as a server can do it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from larder.progress import Progress
from larder.stores._s3_bucket import Bucket
from larder.stores._s3_errors import code_of, status_of
from larder.stores._s3_source import Part, Source, encoded

#: How often a request is sent again that another one to the same key was in the way of, and the seconds between.
_CONFLICTS, _CONFLICT_WAIT = 5, 0.5


class TakenError(Exception):
    """There is an object of this key by now."""


class GoneError(Exception):
    """The upload is no longer there: ended by a request whose answer was lost, or given up by somebody."""


class Sender:
    """Sends the parts of `source` as the object of `key`."""

    def __init__(self, bucket: Bucket, key: str, source: Source, keep_until: datetime | None) -> None:
        self._bucket = bucket
        self._key = key
        self._source = source
        self._keep_until = keep_until

    def send_whole(self, progress: Progress | None) -> str | None:
        """Send all of it at once, and give the object's entity tag; raises `TakenError` where one is there."""
        (part,) = self._source.parts
        answer = self._send(
            "put_object",
            part,
            {**self._object_options(), "ContentType": "application/octet-stream"},
            once=True,
        )
        if progress is not None:
            progress.add(part.size)
        return answer.get("ETag")

    def begin(self) -> str:
        """Begin an upload in parts, and give its id."""
        options = {**self._object_options(), "ContentType": "application/octet-stream"}
        answer = self._ask("create_multipart_upload", options)
        upload: str = answer["UploadId"]
        return upload

    def send_part(self, upload: str, part: Part) -> str:
        """Send one part, and give its entity tag; raises `GoneError` where the upload is gone."""
        answer = self._send("upload_part", part, {"UploadId": upload, "PartNumber": part.number})
        tag: str = answer["ETag"]
        return tag

    def end(self, upload: str, tags: dict[int, str]) -> str | None:
        """Make an object of the parts, whose entity tags are `tags`, and give its entity tag.

        Raises `TakenError` where one is there, and `GoneError` where the upload, or a part of it, is gone.
        """
        parts = [self._listed(part, tags[part.number]) for part in self._source.parts]
        options = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
        return self._ask("complete_multipart_upload", options, once=True).get("ETag")

    def _listed(self, part: Part, tag: str) -> dict[str, Any]:
        known = {"ChecksumSHA256": part.checksum} if self._bucket.traits.checksums else {}
        return {"PartNumber": part.number, "ETag": tag, **known}

    def _send(
        self, operation: str, part: Part, options: dict[str, Any], *, once: bool = False
    ) -> dict[str, Any]:
        with self._source.slice(part) as body:
            return self._ask(operation, {**options, "Body": body}, part, once=once)

    def _ask(
        self, operation: str, options: dict[str, Any], part: Part | None = None, *, once: bool = False
    ) -> dict[str, Any]:
        """Send a request, without what the server turns out not to know. With `once`, only where no object is there."""
        traits, conflicts = self._bucket.traits, 0
        while True:
            used: dict[str, dict[str, str]] = {}
            if once and traits.conditions:
                used["conditions"] = {"IfNoneMatch": "*"}
            elif once and self._bucket.head(self._key) is not None:
                raise TakenError
            if operation != "complete_multipart_upload":
                used |= self._checksums(part, locked="ObjectLockMode" in options)
            try:
                answer: dict[str, Any] = self._request(operation, options, *used.values())
                return answer
            except ClientError as error:
                if status_of(error) == 409 and conflicts < _CONFLICTS:
                    conflicts += 1
                    time.sleep(_CONFLICT_WAIT)
                elif operation == "upload_part" or not traits.learn(error, used):
                    # A server that takes an upload takes its parts: there, what it lacks would be a passing failure.
                    raise self._meaning(error) from error

    def _checksums(self, part: Part | None, *, locked: bool) -> dict[str, dict[str, str]]:
        """What says how `part`, or every part of an upload, is to be checked as it arrives."""
        if not self._bucket.traits.checksums:
            # Which every server has looked at since the first.
            return {"md5": {"ContentMD5": encoded(self._source.md5(part))}} if part else {}
        if part is None:
            return {"checksums": {"ChecksumAlgorithm": "SHA256"}}
        # What is locked is taken only where the algorithm is named too.
        named = {"ChecksumAlgorithm": "SHA256"} if locked else {}
        return {"checksums": {"ChecksumSHA256": part.checksum, **named}}

    def _request(self, operation: str, options: dict[str, Any], *features: dict[str, str]) -> Any:
        if "Body" in options:
            options["Body"].seek(0)
        more = {name: value for feature in features for name, value in feature.items()}
        return getattr(self._bucket.client, operation)(**self._bucket.object(self._key), **options, **more)

    @staticmethod
    def _meaning(error: Exception) -> Exception:
        if status_of(error) == 412:
            return TakenError()
        if code_of(error) in {"NoSuchUpload", "InvalidPart", "InvalidPartOrder"}:
            return GoneError()
        return error

    def _object_options(self) -> dict[str, Any]:
        options = self._bucket.properties
        lock = self._bucket.settings.object_lock
        if lock and self._keep_until is not None and self._keep_until > datetime.now(UTC):
            options["ObjectLockMode"] = lock.upper()
            options["ObjectLockRetainUntilDate"] = self._keep_until
        return options
