"""A compiler that goes on from its last result gives what one gives that begins anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.base import Object, WorkloadSelector
from meshd.api.destination_rule.types import DestinationRule, DestinationRuleSpec, TrafficPolicy
from meshd.api.gateway.types import Gateway, GatewaySpec, Server, ServerTLSSettings
from meshd.api.kubernetes.types import Namespace, Service, ServiceSpec
from meshd.api.peer_authentication.types import PeerAuthentication, PeerAuthenticationSpec
from meshd.api.read import read_objects
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.api.virtual_service.types import VirtualService, VirtualServiceSpec
from meshd.compile.compiled import Compiled, Kind
from meshd.compile.compiler import Compiler
from meshd.compile.names import workload_of
from meshd.model.pool import Pool
from meshd.model.short_way import ShortWay
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.node.packing import Packer
from meshd.registry.registry import build_snapshot
from meshd.xds.resources import difference
from tests import tokens
from tests.unit.compile.messages import as_messages
from tests.unit.numbered import workload

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: lone, namespace: lone}
spec: {clusterIP: 198.18.1.8, selector: {app: lone}, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: front}
spec: {clusterIP: 198.18.1.1, selector: {app: web}, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: back}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{port: 5432, name: tcp}, {port: 8080, name: http, targetPort: admin}]
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: back, annotations: {meshd.io/tunnels: "true"}}
spec:
  clusterIP: 198.18.1.2
  selector: {tier: api}
  trafficDistribution: PreferClose
  ports: [{port: 80, name: http}, {port: 9000}, {port: 9100, name: tcp}]
---
apiVersion: v1
kind: Service
metadata:
  name: hidden
  namespace: back
  annotations: {networking.istio.io/exportTo: "."}
spec: {clusterIP: 198.18.1.3, selector: {app: db}, ports: [{port: 80, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: front}
spec:
  hosts: [outside.example.com]
  resolution: DNS
  ports: [{number: 443, name: tls, protocol: TLS}]
  endpoints: [{address: one.example.com, weight: 2}, {address: two.example.com}]
"""
RULES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: front}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /api}}]
    route: [{destination: {host: api.back.svc.cluster.local, port: {number: 80}}}]
    mirror: {host: db.back.svc.cluster.local, port: {number: 8080}}
  - route: [{destination: {host: web, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: to-hidden, namespace: front}
spec:
  hosts: [elsewhere.test]
  http: [{route: [{destination: {host: hidden.back.svc.cluster.local}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api, namespace: back}
spec:
  hosts: [api, db]
  http:
  - match: [{uri: {prefix: /db}}]
    route: [{destination: {host: db, port: {number: 8080}}}]
  - route: [{destination: {host: api}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: front}
spec:
  host: web
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near, namespace: back}
spec:
  host: api
  trafficPolicy:
    loadBalancer: {localityLbSetting: {enabled: true, failoverPriority: [zone]}}
    outlierDetection: {consecutive5xxErrors: 3}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: entry, namespace: edge}
spec:
  selector: {app: web}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: second, namespace: back}
spec:
  selector: {app: web}
  servers:
  - {port: {number: 9443, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: entered, namespace: edge}
spec:
  hosts: ["*"]
  gateways: [entry, back/second]
  http:
  - match: [{uri: {prefix: /lone}}]
    route: [{destination: {host: lone.lone.svc.cluster.local}}]
  - route: [{destination: {host: web.front.svc.cluster.local}}]
  tcp: [{route: [{destination: {host: lone.lone.svc.cluster.local}}]}]
  tls:
  - match: [{sniHosts: [outside.example.com]}]
    route: [{destination: {host: outside.example.com}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: plain, namespace: back}
spec: {selector: {matchLabels: {app: db}}, mtls: {mode: DISABLE}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: some, namespace: back}
spec: {rules: [{from: [{source: {namespaces: [front]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: none, namespace: istio-system}
spec:
  selector: {matchLabels: {zone: z2}}
  action: DENY
  rules: [{when: [{key: connection.sni, values: [a]}]}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: back}
spec: {selector: {matchLabels: {app: db}}, jwtRules: [{issuer: me, jwksUri: "https://me.test/keys"}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: lone}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Namespace
metadata: {name: back, labels: {istio-injection: enabled}}
"""

OPTIONS = MeshOptions(node="here", locality="r/z/s")


def objects(text: str) -> list[Object]:
    return [read.object for read in read_objects(text, "test.yaml")]


WHOLE = (*objects(SERVICES), *objects(RULES))
ROUTED = [place for place, one in enumerate(WHOLE) if isinstance(one, VirtualService)]


def place_of(name: str, kind: type[Object] = Service) -> int:
    return next(
        place
        for place, one in enumerate(WHOLE)
        if one.metadata.name == name and isinstance(one, kind)
    )


OWN = {
    one.uid: one
    for one in (
        workload(1, "front", app="web", version="v1", istio="web"),
        workload(2, "back", app="db"),
        workload(3, "edge", app="web", zone="z"),
    )
}
OTHERS = {
    one.uid: msgspec.structs.replace(one, node="there", protocols=("hbone",))
    for one in (
        workload(11, "front", app="web", version="v2", istio="web"),
        workload(12, "back", app="db", version="v1"),
        workload(13, "back", tier="api", zone="z"),
        workload(14, "back", tier="api", zone="y"),
        workload(15, "back", tier="api", zone="z"),
        workload(16, "lone", app="lone"),
    )
}


class Mesh(msgspec.Struct):
    """What may change."""

    objects: dict[int, Object] = msgspec.field(default_factory=lambda: dict(enumerate(WHOLE)))
    workloads: dict[str, Workload] = msgspec.field(default_factory=lambda: {**OWN, **OTHERS})
    serving: frozenset[str] = frozenset(OWN)
    callers: frozenset[str] = frozenset(OWN)
    """Workloads that take the short way."""
    destinations: frozenset[str] = frozenset(OWN)
    """Workloads to which it leads."""
    options: MeshOptions = OPTIONS
    keys: dict[str, str] = {}

    @classmethod
    def without_gateway(cls, **options: Any) -> Mesh:
        """Return one that no workload of this node is a gateway of."""
        mesh = cls(options=msgspec.structs.replace(OPTIONS, **options))
        mesh.objects = {place: one for place, one in mesh.objects.items() if one.KIND != "Gateway"}
        return mesh

    @classmethod
    def without_copies(cls) -> Mesh:
        """Return one without a gateway that sends no copies of requests, either."""
        mesh = cls.without_gateway(service_cidr="198.18.0.0/16")
        del mesh.objects[place_of("web", VirtualService)]
        return mesh

    @classmethod
    def entered(cls) -> Mesh:
        """Return one with gateways of which most changes have shortcuts."""
        mesh = cls()
        for one in (place_of("web", VirtualService), place_of("near", DestinationRule)):
            del mesh.objects[one]
        mesh.edit(("anywhere", place_of("api")))
        return mesh

    def edit(self, edit: tuple[str, Any]) -> None:
        what, value = edit
        if what in _OBJECTS:
            if (one := self.objects.get(value)) is not None:
                self.objects[value] = _OBJECTS[what](one)
        elif what == "object":
            if value in self.objects:
                del self.objects[value]
            else:
                self.objects[value] = WHOLE[value]
        elif what == "keys":
            self.keys = {"https://me.test/keys": tokens.key_set(tokens.Key(value))} if value else {}
        elif what in _SETS:
            setattr(self, what, getattr(self, what) ^ {value})
        elif what == "presence":
            if value in self.workloads:
                del self.workloads[value]
            else:
                self.workloads[value] = (OWN | OTHERS)[value]
        elif (known := self.workloads.get(value)) is not None:
            self.workloads[value] = _CHANGES[what](known)

    def snapshot(self) -> Snapshot:
        snapshot = build_snapshot(
            [one for _, one in sorted(self.objects.items())],
            [one for uid, one in self.workloads.items() if uid not in OTHERS],
            self.options,
            {"outside.example.com": ("198.18.1.9",)},
            elsewhere=[one for uid, one in self.workloads.items() if uid in OTHERS],
        )
        short_way = ShortWay(tuple(sorted(self.callers)), tuple(sorted(self.destinations)))
        return msgspec.structs.replace(snapshot, short_way=short_way, token_keys=self.keys)


_SETS = ("serving", "callers", "destinations")
"""What any workload of this node may or may not be in."""

_CHANGES: dict[str, Callable[[Workload], Workload]] = {
    "ready": lambda one: msgspec.structs.replace(one, ready=not one.ready),
    "labels": lambda one: msgspec.structs.replace(one, labels=one.labels | {"zone": "z2"}),
    "own address": lambda one: msgspec.structs.replace(one, addresses=("198.18.9.99",)),
    "account": lambda one: msgspec.structs.replace(one, service_account="other"),
}
_ELSEWHERE = objects("""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: parts, namespace: front}
spec:
  hosts: [parts]
  http:
  - match: [{sourceLabels: {app: web}}]
    route: [{destination: {host: db.back.svc.cluster.local}}]
  - match: [{sourceNamespace: back}]
    route: [{destination: {host: db.back.svc.cluster.local}}]
  - route: [{destination: {host: web}}]
    mirror: {host: api.back.svc.cluster.local}
  - {delegate: {name: api, namespace: back}}
  tcp:
  - route: [{destination: {host: web}}]
  - match: [{port: 5432}]
    route:
    - {destination: {host: web, subset: v1}, weight: 90}
    - {destination: {host: lone.lone.svc.cluster.local}, weight: 10}
  - match: [{sourceLabels: {app: web}}]
    route: [{destination: {host: lone.lone.svc.cluster.local}}]
  tls:
  - match: [{sniHosts: [outside.example.com], port: 443}]
    route: [{destination: {host: db, port: {number: 5432}}}]
""")[0]
assert isinstance(_ELSEWHERE, VirtualService)
_HTTP = _ELSEWHERE.spec.http


def _with(**values: Any) -> Callable[[VirtualServiceSpec], VirtualServiceSpec]:
    return lambda spec: msgspec.structs.replace(spec, **values)


_ROUTINGS: dict[str, Callable[[VirtualServiceSpec], VirtualServiceSpec]] = {
    "reversed": lambda spec: msgspec.structs.replace(spec, http=spec.http[::-1]),
    "by labels": lambda spec: msgspec.structs.replace(spec, http=(_HTTP[0], *spec.http)),
    "by namespace": lambda spec: msgspec.structs.replace(spec, http=(_HTTP[1], *spec.http)),
    "mirrored": lambda spec: msgspec.structs.replace(spec, http=(_HTTP[2],)),
    "delegated": lambda spec: msgspec.structs.replace(spec, http=(_HTTP[3], *spec.http)),
    "no requests": _with(http=()),
    "connections": _with(tcp=_ELSEWHERE.spec.tcp[:1]),
    "weighed connections": _with(tcp=_ELSEWHERE.spec.tcp[1:2]),
    "connections by labels": _with(tcp=_ELSEWHERE.spec.tcp[2:]),
    "server names": _with(tls=_ELSEWHERE.spec.tls, hosts=("outside.example.com",)),
    "no connections": _with(tcp=(), tls=()),
    "private": _with(export_to=(".",)),
    "public": _with(export_to=()),
    "a gateway's": _with(gateways=("edge/entry",)),
    "both's": _with(gateways=("edge/entry", "mesh")),
    "one host": lambda spec: msgspec.structs.replace(spec, hosts=spec.hosts[:1]),
    "no service's": lambda spec: msgspec.structs.replace(spec, hosts=(*spec.hosts, "no.test")),
    "all": _with(hosts=("*",)),
}
CONNECTING = ("connections", "weighed connections", "server names", "no connections")
_PORTS = objects("""
apiVersion: v1
kind: Service
metadata: {name: ports, namespace: front}
spec:
  ports: [{port: 80, name: http}, {port: 8443, name: tls}, {port: 7000, name: tcp}, {port: 9000}]
""")[0]
assert isinstance(_PORTS, Service)


def _of_service(**values: Any) -> Callable[[ServiceSpec], ServiceSpec]:
    return lambda spec: msgspec.structs.replace(spec, **values)


def _exported(service: Service) -> Service:
    """Show a service to its own namespace only, or to all again."""
    known = service.metadata.annotations
    annotations = {} if known else {"networking.istio.io/exportTo": "."}
    meta = msgspec.structs.replace(service.metadata, annotations=annotations)
    return msgspec.structs.replace(service, metadata=meta)


_SERVICES: dict[str, Callable[[ServiceSpec], ServiceSpec]] = {
    "more ports": _of_service(ports=_PORTS.spec.ports),
    "one port": lambda spec: msgspec.structs.replace(spec, ports=spec.ports[:1]),
    "opaque": _of_service(ports=_PORTS.spec.ports[2:3]),
    "selector": _of_service(selector={"app": "web"}),
    "headless": _of_service(cluster_ip="None"),
    "address": _of_service(cluster_ip="198.18.1.77"),
    "taken address": _of_service(cluster_ip="198.18.1.1"),
    "near": _of_service(traffic_distribution="PreferClose"),
    "anywhere": _of_service(traffic_distribution=None),
}


def _of_kind(kind: type[Object], edit: Callable[[Any], Object]) -> Callable[[Object], Object]:
    return lambda one: edit(one) if isinstance(one, kind) else one


def _with_spec(edit: Callable[[Any], Any]) -> Callable[[Any], Object]:
    return lambda one: msgspec.structs.replace(one, spec=edit(one.spec))


_RULE = objects("""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all, namespace: front}
spec:
  host: web
  trafficPolicy:
    connectionPool: {http: {useClientProtocol: true}}
    loadBalancer: {simple: RANDOM}
    tls: {mode: SIMPLE}
  subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near, namespace: front}
spec:
  host: web
  trafficPolicy:
    loadBalancer: {localityLbSetting: {enabled: true, failoverPriority: [zone]}}
    outlierDetection: {consecutive5xxErrors: 3}
    tls: {mode: MUTUAL, credentialName: secret}
    connectionPool: {http: {http1MaxPendingRequests: 7}}
""")
_FIRST, _SECOND = (one.spec for one in _RULE if isinstance(one, DestinationRule))
_BALANCED, _NEAR = _FIRST.traffic_policy, _SECOND.traffic_policy
assert _BALANCED
assert _NEAR


def _for(host: str) -> Callable[[DestinationRuleSpec], DestinationRuleSpec]:
    return lambda spec: msgspec.structs.replace(spec, host=host)


def _ruled(**values: Any) -> Callable[[DestinationRuleSpec], DestinationRuleSpec]:
    return lambda spec: msgspec.structs.replace(spec, **values)


_RULINGS: dict[str, Callable[[DestinationRuleSpec], DestinationRuleSpec]] = {
    "no subsets": _ruled(subsets=()),
    "one subset": _ruled(subsets=_FIRST.subsets),
    "as asked": _ruled(traffic_policy=TrafficPolicy(connection_pool=_BALANCED.connection_pool)),
    "balanced": _ruled(traffic_policy=TrafficPolicy(load_balancer=_BALANCED.load_balancer)),
    "with TLS": _ruled(traffic_policy=TrafficPolicy(tls=_BALANCED.tls)),
    "with a secret": _ruled(traffic_policy=TrafficPolicy(tls=_NEAR.tls)),
    "nearest": _ruled(
        traffic_policy=msgspec.structs.replace(_NEAR, tls=None, connection_pool=None)
    ),
    "counted": _ruled(traffic_policy=TrafficPolicy(connection_pool=_NEAR.connection_pool)),
    "no policy": _ruled(traffic_policy=None),
    "for its namespace": _ruled(export_to=(".",)),
    "for everybody": _ruled(export_to=()),
    "for some": _ruled(workload_selector=WorkloadSelector(match_labels={"app": "web"})),
    "for nobody less": _ruled(workload_selector=None),
    "for db": _for("db.back.svc.cluster.local"),
    "for lone": _for("lone.lone.svc.cluster.local"),
    "for web": _for("web.front.svc.cluster.local"),
    "for what is outside": _for("outside.example.com"),
    "for many": _for("*.svc.cluster.local"),
    "for none": _for("nothing.example.com"),
}
_PEERS = objects("""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: back}
spec: {mtls: {mode: STRICT}, portLevelMtls: {"5432": {mode: DISABLE}, "80": {mode: PERMISSIVE}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: disabled, namespace: back}
spec: {selector: {matchLabels: {app: web}}, mtls: {mode: DISABLE}}
""")
_STRICT, _DISABLED = (one.spec for one in _PEERS if isinstance(one, PeerAuthentication))


def _peering(**values: Any) -> Callable[[PeerAuthenticationSpec], PeerAuthenticationSpec]:
    return lambda spec: msgspec.structs.replace(spec, **values)


_PEERINGS: dict[str, Callable[[PeerAuthenticationSpec], PeerAuthenticationSpec]] = {
    "strict": _peering(mtls=_STRICT.mtls),
    "disabled": _peering(mtls=_DISABLED.mtls),
    "permissive": _peering(mtls=None),
    "by port": _peering(port_level_mtls=_STRICT.port_level_mtls),
    "by no port": _peering(port_level_mtls=None),
    "for the namespace": _peering(selector=None),
    "for some workloads": _peering(selector=_DISABLED.selector),
}


_ENTRANCES = objects("""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: entrances, namespace: edge}
spec:
  selector: {app: db}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [lone/*, front/web.test]}
  - {port: {number: 5000, name: tcp, protocol: TCP}, hosts: ["*"]}
  - port: {number: 443, name: https, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: secret}
    hosts: [web.test]
""")[0]
assert isinstance(_ENTRANCES, Gateway)
_ENTERED: Final = _ENTRANCES.spec
_SERVERS: Final = _ENTERED.servers


def _opening(*servers: Server) -> Callable[[GatewaySpec], GatewaySpec]:
    return lambda spec: msgspec.structs.replace(spec, servers=servers)


_OPENINGS: dict[str, Callable[[GatewaySpec], GatewaySpec]] = {
    "requests for some hosts": _opening(_SERVERS[0]),
    "connections beside": lambda spec: msgspec.structs.replace(
        spec, servers=(*spec.servers[:1], _SERVERS[1])
    ),
    "TLS with a secret": _opening(_SERVERS[2]),
    "redirected": lambda spec: msgspec.structs.replace(
        spec,
        servers=tuple(
            msgspec.structs.replace(one, tls=ServerTLSSettings(https_redirect=True))
            for one in spec.servers
            if one.port.protocol == "HTTP"
        ),
    ),
    "at db": lambda spec: msgspec.structs.replace(spec, selector=_ENTERED.selector),
    "at web": lambda spec: msgspec.structs.replace(spec, selector={"app": "web"}),
}


def _moved(namespace: str) -> Callable[[Object], Object]:
    def moved(one: Object) -> Object:
        meta = msgspec.structs.replace(one.metadata, namespace=namespace)
        return msgspec.structs.replace(one, metadata=meta)

    return moved


def _labelled(**labels: str) -> Callable[[Object], Object]:
    def labelled(one: Object) -> Object:
        meta = msgspec.structs.replace(one.metadata, labels=labels)
        return msgspec.structs.replace(one, metadata=meta)

    return labelled


_OBJECTS: dict[str, Callable[[Object], Object]] = {
    **{name: _of_kind(VirtualService, _with_spec(edit)) for name, edit in _ROUTINGS.items()},
    **{name: _of_kind(Service, _with_spec(edit)) for name, edit in _SERVICES.items()},
    **{name: _of_kind(DestinationRule, _with_spec(edit)) for name, edit in _RULINGS.items()},
    **{name: _of_kind(PeerAuthentication, _with_spec(edit)) for name, edit in _PEERINGS.items()},
    **{name: _of_kind(Gateway, _with_spec(edit)) for name, edit in _OPENINGS.items()},
    "of the mesh": _of_kind(PeerAuthentication, _moved("istio-system")),
    "of lone": _of_kind(PeerAuthentication, _moved("lone")),
    "labelled": _of_kind(Namespace, _labelled(team="a")),
    "enrolled": _of_kind(Namespace, _labelled(**{"istio.io/dataplane-mode": "ambient"})),
    "unenrolled": _of_kind(Namespace, _labelled(**{"istio.io/dataplane-mode": "none"})),
    "exported": _of_kind(Service, _exported),
}
RULED = [place for place, one in enumerate(WHOLE) if isinstance(one, DestinationRule)]
PEERED = [place for place, one in enumerate(WHOLE) if isinstance(one, PeerAuthentication)]
OPENED = [place for place, one in enumerate(WHOLE) if isinstance(one, Gateway)]
SPACED = [place for place, one in enumerate(WHOLE) if isinstance(one, Namespace)]
SERVED = [place for place, one in enumerate(WHOLE) if isinstance(one, Service)]
uids = st.sampled_from(sorted(OWN | OTHERS))
edits = st.one_of(
    st.tuples(st.just("ready"), uids),
    st.tuples(st.just("presence"), st.sampled_from(sorted(OTHERS))),
    st.tuples(st.sampled_from(["ready", "presence", *_CHANGES]), uids),
    st.tuples(st.just("object"), st.integers(0, len(WHOLE) - 1)),
    st.tuples(st.sampled_from(sorted(_ROUTINGS)), st.sampled_from(ROUTED)),
    st.tuples(
        st.sampled_from(["reversed", "private", "one host", "no service's", *CONNECTING]),
        st.sampled_from(ROUTED),
    ),
    st.tuples(st.sampled_from(sorted({*_SERVICES, "exported"})), st.sampled_from(SERVED)),
    st.tuples(st.sampled_from(sorted(_RULINGS)), st.sampled_from(RULED)),
    st.tuples(
        st.sampled_from(sorted({*_PEERINGS, "of the mesh", "of lone"})), st.sampled_from(PEERED)
    ),
    st.tuples(st.sampled_from(sorted(_OPENINGS)), st.sampled_from(OPENED)),
    st.tuples(st.sampled_from(["labelled", "enrolled", "unenrolled"]), st.sampled_from(SPACED)),
    st.tuples(st.just("object"), st.sampled_from([*SERVED, *RULED, *PEERED, *SPACED, *OPENED])),
    st.tuples(st.sampled_from(_SETS), st.sampled_from(sorted(OWN))),
    st.tuples(st.just("keys"), st.sampled_from(["", "one", "two"])),
)


def serialized(compiled: Mapping[Pool, Compiled]) -> dict[tuple[Pool, Kind, str], bytes]:
    return {
        (pool, kind, name): message.SerializeToString(deterministic=True)
        for pool, of_pool in as_messages(compiled).items()
        for kind, messages in of_pool.items()
        for name, message in messages.items()
    }


def gone_on(
    mesh: Mesh, compiler: Compiler, edit: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Mapping[Pool, Compiled]:
    """Return what a shortcut makes of an edit, which is what a fresh compiler makes."""
    mesh.edit(edit)
    fresh = Compiler().compile(mesh.snapshot(), mesh.serving)
    with monkeypatch.context() as patched:
        patched.delattr(Compiler, "_compiled")  # all is compiled no more
        compiled = compiler.compile(mesh.snapshot(), mesh.serving)
    assert serialized(compiled) == serialized(fresh), edit
    return compiled


MESHES = (
    Mesh,
    Mesh.entered,
    Mesh.without_gateway,
    lambda: Mesh.without_gateway(service_cidr="198.18.0.0/16"),
    Mesh.without_copies,
    lambda: Mesh.without_gateway(outbound_policy="REGISTRY_ONLY", captures_dns=False),
)


@settings(max_examples=60)
@given(st.sampled_from(MESHES), st.lists(edits, max_size=12), st.booleans(), st.booleans())
def test_after_each_edit_the_result_is_that_of_a_fresh_compiler(
    made: Callable[[], Mesh], sequence: list[tuple[str, Any]], hbone: bool, short_way: bool
) -> None:
    mesh, compiler, packer = made(), Compiler(), Packer()
    mesh.options = msgspec.structs.replace(mesh.options, hbone=hbone, short_way=short_way)
    published = packer.pack(compiler.compile(mesh.snapshot(), mesh.serving))
    for edit in sequence:
        mesh.edit(edit)
        snapshot = mesh.snapshot()
        new = Compiler()
        compiled, fresh = (one.compile(snapshot, mesh.serving) for one in (compiler, new))
        assert serialized(compiled) == serialized(fresh), edit
        assert compiler.entrances == new.entrances, edit
        before, published = published, packer.pack(compiled)
        for pool in Pool:
            assert not difference(published[pool], Packer().pack(fresh)[pool])
            changed = difference(before[pool], published[pool])
            assert all(changed.values())


def test_a_service_that_clients_do_not_see_changes_where_their_routes_lead() -> None:
    mesh, compiler = Mesh(), Compiler()
    hidden = next(place for place, one in mesh.objects.items() if one.metadata.name == "hidden")
    for _ in range(2):
        compiled, fresh = (
            one.compile(mesh.snapshot(), mesh.serving) for one in (compiler, Compiler())
        )
        assert serialized(compiled) == serialized(fresh)
        mesh.edit(("object", hidden))


def test_readiness_makes_load_assignments_and_nothing_else() -> None:
    mesh, compiler = Mesh(), Compiler()
    before = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
    mesh.edit(("ready", "back.w13"))
    after = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
    assert [kind for kind in Kind if after[kind] is not before[kind]] == [Kind.ENDPOINT]
    made = {
        name for name, one in after[Kind.ENDPOINT].items() if before[Kind.ENDPOINT][name] is not one
    }
    assert made
    assert all("api.back" in name for name in made)


@pytest.mark.parametrize(
    ("uid", "kinds"), [("back.w15", {Kind.ENDPOINT}), ("lone.w16", {Kind.CLUSTER, Kind.ENDPOINT})]
)
def test_only_its_service_is_compiled_when_a_workload_elsewhere_comes_or_goes(
    uid: str, kinds: set[Kind]
) -> None:
    """The cluster names the accounts of servers, so that the first and the last of one change
    it."""
    mesh, compiler = Mesh(), Compiler()
    for _ in range(3):
        before = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
        mesh.edit(("presence", uid))
        after = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
        assert {kind for kind in Kind if after[kind] is not before[kind]} == kinds
        made = {
            name
            for kind in kinds
            for name, one in after[kind].items()
            if before[kind][name] is not one
        }
        service = {"back.w15": "api.back", "lone.w16": "lone.lone"}[uid]
        assert made
        assert all(service in name for name in made)
        fresh = Compiler().compile(mesh.snapshot(), mesh.serving)
        assert serialized({Pool.TRAFFIC: after}).items() <= serialized(fresh).items()


def test_all_is_compiled_when_a_workload_ends_whose_labels_rules_compare() -> None:
    mesh, compiler = Mesh(), Compiler()
    before = compiler.compile(mesh.snapshot(), mesh.serving)
    mesh.edit(("presence", "back.w14"))
    after = compiler.compile(mesh.snapshot(), mesh.serving)
    assert after[Pool.TRAFFIC][Kind.LISTENER] is not before[Pool.TRAFFIC][Kind.LISTENER]


def test_a_route_makes_the_tables_of_its_hosts_and_nothing_else() -> None:
    mesh, compiler, packer = Mesh(), Compiler(), Packer()
    published = packer.pack(compiler.compile(mesh.snapshot(), mesh.serving))
    api = next(place for place in ROUTED if WHOLE[place].metadata.name == "api")
    for edit in ("reversed", "private", "one host", "no requests"):
        before = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
        mesh.edit((edit, api))
        compiled = compiler.compile(mesh.snapshot(), mesh.serving)
        after = compiled[Pool.TRAFFIC]
        assert [kind for kind in Kind if after[kind] is not before[kind]] == [Kind.ROUTE], edit
        published, last = packer.pack(compiled), published
        (changed,) = difference(last[Pool.TRAFFIC], published[Pool.TRAFFIC]).values()
        assert {name.partition("@")[0] for name in changed} <= {"80", "8080", "9000"}, edit


@pytest.mark.parametrize("service_cidr", ["", "198.18.0.0/16"])
def test_a_route_of_connections_makes_tables_and_listeners_of_clients(
    service_cidr: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, compiler = Mesh.without_gateway(service_cidr=service_cidr), Compiler()
    api = next(place for place in ROUTED if WHOLE[place].metadata.name == "api")
    before = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
    for edit in (*CONNECTING, "connections", "private", "object", "object"):
        compiled = gone_on(mesh, compiler, (edit, api), monkeypatch)
        after = compiled[Pool.TRAFFIC]
        assert after[Kind.CLUSTER] is before[Kind.CLUSTER]
        assert after[Kind.ENDPOINT] is before[Kind.ENDPOINT]
        listeners = after[Kind.LISTENER]
        made = [name for name, one in listeners.items() if before[Kind.LISTENER][name] is not one]
        assert all(name.startswith("outbound") for name in made)
        assert made or edit not in {"connections", "weighed connections"}
        before = after


@pytest.mark.parametrize("edit", ["object", "more ports", "address", "exported", "headless"])
def test_a_service_makes_what_is_its_own_and_the_listeners_and_tables_that_have_it(
    edit: str,
) -> None:
    mesh, compiler = Mesh.without_gateway(), Compiler()
    for _ in range(2):
        before = compiler.compile(mesh.snapshot(), mesh.serving)
        mesh.edit((edit, place_of("lone")))
        after = compiler.compile(mesh.snapshot(), mesh.serving)
        fresh = Compiler().compile(mesh.snapshot(), mesh.serving)
        assert serialized(after) == serialized(fresh)
        was, now = before[Pool.TRAFFIC], after[Pool.TRAFFIC]
        for kind in (Kind.CLUSTER, Kind.ENDPOINT):
            names = was[kind].keys() | now[kind].keys()
            other = {name for name in names if was[kind].get(name) is not now[kind].get(name)}
            assert all("lone.lone" in name for name in other)
        assert all(
            one is now[Kind.LISTENER][name]
            for name, one in was[Kind.LISTENER].items()
            if not name.startswith("outbound")
        )
        assert after[Pool.DNS] is before[Pool.DNS]


def test_the_short_way_of_a_workload_makes_its_services_and_the_listener_of_the_short_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh, compiler = Mesh.without_copies(), Compiler()
    mesh.options = msgspec.structs.replace(mesh.options, short_way=True)
    compiler.compile(mesh.snapshot(), mesh.serving)
    of_services = {Kind.CLUSTER, Kind.ENDPOINT}
    for what, kinds in (("destinations", of_services), ("callers", {Kind.LISTENER})) * 2:
        before = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
        compiled = gone_on(mesh, compiler, (what, "front.w1"), monkeypatch)
        after = compiled[Pool.TRAFFIC]
        assert {one for one in Kind if after[one] is not before[one]} == kinds
        names = {
            name
            for kind in kinds
            for name, one in after[kind].items()
            if before[kind].get(name) is not one
        }
        assert names == {"local"} or all("web.front.svc" in name for name in names)


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        *(
            (edit, place_of("second", Gateway))
            for edit in ("object", "connections beside", "redirected")
        ),
        *(
            (edit, place_of("entered", VirtualService))
            for edit in ("object", "reversed", "no connections")
        ),
        ("no requests", place_of("entered", VirtualService)),
        ("object", place_of("lone")),
        ("more ports", place_of("lone")),
        ("balanced", place_of("web", DestinationRule)),
    ],
)
def test_a_gateway_of_this_node_is_compiled_with_what_it_opens_and_leads_to(
    edit: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, compiler = Mesh(), Compiler()
    del mesh.objects[place_of("web", VirtualService)]  # which sends copies
    mesh.edit(("for lone", place_of("web", DestinationRule)))
    compiler.compile(mesh.snapshot(), mesh.serving)
    for again in ("object", "object"):
        gone_on(mesh, compiler, (edit, place), monkeypatch)
        edit = again


def test_a_gateway_of_another_node_makes_nothing() -> None:
    mesh, compiler = Mesh.without_gateway(), Compiler()
    mesh.objects[place_of("entered", VirtualService)] = WHOLE[place_of("entered", VirtualService)]
    elsewhere = msgspec.structs.replace(
        _ENTERED, selector={"app": "elsewhere"}, servers=_SERVERS[1:2]
    )
    before = compiler.compile(mesh.snapshot(), mesh.serving)
    mesh.objects[1000] = msgspec.structs.replace(_ENTRANCES, spec=elsewhere)
    mesh.edit(("reversed", place_of("entered", VirtualService)))
    after = compiler.compile(mesh.snapshot(), mesh.serving)
    assert all(after[pool][kind] is before[pool][kind] for pool in Pool for kind in after[pool])


def test_a_rule_for_many_services_is_compiled_with_these(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh, compiler = Mesh.without_copies(), Compiler()
    del mesh.objects[place_of("near", DestinationRule)]
    mesh.edit(("anywhere", place_of("api")))
    mesh.edit(("balanced", place_of("web", DestinationRule)))
    compiler.compile(mesh.snapshot(), mesh.serving)
    for edit in ("for many", "one subset", "object", "object", "for none"):
        gone_on(mesh, compiler, (edit, place_of("web", DestinationRule)), monkeypatch)


@pytest.mark.parametrize("edit", ["object", "one subset", "as asked", "balanced", "with TLS"])
def test_a_rule_of_a_service_makes_what_is_that_services(
    edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, compiler = Mesh.without_gateway(), Compiler()
    del mesh.objects[place_of("web", VirtualService)]
    compiler.compile(mesh.snapshot(), mesh.serving)
    for _ in range(2):
        before = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
        compiled = gone_on(mesh, compiler, (edit, place_of("web", DestinationRule)), monkeypatch)
        after = compiled[Pool.TRAFFIC]
        for kind in (Kind.CLUSTER, Kind.ENDPOINT):
            names = before[kind].keys() | after[kind].keys()
            other = {name for name in names if before[kind].get(name) is not after[kind].get(name)}
            assert all("web.front" in name for name in other if name.startswith("outbound"))


@pytest.mark.parametrize(
    ("kind", "name", "edit"),
    [
        *((PeerAuthentication, "plain", edit) for edit in ("object", *sorted(_PEERINGS))),
        (PeerAuthentication, "plain", "of the mesh"),
        (PeerAuthentication, "default", "object"),
        (PeerAuthentication, "default", "disabled"),
        (Namespace, "back", "object"),
        (Namespace, "back", "labelled"),
    ],
)
def test_a_policy_of_connections_and_labels_of_a_namespace_make_what_depends_on_them(
    kind: type[Object], name: str, edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, compiler = Mesh.without_copies(), Compiler()
    del mesh.objects[place_of("near", DestinationRule)]
    mesh.edit(("anywhere", place_of("api")))
    compiler.compile(mesh.snapshot(), mesh.serving)
    place = place_of(name, kind)
    for again in ("object", "object"):
        gone_on(mesh, compiler, (edit, place), monkeypatch)
        edit = again


def test_a_policy_that_closes_one_workload_makes_no_other_listener() -> None:
    mesh, compiler = Mesh.without_copies(), Compiler()
    before = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
    mesh.edit(("strict", place_of("plain", PeerAuthentication)))
    after = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
    changed = {
        name
        for name, one in after[Kind.LISTENER].items()
        if before[Kind.LISTENER].get(name) is not one
    }
    assert "back.w2" in {workload_of(name) for name in changed}
    assert not {"front.w1", "edge.w3"} & {workload_of(name) for name in changed}


@pytest.mark.parametrize(
    "edit", ["for some", "nearest", "counted", "with a secret", "for its namespace"]
)
def test_all_is_compiled_for_a_rule_that_may_reach_further(
    edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, compiler = Mesh.without_gateway(), Compiler()
    compiler.compile(mesh.snapshot(), mesh.serving)
    mesh.edit((edit, place_of("web", DestinationRule)))
    compiled: list[object] = []
    whole: Any = Compiler._compiled  # type: ignore[reportPrivateUsage]

    def counted(*arguments: Any) -> Any:
        compiled.append(arguments)
        return whole(*arguments)

    monkeypatch.setattr(Compiler, "_compiled", counted)
    compiler.compile(mesh.snapshot(), mesh.serving)
    assert len(compiled) == 1


def test_a_listener_stays_when_a_service_changes_that_it_does_not_choose_by() -> None:
    mesh, compiler = Mesh.without_gateway(service_cidr="198.18.0.0/16"), Compiler()
    before = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
    mesh.edit(("object", place_of("lone")))
    after = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
    assert after[Kind.LISTENER] is before[Kind.LISTENER]
    assert after[Kind.ROUTE] is not before[Kind.ROUTE]


BESIDE = workload(4, "front", app="web", version="v1", istio="web")
"""A pod of this node, in a namespace that has another."""


@pytest.mark.parametrize("gateway", [True, False])
def test_of_this_nodes_pods_only_the_one_that_comes_or_goes_is_compiled(gateway: bool) -> None:
    mesh, compiler = Mesh() if gateway else Mesh.without_gateway(), Compiler()
    for come in (True, False, True):
        before = compiler.compile(mesh.snapshot(), mesh.serving)
        if come:
            mesh.workloads[BESIDE.uid] = BESIDE
        else:
            del mesh.workloads[BESIDE.uid]
        mesh.serving ^= {BESIDE.uid}
        after = compiler.compile(mesh.snapshot(), mesh.serving)
        fresh = Compiler().compile(mesh.snapshot(), mesh.serving)
        assert serialized(after) == serialized(fresh)
        was, now = before[Pool.TRAFFIC], after[Pool.TRAFFIC]
        listeners = {
            name
            for name in was[Kind.LISTENER].keys() | now[Kind.LISTENER].keys()
            if was[Kind.LISTENER].get(name) is not now[Kind.LISTENER].get(name)
        }
        if gateway:  # which selects it, so that all is compiled
            assert now[Kind.CLUSTER] is not was[Kind.CLUSTER]
        else:
            assert {workload_of(name) for name in listeners} == {BESIDE.uid, ""}
            assert now[Kind.ROUTE] is was[Kind.ROUTE]


@pytest.mark.parametrize("namespace", ["lone", "back"])
def test_the_first_pod_of_a_namespace_makes_what_its_clients_have_to_themselves(
    namespace: str,
) -> None:
    mesh, compiler = Mesh.without_copies(), Compiler()
    uid = next((uid for uid in OWN if uid.startswith(namespace)), "lone.w5")
    mesh.workloads[uid] = OWN.get(uid, workload(5, namespace, app="client"))
    for come in (False, True, False):
        before = compiler.compile(mesh.snapshot(), mesh.serving - {uid})
        serving = mesh.serving | {uid} if come else mesh.serving - {uid}
        after = compiler.compile(mesh.snapshot(), serving)
        fresh = Compiler().compile(mesh.snapshot(), serving)
        assert serialized(after) == serialized(fresh)
        was, now = before[Pool.TRAFFIC], after[Pool.TRAFFIC]
        made = {
            (kind, name)
            for kind in (Kind.ROUTE, Kind.LISTENER)
            for name, one in now[kind].items()
            if was[kind].get(name) is not one
        }
        own = {(kind, name) for kind, name in made if name.endswith(f"@{namespace}")}
        assert {kind for kind, _ in own} == ({Kind.ROUTE, Kind.LISTENER} if come else set())
        shared = ("inbound", "plain|inbound", "local", uid)
        assert all(name.startswith(shared) for _, name in made - own)


def test_routes_and_readiness_may_change_at_once() -> None:
    mesh, compiler = Mesh(), Compiler()
    before = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
    mesh.edit(("reversed", ROUTED[-1]))
    mesh.edit(("ready", "back.w13"))
    after = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
    changed = {kind for kind in Kind if after[kind] is not before[kind]}
    assert changed == {Kind.ENDPOINT, Kind.ROUTE}


@pytest.mark.parametrize(
    "edit",
    [
        ("object", place_of("some", AuthorizationPolicy)),
        ("object", place_of("users", RequestAuthentication)),
        ("keys", "one"),
    ],
)
def test_a_policy_about_requests_makes_nothing_anew_but_what_knows_its_workloads(
    edit: tuple[str, Any],
) -> None:
    mesh, compiler = Mesh.without_gateway(), Compiler()
    before = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
    mesh.edit(edit)
    after = compiler.compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]
    changed = {
        name
        for kind in Kind
        for name in before[kind].keys() | after[kind].keys()
        if before[kind].get(name) is not after[kind].get(name)
    }
    assert changed
    # Endpoints of its workloads are not reached by the short way any more.
    assert all(
        name.startswith(("inbound", "plain|inbound", "local")) or ".back.svc" in name
        for name in changed
    )
    assert serialized({Pool.TRAFFIC: after}) == serialized(
        {Pool.TRAFFIC: Compiler().compile(mesh.snapshot(), mesh.serving)[Pool.TRAFFIC]}
    )


def test_policies_about_no_workload_of_this_node_add_nothing() -> None:
    mesh = Mesh()
    before = serialized(Compiler().compile(mesh.snapshot(), mesh.serving))
    rules = ", ".join(f"{{to: [{{operation: {{paths: [/{number}]}}}}]}}" for number in range(10))
    for number in range(100):
        space, labels = ("else", "{}") if number % 2 else ("back", "{app: none}")
        (mesh.objects[1000 + number],) = objects(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
            f"metadata: {{name: p{number}, namespace: {space}}}\n"
            f"spec: {{selector: {{matchLabels: {labels}}}, rules: [{rules}]}}\n"
        )
    assert serialized(Compiler().compile(mesh.snapshot(), mesh.serving)) == before


def test_a_packer_looks_at_no_message_of_a_mapping_that_it_has_packed() -> None:
    mesh, compiler, packer = Mesh(), Compiler(), Packer()
    before = packer.pack(compiler.compile(mesh.snapshot(), mesh.serving))[Pool.TRAFFIC]
    mesh.edit(("ready", "back.w13"))
    after = packer.pack(compiler.compile(mesh.snapshot(), mesh.serving))[Pool.TRAFFIC]
    same = [url for url in after.by_type if after.by_type[url] is before.by_type[url]]
    assert len(same) == len(after.by_type) - 1
