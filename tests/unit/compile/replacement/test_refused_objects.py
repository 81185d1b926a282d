"""An object with a value that proxies refuse is closed, and so costs no other object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from meshd.api.base import Object
from meshd.api.dispatch import check_fields, refused_by_proxies
from meshd.api.read import Read
from meshd.api.write import from_json
from meshd.api.yaml import Document
from meshd.base.json_values import JsonObject
from meshd.compile.compiled import Compiled
from meshd.compile.compiler import Compiler
from meshd.compile.replacement import refused_objects
from meshd.compile.replacement.isolation import Isolating
from meshd.compile.replacement.refused_objects import RefusedObjects
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.closed_rule import ClosedRule
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.registry.registry import build_snapshot

TO_A: dict[str, Any] = {"route": [{"destination": {"host": "a"}}]}
SENT: dict[str, dict[str, Any]] = {
    "redirect.uri": {"redirect": {"uri": "/a\n"}},
    "redirect.authority": {"redirect": {"authority": "a\n"}},
    "redirect.prefixRewrite": {"redirect": {"prefixRewrite": "/a\n"}},
    "rewrite.uri": TO_A | {"rewrite": {"uri": "/a\n"}},
    "rewrite.authority": TO_A | {"rewrite": {"authority": "a\n"}},
    "rewrite.uriRegexRewrite.rewrite": TO_A
    | {"rewrite": {"uriRegexRewrite": {"match": "a", "rewrite": "a\n"}}},
}


def made(kind: str, name: str, spec: dict[str, Any]) -> Object:
    value: JsonObject = {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }
    return from_json(value)


def snapshot(*objects: Object) -> Snapshot:
    return build_snapshot(objects, (), MeshOptions(), {})


GOOD = made("VirtualService", "good", {"hosts": ["a.test"], "http": [TO_A]})


def match(**wanted: Any) -> dict[str, Any]:
    return TO_A | {"match": [wanted]}


def policy(**settings: Any) -> dict[str, Any]:
    return {"host": "b.test", "trafficPolicy": settings}


LONG = "x" * 16_385
REGEX = {"regex": r"\x{100}"}
MEMBERS: dict[str, dict[str, Any]] = {
    "match[0].uri.regex": match(uri=REGEX),
    "match[0].headers.a.regex": match(headers={"a": {"regex": "("}}),
    "match[0].withoutHeaders.a.regex": match(withoutHeaders={"a": REGEX}),
    "match[0].withoutHeaders": match(withoutHeaders={"a\n": {"exact": "a"}}),
    "match[0].queryParams.a.regex": match(queryParams={"a": REGEX}),
    "match[0].authority.regex": match(authority=REGEX),
    "match[0].method.regex": match(method=REGEX),
    "match[0].scheme.regex": match(scheme={"regex": ""}),
    "match[0].queryParams": match(queryParams={"": {"exact": "a"}}),
    "match[0].queryParams ": match(queryParams={"a" * 1025: {"exact": "a"}}),
    "match[0].headers.": match(headers={"": {"exact": "a"}}),
    "corsPolicy.allowOrigins[0].regex": TO_A | {"corsPolicy": {"allowOrigins": [REGEX]}},
    "rewrite.uriRegexRewrite.match": TO_A
    | {"rewrite": {"uriRegexRewrite": {"match": r"\x{100}", "rewrite": "/"}}},
    "headers.request.set.a": TO_A | {"headers": {"request": {"set": {"a": LONG}}}},
    "headers.request.add.a": TO_A | {"headers": {"request": {"add": {"a": "%" * 8193}}}},
    "headers.response.set.a": TO_A | {"headers": {"response": {"set": {"a": "a\n"}}}},
    "headers.response.set.": TO_A | {"headers": {"response": {"set": {"": "a"}}}},
    "headers.request": TO_A
    | {"headers": {"request": {"set": {f"a-{number}": "a" for number in range(1001)}}}},
    "mirror.host": TO_A | {"mirror": {"host": "a\n"}},
    "directResponse.status": {"directResponse": {"status": 600}},
    "directResponse.body": {"directResponse": {"status": 200, "body": {"string": "a" * 1048577}}},
    "fault.abort.httpStatus": TO_A | {"fault": {"abort": {"httpStatus": 100}}},
}
"""By field a route that proxies refuse. A space at the end stands for another value of a field."""
OF_RULES: dict[str, dict[str, Any]] = {
    "tls.sni": policy(tls={"mode": "SIMPLE", "sni": "é" * 128}),
    "loadBalancer.consistentHash.httpHeaderName": policy(
        loadBalancer={"consistentHash": {"httpHeaderName": "a\n"}}
    ),
    "loadBalancer.consistentHash.httpCookie.name": policy(
        loadBalancer={"consistentHash": {"httpCookie": {"name": "", "ttl": "1s"}}}
    ),
    "loadBalancer.consistentHash.httpCookie.attributes[0].name": policy(
        loadBalancer={"consistentHash": {"httpCookie": {"name": "a", "attributes": [{"name": ""}]}}}
    ),
    "loadBalancer.consistentHash.httpCookie.attributes[0]": policy(
        loadBalancer={
            "consistentHash": {"httpCookie": {"name": "a", "attributes": [{"name": LONG}]}}
        }
    ),
    "loadBalancer.consistentHash.maglev.tableSize": policy(
        loadBalancer={"consistentHash": {"useSourceIp": True, "maglev": {"tableSize": 4}}}
    ),
    "loadBalancer.warmup.minimumPercent": policy(
        loadBalancer={"warmup": {"duration": "1s", "minimumPercent": 101}}
    ),
    "connectionPool.http.maxConcurrentStreams": policy(
        connectionPool={"http": {"maxConcurrentStreams": 2**31}}
    ),
    "connectionPool.http.http2KeepAlive.interval": policy(
        connectionPool={"http": {"http2KeepAlive": {"interval": "0s", "timeout": "1s"}}}
    ),
    "outlierDetection.maxEjectionPercent": policy(outlierDetection={"maxEjectionPercent": 101}),
    "outlierDetection.minHealthPercent": policy(outlierDetection={"minHealthPercent": 101}),
    "retryBudget.percent": policy(retryBudget={"percent": 101}),
}
"""By field a rule that proxies refuse."""
OBJECTS = (
    {
        f"spec.http[0].{field}": made(
            "VirtualService", "bad", {"hosts": ["b.test"], "http": [route]}
        )
        for field, route in (MEMBERS | SENT).items()
    }
    | {
        f"spec.trafficPolicy.{field}": made("DestinationRule", "bad", spec)
        for field, spec in OF_RULES.items()
    }
    | {"spec.hosts[1]": made("VirtualService", "bad", {"hosts": ["b.test", "a\n"], "http": [TO_A]})}
)


@pytest.mark.parametrize(("field", "bad"), OBJECTS.items(), ids=OBJECTS)
def test_what_proxies_refuse_is_closed_and_named_and_is_refused_when_it_is_new(
    field: str, bad: Object
) -> None:
    field = field.rstrip(" ")
    compiler: Isolating[Mapping[Pool, Compiled]] = Isolating(Compiler(), Compiler)
    before = snapshot(GOOD, bad)
    compiler.compile(before, ())
    (problem,) = compiler.problems
    assert problem.startswith(f"{bad.key} is closed: {field}: ")
    assert compiler.compiled is not None
    stands = (*compiler.compiled.virtual_services, *compiler.compiled.destination_rules)
    assert GOOD in stands
    (closed,) = (one for one in stands if one.key == bad.key)
    assert isinstance(closed, ClosedRoutes | ClosedRule)
    assert not list(refused_by_proxies(closed))
    errors = check_fields([Read(bad, Document("a.yaml", 1, None, {}))])
    assert field in {one.field for one in errors if one.severity == "error"}


def test_an_object_that_is_corrected_is_in_force_again() -> None:
    closing = RefusedObjects()
    bad = made(
        "VirtualService", "bad", {"hosts": ["b.test"], "http": [MEMBERS["match[0].uri.regex"]]}
    )
    assert closing.close(snapshot(GOOD, bad)) != snapshot(GOOD, bad)
    assert closing.problems
    before = snapshot(GOOD)
    assert closing.close(before) is before
    assert closing.problems == ()


def test_objects_that_were_judged_are_not_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Object] = []

    def judging(found: Object) -> Iterator[tuple[str, str]]:
        judged.append(found)
        return refused_by_proxies(found)

    monkeypatch.setattr(refused_objects, "refused_by_proxies", judging)
    closing = RefusedObjects()
    closing.close(snapshot(GOOD))
    other = made("VirtualService", "other", {"hosts": ["c.test"], "http": [TO_A]})
    closing.close(snapshot(GOOD, other))
    closing.close(snapshot(GOOD, other))
    RefusedObjects(closing).close(snapshot(GOOD, other))
    assert judged == [GOOD, other]


@pytest.mark.parametrize(
    "route",
    [
        TO_A | {"mirror": {"host": "a"}, "mirrors": [{"destination": {"host": "a"}}]},
        TO_A | {"timeout": "0s"},
        TO_A | {"fault": {"delay": {"fixedDelay": "0s"}}},
        match(headers={"a": {"prefix": ""}}),
        TO_A | {"headers": {"request": {"set": {"a": "%NO_SUCH%"}}}},
        match(uri={"prefix": ""}),
    ],
    ids=["mirrors", "timeout", "delay", "prefix", "variable", "every path"],
)
def test_an_invalid_object_that_harms_no_other_stays_in_force(route: dict[str, Any]) -> None:
    wrong = made("VirtualService", "a", {"hosts": ["b.test"], "http": [route]})
    before = snapshot(GOOD, wrong)
    assert RefusedObjects().close(before) is before


def test_texts_that_are_in_no_request_stay_in_force() -> None:
    named = made("VirtualService", "a", {"hosts": ["b.test"], "http": [TO_A | {"name": "a\n"}]})
    before = snapshot(GOOD, named)
    closing = RefusedObjects()
    assert closing.close(before) is before
    assert closing.problems == ()


POLICIES: dict[str, dict[str, Any]] = {
    "rules[0].to[0].operation.paths[0]": {
        "rules": [{"to": [{"operation": {"paths": ["/{*}/" + "x" * 40_000]}}]}]
    },
    "rules[0].to[0].operation.notPaths[0]": {
        "rules": [{"to": [{"operation": {"notPaths": ["/{*}/" + "/{*}" * 300]}}]}]
    },
    "rules[0].from[0].source.namespaces[0]": {
        "rules": [{"from": [{"source": {"namespaces": ["x" * 40_000]}}]}]
    },
    "rules[0].from[0].source.notNamespaces[0]": {
        "rules": [{"from": [{"source": {"notNamespaces": ["x" * 64]}}]}]
    },
    "rules[0].when[0].values[0]": {
        "rules": [{"when": [{"key": "source.namespace", "values": ["x" * 64 + "*"]}]}]
    },
    "rules[0].from[0].source.ipBlocks[0]": {
        "rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/33"]}}]}]
    },
    "rules[0].to[0].operation.ports[0]": {"rules": [{"to": [{"operation": {"ports": ["http"]}}]}]},
    "rules[0].when[0]": {"rules": [{"when": [{"key": "source.ip"}]}]},
    "rules[0].when[0].key": {
        "rules": [{"when": [{"key": "request.headers[a b]", "values": ["*"]}]}]
    },
    "rules[0].from[0].source": {"rules": [{"from": [{"source": {}}]}]},
    "rules[0].from": {"rules": [{"from": []}]},
}
"""By field a policy that proxies refuse, that nobody can print, or that would open something."""


@pytest.mark.parametrize(("field", "spec"), POLICIES.items(), ids=POLICIES)
def test_a_policy_with_an_error_denies_everything_to_the_workloads_that_it_selects(
    field: str, spec: dict[str, Any]
) -> None:
    selector = {"matchLabels": {"app": "a"}}
    bad = policy_of("bad", spec | {"selector": selector})
    good = policy_of("good", {"rules": [{}]})
    compiler: Isolating[Mapping[Pool, Compiled]] = Isolating(Compiler(), Compiler)
    compiler.compile(snapshot(good, bad), ())
    (problem,) = compiler.problems
    assert problem.startswith(f"{bad.key} is closed: spec.{field}: ")
    assert compiler.compiled is not None
    denying = policy_of("bad", {"selector": selector, "action": "DENY", "rules": [{}]})
    assert set(map(str, compiler.compiled.authorization_policies)) == {str(good), str(denying)}
    errors = check_fields([Read(bad, Document("a.yaml", 1, None, {}))])
    assert f"spec.{field}" in {one.field for one in errors if one.severity == "error"}


def policy_of(name: str, spec: dict[str, Any]) -> Object:
    value: JsonObject = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }
    return from_json(value)
