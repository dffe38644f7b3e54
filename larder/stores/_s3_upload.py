"""One `put`: see whether it is there, send it, and see that it is."""

from __future__ import annotations

from datetime import datetime

from botocore.exceptions import ClientError

from larder.errors import IntegrityError, UnreachableError
from larder.progress import Progress
from larder.stores import _s3_proof as proof
from larder.stores._s3_bucket import Bucket
from larder.stores._s3_errors import code_of
from larder.stores._s3_multipart import Multipart
from larder.stores._s3_sender import GoneError, Sender, TakenError
from larder.stores._s3_source import Source

#: How often a file is sent, where what was begun is gone when it is to be ended.
_TIMES = 2


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
        before = progress.done if progress is not None else 0
        for _ in range(_TIMES):
            if self._is_there():
                return
            if progress is not None:
                progress.reach(before)
            try:
                tag = self._send(progress)
            except (TakenError, GoneError):
                # By another `put`, or by this one, whose answer was lost.
                continue
            self._prove(tag)
            return
        if not self._is_there():
            raise UnreachableError(
                f"unable to keep {self._bucket.url(self._key)}: the server forgets what is begun"
            )

    def _send(self, progress: Progress | None) -> str | None:
        if len(self._source.parts) > 1:
            return Multipart(self._bucket, self._key, self._source, self._sender).run(progress)
        return self._sender.send_whole(progress)

    def _is_there(self) -> bool:
        found = self._bucket.head(self._key)
        if found is None:
            return False
        if not proof.holds(self._bucket, self._key, found, self._source):
            raise self._taken()
        return True

    def _prove(self, tag: str | None) -> None:
        """See that the object that was just made, with entity tag `tag`, holds what was sent; remove it otherwise."""
        found = self._bucket.head(self._key)
        if found is None:
            raise UnreachableError(
                f"unable to keep {self._bucket.url(self._key)}: it was sent, and is not there"
            )
        if proof.holds(self._bucket, self._key, found, self._source):
            return
        now = self._bucket.head(self._key)
        if now is None or not tag or _bare(now.get("ETag")) != _bare(tag):
            raise self._taken()
        raise IntegrityError(
            f"unable to keep {self._bucket.url(self._key)}: "
            f"other bytes came back from the server than were sent{self._removed()}",
            "try again; if it happens again, see the server's log for disk or memory errors",
        )

    def _removed(self) -> str:
        try:
            self._bucket.client.delete_object(**self._bucket.object(self._key))
        except ClientError as error:
            return f"; it could not be deleted, and has to be: {code_of(error)}"
        return ", which were deleted"

    def _taken(self) -> IntegrityError:
        return IntegrityError(
            f"unable to keep {self._bucket.url(self._key)}: a file with other content is there, "
            "which was left as it is",
            "see what it is, and move it away",
        )


def _bare(tag: str | None) -> str:
    return (tag or "").strip('"')
