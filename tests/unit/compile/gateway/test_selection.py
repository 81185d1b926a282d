"""Which workloads become gateways, and send in their own name what a Gateway lets in."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from meshd.api.gateway.types import GatewaySelection
from meshd.api.read import read_objects
from meshd.compile.compiled import Kind
from meshd.compile.compiler import Compiler
from meshd.compile.policy.acceptance import as_accepted
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import NamedPort, Workload
from meshd.registry.registry import build_snapshot
from tests.unit.compile.messages import as_messages

THEFT = """
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: bank}
spec: {clusterIP: 198.19.0.1, selector: {app: vault}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: alice, namespace: bank}
spec: {clusterIP: 198.19.0.2, selector: {app: alice}, ports: [{name: http, port: 8443}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bank}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: way-in, namespace: thief}
spec:
  selector: {app: alice}
  servers:
  - {port: {number: 8443, name: http, protocol: HTTP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: way-on, namespace: thief}
spec:
  hosts: ["*"]
  gateways: [way-in]
  http: [{route: [{destination: {host: vault.bank.svc.cluster.local}}]}]
"""
"""A stranger's requests are to reach the vault, which takes mutual TLS only, in the name of
alice."""


def workload(name: str, address: str) -> Workload:
    return Workload(
        uid=f"bank.{name}",
        name=name,
        namespace="bank",
        netns=f"/run/netns/{name}",
        service_account=name,
        labels={"app": name},
        addresses=(address,),
        ports=(NamedPort("http", 80),),
    )


ALICE, VAULT = workload("alice", "198.18.0.1"), workload("vault", "198.18.0.2")


DECLARED = (
    {"istio": "ingressgateway"},
    {"meshd.io/gateway": ""},
    {"gateway.networking.k8s.io/gateway-name": "edge"},
)
"""Labels by which alice says that she is a gateway."""


def taken(
    selection: GatewaySelection,
    text: str = THEFT,
    elsewhere: bool = False,
    labels: Mapping[str, str] = {},
) -> Snapshot:
    objects = [read.object for read in read_objects(text, "test.yaml")]
    options = MeshOptions(gateway_selection=selection)
    alice = msgspec.structs.replace(ALICE, labels={**ALICE.labels, **labels})
    own, others = ((VAULT,), (alice,)) if elsewhere else ((alice, VAULT), ())
    return build_snapshot(objects, own, options, {}, elsewhere=others)


def of_gateway(snapshot: Snapshot) -> list[str]:
    """The names of all that is compiled for the ports of the Gateway."""
    compiled = as_messages(Compiler().compile(snapshot, snapshot.workloads))[Pool.TRAFFIC]
    routes = compiled[Kind.ROUTE].items()
    return [name for name, found in routes if "way-on" in str(found)]


def test_a_stranger_reaches_a_strict_server_in_the_name_of_anothers_workload_unless_told() -> None:
    assert of_gateway(taken("any-namespace"))
    assert not of_gateway(taken("own-namespace"))
    assert not of_gateway(taken(MeshOptions().gateway_selection))


@pytest.mark.parametrize("labels", DECLARED)
def test_by_default_gateways_of_other_namespaces_serve_what_selects_them(
    labels: Mapping[str, str],
) -> None:
    assert of_gateway(taken("declared-gateways", labels=labels))
    assert not of_gateway(taken("own-namespace", labels=labels))


def test_the_result_is_the_same_as_without_the_gateway() -> None:
    without = "---".join(one for one in THEFT.split("---") if "namespace: thief" not in one)

    def compiled(text: str) -> object:
        snapshot = taken("own-namespace", text)
        return as_messages(Compiler().compile(snapshot, snapshot.workloads))

    with_theft, plain = compiled(THEFT), compiled(without)
    assert with_theft == plain


def test_a_gateway_selects_workloads_of_its_own_namespace_always() -> None:
    own = THEFT.replace("namespace: thief", "namespace: bank")
    assert of_gateway(taken("own-namespace", own))


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    ("selection", "is_gateway"),
    [("any-namespace", True), ("own-namespace", False), ("declared-gateways", False)],
)
def test_clients_and_applications_do_not_take_it_for_a_gateway(
    selection: GatewaySelection, is_gateway: bool, elsewhere: bool
) -> None:
    """Clients would speak plaintext to its ports, and applications would believe what it says of
    its callers."""
    snapshot = taken(selection, elsewhere=elsewhere)
    assert (("bank", "alice") in snapshot.gateway_accounts) is is_gateway
    (place,) = as_accepted(snapshot).services["alice.bank.svc.cluster.local"].endpoints
    assert place.mutual_tls is not is_gateway


def test_a_workload_that_comes_later_is_no_gateway_either() -> None:
    whole = taken("own-namespace")
    compiler = Compiler()
    alone = {VAULT.uid: VAULT}
    compiler.compile(msgspec.structs.replace(whole, workloads=alone), alone)
    after = as_messages(compiler.compile(whole, whole.workloads))
    assert after == as_messages(Compiler().compile(whole, whole.workloads))
    assert not [one for one in after[Pool.TRAFFIC][Kind.ROUTE].values() if "way-on" in str(one)]
