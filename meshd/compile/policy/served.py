"""The ports that workloads serve, and their protocols, by the Services in front of them."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping

from meshd.api.protocol import Protocol
from meshd.compile.upstream.destination_rules import RuleIndex, RuleSet
from meshd.compile.upstream.traffic_policy import effective_policy
from meshd.compile.visibility.scope import Scope
from meshd.model.service import Port, ServiceRecord


class Spoken(enum.StrEnum):
    """The protocol towards the application, whatever the clients' proxies have made of it on the
    way."""

    HTTP = "http"
    """HTTP/1.1."""
    HTTP2 = "http2"
    EITHER = "either"
    """HTTP, in the version in which it comes."""
    OPAQUE = "opaque"
    SNIFFED = "sniffed"
    """Found out for each connection."""


_SPOKEN = {
    Protocol.HTTP: Spoken.HTTP,
    Protocol.HTTP2: Spoken.HTTP2,
    Protocol.GRPC: Spoken.HTTP2,
    Protocol.SNIFFED: Spoken.SNIFFED,
}
_HTTP = frozenset({Spoken.HTTP, Spoken.HTTP2, Spoken.EITHER})
Ports = Mapping[int, Spoken]


def served_ports(
    services: Mapping[str, ServiceRecord], rules: RuleIndex, uids: Container[str] | None = None
) -> dict[str, dict[int, Spoken]]:
    """Return the ports to which services send, and their protocols, of each of some workloads; None
    is all. Workloads to which no service sends are left out."""
    found: dict[str, dict[int, set[Spoken]]] = defaultdict(lambda: defaultdict(set))
    for service in services.values():
        places = service.endpoints
        if uids is not None:
            places = [endpoint for endpoint in places if endpoint.workload in uids]
        spoken = dict(_spoken(service, rules)) if places else {}
        for endpoint in places:
            if endpoint.workload and endpoint.service_port in spoken:
                ports = found[endpoint.workload]
                ports[endpoint.port].add(spoken[endpoint.service_port])
    return {
        uid: {port: _common(said) for port, said in ports.items()} for uid, ports in found.items()
    }


def _spoken(service: ServiceRecord, rules: RuleIndex) -> Iterator[tuple[int, Spoken]]:
    own = rules.rules(service, Scope(service.namespace))
    for port in service.ports:
        if port.protocol is not Protocol.UDP:
            spoken = _SPOKEN.get(port.protocol, Spoken.OPAQUE)
            as_asked = spoken is Spoken.HTTP and _is_as_asked(port, own)
            yield port.number, Spoken.EITHER if as_asked else spoken


def _is_as_asked(port: Port, rules: RuleSet) -> bool:
    """Return whether the rules of the service's own namespace want the client's protocol."""
    pool = effective_policy(rules, port.number).connection_pool
    return bool(pool and pool.http and pool.http.use_client_protocol)


def _common(said: set[Spoken]) -> Spoken:
    """Return the protocol that serves all of several services that send to one port."""
    if len(said) == 1:
        return next(iter(said))
    return Spoken.EITHER if said <= _HTTP else Spoken.SNIFFED
