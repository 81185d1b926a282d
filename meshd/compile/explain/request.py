"""Explains how a request travels: each stage from the redirecting rule to the endpoint. Pure.

It calls the functions that make the proxies' configuration, and reads their results, so that it
cannot differ from what the proxies do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envoy.config.route.v3 import route_components_pb2

from meshd import wire
from meshd.api.destination_rule.types import LocalityLbSetting
from meshd.api.protocol import Protocol
from meshd.base.numbers import whole
from meshd.compile.acceptance import as_accepted
from meshd.compile.compiler import identity_of
from meshd.compile.envoy.listeners import listener_name
from meshd.compile.explain import route_choice
from meshd.compile.hosts import resolve
from meshd.compile.http.delegation import delegated
from meshd.compile.http.mirroring import copied_to
from meshd.compile.http.routes import DEFAULT_HTTP_PORT, route_configuration
from meshd.compile.names import PASSTHROUGH_CLUSTER, parse_cluster
from meshd.compile.scope import scopes
from meshd.compile.traffic.opaque import destinations, opaque_routes
from meshd.compile.traffic.scope_listeners import scope_listener_name
from meshd.compile.traffic.virtual_addresses import is_virtual
from meshd.compile.upstream.clusters import service_clusters
from meshd.compile.upstream.endpoints import has_labels
from meshd.compile.upstream.nearness import Client, by_nearness
from meshd.compile.upstream.tls_plan import TlsMode
from meshd.compile.upstream.traffic_policy import effective_policy
from meshd.compile.visibility import MeshIndex, View
from meshd.model.interception import OUTBOUND_PORT
from meshd.model.service import Endpoint, Resolution, ServiceRecord
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload


def explain(snapshot: Snapshot, source: Workload, request: wire.Explain) -> wire.Explanation:
    """Return the stages; ``source`` is a workload of the snapshot or one that is outside the
    mesh."""
    if source.uid not in snapshot.workloads:
        step = wire.Step("source", f"{source.uid} is not in the mesh: its traffic is its own")
        return wire.Explanation((step,), "outside the mesh", "", (), "")
    snapshot = delegated(as_accepted(snapshot))
    view = MeshIndex.of(snapshot).view(scopes(snapshot)[source.uid])
    return _Journey(snapshot, source, view, request).explanation()


class _Journey:
    """Collects the stages of one request."""

    def __init__(
        self, snapshot: Snapshot, source: Workload, view: View, request: wire.Explain
    ) -> None:
        self._snapshot = snapshot
        self._source = source
        self._view = view
        self._request = request
        self._steps: list[wire.Step] = []
        self._identity = identity_of(source, snapshot.options).uri
        host, port = _split(request.destination)
        self._host = resolve(host, source.namespace, view.options.domain, snapshot.services)
        self._service = view.services.get(self._host) or _by_address(view, host)
        ports = self._service.ports if self._service else ()
        self._port = port or (ports[0].number if ports else DEFAULT_HTTP_PORT)

    def _tell(self, stage: str, detail: str) -> None:
        self._steps.append(wire.Step(stage, detail))

    def explanation(self) -> wire.Explanation:
        self._introduce()
        spoken = {
            port.protocol
            for record in self._view.by_port.get(self._port, ())
            for port in record.ports
            if port.number == self._port
        }
        if any(one.is_http or one is Protocol.SNIFFED for one in spoken):
            return self._http()
        return self._opaque()

    def _introduce(self) -> None:
        source = self._source
        self._tell("source", f"{source.uid} acts as {self._identity}")
        service = self._service
        if service:
            where = ", ".join(destinations(service)) or "no address of its own"
            self._tell("name", f"{service.host} is {where}")
        else:
            self._tell("name", f"{self._host} is no service that {source.namespace} sees")
        host = source.host
        where = f"{host.outbound_port} on the host" if host else f"{OUTBOUND_PORT} in its namespace"
        self._tell("capture", f"TCP to port {self._port} is redirected to {where}")
        self._tell(
            "listener",
            f"{listener_name(source.uid, 'outbound')} → "
            f"{scope_listener_name(self._view.scope.name)}",
        )

    def _http(self) -> wire.Explanation:
        request = self._request
        asked = route_choice.Request(
            host=self._service.host if self._service else self._host,
            path=request.path,
            method=request.method,
            headers={name.lower(): value for name, value in request.headers},
        )
        configuration = route_configuration(self._view, self._port)
        self._tell("chain", f"http|{self._port} → routes {configuration.name}")
        virtual_host = route_choice.choose_host(configuration, asked)
        if virtual_host is None:
            return self._end("no route: 404")
        self._tell("host", virtual_host.name)
        route = route_choice.choose_route(virtual_host, asked)
        if route is None:
            return self._end("no route: 404")
        self._tell("route", _describe(route))
        action = route.WhichOneof("action")
        if action == "direct_response":
            return self._end(f"answered {route.direct_response.status} by the proxy")
        if action == "redirect":
            return self._end("redirected")
        for name, share in copied_to(route.route):
            self._tell("mirror", f"{name}: a copy of {share:g} % of the requests")
        return self._clusters(list(_weighted(route.route)))

    def _opaque(self) -> wire.Explanation:
        here = destinations(self._service) if self._service else (self._host,)
        for route in opaque_routes(self._view):
            if route.port == self._port and (not route.prefixes or set(route.prefixes) & set(here)):
                self._tell("chain", route.target.name)
                return self._clusters(list(route.clusters))
        policy = self._view.options.outbound_policy
        if any(is_virtual(address, self._view.options) for address in here):
            self._tell("chain", "no service has this address and port, and nobody else can")
            return self._end("refused: no service has this address and port")
        self._tell("chain", f"no service has this address: {policy}")
        if policy == "ALLOW_ANY":
            return self._end("passed through as it is", PASSTHROUGH_CLUSTER)
        return self._end("refused: not in the registry")

    def _clusters(self, clusters: list[tuple[str, int]]) -> wire.Explanation:
        whole = sum(weight for _, weight in clusters) or 1
        for name, weight in clusters:
            share = f" ({weight * 100 // whole} %)" if len(clusters) > 1 else ""
            self._tell("cluster", f"{name}{share}")
        endpoints: list[str] = []
        for name, weight in clusters:
            if weight > 0:
                endpoints += self._endpoints(name)
        name = clusters[0][0] if clusters else ""
        if name == PASSTHROUGH_CLUSTER:
            return self._end("passed through as it is", name)
        verdict = "routed" if endpoints else "no healthy endpoint: 503"
        return self._end(verdict, name, tuple(endpoints))

    def _endpoints(self, name: str) -> Iterator[str]:
        parsed = parse_cluster(name)
        service = self._view.services.get(getattr(parsed, "host", ""))
        if service is None:
            self._tell("endpoints", f"{name}: there is no such service")
            return
        rules = self._view.rules(service.host)
        planned = next(
            (
                one
                for one in service_clusters(service, rules, self._view.options)
                if str(one.name) == name
            ),
            None,
        )
        if planned is None:
            self._tell("endpoints", f"{name}: there is no such subset or port")
            return
        tls = planned.tls
        self._tell(
            "tls",
            "plain"
            if tls.mode is TlsMode.PLAIN
            else (
                f"{tls.mode} TLS as {self._identity}, to one of "
                f"{', '.join(tls.subject_alt_names) or 'any identity'}"
            ),
        )
        subset = rules.subset(planned.name.subset)
        labels = subset.labels if subset else {}
        if service.resolution is Resolution.DYNAMIC_DNS:
            self._tell("endpoint", f"{self._host} is looked up by the proxy, for each request")
            yield f"{self._host}:{planned.name.port}"
            return
        places = [
            place
            for place in service.endpoints
            if place.service_port == planned.name.port and has_labels(place, labels)
        ]
        policy = effective_policy(rules, planned.name.port, planned.name.subset)
        nearness = policy.nearness(service, rules.client)
        if nearness is None or rules.client is None:
            yield from self._tell_endpoints(places)
            return
        self._tell("near", _describe_nearness(nearness, rules.client))
        ready = (place for place in places if place.ready)
        for group in by_nearness(ready, nearness, rules.client):
            share = f"weight {group.weight}" if group.weight else f"priority {group.priority}"
            yield from self._tell_endpoints(
                group.endpoints, f", {share}, {group.locality or 'locality unknown'}"
            )
        yield from self._tell_endpoints(place for place in places if not place.ready)

    def _tell_endpoints(self, places: Iterable[Endpoint], where: str = "") -> Iterator[str]:
        for place in places:
            state = (" (mutual TLS)" if place.mutual_tls else "") + (
                "" if place.ready else " (not ready)"
            )
            name = f" {place.workload}" if place.workload else ""
            self._tell("endpoint", f"{place.address}:{place.port}{name}{state}{where}")
            if place.ready:
                yield f"{place.address}:{place.port}"

    def _end(
        self, verdict: str, cluster: str = "", endpoints: tuple[str, ...] = ()
    ) -> wire.Explanation:
        return wire.Explanation(tuple(self._steps), verdict, cluster, endpoints, self._identity)


def _split(destination: str) -> tuple[str, int]:
    """Split HOST, HOST:PORT or [ADDRESS]:PORT; the default port is 0."""
    if destination.startswith("["):
        host, _, port = destination[1:].partition("]")
        port = port.removeprefix(":")
    elif destination.count(":") == 1:
        host, _, port = destination.partition(":")
    else:
        host, port = destination, ""
    return host, whole(port, 65535) or 0


def _by_address(view: View, address: str) -> ServiceRecord | None:
    return next((one for one in view.services.values() if address in one.addresses), None)


def _weighted(action: route_components_pb2.RouteAction) -> Iterator[tuple[str, int]]:
    if action.WhichOneof("cluster_specifier") == "cluster":
        yield action.cluster, 1
        return
    for part in action.weighted_clusters.clusters:
        yield part.name, part.weight.value


def _describe_nearness(nearness: LocalityLbSetting, client: Client) -> str:
    place = f"from {client.locality or 'an unknown locality'}"
    if nearness.distribute:
        return f"{place}: distributed over localities"
    if nearness.failover_priority:
        return f"{place}: the same {', then '.join(reversed(nearness.failover_priority))} first"
    return f"{place}: near endpoints first, others when those fail"


def _describe(route: route_components_pb2.Route) -> str:
    """Describe a route: its object, and what it does beside forwarding."""
    origin = route.metadata.filter_metadata.get("istio")
    parts = [route.name or "unnamed"]
    if origin:
        parts.append(f"of {str(origin['config']).removeprefix('/apis/')}")
        if "delegate" in origin:
            parts.append(f"from its delegate {origin['delegate']}")
    if route.HasField("route") and route.route.timeout.ToSeconds():
        parts.append(f"timeout {route.route.timeout.ToTimedelta().total_seconds():g} s")
    parts += [f"with {name.rpartition('.')[2]}" for name in sorted(route.typed_per_filter_config)]
    return ", ".join(parts)
