"""How it is known that an object has the content that it should have: by reading it, or by its server's word.

A server's word counts only once it has been seen to refuse a wrong one: some take any checksum that they are told, and
give it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from botocore.exceptions import ClientError

from larder.stores._s3_bucket import Bucket, in_parallel
from larder.stores._s3_errors import code_of, is_denied, status_of
from larder.stores._s3_reader import digest_of_part
from larder.stores._s3_source import Part, Source, encoded

#: What servers say to a wrong checksum.
_REFUSALS = {
    "BadDigest",
    "InvalidDigest",
    "InvalidRequest",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}

#: A part for the trial, its SHA-256, and that of another.
_TRIAL, _RIGHT, _WRONG = b"x", encoded(sha256(b"x").digest()), encoded(sha256(b"y").digest())


def holds(bucket: Bucket, key: str, found: dict[str, Any], source: Source) -> bool:
    """Whether the object of `key`, of which the server says `found`, has the content of `source`."""
    if found["ContentLength"] != source.size:
        return False
    if _is_vouched_for(bucket, key, found, source):
        return True
    tag = found.get("ETag")
    different = _different(bucket, key, tag, source.parts)
    # What was altered on its way to us is as it should be when it is read once more.
    return not different or not _different(bucket, key, tag, different)


def is_honest(bucket: Bucket, key: str) -> bool:
    """Whether the server refuses a wrong SHA-256, found out by an upload of `key` that is given up again.

    Not within the upload that counts: there a part with the wrong checksum might stay, and one that isn't listed at the
    end makes some servers (Ceph) refuse the whole.
    """
    traits = bucket.traits
    if traits.honest is None and traits.checksums:
        traits.honest = _tried(bucket, key)
    return bool(traits.honest)


def _is_vouched_for(bucket: Bucket, key: str, found: dict[str, Any], source: Source) -> bool:
    # What is small is read sooner than a server is tried.
    if source.count == 1 or bucket.settings.read_back:
        return False
    return found.get("ChecksumSHA256") in source.checksums and is_honest(bucket, key)


def _different(bucket: Bucket, key: str, tag: str | None, parts: Sequence[Part]) -> list[Part]:
    """Those of `parts` that the object has other bytes for."""

    def read(part: Part) -> bytes:
        return digest_of_part(bucket, key, tag, part)

    try:
        return [
            part
            for part, sha256 in in_parallel(read, parts, bucket.settings.parallel)
            if sha256 != part.sha256
        ]
    except ClientError as error:
        if status_of(error) != 412:
            raise
        # Another object is there now.
        return list(parts)


def _tried(bucket: Bucket, key: str) -> bool | None:
    """Whether the server refuses the wrong and takes the right; None where that could not be found out."""
    try:
        begun = bucket.client.create_multipart_upload(
            **bucket.object(key), **bucket.properties, ChecksumAlgorithm="SHA256"
        )
    except ClientError as error:
        if bucket.traits.learn(error, ["checksums"]):
            return False
        if is_denied(error):
            # A policy may ask for what only the upload that counts has: a lock.
            return None
        raise
    upload = begun["UploadId"]
    try:
        if _takes(bucket, key, upload, _WRONG):
            return False
        return _takes(bucket, key, upload, _RIGHT) or None
    finally:
        bucket.give_up(key, upload)


def _takes(bucket: Bucket, key: str, upload: str, checksum: str) -> bool:
    part = {**bucket.object(key), "UploadId": upload, "PartNumber": 1, "Body": _TRIAL}
    try:
        bucket.client.upload_part(**part, ChecksumSHA256=checksum)
    except ClientError as error:
        if code_of(error) in _REFUSALS or bucket.traits.learn(error, ["checksums"]):
            return False
        raise
    return True
