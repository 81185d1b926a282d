"""What is wrong in RequestAuthentications, and which keys of a set proxies are told of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshd.api.dispatch import check_fields
from meshd.api.finding import Finding
from meshd.api.read import read_objects
from meshd.api.request_authentication.key_sets import (
    LONGEST,
    MOST_KEYS,
    NoKeySetError,
    encoded,
    key_set,
    on_p256,
)
from tests import tokens
from tests.tokens import Key

KEYS = tokens.key_set(Key())


def findings(spec: dict[str, Any]) -> list[Finding]:
    text = json.dumps(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": "t", "namespace": "shop"},
            "spec": spec,
        }
    )
    return list(check_fields(read_objects(text, "t.yaml")))


def errors(**rule: Any) -> list[str]:
    found = findings({"jwtRules": [{"issuer": "me", "jwks": KEYS, **rule}]})
    return [f"{one.field}: {one.message}" for one in found if one.severity == "error"]


GOOD: list[dict[str, Any]] = [
    {},
    {"jwks": "", "jwksUri": "https://issuer.test:8443/keys?x=1"},
    {"jwks": "", "issuer": "https://issuer.test/tenant"},
    {"jwks": "", "issuer": "", "jwksUri": "http://198.18.0.1/keys"},
    {"audiences": ["a"], "fromHeaders": [{"name": "x-jwt", "prefix": "JWT "}, {"name": "y"}]},
    {"fromParams": ["token"], "fromCookies": ["session"], "forwardOriginalToken": True},
    {"outputPayloadToHeader": "x-payload", "spaceDelimitedClaims": ["roles"]},
    {"outputClaimToHeaders": [{"header": "x-group", "claim": "org.group"}], "timeout": "5s"},
]


@pytest.mark.parametrize("rule", GOOD)
def test_rules_as_people_write_them_are_taken(rule: dict[str, Any]) -> None:
    assert errors(**rule) == []


@pytest.mark.parametrize(
    ("rule", "place", "why"),
    [
        ({"issuer": ""}, "issuer", "is missing"),
        ({"jwks": ""}, "jwtRules[0]", "neither jwks nor jwksUri"),
        ({"jwksUri": "https://a.test"}, "jwks", "beside jwksUri"),
        ({"jwks": "{}"}, "jwks", "no JSON Web Key Set"),
        ({"jwks": '{"keys": []}'}, "jwks", "has no keys"),
        ({"jwks": "", "jwksUri": "ftp://a.test/keys"}, "jwksUri", "begins with https://"),
        ({"jwks": "", "jwksUri": "https://me:pw@a.test/"}, "jwksUri", "a user, a password"),
        ({"jwks": "", "jwksUri": "https://a b/"}, "jwksUri", "%XX"),
        ({"jwks": "", "jwksUri": "https://a..b/"}, "jwksUri", "not a host name"),
        ({"jwks": "", "jwksUri": "https://a:99999/"}, "jwksUri", "not a URL"),
        ({"audiences": [""]}, "audiences[0]", "is empty"),
        ({"fromHeaders": [{"name": ""}]}, "fromHeaders[0].name", "not a header's name"),
        ({"fromHeaders": [{"name": ":path"}]}, "fromHeaders[0].name", "not a header's name"),
        ({"fromParams": [""]}, "fromParams[0]", "is empty"),
        ({"fromCookies": [""]}, "fromCookies[0]", "is empty"),
        ({"spaceDelimitedClaims": [""]}, "spaceDelimitedClaims[0]", "is empty"),
        ({"outputPayloadToHeader": "a b"}, "outputPayloadToHeader", "not a header's name"),
        (
            {"outputPayloadToHeader": "X-Forwarded-Client-Cert"},
            "outputPayloadToHeader",
            "proxies write themselves",
        ),
        (
            {"outputClaimToHeaders": [{"header": "", "claim": "a"}]},
            "outputClaimToHeaders[0].header",
            "not a header's name",
        ),
        (
            {"outputClaimToHeaders": [{"header": "x", "claim": ""}]},
            "outputClaimToHeaders[0].claim",
            "is empty",
        ),
        ({"timeout": "0s"}, "timeout", "1ms or more"),
    ],
)
def test_what_proxies_or_people_would_misread_is_an_error(
    rule: dict[str, Any], place: str, why: str
) -> None:
    (error,) = errors(**rule)
    assert error.startswith(f"spec.jwtRules[0].{place}:" if "[0]" not in place[:11] else "spec.jwt")
    assert why in error


def test_too_many_rules_and_targets_are_errors_and_no_rules_a_warning() -> None:
    many = findings({"jwtRules": [{"issuer": "me", "jwks": KEYS}] * 65})
    assert [one.message for one in many] == ["at most 64 rules; split the policy"]
    (target,) = findings(
        {"targetRef": {"kind": "Gateway"}, "jwtRules": [{"issuer": "a", "jwks": KEYS}]}
    )
    assert target.severity == "error"
    (nothing,) = findings({})
    assert (nothing.severity, nothing.field) == ("warning", "spec.jwtRules")


def test_a_key_that_is_left_out_is_told() -> None:
    keys = json.dumps({"keys": [{"kty": "oct", "k": "AAAA"}, Key().public()]})
    (finding,) = findings({"jwtRules": [{"issuer": "me", "jwks": keys}]})
    assert finding.severity == "warning"
    assert "keys[0] is a secret" in finding.message


RSA = Key("r", "RS256").public()
EC = Key("e", "ES256").public()
ED = Key("d", "EdDSA").public()


@pytest.mark.parametrize("key", [RSA, EC, ED, {**EC, "alg": None}, {**RSA, "alg": "PS512"}])
def test_public_keys_are_told(key: dict[str, Any]) -> None:
    text = json.dumps({"keys": [{name: one for name, one in key.items() if one is not None}]})
    (told,) = json.loads(key_set(text).text)["keys"]
    assert told["kid"] == key["kid"]
    assert key_set(key_set(text).text).text == key_set(text).text


@pytest.mark.parametrize(
    "key",
    [
        {},
        {"kty": 1},
        {"kty": "oct", "k": "AAAA"},
        {**RSA, "use": "enc"},
        {**RSA, "kid": 5},
        {**RSA, "alg": "ES256"},
        {**RSA, "alg": "none"},
        {**RSA, "n": "AQ"},
        {**RSA, "n": tokens.number(1 << 2047)},
        {**RSA, "n": tokens.number((1 << 16384) | 1)},
        {**RSA, "e": "AQ"},
        {**RSA, "e": tokens.number(1 << 16)},
        {**RSA, "e": tokens.number((1 << 40) | 1)},
        {**RSA, "n": "+/+/"},
        {**RSA, "n": None},
        {**EC, "crv": "P-999"},
        {**EC, "crv": "P-384"},
        {**EC, "x": "AQ"},
        {**EC, "alg": "RS256"},
        {**ED, "crv": "X25519"},
        {**ED, "x": "AQ"},
    ],
)
def test_keys_that_proxies_refuse_are_left_out(key: dict[str, Any]) -> None:
    with pytest.raises(NoKeySetError):
        key_set(json.dumps({"keys": [key]}))
    beside = key_set(json.dumps({"keys": [key, EC]}))
    assert len(json.loads(beside.text)["keys"]) == len(beside.left_out) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"keys": {}}',
        '{"keys": ["a"]}',
        "[" * 100_000,
        '{"keys": "\ud800"}',
        " " * (LONGEST + 1),
        json.dumps({"keys": [EC] * (MOST_KEYS + 1)}),
    ],
)
def test_an_invalid_set_of_keys_is_refused(text: str) -> None:
    with pytest.raises(NoKeySetError):
        key_set(text)


def test_a_point_of_the_curve_is_found_by_its_first_coordinate() -> None:
    point = Key().public()
    x = int.from_bytes(tokens.base64.urlsafe_b64decode(point["x"] + "=="), "big")
    found = on_p256(x)
    assert found is not None
    other = 2**256 - 2**224 + 2**192 + 2**96 - 1 - found
    assert point["y"] in {encoded(found), encoded(other)}
