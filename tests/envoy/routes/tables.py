"""Route tables and requests by chance: few hosts, paths and values, so that they meet."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

import msgspec

from meshd.api.base import decode_scalar
from meshd.api.networking import Gateway, VirtualService
from meshd.api.protocol import Protocol
from meshd.compile.gateway.ports import gateway_ports
from meshd.compile.gateway.routes import gateway_route_table
from meshd.compile.http.delegation import delegated
from meshd.compile.http.routes import route_table
from meshd.compile.plan.routes import RouteTable
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.matching.request import Request, claimed
from meshd.model.service import Port, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload

HOSTS: Final = ("a.test", "b.test", "*.test", "*.b.test", "svc.default.svc.cluster.local")
PATHS: Final = (
    *("/", "/a", "/A", "/a/b", "/a%20b", "//a", "/a/../b", "/a/./b", "/%61", "/a%2Fb", "/b/"),
)
ODD_PATHS: Final = (
    *PATHS,
    *("/a/..", "/a/.", "/%2e%2E/a", "/a//../b", "/a%2fb", "/%7e%41", "/a;b=1/b", "/../"),
)
NAMES: Final = ("x-a", "X-B", "user-agent")
VALUES: Final = ("", "1", "12", "abc", "a b", "1,12", "ABC")
REGEX_REWRITES: Final = (
    ("/a", "/z"),
    ("^/(.*)$", r"/\1/v"),
    ("([a-z])", r"\0\\\1"),
    ("[a-z]+", ""),
    ("(x)?/", r"/\1"),
    ("b*", r"/\0"),
)
ORIGINS: Final = ("https://a.test", "https://b.test", "http://a.test:8080", "null", "")
UPSTREAMS: Final = ("svc", "other.test", "third.test")
PERCENTAGES: Final = (0, 0.00001, 50, 100, 100)
DESTINATIONS: Final = ("198.19.0.1:80", "198.19.9.9:80", "198.18.0.1:80")
EDGE: Final = Workload(
    uid="default.edge",
    name="edge",
    namespace="default",
    netns="",
    labels={"app": "edge", "meshd.io/gateway": ""},
)

Written = dict[str, Any]
"""An object as people write it."""


class Case(NamedTuple):
    """A route table, and how requests come to it."""

    written: list[Written]
    table: RouteTable
    scheme: Literal["http", "https"]
    is_gateways: bool
    destination: str
    """``ADDRESS:PORT`` of all connections."""


def cases(chance: random.Random, count: int) -> Iterator[Case]:
    """Yield tables of clients and of gateways, in turn."""
    made = 0
    while made < count:
        found = of_gateway(chance) if made % 3 == 2 else [of_client(chance)]
        yield from found[: count - made]
        made += len(found)


def of_client(chance: random.Random) -> Case:
    written = virtual_services(chance, ["mesh"])
    cidr = chance.choice(("", "198.19.0.0/16"))
    view = View.of(MeshIndex.of(snapshot(written, cidr)), Scope("default"))
    return Case(written, route_table(view, 80), "http", False, chance.choice(DESTINATIONS))


def of_gateway(chance: random.Random) -> list[Case]:
    """Return all tables of a gateway, for which Gateways of two namespaces are."""
    gateways = [gateway(chance, number) for number in range(chance.choice((1, 2, 3)))]
    names = [f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in gateways]
    written = [*gateways, *virtual_services(chance, names)]
    made = snapshot(written, "")
    view = View.of(MeshIndex.of(made), Scope("default")).as_gateway()
    bound = gateway_ports(made)[EDGE.uid]
    return [
        Case(
            written,
            gateway_route_table(view, name, port, servers),
            "https" if servers[0].server.is_tls else "http",
            True,
            DESTINATIONS[-1],
        )
        for name, port, servers in bound.route_configurations()
    ]


def snapshot(written: list[Written], cidr: str) -> Snapshot:
    """Return what is compiled: the objects, one service and one gateway."""

    def converted(kind: type[Any]) -> tuple[Any, ...]:
        found = [one for one in written if one["kind"] == kind.KIND]
        return msgspec.convert(found, tuple[kind, ...], dec_hook=decode_scalar)

    record = ServiceRecord(
        host=HOSTS[-1],
        namespace="default",
        name="svc",
        addresses=("198.19.0.1",),
        ports=(Port(80, "http", Protocol.HTTP),),
    )
    made = Snapshot(
        options=MeshOptions(service_cidr=cidr),
        workloads={EDGE.uid: EDGE},
        services={record.host: record},
        virtual_services=converted(VirtualService),
        gateways=converted(Gateway),
    )
    return delegated(made)


def gateway(chance: random.Random, number: int) -> Written:
    return {
        "kind": "Gateway",
        "metadata": {"name": f"g{number}", "namespace": chance.choice(("default", "other"))},
        "spec": {
            "selector": {"app": "edge"},
            "servers": [server(chance, place) for place in range(chance.choice((1, 2)))],
        },
    }


def server(chance: random.Random, number: int) -> Written:
    prefixes = ("", "", "default/", "other/", "./", "*/")
    hosts = [f"{chance.choice(prefixes)}{host}" for host in chance.sample(("*", *HOSTS), 2)]
    made: Written = {"hosts": hosts}
    if chance.random() < 0.2:
        made["port"] = {"number": 443, "name": f"https{number}", "protocol": "HTTPS"}
        made["tls"] = {"mode": "SIMPLE", "credentialName": "site"}
        return made
    made["port"] = {"number": chance.choice((80, 81)), "name": f"p{number}", "protocol": "HTTP"}
    if chance.random() < 0.2:
        made["tls"] = {"httpsRedirect": True}
    return made


def virtual_services(chance: random.Random, gateways: list[str]) -> list[Written]:
    """Return some with hosts, of which routes may delegate to others, which have none."""
    namespaces = ("default", "other") if gateways != ["mesh"] else ("default",)
    delegates = [
        virtual_service(chance, f"d{number}", "default", {"exportTo": ["*"]}, ())
        for number in range(chance.choice((0, 0, 1, 2)))
    ]
    names = tuple(one["metadata"]["name"] for one in delegates)
    roots = [
        virtual_service(
            chance,
            f"vs{number}",
            chance.choice(namespaces),
            {
                "hosts": chance.sample(HOSTS, chance.choice((1, 2))),
                "gateways": chance.sample(gateways, chance.randint(1, len(gateways))),
            },
            names,
        )
        for number in range(chance.choice((1, 2, 3)))
    ]
    return [*roots, *delegates]


def virtual_service(
    chance: random.Random, name: str, namespace: str, spec: Written, delegates: tuple[str, ...]
) -> Written:
    count = chance.choice((1, 3, 5))
    routes = [route(chance, f"{name}r{place}", delegates) for place in range(count)]
    meta = {"name": name, "namespace": namespace}
    return {"kind": "VirtualService", "metadata": meta, "spec": {**spec, "http": routes}}


def route(chance: random.Random, name: str, delegates: tuple[str, ...]) -> Written:
    matches = [
        {**match(chance), "name": f"{name}m{place}"}
        for place in range(chance.choice((0, 1, 1, 2, 2)))
    ]
    made: Written = {"name": name, **({"match": matches} if matches else {})}
    if chance.random() < 0.25:
        made["corsPolicy"] = cors(chance)
    if chance.random() < 0.25:
        made["headers"] = {"request": changes(chance)}
    if delegates and chance.random() < 0.4:
        made["delegate"] = {"name": chance.choice(delegates), "namespace": "default"}
        return {**made, **beside(chance)}
    kind = chance.choice(("forward", "forward", "redirect", "answer"))
    if kind == "redirect":
        return {**made, "redirect": redirect(chance)}
    if kind == "answer":
        status, text = chance.choice((200, 418, 503)), chance.choice(("", "x"))
        return {**made, "directResponse": {"status": status, "body": {"string": text}}}
    return {**made, **forwarding(chance), **beside(chance)}


def forwarding(chance: random.Random) -> Written:
    places: list[Written] = [
        {
            "destination": {"host": host, "port": {"number": 80}},
            "weight": chance.choice((0, 1, 3, 50)),
        }
        for host in chance.sample(UPSTREAMS, chance.choice((1, 2, 3)))
    ]
    for place in places:
        if chance.random() < 0.3:
            place["headers"] = {"request": changes(chance)}
    made: Written = {"route": places}
    if chance.random() < 0.4:
        made["rewrite"] = rewrite(chance)
    return made


def changes(chance: random.Random) -> Written:
    """Return operations on headers of requests, maybe on the host."""
    made: Written = {}
    if chance.random() < 0.6:
        made["set"] = {chance.choice(NAMES): chance.choice((*VALUES, "100%"))}
    if chance.random() < 0.2:
        made.setdefault("set", {})["host"] = chance.choice(
            ("by-headers.test", "by-headers.test:99")
        )
    if chance.random() < 0.4:
        made["add"] = {chance.choice(NAMES): chance.choice(VALUES)}
    if chance.random() < 0.4:
        made["remove"] = [chance.choice(NAMES)]
    return made


def beside(chance: random.Random) -> Written:
    """Return what a route may do beside forwarding: faults and copies."""
    made: Written = {}
    if chance.random() < 0.2:
        made["fault"] = fault(chance)
    if chance.random() < 0.1:
        made["mirror"] = {"host": chance.choice(UPSTREAMS), "port": {"number": 80}}
        if chance.random() < 0.6:
            made["mirrorPercentage"] = {"value": chance.choice(PERCENTAGES)}
    elif chance.random() < 0.15:
        made["mirrors"] = [
            {
                "destination": {"host": chance.choice(UPSTREAMS), "port": {"number": 80}},
                **share(chance),
            }
            for _ in range(chance.choice((1, 2)))
        ]
    return made


def fault(chance: random.Random) -> Written:
    made: Written = {}
    if chance.random() < 0.4:
        made["delay"] = {"fixedDelay": "0.001s", **share(chance)}
    if chance.random() < 0.7 or not made:
        how: Written = {"httpStatus": chance.choice((200, 429, 503, 555))}
        if chance.random() < 0.4:
            how = {"grpcStatus": chance.choice(("OK", "UNAVAILABLE", "NOT_FOUND"))}
        made["abort"] = {**how, **share(chance)}
    return made


def share(chance: random.Random) -> Written:
    if chance.random() < 0.2:
        return {}
    return {"percentage": {"value": chance.choice(PERCENTAGES)}}


def cors(chance: random.Random) -> Written:
    origins = [{"exact": "*"}, {"prefix": ""}, {"prefix": "http:"}, {"regex": "https://[ab].test"}]
    origins += [{"exact": origin} for origin in ORIGINS[:2]] + [{"regex": "."}, {"regex": "[^:]+"}]
    made: Written = {"allowOrigins": chance.sample(origins, chance.choice((0, 1, 1, 2)))}
    for field, values in (
        ("allowMethods", ["GET", "PUT"]),
        ("allowHeaders", ["x-a", "*"]),
        ("exposeHeaders", ["x-b"]),
        ("maxAge", "60s"),
        ("allowCredentials", chance.random() < 0.5),
        ("unmatchedPreflights", chance.choice(("UNSPECIFIED", "FORWARD", "IGNORE", "IGNORE"))),
    ):
        if chance.random() < 0.5:
            made[field] = values
    return made


def rewrite(chance: random.Random) -> Written:
    made: Written = {}
    if chance.random() < 0.5:
        made["authority"] = chance.choice(("inner.test", "inner.test:99", "inner.test."))
    if chance.random() < 0.3:
        pattern, text = chance.choice(REGEX_REWRITES)
        made["uriRegexRewrite"] = {"match": pattern, "rewrite": text}
    elif chance.random() < 0.7 or not made:
        made["uri"] = chance.choice(("/", "/v2", "/v2/", "/a%20b"))
    return made


def redirect(chance: random.Random) -> Written:
    made: Written = {"redirectCode": chance.choice((301, 302, 307))}
    path = chance.random()
    if path < 0.4:
        made["uri"] = chance.choice(("/elsewhere", "/elsewhere?own=1"))
    elif path < 0.7:
        made["prefixRewrite"] = chance.choice(("/", "/new", "/new/"))
    if chance.random() < 0.4:
        made["authority"] = chance.choice(("to.test", "to.test:99"))
    if chance.random() < 0.4:
        made["scheme"] = chance.choice(("http", "https"))
    if chance.random() < 0.3:
        made["port"] = chance.choice((80, 443, 8080))
    elif chance.random() < 0.3:
        made["derivePort"] = chance.choice(("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"))
    return made


def match(chance: random.Random) -> Written:
    made: Written = {}
    if chance.random() < 0.6:
        made["uri"] = text_match(chance, PATHS)
        made["ignoreUriCase"] = chance.random() < 0.3
    for field in ("headers", "withoutHeaders", "queryParams"):
        if chance.random() < 0.25:
            wanted = text_match(chance, VALUES) if chance.random() < 0.8 else {}
            made[field] = {chance.choice(NAMES): wanted}
    if chance.random() < 0.15:
        made["method"] = {"exact": chance.choice(("GET", "POST"))}
    if chance.random() < 0.15:
        made["authority"] = text_match(chance, ("a.test", "A.TEST", "b"))
    if chance.random() < 0.1:
        made["scheme"] = {"exact": chance.choice(("http", "https"))}
    if chance.random() < 0.1:
        made["port"] = chance.choice((80, 81))
    return made


def text_match(chance: random.Random, values: tuple[str, ...]) -> Written:
    kind = chance.choice(("exact", "prefix", "regex", "regex"))
    if kind == "regex":
        return {kind: chance.choice((".*", "1.*", "/a.*", "[a-z]+", "/[ab]/?", "(?i)/a"))}
    return {kind: chance.choice(values)}


def request(chance: random.Random, case: Case) -> Request:
    query = "&".join(
        chance.choice((f"{chance.choice(NAMES)}={value}", chance.choice(NAMES), "x-a=%31", "="))
        for value in chance.choices(("", "1", "12", "a+b", "abc"), k=chance.choice((0, 1, 2)))
    )
    hosts = ("a.test", "A.Test", "b.test:80", "x.b.test", "c.test.", "svc", "else", "a.test:443")
    names = NAMES if case.is_gateways else (*NAMES, "x-forwarded-proto")
    further = (
        ("origin", chance.choice(ORIGINS), 0.4),
        ("access-control-request-method", chance.choice(("PUT", "")), 0.4),
        ("content-type", chance.choice(("application/grpc", "application/grpc+json", "a/b")), 0.2),
    )
    is_preflight = chance.random() < 0.15
    asked = Request(
        host=chance.choice(hosts),
        path=chance.choice(ODD_PATHS) + (f"?{query}" if query else ""),
        method="OPTIONS" if is_preflight else chance.choice(("GET", "POST", "PUT", "OPTIONS")),
        headers=(
            *(
                (chance.choice((name, name.lower())), value)
                for name in names
                for value in chance.choices((*VALUES, "https"), k=chance.choice((0, 0, 0, 1, 1, 2)))
            ),
            *((name, value) for name, value, likely in further if chance.random() < likely),
            *((("access-control-request-method", "PUT"),) if is_preflight else ()),
        ),
        scheme=case.scheme,
        destination=case.destination,
    )
    return asked if case.is_gateways else claimed(asked)
