# pyright: reportAttributeAccessIssue=false
"""Kubernetes Secrets as the proxies are told of them."""

from __future__ import annotations

from meshd.compile.gateway_tls import credentials
from meshd.compile.secrets import gateway_secrets
from meshd.model.gateways import ServerTLSSettings
from meshd.model.kubernetes import Secret


def test_a_secret_with_an_authority_only_is_one_to_verify_by() -> None:
    secret = Secret(string_data={"ca.crt": "root", "ca.crl": "revoked"})
    (found,) = gateway_secrets({"edge/clients": secret}, ["edge/clients"])

    assert found.name == "kubernetes://edge/clients-cacert"
    assert found.validation_context.trusted_ca.inline_bytes == b"root"
    assert found.validation_context.crl.inline_bytes == b"revoked"


def test_the_list_of_revoked_certificates_may_stand_beside_the_secret() -> None:
    own = Secret(string_data={"cert": "c", "key": "k"})
    beside = Secret(string_data={"cacert": "root", "crl": "revoked"})
    certificate, authority = gateway_secrets({"e/c": own, "e/c-cacert": beside}, ["e/c"])

    assert certificate.tls_certificate.certificate_chain.inline_bytes == b"c"
    assert authority.validation_context.crl.inline_bytes == b"revoked"


def test_a_server_needs_the_secrets_that_it_shows_and_the_one_that_it_verifies_by() -> None:
    names = ("rsa", "ecdsa")
    mutual = ServerTLSSettings(
        mode="MUTUAL", credential_names=names, ca_cert_credential_name="clients"
    )
    simple = ServerTLSSettings(mode="SIMPLE", credential_name="site")

    assert list(credentials(mutual, "edge")) == ["edge/rsa", "edge/ecdsa", "edge/clients"]
    assert list(credentials(simple, "edge")) == ["edge/site"]
