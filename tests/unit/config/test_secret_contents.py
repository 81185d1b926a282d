"""What a Secret holds is judged when it is applied, and when it is validated."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from meshd.api.finding import Finding
from meshd.config import requests
from meshd.config.store import Store
from meshd.wire import Apply, Rejected
from tests.pem import certificate_pem, key_pem, new_key, revocations_pem
from tests.unit import storing

KEY = new_key()
CERTIFICATE, PRIVATE, OTHER = certificate_pem(KEY), key_pem(KEY), key_pem(new_key())


def secret(kind: str = "Opaque", **entries: bytes) -> str:
    """``tls_crt`` for ``tls.crt``."""
    data = {
        name.replace("_", "."): base64.b64encode(content).decode()
        for name, content in entries.items()
    }
    metadata = {"name": "s", "namespace": "edge"}
    found = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind}
    return json.dumps({**found, "data": data})


def said(text: str) -> list[tuple[str, str, str]]:
    found: tuple[Finding, ...] = requests.validate_sources((("f.yaml", text),))
    return [(one.severity, one.field, one.message) for one in found]


@pytest.mark.parametrize(
    "text",
    [
        secret("kubernetes.io/tls", tls_crt=CERTIFICATE, tls_key=PRIVATE),
        secret(tls_crt=CERTIFICATE, tls_key=PRIVATE, ca_crt=CERTIFICATE),
        secret(cert=CERTIFICATE, key=PRIVATE, cacert=CERTIFICATE, crl=revocations_pem(KEY)),
        secret(ca_crt=CERTIFICATE),
        secret(ca_crt=b"", tls_crt=CERTIFICATE, tls_key=PRIVATE),
        secret(cert=b"a certificate of another kind", key=b"a password"),
        secret(anything=b"\x00"),
        secret(),
    ],
)
def test_secrets_that_proxies_can_use_or_do_not_know_are_valid(text: str) -> None:
    assert said(text) == []


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (
            secret("kubernetes.io/tls", tls_crt=CERTIFICATE, tls_key=OTHER),
            "data.tls.crt",
            "its private key does not belong to its certificate",
        ),
        (secret(tls_crt=CERTIFICATE, tls_key=OTHER), "data.tls.crt", "does not belong"),
        (secret(cert=CERTIFICATE, key=OTHER), "data.cert", "does not belong"),
        (secret(tls_crt=b"x", tls_key=PRIVATE), "data.tls.crt", "certificate is not in PEM"),
        (secret(tls_crt=CERTIFICATE, tls_key=b"x"), "data.tls.crt", "private key is not in PEM"),
        (secret(tls_crt=CERTIFICATE[:90], tls_key=PRIVATE), "data.tls.crt", "cannot be read"),
        (secret(ca_crt=b"x"), "data.ca.crt", "its authority is not in PEM"),
        (secret(ca_crt=CERTIFICATE, ca_crl=b"x"), "data.ca.crt", "revocation list is not in PEM"),
    ],
)
def test_secrets_that_no_proxy_would_take_are_errors(text: str, field: str, message: str) -> None:
    ((severity, where, why),) = said(text)
    assert severity == "error"
    assert where.replace('"', "").replace("[", ".").replace("]", "") == field
    assert message in why


@pytest.mark.parametrize(
    ("life", "message"),
    [((-30, -1), "expired on"), ((1, 30), "is not valid before")],
)
def test_a_certificate_out_of_date_is_a_warning(life: tuple[float, float], message: str) -> None:
    begins, ends = life
    chain = certificate_pem(KEY, begins=begins, ends=ends)
    text = secret("kubernetes.io/tls", tls_crt=chain, tls_key=PRIVATE)
    ((severity, _, why),) = said(text)
    assert severity == "warning"
    assert message in why


def test_applying_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "config.d").mkdir()
    store = Store(tmp_path / "config.d", tmp_path / "lib")
    bad = secret("kubernetes.io/tls", tls_crt=CERTIFICATE, tls_key=OTHER)
    answer = storing.apply(store, Apply((("-", bad),)))
    assert isinstance(answer, Rejected)
    assert not store.objects
    late = secret("kubernetes.io/tls", tls_crt=certificate_pem(KEY, ends=-1), tls_key=PRIVATE)
    answer = storing.apply(store, Apply((("-", late),)))
    assert not isinstance(answer, Rejected)
    assert "expired on" in answer.warnings[0]
