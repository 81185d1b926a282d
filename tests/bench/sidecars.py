"""A conventional pair of sidecars of the same Envoy: what meshd is compared with.

One Envoy in each of two namespaces, with all that a static configuration needs: the client's takes
what is redirected to it, speaks mutual TLS to the server's, which hands on to the application. Bare
ones do no more; the others do what Istio's do (``istio_sidecars``).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.bench import istio_sidecars
from tests.bench.figures import Json
from tests.bench.istio_sidecars import typed

OUTBOUND: Final = 15001
INBOUND: Final = 15006
_HTTP2: Final = frozenset({"http2", "grpc"})
_DAY: Final = datetime.timedelta(days=1)
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def client(
    directory: Path,
    server: str,
    kinds: Mapping[str, int],
    ports: Mapping[str, int],
    *,
    istio: bool = False,
) -> Json:
    """``kinds``: what is spoken (see ``server.PORTS``), and the server's port of it; ``ports``:
    those that the client asks for; ``istio``: with all that Istio's own have."""
    own = ports if istio else _own_ports(kinds, OUTBOUND, istio=False)
    inner = [_listener(kind, own[kind], None, istio=istio, inbound=False) for kind in kinds]
    clusters = [
        _cluster(kind, server, port, _tls("client", directory, offered=_offered(kind, istio=istio)))
        | (istio_sidecars.cluster() if istio else {})
        for kind, port in kinds.items()
    ]
    return _bootstrap([*_entrance(OUTBOUND, istio=istio, inbound=False), *inner], clusters)


def server(directory: Path, kinds: Mapping[str, int], *, istio: bool = False) -> Json:
    """To the application on the loopback interface, on the port that the client's was for."""
    tls = _tls("server", directory, accepted=("h2", "http/1.1", "istio") if istio else ())
    ports = _own_ports(kinds, INBOUND, istio=istio)
    if istio:
        listeners = [_virtual_inbound(kinds, tls)]
    else:
        listeners = [
            _listener(kind, port, tls, istio=False, inbound=True) for kind, port in ports.items()
        ]
    return _bootstrap(
        listeners, [_cluster(kind, "127.0.0.1", port, None) for kind, port in kinds.items()]
    )


def _own_ports(kinds: Mapping[str, int], first: int, *, istio: bool) -> dict[str, int]:
    return {kind: first if istio else first + 100 * at for at, kind in enumerate(kinds)}


def redirections(
    address: str, kinds: Mapping[str, int], *, inbound: bool, istio: bool = False
) -> str:
    """Text for iptables-restore: the traffic that goes to the sidecar instead."""
    chain, first = ("PREROUTING", INBOUND) if inbound else ("OUTPUT", OUTBOUND)
    own = _own_ports(kinds, first, istio=istio)
    rules = [
        f"-A {chain} -d {address}/32 -p tcp --dport {port} -j REDIRECT --to-ports {own[kind]}"
        for kind, port in kinds.items()
    ]
    return "\n".join(["*nat", *rules, "COMMIT", ""])


def _bootstrap(listeners: list[Json], clusters: list[Json]) -> Json:
    return {
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "node": {"id": "sidecar", "cluster": "bench"},
    }


def _entrance(port: int, *, istio: bool, inbound: bool) -> list[Json]:
    """Return the listener that hands connections on by their destination."""
    if not istio:
        return []
    nowhere = {"filters": [_tcp_proxy("nowhere", istio=False)]}
    return [
        {
            "name": "virtualOutbound",
            "address": _address(port),
            "use_original_dst": True,
            "listener_filters": istio_sidecars.listener_filters(inbound=inbound),
            "filter_chains": [nowhere],
        }
    ]


def _virtual_inbound(kinds: Mapping[str, int], tls: Json) -> Json:
    """Return the one listener of the server's side. Each port has two chains: mutual TLS and
    plaintext."""
    chains: list[Json] = []
    for kind, port in kinds.items():
        filters = [_target(kind, istio=True, inbound=True)]
        mutual = {"destination_port": port, "transport_protocol": "tls"}
        chains.append({"filter_chain_match": mutual, "filters": filters, "transport_socket": tls})
        plain = {"destination_port": port, "transport_protocol": "raw_buffer"}
        chains.append({"filter_chain_match": plain, "filters": filters})
    return {
        "name": "virtualInbound",
        "address": _address(INBOUND),
        "listener_filters": istio_sidecars.listener_filters(inbound=True),
        "listener_filters_timeout": "0s",
        "continue_on_listener_filters_timeout": True,
        "traffic_direction": "INBOUND",
        "filter_chains": chains,
    }


def _address(port: int) -> Json:
    return {"socket_address": {"address": "0.0.0.0", "port_value": port}}


def _listener(kind: str, port: int, tls: Json | None, *, istio: bool, inbound: bool) -> Json:
    chain: Json = {"filters": [_target(kind, istio=istio, inbound=inbound)]}
    if tls:
        chain["transport_socket"] = tls
    bound = {"bind_to_port": False} if istio else {"listener_filters": _BARE_FILTERS}
    return {"name": kind, "address": _address(port), "filter_chains": [chain], **bound}


def _target(kind: str, *, istio: bool, inbound: bool) -> Json:
    if kind == "tcp":
        return _tcp_proxy(kind, istio=istio)
    return _http(kind, istio=istio, inbound=inbound)


_BARE_FILTERS: Final = istio_sidecars.listener_filters(inbound=False)


def _tcp_proxy(cluster: str, *, istio: bool) -> Json:
    return typed(
        "envoy.filters.network.tcp_proxy",
        "filters.network.tcp_proxy.v3",
        "TcpProxy",
        stat_prefix=cluster,
        cluster=cluster,
        access_log=[istio_sidecars.tcp_metrics()] if istio else [],
    )


def _http(cluster: str, *, istio: bool, inbound: bool) -> Json:
    action = {"cluster": cluster, "timeout": "0s"}
    action |= istio_sidecars.route() if istio and not inbound else {}
    route = {"match": {"prefix": "/"}, "route": action}
    host: Json = {"name": "all", "domains": ["*"], "routes": [route]}
    if istio and not inbound:
        host["include_request_attempt_count"] = True
    router = typed("envoy.filters.http.router", "filters.http.router.v3", "Router")
    return typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3",
        "HttpConnectionManager",
        stat_prefix=cluster,
        route_config={"virtual_hosts": [host]},
        http_filters=[*(istio_sidecars.http_filters() if istio else ()), router],
        generate_request_id=True,
        normalize_path=True,
        stream_idle_timeout="0s",
        **(istio_sidecars.manager(inbound=inbound) if istio else {}),
    )


def _cluster(kind: str, address: str, port: int, tls: Json | None) -> Json:
    endpoint = {"address": {"socket_address": {"address": address, "port_value": port}}}
    cluster: Json = {
        "name": kind,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": kind,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
    if kind in _HTTP2:
        options = {"explicit_http_config": {"http2_protocol_options": {}}}
        kind_of = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}"}
        cluster["typed_extension_protocol_options"] = {_HTTP_OPTIONS: kind_of | options}
    if tls:
        cluster["transport_socket"] = tls
    return cluster


def _offered(kind: str, *, istio: bool) -> tuple[str, ...]:
    """Return the names that the client's side offers: behind TLS a connection manager takes the
    one that is agreed on for its codec's."""
    if not istio:
        return ()
    return ("istio-h2", "h2") if kind in _HTTP2 else ("istio",)


def _tls(
    name: str,
    directory: Path,
    *,
    offered: tuple[str, ...] | None = None,
    accepted: tuple[str, ...] = (),
) -> Json:
    """``offered``: it is the client's side, with these names; ``accepted``: by the server's."""
    upstream = offered is not None
    common: Json = {
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(directory / f"{name}.pem")},
                "private_key": {"filename": str(directory / f"{name}.key")},
            }
        ],
        "validation_context": {"trusted_ca": {"filename": str(directory / "root.pem")}},
        "alpn_protocols": list(offered or accepted),
    }
    context: Json = {"common_tls_context": common}
    if offered:
        context["sni"] = "outbound_.80_._.server.bench.svc.cluster.local"
    if not upstream:
        context["require_client_certificate"] = True
    return typed(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3",
        "UpstreamTlsContext" if upstream else "DownstreamTlsContext",
        **context,
    )


def write_certificates(directory: Path) -> None:
    """``root.pem``, and a pair of ``.pem`` and ``.key`` for client and server: ECDSA P-256.

    As with meshd there is an intermediate authority, so that a handshake verifies as much.
    """
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name, name = _name("bench root"), _name("bench intermediate")
    root = _certificate(root_name, root_name, root_key.public_key(), root_key, is_authority=True)
    middle = _certificate(name, root_name, key.public_key(), root_key, is_authority=True)
    (directory / "root.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    for side in ("client", "server"):
        _write_leaf(directory, side, middle, key)


def _write_leaf(
    directory: Path, name: str, issuer: x509.Certificate, issuer_key: ec.EllipticCurvePrivateKey
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _certificate(_name(name), issuer.subject, key.public_key(), issuer_key)
    encoding = serialization.Encoding.PEM
    chain = leaf.public_bytes(encoding) + issuer.public_bytes(encoding)
    (directory / f"{name}.pem").write_bytes(chain)
    secret = directory / f"{name}.key"
    secret.touch(mode=0o600)
    secret.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def write_bootstraps(
    directory: Path,
    server_address: str,
    kinds: Mapping[str, int],
    ports: Mapping[str, int],
    *,
    istio: bool = False,
) -> None:
    """``client.json`` and ``server.json``."""
    found = {
        "client": client(directory, server_address, kinds, ports, istio=istio),
        "server": server(directory, kinds, istio=istio),
    }
    for name, config in found.items():
        (directory / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool = False,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
