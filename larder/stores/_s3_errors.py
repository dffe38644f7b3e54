"""What S3 and boto3 say when something goes wrong, in the words that an operator can act on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from larder.errors import (
    ConfigurationError,
    ExhaustedError,
    LarderError,
    RefusedError,
    UnreachableError,
)

#: The permission that each operation takes, where it is not called `s3:` and the operation's own name.
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
_ACTIONS = {
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
}

#: Amazon names what was missing, which may be another permission than the operation's: s3:PutObjectRetention, kms:…
_NAMED_ACTION = re.compile(r"perform: ([a-z0-9-]+:[A-Za-z]+)")

#: What another try may mend. Those of checksums were altered on the way; uploads and parts, by another `put`.
_PASSING = {
    "BadDigest", "BandwidthLimitExceeded", "ConditionalRequestConflict", "IncompleteBody", "InternalError",
    "InvalidDigest", "InvalidPart", "InvalidPartOrder", "NoSuchKey", "NoSuchUpload", "OperationAborted",
    "PriorRequestNotComplete", "RequestLimitExceeded", "RequestThrottled", "RequestTimeout", "ServiceUnavailable",
    "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}  # fmt: skip

#: The same at the end of an upload: the list of its parts, or one of them, was cut on its way.
_CUT = {"EntityTooSmall", "MalformedXML"}

_FULL = {
    "EntityTooLarge",
    "InsufficientStorage",
    "QuotaExceeded",
    "ServiceQuotaExceeded",
    "XMinioAdminBucketQuotaExceeded",
    "XMinioStorageFull",
}

_WRONG_REGION = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "Redirect",
    "TemporaryRedirect",
    "301",
    "307",
}

_CREDENTIALS = (
    "see which credentials boto3 finds: AWS_ACCESS_KEY_ID and its like, AWS_PROFILE, or the machine's role"
)

_HINTS = {
    "NoSuchBucket": "create the bucket, or name another; see that the store's region and endpoint are its own",
    "RequestTimeTooSkewed": "set this machine's clock: S3 refuses what was signed more than 15 minutes off",
    "ExpiredToken": "the session has ended: get new credentials, and see that AWS_SESSION_TOKEN is not an old one",
    "TokenRefreshRequired": "get new credentials, and see that AWS_SESSION_TOKEN is not an old one",
    "InvalidToken": "AWS_SESSION_TOKEN belongs to other keys: set it with them, or unset it",
    "InvalidAccessKeyId": f"the server does not know this access key; {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key does not belong to the access key; {_CREDENTIALS}",
    "InvalidObjectState": "it has been moved to an archive: have it restored there first (aws s3api restore-object)",
    "InvalidStorageClass": "see that the server knows this storage_class",
    "KMS.DisabledException": "enable the key that kms_key names",
    "KMS.NotFoundException": "see that kms_key is a key of the bucket's region",
    "MethodNotAllowed": "see that endpoint is the address of an S3 server",
}

#: What to do about a bucket that cannot lock.
LOCK_HINT = (
    "switch object lock on for the bucket (aws s3api put-object-lock-configuration), or leave out object_lock"
)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what S3, boto3 and the system say into what the operator should read, beginning with `what`."""
    try:
        yield
    except (BotoCoreError, ClientError, ResponseParserError) as error:
        raise plain(what, error) from error
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise UnreachableError(f"{what}: {(error.strerror or str(error)).lower()}{where}") from error


def plain(what: str, error: BotoCoreError | ClientError | ResponseParserError) -> LarderError:
    """The error to raise for `error`: its class says whether another try can help."""
    if isinstance(error, ClientError):
        return _answered(what, error)
    return _not_answered(f"{what}: {_lower(str(error))}", error)


def code_of(error: ClientError) -> str:
    """S3's word for what is wrong. The answer to a HEAD has no words: there it is the status."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code == "404" and error.operation_name == "HeadBucket":
        return "NoSuchBucket"
    return code


def status_of(error: ClientError) -> int:
    """The HTTP status, or 0."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def is_denied(error: ClientError) -> bool:
    """Whether these credentials may not do it."""
    return code_of(error) in {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403", "Forbidden"}


def action_of(error: ClientError) -> str:
    """The permission that is missing."""
    named = _NAMED_ACTION.search(_words(error))
    return named[1] if named else _ACTIONS.get(error.operation_name, f"s3:{error.operation_name}")


def _answered(what: str, error: ClientError) -> LarderError:
    code, status, words = code_of(error), status_of(error), _words(error)
    said = f"{what}: {error.operation_name}: {code}" + (f": {words}" if words and words != code else "")
    if is_denied(error):
        action = action_of(error)
        also = " and s3:ListBucket" if error.operation_name == "HeadObject" else ""
        return RefusedError(
            f"{said} ({action})",
            f"allow {action}{also} to these credentials: docs/stores.md has the whole policy",
        )
    if code in _WRONG_REGION:
        return RefusedError(said, _region_hint(error))
    if code in _FULL or status == 507:
        return ExhaustedError(said, "make room there, raise the quota, or keep backups for fewer days")
    if "object lock" in words.lower() or "objectlock" in (code + words).lower():
        return RefusedError(said, LOCK_HINT)
    if code in _HINTS:
        return RefusedError(said, _HINTS[code])
    if code in _PASSING or status == 429 or _passes(error.operation_name, code, status):
        return UnreachableError(
            said, "the server is busy, or in trouble: if it lasts, see its own status page"
        )
    return RefusedError(said)


def _passes(operation: str, code: str, status: int) -> bool:
    """Whether it passes where this operation is told so."""
    if operation == "CompleteMultipartUpload" and code in _CUT:
        return True
    # A server that lacks something says so when an upload is begun.
    return status >= 500 and (status != 501 or operation == "UploadPart")


def _words(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", "")).strip()


def _region_hint(error: ClientError) -> str:
    details = error.response.get("Error", {})
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = details.get("Region") or headers.get("x-amz-bucket-region")
    if region:
        return f'the bucket is in another region: set region = "{region}"'
    if endpoint := details.get("Endpoint"):
        return f"the bucket is elsewhere: the server names {endpoint}; set region to the one it is in"
    return "the bucket is in another region: set region to the one it is in"


def _not_answered(said: str, error: BotoCoreError | ResponseParserError) -> LarderError:
    if isinstance(error, exceptions.ProfileNotFound):
        return ConfigurationError(said, "set profile to one that ~/.aws/config or ~/.aws/credentials has")
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return ConfigurationError(said, _CREDENTIALS)
    if isinstance(error, exceptions.CredentialRetrievalError | exceptions.TokenRetrievalError):
        return RefusedError(said, _CREDENTIALS)
    if isinstance(error, exceptions.SSLError) and _is_certificate(said):
        return RefusedError(
            said,
            "see that endpoint is right; for an authority of your own, set AWS_CA_BUNDLE to its certificate",
        )
    if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError):
        return UnreachableError(said, "see that this machine reaches the store's endpoint")
    if isinstance(error, exceptions.IncompleteReadError | exceptions.PaginationError | ResponseParserError):
        return UnreachableError(said)
    return ConfigurationError(said, "see the store's keys, and boto3's own files in ~/.aws")


def _is_certificate(said: str) -> bool:
    """A certificate, or no TLS at all, stays what it is; a TLS connection that broke off does not."""
    return any(
        word in said for word in ("CERTIFICATE", "certificate", "WRONG_VERSION_NUMBER", "doesn't match")
    )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
