# pyright: reportAttributeAccessIssue=false
"""Kubernetes TLS Secrets as Envoy's: what gateways and rules with ``credentialName`` present.

Istio's keys: ``tls.crt``, ``tls.key``, ``ca.crt`` and ``ca.crl`` (or ``cert``, ``key``, ``cacert``,
``crl``):
https://istio.io/latest/docs/tasks/traffic-management/ingress/secure-ingress/#key-formats.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2

from meshd.compile.destination_rules import RuleSet
from meshd.compile.names import kubernetes_secret
from meshd.model.kubernetes import Secret


def gateway_secrets(secrets: Mapping[str, Secret], wanted: Iterable[str]) -> Iterator[Any]:
    """For ``NAMESPACE/NAME``: a certificate with its key, and ``…-cacert`` for its ``ca.crt``.

    What is not there or not complete is left out: its listeners wait for it.
    """
    for name in sorted(wanted):
        if (secret := secrets.get(name)) is None:
            continue
        chain, key, authority, revoked = (
            _entry(secret, *keys)
            for keys in (
                ("tls.crt", "cert"),
                ("tls.key", "key"),
                ("ca.crt", "cacert"),
                ("ca.crl", "crl"),
            )
        )
        if chain and key:
            certificate = common_pb2.TlsCertificate(
                certificate_chain=base_pb2.DataSource(inline_bytes=chain),
                private_key=base_pb2.DataSource(inline_bytes=key),
            )
            yield secret_pb2.Secret(name=kubernetes_secret(name), tls_certificate=certificate)
        if not authority and (beside := secrets.get(f"{name}-cacert")):
            authority = _entry(beside, "ca.crt", "cacert")
            revoked = revoked or _entry(beside, "ca.crl", "crl")
        if authority:
            validation = common_pb2.CertificateValidationContext(
                trusted_ca=base_pb2.DataSource(inline_bytes=authority),
                crl=base_pb2.DataSource(inline_bytes=revoked) if revoked else None,
            )
            yield secret_pb2.Secret(
                name=kubernetes_secret(f"{name}-cacert"), validation_context=validation
            )


def rule_credentials(rules: RuleSet) -> Iterator[str]:
    """Secrets that DestinationRules name, as ``NAMESPACE/NAME``."""
    subsets = rules.spec.subsets if rules.spec else ()
    for policy in (rules.policy, *(subset.traffic_policy for subset in subsets)):
        for part in (policy, *policy.port_level_settings) if policy else ():
            if part.tls and (name := part.tls.credential_name):
                yield name if "/" in name else f"{rules.namespace}/{name}"


def _entry(secret: Secret, *keys: str) -> bytes:
    """The first of these keys that the secret has, decoded; empty if there is none."""
    for key in keys:
        if text := secret.string_data.get(key):
            return text.encode()
        if encoded := secret.data.get(key):
            try:
                return base64.b64decode(encoded)
            except binascii.Error:
                return b""
    return b""
