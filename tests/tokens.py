"""Tokens of end users, signed with keys of the test's own, and issuers of keys."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import time
from typing import Any, Final, Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

Algorithm = Literal["RS256", "ES256", "EdDSA"]
ISSUER: Final = "https://issuer.test"
HOUR: Final = 3600


def text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def number(value: int, size: int = 0) -> str:
    return text(value.to_bytes(max(size, (value.bit_length() + 7) // 8), "big"))


@functools.cache
def _private(algorithm: Algorithm, name: str) -> Any:
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(65537, 2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of an issuer. Two of the same name and algorithm are the same."""

    name: str = "one"
    algorithm: Algorithm = "ES256"

    def public(self) -> dict[str, Any]:
        """As a set of keys has it."""
        known = _private(self.algorithm, self.name).public_key()
        named = {"kid": self.name, "alg": self.algorithm, "use": "sig"}
        match self.algorithm:
            case "RS256":
                found = known.public_numbers()
                return {"kty": "RSA", "n": number(found.n), "e": number(found.e)} | named
            case "ES256":
                found = known.public_numbers()
                point = {"x": number(found.x, 32), "y": number(found.y, 32)}
                return {"kty": "EC", "crv": "P-256"} | point | named
            case "EdDSA":
                return {"kty": "OKP", "crv": "Ed25519", "x": text(known.public_bytes_raw())} | named

    def signature(self, content: bytes) -> bytes:
        private = _private(self.algorithm, self.name)
        match self.algorithm:
            case "RS256":
                return private.sign(content, padding.PKCS1v15(), hashes.SHA256())
            case "ES256":
                pair = decode_dss_signature(private.sign(content, ec.ECDSA(hashes.SHA256())))
                return b"".join(part.to_bytes(32, "big") for part in pair)
            case "EdDSA":
                return private.sign(content)


def key_set(*keys: Key) -> str:
    return json.dumps({"keys": [key.public() for key in keys]})


def token(key: Key | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token for an hour, unless ``claims`` say otherwise; a claim of None is left out. Without a
    key it is not signed."""
    signed = key or Key()
    written = {"alg": signed.algorithm if key else "none", "kid": signed.name, "typ": "JWT"}
    said = {"iss": ISSUER, "sub": "ann", "exp": int(time.time()) + HOUR, **claims}
    known = {name: value for name, value in said.items() if value is not None}
    parts = [text(json.dumps(one).encode()) for one in (written | (header or {}), known)]
    content = ".".join(parts)
    return f"{content}.{text(signed.signature(content.encode())) if key else ''}"
