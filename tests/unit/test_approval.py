"""Approvals: one token for one request, by somebody else than who asked, for a while."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from larder.approval import LARGEST, approve, is_own_request, verify
from larder.approver_keys import ApproverKey
from larder.errors import NotAuthorisedError
from larder.restore_request import RestoreRequest
from larder.restoring import MODES
from tests.approvals import ALICE, BOB, MALLORY, NOW, REQUEST, TOKEN, check, parts, refused, signed, spelled

# What is good


def test_a_token_says_who_approved_and_until_when() -> None:
    token = approve(REQUEST, BOB, NOW + timedelta(seconds=0.7))
    found = check(token.text)
    assert (found.approver, found.public_key) == ("bob", BOB.public_key)
    assert found.issued == NOW
    assert found.expires == token.expires == NOW + timedelta(minutes=15)
    assert found.token_hash == hashlib.sha256(token.text.encode()).hexdigest()
    assert token.text not in repr(token)


def test_a_token_says_nothing_else() -> None:
    header, claims = parts()
    assert header == {"alg": "EdDSA", "typ": "larder-approval+jwt", "kid": ALICE.fingerprint}
    moment = int(NOW.timestamp())
    assert claims == {
        "request": REQUEST.request,
        "document": REQUEST.digest,
        "sha256": REQUEST.wanted.sha256,
        "target": REQUEST.into.address,
        "mode": "swap",
        "requester": "Carol Müller",
        "iat": moment,
        "exp": moment + 900,
        "jti": check(TOKEN).token_id,
    }


def test_another_jwt_library_would_read_it() -> None:
    public = ALICE.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert jwt.decode(TOKEN, public, algorithms=["EdDSA"], options={"verify_exp": False}) == parts()[1]


def test_every_token_is_another() -> None:
    made = {check(approve(REQUEST, ALICE, NOW).text).token_id for _ in range(50)}
    assert len(made) == 50
    assert all(len(one) == 32 for one in made)


def test_our_spelling_is_what_the_tests_forge_with() -> None:
    header, claims = parts()
    assert signed(spelled(header), spelled(claims)) == TOKEN


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_can_be_approved(mode: Any) -> None:
    request = replace(REQUEST, mode=mode)
    assert check(approve(request, ALICE, NOW).text, request).approver == "alice"


def test_the_document_may_be_laid_out_anew_and_is_the_same() -> None:
    again = RestoreRequest.from_bytes(json.dumps(REQUEST.to_dict()).encode())
    assert check(TOKEN, again).approver == "alice"


def test_the_longest_names_fit() -> None:
    request = replace(
        REQUEST, requester="𠀀" * 120, into=replace(REQUEST.into, address="postgresql://" + "ö" * 500)
    )
    assert check(approve(request, ALICE, NOW).text, request)


def test_an_address_that_no_token_can_hold_is_refused_at_once() -> None:
    request = replace(REQUEST, into=replace(REQUEST.into, address="postgresql://" + "o" * 4000))
    with pytest.raises(NotAuthorisedError, match="address is too long"):
        approve(request, ALICE, NOW)
    header, claims = parts()
    told = {"target": request.into.address, "document": request.digest}
    token = signed(spelled(header), spelled(claims | told))
    assert len(token) > LARGEST
    assert "it is no token" in refused(token, request)


# What the token is bound to


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"request": "0123456789ac"}, "another request"),
        ({"wanted": replace(REQUEST.wanted, sha256="7" * 64)}, "another artifact"),
        ({"into": replace(REQUEST.into, address="postgresql://db.example:5432/crm")}, "another target"),
        ({"mode": "in-place"}, "another mode"),
        ({"requester": "Carol Muller"}, "another requester"),
        ({"wanted": replace(REQUEST.wanted, manifest="7" * 64)}, "another document"),
        ({"into": replace(REQUEST.into, database=None)}, "another document"),
        ({"into": replace(REQUEST.into, url="postgresql://me@db.example/shop")}, "another document"),
        ({"into": replace(REQUEST.into, replaces=4001)}, "another document"),
        ({"safety_backup": False}, "another document"),
        ({"create_roles": True}, "another document"),
        ({"tables": ("orders",)}, "another document"),
        ({"schemas": ("public",)}, "another document"),
        ({"reason": "someone dropped orders "}, "another document"),
        ({"account": "carol@web2"}, "another document"),
        ({"requested": "2025-10-20T02:50:01Z"}, "another document"),
        ({"expires": "2025-10-21T02:50:01Z"}, "another document"),
        ({"token_life": 899}, "another document"),
    ],
)
def test_a_token_is_for_one_document(change: dict[str, Any], what: str) -> None:
    request = replace(REQUEST, **change)
    with pytest.raises(NotAuthorisedError, match=what):
        check(TOKEN, request)
    assert check(approve(request, ALICE, NOW).text, request)


@pytest.mark.parametrize("claim", ["request", "document", "sha256", "target", "mode", "requester"])
def test_each_claim_is_compared_by_itself(claim: str) -> None:
    header, claims = parts()
    other = {"request": "ffffffffffff", "mode": "new", "document": "1" * 64, "sha256": "1" * 64}.get(
        claim, "other"
    )
    assert "it is for another" in refused(signed(spelled(header), spelled(claims | {claim: other})))


# Times


def test_it_expires() -> None:
    end = NOW + timedelta(seconds=900)
    assert check(TOKEN, now=end - timedelta(seconds=0.001))
    assert refused(TOKEN, now=end) == "it expired at 2025-10-20 03:15:00 UTC"


def test_clocks_may_be_a_minute_apart() -> None:
    assert check(TOKEN, now=NOW - timedelta(seconds=60))
    assert "yet to come" in refused(TOKEN, now=NOW - timedelta(seconds=60.5))


def test_a_worker_may_allow_less_than_the_request() -> None:
    assert check(TOKEN, token_life=900)
    assert refused(TOKEN, token_life=899) == "it can be used for longer than 899 seconds, or not at all"


def test_a_worker_that_allows_more_does_not_stretch_the_request() -> None:
    header, claims = parts()
    forged = signed(spelled(header), spelled(claims | {"exp": claims["exp"] + 1}))
    assert refused(forged, token_life=86400) == "it can be used for longer than 900 seconds, or not at all"


@pytest.mark.parametrize("life", [0, -1, 10**9])
def test_a_life_that_is_none_is_refused(life: int) -> None:
    header, claims = parts()
    refused(signed(spelled(header), spelled(claims | {"exp": claims["iat"] + life})))
    refused(
        signed(spelled(header), spelled(claims | {"iat": claims["exp"] - life})), now=NOW - timedelta(days=40)
    )


def test_a_life_that_ends_before_it_begins_is_refused() -> None:
    header, claims = parts()
    times = {"iat": claims["iat"] + 30, "exp": claims["iat"] + 10}
    assert "it can be used for" in refused(signed(spelled(header), spelled(claims | times)))


def test_a_request_that_has_expired_can_be_neither_approved_nor_done() -> None:
    end = REQUEST.expires_at
    last = approve(REQUEST, ALICE, end - timedelta(seconds=10))
    assert last.expires == end
    assert check(last.text, now=end - timedelta(seconds=1))
    assert refused(last.text, now=end) == "the request expired at 2025-10-21T02:50:00Z"
    with pytest.raises(NotAuthorisedError, match="the request expired"):
        approve(REQUEST, ALICE, end)


# Who


@pytest.mark.parametrize(
    "name", ["alice", "Alice", "ALICE", " alice ", "alice@example.com", "Alice @ home", "ａlice"]
)
def test_nobody_approves_what_they_asked_for(name: str) -> None:
    for request in (replace(REQUEST, requester=name), replace(REQUEST, account=name)):
        with pytest.raises(NotAuthorisedError, match="'alice' asked for it"):
            check(approve(request, ALICE, NOW).text, request)
        assert check(approve(request, BOB, NOW).text, request).approver == "bob"


@pytest.mark.parametrize("name", ["alice2", "al", "web1@alice", "malice", "ali ce"])
def test_somebody_of_a_similar_name_may(name: str) -> None:
    assert not is_own_request("alice", replace(REQUEST, requester=name, account=name))


def test_somebody_elses_key_is_no_approvers() -> None:
    why = refused(approve(REQUEST, MALLORY, NOW).text)
    assert why == f"it is signed by key {MALLORY.fingerprint}, which is no approver's"


@pytest.mark.parametrize("key", [BOB, MALLORY])
def test_a_key_that_is_named_has_to_be_the_one_that_signed(key: ApproverKey) -> None:
    header, claims = parts()
    assert (
        refused(signed(spelled(header), spelled(claims), key)) == "the signature is not by the key of 'alice'"
    )


def test_an_approver_who_was_removed_is_none() -> None:
    with pytest.raises(NotAuthorisedError, match="which is no approver's"):
        verify(TOKEN, REQUEST, {"bob": BOB.public_key}, 900, NOW)
    with pytest.raises(NotAuthorisedError, match="nobody is configured"):
        verify(TOKEN, REQUEST, {}, 900, NOW)
