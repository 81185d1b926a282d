"""What an application is told of its caller, nobody can forge, and it is never lost."""

from __future__ import annotations

import ssl

import pytest

from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import Mesh, answer, headers, uri_of

CERTIFICATE = "x-forwarded-client-cert"
FORGED = f"By={uri_of('server')};Hash=00;URI={uri_of('king')}"
REQUEST = f"GET / HTTP/1.1\nhost: server.test\n{CERTIFICATE}: {FORGED}"
PORTS = [8080, 7000]
pytestmark = pytest.mark.usefixtures("application")


def callers(seen: str) -> list[str]:
    """The identities that the application was told, in the order in which they stand there."""
    elements = ",".join(headers(seen).get(CERTIFICATE, [])).split(",")
    return [part[4:] for one in elements for part in one.split(";") if part.startswith("URI=")]


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("silence", [0, 0.15, 0.3, 2.5])
def test_a_client_cannot_forge_its_name_however_long_it_waits(
    mesh: Mesh, port: int, silence: float
) -> None:
    with mesh.hosts["client"].connect(ADDRESS, port) as client:
        assert callers(answer(client, REQUEST, after=silence).body) == [uri_of("client")]


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("silence", [0, 0.3])
def test_a_client_with_a_certificate_of_the_mesh_cannot_claim_another_name(
    mesh: Mesh, port: int, silence: float
) -> None:
    address = mesh.hosts["server"].address
    context = mesh.holder("mallory")
    with context.wrap_socket(mesh.outside.connect(address, port)) as client:
        request = REQUEST + f"\n{CERTIFICATE}: {FORGED}"
        assert callers(answer(client, request, after=silence).body) == [uri_of("mallory")]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_shows_its_certificate_on_each_connection_for_no_session_is_resumed(
    mesh: Mesh, version: ssl.TLSVersion
) -> None:
    """A session would outlive the certificate by which it was begun."""
    address, context = mesh.hosts["server"].address, mesh.holder("mallory")
    context.minimum_version = context.maximum_version = version
    with context.wrap_socket(mesh.outside.connect(address, 8080)) as first:
        assert callers(answer(first, REQUEST).body) == [uri_of("mallory")]
        session = first.session
    with context.wrap_socket(mesh.outside.connect(address, 8080), session=session) as second:
        assert callers(answer(second, REQUEST).body) == [uri_of("mallory")]
        assert not second.session_reused


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("silence", [0, 0.3, 2.5])
def test_a_client_without_a_certificate_has_no_name(mesh: Mesh, port: int, silence: float) -> None:
    with mesh.outside.connect(mesh.hosts["server"].address, port) as client:
        assert callers(answer(client, REQUEST, after=silence).body) == []


def test_a_gateway_is_named_after_its_client_that_it_has_named_itself(mesh: Mesh) -> None:
    address = mesh.hosts["server"].address
    context = mesh.holder("gateway")
    with context.wrap_socket(mesh.outside.connect(address, 8080)) as client:
        assert callers(answer(client, REQUEST).body) == [uri_of("king"), uri_of("gateway")]


def test_a_gateway_takes_no_name_from_a_client_without_a_certificate(mesh: Mesh) -> None:
    seen = mesh.outside.ask(mesh.hosts["gateway"].address, 80, REQUEST)
    assert callers(seen.body) == [uri_of("gateway")]
