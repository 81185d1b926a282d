"""A server's identity role beside SDS: it manages tokens and signs for other nodes.

The authority's keys, the hashes of tokens and the list of members are used here and nowhere else.
The server role knows what is registered on a node, and asks for nothing else; that the node belongs
to the mesh, and may have such an identity at all, is checked here again.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from meshd import wire
from meshd.base.errors import InvalidInputError
from meshd.base.moments import date
from meshd.ca.authority import Issued, Request
from meshd.ca.names import parse
from meshd.ca.standalone import Standalone
from meshd.fleet.joining.node import checked_name, node_uri, parse_node
from meshd.fleet.membership import csr, tokens
from meshd.fleet.membership.csr import Asked
from meshd.fleet.membership.members import Member, RivalError
from meshd.fleet.membership.token_store import TokenStore
from meshd.model import bounds
from meshd.wire.joining import Peer
from meshd.wire.nodes import MemberState
from meshd.wire.tokens import TokenState

_SHORTEST_TTL: Final = 1.0
_LONGEST_TTL: Final = 30 * 24 * 3600.0
_MOST_USES: Final = 1000


class RegistrationAuthority:
    """Answers requests about tokens and nodes. ``node``: this server's own name. Life times in
    seconds."""

    def __init__(
        self,
        signer: Standalone,
        store: TokenStore,
        *,
        trust_domain: str,
        node: str,
        lifetime: float,
        node_lifetime: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signer = signer
        self._store = store
        self._trust_domain = trust_domain
        self._node = node
        self._lifetime = lifetime
        self._node_lifetime = node_lifetime
        self._clock = clock

    async def answer(self, request: wire.ToAuthority) -> wire.Message:  # noqa: PLR0911
        """Raises MeshdError."""
        match request:
            case wire.CreateToken():
                return self._create(request)
            case wire.ListTokens():
                return self._list()
            case wire.DeleteToken():
                self._store.delete(request.id)
                return wire.Done()
            case wire.ListNodes():
                return self._members()
            case wire.RemoveNode():
                self._store.remove(request.name)
                return wire.Done()
            case wire.BindNode():
                self._store.bind(request.name, bounds.checked(request.bounds))
                return wire.Done()
            case wire.Admit(peer):
                return self._attended(peer)
            case wire.Enlist():
                return self._enlist(request)
            case wire.Certify():
                return await self._certify(request)

    # ---- tokens

    def _create(self, request: wire.CreateToken) -> wire.Message:
        if not _SHORTEST_TTL <= request.ttl <= _LONGEST_TTL:
            raise InvalidInputError("a token is valid for between 1 second and 30 days")
        if not 1 <= request.uses <= _MOST_USES:
            raise InvalidInputError(f"a token can be used between 1 and {_MOST_USES} times")
        node = checked_name(request.node) if request.node else ""
        root = self._signer.authority(self._clock()).root_certificates[0]
        pin = tokens.pin_of(root.public_bytes(Encoding.DER))
        within = bounds.checked(request.bounds)
        text, record = self._store.create(
            pin, request.ttl, node=node, uses=request.uses, bounds=within
        )
        return wire.TokenCreated(text, self._state(record))

    def _list(self) -> wire.Message:
        return wire.TokenStates(tuple(map(self._state, self._store.list())))

    def _state(self, record: tokens.Record) -> TokenState:
        return TokenState(
            id=record.id,
            node=record.node,
            created=record.created,
            expires=record.expires,
            uses=record.uses,
            used_by=tuple(use.node for use in record.used),
            state=tokens.state_of(record, self._clock()),
            bounds=record.bounds,
        )

    def _members(self) -> wire.Message:
        return wire.MemberStates(
            tuple(
                MemberState(name=name, bounds=one.bounds, joined=one.joined, expires=one.expires)
                for name, one in sorted(self._store.members().items())
            )
        )

    # ---- certificates

    def _enlist(self, request: wire.Enlist) -> wire.Message:
        """Certify a node that joins; other mistakes in the request must not spend the token."""
        node = checked_name(request.node)
        asked = csr.read(request.csr)
        if asked.uri != node_uri(self._trust_domain, node) or asked.dns:
            raise InvalidInputError(f"node {node} may not join as {asked.uri}")
        if node == self._node:
            raise InvalidInputError(
                f"node {node}: that is the server's own name; set another in meshd.yaml (node: …)"
            )
        issue = functools.partial(self._node_certificate, asked)
        return self._certified(self._store.join(request.token, node, issue))

    async def _certify(self, request: wire.Certify) -> wire.Message:
        asked = csr.read(request.csr)
        peer = request.peer
        if peer is None:
            csr.check_server_may_ask(self._node, asked, self._trust_domain)
            return self._certified(self._node_certificate(asked))
        member = self._admitted(peer)
        csr.check_node_may_ask(peer.node, asked, member.bounds, self._trust_domain)
        if parse_node(asked.uri):
            issue = functools.partial(self._node_certificate, asked)
            return self._certified(self._store.renew(peer.node, peer.serial, issue))
        wanted = min(request.lifetime or self._lifetime, self._lifetime)
        workload = Request(parse(asked.uri), asked.csr, wanted)
        return self._certified(await self._signer.sign(workload, self._clock()))

    def _attended(self, peer: Peer) -> wire.Message:
        self._check_valid(peer)
        try:
            found = self._store.attended(peer.node, peer.serial, peer.machine)
        except RivalError as error:
            return wire.Admitted((), error.conflict, str(error))
        return wire.Admitted(found.member.bounds, found.conflict)

    def _admitted(self, peer: Peer) -> Member:
        """Raises InvalidInputError."""
        self._check_valid(peer)
        return self._store.admitted(peer.node, peer.serial)

    def _check_valid(self, peer: Peer) -> None:
        """Raises InvalidInputError. TLS looks at a certificate only when a connection begins."""
        if self._clock() >= peer.expires:
            raise InvalidInputError(
                f"the certificate of node {peer.node} ended on {date(peer.expires)}"
            )

    def _node_certificate(self, asked: Asked) -> Issued:
        now = self._clock()
        signer = self._signer.authority(now)
        return signer.certify(asked.names, asked.csr, self._node_lifetime, now)

    def _certified(self, issued: Issued) -> wire.Certified:
        return wire.Certified(issued.chain, self._signer.roots(), issued.expires)
