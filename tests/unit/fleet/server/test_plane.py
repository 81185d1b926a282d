"""A control plane and its nodes over real gRPC and mutual TLS, on unix sockets and loopback."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from meshd import wire
from meshd.base.errors import InvalidInputError, MeshdError
from meshd.base.json_values import text_at
from meshd.base.tasks import first_of
from meshd.ca import authority
from meshd.ca.standalone import Standalone
from meshd.ca.store import Store
from meshd.fleet.agent.client import Client
from meshd.fleet.agent.inbox import Inbox
from meshd.fleet.agent.remote import Remote, diagnose, open_channel
from meshd.fleet.joining import clocks
from meshd.fleet.joining.facts import MeshFacts
from meshd.fleet.joining.join import ALPN, Reception
from meshd.fleet.joining.node import Credentials, NodeFile, new_request, node_uri, private_pem
from meshd.fleet.joining.tls_terminator import TlsTerminator
from meshd.fleet.membership import csr, members
from meshd.fleet.membership.registration_authority import RegistrationAuthority
from meshd.fleet.membership.token_store import TokenStore
from meshd.fleet.server import holders, istio_ca, rosters
from meshd.fleet.server.callers import machine_of
from meshd.fleet.server.mcp import decode_body, encode_body
from meshd.fleet.server.plane import Plane
from meshd.fleet.server.serving import ServingCertificate
from meshd.model.workload import Identity, Workload
from meshd.wire.joining import Peer
from meshd.xds.resources import Resources

TD = "cluster.local"
URL = "test/v1/Thing"
OTHER = "test/v1/Other"
PATIENCE = 60.0
WEB = Workload(uid="web", name="web", namespace="shop", netns="/x", service_account="web")


def running(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine as a test, in a loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what changes does not tell
            await asyncio.sleep(0.01)


def things(**bodies: str) -> Resources:
    return Resources.of(encode_body(URL, name, {"says": body}) for name, body in bodies.items())


def decode(type_url: str, name: str, body: bytes) -> str:
    says = text_at(decode_body(body), "says")
    if says == "bad":
        raise InvalidInputError(f"{name} of {type_url} is bad")
    return says


class Mesh:
    """One authority, one control plane, and nodes that come and go."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.chmod(0o700)
        self.signer = Standalone(Store(directory, TD, 10_000_000), time.time())
        self.registration = RegistrationAuthority(
            self.signer,
            TokenStore(directory),
            trust_domain=TD,
            node="s",
            lifetime=1000,
            node_lifetime=1000,
            clock=lambda: time.time() + self.ahead,
        )
        self.ahead = 0.0
        """Seconds by which the server's clock, and no node's, is wrong."""
        self.facts = MeshFacts(trust_domain=TD, domain="d", root_namespace="r", service_cidr="c")
        self.terminator: TlsTerminator | None = None
        self.plane = self.new_plane()
        self.port = 0

    def new_plane(self) -> Plane:
        plane = Plane(self.peer, self.admit, lambda: None, 0.2, facts=self.facts)
        plane.restore(())
        return plane

    def peer(self, context: Any) -> Peer:
        assert self.terminator
        found = self.terminator.peer(context.peer())
        return msgspec.structs.replace(found, machine=machine_of(context))

    async def admit(self, peer: Peer) -> tuple[str, ...]:
        answer = await self.registration.answer(wire.Admit(peer))
        assert isinstance(answer, wire.Admitted)
        assert self.terminator
        if answer.conflict:
            self.plane.holders.note(peer.node, answer.conflict)
        if answer.refusal:
            raise InvalidInputError(answer.refusal)
        self.terminator.admitted(msgspec.structs.replace(peer, machine=""))
        return answer.bounds

    async def certify(self, request: wire.Message) -> wire.Certified:
        answer = await self.registration.answer(request)  # type: ignore[arg-type]
        assert isinstance(answer, wire.Certified)
        return answer

    async def sign(self, peer: Peer, request: bytes, lifetime: float) -> wire.Certified:
        registered = rosters.identities_of(self.plane.rosters, peer.node, TD)
        csr.check_registered(peer.node, csr.read(request), registered)
        return await self.certify(wire.Certify(request, peer, lifetime))

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        certificate = ServingCertificate(TD, "s", self.certify)
        await certificate.obtain()
        nodes = self.directory / "nodes.sock"
        await self.plane.start(nodes, [istio_ca.handler(self.sign, self.peer)])
        reception = Reception(
            self.certify, lambda: b"", self.facts, clock=lambda: time.time() + self.ahead
        )
        self.terminator = terminator = TlsTerminator(
            certificate.context,
            (ALPN, reception.answer),
            lambda leaf: istio_ca.peer_of(leaf, TD),
            nodes,
        )
        self.port = await terminator.listen("127.0.0.1", self.port)
        tasks = [
            asyncio.create_task(self.plane.forget_for_ever()),
            asyncio.create_task(self.plane.streams.cut_ended_for_ever()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await terminator.stop()
            await self.plane.stop()

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def credentials(self, node: str, *bounds: str) -> Credentials:
        """Of a node that joins, in the place of any that did by that name."""
        made = await self.registration.answer(wire.CreateToken(60, node, bounds=bounds))
        assert isinstance(made, wire.TokenCreated)
        key = authority.new_key()
        asked = new_request(key, node_uri(TD, node)).public_bytes(Encoding.PEM)
        certified = await self.registration.answer(wire.Enlist(made.token, node, asked))
        assert isinstance(certified, wire.Certified)
        return Credentials(private_pem(key), certified.chain, certified.roots)

    async def stolen(self, identity: Identity) -> Credentials:
        """A workload's."""
        key = authority.new_key()
        issued = await self.signer.sign(authority.request(identity, key, 100), time.time())
        return Credentials(private_pem(key), issued.chain, self.signer.roots())


class Node:
    """``way``: the address by which it reaches the server, unless that is the server's own."""

    def __init__(
        self,
        mesh: Mesh,
        credentials: Credentials,
        *types: str,
        instance: str = "",
        credentials_now: Callable[[], Credentials] | None = None,
        way: str = "",
    ) -> None:
        now = credentials_now or (lambda: credentials)
        self.uses = True
        """It uses at once what it hears."""
        self.inbox = Inbox(decode)
        self.client = Client(
            "n",
            types or (URL,),
            self.inbox,
            connect=lambda: open_channel(way or mesh.server, now()),
            explain=lambda error: diagnose(error, mesh.server, time.time()),
            taken=lambda: self.client.used() if self.uses else None,
            changed=lambda: None,
            heard=lambda: None,
            instance=instance,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Node]:
        task = asyncio.create_task(self.client.run())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@contextlib.asynccontextmanager
async def node(mesh: Mesh, name: str = "a", *types: str) -> AsyncGenerator[Node]:
    credentials = await mesh.credentials(name)
    async with Node(mesh, credentials, *types).running() as made:
        yield made


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


@running
async def test_a_node_has_what_is_published_and_each_change_of_it(mesh: Mesh) -> None:
    mesh.plane.publish(things(a="one", b="two"))
    async with mesh.serving(), node(mesh) as one:
        await eventually(lambda: dict(one.inbox.values(URL)) == {"a": "one", "b": "two"})
        mesh.plane.publish(things(b="three", c="four"))
        await eventually(lambda: dict(one.inbox.values(URL)) == {"b": "three", "c": "four"})


@running
async def test_a_node_is_told_the_settings_of_the_mesh_at_each_connection(mesh: Mesh) -> None:
    async with mesh.serving(), node(mesh) as one:
        one.client.tell(())
        await eventually(lambda: one.client.facts == mesh.facts)
    mesh.facts = msgspec.structs.replace(mesh.facts, gateway_selection="own-namespace")
    mesh.plane = mesh.new_plane()
    async with mesh.serving(), Node(mesh, await mesh.credentials("a")).running() as again:
        again.client.tell(())
        await eventually(lambda: again.client.facts == mesh.facts)


@running
async def test_a_node_keeps_what_it_cannot_be_told_of_until_it_is_gone(mesh: Mesh) -> None:
    mesh.plane.publish(things(a="one", b="two"))
    async with mesh.serving(), node(mesh) as one:
        await eventually(lambda: dict(one.inbox.values(URL)) == {"a": "one", "b": "two"})
        without = things(a="three")
        mesh.plane.publish(dataclasses.replace(without, untold=frozenset({(URL, "b")})))
        await eventually(lambda: dict(one.inbox.values(URL)) == {"a": "three", "b": "two"})
        mesh.plane.publish(without)
        await eventually(lambda: dict(one.inbox.values(URL)) == {"a": "three"})


@running
async def test_a_bad_resource_is_refused_by_name_and_holds_up_no_other(mesh: Mesh) -> None:
    names = {f"n{number}": "good" for number in range(9)}
    mesh.plane.publish(things(**names))
    async with mesh.serving(), node(mesh) as one:
        one.client.tell(())
        await eventually(lambda: len(one.inbox.values(URL)) == 9)
        mesh.plane.publish(things(**names | {"n4": "bad", "n5": "better", "new": "too"}))
        await eventually(
            lambda: dict(one.inbox.values(URL)) == names | {"n5": "better", "new": "too"}
        )
        await eventually(lambda: mesh.plane.statuses() and mesh.plane.statuses()[0].rejected)
        (status,) = mesh.plane.statuses()
        assert status.rejected == (f"Thing n4: n4: n4 of {URL} is bad",)
        assert not status.synced
        mesh.plane.publish(things(**names | {"n4": "mended"}))
        await eventually(lambda: one.inbox.values(URL).get("n4") == "mended")
        await eventually(lambda: mesh.plane.statuses()[0].synced)
        assert one.inbox.refused == {}


@running
async def test_a_node_that_has_not_used_all_yet_is_told_all_and_is_not_synced(mesh: Mesh) -> None:
    names = {f"n{number}": "good" for number in range(1200)}  # in three responses
    mesh.plane.publish(things(**names))

    def is_synced() -> bool:
        return any(one.synced for one in mesh.plane.statuses())

    nodes = mesh.plane._nodes  # pyright: ignore[reportPrivateUsage]

    def has_acknowledged() -> bool:
        return all(one.stream.synced for one in nodes)

    async with mesh.serving(), node(mesh, "a", URL, OTHER) as one:
        one.uses = False
        one.client.tell(())
        await eventually(lambda: mesh.plane.statuses() and dict(one.inbox.values(URL)) == names)
        await eventually(has_acknowledged)
        assert not is_synced()
        one.client.used()
        await eventually(is_synced)
        mesh.plane.publish(things(**names | {"n7": "better"}))
        await eventually(lambda: one.inbox.values(URL)["n7"] == "better")
        await eventually(has_acknowledged)
        assert not is_synced()
        one.client.used()
        await eventually(is_synced)


@running
async def test_private_resources_are_for_their_node_only(mesh: Mesh) -> None:
    def private(name: str) -> Resources:
        return Resources.of([encode_body(OTHER, "secret", {"says": name})] if name == "a" else [])

    mesh.plane.publish(things(x="shared"), private)
    async with mesh.serving(), node(mesh, "a", URL, OTHER) as a, node(mesh, "b", URL, OTHER) as b:
        await eventually(lambda: dict(a.inbox.values(OTHER)) == {"secret": "a"})
        await eventually(lambda: dict(b.inbox.values(URL)) == {"x": "shared"})
        assert dict(b.inbox.values(OTHER)) == {}
        mesh.plane.publish(things(x="shared"))
        await eventually(lambda: dict(a.inbox.values(OTHER)) == {})


@running
async def test_workloads_are_known_while_their_node_is_connected(mesh: Mesh) -> None:
    mesh.plane.publish(things())
    async with mesh.serving():
        async with node(mesh) as one:
            one.client.tell((WEB,))
            await eventually(lambda: rosters.workloads_of(mesh.plane.rosters))
            (seen,) = rosters.workloads_of(mesh.plane.rosters)
            assert (seen.uid, seen.node, seen.netns) == ("web", "a", "")
            one.client.tell(())
            await eventually(lambda: not rosters.workloads_of(mesh.plane.rosters))
            one.client.tell((WEB,))
            await eventually(lambda: rosters.workloads_of(mesh.plane.rosters))
        await eventually(lambda: "a" not in mesh.plane.rosters)


@running
async def test_a_node_comes_back_to_a_server_that_was_away(mesh: Mesh) -> None:
    mesh.plane.publish(things(a="one"))
    async with contextlib.AsyncExitStack() as stack:
        async with mesh.serving():
            one = await stack.enter_async_context(node(mesh))
            await eventually(lambda: one.inbox.values(URL))
        await eventually(lambda: not one.client.connected)
        assert dict(one.inbox.values(URL)) == {"a": "one"}
        assert one.client.problem
        mesh.plane = mesh.new_plane()
        mesh.plane.publish(things(b="two"))
        async with mesh.serving():
            await eventually(lambda: one.client.connected)
            await eventually(lambda: dict(one.inbox.values(URL)) == {"b": "two"})


@running
async def test_a_workloads_certificate_does_not_make_a_node(mesh: Mesh) -> None:
    mesh.plane.publish(things(a="one"))
    async with mesh.serving():
        stolen = await mesh.stolen(Identity(TD, "shop", "web"))
        async with Node(mesh, stolen).running() as impostor:
            await eventually(lambda: "is not a node's" in impostor.client.problem)
            assert not impostor.inbox.values(URL)


@running
async def test_a_clone_is_refused_while_the_first_is_connected_and_both_sides_say_so(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "_PATIENCE", 0.1)
    mesh.plane.publish(things(a="one"))
    credentials = await mesh.credentials("a")
    other = msgspec.structs.replace(WEB, uid="other", name="other")
    async with mesh.serving(), Node(mesh, credentials, instance="first").running() as first:
        await eventually(lambda: first.client.connected)
        refused = Node(mesh, credentials, instance="clone")
        refused.client.tell((WEB,))
        first.client.tell((other,))
        await eventually(lambda: rosters.workloads_of(mesh.plane.rosters))
        async with refused.running():
            problem = "another machine is connected as node a"
            await eventually(lambda: problem in refused.client.problem)
            assert not refused.client.connected
            assert not refused.inbox.values(URL)
            (seen,) = rosters.workloads_of(mesh.plane.rosters)
            assert seen.uid == "other"
            assert "was refused" in mesh.plane.statuses()[0].conflict
            assert (first.client.connected, first.client.problem) == (True, "")
            with pytest.raises(InvalidInputError, match="another machine"):
                mesh.plane.holders.check("a", "clone")


@contextlib.asynccontextmanager
async def slow_way(mesh: Mesh) -> AsyncGenerator[str]:
    """An address from which the server is reached after as long as some round trips take, when it
    is far away or has much to do."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await asyncio.sleep(0.5)
            from_server, to_server = await asyncio.open_connection("127.0.0.1", mesh.port)
            with contextlib.closing(to_server):
                await first_of(copy(reader, to_server), copy(from_server, writer))

    async with await asyncio.start_server(relay, "127.0.0.1") as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@running
async def test_a_server_that_is_far_away_is_reached(mesh: Mesh) -> None:
    mesh.plane.publish(things(a="one"))
    credentials = await mesh.credentials("a")
    async with (
        mesh.serving(),
        slow_way(mesh) as way,
        Node(mesh, credentials, way=way).running() as node,
    ):
        await eventually(lambda: node.inbox.values(URL))


@running
async def test_a_machine_that_restarts_is_let_in_when_its_old_connection_has_ended(
    mesh: Mesh,
) -> None:
    mesh.plane.publish(things(a="one"))
    credentials = await mesh.credentials("a")
    async with mesh.serving(), contextlib.AsyncExitStack() as old:
        before = Node(mesh, credentials, instance="before")
        await old.enter_async_context(before.running())
        await eventually(lambda: before.inbox.values(URL))
        async with Node(mesh, credentials, instance="after").running() as after:
            await asyncio.wait({asyncio.create_task(asyncio.sleep(0.2))})
            assert not after.client.connected
            await old.aclose()
            await eventually(lambda: after.inbox.values(URL))
            assert after.client.connected
            assert mesh.plane.statuses()[0].conflict == ""


@running
async def test_a_machine_that_was_cloned_while_it_ran_is_one_of_two_with_the_same_stream(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "_PATIENCE", 0.1)
    mesh.plane.publish(things(a="one"))
    credentials = await mesh.credentials("a")
    async with mesh.serving(), Node(mesh, credentials, instance="same").running() as first:
        await eventually(lambda: first.client.connected)
        async with Node(mesh, credentials, instance="same").running() as clone:
            await eventually(lambda: "another machine is connected" in clone.client.problem)
            assert "perhaps a clone" in mesh.plane.statuses()[0].conflict
            assert first.client.connected


@contextlib.asynccontextmanager
async def started(mesh: Mesh, path: Path, instance: str) -> AsyncGenerator[Node]:
    """A machine with these credentials starts, and has them renewed if the server lets it."""
    file = NodeFile(path)
    before = file.load()
    metadata = ((holders.METADATA, instance),)
    remote = Remote(mesh.server, file, renew_at=0.5, metadata=metadata)
    renewing = asyncio.create_task(remote.run())
    made = Node(mesh, before, instance=instance, credentials_now=NodeFile(path).load)
    try:
        async with made.running():
            await eventually(lambda: made.client.problem or NodeFile(path).load() != before)
            yield made
    finally:
        renewing.cancel()
        await remote.close()


@running
async def test_a_clone_that_ran_while_the_node_was_off_is_refused_once_the_node_is_back(
    mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "OVERLAP", 0.0)
    mesh.plane.publish(things())
    node_file, clone_file = tmp_path / "node.pem", tmp_path / "clone.pem"
    async with mesh.serving():
        NodeFile(node_file).save(await mesh.credentials("a"))
        async with started(mesh, node_file, "first run"):
            pass
        shutil.copy(node_file, clone_file)
        async with started(mesh, clone_file, "clone") as clone:
            await eventually(lambda: clone.client.connected)
        async with started(mesh, clone_file, "clone again") as clone:
            await eventually(lambda: clone.client.connected)
        async with started(mesh, node_file, "second run") as node:
            await eventually(lambda: node.client.problem)
            assert "meshctl token create --node a" in node.client.problem
            conflict = "a machine with an earlier certificate of it was refused: there is a clone"
            assert conflict in mesh.plane.holders.problem("a")
        NodeFile(node_file).save(await mesh.credentials("a"))
        async with started(mesh, node_file, "after joining anew") as node:
            await eventually(lambda: node.client.connected)
        async with started(mesh, clone_file, "clone, in the end") as clone:
            await eventually(lambda: "if this is a clone" in clone.client.problem)


@running
async def test_a_node_that_is_removed_is_cut_off_at_once_and_not_let_in_again(mesh: Mesh) -> None:
    mesh.plane.publish(things(a="one"))
    async with mesh.serving(), node(mesh) as one, node(mesh, "b") as other:
        for each in (one, other):
            each.client.tell((WEB,))
        await eventually(lambda: len(rosters.workloads_of(mesh.plane.rosters)) == 2)
        await eventually(lambda: one.inbox.values(URL))
        await mesh.registration.answer(wire.RemoveNode("a"))
        await mesh.plane.expel("a")
        assert mesh.plane.rosters.keys() == {"b"}
        await eventually(lambda: "it was removed" in one.client.problem)
        assert not one.client.connected
        mesh.plane.publish(things(a="two"))
        await eventually(lambda: dict(other.inbox.values(URL)) == {"a": "two"})
        assert dict(one.inbox.values(URL)) == {"a": "one"}
        async with node(mesh) as again:
            await eventually(lambda: dict(again.inbox.values(URL)) == {"a": "two"})


@running
async def test_a_node_removed_during_its_admission_is_not_admitted(mesh: Mesh) -> None:
    mesh.plane.publish(things(a="one"))
    asked, goes_on = asyncio.Event(), asyncio.Event()
    admit = mesh.admit

    async def slow(peer: Peer) -> tuple[str, ...]:
        bounds = await admit(peer)
        asked.set()
        await goes_on.wait()
        return bounds

    mesh.admit = slow
    mesh.plane = mesh.new_plane()
    mesh.plane.publish(things(a="one"))
    async with mesh.serving(), node(mesh) as one:
        await asked.wait()
        await mesh.registration.answer(wire.RemoveNode("a"))
        await mesh.plane.expel("a")
        goes_on.set()
        await eventually(lambda: "it was removed" in one.client.problem)
        assert not one.inbox.values(URL)


@running
async def test_a_stream_does_not_outlive_the_certificate_that_it_began_with(mesh: Mesh) -> None:
    late = [0.0]
    clock: Callable[[], float] = lambda: time.time() + late[0]  # noqa: E731
    mesh.plane = Plane(mesh.peer, mesh.admit, lambda: None, 100, clock)
    mesh.plane.restore(())
    mesh.plane.publish(things(a="one"))
    async with mesh.serving(), node(mesh) as old:
        await eventually(lambda: old.inbox.values(URL))
        late[0] = 999.5  # of a thousand seconds
        async with node(mesh, "b") as wakes:
            await eventually(lambda: "has ended" in old.client.problem)
            assert wakes.client.problem in {"", old.client.problem}


@running
async def test_a_workload_out_of_bounds_is_left_out_and_its_node_told_why(
    mesh: Mesh, tmp_path: Path
) -> None:
    mesh.plane.publish(things())
    file = NodeFile(tmp_path / "node.pem")
    file.save(await mesh.credentials("a", "bank"))
    till = msgspec.structs.replace(WEB, uid="till", namespace="bank", service_account="till")
    async with mesh.serving(), Node(mesh, file.load()).running() as one:
        one.client.tell((WEB, till))
        await eventually(lambda: one.client.kept_out)
        assert list(one.client.kept_out) == ["web"]
        assert "node a is bound to bank, and this is shop/web" in one.client.kept_out["web"]
        assert [one.uid for one in rosters.workloads_of(mesh.plane.rosters)] == ["till"]
        assert mesh.plane.statuses()[0].kept_out[0].startswith("web: node a is bound to bank")
        one.client.tell((till,))
        await eventually(lambda: not one.client.kept_out)


@running
async def test_the_server_signs_what_is_registered_on_the_node_and_its_own_name(
    mesh: Mesh, tmp_path: Path
) -> None:
    mesh.plane.publish(things())
    file = NodeFile(tmp_path / "node.pem")
    async with mesh.serving():
        file.save(await mesh.credentials("a"))
        remote = Remote(mesh.server, file, renew_at=0.5)
        web = Identity(TD, "shop", "web")
        asked = authority.request(web, authority.new_key(), 100)
        with pytest.raises(MeshdError, match="no workload of that identity is registered"):
            await remote.sign(asked, time.time())
        async with Node(mesh, file.load()).running() as one:
            one.client.tell((WEB,))
            await eventually(lambda: rosters.identities_of(mesh.plane.rosters, "a", TD))
            issued = await remote.sign(asked, time.time())
            assert issued.expires <= time.time() + 101
        await remote.close()
    assert file.load().roots == remote.roots()


@running
async def test_a_node_renews_its_certificate_without_a_token(mesh: Mesh, tmp_path: Path) -> None:
    mesh.plane.publish(things())
    file = NodeFile(tmp_path / "node.pem")
    async with mesh.serving():
        file.save(await mesh.credentials("a"))
        first = file.load()
        late = [0.0]
        remote = Remote(mesh.server, file, renew_at=0.5, clock=lambda: time.time() + late[0])
        late[0] = 600  # of a thousand seconds
        task = asyncio.create_task(remote.run())
        await eventually(lambda: NodeFile(tmp_path / "node.pem").load() != first)
        task.cancel()
        await remote.close()
    second = file.load()
    assert second.uri == first.uri
    assert second.key != first.key


@running
async def test_without_the_server_a_node_says_so_in_words(mesh: Mesh, tmp_path: Path) -> None:
    file = NodeFile(tmp_path / "node.pem")
    file.save(await mesh.credentials("a"))
    remote = Remote("127.0.0.1:9", file, renew_at=0.5)
    asked = authority.request(Identity(TD, "shop", "web"), authority.new_key(), 100)
    with pytest.raises(MeshdError, match=r"^server 127\.0\.0\.1:9 does not answer: "):
        await remote.sign(asked, time.time())
    for off, words in ((10_000.0, "ended on"), (-10_000.0, "set the clock")):
        with pytest.raises(InvalidInputError, match=words):
            await remote.sign(asked, time.time() + off)
    await remote.close()


@running
async def test_a_server_of_another_authority_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours, other = Mesh(tmp_path / "a"), Mesh(tmp_path / "b")
    other.plane.publish(things(a="lie"))
    async with other.serving():
        credentials = await ours.credentials("a")
        async with Node(other, credentials).running() as one:
            await eventually(lambda: "another authority" in one.client.problem)
            assert not one.inbox.values(URL)


@running
async def test_a_node_whose_clock_is_a_day_behind_is_told_so_and_not_of_another_authority(
    mesh: Mesh,
) -> None:
    mesh.plane.publish(things(a="one"))
    credentials = await mesh.credentials("a")
    mesh.ahead = 24 * 3600.0  # its certificate begins then; BoringSSL has the time of this host
    async with mesh.serving(), Node(mesh, credentials).running() as one:
        await eventually(lambda: one.client.problem)
        assert "is 1 day behind that of server 127.0.0.1:" in one.client.problem
        assert one.client.problem.endswith("set the clock that is wrong")


@running
async def test_a_node_knows_what_its_servers_clock_says(mesh: Mesh) -> None:
    mesh.plane.publish(things())
    async with mesh.serving(), node(mesh) as one:
        assert one.client.server_time is None
        one.client.tell(())
        await eventually(lambda: one.client.server_time)
        assert one.client.server_time == pytest.approx(time.time(), abs=clocks.TOLERANCE / 2)


@running
async def test_a_certificate_that_is_none_by_this_hosts_clock_is_not_taken(
    mesh: Mesh, tmp_path: Path
) -> None:
    mesh.plane.publish(things())
    file = NodeFile(tmp_path / "node.pem")
    file.save(await mesh.credentials("a"))
    late = [0.0]
    async with mesh.serving(), Node(mesh, file.load()).running() as one:
        one.client.tell((WEB,))
        await eventually(lambda: rosters.identities_of(mesh.plane.rosters, "a", TD))
        remote = Remote(mesh.server, file, renew_at=0.5, clock=lambda: time.time() + late[0])
        asked = authority.request(Identity(TD, "shop", "web"), authority.new_key(), 100)
        with pytest.raises(InvalidInputError, match="set the clock that is wrong"):
            await remote.sign(asked, time.time() + 500)
        before, mesh.ahead, late[0] = file.load(), 900.0, 600.0
        task = asyncio.create_task(remote.run())
        await eventually(lambda: next(iter(remote.states())).problem)
        assert "set the clock that is wrong" in next(iter(remote.states())).problem
        task.cancel()
        await remote.close()
    assert NodeFile(tmp_path / "node.pem").load() == before


@running
async def test_without_a_certificate_nobody_is_answered(mesh: Mesh) -> None:
    mesh.plane.publish(things(a="one"))
    async with mesh.serving():
        roots = (await mesh.credentials("a")).roots
        options = (("grpc.ssl_target_name_override", "control-plane.meshd.internal"),)
        plain = grpc.ssl_channel_credentials(roots)
        async with grpc.aio.secure_channel(mesh.server, plain, options=options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await channel.unary_unary(istio_ca.METHOD)(b"", timeout=60)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
