"""Doors on sockets: requests of other processes, of nodes that join, and what programs answer."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Coroutine
from typing import Any, Final, cast, get_args

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from meshd import wire
from meshd.base import own_addresses
from meshd.base.errors import InvalidInputError
from meshd.ca import authority
from meshd.cni import request as cni
from meshd.cni.describing import of_container
from meshd.fleet.joining import join
from meshd.fleet.joining.facts import MeshFacts
from meshd.fleet.joining.join import Reception
from meshd.fleet.joining.node import SERVER_NAME, new_request
from meshd.fleet.server.tls import Tls
from meshd.model.workload import Workload
from meshd.resolver import asking
from meshd.telemetry import envoy_stats
from meshd.telemetry.hosts import is_ours
from meshd.wire import channel
from meshd.wire.codec import AnyMessage
from tests import pem
from tests.fuzz.door import Door
from tests.fuzz.values import Maker


class _Loop:
    """As much of a loop as a StreamReader needs that never waits."""

    def get_debug(self) -> bool:
        return False


class _Writer:
    """Drops what is written."""

    def write(self, _: bytes) -> None: ...

    async def drain(self) -> None: ...


def _reader(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(loop=cast(Any, _Loop()))
    reader.feed_data(data)
    reader.feed_eof()
    return reader


def _run(coroutine: Coroutine[Any, Any, object]) -> None:
    """Nothing is ever waited for, since all that comes is there."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise AssertionError("it waits")


def _talk(data: bytes) -> None:
    """A connection of a unix socket, until its end."""

    async def serve() -> None:
        connection = channel.Connection(_reader(data), cast(Any, _Writer()), wire.ANY)
        while True:
            try:
                if await connection.receive() is None:
                    return
            except InvalidInputError:
                continue

    _run(serve())


_WORKLOAD: Final = Workload(uid="shop.web", name="web", namespace="shop", netns="/n")
_SENT: Final[tuple[wire.Message, ...]] = (
    wire.Register((_WORKLOAD,), 5.0),
    wire.Unregister(("shop.web",)),
    wire.Apply((("-", "kind: Service"),), "shop"),
    wire.AboutWorkload("web", "shop"),
    wire.Explain("web", "db:80", "shop", headers=(("a", "b"),)),
    wire.CreateToken(3600.0),
    wire.Allow(()),
    wire.BindNode("n", ("shop",)),
)
_KINDS: Final = tuple(
    kind for union in get_args(AnyMessage) for kind in (get_args(union) or (union,))
)


def _make_frame(rng: random.Random) -> bytes:
    kind = rng.choice(_KINDS)
    made = Maker(rng, rng.choice((0.0, 0.02, 0.3))).make(kind)
    fields = made if isinstance(made, dict) else {}
    try:
        body = msgspec.msgpack.encode({"type": kind.__name__, **fields})
    except (RecursionError, OverflowError, UnicodeEncodeError, TypeError):
        return b"\0\0\0\1\xc1"
    return len(body).to_bytes(4) + body


_KEY: Final = pem.new_key()
_CERTIFICATE: Final = pem.certificate_pem(_KEY)


def _context() -> ssl.SSLContext:
    import tempfile

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem.key_pem(_KEY) + _CERTIFICATE)
        file.flush()
        context.load_cert_chain(file.name)
    context.set_alpn_protocols([join.ALPN, "h2"])
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


_SERVER: Final = _context()


def _hello() -> bytes:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.set_alpn_protocols(["h2"])
    outgoing = ssl.MemoryBIO()
    connection = client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=SERVER_NAME)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("it cannot be done already")


def _shake_hands(data: bytes) -> None:
    """What a stranger sends to the server's port."""
    tls = Tls(_SERVER, _reader(data), cast(Any, _Writer()))

    async def serve() -> None:
        await tls.handshake()
        await tls.read_line(1024)

    _run(serve())


async def _enlist(request: wire.Enlist) -> wire.Certified:
    from meshd.fleet.membership import csr, tokens

    tokens.parse(request.token)
    csr.read(request.csr)
    raise InvalidInputError("no such token")


_RECEPTION: Final = Reception(
    _enlist,
    lambda: b"",
    MeshFacts(trust_domain="t", domain="d", root_namespace="r", service_cidr=""),
)
_CSR: Final = new_request(authority.new_key(), "spiffe://t/node/n").public_bytes(Encoding.PEM)
_TOKEN: Final = "meshd1." + "A" * 83


def _ask_to_join(line: bytes) -> None:
    _run(_RECEPTION.answer(line[: join.LIMIT]))


def _merge(data: bytes) -> None:
    """What a proxy says of its counters."""
    merged = envoy_stats.Merged()
    merged.add("p", data.split(b"\n"), b"")
    merged.render()


def _netlink(data: bytes) -> None:
    for kind, body in own_addresses._messages(data):  # pyright: ignore[reportPrivateUsage]
        tuple(own_addresses.read(kind, body))


_COUNTERS: Final = b'# TYPE a counter\na{b="c"} 1\na 2\n# HELP x\n'
_ADDRESS: Final = bytes.fromhex(
    "4c0000001400020001000000aaaaaaaa0208800001000000080001007f000001080002007f0000010700030065746800"
)

_ATTACHING: Final = b"ADD\0abc\0/run/netns/x\0eth0\0K8S_POD_NAMESPACE=a;K8S_POD_NAME=b\0/opt\0" + (
    b'{"cniVersion": "1.0.0", "name": "pods", "prevResult": {"ips": [{"address": "198.18.0.5/24",'
    b' "interface": 0}], "interfaces": [{"name": "eth0", "sandbox": "/run/netns/x"}]},'
    b' "cni.dev/valid-attachments": [{"containerID": "abc", "ifname": "eth0"}]}'
)


def _attach(data: bytes) -> None:
    """Of the CNI plugin."""
    request = cni.parse(data)
    of_container(request, "shop")
    cni.answered(request)


DOORS: Final = (
    Door("unix-socket", _talk, tuple(map(wire.encode, _SENT)), (), _make_frame),
    Door("tls-hello", _shake_hands, (_hello(),), (OSError, ValueError)),
    Door(
        "join-request",
        _ask_to_join,
        (
            join.encode(join.AskRoots()),
            join.encode(join.AskToJoin(_TOKEN, "n", _CSR.decode())),
        ),
        (),
    ),
    Door(
        "join-answer",
        join.decode,
        (
            join.encode(join.Roots(_CERTIFICATE.decode(), 1.0, "cluster.local")),
            join.encode(join.Refused("no")),
        ),
    ),
    Door("cni-request", _attach, (_ATTACHING,), (cni.CniError,)),
    Door("dns-answer", lambda data: asking.is_found(data, 7), (asking.question(7, "a.test"),), ()),
    Door(
        "host-header",
        lambda data: is_ours(data.decode("latin-1"), {"localhost"}),
        (b"localhost:15020", b"[::1]:15020", b"127.0.0.1"),
        (),
    ),
    Door("proxy-counters", _merge, (_COUNTERS,), ()),
    Door("netlink", _netlink, (_ADDRESS,), ()),
)
