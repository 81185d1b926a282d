"""AuthorizationPolicies and requests by chance, of few values, so that they meet."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from meshd.api.authorization_policy.types import (
    AuthorizationPolicy,
    AuthorizationPolicySpec,
    Condition,
    From,
    Operation,
    Rule,
    Source,
    To,
)
from meshd.api.base import ObjectMeta, WorkloadSelector
from meshd.matching.request import Request

TRUST_DOMAIN: Final = "mesh.test"
ROOT: Final = "istio-system"
PORT: Final = 8080
PRINCIPALS: Final = (
    "cluster.local/ns/shop/sa/web",
    "mesh.test/ns/shop/sa/db",
    "mesh.test/ns/back*",
    "*/sa/web",
    "*",
    "other.test/ns/shop/sa/web",
)
NAMESPACES: Final = ("shop", "back", "sh*", "*op", "*", "s.op")
ACCOUNTS: Final = ("shop/web", "web", "back/db")
NETWORKS: Final = (
    "198.18.0.0/16",
    "198.18.1.1",
    "198.18.1.0/31",
    "fd00:198::/32",
    "203.0.113.7/32",
)
PEERS: Final = (
    "",
    "spiffe://mesh.test/ns/shop/sa/web",
    "spiffe://mesh.test/ns/shop/sa/db",
    "spiffe://mesh.test/ns/back/sa/web",
    "spiffe://mesh.test/ns/backend/sa/db",
)
CLIENTS: Final = ("198.18.1.1", "198.18.1.2", "198.18.9.9", "fd00:198::7")
SERVERS: Final = ("198.18.2.1", "198.18.1.1")
HOSTS: Final = ("a.test", "*.test", "A.*", "b.test:80", "*", "b.test:*")
ASKED_HOSTS: Final = ("a.test", "A.Test", "b.test", "b.test:80", "c.a.test", "b.test.", "x")
NO_HOSTS: Final = ("a.test..", "b.test,a.test", "me@a.test", "b.test..:80")
METHODS: Final = ("GET", "POST", "P*", "*", "*T")
ASKED_METHODS: Final = ("GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS")
PATHS: Final = (
    "/",
    "/admin",
    "/admin*",
    "*.php",
    "*",
    "/a/{*}/c",
    "/a/{**}",
    "/{*}/b/{**}",
    "/a.b",
    "/A",
)
ASKED_PATHS: Final = (
    "/",
    "/admin",
    "/Admin",
    "/admin/",
    "/admin?x=1",
    "/?/admin",
    "//admin",
    "/./admin",
    "/x/../admin",
    "/%61dmin",
    "/%2e/admin",
    "/admin%2F",
    "/admin;x",
    "/x\\..\\admin",
    "/a/b/c",
    "/a//c",
    "/a/",
    "/a",
    "/a/b",
    "/x/b/y/z",
    "/axb",
    "/a.b",
    "/i.php",
    "/i.php?q",
)
HEADERS: Final = ("x-user", "X-Role", "host", "x-none")
VALUES: Final = ("admin", "ad*", "*min", "*", "a,b", "")
ASKED_VALUES: Final = ("admin", "adam", "domin", "Admin", "a")
PORTS: Final = ("8080", "9000", "80")
NAMES: Final = ("a.test", "*.test", "a*", "*")
ASKED_NAMES: Final = ("", "a.test", "b.test", "c")


class Case(NamedTuple):
    """A connection, and the requests that are made in it."""

    peer: str
    client: str
    server: str
    port: int
    server_name: str
    requests: tuple[Request, ...]


def policies(chance: random.Random, labels: dict[str, str]) -> tuple[AuthorizationPolicy, ...]:
    """Return policies, of which most are about a workload of ``shop`` with these labels."""
    return tuple(policy(chance, number, labels) for number in range(chance.randint(1, 4)))


def policy(chance: random.Random, number: int, labels: dict[str, str]) -> AuthorizationPolicy:
    selector = chance.choice([None, WorkloadSelector(match_labels=labels)])
    if chance.random() < 0.1:
        selector = WorkloadSelector(match_labels={"app": "other"})
    action: Any = chance.choice(["ALLOW", "ALLOW", "DENY", "DENY", "AUDIT"])
    rules = tuple(rule(chance) for _ in range(chance.randint(0, 3)))
    return AuthorizationPolicy(
        metadata=ObjectMeta(name=f"p{number}", namespace=chance.choice(["shop", "shop", ROOT])),
        spec=AuthorizationPolicySpec(
            selector=selector,
            action=action,
            rules=rules or (None if action == "ALLOW" else (Rule(),)),
        ),
    )


def rule(chance: random.Random) -> Rule:
    def times() -> range:
        return range(chance.choice([0, 0, 1, 1, 2]))

    return Rule(
        from_=tuple(From(source=source(chance)) for _ in times()) or None,
        to=tuple(To(operation=operation(chance)) for _ in times()) or None,
        when=tuple(condition(chance) for _ in times()) or None,
    )


def some(chance: random.Random, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(chance.sample([one for one in values if one], chance.randint(1, 2)))


def fields(chance: random.Random, known: dict[str, Sequence[str]]) -> dict[str, Any]:
    chosen = chance.sample(sorted(known), min(len(known), chance.choice([1, 1, 2])))
    return {
        (f"not_{name}" if chance.random() < 0.3 else name): some(chance, known[name])
        for name in chosen
    }


def source(chance: random.Random) -> Source:
    if chance.random() < 0.15:
        return Source(service_accounts=some(chance, ACCOUNTS))
    known: dict[str, Sequence[str]] = {
        "principals": PRINCIPALS,
        "namespaces": NAMESPACES,
        "ip_blocks": NETWORKS,
        "remote_ip_blocks": NETWORKS,
    }
    return Source(**fields(chance, known))


def operation(chance: random.Random) -> Operation:
    known: dict[str, Sequence[str]] = {
        "hosts": HOSTS,
        "ports": PORTS,
        "methods": METHODS,
        "paths": PATHS,
    }
    return Operation(**fields(chance, known))


def condition(chance: random.Random) -> Condition:
    known: dict[str, Sequence[str]] = {
        "source.ip": NETWORKS,
        "remote.ip": NETWORKS,
        "destination.ip": NETWORKS,
        "source.namespace": NAMESPACES,
        "source.principal": PRINCIPALS,
        "destination.port": PORTS,
        "connection.sni": NAMES,
        **{f"request.headers[{name}]": VALUES for name in HEADERS},
    }
    key = chance.choice(sorted(known))
    given = fields(chance, {"values": known[key]})
    return Condition(key=key, **given)


def case(chance: random.Random, requests: int) -> Case:
    client = chance.choice(CLIENTS)
    return Case(
        peer=chance.choice(PEERS),
        client=client,
        server="fd00:198::9" if ":" in client else chance.choice(SERVERS),
        port=PORT if chance.random() < 0.6 else 9000,
        server_name=chance.choice(ASKED_NAMES),
        requests=tuple(request(chance) for _ in range(requests)),
    )


def request(chance: random.Random) -> Request:
    names = chance.sample([one for one in HEADERS if one != "host"], chance.randint(0, 2))
    headers = [(name, chance.choice(ASKED_VALUES)) for name in names]
    headers += [(name, "b") for name in names if chance.random() < 0.2]
    if chance.random() < 0.2:
        headers.append(("x-forwarded-for", chance.choice(["203.0.113.7", "198.18.1.1"])))
    return Request(
        host=chance.choice(ASKED_HOSTS if chance.random() < 0.9 else NO_HOSTS),
        path=chance.choice(ASKED_PATHS),
        method=chance.choice(ASKED_METHODS),
        headers=tuple(headers),
    )
