"""A request, keys, and tokens that say anything at all with a good signature."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from larder.approval import Approval, approve, verify
from larder.approver_keys import ApproverKey
from larder.errors import NotAuthorisedError
from larder.restore_request import Into, RestoreRequest, Wanted

NOW = datetime(2025, 10, 20, 3, 0, 0, tzinfo=UTC)
ALICE = ApproverKey(Ed25519PrivateKey.from_private_bytes(b"a" * 32))
BOB = ApproverKey(Ed25519PrivateKey.from_private_bytes(b"b" * 32))
MALLORY = ApproverKey(Ed25519PrivateKey.from_private_bytes(b"m" * 32))
APPROVERS = {"alice": ALICE.public_key, "bob": BOB.public_key}

REQUEST = RestoreRequest(
    request="0123456789ab",
    wanted=Wanted(
        backup="shop/20251019_020000",
        engine="postgres",
        created="2025-10-19T02:00:00Z",
        artifact="backup_postgres_20251019_020000.sql.gz",
        size=1000,
        sha256="5" * 64,
        raw_size=9000,
        manifest="6" * 64,
        proof="proven",
    ),
    into=Into(
        database="shop",
        address="postgresql://db.example:5432/shop",
        description="PostgreSQL 16.4 at db.example:5432/shop",
        replaces=4000,
        url=None,
        host=None,
    ),
    mode="swap",
    safety_backup=True,
    keep_replaced=604800,
    create_roles=False,
    tables=(),
    schemas=(),
    warnings=(),
    reason="someone dropped orders",
    requester="Carol Müller",
    account="carol@web1",
    requested="2025-10-20T02:50:00Z",
    expires="2025-10-21T02:50:00Z",
    token_life=900,
)
TOKEN = approve(REQUEST, ALICE, NOW).text


def check(
    token: str, request: RestoreRequest = REQUEST, now: datetime = NOW, token_life: int = 900
) -> Approval:
    return verify(token, request, APPROVERS, token_life, now)


def refused(token: str, *arguments: Any, **keywords: Any) -> str:
    """Why a token is refused; it is in no message."""
    with pytest.raises(NotAuthorisedError) as caught:
        check(token, *arguments, **keywords)
    error = caught.value
    assert error.hint
    assert error.message.startswith("unable to take approval of request '0123456789ab': ")
    assert not any(len(part) > 20 and part in str(error) for part in token.split("."))
    assert error.__cause__ is None
    return error.message.partition(": ")[2]


def packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unpacked(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def parts(token: str = TOKEN) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")
    return json.loads(unpacked(header)), json.loads(unpacked(claims))


def spelled(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def signed(header: bytes, claims: bytes, key: ApproverKey = ALICE) -> str:
    """A token with a good signature over whatever it says."""
    text = f"{packed(header)}.{packed(claims)}"
    return f"{text}.{packed(key.private.sign(text.encode()))}"
