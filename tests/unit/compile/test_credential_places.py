"""Secrets are those of the proxy's own namespace, and a bad one costs only what names it."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import pytest
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.api.kubernetes.types import Secret
from meshd.api.read import read_objects
from meshd.compile.compiled import Compiled, Kind
from meshd.compile.compiler import Compiler
from meshd.compile.names import certificate_secret
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot
from tests.pem import certificate_pem, key_pem, new_key
from tests.unit.compile.messages import as_messages

OBJECTS = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: config}
spec:
  selector: {istio: edge}
  servers:
  - port: {number: 443, name: good, protocol: HTTPS}
    hosts: [good.test]
    tls: {mode: SIMPLE, credentialName: good}
  - port: {number: 443, name: other, protocol: HTTPS}
    hosts: [other.test]
    tls: {mode: MUTUAL, credentialName: other}
  - port: {number: 443, name: two, protocol: HTTPS}
    hosts: [two.test]
    tls: {mode: SIMPLE, credentialNames: [good, other]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: config}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{route: [{destination: {host: out.test}}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: config}
spec:
  hosts: [out.test]
  addresses: [198.19.0.1]
  resolution: DNS
  ports: [{number: 443, name: https, protocol: HTTPS}, {number: 80, name: http, protocol: HTTP}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: out, namespace: config}
spec:
  host: out.test
  trafficPolicy: {tls: {mode: MUTUAL, credentialName: client}}
"""
KEY, CA = new_key(), new_key()


def secret(namespace: str, name: str, key: Any = KEY, *, root: bool = True) -> Secret:
    entries = {"tls.crt": certificate_pem(KEY), "tls.key": key_pem(key)}
    entries |= {"ca.crt": certificate_pem(CA, ca=True)} if root else {}
    text = {one: value.decode() for one, value in entries.items()}
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": namespace}, "stringData": text}, Secret
    )


def workload(namespace: str, **labels: str) -> Workload:
    name = labels.get("app", namespace)
    return Workload(
        uid=f"{namespace}.{name}",
        name=name,
        namespace=namespace,
        netns="/n",
        labels=labels,
        enrolled=True,
    )


EDGE = workload("edge", istio="edge")
CLIENT = workload("shop", app="client")


class World:
    """Compiles one thing after another, as a node does."""

    def __init__(self) -> None:
        self.compiler = Compiler()

    def compiled(self, *secrets: Secret, text: str = OBJECTS, clients: Any = (EDGE,)) -> Compiled:
        objects = [*(read.object for read in read_objects(text, "t.yaml")), *secrets]
        snapshot = build_snapshot(objects, clients, MeshOptions(), {})
        return as_messages(self.compiler.compile(snapshot, snapshot.workloads))[Pool.TRAFFIC]


def asked(socket: Any, kind: Any = tls_pb2.DownstreamTlsContext) -> set[str]:
    """Names of the secrets in a transport socket."""
    context = kind()
    socket.typed_config.Unpack(context)
    common = context.common_tls_context
    names = {one.name for one in common.tls_certificate_sds_secret_configs}
    if common.HasField("combined_validation_context"):
        names.add(common.combined_validation_context.validation_context_sds_secret_config.name)
    return names


def chains(compiled: Compiled) -> dict[str, Any]:
    (listener,) = (one for name, one in compiled[Kind.LISTENER].items() if "gateway|443" in name)
    return {chain.name.rpartition("/")[2]: chain for chain in listener.filter_chains}


def upstream(compiled: Compiled, port: int = 80) -> dict[str, Any]:
    return {
        name: one
        for name, one in compiled[Kind.CLUSTER].items()
        if name.startswith(f"outbound|{port}||out.test")
    }


def shown(cluster: Any) -> set[str]:
    if not cluster.HasField("transport_socket"):
        return set()
    return asked(cluster.transport_socket, tls_pb2.UpstreamTlsContext)


def test_a_gateway_shows_what_is_in_the_namespace_of_its_workload() -> None:
    world = World()
    there = world.compiled(
        secret("edge", "good"), secret("edge", "other"), secret("config", "good")
    )

    assert asked(chains(there)["good"].transport_socket) == {"kubernetes://edge/good"}
    assert asked(chains(there)["other"].transport_socket) == {
        "kubernetes://edge/other",
        "kubernetes://edge/other-cacert",
    }
    assert not [name for name in there[Kind.SECRET] if "config" in name]
    assert "kubernetes://edge/good" in there[Kind.SECRET]


def test_beside_the_gateway_object_it_is_not_looked_for() -> None:
    world = World()
    there = world.compiled(secret("config", "good"), secret("config", "other"))

    assert there[Kind.SECRET] == {}
    said = [used.problem(0) for used in world.compiler.credentials]
    assert any(
        "Gateway config/edge: server good: Secret edge/good: there is no" in one for one in said
    )


@pytest.mark.parametrize(
    "bad", [(), (secret("edge", "other", new_key()),), (secret("edge", "other", root=False),)]
)
def test_a_bad_secret_costs_its_own_host_only(bad: tuple[Secret, ...]) -> None:
    """Missing, with another's key, without the authority that is needed."""
    world = World()
    good = secret("edge", "good")
    before = chains(world.compiled(good, secret("edge", "other")))
    there = world.compiled(good, *bad)
    after = chains(there)

    assert after["good"] == before["good"]
    assert not asked(after["other"].transport_socket) <= there[Kind.SECRET].keys()
    assert (
        "kubernetes://edge/good"
        in asked(after["two"].transport_socket)
        <= (there[Kind.SECRET].keys())
    )


def test_a_secret_that_is_deleted_is_named_no_more() -> None:
    world = World()
    world.compiled(secret("edge", "good"), secret("edge", "client"))
    there = world.compiled()
    (cluster,) = (one for name, one in upstream(there).items() if "%edge" in name)

    assert "kubernetes://edge/good" not in asked(chains(there)["good"].transport_socket)
    assert not shown(cluster) & {"kubernetes://edge/client", "kubernetes://edge/client-cacert"}
    assert shown(cluster)


def test_a_rules_secret_is_the_gateways_own_and_others_speak_plainly() -> None:
    world = World()
    there = world.compiled(
        secret("edge", "client"), secret("config", "client"), clients=(EDGE, CLIENT)
    )
    clusters = upstream(there)

    assert set(clusters) == {"outbound|80||out.test", "outbound|80||out.test@%edge"}
    assert shown(clusters["outbound|80||out.test@%edge"]) == {
        "kubernetes://edge/client",
        "kubernetes://edge/client-cacert",
    }
    assert not shown(clusters["outbound|80||out.test"])
    assert "kubernetes://config/client" not in there[Kind.SECRET]


def test_gateways_of_two_namespaces_show_their_own() -> None:
    second = msgspec.structs.replace(EDGE, uid="edge2.edge", namespace="edge2")
    there = World().compiled(
        secret("edge", "client"), secret("edge2", "client"), clients=(EDGE, second)
    )

    own = [one for name, one in sorted(upstream(there).items()) if "%" in name]
    assert [sorted(shown(one))[0] for one in own] == [
        "kubernetes://edge/client",
        "kubernetes://edge2/client",
    ]


def test_a_rule_with_a_selector_is_for_the_workloads_that_it_selects() -> None:
    selector = "workloadSelector: {matchLabels: {app: client}}\n  host: out.test"
    head, rule = OBJECTS.split("kind: DestinationRule")
    rule = rule.replace("namespace: config", "namespace: shop").replace("host: out.test", selector)
    text = f"{head}kind: DestinationRule{rule}"
    other = workload("shop", app="other")
    there = World().compiled(secret("shop", "client"), text=text, clients=(CLIENT, other))
    with_secret = [one for one in upstream(there).values() if shown(one)]

    assert len(with_secret) == 1
    assert shown(with_secret[0]) == {"kubernetes://shop/client", "kubernetes://shop/client-cacert"}


def test_a_secret_of_another_namespace_is_nobodys() -> None:
    text = OBJECTS.replace("credentialName: client", "credentialName: config/client")
    there = World().compiled(secret("config", "client"), secret("edge", "client"), text=text)
    (cluster,) = (one for name, one in upstream(there).items() if "%edge" in name)

    assert shown(cluster)
    assert not shown(cluster) & there[Kind.SECRET].keys()


RENEWED = new_key()


def renewed(one: Secret) -> Secret:
    """Return a Secret with another certificate and its key."""
    entries = one.string_data | {
        "tls.crt": certificate_pem(RENEWED).decode(),
        "tls.key": key_pem(RENEWED).decode(),
    }
    return msgspec.structs.replace(one, string_data=entries)


def test_a_renewed_secret_makes_what_proxies_are_sent_of_it_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, other = secret("edge", "good"), secret("edge", "other")
    new, world = renewed(good), World()
    before = world.compiled(good, other)
    with monkeypatch.context() as patched:
        patched.delattr(Compiler, "_compiled")  # all is compiled no more
        after = world.compiled(new, other)
    assert after == World().compiled(new, other)
    assert [kind for kind in Kind if after[kind] != before[kind]] == [Kind.SECRET]
    names = before[Kind.SECRET].keys()
    changed = {name for name in names if before[Kind.SECRET][name] != after[Kind.SECRET][name]}
    assert changed == {certificate_secret("edge/good")}
    assert not [one.problem(0.0) for one in world.compiler.credentials if one.need.name == "good"]


@functools.cache
def versions(name: str) -> tuple[tuple[Secret, ...], ...]:
    """Return what there may be of a Secret."""
    beside = secret("edge", f"{name}-cacert")
    whole, bare = secret("edge", name), secret("edge", name, root=False)
    return (), (whole,), (renewed(whole),), (bare,), (secret("edge", name, CA),), (bare, beside)


NAMES = ("good", "other", "client")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*(st.integers(0, 5) for _ in NAMES)), max_size=6))
def test_after_each_change_of_secrets_the_result_is_that_of_a_fresh_compiler(
    sequence: list[tuple[int, ...]],
) -> None:
    world = World()
    for which in sequence:
        there = [
            one for name, number in zip(NAMES, which, strict=True) for one in versions(name)[number]
        ]
        fresh = World()
        compiled, wanted = (one.compiled(*there, clients=(EDGE, CLIENT)) for one in (world, fresh))
        assert compiled == wanted
        assert world.compiler.credentials == fresh.compiler.credentials
