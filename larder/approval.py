"""Approvals: the token by which somebody with a key says yes to one restore, as it stands.

A token is a JWT, signed Ed25519, and bound to the request's document, whole. There is one spelling of it: whatever
differs from what `approve` writes, in any byte, is refused before PyJWT is asked. It carries no name: the key that fits
says who approved, by the workers' own configuration. A refusal says what does not fit, and never has the token in it.

`verify` cannot know whether a token has been used before: whoever runs the restore writes `token_id` down as used, in
one go with the restore's beginning.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

import jwt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from larder.approver_keys import ApproverKey, fingerprint_of, opened_public_key
from larder.errors import NotAuthorisedError
from larder.manifest_fields import Sha256
from larder.restore_request import Line, Person, RequestId, RestoreRequest
from larder.restoring import Mode

#: Bytes of a token at most.
LARGEST: Final = 4096

#: Seconds that an approver's clock may be ahead of a worker's.
CLOCKS_APART: Final = 60

_ALGORITHM: Final = "EdDSA"
_TYPE: Final = "larder-approval+jwt"

#: Signs and checks, in this one way.
_JWS = jwt.PyJWS(algorithms=[_ALGORITHM])

_ASK_AGAIN: Final = "have the request approved again: larder restore approve"
_AS_IT_STANDS: Final = "approve the request as it stands now: larder restore approve"

#: A moment as JWT has it: whole seconds since 1970, up to the year 9999.
_Seconds = Annotated[int, Field(ge=0, lt=253402300800)]


@dataclass(frozen=True)
class Token:
    """A yes, as it is handed on."""

    #: ASCII, without blanks. Whoever has it can have the restore done, once.
    text: str = field(repr=False)
    #: Until when, in UTC.
    expires: datetime


@dataclass(frozen=True)
class Approval:
    """Who said yes, and until when. Times are UTC."""

    #: By the name in the configuration.
    approver: str
    public_key: str
    #: 128 random bits in hexadecimal: what is used up.
    token_id: str
    #: The hexadecimal SHA-256 of the token's text, which can be kept where the token cannot.
    token_hash: str
    issued: datetime
    expires: datetime


@dataclass(frozen=True)
class _Header:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    #: The fingerprint of the key that signed.
    kid: Annotated[str, Field(pattern=r"^SHA256:[A-Za-z0-9+/]{43}$")]
    alg: Literal["EdDSA"] = _ALGORITHM
    typ: Literal["larder-approval+jwt"] = _TYPE


@dataclass(frozen=True)
class _Claims:
    """What a token says. All of it but the times follows from the document; apart, a refusal can say what differs."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    request: RequestId
    document: Sha256
    sha256: Sha256
    target: Line
    mode: Mode
    requester: Person
    iat: _Seconds
    exp: _Seconds
    jti: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


_HEADER: TypeAdapter[_Header] = TypeAdapter(_Header)
_CLAIMS: TypeAdapter[_Claims] = TypeAdapter(_Claims)

_Part = TypeVar("_Part", _Header, _Claims)


def approve(request: RestoreRequest, key: ApproverKey, now: datetime | None = None) -> Token:
    """Say yes to `request`, whole and as it stands.

    The token can be used for the request's `token_life` from `now`, and no longer than the request. Raises
    `NotAuthorisedError` where the request has expired, or is for a target whose address no token can hold.
    """
    now = now or datetime.now(UTC)
    if request.expired(now):
        raise expired(request)
    issued = int(now.timestamp())
    claims = _Claims(
        **_bound_to(request),
        iat=issued,
        exp=min(issued + request.token_life, int(request.expires_at.timestamp())),
        jti=secrets.token_hex(16),
    )
    headers = {"kid": key.fingerprint, "typ": _TYPE}
    text = _JWS.encode(_canonical(claims), key.private, algorithm=_ALGORITHM, headers=headers)
    if len(text) > LARGEST:
        raise _refused(request, "the target's address is too long for a token", "see whether it is one")
    return Token(text, _moment(claims.exp))


def verify(
    token: str,
    request: RestoreRequest,
    approvers: Mapping[str, str],
    token_life: int,
    now: datetime | None = None,
) -> Approval:
    """Who said yes to `request` by `token`, at `now`.

    `approvers` has the public key of each name that may; `token_life` is how many seconds a token may be good for,
    whatever the request says. Raises `NotAuthorisedError` for everything that does not fit. A token that was used
    before is not known here.
    """
    now = now or datetime.now(UTC)
    if not approvers:
        raise _refused(
            request, "nobody is configured who may approve", "add [approvers.NAME]: larder keys new approver"
        )
    approver, claims = _signed(token, request, approvers)
    _check_binding(claims, request)
    _check_times(claims, request, min(token_life, request.token_life), now)
    if is_own_request(approver, request):
        raise _refused(request, f"'{approver}' asked for it", "somebody else has to approve it")
    return Approval(
        approver,
        approvers[approver],
        claims.jti,
        hashlib.sha256(token.encode()).hexdigest(),
        _moment(claims.iat),
        _moment(claims.exp),
    )


def is_own_request(approver: str, request: RestoreRequest) -> bool:
    """Whether `approver` goes by a name that the request was made under, in capitals or not.

    That is what honest people are held back by. A requester gives a name of their own choice, and `account` is what
    their machine said.
    """
    names = {_folded(name) for name in (request.requester, request.account)}
    return _folded(approver) in names | {name.partition("@")[0].strip() for name in names}


def expired(request: RestoreRequest) -> NotAuthorisedError:
    """What somebody should read who comes too late for `request`."""
    return _refused(request, f"the request expired at {request.expires}", "ask anew: larder restore request")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _signed(token: str, request: RestoreRequest, approvers: Mapping[str, str]) -> tuple[str, _Claims]:
    """The name of the approver whose key signed `token`, and what it says."""
    if len(token) > LARGEST or not token.isascii():
        raise _malformed(request)
    # Exactly three, each in the one spelling that base64url has for its bytes: the last character of a signature has
    # bits that decoders do not look at.
    segments = [_decoded(segment) for segment in token.split(".")]
    if len(segments) != 3 or segments[0] is None or segments[1] is None or segments[2] is None:
        raise _malformed(request)
    header = _read(_HEADER, segments[0])
    if header is None:
        raise _malformed(request)
    approver = {fingerprint_of(key): name for name, key in approvers.items()}.get(header.kid)
    if approver is None:
        raise _refused(
            request,
            f"it is signed by key {header.kid}, which is no approver's",
            f"configured are: {', '.join(approvers)}; larder keys show prints the lines for a key",
        )
    try:
        payload = _JWS.decode(
            token,
            opened_public_key(approvers[approver]),
            algorithms=[_ALGORITHM],
            options={"verify_signature": True},
        )
    except (jwt.PyJWTError, ValueError):
        raise _refused(request, f"the signature is not by the key of '{approver}'", _ASK_AGAIN) from None
    claims = _read(_CLAIMS, payload)
    if claims is None or payload != segments[1]:
        raise _malformed(request)
    return approver, claims


def _check_binding(claims: _Claims, request: RestoreRequest) -> None:
    wanted = _bound_to(request)
    for name, what in (
        ("request", "request"),
        ("sha256", "artifact"),
        ("target", "target"),
        ("mode", "mode"),
        ("requester", "requester"),
        ("document", "document of this request"),
    ):
        if not secrets.compare_digest(str(getattr(claims, name)).encode(), str(wanted[name]).encode()):
            raise _refused(request, f"it is for another {what}", _AS_IT_STANDS)


def _check_times(claims: _Claims, request: RestoreRequest, token_life: int, now: datetime) -> None:
    seconds = now.timestamp()
    if request.expired(now):
        raise expired(request)
    if seconds >= claims.exp:
        raise _refused(request, f"it expired at {_moment(claims.exp):%Y-%m-%d %H:%M:%S} UTC", _ASK_AGAIN)
    if claims.iat > seconds + CLOCKS_APART:
        raise _refused(
            request,
            f"it was issued at {_moment(claims.iat):%Y-%m-%d %H:%M:%S} UTC, which is yet to come",
            "see whether the clock of this machine is right, and the approver's",
        )
    if not 0 < claims.exp - claims.iat <= token_life:
        raise _refused(
            request, f"it can be used for longer than {token_life} seconds, or not at all", _ASK_AGAIN
        )


def _bound_to(request: RestoreRequest) -> dict[str, Any]:
    """What a token says of the request that it is for."""
    return {
        "request": request.request,
        "document": request.digest,
        "sha256": request.wanted.sha256,
        "target": request.into.address,
        "mode": request.mode,
        "requester": request.requester,
    }


def _read(kind: TypeAdapter[_Part], text: bytes) -> _Part | None:
    """What `text` says, where it is spelled as `_canonical` does; None otherwise."""
    try:
        found = kind.validate_json(text)
    except ValidationError:
        return None
    return found if _canonical(found) == text else None


def _canonical(part: _Header | _Claims) -> bytes:
    """The JSON of a part of a token: keys sorted, no blanks, as PyJWT writes headers."""
    return json.dumps(asdict(part), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _decoded(segment: str) -> bytes | None:
    """The bytes that `segment` is the base64url of, without padding; None where it is not, to the last bit."""
    try:
        found = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    return found if base64.urlsafe_b64encode(found).decode().rstrip("=") == segment else None


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)


def _malformed(request: RestoreRequest) -> NotAuthorisedError:
    return _refused(
        request, "it is no token that larder restore approve printed", "copy it whole, in one line"
    )


def _refused(request: RestoreRequest, why: str, hint: str) -> NotAuthorisedError:
    return NotAuthorisedError(f"unable to take approval of request '{request.request}': {why}", hint)
