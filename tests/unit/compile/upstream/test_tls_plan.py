"""When mutual TLS is spoken, and to whom."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshd.api.networking import ClientTLSSettings
from meshd.api.protocol import Protocol
from meshd.compile.names import OutboundCluster
from meshd.compile.plan.tls import TlsMode, TlsPlan
from meshd.compile.upstream.tls_plan import tls_plan
from meshd.model.service import Endpoint, ServiceRecord

CLUSTER = OutboundCluster(80, "db.default.svc.cluster.local", "v1")


def endpoint(account: str, *, mutual_tls: bool = True) -> Endpoint:
    return Endpoint(
        address="198.18.0.1",
        port=80,
        service_port=80,
        service_account=account,
        namespace="default",
        mutual_tls=mutual_tls,
    )


def plan(
    *endpoints: Endpoint,
    settings: dict[str, Any] | None = None,
    protocol: Protocol = Protocol.TCP,
    original_destination: bool = False,
    host: str = CLUSTER.host,
    external: bool = False,
) -> TlsPlan:
    record = ServiceRecord(host=host, namespace="default", endpoints=endpoints, external=external)
    asked = None if settings is None else msgspec.convert(settings, ClientTLSSettings)
    return tls_plan(
        CLUSTER,
        record,
        protocol,
        asked,
        "mesh.test",
        original_destination=original_destination,
        credential_namespace="rules",
    )


def test_each_endpoint_decides_where_no_rule_does() -> None:
    found = plan(endpoint("b"), endpoint("a"), endpoint("a"), endpoint("plain", mutual_tls=False))

    assert found.mode is TlsMode.AUTO
    assert found.sni == "outbound_.80_.v1_.db.default.svc.cluster.local"
    assert found.subject_alt_names == (
        "spiffe://mesh.test/ns/default/sa/a",
        "spiffe://mesh.test/ns/default/sa/b",
    )


def test_external_services_are_spoken_to_in_clear_text() -> None:
    assert plan(endpoint("a"), external=True).mode is TlsMode.PLAIN


def test_a_rule_for_mutual_tls_names_the_accounts_of_endpoints_in_clear_text_too() -> None:
    """Such as gateways: not just anybody of the mesh may serve them."""
    found = plan(endpoint("edge", mutual_tls=False), settings={"mode": "ISTIO_MUTUAL"})

    assert found.subject_alt_names == ("spiffe://mesh.test/ns/default/sa/edge",)


def test_rule_can_switch_mutual_tls_off_and_on() -> None:
    assert plan(endpoint("a"), settings={"mode": "DISABLE"}).mode is TlsMode.PLAIN
    assert plan(endpoint("a"), settings={"mode": "ISTIO_MUTUAL"}).mode is TlsMode.MESH


@pytest.mark.parametrize(
    ("endpoints", "mode"),
    [
        ((endpoint("a"),), TlsMode.MESH),
        ((endpoint("a"), endpoint("b", mutual_tls=False)), TlsMode.PLAIN),
        ((), TlsMode.PLAIN),
    ],
)
def test_original_destination_is_secured_only_where_all_endpoints_can(
    endpoints: tuple[Endpoint, ...], mode: TlsMode
) -> None:
    assert plan(*endpoints, original_destination=True).mode is mode


def test_protocol_inside_is_announced() -> None:
    assert plan(protocol=Protocol.HTTP).alpn[0] == "istio-http/1.1"
    assert plan(protocol=Protocol.GRPC).alpn == ("istio-h2",)
    assert plan(protocol=Protocol.TCP).alpn == ("istio-peer-exchange", "istio")


def test_simple_tls_goes_to_the_host_by_its_name() -> None:
    simple = plan(settings={"mode": "SIMPLE"}, host="example.com", external=True)
    wildcard = plan(settings={"mode": "SIMPLE"}, host="*.example.com")
    named = plan(settings={"mode": "SIMPLE", "sni": "other", "insecureSkipVerify": True})

    assert (simple.mode, simple.sni, simple.alpn) == (TlsMode.SIMPLE, "example.com", ())
    assert wildcard.sni == ""
    assert (named.sni, named.insecure_skip_verify) == ("other", True)


def test_secret_is_looked_for_beside_the_rule() -> None:
    found = plan(settings={"mode": "MUTUAL", "credentialName": "client"}, protocol=Protocol.HTTP2)

    assert found == TlsPlan(
        mode=TlsMode.MUTUAL,
        sni=CLUSTER.host,
        alpn=("h2",),
        certificate="kubernetes://rules/client",
        authority="kubernetes://rules/client-cacert",
    )
