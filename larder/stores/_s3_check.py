"""What `doctor` finds out about a bucket: whether it can be used, and what an operator should know."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from larder.errors import IntegrityError, RefusedError
from larder.stores import Condition
from larder.stores._s3_bucket import Bucket
from larder.stores._s3_errors import LOCK_HINT, code_of, is_denied, status_of

#: The object that is written, read and deleted: always the same one, so that where it may not be deleted one is left.
PROBE = ".larder-probe"

#: Seconds that this machine's clock may differ from the server's; S3 itself allows 15 minutes.
_CLOCK = 5


def check(bucket: Bucket) -> Condition:
    """Write, read, list and delete a small hidden object; raises what hinders a backup."""
    path = bucket.start() + PROBE
    answer = _written_and_read(bucket, path)
    bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=path, MaxKeys=1)
    if bucket.settings.object_lock:
        _see_object_lock(bucket)
    deletable = _is_deleted(bucket, path)
    region = bucket.client.meta.region_name
    detail = f"{bucket.url()}{f', region {region}' if region else ''}; can be written, read"
    return Condition(
        f"{detail}, deleted" if deletable else detail,
        tuple(_warnings(bucket, answer, deletable=deletable)),
    )


def _written_and_read(bucket: Bucket, path: str) -> dict[str, Any]:
    content = secrets.token_bytes(64)
    answer: dict[str, Any] = bucket.client.put_object(
        Bucket=bucket.name, Key=path, Body=content, **bucket.properties
    )
    with bucket.client.get_object(Bucket=bucket.name, Key=path)["Body"] as body:
        if body.read() != content:
            raise IntegrityError(f"unable to use {bucket.url()}: it gives back other bytes than were written")
    return answer


def _is_deleted(bucket: Bucket, path: str) -> bool:
    try:
        bucket.client.delete_object(Bucket=bucket.name, Key=path)
    except ClientError as error:
        if not is_denied(error):
            raise
        return False
    return True


def _see_object_lock(bucket: Bucket) -> None:
    try:
        bucket.client.get_object_lock_configuration(Bucket=bucket.name)
    except ClientError as error:
        if is_denied(error):
            # The first upload will show it.
            return
        raise RefusedError(
            f"unable to use {bucket.url()}: object_lock is set, and the bucket has none: {code_of(error)}",
            LOCK_HINT,
        ) from error


def _warnings(bucket: Bucket, answer: dict[str, Any], *, deletable: bool) -> Iterator[str]:
    if not deletable:
        yield "may not delete (s3:DeleteObject): rotation cannot make room here"
    if _is_versioned(bucket) and not _old_versions_expire(bucket):
        yield (
            "keeps old versions, and no lifecycle rule that removes them was seen: what rotation deletes goes on "
            "taking room"
        )
    if not _sees_uploads(bucket):
        yield (
            "may not list uploads (s3:ListBucketMultipartUploads): one that was interrupted starts over, and what it "
            "has left is not found"
        )
    off = _clock_difference(answer)
    if abs(off) > _CLOCK:
        yield f"this machine's clock is {abs(off):.0f} s {'behind' if off > 0 else 'ahead of'} the server's"


def _is_versioned(bucket: Bucket) -> bool:
    try:
        answer = bucket.client.get_bucket_versioning(Bucket=bucket.name)
    except ClientError:
        # Not allowed, or not known to this server.
        return False
    return bool(answer.get("Status") == "Enabled")


def _old_versions_expire(bucket: Bucket) -> bool:
    try:
        rules = bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.name).get("Rules", [])
    except ClientError:
        return False
    return any(
        rule.get("Status") == "Enabled"
        and "NoncurrentVersionExpiration" in rule
        and bucket.start().startswith(_prefix_of(rule))
        for rule in rules
    )


def _prefix_of(rule: dict[str, Any]) -> str:
    chosen = rule.get("Filter", {})
    return str(chosen.get("Prefix") or chosen.get("And", {}).get("Prefix") or rule.get("Prefix") or "")


def _sees_uploads(bucket: Bucket) -> bool:
    try:
        bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=bucket.start(), MaxUploads=1)
    except ClientError as error:
        if is_denied(error) or status_of(error) in {404, 405, 501}:
            return False
        raise
    return True


def _clock_difference(answer: dict[str, Any]) -> float:
    """Seconds by which the server's clock, which tells whole ones, is ahead of this machine's."""
    told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    try:
        server = parsedate_to_datetime(told)
    except (TypeError, ValueError):
        return 0.0
    return (server - datetime.now(UTC)).total_seconds()
