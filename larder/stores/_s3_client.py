"""boto3's client, made to Larder's wishes: few retries, timeouts, no checksums but ours, no secret in a message."""

from __future__ import annotations

import functools
import ipaddress
import os
import re
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth
from botocore.config import Config
from botocore.loaders import Loader, create_loader

from larder import secret
from larder.stores._s3_source import Slice
from larder.stores.s3 import S3Settings

#: Seconds that a server may take to accept a connection.
CONNECT_TIMEOUT = 10

#: Seconds without a byte after which a request is tried again. Amazon sends blanks while it puts parts together.
READ_TIMEOUT = 60

#: How often boto3 sends a request in all, a little later each time.
ATTEMPTS = 4

#: Our word among botocore's for how a request is signed.
_SIGNATURE = "larder-s3v4"

_DATE = re.compile(rb"<LastModified>[^<]*</LastModified>")

_BROKE_OFF = b"<Error><Code>IncompleteBody</Code><Message>the answer broke off</Message></Error>"


def make_client(settings: S3Settings) -> Any:
    """boto3's client for a store. No request is made for it, except by some ways of finding credentials."""
    core = botocore.session.get_session()
    session = boto3.Session(botocore_session=core, profile_name=settings.profile, region_name=settings.region)
    core.register_component("data_loader", _descriptions(core.get_config_variable("data_path")))
    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=settings.parallel + 2,
        s3={"addressing_style": "path" if _wants_path_style(settings) else "auto"},
        # We add our own, of the kind that we want. Others' servers reject those that boto3 would add.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = session.client("s3", endpoint_url=settings.endpoint, config=config)
    client.meta.events.register("before-parse.s3", _look_at)
    for operation in ("PutObject", "UploadPart"):
        client.meta.events.register(f"choose-signer.s3.{operation}", _choose_signer)
    _hide(session)
    return client


@functools.cache
def _descriptions(paths: str | None) -> Loader:
    """What reads Amazon's descriptions of its services, of which no client changes a word: once in a process.

    Each client would read its own, which is three quarters of what it takes to make one.
    """
    loader = create_loader(paths)
    # botocore completes what it has read in place, where another thread's client would find it half done.
    loader.load_service_model("s3", "service-2", api_version=None)
    return loader


class _Signer(S3SigV4Auth):  # type: ignore[misc]
    """Signs a part's SHA-256 as it is known. botocore would read all of it once more to find it out."""

    def payload(self, request: Any) -> str:
        """The SHA-256 of the request's body, in hexadecimal digits, or what stands for it."""
        if isinstance(request.body, Slice):
            return request.body.sha256.hex()
        return str(super().payload(request))


AUTH_TYPE_MAPS[_SIGNATURE] = _Signer


def _choose_signer(signature_version: Any, context: dict[str, Any], **_: object) -> str | None:
    """Ours in the place of botocore's usual one, and of no other: not of those for S3 Express, nor of none at all."""
    usual = context.get("auth_type") in {None, "v4"} and signature_version in {"v4", "s3v4"}
    return _SIGNATURE if usual else None


def _look_at(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:
    """Have an answer that broke off tried again: botocore would take an empty one for a list with nothing in it."""
    told, body = response_dict["headers"].get("content-length"), response_dict["body"]
    if operation_model.http.get("method") == "HEAD" or not isinstance(body, bytes):
        return
    if told is not None and str(told) != str(len(body)):
        response_dict["status_code"] = 500
        response_dict["body"] = _BROKE_OFF
    elif operation_model.name == "ListObjectsV2":
        # Nobody asks for the dates in it, and botocore spends three quarters of its time on them.
        response_dict["body"] = _DATE.sub(b"", body)


def _wants_path_style(settings: S3Settings) -> bool:
    """Whether the bucket cannot be named in the host: `bucket.127.0.0.1`, `bucket.minio` are found nowhere."""
    endpoint = (
        settings.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    )
    host = urlsplit(endpoint).hostname or ""
    return settings.path_style or (bool(host) and (_is_address(host) or "." not in host))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _hide(session: Any) -> None:
    """Have the credentials masked wherever they are printed. Without any, the first request says so."""
    found = session.get_credentials()
    if found is not None:
        frozen = found.get_frozen_credentials()
        for value in (frozen.secret_key, frozen.token):
            if value:
                secret.register(value)
