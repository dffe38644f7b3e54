"""s3: a bucket at Amazon, or on anything that speaks S3: MinIO, Ceph, Backblaze B2, Cloudflare R2, Hetzner.

An object appears whole or not at all, and never in the place of another. A small file is sent at once and read back.
A large one is sent in parts, each with its SHA-256, and goes on from the parts that a killed `put` has left. A
server's word for what it holds counts only once it has been seen to refuse a wrong checksum (`_s3_proof`); what
others were sent is read back.

This module is imported with the configuration; boto3 is imported when a store of this kind is opened.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from larder.fields import Size, Whole, YesNo
from larder.stores import StoreSettings

if TYPE_CHECKING:
    from larder.stores._s3_store import S3

#: Bytes that S3 wants a part to have at least, the last one excepted, and at most.
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_SMALLEST_PART, _LARGEST_PART = 5 << 20, 5 << 30

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")

#: Classes whose objects cannot be read before somebody has asked for it, hours ahead.
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}


def _bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise ValueError(
            "has to be a bucket's name alone, 3 to 63 letters, digits, dots and hyphens: my-backups, not s3://my-backups"
        )
    return value


def _prefix(value: str) -> str:
    names = value.split("/") if value else []
    if any(name in {"", ".", ".."} or not name.isprintable() for name in names):
        raise ValueError('has to be a folder in the bucket, without / at its ends: "backups", "backups/shop"')
    return value


def _endpoint(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("has to be the server's address, https://…")
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials: boto3 finds them in the environment, or in a profile")
    if parts.query or parts.fragment:
        raise ValueError("has to end before ? and #")
    return value.rstrip("/")


def _storage_class(value: str) -> str:
    if value in _ARCHIVES:
        raise ValueError(
            "cannot be read back, nor restored from at once: keep what is new in another class, "
            "and have a lifecycle rule move what is old"
        )
    return value


Text = Annotated[str, Field(min_length=1)]


class S3Settings(StoreSettings):
    """A bucket. There are no keys for credentials: boto3 finds them where it always does."""

    bucket: Annotated[str, AfterValidator(_bucket)] = Field(description="the bucket's name")
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="backups", description="the folder in the bucket that artifacts are kept in; empty: its top"
    )
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        default=None, description="the server's address, where it is not Amazon's: https://s3.example.com"
    )
    region: Text | None = Field(
        default=None, description="the bucket's region; left out: AWS_DEFAULT_REGION, or the profile's"
    )
    profile: Text | None = Field(
        default=None, description="a profile of ~/.aws; left out: boto3's usual search for credentials"
    )
    path_style: YesNo = Field(
        default=False,
        description="name the bucket in the path, not in the host; addresses without a domain get it anyway",
    )
    storage_class: Annotated[Text, AfterValidator(_storage_class)] | None = Field(
        default=None, description="STANDARD_IA, GLACIER_IR and others; left out: the bucket's own"
    )
    encryption: Literal["sse-s3", "sse-kms"] | None = Field(
        default=None, description="how the server encrypts what it keeps; left out: the bucket's own way"
    )
    kms_key: Text | None = Field(
        default=None, description="sse-kms: the key's ARN or id; left out: the account's own for S3"
    )
    object_lock: Literal["governance", "compliance"] | None = Field(
        default=None, description="lock each copy until its retention ends; takes a bucket with object lock"
    )
    read_back: YesNo = Field(
        default=False, description="read every copy back, from servers whose checksums can be trusted too"
    )
    part_size: Size = Field(
        default=16_000_000,
        ge=_SMALLEST_PART,
        le=_LARGEST_PART,
        description="how much is sent at a time; more by itself where there would be over 10,000 parts",
    )
    parallel: Whole = Field(default=4, ge=1, le=64, description="parts that are sent, or read, at one time")

    @field_validator("kms_key")
    @classmethod
    def _kms_key(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and info.data.get("encryption") == "sse-s3":
            raise ValueError('is for encryption = "sse-kms", and this store has "sse-s3"')
        if value and "encryption" in info.data and info.data["encryption"] is None:
            raise ValueError('is for encryption = "sse-kms", which this store does not have')
        return value

    def collides(self, other: StoreSettings) -> tuple[str, str] | None:
        """Whether this folder of the bucket is the other store's, or one lies in the other."""
        if not isinstance(other, S3Settings) or self._place() != other._place():
            return None
        if self.prefix == other.prefix:
            return "prefix", f"is the folder of store '{other.name}' too, in the same bucket"
        if self._contains(other) or other._contains(self):
            return "prefix", f"and the folder of store '{other.name}', in the same bucket, overlap"
        return None

    @property
    def locks(self) -> bool:
        """Whether copies are locked until their retention ends."""
        return self.object_lock is not None

    def _place(self) -> tuple[str, str]:
        return (self.endpoint or "").lower(), self.bucket

    def _contains(self, other: S3Settings) -> bool:
        """Whether the other's folder is below this one, with no hidden name between."""
        start = f"{self.prefix}/" if self.prefix else ""
        return other.prefix.startswith(start) and not any(
            name.startswith(".") for name in other.prefix.removeprefix(start).split("/")
        )


SETTINGS = S3Settings


def open_store(settings: S3Settings) -> S3:
    """The store in the folder `prefix` of `bucket`; the server is first asked when it is used."""
    # Takes a fifth of a second, which a command that only reads the configuration should not.
    from larder.stores._s3_store import S3  # noqa: PLC0415

    return S3(settings)
