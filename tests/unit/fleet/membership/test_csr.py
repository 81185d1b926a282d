"""Who may have which certificate: a node its own and those of what runs on it, and no other."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
import time
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from meshd import wire
from meshd.base.errors import InvalidInputError, MeshdError
from meshd.ca import authority
from meshd.ca.names import parse
from meshd.ca.standalone import Standalone
from meshd.ca.store import Store
from meshd.fleet.joining.node import SERVER_NAME, new_request, node_uri, parse_node
from meshd.fleet.membership import csr
from meshd.fleet.membership.registration_authority import RegistrationAuthority
from meshd.fleet.membership.token_store import TokenStore
from meshd.model.workload import Identity
from meshd.wire.joining import Peer

TD = "cluster.local"
WEB = Identity(TD, "shop", "web")
DB = Identity(TD, "shop", "db")
names = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)


def pem(uri: str, *dns: str) -> bytes:
    return new_request(authority.new_key(), uri, dns).public_bytes(Encoding.PEM)


def may(
    node: str,
    uri: str,
    *dns: str,
    registered: tuple[Identity, ...] = (WEB,),
    bounds: tuple[str, ...] = (),
) -> bool:
    asked = csr.read(pem(uri, *dns))
    try:
        csr.check_node_may_ask(node, asked, bounds, TD)
        csr.check_registered(node, asked, registered)
    except InvalidInputError:
        return False
    return True


def test_a_node_may_have_its_own_certificate_and_those_of_its_workloads() -> None:
    assert may("a", node_uri(TD, "a"))
    assert may("a", WEB.uri)


def test_a_node_may_have_no_other() -> None:
    assert not may("a", node_uri(TD, "b"))
    assert not may("a", DB.uri)
    assert not may("a", WEB.uri, registered=())
    assert not may("a", "spiffe://elsewhere/ns/shop/sa/web")
    assert not may("a", node_uri("elsewhere", "a"))


def test_a_node_may_have_nothing_beyond_its_bounds_whatever_it_registered() -> None:
    for bounds, fits in ((("shop",), True), (("shop/web",), True), (("shop/db", "bank"), False)):
        assert may("a", WEB.uri, bounds=bounds) is fits
        assert may("a", node_uri(TD, "a"), bounds=bounds)
    asked = csr.read(pem(WEB.uri))
    with pytest.raises(InvalidInputError, match=r"bound to bank, and this is shop/web; on the ser"):
        csr.check_node_may_ask("a", asked, ("bank",), TD)


def test_nobody_but_the_server_has_the_servers_name() -> None:
    assert not may("a", node_uri(TD, "a"), SERVER_NAME)
    assert not may("a", WEB.uri, SERVER_NAME)
    with pytest.raises(InvalidInputError):
        csr.check_server_may_ask("s", csr.read(pem(node_uri(TD, "a"), SERVER_NAME)), TD)
    with pytest.raises(InvalidInputError):
        csr.check_server_may_ask("s", csr.read(pem(node_uri(TD, "s"), "other.internal")), TD)
    csr.check_server_may_ask("s", csr.read(pem(node_uri(TD, "s"), SERVER_NAME)), TD)


@given(names, names)
def test_no_workload_has_a_name_that_is_a_nodes(namespace: str, account: str) -> None:
    assert parse_node(Identity(TD, namespace, account).uri) is None


@given(names)
def test_no_node_has_a_name_that_is_a_workloads(name: str) -> None:
    try:
        uri = node_uri(TD, name)
    except InvalidInputError:
        return
    assert parse_node(uri) == (TD, name)
    with pytest.raises(InvalidInputError):
        parse(uri)


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a/b", "a b", "a\n", "ä", "x" * 254])
def test_names_that_could_be_mistaken_are_no_names_of_nodes(name: str) -> None:
    with pytest.raises(InvalidInputError):
        node_uri(TD, name)


def request_for(*general: x509.GeneralName, key: object = None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if general:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=True)
    chosen = key or authority.new_key()
    return builder.sign(chosen, hashes.SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "request_",
    [
        request_for(),
        request_for(x509.DNSName("a")),
        request_for(*[x509.UniformResourceIdentifier(WEB.uri)] * 2),
        request_for(x509.UniformResourceIdentifier(WEB.uri), x509.RFC822Name("a@b")),
        request_for(
            x509.UniformResourceIdentifier(WEB.uri), key=ec.generate_private_key(ec.SECP192R1())
        ),
        request_for(
            x509.UniformResourceIdentifier(WEB.uri),
            key=rsa.generate_private_key(public_exponent=65537, key_size=1024),  # noqa: S505
        ),
        b"",
        b"x" * 20_000,
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ],
)
def test_requests_that_are_not_plain_are_refused(request_: bytes) -> None:
    with pytest.raises(InvalidInputError):
        csr.read(request_)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_our_words(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        csr.read(data)


# ---- the registration authority


@dataclasses.dataclass
class Office:
    registration: RegistrationAuthority
    signer: Standalone

    def ask(self, request: wire.Message) -> wire.Message:
        return asyncio.run(self.registration.answer(request))  # type: ignore[arg-type]

    def token(self, node: str = "", bounds: tuple[str, ...] = ()) -> str:
        answer = self.ask(wire.CreateToken(60, node, bounds=bounds))
        assert isinstance(answer, wire.TokenCreated)
        return answer.token

    def enlist(self, token: str, node: str, request: bytes) -> wire.Certified:
        answer = self.ask(wire.Enlist(token, node, request))
        assert isinstance(answer, wire.Certified)
        return answer


@pytest.fixture
def office(tmp_path: Path) -> Office:
    tmp_path.chmod(0o700)
    signer = Standalone(Store(tmp_path, TD, 10_000_000), time.time())
    registration = RegistrationAuthority(
        signer, TokenStore(tmp_path), trust_domain=TD, node="s", lifetime=100, node_lifetime=1000
    )
    return Office(registration, signer)


def lifetime(certified: wire.Certified) -> float:
    leaf = x509.load_pem_x509_certificate(certified.chain)
    return leaf.not_valid_after_utc.timestamp() - time.time()


def test_a_token_gives_a_nodes_certificate_that_the_roots_verify(office: Office) -> None:
    certified = office.enlist(office.token(), "a", pem(node_uri(TD, "a")))
    leaf = x509.load_pem_x509_certificate(certified.chain)
    names_ = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names_) == [x509.UniformResourceIdentifier(node_uri(TD, "a"))]
    assert authority.is_issued_by(leaf, office.signer.authority(time.time()).issuer)
    assert certified.roots == office.signer.roots()
    assert 100 < lifetime(certified) <= 1001
    ssl.create_default_context(cadata=certified.roots.decode())


@pytest.mark.parametrize(
    ("node", "uri"),
    [
        ("a", node_uri(TD, "b")),
        ("a", WEB.uri),
        ("a", node_uri("elsewhere", "a")),
        ("s", node_uri(TD, "s")),
        ("..", node_uri(TD, "a")),
    ],
)
def test_an_invalid_request_does_not_use_up_the_token(office: Office, node: str, uri: str) -> None:
    token = office.token()
    with pytest.raises(InvalidInputError):
        office.enlist(token, node, pem(uri))
    assert office.enlist(token, "a", pem(node_uri(TD, "a")))


def peer_of(certified: wire.Certified, node: str = "a") -> Peer:
    leaf = x509.load_pem_x509_certificate(certified.chain)
    return Peer(node, f"{leaf.serial_number:x}", certified.expires)


def test_the_server_role_has_its_own_and_workloads_certificates_certified(office: Office) -> None:
    node = peer_of(office.enlist(office.token(), "a", pem(node_uri(TD, "a"))))
    own = office.ask(wire.Certify(pem(node_uri(TD, "s"), SERVER_NAME)))
    assert isinstance(own, wire.Certified)
    assert lifetime(own) > 100
    leaf = office.ask(wire.Certify(pem(WEB.uri), node, 10))
    assert isinstance(leaf, wire.Certified)
    assert lifetime(leaf) <= 11
    longest = office.ask(wire.Certify(pem(WEB.uri), node, 1e9))
    assert isinstance(longest, wire.Certified)
    assert lifetime(longest) <= 101


def test_nothing_is_certified_for_who_does_not_belong_here(office: Office) -> None:
    node = peer_of(office.enlist(office.token(bounds=("shop",)), "a", pem(node_uri(TD, "a"))))
    assert office.ask(wire.Admit(node)) == wire.Admitted(("shop",))
    strange = msgspec.structs.replace(node, serial="1")
    ended = msgspec.structs.replace(node, expires=time.time())
    outside = Identity(TD, "bank", "till").uri
    for who, uri, words in (
        (node, outside, "is bound to shop"),
        (node, node_uri(TD, "b"), "may not have the certificate of"),
        (strange, WEB.uri, "another machine has joined"),
        (ended, WEB.uri, "ended on"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            office.ask(wire.Certify(pem(uri), who))
    assert office.ask(wire.BindNode("a", ("bank", "shop"))) == wire.Done()
    assert office.ask(wire.Certify(pem(outside), node))
    (listed,) = office.ask(wire.ListNodes()).nodes  # type: ignore[attr-defined]
    assert (listed.name, listed.bounds) == ("a", ("bank", "shop"))
    assert office.ask(wire.RemoveNode("a")) == wire.Done()
    for request_ in (wire.Admit(node), wire.Certify(pem(node_uri(TD, "a")), node)):
        with pytest.raises(InvalidInputError, match="it was removed"):
            office.ask(request_)


@pytest.mark.parametrize(
    "request_",
    [
        wire.Certify(pem(WEB.uri)),
        wire.Certify(pem(node_uri(TD, "a"))),
        wire.Certify(pem(node_uri(TD, "a"), SERVER_NAME)),
        wire.Certify(pem(node_uri("elsewhere", "a"))),
        wire.Certify(pem("spiffe://elsewhere/ns/a/sa/b")),
        wire.Certify(pem("spiffe://cluster.local/something")),
        wire.CreateToken(0),
        wire.CreateToken(1e9),
        wire.CreateToken(60, "a/b"),
        wire.CreateToken(60, uses=0),
        wire.CreateToken(60, bounds=("a/b/c",)),
        wire.BindNode("a", ("",)),
    ],
)
def test_anything_else_is_refused(office: Office, request_: wire.Message) -> None:
    with pytest.raises(MeshdError):
        office.ask(request_)
