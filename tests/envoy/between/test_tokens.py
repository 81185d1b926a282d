"""Tokens of end users are read where a request arrives, on whatever way it comes: over mutual TLS,
in plaintext, where the options allow the short way, and through a gateway.

Clients, server and gateway are in namespaces of their own.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from meshd.supervisor.lines import read
from tests import tokens
from tests.envoy.between import http2
from tests.envoy.between.application import Application
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import Answer, Mesh, answer, headers
from tests.envoy.between.test_authorization import NAMES, load, policy
from tests.envoy.between.test_authorization_changes import CHANGES, Asking
from tests.tokens import HOUR, ISSUER, Key
from tests.waiting import eventually

KEY = Key("one", "ES256")
RSA = Key("two", "RS256")
EDWARDS = Key("three", "EdDSA")
STRANGER = Key("stranger", "ES256")
KEYS = tokens.key_set(KEY, RSA, EDWARDS)
RULE = {"issuer": ISSUER, "jwks": KEYS}
CALLERS = ("client", "edge", "outside")


def authentication(
    *rules: dict[str, Any], namespace: str = "servers", name: str = "t", **spec: Any
) -> str:
    value = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"jwtRules": list(rules), **spec},
    }
    return f"\n---\n{json.dumps(value)}\n"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("tokens"), NAMES) as made:
        load(made)
        for name in ("client", "other", "server"):
            made.capture(name)
        yield made


@pytest.fixture(scope="module", autouse=True)
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080, 7000), (9000, 7001))
    yield made
    made.close()


def ask(mesh: Mesh, caller: str, *lines: str, path: str = "/", port: int = 8080) -> Answer:
    """``outside``: a client without a certificate; ``edge``: it comes through the gateway."""
    request = "\n".join((f"GET {path} HTTP/1.1", "host: server.test", *lines))
    if caller == "edge":
        return mesh.outside.ask(mesh.hosts["gateway"].address, 80, request)
    if caller == "outside":
        return mesh.outside.ask(mesh.hosts["server"].address, port, request)
    return mesh.hosts[caller].ask(ADDRESS, port, request)


def bearer(key: Key | None = KEY, **claims: Any) -> str:
    return f"authorization: Bearer {tokens.token(key, **claims)}"


def now() -> int:
    return int(time.time())


@pytest.mark.parametrize("short_way", [False, True])
@pytest.mark.parametrize("caller", CALLERS)
def test_a_request_passes_without_a_token_or_with_a_valid_one(
    mesh: Mesh, caller: str, short_way: bool
) -> None:
    load(mesh, authentication(RULE), short_way=short_way)
    for lines in ((), (bearer(),), (bearer(RSA),), (bearer(EDWARDS),), ("authorization: Basic x",)):
        assert ask(mesh, caller, *lines).status == 200, lines
    refused = ask(mesh, caller, bearer(STRANGER))
    assert refused.status == 401
    assert refused.headers["www-authenticate"] == (
        'Bearer realm="http://server.test/", error="invalid_token"'
    )
    assert ask(mesh, caller, "authorization: Bearer x").status == 401


def for_a(key: Key | None = KEY, **given: Any) -> str:
    return bearer(key, **{"aud": "a"} | given)


WRONG: list[tuple[str, int, str]] = [
    (for_a(None), 401, "Jwt is not in the form of Header.Payload.Signature"),
    (for_a(None) + "AAAA", 401, "Jwt header [alg] is not supported"),
    (for_a(KEY, header={"alg": "HS256"}), 401, "Jwks doesn't have key to match"),
    (for_a(KEY, header={"alg": "RS256"}), 401, "Jwks doesn't have key to match"),
    (for_a(STRANGER, header={"kid": "one"}), 401, "Jwt verification fails"),
    (for_a(STRANGER), 401, "Jwks doesn't have key to match"),
    (for_a(exp=now() - HOUR), 401, "Jwt is expired"),
    (for_a(nbf=now() + HOUR), 401, "Jwt not yet valid"),
    (for_a(iss="https://other.test"), 401, "Jwt issuer is not configured"),
    (for_a(iss=None), 401, "Jwt issuer is not configured"),
    (for_a(aud="b"), 403, "Audiences in Jwt are not allowed"),
    (for_a(aud=None), 403, "Audiences in Jwt are not allowed"),
    (for_a()[:-4] + "AAAA", 401, "Jwt verification fails"),
    (f"{for_a()}.x", 401, "Jwt is not in the form of Header.Payload.Signature"),
]


@pytest.mark.parametrize(("line", "status", "body"), WRONG)
def test_a_request_with_another_token_is_refused(
    mesh: Mesh, line: str, status: int, body: str
) -> None:
    load(mesh, authentication({**RULE, "audiences": ["a", "https://c.test/"]}))
    for good in ("a", ["x", "a"], "c.test"):
        assert ask(mesh, "client", bearer(aud=good)).status == 200
    found = ask(mesh, "client", line)
    assert (found.status, found.body[: len(body)]) == (status, body)


def test_clocks_may_differ_by_a_minute(mesh: Mesh) -> None:
    load(mesh, authentication(RULE))
    assert ask(mesh, "client", bearer(exp=now() - 20, nbf=now() + 20)).status == 200


def test_tokens_are_read_where_the_rule_says(mesh: Mesh, application: Application) -> None:
    places = {
        "fromHeaders": [{"name": "x-jwt", "prefix": "JWT "}, {"name": "x-plain"}],
        "fromParams": ["token"],
        "fromCookies": ["session"],
    }
    good, bad = tokens.token(KEY), tokens.token(STRANGER)
    load(mesh, authentication({**RULE, **places}))
    for place in ("x-jwt: JWT {}", "x-plain: {}", "cookie: a=b; session={}"):
        assert ask(mesh, "client", place.format(good)).status == 200, place
        assert ask(mesh, "client", place.format(bad)).status == 401, place
    assert ask(mesh, "client", path=f"/?a=b&token={good}").status == 200
    assert ask(mesh, "client", path=f"/?token={bad}").status == 401
    assert ask(mesh, "client", f"authorization: Bearer {bad}").status == 200
    assert good not in "".join(application.heads[-5:]).replace(f"session={good}", "")


@pytest.mark.parametrize("keeps", [False, True])
def test_the_application_reads_what_the_rule_lets_it(mesh: Mesh, keeps: bool) -> None:
    rule = {
        **RULE,
        "forwardOriginalToken": keeps,
        "outputPayloadToHeader": "x-payload",
        "outputClaimToHeaders": [
            {"header": "x-group", "claim": "org.group"},
            {"header": "x-none", "claim": "none"},
        ],
    }
    load(mesh, authentication(rule))
    forged = ("x-payload: forged", "x-group: forged", "X-None: forged", "x-other: kept")
    forged += ("x_group: forged", "x_payload: forged")
    line = bearer(org={"group": "admin"})
    found = ask(mesh, "client", line, *forged)
    seen = headers(found.body)
    assert "forged" not in found.body
    assert seen["x-group"] == ["admin"]
    assert seen["x-payload"] == [line.split(".")[1]]
    assert ("authorization" in seen, seen["x-other"], "x-none" in seen) == (keeps, ["kept"], False)
    for lines in ((), ("origin: a.test", "access-control-request-method: PUT")):
        request = "\n".join(("OPTIONS / HTTP/1.1", "host: server.test", *forged, *lines))
        body = mesh.hosts["client"].ask(ADDRESS, 8080, request).body
        assert "forged" not in body, lines
        assert headers(body)["x-other"] == ["kept"]


def test_several_issuers_are_believed_each_by_its_own_keys(mesh: Mesh) -> None:
    other = {"issuer": "other", "jwks": tokens.key_set(STRANGER)}
    written = {"outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}]}
    apart = authentication({**other, **written}, name="u", namespace="istio-system")
    for found in ((authentication(RULE, {**other, **written}),), (authentication(RULE), apart)):
        load(mesh, *found)
        assert ask(mesh, "client", bearer(), "x-sub: forged").status == 200
        assert "forged" not in ask(mesh, "client", bearer(), "x-sub: forged").body
        assert ask(mesh, "client", bearer(STRANGER, iss="other")).status == 200
        assert ask(mesh, "client", bearer(KEY, iss="other")).status == 401
        assert ask(mesh, "client", bearer(STRANGER)).status == 401
        assert ask(mesh, "client").status == 200


def test_only_the_workloads_that_are_selected_read_tokens(mesh: Mesh) -> None:
    cases: list[tuple[dict[str, Any], int]] = [
        ({"selector": {"matchLabels": {"app": "server"}}}, 401),
        ({"selector": {"matchLabels": {"app": "else"}}}, 200),
        ({"namespace": "clients"}, 200),
        ({"namespace": "istio-system"}, 401),
    ]
    for spec, expected in cases:
        load(mesh, authentication(RULE, **spec))
        assert ask(mesh, "client", bearer(STRANGER)).status == expected, spec


def test_without_keys_no_token_is_believed_and_requests_without_one_pass(mesh: Mesh) -> None:
    load(mesh, authentication({"issuer": ISSUER, "jwksUri": "https://issuer.test/keys"}))
    assert ask(mesh, "client", bearer()).status == 401
    assert ask(mesh, "client").status == 200


def test_connections_that_are_not_http_have_no_tokens(mesh: Mesh) -> None:
    load(mesh, authentication(RULE))
    with mesh.hosts["client"].connect(ADDRESS, 9000) as connection:
        assert connection.makefile("rb").readline().startswith(b"220")
    assert ask(mesh, "client", bearer(STRANGER), port=7000).status == 401
    assert ask(mesh, "client", bearer(), port=7000).status == 200


def test_http2_is_read_as_well(mesh: Mesh) -> None:
    load(mesh, authentication(RULE))
    for sent, word in ((tokens.token(KEY), b"GET /two"), (tokens.token(STRANGER), b"Jwks")):
        with mesh.hosts["client"].connect(ADDRESS, 8080) as connection:
            connection.sendall(http2.request(f"/two?access_token={sent}".encode()))
            data = b""
            while word not in data:
                more = connection.recv(65536)
                assert more, data
                data += more


def test_a_change_of_keys_or_rules_holds_for_the_next_request_of_an_open_connection(
    mesh: Mesh,
) -> None:
    """The proxy would announce in an answer that it closes the connection."""
    load(mesh)
    for host, address, port in (
        (mesh.hosts["client"], ADDRESS, 8080),
        (mesh.outside, mesh.hosts["gateway"].address, 80),
    ):
        with host.connect(address, port) as connection:
            for found, expected in (
                ("", 200),
                (authentication(RULE), 200),
                (authentication({**RULE, "jwks": tokens.key_set(STRANGER)}), 401),
                (authentication({**RULE, "issuer": "other"}), 401),
                (authentication(RULE), 200),
                (authentication({**RULE, "fromHeaders": [{"name": "x-jwt"}]}), 200),
                ("", 200),
            ):
                load(mesh, found, found.replace('"servers"', '"gateways"'))
                seen = answer(connection, f"GET / HTTP/1.1\nhost: server.test\n{bearer()}")
                assert (seen.status, seen.headers.get("connection")) == (expected, None), found


SETS = (
    authentication(RULE),
    authentication({**RULE, "jwks": tokens.key_set(KEY)}),
    authentication({**RULE, "audiences": ["a", "b"]}),
    authentication({**RULE, "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}]}),
    authentication(RULE, {"issuer": "other", "jwks": tokens.key_set(STRANGER)}),
    authentication(RULE, namespace="istio-system", name="u"),
)
"""Each believes the one token, and not the other, which its policy denies."""


def test_while_keys_and_rules_change_no_valid_token_is_refused_and_no_other_passes(
    mesh: Mesh,
) -> None:
    chance = random.Random("tokens")  # noqa: S311
    asks = policy("{rules: [{from: [{source: {requestPrincipals: ['*/ann']}}]}]}")
    load(mesh, SETS[0], asks)

    def ask_again(line: str, each: int) -> Iterator[str]:
        request = "\n".join(("GET / HTTP/1.1", "host: server.test", *([line] if line else [])))
        with mesh.hosts["client"].connect(ADDRESS, 8080) as connection:
            for _ in range(each):
                yield str(answer(connection, request).status)

    lines = {"valid": bearer(aud=["a"]), "wrong": bearer(STRANGER, aud=["a"]), "none": ""}
    asking = Asking()
    for name, line in lines.items():
        for each in (1, 10_000):
            asking.ask(name, lambda line=line, each=each: ask_again(line, each))
    with asking:
        for _ in range(CHANGES):
            load(mesh, chance.choice(SETS), asks)
    told = {name: {status for one, status in asking.found if one == name} for name in lines}
    assert told == {"valid": {"200"}, "wrong": {"401"}, "none": {"403"}}, asking.found


ANN = "{requestPrincipals: ['https://issuer.test/ann']}"
CASES: list[tuple[str, dict[str, Any] | None, int]] = [
    (f"{{rules: [{{from: [{{source: {ANN}}}]}}]}}", {}, 200),
    (f"{{rules: [{{from: [{{source: {ANN}}}]}}]}}", {"sub": "bob"}, 403),
    (f"{{rules: [{{from: [{{source: {ANN}}}]}}]}}", None, 403),
    ("{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}", {}, 200),
    ("{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}", {"sub": None}, 403),
    ("{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}", None, 403),
    (
        "{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}",
        {"sub": "a\nb"},
        200,
    ),
    ("{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}", None, 403),
    (
        "{rules: [{when: [{key: 'request.auth.claims[groups]', values: [b]}]}]}",
        {"groups": "b"},
        200,
    ),
    (
        "{rules: [{when: [{key: 'request.auth.claims[groups]', values: [b]}]}]}",
        {"groups": ["a", "b"]},
        200,
    ),
    (
        "{rules: [{when: [{key: 'request.auth.claims[groups]', values: [b]}]}]}",
        {"groups": "a b"},
        403,
    ),
    (
        "{rules: [{when: [{key: 'request.auth.claims[scope]', values: [b]}]}]}",
        {"scope": "a b"},
        200,
    ),
    (
        "{rules: [{when: [{key: 'request.auth.claims[roles]', values: [b]}]}]}",
        {"roles": "a b"},
        200,
    ),
    (
        "{rules: [{when: [{key: 'request.auth.claims[a][b.c]', values: ['x*']}]}]}",
        {"a": {"b.c": "xyz"}},
        200,
    ),
    ("{rules: [{when: [{key: 'request.auth.claims[a][b]', values: [x]}]}]}", {"a": "x"}, 403),
    (
        "{action: DENY, rules: [{when: [{key: 'request.auth.claims[a]', notValues: [x]}]}]}",
        {"a": "x"},
        200,
    ),
    (
        "{action: DENY, rules: [{when: [{key: 'request.auth.claims[a]', notValues: [x]}]}]}",
        None,
        403,
    ),
    ("{rules: [{when: [{key: request.auth.audiences, values: [a]}]}]}", {"aud": ["a"]}, 200),
    ("{rules: [{when: [{key: request.auth.presenter, values: [a]}]}]}", {"azp": "a"}, 200),
    ("{rules: [{when: [{key: request.auth.principal, values: ['*/ann']}]}]}", {}, 200),
]


@pytest.mark.parametrize(("spec", "claims", "expected"), CASES)
def test_policies_ask_for_what_tokens_say(
    mesh: Mesh, spec: str, claims: dict[str, Any] | None, expected: int
) -> None:
    load(mesh, authentication({**RULE, "spaceDelimitedClaims": ["roles"]}), policy(spec))
    lines = () if claims is None else (bearer(**claims),)
    assert {caller: ask(mesh, caller, *lines).status for caller in CALLERS} == dict.fromkeys(
        CALLERS, expected
    )


def test_gateways_read_tokens_of_their_own(mesh: Mesh, application: Application) -> None:
    asks = policy(
        "{selector: {matchLabels: {role: edge}}, action: DENY,"
        " rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}",
        "gateways",
    )
    load(mesh, authentication(RULE, namespace="gateways"), asks)
    assert ask(mesh, "edge", bearer()).status == 200
    assert "authorization" not in application.heads[-1].lower()
    assert ask(mesh, "edge").status == 403
    assert ask(mesh, "edge", bearer(STRANGER)).status == 401
    assert ask(mesh, "client", bearer(STRANGER)).status == 200


ROUTES = """
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: claims, namespace: gateways}
spec:
  selector: {role: edge}
  servers: [{port: {number: 82, name: http, protocol: HTTP}, hosts: [claims.test, only.test]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: claims, namespace: gateways}
spec:
  hosts: [claims.test]
  gateways: [claims]
  http:
  - match: [{headers: {"@request.auth.claims.group": {exact: admin}}}]
    directResponse: {status: 201}
  - match: [{headers: {"@request.auth.claims[org][roles]": {prefix: wri}}}]
    directResponse: {status: 202}
  - match: [{headers: {"@Request.Auth.Claims.email": {}}}]
    directResponse: {status: 203}
  - match: [{withoutHeaders: {"@request.auth.claims.sub": {exact: ann}}}]
    directResponse: {status: 204}
  - {directResponse: {status: 205}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: only, namespace: gateways}
spec:
  hosts: [only.test]
  gateways: [claims]
  http:
  - match: [{headers: {"@request.auth.claims.group": {regex: a.*}}}]
    directResponse: {status: 201}
"""


def test_gateways_choose_routes_by_claims(mesh: Mesh) -> None:
    """Also before anything else is known of a request than that it has a token."""

    def at(host: str, *lines: str) -> int:
        request = "\n".join(("GET / HTTP/1.1", f"host: {host}", *lines))
        return mesh.outside.ask(mesh.hosts["gateway"].address, 82, request).status

    load(mesh, ROUTES, authentication(RULE, namespace="gateways"))
    cases: list[tuple[dict[str, Any], int]] = [
        ({"group": "admin"}, 201),
        ({"group": ["x", "admin"]}, 201),
        ({"group": "other", "org": {"roles": ["read", "write"]}}, 202),
        ({"email": "a@b.test"}, 203),
        ({"sub": "bob"}, 204),
        ({}, 205),
    ]
    assert [at("claims.test", bearer(**claims)) for claims, _ in cases] == [
        status for _, status in cases
    ]
    assert at("claims.test") == 204
    assert at("claims.test", bearer(STRANGER, group="admin")) == 401
    forged = ("@request.auth.claims.group: admin", "request.auth.claims.group: admin")
    assert at("claims.test", forged[1]) == 204
    assert (at("only.test", bearer(group="a")), at("only.test", bearer())) == (201, 404)
    assert at("only.test") == 404
    load(mesh, ROUTES)
    assert at("claims.test", bearer(group="admin")) == 204


def test_a_refused_token_is_logged_by_what_is_wrong_with_it(mesh: Mesh) -> None:
    load(mesh, authentication(RULE, {"issuer": "other", "jwks": tokens.key_set(STRANGER)}))
    assert ask(mesh, "client", bearer(exp=1), path="/old").status == 401
    assert ask(mesh, "client", bearer(), path="/fine").status == 200
    assert ask(mesh, "client", bearer(STRANGER, iss="other"), path="/fine").status == 200
    eventually(lambda: '"GET /old' in mesh.log.read_text(), "the line is written")
    found = [read(line) for line in mesh.log.read_text().splitlines() if "HTTP/1.1" in line]
    kinds = {one.text.split('"')[1].split(" ")[1]: one.kind for one in found}
    assert kinds["/old"] == "access log token refused: Jwt is expired"
    assert "/fine" not in kinds
