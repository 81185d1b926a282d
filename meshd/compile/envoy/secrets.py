"""Prints the secrets that proxies are sent."""

from __future__ import annotations

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from meshd.compile.plan.secrets import ServedCertificate, ServedSecret


def secret(plan: ServedSecret) -> secret_pb2.Secret:
    made = secret_pb2.Secret(name=plan.name)
    if isinstance(plan, ServedCertificate):
        made.tls_certificate.certificate_chain.inline_bytes = plan.chain
        made.tls_certificate.private_key.inline_bytes = plan.key
        return made
    made.validation_context.trusted_ca.inline_bytes = plan.roots
    if plan.revoked:
        made.validation_context.crl.inline_bytes = plan.revoked
    return made
