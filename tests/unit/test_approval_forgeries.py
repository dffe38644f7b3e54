"""Forged approvals: a token has one spelling, and whatever differs from it by anything is refused."""

from __future__ import annotations

import base64
import hmac
import json
import string
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from larder.approval import LARGEST, approve
from tests.approvals import (
    ALICE,
    BOB,
    MALLORY,
    NOW,
    REQUEST,
    TOKEN,
    packed,
    parts,
    refused,
    signed,
    spelled,
    unpacked,
)


def forged_headers() -> Iterator[str]:
    header, claims = parts()
    mine, text = base64.b64decode(MALLORY.public_key), spelled(claims)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": packed(mine)}
    extras: list[dict[str, Any]] = [
        {"jwk": jwk},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"b64": True},
        {"cty": "JWT"},
        {"zip": "DEF"},
        {"alg": "none"},
        {"alg": "Ed25519"},
        {"alg": "eddsa"},
        {"alg": ["EdDSA"]},
        {"typ": "JWT"},
        {"typ": None},
        {"kid": None},
        {"kid": "alice"},
        {"kid": [ALICE.fingerprint]},
        {"kid": "../../etc/passwd"},
        {"": ""},
    ]
    for key in (ALICE, MALLORY):
        for extra in extras:
            yield signed(spelled(header | extra), text, key)
        for missing in header:
            yield signed(
                spelled({name: value for name, value in header.items() if name != missing}), text, key
            )
        whole = spelled(header)
        for other in (
            json.dumps(header).encode(),
            whole + b" ",
            b"\xef\xbb\xbf" + whole,
            whole[:-1] + b',"alg":"EdDSA"}',
            b'{"alg":"none",' + whole[1:],
            whole.replace(b"EdDSA", b"Ed\\u0044SA"),
            b"",
            b"{}",
            b"[]",
            b"null",
            b"[" * 2000,
            b"\xff",
        ):
            yield signed(other, text, key)


def test_a_header_is_exactly_ours() -> None:
    """Even where an approver's own key signed it."""
    tokens = list(forged_headers())
    for token in tokens:
        refused(token)
    assert len(tokens) > 60


def test_another_algorithm_is_refused() -> None:
    header, claims = parts()
    raw = base64.b64decode(ALICE.public_key)
    pem = ALICE.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for algorithm, digest in (("HS256", "sha256"), ("HS512", "sha512")):
        for secret in (raw, pem, ALICE.public_key.encode(), ALICE.fingerprint.encode(), b""):
            text = f"{packed(spelled(header | {'alg': algorithm}))}.{packed(spelled(claims))}"
            refused(f"{text}.{packed(hmac.digest(secret, text.encode(), digest))}")
    kept = {"kid": ALICE.fingerprint, "typ": "larder-approval+jwt"}
    one, two = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    refused(jwt.encode(claims, one, "RS256", kept))
    refused(jwt.encode(claims, one, "PS256", kept))
    refused(jwt.encode(claims, two, "ES256", kept))
    for algorithm in ("none", "None", "NONE", ""):
        text = f"{packed(spelled(header | {'alg': algorithm}))}.{packed(spelled(claims))}"
        for signature in ("", TOKEN.rpartition(".")[2]):
            refused(f"{text}.{signature}")


def test_claims_are_exactly_ours() -> None:
    header, claims = parts()
    changes: list[dict[str, Any]] = [
        {"iat": float(claims["iat"])},
        {"iat": str(claims["iat"])},
        {"iat": True},
        {"iat": -1},
        {"exp": None},
        {"exp": 10**400},
        {"exp": 10**12},
        {"exp": [claims["exp"]]},
        {"jti": ""},
        {"jti": claims["jti"] + "0"},
        {"jti": claims["jti"].upper() if claims["jti"].upper() != claims["jti"] else "G" * 32},
        {"jti": claims["jti"] + "\n"},
        {"request": REQUEST.request + "\n"},
        {"mode": "SWAP"},
        {"mode": ["swap"]},
        {"document": REQUEST.digest.upper()},
        {"nbf": 0},
        {"approver": "bob"},
        {"sub": "bob"},
    ]
    for change in changes:
        refused(signed(spelled(header), spelled(claims | change)))
    for missing in claims:
        rest = {name: value for name, value in claims.items() if name != missing}
        refused(signed(spelled(header), spelled(rest)))
    whole = spelled(claims)
    for other in (
        json.dumps(claims).encode(),
        whole + b"\n",
        whole[:-1] + b',"mode":"swap"}',
        b'{"mode":"new",' + whole[1:],
        b"",
        b"[]",
        b"[" * 2500,
        b"\xff",
    ):
        refused(signed(spelled(header), other))


def test_a_signature_has_one_spelling() -> None:
    """The last of its 86 characters has four bits that decoders do not look at; S plus the group's order is S too."""
    text, _, signature = TOKEN.rpartition(".")
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    same = [last for last in alphabet if unpacked(signature[:-1] + last) == unpacked(signature)]
    assert len(same) == 16
    for last in same:
        if last != signature[-1]:
            refused(f"{text}.{signature[:-1]}{last}")
    order = 2**252 + 27742317777372353535851937790883648493
    raw = unpacked(signature)
    larger = int.from_bytes(raw[32:], "little") + order
    refused(f"{text}.{packed(raw[:32] + larger.to_bytes(32, 'little'))}")


def mutated(random: Random) -> Iterator[str]:
    """Every place of a token with others' characters, and characters more, fewer, twice and exchanged."""
    for at, was in enumerate(TOKEN):
        for other in {
            was.swapcase(),
            *random.sample(string.printable, 5),
            random.choice("=+/.-_ \n\0ü\u200b"),
        }:
            yield TOKEN[:at] + other + TOKEN[at + 1 :]
            yield TOKEN[:at] + other + TOKEN[at:]
        yield TOKEN[:at] + TOKEN[at + 1 :]
        yield TOKEN[:at] + was + TOKEN[at:]
        yield TOKEN[:at]
        yield TOKEN[at:]
        yield TOKEN[:at] + TOKEN[at : at + 2][::-1] + TOKEN[at + 2 :]
        to = random.randrange(len(TOKEN))
        low, high = sorted((at, to))
        yield (
            TOKEN[:low]
            + TOKEN[high : high + 1]
            + TOKEN[low + 1 : high]
            + TOKEN[low : low + 1]
            + TOKEN[high + 1 :]
        )


def test_ten_thousand_changed_tokens_are_refused() -> None:
    tokens = {token for token in mutated(Random(20251020)) if token != TOKEN}
    assert len(tokens) > 10_000
    for token in tokens:
        refused(token)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token + "=",
        lambda token: token + "==",
        lambda token: token.replace(".", "=.", 1),
        lambda token: token + ".",
        lambda token: "." + token,
        lambda token: token + "." + token.rpartition(".")[2],
        lambda token: token.replace(".", "..", 1),
        lambda token: token.replace("-", "+").replace("_", "/") + "",
        lambda token: token.replace("e", "е", 1),
        lambda token: token + "\u200b",
        lambda token: "Bearer " + token,
        lambda token: json.dumps({"protected": token.split(".")[0], "payload": token.split(".")[1]}),
        lambda token: "".join(reversed(token)),
        lambda token: token * 2,
        lambda token: token + "A" * LARGEST,
        lambda _: "",
        lambda _: "..",
        lambda _: "." * LARGEST,
        lambda _: "\udcff" * 10,
    ],
)
def test_what_is_around_a_token_is_not_taken_away(change: Callable[[str], str]) -> None:
    changed = change(TOKEN)
    if changed != TOKEN:
        refused(changed)


def test_a_part_of_another_good_token_does_not_fit() -> None:
    other = approve(REQUEST, BOB, NOW).text
    again = approve(REQUEST, ALICE, NOW).text
    for one in (other, again):
        for at in range(3):
            mixed = TOKEN.split(".")
            if mixed[at] != one.split(".")[at]:
                mixed[at] = one.split(".")[at]
                refused(".".join(mixed))


@given(st.text(max_size=400))
def test_no_text_is_a_token(text: str) -> None:
    refused(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_no_value_of_a_claim_breaks_the_reader(value: Any) -> None:
    header, claims = parts()
    for name in ("iat", "exp", "mode"):
        if value != claims[name] or isinstance(value, bool):
            forged = {**claims, name: value}
            text = json.dumps(forged, sort_keys=True, separators=(",", ":")).encode()
            refused(signed(spelled(header), text))
