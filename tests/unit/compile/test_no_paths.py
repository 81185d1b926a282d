"""Proxies open nothing that configuration names: no file, no socket, no program."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from tests.unit.compile.messages import opened
from tests.unit.compile.test_compiler import compiled, snapshot, workload

WORD = "/planted"
"""In every path that the input names; no path of our own has it."""
GATEWAY = f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  selector: {{app: edge}}
  servers:
  - port: {{number: 443, name: one, protocol: HTTPS}}
    hosts: [one.test]
    tls:
      mode: MUTUAL
      serverCertificate: {WORD}/a.crt
      privateKey: {WORD}/a.key
      caCertificates: {WORD}/ca.crt
      caCrl: {WORD}/ca.crl
  - port: {{number: 443, name: several, protocol: HTTPS}}
    hosts: [several.test]
    tls:
      mode: OPTIONAL_MUTUAL
      tlsCertificates:
      - {{serverCertificate: {WORD}/b.crt, privateKey: {WORD}/b.key}}
      - {{serverCertificate: {WORD}/c.crt, privateKey: {WORD}/c.key, caCertificates: {WORD}/c.ca}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: edge}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{{route: [{{destination: {{host: reviews}}}}]}}]
---
"""
RULE = f"""
apiVersion: v1
kind: Service
metadata: {{name: reviews}}
spec: {{selector: {{app: reviews}}, ports: [{{name: http, port: 80}}, {{name: tls, port: 443}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews}}
spec:
  host: reviews
  trafficPolicy:
    tls:
      mode: MUTUAL
      clientCertificate: {WORD}/d.crt
      privateKey: {WORD}/d.key
      caCertificates: {WORD}/d.ca
      caCrl: {WORD}/d.crl
    portLevelSettings:
    - {{port: {{number: 443}}, tls: {{mode: SIMPLE, caCertificates: {WORD}/e.ca}}}}
  subsets:
  - {{name: v1, trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: {WORD}/f.ca}}}}}}
---
"""
SYSTEM = RULE.replace("caCertificates: /planted/e.ca", "sni: x.test")
NAMES = {"envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig.name"}
"""Fields where a path is part of a name."""
PATHS = {
    "envoy.config.core.v3.DataSource.filename",
    "envoy.config.core.v3.DataSource.environment_variable",
    "envoy.config.core.v3.Pipe.path",
    "envoy.config.core.v3.WatchedDirectory.path",
    "envoy.config.core.v3.ConfigSource.path",
    "envoy.config.core.v3.PathConfigSource.path",
    "envoy.extensions.access_loggers.file.v3.FileAccessLog.path",
}
"""Fields by which a proxy opens something."""
LOG = "/dev/stdout"


def texts(message: Message) -> Iterator[tuple[str, str]]:
    """Each text in a message and in those packed into it, with the full name of its field."""
    for field, value in message.ListFields():
        if field.message_type is None:
            values = value if field.is_repeated else [value]
            yield from ((field.full_name, str(one)) for one in values)
        elif field.message_type.GetOptions().map_entry:
            for key, one in value.items():
                yield from texts(one) if isinstance(one, Message) else [(field.full_name, str(one))]
                yield field.full_name, str(key)
        else:
            for one in value if field.is_repeated else [value]:
                yield from texts(opened(one))


def everything(text: str) -> list[tuple[str, str]]:
    resources = compiled(snapshot(text, workload("edge", 1), workload("reviews", 1)))
    return [
        found
        for messages in resources.values()
        for message in messages.values()
        for found in texts(message)
    ]


def test_what_configuration_names_is_asked_for_by_name_and_neveropened() -> None:
    found = everything(GATEWAY + RULE)

    planted = {(field, text) for field, text in found if WORD in text}
    assert {field for field, _ in planted} == NAMES
    assert {text for _, text in planted} == {
        "file-cert:/planted/a.crt~/planted/a.key",
        "file-root:/planted/ca.crt~/planted/ca.crl",
        "file-cert:/planted/b.crt~/planted/b.key",
        "file-cert:/planted/c.crt~/planted/c.key",
        "file-root:/planted/c.ca",
        "file-cert:/planted/d.crt~/planted/d.key",
        "file-root:/planted/d.ca~/planted/d.crl",
        "file-root:/planted/e.ca",
        "file-root:/planted/f.ca",
    }


def test_nothing_is_opened_at_all_but_the_log() -> None:
    found = everything(GATEWAY + SYSTEM)

    opened = {text for field, text in found if field in PATHS}
    assert opened <= {LOG}, opened
    assert (
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig.name",
        "file-root:system",
    ) in (found)
