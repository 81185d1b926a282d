"""Sets of public keys (JWKS, RFC 7517), as far as proxies can use them. Pure.

Proxies refuse a set without a key that they can use, and with it all that they are told at once.
So nothing of a set is passed on but the members of its keys that are understood here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from meshd.base.errors import UNDECODABLE
from meshd.base.json_values import Json, JsonObject, text_in

LONGEST: Final = 256 * 1024
"""Bytes of a set."""
MOST_KEYS: Final = 100
"""Of one set: issuers have fewer than ten."""
_RSA_BITS: Final = range(1024, 8193)
_LARGEST_EXPONENT: Final = 2**32 - 1


class _Curve(NamedTuple):
    """The points for which y² = x³ - 3x + b modulo p (SEC 2, version 2)."""

    p: int
    b: int
    size: int
    """Bytes of a coordinate."""
    algorithm: str

    def has(self, x: int, y: int) -> bool:
        if not (0 <= x < self.p and 0 <= y < self.p):
            return False
        return (y * y - (x * x * x - 3 * x + self.b)) % self.p == 0


_CURVES: Final[Mapping[str, _Curve]] = {
    "P-256": _Curve(
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        32,
        "ES256",
    ),
    "P-384": _Curve(
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875A_C656398D8A2ED19D2A85C8EDD3EC2AEF,
        48,
        "ES384",
    ),
    "P-521": _Curve(
        2**521 - 1,
        0x0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF1_09E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
        66,
        "ES512",
    ),
}
_P256: Final = _CURVES["P-256"]
_OF_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_ED25519_BYTES: Final = 32


class KeySet(NamedTuple):
    """What proxies are told of a set."""

    text: str
    """JSON, the same for the same keys; empty: no key can be used."""
    left_out: tuple[str, ...] = ()
    """Why keys are left out, a line each."""


class NoKeySetError(ValueError):
    """A text is no set of keys, or has none that can be used."""


def key_set(text: str) -> KeySet:
    """Return the usable keys of a set. Raises NoKeySetError."""
    if len(text) > LONGEST:
        raise NoKeySetError(f"has {len(text)} characters, and at most {LONGEST} are taken")
    try:
        keys = msgspec.json.decode(text.encode(), type=_Set).keys
    except (*UNDECODABLE, UnicodeEncodeError) as error:
        raise NoKeySetError(f'is no JSON Web Key Set, such as {{"keys": […]}}: {error}') from None
    if len(keys) > MOST_KEYS:
        raise NoKeySetError(f"has {len(keys)} keys, and at most {MOST_KEYS} are taken")
    usable: list[JsonObject] = []
    left_out: list[str] = []
    for index, key in enumerate(keys):
        try:
            usable.append(_usable(key))
        except NoKeySetError as why:
            left_out.append(f"keys[{index}] {why}")
    if not usable:
        raise NoKeySetError("; ".join(left_out[:3]) or "has no keys")
    return KeySet(_written(usable), tuple(left_out))


class _Set(msgspec.Struct, frozen=True):
    keys: list[dict[str, Json]]


def _written(keys: list[JsonObject]) -> str:
    return json.dumps({"keys": keys}, sort_keys=True, separators=(",", ":"))


def _usable(key: JsonObject) -> JsonObject:
    """Return what proxies need of a key. Raises NoKeySetError."""
    if text_in(key.get("use")) not in {"", "sig"}:
        raise NoKeySetError("is not for signatures")
    match key.get("kty"):
        case "RSA":
            found = _rsa(key)
        case "EC":
            found = _elliptic(key)
        case "OKP":
            found = _edwards(key)
        case "oct":
            raise NoKeySetError("is a secret, which a set of public keys must not have")
        case other:
            raise NoKeySetError(f"has the unknown kty {other!r:.40}")
    kid = key.get("kid")
    if isinstance(kid, str) and kid:
        found["kid"] = kid
    elif kid is not None:
        raise NoKeySetError("has a kid that is no text")
    return found


def _rsa(key: JsonObject) -> JsonObject:
    algorithm = key.get("alg")
    if algorithm is not None and algorithm not in _OF_RSA:
        raise NoKeySetError(
            f"has the alg {algorithm!r:.40}, which is none of {', '.join(sorted(_OF_RSA))}"
        )
    modulus, exponent = _number(key, "n"), _number(key, "e")
    if modulus.bit_length() not in _RSA_BITS or modulus % 2 == 0:
        low, high = _RSA_BITS[0], _RSA_BITS[-1]
        raise NoKeySetError(f"has an n that is no product of primes of {low} to {high} bits")
    if not 3 <= exponent <= _LARGEST_EXPONENT or exponent % 2 == 0:
        raise NoKeySetError("has an e that is not odd, or not of 3 to 2³²-1")
    found: JsonObject = {"kty": "RSA", "n": _text(modulus), "e": _text(exponent)}
    return found | ({"alg": algorithm} if algorithm else {})


def _elliptic(key: JsonObject) -> JsonObject:
    name = text_in(key.get("crv"))
    curve = _CURVES.get(name)
    if curve is None:
        raise NoKeySetError(f"has a crv that is none of {', '.join(_CURVES)}")
    if key.get("alg") not in {None, curve.algorithm}:
        raise NoKeySetError(f"has another alg than {curve.algorithm}, which is that of {name}")
    x, y = _number(key, "x"), _number(key, "y")
    if not curve.has(x, y):
        raise NoKeySetError(f"is no point of {name}")
    size = curve.size
    return {
        "kty": "EC",
        "crv": name,
        "alg": curve.algorithm,
        "x": _text(x, size),
        "y": _text(y, size),
    }


def _edwards(key: JsonObject) -> JsonObject:
    if key.get("crv") != "Ed25519" or key.get("alg") not in {None, "EdDSA"}:
        raise NoKeySetError("is not of Ed25519 and EdDSA")
    if len(point := _bytes(key, "x")) != _ED25519_BYTES:
        raise NoKeySetError(f"has an x that is not of {_ED25519_BYTES} bytes")
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": _encoded(point)}


def _number(key: JsonObject, name: str) -> int:
    return int.from_bytes(_bytes(key, name), "big")


def _bytes(key: JsonObject, name: str) -> bytes:
    """Return a member in base64url without padding (RFC 7515, section 2). Raises NoKeySetError."""
    text = text_in(key.get(name)).rstrip("=")
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        found = b""
    if not found:
        raise NoKeySetError(f"has no {name} in base64url")
    return found


def _text(number: int, size: int = 0) -> str:
    return _encoded(number.to_bytes(max(size, (number.bit_length() + 7) // 8), "big"))


def on_p256(x: int) -> int | None:
    """Return the second coordinate of a point of P-256; None: there is no such point."""
    p = _P256.p
    y = pow(x * x * x - 3 * x + _P256.b, (p + 1) // 4, p)  # p is 3 modulo 4
    return y if _P256.has(x, y) else None


def encoded(coordinate: int) -> str:
    """Return a coordinate of P-256 as keys have it."""
    return _text(coordinate, _P256.size)


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
