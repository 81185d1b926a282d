"""The server role: serves other nodes over the network, and nothing of this node's own traffic.

It is a process of its own, because it reads what strangers send: it holds no key but that of its
own certificate. Tokens and the authority are the identity role's, the configuration is the mesh
role's.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec

from meshd import wire
from meshd.base import accounts
from meshd.base.attempts import Attempts
from meshd.base.errors import InvalidInputError, UnreachableError
from meshd.base.garbage import bound_pauses
from meshd.fleet.joining.facts import MeshFacts
from meshd.fleet.joining.join import ALPN, Reception
from meshd.fleet.joining.tls_terminator import TlsTerminator
from meshd.fleet.membership import csr
from meshd.fleet.server import istio_ca, rosters
from meshd.fleet.server.caller import Caller
from meshd.fleet.server.callers import instance_of, machine_of
from meshd.fleet.server.packing import Packed, Packing
from meshd.fleet.server.plane import Plane
from meshd.fleet.server.serving import ServingCertificate
from meshd.model.bounds import Bounds
from meshd.node.background import Background
from meshd.settings import Paths, Settings
from meshd.wire import channel
from meshd.wire.joining import Peer
from meshd.wire.link import Link
from meshd.wire.parts import Gathering, Splitting
from meshd.xds.resources import EMPTY

T = TypeVar("T", bound=wire.Message)
_log = logging.getLogger(__name__)


async def run(settings: Settings, paths: Paths) -> None:
    """Run until cancelled. Raises MeshdError if the role cannot start."""
    bound_pauses()
    server = Server(settings, paths)
    await server.certificate.wait()
    server.nodes.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    await server.plane.start(server.nodes, [istio_ca.handler(server.sign, server.holder)])
    port = await server.terminator.listen(settings.control.address, settings.control.port)
    paths.control_port.write_text(f"{port}\n", encoding="ascii")
    await channel.listen(
        paths.socket("server"),
        wire.SERVER,
        channel.answering(server.answer),
        uids={0, accounts.uid_of("mesh", settings.user)},
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.certificate.run())
            tasks.create_task(server.plane.forget_for_ever())
            tasks.create_task(server.plane.streams.cut_ended_for_ever())
            tasks.create_task(server.mesh.run())
            tasks.create_task(server.packing.run())
    except asyncio.CancelledError:
        server.ended()
        raise
    finally:
        await server.terminator.stop()
        await server.plane.stop()


class Server:
    """Connects the requests of nodes with the roles that answer them."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self._identity = paths.socket("identity")
        self._node = settings.node_name
        self._trust_domain = settings.identity.trust_domain
        self._problems: tuple[str, ...] = ()
        self._told = wire.Shared(())
        self.certificate = ServingCertificate(self._trust_domain, settings.node_name, self._certify)
        self._attempts = Attempts(paths.own("server") / "attempts.json")
        mesh = settings.mesh
        self._packing = Packing(self._attempts, mesh.root_namespace, mesh.gateway_selection)
        self.packing = Background("packing what nodes are told", self._begin_packing, self._publish)
        facts = MeshFacts.of(settings)
        self.plane = Plane(
            self.peer,
            self._admit,
            self._rosters_changed,
            settings.control.disconnect_grace,
            attempts=self._attempts,
            facts=facts,
        )
        self._gathering = Gathering()
        self.mesh = Link(paths.socket("mesh"), self.shared, lambda: Splitting().split)
        self.mesh.tell(wire.Follow())
        self.reception = Reception(
            self._enlist,
            lambda: self.certificate.held.roots,
            facts,
        )

        self.nodes = paths.own("server") / "front" / "nodes.sock"
        self.terminator = TlsTerminator(
            self.certificate.context,
            (ALPN, self.reception.answer),
            lambda certificate: istio_ca.peer_of(certificate, self._trust_domain),
            self.nodes,
        )

    def ended(self) -> None:
        """Note that the role ends as it was told to, whatever it was at."""
        self._attempts.end()

    def peer(self, context: Caller) -> Peer:
        """Return the node at the other end of a call. Raises InvalidInputError when it is none."""
        found = self.terminator.peer(context.peer())
        return msgspec.structs.replace(found, machine=machine_of(context))

    def holder(self, context: Caller) -> Peer:
        """Return the same. Raises InvalidInputError also when another machine has its name."""
        peer = self.peer(context)
        self.plane.holders.check(peer.node, instance_of(context))
        return peer

    # ---- the identity role

    async def _certify(self, request: wire.Certify) -> wire.Certified:
        return await self._ask(request, wire.Certified)

    async def _enlist(self, request: wire.Enlist) -> wire.Certified:
        certified = await self._ask(request, wire.Certified)
        await self.plane.streams.cut(request.node, f"a node {request.node} has joined in its place")
        return certified

    async def _admit(self, peer: Peer) -> Bounds:
        answer = await self._ask(wire.Admit(peer), wire.Admitted)
        if answer.conflict:
            self.plane.holders.note(peer.node, answer.conflict)
        if answer.refusal:
            raise InvalidInputError(answer.refusal)
        self.terminator.admitted(msgspec.structs.replace(peer, machine=""))
        return answer.bounds

    async def _ask(self, request: wire.Message, expected: type[T]) -> T:
        """Raises MeshdError."""
        answer = await channel.call(self._identity, request)
        if isinstance(answer, wire.Failed):
            raise InvalidInputError(answer.reason)
        if not isinstance(answer, expected):
            raise UnreachableError("the identity role is of another version")
        return answer

    async def sign(self, peer: Peer, request: bytes, lifetime: float) -> wire.Certified:
        """Raises InvalidInputError when the node may not have it."""
        node = peer.node
        with self._attempts.noted(f"the certificate request of node {node}"):
            asked = csr.read(request)
        csr.check_node_may_ask(node, asked, await self._admit(peer), self._trust_domain)
        registered = rosters.identities_of(self.plane.rosters, node, self._trust_domain)
        csr.check_registered(node, asked, registered)
        return await self._certify(wire.Certify(request, peer, lifetime))

    # ---- the mesh role

    def _rosters_changed(self) -> None:
        self.mesh.tell(wire.Follow(rosters.workloads_of(self.plane.rosters)))

    def shared(self, message: wire.AnyMessage) -> None:
        """Take what nodes are to know from the mesh role. Raises InvalidInputError for a part of it
        that belongs to nothing."""
        if not isinstance(message, wire.Shared):
            return
        whole = self._gathering.shared(message)
        if whole is None:
            return
        if whole.objects is None:
            whole = msgspec.structs.replace(whole, objects=self._told.objects)
        if whole.objects is None:
            return
        self.plane.restore(whole.workloads, self._node)
        self._told = whole
        self.packing.ask()

    def _begin_packing(self) -> Callable[[], Packed]:
        return functools.partial(self._packing.pack, self._told)

    def _publish(self, packed: Packed) -> None:
        for problem in sorted(set(packed.problems) - set(self._problems)):
            _log.error("%s", problem, extra={"MESHD_EVENT": "not-shared"})
        self._problems = packed.problems
        self.plane.publish(packed.shared, lambda node: packed.private.get(node, EMPTY))

    # ---- meshctl, by way of the mesh role

    async def answer(self, request: wire.ToServer) -> wire.Message:
        match request:
            case wire.Nodes():
                return wire.NodeStatuses(
                    self.plane.statuses(),
                    (
                        *self._problems,
                        *filter(None, (self.packing.problem,)),
                        *self._attempts.problems,
                    ),
                )
            case wire.RemoveNode(name):
                await self._ask(request, wire.Done)
                await self.plane.expel(name)
                return wire.Done()
            case wire.BindNode(name):
                await self._ask(request, wire.Done)
                await self.plane.streams.cut(name, "what it may run has changed")
                return wire.Done()
