"""Meshes and connections by chance, small enough that their parts meet: few ports and addresses."""

from __future__ import annotations

import random
from typing import NamedTuple

import msgspec

from meshd.api.base import ObjectMeta
from meshd.api.gateway.types import (
    Gateway,
    GatewayPort,
    GatewaySpec,
    Server,
    ServerTLSSettings,
)
from meshd.api.networking import (
    Destination,
    L4MatchAttributes,
    PortSelector,
    RouteDestination,
    TCPRoute,
    TLSMatchAttributes,
    TLSRoute,
    VirtualService,
    VirtualServiceSpec,
)
from meshd.api.protocol import Protocol
from meshd.compile.explain.chain_choice import Connection
from meshd.compile.policy.peer_authentication import Mode, PeerPolicy
from meshd.compile.policy.served import Spoken
from meshd.compile.visibility.scope import Scope
from meshd.model.service import Endpoint, Port, Resolution, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload

PORTS = (80, 443, 9000)
ADDRESSES = ("198.19.0.1", "198.19.0.2", "198.18.0.1", "198.18.0.2", "fd00:198::1")
NETWORKS = (
    "198.18.0.0/16",
    "198.18.0.0/24",
    "198.18.0.0/30",
    "198.18.0.0/31",
    "198.18.0.1/32",
    "198.19.0.0/16",
    "198.19.0.0/30",
    "fd00:198::/32",
    "fd00:198::/64",
)
HOSTS = ("a.test", "b.test", "c.a.test", "*.a.test", "*.test")
NAMES = ("a.test", "b.test", "c.a.test", "d.c.a.test", "else.where", "")
PROTOCOLS = (
    Protocol.TCP,
    Protocol.TCP,
    Protocol.TLS,
    Protocol.HTTP,
    Protocol.SNIFFED,
    Protocol.SNIFFED,
    Protocol.HTTPS,
    Protocol.GRPC,
    Protocol.UDP,
)


class Mesh(NamedTuple):
    """What one scope sees."""

    snapshot: Snapshot
    scope: Scope


def some(chance: random.Random, values: tuple[str, ...], most: int = 2) -> tuple[str, ...]:
    return tuple(chance.sample(values, chance.randint(0, most)))


def mesh(chance: random.Random, namespace: str) -> Mesh:
    """Return services and VirtualServices of one namespace."""
    services = [service(chance, namespace, number) for number in range(chance.randint(1, 7))]
    by_host = {one.host: one for one in services}
    rules = [
        routing(chance, namespace, number, tuple(by_host)) for number in range(chance.randint(0, 3))
    ]
    options = MeshOptions(
        service_cidr=chance.choice(["198.19.0.0/16", "198.19.0.0/16", ""]),
        outbound_policy=chance.choice(["ALLOW_ANY", "REGISTRY_ONLY"]),
        captures_dns=chance.random() < 0.5,
        access_log="off",
    )
    labels = (("app", "client"),) if chance.random() < 0.5 else ()
    snapshot = Snapshot(options=options, services=by_host, virtual_services=tuple(rules))
    return Mesh(snapshot, Scope(namespace, labels))


def changed(chance: random.Random, mesh: Mesh, namespace: str) -> Mesh:
    """Return the mesh after services came, went, or became others."""
    services = dict(mesh.snapshot.services)
    for _ in range(chance.randint(1, 3)):
        if services and chance.random() < 0.3:
            del services[chance.choice(sorted(services))]
        else:
            one = service(chance, namespace, chance.randint(0, 9))
            services[one.host] = one
    return mesh._replace(snapshot=msgspec.structs.replace(mesh.snapshot, services=services))


def at_gateway(chance: random.Random, namespace: str) -> Snapshot:
    """Return a mesh of which the VirtualServices are bound to the Gateways of one workload."""
    seen = mesh(chance, namespace)
    gateways = tuple(gateway(chance, namespace, number) for number in range(chance.randint(1, 3)))
    names = tuple(f"{namespace}/{one.metadata.name}" for one in gateways)
    bound = tuple(
        msgspec.structs.replace(
            one,
            spec=msgspec.structs.replace(
                one.spec, gateways=some(chance, names, len(names)) or names
            ),
        )
        for one in seen.snapshot.virtual_services
    )
    return msgspec.structs.replace(
        seen.snapshot,
        virtual_services=bound,
        gateways=gateways,
        workloads={
            "edge": Workload(
                uid="edge", name="edge", namespace=namespace, netns="", labels={"app": "edge"}
            )
        },
    )


def gateway(chance: random.Random, namespace: str, number: int) -> Gateway:
    servers = tuple(server(chance, number, place) for place in range(chance.randint(1, 3)))
    return Gateway(
        metadata=ObjectMeta(name=f"g{number}", namespace=namespace),
        spec=GatewaySpec(servers=servers, selector={"app": "edge"}),
    )


def server(chance: random.Random, gateway: int, place: int) -> Server:
    """Return a server: TLS that ends there or passes, or bytes."""
    protocol = chance.choice([*["TLS", "HTTPS"] * 3, "TCP", "HTTP"])
    modes = ["PASSTHROUGH", "SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL"]
    tls = ServerTLSSettings(mode=chance.choice(modes), credential_name="site")  # pyright: ignore[reportArgumentType]
    port = 80 if protocol == "HTTP" else chance.choice(PORTS[1:])
    return Server(
        port=GatewayPort(number=port, name=f"p{gateway}-{place}", protocol=protocol),
        hosts=some(chance, (*HOSTS, "*", "*")) or ("*",),
        tls=None if protocol in {"TCP", "HTTP"} else tls,
    )


def service(chance: random.Random, namespace: str, number: int) -> ServiceRecord:
    """Return a Service of Kubernetes, maybe headless, or a host of a ServiceEntry."""
    ports = tuple(
        Port(port, f"p{port}", chance.choice(PROTOCOLS))
        for port in chance.sample(PORTS, chance.choice([1, 1, 2]))
    )
    endpoints = tuple(
        Endpoint(address=address, port=port.number, service_port=port.number)
        for address in some(chance, ADDRESSES)
        for port in ports
    )
    if chance.random() < 0.5:
        is_headless = chance.random() < 0.3
        return ServiceRecord(
            host=f"s{number}.{namespace}.svc.cluster.local",
            namespace=namespace,
            name=f"s{number}",
            addresses=() if is_headless else some(chance, ADDRESSES),
            ports=ports,
            headless=is_headless,
            resolution=Resolution.NONE if is_headless else Resolution.STATIC,
            endpoints=endpoints,
        )
    host = chance.choice(HOSTS)
    resolutions = [Resolution.NONE, Resolution.STATIC, Resolution.DNS]
    if host.startswith("*"):
        resolutions = [Resolution.NONE, Resolution.DYNAMIC_DNS]
    return ServiceRecord(
        host=host,
        namespace=namespace,
        addresses=some(chance, (*ADDRESSES, *NETWORKS), 3),
        ports=ports,
        resolution=chance.choice(resolutions),
        endpoints=endpoints,
    )


def routing(
    chance: random.Random, namespace: str, number: int, hosts: tuple[str, ...]
) -> VirtualService:
    """Return a VirtualService with rules for TCP and for TLS."""

    def destinations() -> tuple[RouteDestination, ...]:
        count = chance.choice([1, 1, 2, 3])
        return tuple(
            RouteDestination(
                destination=Destination(
                    host=chance.choice(hosts), port=PortSelector(chance.choice(PORTS))
                ),
                weight=chance.choice([0, 1, 50]) if count > 1 else None,
            )
            for _ in range(count)
        )

    def conditions() -> dict[str, object]:
        asked: dict[str, object] = {"destination_subnets": some(chance, NETWORKS)}
        if chance.random() < 0.5:
            asked["port"] = chance.choice(PORTS)
        if chance.random() < 0.3:
            asked["source_labels"] = {"app": chance.choice(["client", "other"])}
        return asked

    tls = tuple(
        TLSRoute(
            match=tuple(
                TLSMatchAttributes(
                    sni_hosts=some(chance, (*HOSTS, "*"), 2) or ("a.test",),
                    **conditions(),  # pyright: ignore[reportArgumentType]
                )
                for _ in range(chance.randint(1, 2))
            ),
            route=destinations(),
        )
        for _ in range(chance.randint(0, 2))
    )
    tcp = tuple(
        TCPRoute(
            match=tuple(
                L4MatchAttributes(**conditions())  # pyright: ignore[reportArgumentType]
                for _ in range(chance.randint(0, 2))
            ),
            route=destinations(),
        )
        for _ in range(chance.randint(0, 2))
    )
    return VirtualService(
        metadata=ObjectMeta(name=f"v{number}", namespace=namespace),
        spec=VirtualServiceSpec(
            hosts=some(chance, (*hosts, *HOSTS)) or hosts[:1], tls=tls, tcp=tcp
        ),
    )


def connection(chance: random.Random) -> Connection:
    """Return a connection to a place that some service may have."""
    begins_as = chance.choice(["tls", "tls", "http", "http/1.0", "other"])
    return Connection(
        address=chance.choice((*ADDRESSES * 3, "198.18.0.3", "198.19.7.7", "203.0.113.1")),
        port=chance.choice((*PORTS * 4, 53, 7777, 15001)),
        begins_as=begins_as,  # pyright: ignore[reportArgumentType]
        server_name=chance.choice(NAMES) if begins_as == "tls" else "",
    )


def incoming(chance: random.Random) -> Connection:
    """Return a connection to a server, maybe with mutual TLS of the mesh."""
    drawn = connection(chance)
    offers = drawn.begins_as == "tls" and chance.random() < 0.5
    port = chance.choice((*PORTS, 7777, 15006))
    return msgspec.structs.replace(drawn, port=port, offers_mesh_tls=offers)


def served(chance: random.Random) -> dict[int, Spoken]:
    """Return the ports of a server."""
    return {port: chance.choice(list(Spoken)) for port in PORTS if chance.random() < 0.7}


def policy(chance: random.Random) -> PeerPolicy:
    modes = list(Mode)
    by_port = {port: chance.choice(modes) for port in PORTS if chance.random() < 0.4}
    return PeerPolicy(chance.choice(modes), by_port)
