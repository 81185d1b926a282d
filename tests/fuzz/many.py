"""Valid configuration that has many of something, by what it has many of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Make = Callable[[int], list[dict[str, Any]]]
"""How many → objects, for the mesh of ``mesh.yaml``."""

_NETWORKING: Final = "networking.istio.io/v1"
_TO_WEB: Final = [{"destination": {"host": "web"}}]
_HTTP: Final = {"number": 80, "name": "http", "protocol": "HTTP"}


def _object(version: str, kind: str, spec: dict[str, Any], name: str = "many") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _service(prefix: str, count: int, **spec: Any) -> list[dict[str, Any]]:
    ports = [{"name": f"{prefix}{n}", "port": 1000 + n} for n in range(count)]
    spec = {"selector": {"app": "web"}, "ports": ports, **spec}
    return [_object("v1", "Service", spec, "web")]


def _rule(**spec: Any) -> list[dict[str, Any]]:
    return [_object(_NETWORKING, "DestinationRule", {"host": "web", **spec})]


def _subsets(count: int) -> list[dict[str, Any]]:
    return _rule(subsets=[{"name": f"v{n}", "labels": {"app": "web"}} for n in range(count)])


def _policies_of_ports(count: int) -> list[dict[str, Any]]:
    pool = {"tcp": {"maxConnections": 5}}
    ports = [{"port": {"number": n + 1}, "connectionPool": pool} for n in range(count)]
    return _rule(trafficPolicy={"portLevelSettings": ports})


def _localities(count: int) -> list[dict[str, Any]]:
    ways = [{"from": f"r{n}/*", "to": {"a": 100}} for n in range(count)]
    return _rule(
        trafficPolicy={
            "loadBalancer": {"localityLbSetting": {"distribute": ways}},
            "outlierDetection": {"interval": "5s"},
        }
    )


def _routes(**spec: Any) -> list[dict[str, Any]]:
    spec = {"hosts": ["web"], **spec}
    return [_object(_NETWORKING, "VirtualService", spec)]


def _one_route(**fields: Any) -> list[dict[str, Any]]:
    return _routes(http=[{"route": _TO_WEB, **fields}])


def _hosts(count: int) -> list[str]:
    return [f"h{n}.many.test" for n in range(count)]


def _prefixes(count: int) -> list[dict[str, Any]]:
    return [{"uri": {"prefix": f"/{n}"}} for n in range(count)]


def _labels(count: int) -> dict[str, str]:
    return {f"k{n}": "v" for n in range(count)}


def _many_routes(count: int) -> list[dict[str, Any]]:
    return _routes(http=[{"match": [one], "route": _TO_WEB} for one in _prefixes(count)])


def _delegates(count: int) -> list[dict[str, Any]]:
    narrow = [{"match": [one], "route": _TO_WEB} for one in _prefixes(count)]
    wide = {"match": [{"uri": {"prefix": "/"}}], "delegate": {"name": "narrow"}}
    return [
        _object(_NETWORKING, "VirtualService", {"http": narrow}, "narrow"),
        *_routes(hosts=["many.test"], http=[wide]),
    ]


def _by_label(count: int) -> list[dict[str, Any]]:
    matches = [{"sourceLabels": {"app": f"a{n}"}} for n in range(count)]
    return _routes(http=[{"match": [one], "route": _TO_WEB} for one in matches])


def _tcp(count: int) -> list[dict[str, Any]]:
    matches = [{"port": 9000, "sourceLabels": {"a": f"b{n}"}} for n in range(count)]
    return _routes(tcp=[{"match": [one], "route": _TO_WEB} for one in matches])


def _server_names(count: int) -> list[dict[str, Any]]:
    matches = [{"port": 443, "sniHosts": [host]} for host in _hosts(count)]
    return _routes(
        hosts=["*.many.test"], tls=[{"match": [one], "route": _TO_WEB} for one in matches]
    )


def _entry(name: str = "many", **spec: Any) -> dict[str, Any]:
    spec = {"hosts": ["many.test"], "ports": [_HTTP], "resolution": "DNS", **spec}
    return _object(_NETWORKING, "ServiceEntry", spec, name)


def _addresses(count: int) -> list[str]:
    return [f"198.18.{n // 250}.{n % 250 + 1}" for n in range(count)]


def _places(count: int) -> dict[str, Any]:
    return {"resolution": "STATIC", "endpoints": [{"address": one} for one in _addresses(count)]}


def _entry_ports(count: int) -> list[dict[str, Any]]:
    return [{**_HTTP, "number": 80 + n, "name": f"http-{n}"} for n in range(count)]


def _gateway(servers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        _object(_NETWORKING, "Gateway", {"selector": {"app": "edge"}, "servers": servers}, "edge")
    ]


def _servers(count: int) -> list[dict[str, Any]]:
    ports = _entry_ports(count)
    return _gateway(
        [{"port": {**one, "number": 8000 + n}, "hosts": ["*"]} for n, one in enumerate(ports)]
    )


def _tls_servers(count: int) -> list[dict[str, Any]]:
    tls = {"mode": "SIMPLE", "credentialName": "a"}
    return _gateway(
        [
            {
                "port": {"number": 8443, "name": f"https-{n}", "protocol": "HTTPS"},
                "hosts": [host],
                "tls": tls,
            }
            for n, host in enumerate(_hosts(count))
        ]
    )


def _ports_of_policy(count: int) -> list[dict[str, Any]]:
    ports = {str(n + 1): {"mode": "PERMISSIVE"} for n in range(count)}
    spec = {"selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": "STRICT"}}
    spec["portLevelMtls"] = ports
    return [_object("security.istio.io/v1", "PeerAuthentication", spec)]


def _machine(**spec: Any) -> list[dict[str, Any]]:
    return [_object(_NETWORKING, "WorkloadEntry", {"address": "198.18.1.1", **spec})]


def _noted(field: str, count: int) -> list[dict[str, Any]]:
    (one,) = _service("http-", 1)
    return [{**one, "metadata": {**one["metadata"], field: _labels(count)}}]


MANY: Final[Mapping[str, Make]] = {
    "HTTP ports": lambda n: _service("http-", n),
    "undeclared ports": lambda n: _service("p", n),
    "TCP ports": lambda n: _service("tcp-", n),
    "headless ports": lambda n: _service("tcp-", n, clusterIP="None"),
    "labels of a selector": lambda n: _service("http-", 1, selector=_labels(n)),
    "labels": lambda n: _noted("labels", n),
    "annotations": lambda n: _noted("annotations", n),
    "subsets": _subsets,
    "labels of a subset": lambda n: _rule(subsets=[{"name": "v", "labels": _labels(n)}]),
    "policies of ports": _policies_of_ports,
    "localities": _localities,
    "namespaces of a rule": lambda n: _rule(exportTo=[f"n{one}" for one in range(n)]),
    "hosts": lambda n: _one_route() and _routes(hosts=_hosts(n), http=[{"route": _TO_WEB}]),
    "routes": _many_routes,
    "routes of a delegate": _delegates,
    "matches": lambda n: _one_route(match=_prefixes(n)),
    "headers of a match": lambda n: _one_route(
        match=[{"headers": {f"x-{one}": {"exact": "a"} for one in range(n)}}]
    ),
    "destinations": lambda n: _routes(http=[{"route": [{**_TO_WEB[0], "weight": 1}] * n}]),
    "mirrors": lambda n: _one_route(mirrors=_TO_WEB * n),
    "headers that are set": lambda n: _one_route(
        headers={"request": {"set": {f"x-{one}": "a" for one in range(n)}}}
    ),
    "gateways": lambda n: (
        _one_route()
        and _routes(gateways=[f"g{one}" for one in range(n)], http=[{"route": _TO_WEB}])
    ),
    "namespaces of routes": lambda n: _routes(
        exportTo=[f"n{one}" for one in range(n)], http=[{"route": _TO_WEB}]
    ),
    "labels of sources": _by_label,
    "TCP routes": _tcp,
    "server names": _server_names,
    "hosts of an entry": lambda n: [_entry(hosts=_hosts(n))],
    "ports of an entry": lambda n: [_entry(ports=_entry_ports(n))],
    "endpoints": lambda n: [_entry(**_places(n))],
    "endpoints of two entries": lambda n: [_entry(**_places(n)), _entry("more", **_places(n))],
    "labels of an endpoint": lambda n: [
        _entry(resolution="STATIC", endpoints=[{"address": "198.18.1.1", "labels": _labels(n)}])
    ],
    "addresses": lambda n: [_entry(addresses=_addresses(n), **_places(1))],
    "names of servers": lambda n: [_entry(subjectAltNames=_hosts(n))],
    "servers": _servers,
    "servers with TLS": _tls_servers,
    "hosts of a server": lambda n: _gateway([{"port": _HTTP, "hosts": _hosts(n)}]),
    "ports of a policy": _ports_of_policy,
    "labels of a machine": lambda n: _machine(labels=_labels(n)),
    "ports of a machine": lambda n: _machine(ports={f"p{one}": one + 1 for one in range(n)}),
}
"""Each list and mapping by itself."""


def _chain(count: int) -> list[dict[str, Any]]:
    """Names that lead to names, each to as many."""
    names = [f"c{n}.many.test" for n in range(5)]
    links = [
        _entry(f"c{n}", hosts=[name], endpoints=[{"address": names[n + 1]}] * count)
        for n, name in enumerate(names[:-1])
    ]
    return [*links, _entry("c4", hosts=names[-1:], **_places(count))]


def _delegated_squared(count: int) -> list[dict[str, Any]]:
    narrow, (wide,) = _delegates(count)[0], _delegates(1)[1:]
    wide["spec"]["http"] *= count
    return [narrow, wide]


TOGETHER: Final[Mapping[str, Make]] = {
    "ports and routes": lambda n: [*_service("http-", n), *_many_routes(n)],
    "ports and subsets": lambda n: [*_service("http-", n), *_subsets(n)],
    "hosts and routes": lambda n: _routes(
        hosts=_hosts(n), http=[{"match": [one], "route": _TO_WEB} for one in _prefixes(n)]
    ),
    "matches and headers": lambda n: _one_route(
        match=_prefixes(n),
        headers={"request": {"set": {f"x-{one}": "a" for one in range(n)}}},
    ),
    "roots and delegates": _delegated_squared,
    "servers and routes": lambda n: [
        *_servers(n),
        *_routes(
            hosts=["a.many.test"],
            gateways=["edge"],
            http=[{"match": [one], "route": _TO_WEB} for one in _prefixes(n)],
        ),
    ],
    "hosts and ports": lambda n: [_entry(hosts=_hosts(n), ports=_entry_ports(n))],
    "hosts, ports and endpoints": lambda n: [
        _entry(hosts=_hosts(n), ports=_entry_ports(n), **_places(n))
    ],
}
"""Two or more of them, which multiply."""
NAMES: Final = _chain
