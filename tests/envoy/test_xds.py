"""A real Envoy takes what the server publishes, keeps it, and says what it will not take."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import envoy
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import config_source_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from google.protobuf import any_pb2

from meshd.model.pool import Pool
from meshd.xds.resources import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    SECRET,
    Resource,
    Resources,
    pack,
)
from meshd.xds.server import Server
from tests.pem import certificate_pem, key_pem, new_key
from tests.ports import free_port
from tests.waiting import PATIENCE

_BINARY = Path(envoy.__path__[0]) / "_bin" / "envoy"
_ADS: dict[str, Any] = {"ads": {}, "resource_api_version": "V3"}

Stats = dict[str, int]


def _bootstrap(directory: Path) -> dict[str, Any]:
    xds = {"pipe": {"path": str(directory / "xds.sock")}}
    return {
        "node": {"id": "proxy-0", "cluster": "proxy"},
        "admin": {"address": {"pipe": {"path": str(directory / "admin.sock")}}},
        "dynamic_resources": {
            "lds_config": _ADS,
            "cds_config": _ADS,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": "xds",
                            "retry_policy": {
                                "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.2s"}
                            },
                        }
                    }
                ],
            },
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3."
                            "HttpProtocolOptions",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": xds}}]}],
                    },
                }
            ]
        },
    }


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class _Envoy:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _ask(self, path: str) -> str:
        connection = _UnixConnection(self._directory / "admin.sock")
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    async def stats(self) -> Stats:
        path = "/stats?format=json&filter=_manager|init_fetch"
        text = await asyncio.to_thread(self._ask, path)
        return {s["name"]: s["value"] for s in json.loads(text)["stats"] if "value" in s}

    async def is_live(self) -> bool:
        return (await asyncio.to_thread(self._ask, "/ready")).strip() == "LIVE"

    async def get(self, port: int, path: str = "/") -> tuple[int, str]:
        return await asyncio.to_thread(_get, port, path)


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


@contextlib.asynccontextmanager
async def _running(directory: Path) -> AsyncGenerator[_Envoy]:
    config = directory / "envoy.json"
    config.write_text(json.dumps(_bootstrap(directory)))
    log = directory / "envoy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [_BINARY, "-c", config, "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield _Envoy(directory)
        assert process.poll() is None, f"Envoy is gone: {log.read_text()[-2000:]}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()


def _traffic(resources: Iterable[Resource]) -> dict[Pool, Resources]:
    return {Pool.TRAFFIC: Resources.of(resources)}


@contextlib.asynccontextmanager
async def _serving(directory: Path, *resources: Resource) -> AsyncGenerator[Server]:
    server = Server()
    await server.start(directory / "xds.sock")
    if resources:
        server.publish(_traffic(resources))
    try:
        yield server
    finally:
        await server.stop()


def _packed(message: Any) -> Any:
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


def _cluster(name: str, **parts: Any) -> Resource:
    over_ads = config_source_pb2.ConfigSource(**_ADS)
    return pack(
        name,
        cluster_pb2.Cluster(
            name=name, type="EDS", eds_cluster_config={"eds_config": over_ads}, **parts
        ),
    )


def _endpoints(name: str, port: int) -> Resource:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return pack(
        name,
        endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name, endpoints=[{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        ),
    )


def _listener(
    name: str,
    port: int,
    *,
    prefix: str = "x",
    address: str = "127.0.0.1",
    routes: str = "r",
    secret: str = "",
) -> Resource:
    """In TLS, if there is a secret."""
    manager = hcm.HttpConnectionManager(
        stat_prefix=prefix,
        rds={"config_source": config_source_pb2.ConfigSource(**_ADS), "route_config_name": routes},
        http_filters=[{"name": "router", "typed_config": _packed(router_pb2.Router())}],
    )
    filters = [{"name": "hcm", "typed_config": _packed(manager)}]
    return pack(
        name,
        listener_pb2.Listener(
            name=name,
            address={"socket_address": {"address": address, "port_value": port}},
            filter_chains=[{"filters": filters, "transport_socket": _tls(secret)}],
        ),
    )


def _tls(secret: str) -> Any:
    if not secret:
        return None
    config = {"name": secret, "sds_config": config_source_pb2.ConfigSource(**_ADS)}
    context = tls_pb2.DownstreamTlsContext(
        common_tls_context={"tls_certificate_sds_secret_configs": [config]}
    )
    return {"name": "envoy.transport_sockets.tls", "typed_config": _packed(context)}


def _secret(name: str, chain: bytes, key: bytes) -> Resource:
    secret = secret_pb2.Secret(name=name)
    secret.tls_certificate.certificate_chain.inline_bytes = chain
    secret.tls_certificate.private_key.inline_bytes = key
    return pack(name, secret)


def _routes(cluster: str) -> Resource:
    fixed = {"match": {"path": "/fixed"}, "direct_response": {"status": 200}}
    host = {
        "name": "all",
        "domains": ["*"],
        "routes": [fixed, {"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
    }
    return pack("r", route_pb2.RouteConfiguration(name="r", virtual_hosts=[host]))


@contextlib.asynccontextmanager
async def _application(body: bytes) -> AsyncGenerator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            writer.write(head % len(body) + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(OSError):
                if await check():
                    return
            await asyncio.sleep(0.02)


def _run(scenario: Callable[[Path], Awaitable[None]], directory: Path) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(4 * PATIENCE):
            await scenario(directory)

    asyncio.run(bounded())


async def _is_synced(server: Server) -> bool:
    """The one pool that is there has all that is for it."""

    def so() -> bool:
        return server.connected > 0 and all(one.synced for one in server.members())

    return await server.wait(so, PATIENCE)


def test_envoy_serves_what_is_published_and_what_it_is_changed_to(tmp_path: Path) -> None:
    async def scenario(directory: Path) -> None:
        port = free_port()
        async with (
            _application(b"one") as one,
            _application(b"two") as two,
            _serving(directory) as server,
            _running(directory) as proxy,
        ):
            first = [_cluster("one"), _endpoints("one", one), _listener("l", port), _routes("one")]
            server.publish(_traffic(first))
            assert await server.wait(lambda: "r" in server.accepted_names(ROUTES), PATIENCE)
            await _until(lambda: _answers(proxy, port, "one"))
            assert await _is_synced(server)
            assert server.accepted_names(LISTENER) == {"l"}

            # Requests go on while the route moves to a new cluster and the old one is removed.
            bodies: set[tuple[int, str]] = set()
            server.publish(
                _traffic(
                    [_cluster("two"), _endpoints("two", two), _listener("l", port), _routes("two")]
                )
            )
            while (answer := await proxy.get(port)) != (200, "two"):
                bodies.add(answer)
            assert bodies <= {(200, "one")}
            assert await _is_synced(server)
            assert server.present_names(CLUSTER) == {"two"}

            # A changed cluster gets its endpoints again, so that it does not wait for them.
            changed = _cluster("two", connect_timeout={"seconds": 3})
            server.publish(
                _traffic([changed, _endpoints("two", two), _listener("l", port), _routes("two")])
            )
            assert await _is_synced(server)
            await _until(lambda: _is(proxy, "cluster_manager.warming_clusters", 0))
            assert (await proxy.stats())["cluster.two.init_fetch_timeout"] == 0

            server.publish(_traffic([]))
            assert await _is_synced(server)
            await _until(lambda: _is(proxy, "listener_manager.total_listeners_active", 0))
            assert server.present_names(CLUSTER) == frozenset()

    _run(scenario, tmp_path)


async def _answers(proxy: _Envoy, port: int, body: str) -> bool:
    return await proxy.get(port) == (200, body)


async def _is(proxy: _Envoy, stat: str, value: int) -> bool:
    return (await proxy.stats())[stat] == value


def test_a_bad_resource_is_refused_by_name_and_the_rest_goes_on(tmp_path: Path) -> None:
    async def scenario(directory: Path) -> None:
        port, other = free_port(), free_port()
        async with _application(b"one") as one:
            base = [_cluster("one"), _endpoints("one", one), _routes("one"), _listener("l", port)]
            async with _serving(directory, *base) as server, _running(directory) as proxy:
                await _until(lambda: _answers(proxy, port, "one"))
                # An address that this host does not have, and a load balancer without its options.
                worse = _listener("l", port, address="198.18.255.1")
                extra = _listener("extra", other)
                odd = _cluster("odd", lb_policy="LOAD_BALANCING_POLICY_CONFIG")
                server.publish(_traffic([*base[:3], worse, extra, odd]))
                assert await server.wait(
                    lambda: server.rejections().keys() == {(LISTENER, "l"), (CLUSTER, "odd")},
                    PATIENCE,
                ), server.rejections()
                assert not server.members()[0].synced
                assert "198.18.255.1" in server.rejections()[LISTENER, "l"].reason
                assert any(text.startswith("l: ") for text in server.members()[0].rejected)
                await _until(lambda: _answers(proxy, other, "one"))
                assert await proxy.get(port) == (200, "one")

                server.publish(_traffic([*base, extra]))
                assert await server.wait(lambda: not server.rejections(), PATIENCE)
                assert await _is_synced(server)

    _run(scenario, tmp_path)


def test_one_bad_resource_of_any_kind_holds_up_no_other(tmp_path: Path) -> None:
    """Routes, endpoints and secrets that Envoy refuses: what is good beside them works, and what
    comes later."""
    key, name = new_key(), "site.test"
    chain = certificate_pem(key, name)
    route = {"name": "x", "domains": ["*"]}

    async def scenario(directory: Path) -> None:
        ports = [free_port() for _ in range(5)]
        trusted = directory / "chain.pem"
        trusted.write_bytes(chain)
        async with _application(b"one") as one:
            resources = [
                *(
                    _cluster("one"),
                    _endpoints("one", one),
                    _routes("one"),
                    _listener("l", ports[0]),
                ),
                _cluster("two"),
                pack(
                    "two",
                    endpoint_pb2.ClusterLoadAssignment(
                        cluster_name="two", endpoints=[{"priority": 200}]
                    ),
                ),
                _listener("of bad routes", ports[1], routes="bad"),
                pack("bad", route_pb2.RouteConfiguration(name="bad", virtual_hosts=[route, route])),
                _listener("of a bad secret", ports[2], secret="mismatched"),  # noqa: S106
                _secret("mismatched", chain, key_pem(new_key())),
                _listener("of a good secret", ports[3], secret="good"),  # noqa: S106
                _secret("good", chain, key_pem(key)),
            ]
            bad = {(ROUTES, "bad"), (ENDPOINTS, "two"), (SECRET, "mismatched")}
            async with _serving(directory, *resources) as server, _running(directory) as proxy:
                assert await server.wait(lambda: server.rejections().keys() == bad, PATIENCE), (
                    server.rejections()
                )
                await _until(lambda: _answers(proxy, ports[0], "one"))
                await _until(lambda: _is_shown(ports[3], trusted, name))
                assert not await _is_shown(ports[2], trusted, name)
                server.publish(_traffic([*resources, _listener("later", ports[4])]))
                await _until(lambda: _answers(proxy, ports[4], "one"))
                assert all(one.rejected for one in server.members())

    _run(scenario, tmp_path)


async def _is_shown(port: int, trusted: Path, name: str) -> bool:
    """Whether a server shows a certificate of this name that is trusted."""
    context = ssl.create_default_context(cafile=str(trusted))
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=name
        )
    except (ssl.SSLError, OSError):
        return False
    writer.close()
    return True


def test_a_listener_whose_port_was_taken_works_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.xds.server._OFFER_AGAIN", 0.1)

    async def scenario(directory: Path) -> None:
        async with _application(b"one") as one, contextlib.AsyncExitStack() as stack:
            with socket.create_server(("127.0.0.1", 0)) as stranger:
                port = stranger.getsockname()[1]
                base = [_cluster("one"), _endpoints("one", one), _routes("one")]
                serving = _serving(directory, *base, _listener("l", port))
                server = await stack.enter_async_context(serving)
                proxy = await stack.enter_async_context(_running(directory))
                assert await server.wait(lambda: bool(server.rejections()), PATIENCE)
                assert "\n" not in server.rejections()[LISTENER, "l"].reason
            await _until(lambda: _answers(proxy, port, "one"))
            assert await server.wait(lambda: not server.rejections(), PATIENCE)

    _run(scenario, tmp_path)


def test_where_there_are_no_listeners_a_new_proxy_waits_for_none(tmp_path: Path) -> None:
    async def scenario(directory: Path) -> None:
        async with _application(b"one") as one:
            base = [_cluster("one"), _endpoints("one", one)]
            async with _serving(directory, *base), _running(directory) as proxy:
                await _until(proxy.is_live)
                # Of the two ways to become that:
                assert await _is(proxy, "listener_manager.lds.init_fetch_timeout", 0)
                assert await _is(proxy, "listener_manager.lds.update_success", 1)

    _run(scenario, tmp_path)


def test_a_restarted_server_leaves_envoy_serving_and_changes_nothing(tmp_path: Path) -> None:
    async def scenario(directory: Path) -> None:
        port = free_port()
        async with _application(b"one") as one:
            resources = [
                _cluster("one"), _endpoints("one", one), _listener("l", port), _routes("one")
            ]  # fmt: skip
            async with _serving(directory, *resources) as server:
                running = _running(directory)
                proxy = await running.__aenter__()
                await _until(lambda: _answers(proxy, port, "one"))
                assert await _is_synced(server)
            try:
                before = await proxy.stats()
                assert await proxy.get(port) == (200, "one")
                async with _serving(directory) as server:
                    assert await server.wait(lambda: server.connected == 1, PATIENCE)
                    assert await proxy.get(port) == (200, "one")
                    server.publish(_traffic(resources))
                    assert await _is_synced(server)
                    assert await proxy.get(port) == (200, "one")
                    assert _changes(await proxy.stats()) == _changes(before)

                    server.publish(_traffic([*resources, _cluster("more")]))
                    assert await _is_synced(server)
                    assert _changes(await proxy.stats()) != _changes(before)
            finally:
                await running.__aexit__(None, None, None)

    _run(scenario, tmp_path)


def test_a_cluster_that_waits_for_endpoints_is_given_them_by_the_next_server(
    tmp_path: Path,
) -> None:
    """Envoy has endpoints of that name, and says so; without being sent them it waits for 15 s."""

    async def scenario(directory: Path) -> None:
        port = free_port()
        async with _application(b"one") as one, contextlib.AsyncExitStack() as stack:
            endpoints, rest = _endpoints("one", one), [_listener("l", port), _routes("one")]
            async with _serving(directory, _cluster("one"), endpoints, *rest) as server:
                proxy = await stack.enter_async_context(_running(directory))
                await _until(lambda: _answers(proxy, port, "one"))
                assert await _is_synced(server)
                changed = _cluster("one", connect_timeout={"seconds": 3})
                server.publish(_traffic([changed, *rest]))
                await _until(lambda: _is(proxy, "cluster_manager.warming_clusters", 1))
            async with _serving(directory, changed, endpoints, *rest) as server:
                assert await _is_synced(server)
                stats = await proxy.stats()
                assert stats["cluster_manager.warming_clusters"] == 0
                assert stats["cluster.one.init_fetch_timeout"] == 0
                assert await proxy.get(port) == (200, "one")

    _run(scenario, tmp_path)


def _changes(stats: Stats) -> Stats:
    names = (
        "cluster_manager.cds.update_success", "cluster_manager.cluster_added",
        "cluster_manager.cluster_modified", "cluster_manager.cluster_removed",
        "listener_manager.lds.update_success", "listener_manager.listener_added",
        "listener_manager.listener_modified", "listener_manager.listener_removed",
        "listener_manager.listener_in_place_updated",
    )  # fmt: skip
    return {name: stats[name] for name in names}
