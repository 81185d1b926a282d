"""Kubernetes Secrets as the proxies are told of them."""

from __future__ import annotations

import base64
import time

import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from meshd.api.gateway.types import ServerTLSSettings
from meshd.api.kubernetes.types import Secret
from meshd.compile.envoy.secrets import secret as printed
from meshd.compile.gateway.secrets import Credential, Credentials, Need, credential
from meshd.compile.gateway.tls import secrets_needed
from meshd.compile.memo import Memo
from meshd.compile.plan.secrets import ServedSecret
from tests.pem import certificate_pem, key_pem, new_key, revocations_pem

KEY = new_key()
CERTIFICATE, PRIVATE, LIST = certificate_pem(KEY), key_pem(KEY), revocations_pem(KEY)
ROOT = certificate_pem(new_key(), "root", ca=True)


def secret(**entries: bytes) -> Secret:
    """``tls_crt`` for ``tls.crt``."""
    return Secret(
        string_data={name.replace("_", "."): text.decode() for name, text in entries.items()}
    )


def made(found: Secret, beside: Secret | None = None) -> Credential:
    return credential("edge/site", found, beside)


def _message(found: ServedSecret | None) -> secret_pb2.Secret:
    assert found
    return printed(found)


@pytest.mark.parametrize(("chain", "key"), [("tls_crt", "tls_key"), ("cert", "key")])
def test_a_certificate_has_either_of_two_pairs_of_names(chain: str, key: str) -> None:
    found = made(secret(**{chain: CERTIFICATE, key: PRIVATE}))

    assert found.problem == ""
    assert _message(found.certificate).name == "kubernetes://edge/site"
    assert _message(found.certificate).tls_certificate.certificate_chain.inline_bytes == CERTIFICATE
    assert _message(found.certificate).tls_certificate.private_key.inline_bytes == PRIVATE
    assert found.authority is None


def test_a_key_is_not_in_the_text_of_a_value() -> None:
    found = made(secret(tls_crt=CERTIFICATE, tls_key=PRIVATE))
    assert "kubernetes://edge/site" in repr(found)
    assert "PRIVATE KEY" not in repr(found)


def test_data_is_base64() -> None:
    data = {"tls.crt": CERTIFICATE, "tls.key": PRIVATE}
    encoded = {name: base64.b64encode(text).decode() for name, text in data.items()}
    assert _message(made(Secret(data=encoded)).certificate).tls_certificate.private_key


@pytest.mark.parametrize(("root", "revoked"), [("ca_crt", "ca_crl"), ("cacert", "crl")])
def test_a_secret_with_an_authority_only_is_one_to_verify_by(root: str, revoked: str) -> None:
    found = made(secret(**{root: ROOT, revoked: LIST}))

    assert found.certificate is None
    assert _message(found.authority).name == "kubernetes://edge/site-cacert"
    assert _message(found.authority).validation_context.trusted_ca.inline_bytes == ROOT
    assert _message(found.authority).validation_context.crl.inline_bytes == LIST
    assert found.problem == ""


def test_the_authority_may_stand_beside_the_secret() -> None:
    own = secret(cert=CERTIFICATE, key=PRIVATE)
    found = made(own, secret(cacert=ROOT, crl=LIST))

    assert _message(found.certificate).tls_certificate.certificate_chain.inline_bytes == CERTIFICATE
    assert _message(found.authority).validation_context.trusted_ca.inline_bytes == ROOT
    assert _message(found.authority).validation_context.crl.inline_bytes == LIST


def test_the_secret_of_an_authority_is_not_taken_for_a_certificate_of_that_name() -> None:
    secrets = {
        "e/a": secret(tls_crt=CERTIFICATE, tls_key=PRIVATE, ca_crt=ROOT),
        "e/a-cacert": secret(tls_crt=CERTIFICATE, tls_key=PRIVATE),
    }
    credentials = Credentials(secrets, Memo())
    for name in secrets:
        credentials.need(Need(name, "x", certificate=True, authority=False))

    names = [served.name for served in credentials.served()]
    assert len(names) == len(set(names)) == 3


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"tls_crt": CERTIFICATE, "tls_key": key_pem(new_key())}, "does not belong"),
        ({"tls_crt": b"rubbish", "tls_key": PRIVATE}, "certificate is not in PEM"),
        ({"tls_crt": CERTIFICATE}, "private key is not in PEM"),
        ({"other": b"x"}, "it has none of tls.crt, tls.key and ca.crt"),
    ],
)
def test_secrets_that_proxies_would_refuse_are_not_sent(
    entries: dict[str, bytes], said: str
) -> None:
    found = made(secret(**entries))
    assert found.certificate is None
    assert said in found.problem


def test_half_of_a_secret_may_be_usable() -> None:
    found = made(secret(tls_crt=CERTIFICATE, tls_key=PRIVATE, ca_crt=b"rubbish"))
    assert found.certificate is not None
    assert found.authority is None
    assert found.problem == "its authority is not in PEM"


def problem(need: Need, **secrets: Secret) -> str:
    credentials = Credentials({f"edge/{name}": one for name, one in secrets.items()}, Memo())
    credentials.need(need)
    (used,) = credentials.used()
    return used.problem(time.time())


SERVER = Need("edge/site", "Gateway default/g: server https", certificate=True, authority=False)
MUTUAL = Need("edge/site", "Gateway default/g: server https", certificate=True, authority=True)


def test_it_is_said_what_is_missing_where_and_for_whom() -> None:
    good = secret(tls_crt=CERTIFICATE, tls_key=PRIVATE)
    expired = secret(tls_crt=certificate_pem(KEY, ends=-1), tls_key=PRIVATE)

    assert problem(SERVER, site=good) == ""
    assert problem(SERVER, other=good) == (
        "Gateway default/g: server https: Secret edge/site: there is no such Secret; no connection "
        "succeeds there until it is mended"
    )
    assert "it has no ca.crt" in problem(MUTUAL, site=good)
    assert "it has no tls.crt" in problem(SERVER, site=secret(ca_crt=ROOT))
    assert "expired on" in problem(SERVER, site=expired)


def test_a_server_needs_the_secrets_that_it_shows_and_the_one_that_it_verifies_by() -> None:
    names = ("rsa", "ecdsa")
    mutual = ServerTLSSettings(
        mode="MUTUAL", credential_names=names, ca_cert_credential_name="clients"
    )
    both = ServerTLSSettings(mode="MUTUAL", credential_name="site")
    simple = ServerTLSSettings(mode="SIMPLE", credential_name="site")

    assert list(secrets_needed(mutual, "edge", "g")) == [
        Need("edge/rsa", "g", certificate=True, authority=False),
        Need("edge/ecdsa", "g", certificate=True, authority=False),
        Need("edge/clients", "g", certificate=False, authority=True),
    ]
    assert list(secrets_needed(both, "edge", "g")) == [Need("edge/site", "g", True, True)]
    assert list(secrets_needed(simple, "edge", "g")) == [Need("edge/site", "g", True, False)]
