"""A conventional pair of sidecars of the same Envoy: what meshd is compared with.

One Envoy in each of two namespaces, with all that a static configuration needs: the client's takes
what is redirected to it, speaks mutual TLS to the server's, which hands on to the application.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.bench.figures import Json

OUTBOUND: Final = 15001
INBOUND: Final = 15006
_TYPE: Final = "type.googleapis.com/envoy"
_DAY: Final = datetime.timedelta(days=1)
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def client(directory: Path, server: str, kinds: dict[str, int]) -> Json:
    """``kinds``: what is spoken (http, http2 or tcp), and the server's port of it."""
    names = enumerate(kinds.items())
    return _bootstrap(
        [_listener(kind, OUTBOUND + 100 * at, None) for at, (kind, _) in names],
        [
            _cluster(kind, server, port, _tls("client", directory, upstream=True))
            for kind, port in kinds.items()
        ],
    )


def server(directory: Path, kinds: dict[str, int]) -> Json:
    """To the application on the loopback interface, on the port that the client's was for."""
    names = enumerate(kinds.items())
    tls = _tls("server", directory, upstream=False)
    return _bootstrap(
        [_listener(kind, INBOUND + 100 * at, tls) for at, (kind, _) in names],
        [_cluster(kind, "127.0.0.1", port, None) for kind, port in kinds.items()],
    )


def redirections(address: str, kinds: dict[str, int], *, inbound: bool) -> str:
    """Text for iptables-restore: the traffic that goes to the sidecar instead."""
    chain, first = ("PREROUTING", INBOUND) if inbound else ("OUTPUT", OUTBOUND)
    rules = [
        f"-A {chain} -d {address}/32 -p tcp --dport {port} -j REDIRECT --to-ports"
        f" {first + 100 * at}"
        for at, port in enumerate(kinds.values())
    ]
    return "\n".join(["*nat", *rules, "COMMIT", ""])


def _bootstrap(listeners: list[Json], clusters: list[Json]) -> Json:
    return {
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "node": {"id": "sidecar", "cluster": "bench"},
    }


def _listener(kind: str, port: int, tls: Json | None) -> Json:
    chain: Json = {"filters": [_tcp_proxy(kind) if kind == "tcp" else _http(kind)]}
    if tls:
        chain["transport_socket"] = tls
    return {
        "name": kind,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "listener_filters": [
            _typed(
                "envoy.filters.listener.original_dst",
                "filters.listener.original_dst.v3",
                "OriginalDst",
            )
        ],
        "filter_chains": [chain],
    }


def _typed(name: str, package: str, message: str, **fields: Any) -> Json:
    kind = f"{_TYPE}.extensions.{package}.{message}"
    return {"name": name, "typed_config": {"@type": kind, **fields}}


def _tcp_proxy(cluster: str) -> Json:
    return _typed(
        "envoy.filters.network.tcp_proxy",
        "filters.network.tcp_proxy.v3",
        "TcpProxy",
        stat_prefix=cluster,
        cluster=cluster,
    )


def _http(cluster: str) -> Json:
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}
    routes = {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}
    router = _typed("envoy.filters.http.router", "filters.http.router.v3", "Router")
    return _typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3",
        "HttpConnectionManager",
        stat_prefix=cluster,
        route_config=routes,
        http_filters=[router],
        generate_request_id=True,
        normalize_path=True,
        stream_idle_timeout="0s",
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
    if kind == "http2":
        options = {"explicit_http_config": {"http2_protocol_options": {}}}
        kind_of = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}"}
        cluster["typed_extension_protocol_options"] = {_HTTP_OPTIONS: kind_of | options}
    if tls:
        cluster["transport_socket"] = tls
    return cluster


def _tls(name: str, directory: Path, *, upstream: bool) -> Json:
    context: Json = {
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(directory / f"{name}.pem")},
                    "private_key": {"filename": str(directory / f"{name}.key")},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(directory / "root.pem")}},
        }
    }
    if not upstream:
        context["require_client_certificate"] = True
    return _typed(
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


def write_bootstraps(directory: Path, server_address: str, kinds: dict[str, int]) -> None:
    """``client.json`` and ``server.json``."""
    found = {"client": client(directory, server_address, kinds), "server": server(directory, kinds)}
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
