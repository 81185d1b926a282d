"""A certificate of the mesh passes for nothing but what it was given for."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from meshd import wire
from meshd.base.errors import InvalidInputError
from meshd.ca import authority
from meshd.ca.authority import request
from meshd.ca.standalone import Standalone
from meshd.ca.store import Store
from meshd.fleet.joining.node import SERVER_NAME, Credentials, new_request, node_uri, private_pem
from meshd.fleet.membership.registration_authority import RegistrationAuthority
from meshd.fleet.membership.token_store import TokenStore
from meshd.fleet.server import istio_ca
from meshd.model.workload import Identity

TD, DAY = "cluster.local", 24 * 3600.0
WORKLOAD = Identity(TD, "mesh", "till")


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Credentials]:
    """One of each kind, of one authority."""
    return asyncio.run(_made(tmp_path_factory.mktemp("ca")))


async def _made(directory: Path) -> dict[str, Credentials]:
    directory.chmod(0o700)
    signer = Standalone(Store(directory, TD, 1000 * DAY), time.time())
    registration = RegistrationAuthority(
        signer, TokenStore(directory), trust_domain=TD, node="s", lifetime=DAY, node_lifetime=DAY
    )
    token = await registration.answer(wire.CreateToken(60))
    assert isinstance(token, wire.TokenCreated)
    found: dict[str, Credentials] = {}
    for kind, node, dns in (("node", "a", ()), ("server", "s", (SERVER_NAME,))):
        key = authority.new_key()
        asked = new_request(key, node_uri(TD, node), dns).public_bytes(Encoding.PEM)
        answer = await registration.answer(
            wire.Certify(asked) if dns else wire.Enlist(token.token, node, asked)
        )
        assert isinstance(answer, wire.Certified)
        found[kind] = Credentials(private_pem(key), answer.chain, answer.roots)
    key = authority.new_key()
    issued = await signer.sign(request(WORKLOAD, key, DAY), time.time())
    found["workload"] = Credentials(private_pem(key), issued.chain, signer.roots())
    return found


def _context(side: int, credentials: Credentials, directory: Path) -> ssl.SSLContext:
    file = directory / f"{side}.pem"
    file.write_bytes(credentials.key + credentials.chain)
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(file)
    context.load_verify_locations(cadata=credentials.roots.decode())
    return context


def shake_hands(client: Credentials, server: Credentials, directory: Path, name: str) -> None:
    """Both verify that the other's certificate is of their authority, and fit for its end."""
    near = _context(ssl.PROTOCOL_TLS_CLIENT, client, directory)
    near.check_hostname = bool(name)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = near.wrap_bio(back, there, server_hostname=name or None)
    far = _context(ssl.PROTOCOL_TLS_SERVER, server, directory)
    right = far.wrap_bio(there, back, server_side=True)
    done = 0
    for _ in range(10):
        for end in (left, right):
            try:
                end.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
    assert done


@pytest.mark.parametrize(
    ("client", "server", "name"),
    [
        ("workload", "workload", ""),
        ("node", "server", SERVER_NAME),
    ],
)
def test_each_serves_for_what_it_is(
    held: dict[str, Credentials], tmp_path: Path, client: str, server: str, name: str
) -> None:
    shake_hands(held[client], held[server], tmp_path, name)


@pytest.mark.parametrize(
    ("client", "server", "name"),
    [
        ("workload", "node", ""),  # a node as what a workload connects to
        ("node", "node", SERVER_NAME),  # or as the server of other nodes
        ("server", "workload", ""),  # a server as a client of workloads
        ("node", "workload", SERVER_NAME),  # a workload as the server of nodes
    ],
)
def test_none_serves_for_anything_else(
    held: dict[str, Credentials], tmp_path: Path, client: str, server: str, name: str
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(held[client], held[server], tmp_path, name)


def test_a_workload_is_no_node_to_a_server(held: dict[str, Credentials]) -> None:
    leaf = held["workload"].leaf.public_bytes(Encoding.DER)
    with pytest.raises(InvalidInputError, match="not a node's"):
        istio_ca.peer_of(leaf, TD)
    assert istio_ca.peer_of(held["node"].leaf.public_bytes(Encoding.DER), TD).node == "a"
