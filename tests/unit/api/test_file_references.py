"""Which files objects name, and what is said of them."""

from __future__ import annotations

from meshd.api import file_references
from meshd.api.read import read_objects
from meshd.config.requests import validate_sources

RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: out, namespace: shop}
spec:
  host: out.test
  trafficPolicy:
    tls: {mode: SIMPLE, caCertificates: /certs/ca.pem, caCrl: /certs/crl.pem}
    portLevelSettings:
    - port: {number: 443}
      tls: {mode: MUTUAL, clientCertificate: /certs/c.crt, privateKey: /certs/c.key}
  subsets:
  - {name: v1, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: system}}}
"""
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {app: edge}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [a.test]
    tls:
      mode: MUTUAL
      caCertificates: /certs/clients.pem
      tlsCertificates: [{serverCertificate: /certs/s.crt, privateKey: /elsewhere/s.key}]
"""
READS = read_objects(f"{RULE}---{GATEWAY}", "f.yaml")
OBJECTS = [read.object for read in READS]


def test_every_certificate_file_that_objects_name_is_found() -> None:
    assert file_references.names_of(OBJECTS) == (
        "file-root:/certs/ca.pem~/certs/crl.pem",
        "file-cert:/certs/c.crt~/certs/c.key",
        "file-cert:/certs/s.crt~/elsewhere/s.key",
        "file-root:/certs/clients.pem",
    )


def test_a_file_that_cannot_be_served_is_told_of_the_objects_that_name_it() -> None:
    states = {"file-cert:/certs/c.crt~/certs/c.key": "/certs/c.key: No such file or directory"}
    assert file_references.problems(OBJECTS, states) == (
        "DestinationRule shop/out: spec.trafficPolicy.portLevelSettings[0].tls: /certs/c.key: No "
        "such file or directory",
    )
    assert file_references.problems(OBJECTS, {}) == ()


def test_files_outside_of_the_directories_are_warned_of() -> None:
    (found,) = file_references.outside(READS, ("/certs",))
    assert found.severity == "warning"
    assert found.field == "spec.servers[0].tls.tlsCertificates[0].privateKey"
    assert found.line == 26
    assert "identity.certificate_directories" in found.message
    said = [one.message for one in validate_sources([("f.yaml", GATEWAY)], directories=("/srv",))]
    assert sum("is not read on a node" in one for one in said) == 3
