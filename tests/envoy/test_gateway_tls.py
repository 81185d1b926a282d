"""Which clients a gateway's TLS lets in, and what it shows them: a real Envoy, and Python's TLS.

Certificates are in files here; Secrets give the same settings (``tests/node``).
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import http.client
import json
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import envoy
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from google.protobuf import json_format

from meshd.api.gateway.types import CIPHER_SUITES, ServerTLSSettings, TLSCertificate
from meshd.api.secret_files import of_server
from meshd.compile.envoy.server_tls import server_tls
from meshd.compile.envoy.wellknown import filter_, packed, socket_address
from meshd.compile.gateway.tls import gateway_server
from meshd.sds.file_secrets import contents_of, secret_of
from meshd.sds.session_tickets import SessionTickets
from meshd.sds.subscriber import Secret
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ENVOY = Path(envoy.__path__[0]) / "_bin" / "envoy"
REQUEST = b"GET / HTTP/1.1\r\nhost: site.test\r\n\r\n"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
LATER = NOW + datetime.timedelta(days=3650)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Signed(NamedTuple):
    certificate: x509.Certificate
    key: Key
    file: Path
    """The certificate and its key."""

    @property
    def hash(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def spki(self) -> str:
        public = self.certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return base64.b64encode(hashlib.sha256(public).digest()).decode()


class Authority:
    """Signs certificates and writes them to a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self._files = directory / name
        self._files.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        root = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.file = self._files / "root.pem"
        signed = root.sign(self._key, hashes.SHA256())
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def sign(self, name: str, key: Key | None = None) -> Signed:
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = self._builder(subject, key).add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        file = self._files / f"{name}-{type(key).__name__}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
        return Signed(certificate, key, file)

    def revoke(self, signed: Signed) -> Path:
        revoked = (
            x509.RevokedCertificateBuilder()
            .serial_number(signed.certificate.serial_number)
            .revocation_date(NOW)
            .build()
        )
        listed = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(NOW)
            .next_update(LATER)
            .add_revoked_certificate(revoked)
            .sign(self._key, hashes.SHA256())
        )
        file = self._files / "revoked.crl"
        file.write_bytes(listed.public_bytes(serialization.Encoding.PEM))
        return file

    def _builder(self, subject: x509.Name, key: Key) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW)
            .not_valid_after(LATER)
        )


class Edge(NamedTuple):
    ports: dict[str, int]
    clients: dict[str, Signed]

    def is_let_in(self, server: str, client: str | None, context: ssl.SSLContext) -> bool:
        """With TLS 1.3 a client learns that it was refused when it reads."""
        if client:
            context.load_cert_chain(self.clients[client].file)
        try:
            with (
                socket.create_connection(("127.0.0.1", self.ports[server]), PATIENCE) as plain,
                context.wrap_socket(plain) as connection,
            ):
                connection.sendall(REQUEST)
                return connection.recv(1024).startswith(b"HTTP/1.1 200 ")
        except (ssl.SSLError, ConnectionError):
            return False

    def is_resumed(self, server: str, context: ssl.SSLContext, at: str = "") -> bool:
        """Whether a second connection goes on with the session of the first; ``at``: to another
        server."""
        context.load_cert_chain(self.clients["good"].file)
        first, _ = self._ask(server, context)
        return self._ask(at or server, context, first)[1]

    def _ask(
        self, server: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> tuple[ssl.SSLSession | None, bool]:
        """The session, and whether it was resumed. TLS 1.3 tells of it after the handshake."""
        with (
            socket.create_connection(("127.0.0.1", self.ports[server]), PATIENCE) as plain,
            context.wrap_socket(plain, session=session) as connection,
        ):
            connection.sendall(REQUEST)
            assert connection.recv(1024).startswith(b"HTTP/1.1 200 ")
            return connection.session, bool(connection.session_reused)

    def key_shown(self, server: str, context: ssl.SSLContext) -> type[Any]:
        with (
            socket.create_connection(("127.0.0.1", self.ports[server]), PATIENCE) as plain,
            context.wrap_socket(plain) as connection,
        ):
            shown = connection.getpeercert(binary_form=True)
        assert shown
        return type(x509.load_der_x509_certificate(shown).public_key())


def context(ciphers: str = "", newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE  # what the server thinks of clients is asked here
    if ciphers:
        made.set_ciphers(ciphers)
    if newest:
        made.maximum_version = newest
    return made


def _listener(name: str, tls: ServerTLSSettings) -> Any:
    answer = route_components_pb2.Route(match={"prefix": "/"}, direct_response={"status": 200})
    host = route_components_pb2.VirtualHost(name="all", domains=["*"], routes=[answer])
    manager = manager_pb2.HttpConnectionManager(
        stat_prefix=name,
        route_config=route_pb2.RouteConfiguration(name="all", virtual_hosts=[host]),
        http_filters=[
            manager_pb2.HttpFilter(name="router", typed_config=packed(router_pb2.Router()))
        ],
    )
    chain = listener_components_pb2.FilterChain(
        filters=[filter_("envoy.filters.network.http_connection_manager", manager)],
        transport_socket=_static(server_tls(gateway_server(tls, "default"))),
    )
    return listener_pb2.Listener(
        name=name, address=socket_address("127.0.0.1", 0), filter_chains=[chain]
    )


def _static(socket: Any) -> Any:
    """With secrets that are in the bootstrap."""
    server = tls_pb2.DownstreamTlsContext()
    socket.typed_config.Unpack(server)
    context = server.common_tls_context
    for one in context.tls_certificate_sds_secret_configs:
        one.ClearField("sds_config")
    if server.HasField("session_ticket_keys_sds_secret_config"):
        server.session_ticket_keys_sds_secret_config.ClearField("sds_config")
    if context.HasField("combined_validation_context"):
        combined = context.combined_validation_context
        combined.validation_context_sds_secret_config.ClearField("sds_config")
    socket.typed_config.Pack(server)
    return socket


def _secrets(servers: Iterable[ServerTLSSettings], directory: Path) -> Iterator[Any]:
    """What is in the files that the servers name, and the keys of tickets."""
    tickets: list[Secret] = []
    SessionTickets(lambda _, made: tickets.append(made)).renew()
    yield secret_pb2.Secret.FromString(tickets[0].body)
    named = (of_server(tls) for tls in servers)
    asked = {one for shown, authority in named for one in (*shown, authority) if one}
    for files in sorted(asked, key=lambda one: one.name):
        made = secret_of(files, contents_of(files, (str(directory),)))
        yield secret_pb2.Secret.FromString(made.body)


def _servers(directory: Path, clients: dict[str, Signed]) -> dict[str, ServerTLSSettings]:
    authority = Authority(directory, "clients")
    clients["good"] = authority.sign("good.test")
    clients["other"] = authority.sign("other.test")
    clients["stranger"] = Authority(directory, "strangers").sign("good.test")
    site = Authority(directory, "site")
    narrow = site.sign("site.test")
    wide = site.sign("site.test", rsa.generate_private_key(65537, 2048))

    def mutual(mode: Any = "MUTUAL", **more: Any) -> ServerTLSSettings:
        return ServerTLSSettings(
            mode=mode,
            ca_certificates=str(authority.file),
            server_certificate=str(narrow.file),
            private_key=str(narrow.file),
            **more,
        )

    simple = ServerTLSSettings(
        mode="SIMPLE", server_certificate=str(narrow.file), private_key=str(narrow.file)
    )
    good = clients["good"]
    colons = ":".join(good.hash[at : at + 2] for at in range(0, 64, 2))
    return {
        "mutual": mutual(),
        "optional": mutual("OPTIONAL_MUTUAL"),
        "spki": mutual(verify_certificate_spki=(good.spki,)),
        "hash": mutual(verify_certificate_hash=(colons,)),
        "names": mutual(subject_alt_names=("good.test", "spiffe://x/y")),
        "crl": mutual(ca_crl=str(authority.revoke(clients["other"]))),
        "two": ServerTLSSettings(
            mode="SIMPLE",
            tls_certificates=tuple(
                TLSCertificate(server_certificate=str(one.file), private_key=str(one.file))
                for one in (narrow, wide)
            ),
        ),
        "member": simple,
        "other member": simple,
        "ciphers": ServerTLSSettings(
            mode="SIMPLE",
            max_protocol_version="TLSV1_2",
            cipher_suites=("ECDHE-ECDSA-AES256-GCM-SHA384", "NO-SUCH-CIPHER"),
            server_certificate=str(narrow.file),
            private_key=str(narrow.file),
        ),
        "every cipher": ServerTLSSettings(
            mode="SIMPLE",
            cipher_suites=tuple(sorted(CIPHER_SUITES)),
            server_certificate=str(narrow.file),
            private_key=str(narrow.file),
        ),
    }


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    directory = tmp_path_factory.mktemp("edge")
    clients: dict[str, Signed] = {}
    servers = _servers(directory, clients)
    bootstrap = bootstrap_pb2.Bootstrap(
        admin={"address": socket_address("127.0.0.1", 0)},
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(
            listeners=[_listener(name, tls) for name, tls in servers.items()],
            secrets=_secrets(servers.values(), directory),
        ),
    )
    config, admin, log = (directory / name for name in ("envoy.json", "admin", "envoy.log"))
    config.write_text(json_format.MessageToJson(bootstrap))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                str(ENVOY),
                *("--config-path", str(config), "--admin-address-path", str(admin)),
                *("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while len(ports := _ports(admin)) < len(servers):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        yield Edge(ports, clients)
    finally:
        process.kill()
        process.wait(PATIENCE)


def _ports(admin: Path) -> dict[str, int]:
    host, _, port = (admin.read_text() if admin.exists() else "").strip().rpartition(":")
    if not host:
        return {}
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    try:
        connection.request("GET", "/listeners?format=json")
        listed = json.loads(connection.getresponse().read())
    except ConnectionError:
        return {}
    finally:
        connection.close()
    return {
        one["name"]: one["local_address"]["socket_address"]["port_value"]
        for one in listed.get("listener_statuses", [])
    }


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("server", "let_in"),
    [
        ("mutual", {"good", "other"}),
        ("optional", {"good", "other", None}),
        ("spki", {"good"}),
        ("hash", {"good"}),
        ("names", {"good"}),
        ("crl", {"good"}),
    ],
)
def test_only_clients_with_the_certificates_that_are_asked_for_are_let_in(
    edge: Edge, server: str, let_in: set[str | None], newest: ssl.TLSVersion
) -> None:
    everyone = ("good", "other", "stranger", None)

    assert {
        client for client in everyone if edge.is_let_in(server, client, context(newest=newest))
    } == let_in


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("server", ["mutual", "optional", "spki", "hash", "names", "crl", "two"])
def test_a_session_is_resumed_only_where_no_client_is_verified(
    edge: Edge, server: str, newest: ssl.TLSVersion
) -> None:
    """The client's certificate may have ended or been revoked since the session began."""
    assert edge.is_resumed(server, context(newest=newest)) == (server == "two")


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("other", "expected"), [("other member", True), ("two", False)])
def test_a_session_is_resumed_by_another_member_that_shows_the_same_certificates(
    edge: Edge, newest: ssl.TLSVersion, other: str, *, expected: bool
) -> None:
    """As for another process: each listener has a context of its own."""
    assert edge.is_resumed("member", context(newest=newest), other) is expected


def test_of_two_certificates_the_one_is_shown_that_the_client_can_verify(edge: Edge) -> None:
    old = ssl.TLSVersion.TLSv1_2

    assert issubclass(
        edge.key_shown("two", context("ECDHE-RSA-AES128-GCM-SHA256", old)), rsa.RSAPublicKey
    )
    assert issubclass(
        edge.key_shown("two", context("ECDHE-ECDSA-AES128-GCM-SHA256", old)),
        ec.EllipticCurvePublicKey,
    )


def test_only_the_ciphers_that_are_listed_are_spoken(edge: Edge) -> None:
    assert edge.is_let_in("ciphers", None, context("ECDHE-ECDSA-AES256-GCM-SHA384"))
    assert not edge.is_let_in("ciphers", None, context("ECDHE-ECDSA-AES128-GCM-SHA256"))
    assert edge.is_let_in("every cipher", None, context("ECDHE-ECDSA-AES128-GCM-SHA256"))
