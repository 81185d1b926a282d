"""A real proxy takes the credentials that are judged usable, and refuses those that are not."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import envoy
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from meshd.base.credentials import check_authority, check_certificate
from meshd.base.errors import InvalidInputError
from tests.pem import certificate_pem, key_pem, new_key, revocations_pem, rsa_key

ENVOY = Path(envoy.__path__[0]) / "_bin" / "envoy"
_CONTEXT = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
_BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
KEY = new_key()
GOOD = certificate_pem(KEY)


def _pairs() -> Iterator[tuple[str, bytes, bytes]]:
    plain = key_pem(KEY)
    yield "good", GOOD, plain
    yield "another's key", GOOD, key_pem(new_key())
    for bits in (1024, 2048):
        key = rsa_key(bits)
        yield f"RSA of {bits}", certificate_pem(key), key_pem(key)
    for curve in (ec.SECP384R1(), ec.SECP224R1(), ec.SECP256K1()):
        narrow = new_key(curve)
        yield curve.name, certificate_pem(narrow), key_pem(narrow)
    other = ed25519.Ed25519PrivateKey.generate()
    yield "Ed25519", certificate_pem(other), key_pem(other)
    yield "old layout", GOOD, key_pem(KEY, serialization.PrivateFormat.TraditionalOpenSSL)
    yield "with a password", GOOD, key_pem(KEY, password=b"x")
    yield "chain in the wrong order", certificate_pem(new_key()) + GOOD, plain
    yield "broken end of the chain", GOOD + _BROKEN, plain
    yield "text around", b"Bag Attributes\n" + GOOD + b"end", b"a key:\n" + plain
    yield "two keys", GOOD, key_pem(new_key()) + plain
    yield "expired", certificate_pem(KEY, ends=-1), plain
    yield "an old name", GOOD.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"), plain
    yield "DER", base64.b64decode(b"".join(GOOD.splitlines()[1:-1])), plain
    yield "no newline", GOOD.rstrip(), plain.rstrip()


def _authorities() -> Iterator[tuple[str, bytes, bytes]]:
    yield "good", GOOD, b""
    yield "with a list", GOOD, revocations_pem(KEY)
    yield "broken second", GOOD + _BROKEN, b""
    yield "rubbish", b"rubbish", b""
    broken = revocations_pem(KEY).replace(b"\n", b"\nAAAA", 1)
    yield "broken list", GOOD, broken


def _is_taken(directory: Path, **context: Any) -> bool:
    """By a listener of an Envoy that only looks at its configuration."""
    socket = {"@type": f"type.googleapis.com/{_CONTEXT}", "common_tls_context": context}
    chain = {"transport_socket": {"name": "tls", "typed_config": socket}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    listener = {"name": "one", "address": address, "filter_chains": [chain]}
    config = directory / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [listener]}}))
    command = (str(ENVOY), "--mode", "validate", "-c", str(config), "--log-level", "off")
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def _inline(content: bytes) -> dict[str, str]:
    return {"inline_bytes": base64.b64encode(content).decode()}


def _pair(chain: bytes, key: bytes) -> dict[str, Any]:
    return {
        "tls_certificates": [{"certificate_chain": _inline(chain), "private_key": _inline(key)}]
    }


def _passes(check: Callable[[bytes, bytes], Any], one: bytes, other: bytes) -> bool:
    try:
        check(one, other)
    except InvalidInputError:
        return False
    return True


@pytest.mark.parametrize(
    ("chain", "key"), [pytest.param(*pair, id=name) for name, *pair in _pairs()]
)
def test_pairs_are_judged_as_a_proxy_does(tmp_path: Path, chain: bytes, key: bytes) -> None:
    assert _passes(check_certificate, chain, key) == _is_taken(tmp_path, **_pair(chain, key))


@pytest.mark.parametrize(
    ("roots", "revoked"), [pytest.param(*given, id=name) for name, *given in _authorities()]
)
def test_authorities_are_judged_as_a_proxy_does(
    tmp_path: Path, roots: bytes, revoked: bytes
) -> None:
    validation = {"trusted_ca": _inline(roots)} | ({"crl": _inline(revoked)} if revoked else {})
    taken = _is_taken(tmp_path, validation_context=validation, **_pair(GOOD, key_pem(KEY)))
    assert _passes(check_authority, roots, revoked) == taken
