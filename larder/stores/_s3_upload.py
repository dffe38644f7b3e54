"""One `put`: see whether it is there, send it, and see that it is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from larder.errors import IntegrityError, LarderError, UnreachableError
from larder.progress import Progress
from larder.stores import _s3_proof as proof
from larder.stores._s3_bucket import Bucket
from larder.stores._s3_errors import code_of
from larder.stores._s3_multipart import Multipart
from larder.stores._s3_sender import GoneError, Sender, TakenError
from larder.stores._s3_source import Source

#: How often a file is sent, where what was begun is gone when it is to be ended, or what came to be was altered.
_TIMES = 3


class Upload:
    """Brings `source` into the bucket under `key`, locked until `keep_until` where the store locks what it keeps."""

    def __init__(self, bucket: Bucket, key: str, source: Source, keep_until: datetime | None) -> None:
        self._bucket = bucket
        self._key = key
        self._source = source
        self._sender = Sender(bucket, key, source, keep_until)

    def run(self, progress: Progress | None) -> None:
        """Have the object there, with the right content; `progress` counts what is sent.

        Raises `IntegrityError` where another is there, which is left, or where what was sent does not come back.
        """
        if self._source.count == 1:
            # Nothing is sent, nor asked, of a small file that is not what it should be.
            self._source.parts  # noqa: B018
        if self._is_there():
            return
        before, altered = progress.done if progress is not None else 0, 0
        for _ in range(_TIMES):
            if progress is not None:
                progress.reach(before)
            try:
                tag = self._send(progress)
            except (TakenError, GoneError):
                # By another `put`, or by this one, whose answer was lost.
                kept = self._is_there()
            else:
                kept = self._is_proven(tag)
                altered += not kept
            if kept:
                self._clean()
                return
            if altered > 1:
                raise self._altered(", which were deleted")
        raise UnreachableError(
            f"unable to keep {self._bucket.url(self._key)}: the server forgets what is begun"
        )

    def _send(self, progress: Progress | None) -> str | None:
        if self._source.count > 1:
            return Multipart(self._bucket, self._key, self._source, self._sender).run(progress)
        return self._sender.send_whole(progress)

    def _is_there(self) -> bool:
        found = self._bucket.head(self._key)
        if found is None:
            return False
        if not proof.holds(self._bucket, self._key, found, self._source):
            raise self._taken(found)
        return True

    def _is_proven(self, tag: str | None) -> bool:
        """Whether the object that was just made, with entity tag `tag`, holds what was sent; if not, it is removed."""
        found = self._bucket.head(self._key)
        if found is None:
            raise UnreachableError(
                f"unable to keep {self._bucket.url(self._key)}: it was sent, and is not there"
            )
        if proof.holds(self._bucket, self._key, found, self._source):
            return True
        now = self._bucket.head(self._key)
        if now is None or not tag or _bare(now.get("ETag")) != _bare(tag):
            raise self._taken(now or found)
        try:
            self._bucket.client.delete_object(**self._bucket.object(self._key))
        except ClientError as error:
            raise self._altered(f"; it could not be deleted, and has to be: {code_of(error)}") from error
        return False

    def _clean(self) -> None:
        """Have the server let go of other uploads of this key, as far as it is allowed: nobody goes on with them."""
        if self._source.count == 1:
            return
        try:
            for upload in self._bucket.uploads_of(self._key):
                self._bucket.abort(self._key, upload["UploadId"])
        except (BotoCoreError, ClientError, ResponseParserError, LarderError):
            # The file is kept: `discard`, or a rule of the bucket's, removes what stays.
            return

    def _altered(self, then: str) -> IntegrityError:
        return IntegrityError(
            f"unable to keep {self._bucket.url(self._key)}: "
            f"other bytes came back from the server than were sent{then}",
            "try again; if it happens again, see the server's log for disk or memory errors",
        )

    def _taken(self, found: dict[str, Any]) -> IntegrityError:
        """The error for an object that is not this file: nobody can tell whose it is."""
        same_size = found["ContentLength"] == self._source.size
        perhaps = "; it has the right size, and may be a damaged copy that an earlier attempt has left"
        return IntegrityError(
            f"unable to keep {self._bucket.url(self._key)}: a file with other content is there, "
            "which was left as it is",
            "see what it is, and move it away" + (perhaps if same_size else ""),
        )


def _bare(tag: str | None) -> str:
    return (tag or "").strip('"')
