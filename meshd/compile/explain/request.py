"""Explains how a request travels: each stage from the redirecting rule to the endpoint. Pure.

It calls the functions that make the proxies' configuration, and reads their results, so that it
cannot differ from what the proxies do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

import msgspec

from meshd import wire
from meshd.compile.clients import identity_of
from meshd.compile.explain import route_choice
from meshd.compile.explain.answers import aborted, answer, cross_origin
from meshd.compile.explain.arrivals import CLOSED, Arrivals, denied, tell_judgement
from meshd.compile.explain.authorization import Verdict
from meshd.compile.explain.connections import (
    at_client,
    client_connection,
    is_query,
    tell_chain,
    tell_listener,
)
from meshd.compile.explain.endpoints import tell_detours
from meshd.compile.explain.entrances import entered, entrance
from meshd.compile.explain.entrances import tell_tls as tell_server_tls
from meshd.compile.explain.judging import entering
from meshd.compile.explain.rewriting import copied, forwarded, location, told_changes
from meshd.compile.explain.shares import shares
from meshd.compile.explain.telling import PlaceOf, Telling, nowhere
from meshd.compile.explain.wanted import socket_text, tell_name, wanted
from meshd.compile.gateway.routes import gateway_route_table
from meshd.compile.http.delegation import delegated
from meshd.compile.http.routes import route_table
from meshd.compile.names import (
    BLACK_HOLE_CLUSTER,
    PASSTHROUGH_CLUSTER,
    gateway_listener_name,
)
from meshd.compile.plan.chains import Http, Target, Tcp
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.routes import DirectResponse, Fault, Redirect, Route, RouteTable
from meshd.compile.policy.acceptance import as_accepted
from meshd.compile.upstream.fixed import resolver_of
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import scopes
from meshd.compile.visibility.view import View
from meshd.matching.request import Request, claimed
from meshd.model.interception import OUTBOUND_PORT
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload, shown


def explain(
    snapshot: Snapshot,
    source: Workload,
    request: wire.Explain,
    place_of: PlaceOf = nowhere,
    left_out: Iterable[str] = (),
    *,
    is_member: bool = False,
    avoiding: Collection[str] = (),
) -> wire.Explanation:
    """Return the stages. ``snapshot``: what was compiled. ``left_out``: what was not, a line each.
    ``is_member``: the source is in the mesh, if it is not in the snapshot. ``avoiding``: see
    ``tell_detours``."""
    if source.uid not in snapshot.workloads:
        return _unserved(source, is_member=is_member)
    snapshot = delegated(as_accepted(snapshot))
    view = View.of(MeshIndex.of(snapshot), scopes(snapshot)[source.uid])
    explanation = _Journey(snapshot, source, view, request, place_of).explanation()
    notes = tuple(wire.Step("left out", line) for line in left_out)
    detours = tell_detours(explanation.stages, avoiding)
    return msgspec.structs.replace(explanation, stages=notes + explanation.stages + detours)


def _unserved(source: Workload, *, is_member: bool) -> wire.Explanation:
    told, verdict = "is not in the mesh: its traffic is its own", "outside the mesh"
    if is_member:
        told = "is in the mesh, but no proxy serves it yet: see meshctl status"
        verdict = "not served"
    step = wire.Step("source", f"{shown(source.uid)} {told}")
    return wire.Explanation((step,), verdict, "", (), "")


class _Journey:
    """Collects the stages of one request."""

    def __init__(
        self,
        snapshot: Snapshot,
        source: Workload,
        view: View,
        request: wire.Explain,
        place_of: PlaceOf,
    ) -> None:
        self._snapshot = snapshot
        self._source = source
        self._view = view
        self._request = request
        self._telling = Telling(place_of)
        self._tell = self._telling.tell
        self._received: dict[str, Request] = {}
        """The request as it arrives, by upstream; empty: it is not HTTP."""
        self._identity = identity_of(source, snapshot.options).uri
        self._wanted = wanted(view, request.destination, source.namespace)
        self._connection = client_connection(view, self._wanted, request)

    def explanation(self) -> wire.Explanation:
        if self._request.from_outside:
            return self._enter()
        self._introduce()
        connection = self._connection
        resolver = resolver_of(self._source.namespace, self._snapshot.resolvers)
        chosen = at_client(self._view, connection, resolver)
        self._tell("chain", tell_chain(chosen, connection), chosen[-1].origin)
        target = chosen[-1].chain.target
        if isinstance(target, Http):
            return self._http(route_table(self._view, self._wanted.port), "http", in_clear=True)
        if is_query(chosen):
            return self._end("answered by the resolver of the mesh's names")
        return self._connected(target, chosen[-1].origin)

    def _connected(self, target: Target, origin: Origin | None = None) -> wire.Explanation:
        if not isinstance(target, Tcp) and origin is not None:
            return self._end(f"refused: {origin.key} is not in force; meshctl status says why")
        if not isinstance(target, Tcp):
            return self._end("refused: no service has this address and port")
        if (verdict := self._entering(None)) and not verdict.allowed:
            return self._end(CLOSED)
        nothing = "no healthy endpoint: the connection is closed"
        return self._clusters(list(target.upstreams), nothing)

    def _enter(self) -> wire.Explanation:
        """Explain what a gateway does with what comes from outside the mesh."""
        source = self._source
        self._view = self._view.as_gateway()
        self._tell("source", f"a client outside the mesh, at {shown(source.uid)}")
        found = entrance(self._snapshot, source, self._view, self._wanted.port, self._request)
        if found is None:
            return self._end(f"refused: no Gateway opens port {self._wanted.port} there")
        self._connection = found.connection
        self._tell("listener", gateway_listener_name(source.uid, found.number))
        if found.chosen is None:
            return self._end("refused: no server of its Gateways wants this connection")
        self._tell("chain", tell_chain((found.chosen,), found.connection), found.chosen.origin)
        chain = found.chosen.chain
        self._tell("server tls", tell_server_tls(chain.tls))
        if not isinstance(chain.target, Http):
            return self._connected(chain.target)
        name, port, servers = found.routed_by()
        table = gateway_route_table(self._view, name, port, servers)
        return self._http(table, chain.target.scheme or "http", in_clear=chain.tls is None)

    def _introduce(self) -> None:
        source = self._source
        self._tell("source", f"{shown(source.uid)} acts as {self._identity}")
        self._tell("name", tell_name(self._wanted, source.namespace))
        host = source.host
        where = f"{host.outbound_port} on the host" if host else f"{OUTBOUND_PORT} in its namespace"
        self._tell("capture", f"TCP to port {self._wanted.port} is redirected to {where}")
        self._tell("listener", tell_listener(self._view, source, self._connection))

    def _asked(self, scheme: Literal["http", "https"]) -> Request:
        """Return the request as the client makes it."""
        request, connection = self._request, self._connection
        hosts = [value for name, value in request.headers if name.lower() == "host"]
        headers = entered(request) if request.from_outside else request.headers
        asked = Request(
            host=hosts[-1] if hosts else self._wanted.authority(scheme),
            path=request.path,
            method=request.method,
            headers=headers,
            scheme=scheme,
            destination=socket_text(connection.address, connection.port),
        )
        return asked if request.from_outside else claimed(asked)

    def _http(
        self, table: RouteTable, scheme: Literal["http", "https"], *, in_clear: bool
    ) -> wire.Explanation:
        """Explain a request; ``in_clear``: the client speaks no TLS that ends here."""
        connection = self._connection
        if in_clear and connection.begins_as in {"tls", "other"}:
            return self._end("refused: 400, because only HTTP is understood on this port")
        # At the other end they are requests, whatever was around them.
        self._connection = msgspec.structs.replace(connection, begins_as="http")
        asked = self._asked(scheme)
        verdict = self._entering(asked)
        if verdict and not verdict.allowed:
            return self._end(denied(verdict.status))
        passed = (verdict and verdict.sent) or asked
        if any(route.match.claims for host in table.hosts for route in host.routes):
            asked = passed  # the route is chosen once the token is read
        self._tell("routes", table.name)
        virtual_host = route_choice.choose_host(table, asked)
        route = route_choice.choose_route(virtual_host, asked) if virtual_host else None
        if virtual_host:
            self._tell("host", virtual_host.name)
            if in_clear and virtual_host.only_tls:
                return self._end("redirected to https")
        if route is None:
            return self._end(f"no route: {answer(404, asked)}")
        self._tell("route", route_choice.describe(route), route.delegate or route.origin)
        return self._act(route, passed)

    def _act(self, route: Route, asked: Request) -> wire.Explanation:
        """Explain what becomes of a request on its route."""
        action, path = route.action, route.match.path
        seen = route_choice.normalized(asked)
        if origin := cross_origin(route, seen):
            self._tell("cors", str(origin))
            if origin.answered:
                return self._end("preflight answered 200 by the proxy")
        if route.fault and (ended := self._inject(route.fault, seen)):
            return ended
        if isinstance(action, DirectResponse):
            return self._end(f"answered {answer(action.status, seen)} by the proxy")
        if isinstance(action, Redirect):
            told = answer(action.status, seen)
            self._tell("redirect", f"{told} to {location(action, path, seen)}")
            return self._end("redirected")
        sent = {target: forwarded(route, action, target, seen) for target in action.targets}
        for copy in action.mirrors:
            arriving = (copied(one, copy) for one in sent.values())
            places = " or ".join(dict.fromkeys(f"{one.host}{one.path}" for one in arriving))
            share = f"a copy of {copy.percent:g} % of the requests"
            self._tell("mirror", f"{copy.upstream}: {share}, as {places}")
        self._received = {target.upstream: received for target, received in sent.items()}
        for target, received in sent.items():
            if received.host + received.path != seen.host + seen.path:
                self._tell("rewrite", f"{target.upstream}: {received.host}{received.path}")
            if changes := told_changes(seen, received):
                self._tell("headers", f"{target.upstream}: {changes}")
        targets = [(target.upstream, target.weight) for target in action.targets]
        return self._clusters(targets, f"no healthy endpoint: {answer(503, seen)}")

    def _inject(self, fault: Fault, asked: Request) -> wire.Explanation | None:
        """Tell of faults; return the end if every request is aborted."""
        if (delay := fault.delay) and delay.percent > 0:
            self._tell("fault", f"{delay.percent:g} % of the requests wait {delay.seconds:g} s")
        if (abort := fault.abort) and abort.percent > 0:
            told = f"answered {aborted(abort, asked)} by the proxy"
            self._tell("fault", f"{abort.percent:g} % of the requests are {told}")
            if abort.percent >= 100:
                return self._end(told)
        return None

    def _clusters(self, clusters: list[tuple[str, int]], nothing: str) -> wire.Explanation:
        """Explain where requests or connections go; ``nothing``: the verdict without an
        endpoint."""
        found = shares(clusters)
        names = list(found)
        if names == [PASSTHROUGH_CLUSTER]:
            return self._end("passed through as it is", PASSTHROUGH_CLUSTER)
        if names == [BLACK_HOLE_CLUSTER]:
            return self._end("refused: not in the registry")
        for name, share in found.items():
            told = "" if len(found) == 1 else f" ({round(share, 1):g} %)"
            self._tell("cluster", f"{name}{told}")
        arrivals = Arrivals(
            self._telling,
            self._snapshot,
            self._view,
            self._source,
            self._identity,
            self._wanted,
            self._connection,
            self._received,
        )
        endpoints = [one for name in names if found[name] > 0 for one in arrivals.endpoints(name)]
        if arrivals.closed:
            nothing = f"refused: {arrivals.closed} is not in force"
        verdict = arrivals.refused or ("routed" if endpoints else nothing)
        return self._end(verdict, next(iter(names), ""), tuple(endpoints))

    def _entering(self, asked: Request | None) -> Verdict | None:
        """Tell what policies about the gateway make of a client outside the mesh; None: the client
        is inside."""
        request, connection = self._request, self._connection
        if not request.from_outside:
            return None
        facts = entering(connection, request.client)
        return tell_judgement(self._telling, self._snapshot, self._source, facts, asked)

    def _end(
        self, verdict: str, cluster: str = "", endpoints: tuple[str, ...] = ()
    ) -> wire.Explanation:
        return wire.Explanation(self._telling.stages, verdict, cluster, endpoints, self._identity)
