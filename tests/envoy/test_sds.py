"""A real Envoy takes its certificates over SDS, follows their rotation, gets no others."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import envoy
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from meshd import wire
from meshd.api.base import Duration
from meshd.base.errors import UnreachableError
from meshd.ca import authority
from meshd.ca.names import TRUST_BUNDLE
from meshd.ca.standalone import Standalone
from meshd.ca.store import Store
from meshd.model.workload import Identity
from meshd.roles import identity as role
from meshd.settings import IdentitySettings, Paths, Settings
from meshd.wire import channel
from tests.ports import free_port
from tests.waiting import PATIENCE

_BINARY = Path(envoy.__path__[0]) / "_bin" / "envoy"
_TYPE = "type.googleapis.com/envoy"
_SERVER = Identity("cluster.local", "default", "server")
_CLIENT = Identity("cluster.local", "default", "client")
_STRANGER = Identity("cluster.local", "other", "stranger")


# ---- Envoy's configuration


def _secret(name: str) -> dict[str, Any]:
    return {"name": name, "sds_config": _source()}


def _source() -> dict[str, Any]:
    """Envoy waits for an answer, however long that takes."""
    return {
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
        "api_config_source": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "sds"}}],
        },
    }


def _any(path: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"{_TYPE}.{path}", **fields}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _server(identity: Identity, port: int) -> dict[str, Any]:
    """A TLS listener that shows an identity, and echoes."""
    context = _any(
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={"tls_certificate_sds_secret_configs": [_secret(identity.uri)]},
    )
    echo = {"name": "echo", "typed_config": _any("extensions.filters.network.echo.v3.Echo")}
    return {
        "name": f"server-{port}",
        "address": _address(port),
        "filter_chains": [
            {
                "filters": [echo],
                "transport_socket": {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": context,
                },
            }
        ],
    }


def _client(identity: Identity, port: int) -> dict[str, Any]:
    """A plain listener that goes on over TLS, with the certificate that the filter state names."""
    state = {
        "object_key": "envoy.tls.certificate_mappers.on_demand_secret",
        "factory_key": "envoy.hashable_string",
        "format_string": {"text_format_source": {"inline_string": identity.uri}},
        "shared_with_upstream": "ONCE",
    }
    return {
        "name": f"client-{port}",
        "address": _address(port),
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "state",
                        "typed_config": _any(
                            "extensions.filters.network.set_filter_state.v3.Config",
                            on_new_connection=[state],
                        ),
                    },
                    {
                        "name": "proxy",
                        "typed_config": _any(
                            "extensions.filters.network.tcp_proxy.v3.TcpProxy",
                            stat_prefix="client",
                            cluster="application",
                        ),
                    },
                ]
            }
        ],
    }


def _on_demand() -> dict[str, Any]:
    return {
        "name": "envoy.tls.certificate_selectors.on_demand_secret",
        "typed_config": _any(
            "extensions.transport_sockets.tls.cert_selectors.on_demand_secret.v3.Config",
            config_source=_source(),
            certificate_mapper={
                "name": "envoy.tls.upstream_certificate_mappers.filter_state_override",
                "typed_config": _any(
                    "extensions.transport_sockets.tls.cert_mappers.filter_state_override.v3.Config",
                    default_value="unidentified",
                ),
            },
        ),
    }


def _cluster(name: str, address: dict[str, Any], **fields: Any) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        **fields,
    }


def _bootstrap(sds: Path, listeners: list[dict[str, Any]], application: int) -> dict[str, Any]:
    http2 = _any(
        "extensions.upstreams.http.v3.HttpProtocolOptions",
        explicit_http_config={"http2_protocol_options": {}},
    )
    options = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2}
    context = _any(
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        common_tls_context={
            "custom_tls_certificate_selector": _on_demand(),
            "validation_context_sds_secret_config": _secret(TRUST_BUNDLE),
        },
    )
    tls = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return {
        "node": {"id": "proxy-0", "cluster": "proxy"},
        "admin": {"address": {"pipe": {"path": str(sds.parent.parent / "admin.sock")}}},
        "static_resources": {
            "listeners": listeners,
            "clusters": [
                _cluster(
                    "sds", {"pipe": {"path": str(sds)}}, typed_extension_protocol_options=options
                ),
                _cluster("application", _address(application), transport_socket=tls),
            ],
        },
    }


@contextlib.asynccontextmanager
async def _envoy(
    paths: Paths, listeners: list[dict[str, Any]], application: int = 1
) -> AsyncGenerator[None]:
    config = paths.run / "envoy.json"
    config.write_text(json.dumps(_bootstrap(paths.proxy_run / "xds.sock", listeners, application)))
    log = paths.run / "envoy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [_BINARY, "-c", config, "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
        assert process.poll() is None, f"Envoy is gone: {log.read_text()[-2000:]}"
    finally:
        process.kill()
        process.wait()
        print(log.read_text()[-3000:])


# ---- the identity role


class _Role:
    """The role, in this process, and a mesh role's end of its socket."""

    def __init__(self, directory: Path, lifetime: float = 3600) -> None:
        self.paths = Paths(directory / "etc", directory / "lib", directory / "run")
        for path in (self.paths.lib, self.paths.run, self.paths.proxy_run):
            path.mkdir(exist_ok=True)
        self._settings = Settings(
            identity=IdentitySettings(certificate_lifetime=Duration(lifetime))
        )
        self.certificates: dict[str, wire.CertificateState] = {}
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(role.run(self._settings, self.paths))
        try:
            await _until(lambda: _exists(self.paths.socket("identity"), task))
            yield
            assert not task.done()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @contextlib.asynccontextmanager
    async def told(self, *identities: Identity) -> AsyncGenerator[Callable[..., Awaitable[None]]]:
        """Tells who is allowed; gives what tells others, and waits until all are certified."""
        self.certificates = {}
        async with await channel.connect(self.paths.socket("identity")) as connection:
            reader = asyncio.create_task(self._read(connection))
            try:

                async def allow(*identities: Identity, contacts: int = 0) -> None:
                    await connection.send(wire.Allow(identities, contacts))
                    uris = {identity.uri for identity in identities}
                    await self._wait(lambda: set(self.certificates) == uris)

                await allow(*identities)
                yield allow
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, connection: channel.Connection[wire.AnyMessage]) -> None:
        while isinstance(message := await connection.receive(), wire.Certificates):
            self.certificates = {state.uri: state for state in message.certificates}
            self._changed.set()

    async def _wait(self, predicate: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not predicate():
                self._changed.clear()
                await self._changed.wait()

    async def renewed(self, identity: Identity, serial: int) -> None:
        """Until its certificate is another than this."""
        await self._wait(lambda: int(self.certificates[identity.uri].serial, 16) != serial)


async def _exists(path: Path, task: asyncio.Task[None]) -> bool:
    if task.done():
        task.result()
    return path.exists()


async def _until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(OSError, EOFError):
                if await check():
                    return
            await asyncio.sleep(0.02)


# ---- peers


class _Peer:
    """A TLS connection to a listener, verified against the node's roots."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, paths: Paths) -> _Peer:
        context = ssl.create_default_context(cafile=paths.lib / "identity" / "root-cert.pem")
        context.check_hostname = False
        async with asyncio.timeout(PATIENCE):
            return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))

    @property
    def certificate(self) -> x509.Certificate:
        found = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(found)

    async def echoes(self) -> bool:
        self._writer.write(b"ping")
        return await self._reader.readexactly(4) == b"ping"

    def close(self) -> None:
        self._writer.close()


def _uri(certificate: x509.Certificate) -> str:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


async def _serves(port: int, paths: Paths, serial: int | None = None) -> bool:
    return serial in {None, await _shown_serial(port, paths)}


async def _serves_another(port: int, paths: Paths, *serials: int) -> bool:
    """With a certificate that is none of these."""
    return await _shown_serial(port, paths) not in serials


async def _shown_serial(port: int, paths: Paths) -> int:
    """Raises OSError or EOFError if the listener does not serve."""
    peer = await _Peer.connect(port, paths)
    try:
        if not await peer.echoes():
            raise EOFError("no echo")
        return peer.certificate.serial_number
    finally:
        peer.close()


@contextlib.asynccontextmanager
async def _application(paths: Paths) -> AsyncGenerator[int]:
    """Demands a certificate, and answers with the name in it. Its own is of the same authority."""
    signer = Store(paths.lib / "identity", "cluster.local", 3600).open(time.time())
    key = authority.new_key()
    issued = await signer.sign(authority.request(_SERVER, key, 3600), time.time())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (paths.run / "application.pem").write_bytes(private + issued.chain)
    context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=paths.lib / "identity" / "root-cert.pem"
    )
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(paths.run / "application.pem")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.write(_uri(x509.load_der_x509_certificate(shown)).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _shown(port: int) -> str:
    """As whom the application sees a client of this listener; empty: it never did."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return (await reader.readline()).decode().strip()
        except ConnectionError:
            return ""
        finally:
            writer.close()


async def _is_shown(port: int, name: str) -> bool:
    return await _shown(port) == name


def _run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(4 * PATIENCE):
            await scenario()

    asyncio.run(bounded())


# ---- what must hold


def test_new_connections_see_the_renewed_certificate_and_old_ones_live_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        node, port = _Role(tmp_path, lifetime=6), free_port()
        async with (
            node.running(),
            node.told(_SERVER),
            _envoy(node.paths, [_server(_SERVER, port)]),
        ):
            await _until(lambda: _serves(port, node.paths))
            old = await _Peer.connect(port, node.paths)
            first = old.certificate
            assert _uri(first) == _SERVER.uri
            assert await old.echoes()
            await node.renewed(_SERVER, first.serial_number)
            second = int(node.certificates[_SERVER.uri].serial, 16)
            await node.renewed(_SERVER, second)
            # The third, or a later one on a busy machine.
            await _until(lambda: _serves_another(port, node.paths, first.serial_number, second))
            assert await old.echoes()
            old.close()

    _run(scenario)


def test_a_name_that_is_not_allowed_is_not_served_until_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        node, port, other = _Role(tmp_path), free_port(), free_port()
        listeners = [_server(_SERVER, port), _server(_STRANGER, other)]
        async with node.running(), node.told(_SERVER) as allow, _envoy(node.paths, listeners):
            await _until(lambda: _serves(port, node.paths))
            with pytest.raises((OSError, EOFError)):
                await _serves(other, node.paths)
            await allow(_SERVER, _STRANGER)
            await _until(lambda: _serves(other, node.paths))

    _run(scenario)


def test_one_that_cannot_be_had_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    withheld = {_STRANGER.uri}
    sign = Standalone.sign

    async def sign_some(self: Standalone, request: authority.Request, now: float) -> Any:
        if request.identity.uri in withheld:
            raise UnreachableError("the server does not answer")
        return await sign(self, request, now)

    monkeypatch.setattr(Standalone, "sign", sign_some)

    async def scenario() -> None:
        node, port, other = _Role(tmp_path), free_port(), free_port()
        listeners = [_server(_STRANGER, other), _server(_SERVER, port)]
        async with (
            node.running(),
            node.told(_SERVER, _STRANGER) as allow,
            _envoy(node.paths, listeners),
        ):
            await _until(lambda: _serves(port, node.paths))
            assert node.certificates[_STRANGER.uri].problem
            # It listens, and takes neither TLS nor anything else.
            with pytest.raises((OSError, EOFError)):
                await _serves(other, node.paths)
            assert await _answer(other, b"ping") == b""
            withheld.clear()
            await allow(_SERVER, _STRANGER, contacts=1)
            await _until(lambda: _serves(other, node.paths))

    _run(scenario)


async def _answer(port: int, text: bytes) -> bytes:
    """To who speaks in plain, until it hangs up."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(text)
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


def test_each_client_shows_the_certificate_of_its_own_identity(tmp_path: Path) -> None:
    async def scenario() -> None:
        node, port, other = _Role(tmp_path), free_port(), free_port()
        listeners = [_client(_CLIENT, port), _client(_STRANGER, other)]
        async with (
            node.running(),
            node.told(_CLIENT) as allow,
            _application(node.paths) as application,
            _envoy(node.paths, listeners, application),
        ):
            await _until(lambda: _is_shown(port, _CLIENT.uri))
            assert await _shown(other) == ""
            await allow(_CLIENT, _STRANGER)
            await _until(lambda: _is_shown(other, _STRANGER.uri))
            assert await _shown(port) == _CLIENT.uri
            # An identity that is taken away is shown no more.
            await allow(_CLIENT)
            await _until(lambda: _is_shown(other, ""))
            assert await _shown(port) == _CLIENT.uri

    _run(scenario)


def test_a_restart_takes_nothing_from_the_proxies(tmp_path: Path) -> None:
    async def scenario() -> None:
        node, port, plain = _Role(tmp_path), free_port(), free_port()
        listeners = [_server(_SERVER, port), _client(_CLIENT, plain)]
        async with contextlib.AsyncExitStack() as stack:
            async with node.running(), node.told(_SERVER, _CLIENT):
                application = await stack.enter_async_context(_application(node.paths))
                await stack.enter_async_context(_envoy(node.paths, listeners, application))
                await _until(lambda: _serves(port, node.paths))
                await _until(lambda: _is_shown(plain, _CLIENT.uri))
                first = int(node.certificates[_SERVER.uri].serial, 16)
            assert await _serves(port, node.paths, first)
            assert await _shown(plain) == _CLIENT.uri

            # Without the record nobody is known to be allowed, and nothing is taken away.
            node.paths.allowed.unlink()
            async with node.running():
                await _until(lambda: _subscribed(node.paths, 3))
                assert await _serves(port, node.paths, first)
                assert await _shown(plain) == _CLIENT.uri
                async with node.told(_SERVER, _CLIENT):
                    second = int(node.certificates[_SERVER.uri].serial, 16)
                    assert second != first
                    await _until(lambda: _serves(port, node.paths, second))

            # With it, certificates are issued before the mesh role says a word.
            async with node.running():
                await _until(lambda: _serves_another(port, node.paths, second))
                await _until(lambda: _is_shown(plain, _CLIENT.uri))

    _run(scenario)


async def _subscribed(paths: Paths, streams: int) -> bool:
    """Envoy is back: it has a stream for each of its secrets, and has heard what it will hear."""
    stats = await asyncio.to_thread(_stats, paths)
    return stats["cluster.sds.upstream_rq_active"] == streams


def _stats(paths: Paths) -> dict[str, int]:
    admin = http.client.HTTPConnection("admin", timeout=PATIENCE)
    with contextlib.closing(admin):
        admin.sock = socket.socket(socket.AF_UNIX)
        admin.sock.connect(str(paths.run / "admin.sock"))
        admin.request("GET", "/stats?format=json&filter=cluster.sds")
        found = json.loads(admin.getresponse().read())["stats"]
    return {stat["name"]: stat["value"] for stat in found if "value" in stat}
