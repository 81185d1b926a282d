"""AuthorizationPolicies with CUSTOM: an extension provider is asked, by gRPC and by HTTP.

Clients, the server, the gateway and the provider are in namespaces of their own. The provider is in
the mesh: it is asked by mutual TLS in the name of the workload that is called.
https://istio.io/latest/docs/tasks/security/authorization/authz-custom/
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from meshd.compile.envoy.asking import CALLER
from meshd.model.extension_provider import AuthorizationProvider, Body
from meshd.model.snapshot import MeshOptions
from tests.envoy.between.application import Application
from tests.envoy.between.conftest import ADDRESS
from tests.envoy.between.mesh import Answer, Mesh, headers
from tests.envoy.between.provider import Provider
from tests.envoy.between.test_authorization import MANIFEST, first_words, policy
from tests.waiting import eventually

NAMES = ("client", "other", "server", "gateway", "provider")
PROVIDER = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: provider, namespace: clients}
spec:
  hosts: [provider.test]
  addresses: [198.19.77.9]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: provider}}
  ports:
  - {number: 9191, name: grpc, protocol: GRPC}
  - {number: 9192, name: http, protocol: HTTP}
"""
ONLY_ADMIN = "rules: [{to: [{operation: {paths: ['/admin*']}}]}]"
GRPC = AuthorizationProvider(
    name="by-grpc", host="provider.test", port=9191, speaks="grpc", timeout=5
)
HTTP = AuthorizationProvider(
    name="by-http",
    host="provider.test",
    port=9192,
    speaks="http",
    timeout=5,
    path_prefix="/check",
    shown=("x-ext-authz", "x-u*", "x-forwarded-client-cert", "x-meshd-*"),
    added=(("x-added", "100%"),),
    to_application=("x-decided",),
    to_client=("x-decided",),
    to_refused=("x-decided",),
)
AWAY = msgspec.structs.replace(GRPC, name="away", port=9999, status_on_error=503)
OPEN = msgspec.structs.replace(AWAY, name="open", fails_open=True)
NOBODY = msgspec.structs.replace(HTTP, name="nobody", host="nobody.test")
PROVIDERS = (GRPC, HTTP, AWAY, OPEN, NOBODY)


def custom(provider: str, rules: str = ONLY_ADMIN, namespace: str = "servers") -> str:
    spec = f"{{action: CUSTOM, provider: {{name: {provider}}}, {rules}}}"
    return policy(spec, namespace, f"custom-{provider}")


def load(
    mesh: Mesh, *policies: str, short_way: bool = False, providers: object = PROVIDERS
) -> None:
    mesh.load(
        MANIFEST + PROVIDER + "".join(policies),
        *(mesh.workload(name) for name in NAMES if name != "gateway"),
        mesh.workload("gateway", role="edge"),
        options=MeshOptions(short_way=short_way, providers=providers),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("asking"), NAMES) as made:
        load(made)
        for name in ("client", "other", "server", "provider"):
            made.capture(name)
        yield made


@pytest.fixture(scope="module", autouse=True)
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080, 7000), (9000, 7001))
    yield made
    made.close()


@pytest.fixture(scope="module", autouse=True)
def provider(mesh: Mesh) -> Iterator[Provider]:
    made = Provider(mesh.hosts["provider"].netns, 9191, 9192)
    yield made
    made.close()


def ask(mesh: Mesh, path: str, *lines: str, caller: str = "client", more: str = "GET") -> Answer:
    request = "\n".join((f"{more} {path} HTTP/1.1", "host: server.test", *lines))
    if caller == "edge":
        return mesh.outside.ask(mesh.hosts["gateway"].address, 80, request)
    if caller == "outside":
        return mesh.outside.ask(mesh.hosts["server"].address, 8080, request)
    return mesh.hosts[caller].ask(ADDRESS, 8080, request)


ALLOW = "x-ext-authz: allow"


def _certificates(answer: Answer) -> list[str]:
    """What the application is told of its caller."""
    return headers(answer.body).get("x-forwarded-client-cert", [])


@pytest.mark.parametrize("short_way", [False, True])
@pytest.mark.parametrize("name", ["by-grpc", "by-http"])
def test_the_provider_decides_about_what_a_rule_fits(
    mesh: Mesh, provider: Provider, name: str, short_way: bool
) -> None:
    load(mesh, custom(name), short_way=short_way)
    for caller in ("client", "edge", "outside"):
        with provider.questions() as asked:
            assert ask(mesh, "/free", caller=caller).status == 200
            assert asked == []
            refused = ask(mesh, "/admin/x", caller=caller)
            assert (refused.status, refused.headers.get("x-decided")) == (403, "denied")
            answer = ask(mesh, "/admin/x", ALLOW, caller=caller)
            assert answer.status == 200
            assert "x-decided: allowed" in answer.body
            assert _certificates(answer) == _certificates(ask(mesh, "/free", caller=caller))
            assert "x-secret" not in answer.body
            assert len(asked) == 2


@pytest.mark.parametrize("name", ["by-grpc", "by-http"])
def test_the_provider_is_asked_in_the_name_of_the_workload_that_is_called(
    mesh: Mesh, provider: Provider, name: str
) -> None:
    """And is told who calls. What the caller says of that is not believed."""
    only = "cluster.local/ns/servers/sa/server"
    guard = policy(
        f"{{selector: {{matchLabels: {{app: provider}}}},"
        f" rules: [{{from: [{{source: {{principals: [{only}]}}}}]}}]}}",
        "clients",
    )
    load(mesh, custom(name), guard)
    lies = (
        "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/clients/sa/other",
        "x-meshd-copy-identity: spiffe://cluster.local/ns/clients/sa/other#client",
        "x-meshd-copy-provider: nobody",
        "x-meshd-copy-host: true",
        "x-meshd-copy-netns: /run/netns/none",
        f"{CALLER}: spiffe://cluster.local/ns/clients/sa/other",
    )
    with provider.questions() as asked:
        assert ask(mesh, "/admin", ALLOW, *lies).status == 200
    (question,) = asked
    assert question.peer == mesh.hosts["server"].address
    told = question.headers[CALLER if name == "by-http" else "x-forwarded-client-cert"]
    assert told.rpartition("URI=")[2] == "spiffe://cluster.local/ns/clients/sa/client"
    assert "sa/other" not in told
    if name == "by-http":
        assert [one for one in question.headers if one.startswith("x-meshd-")] == [CALLER]


def test_what_is_shown_to_a_provider_by_http(mesh: Mesh, provider: Provider) -> None:
    load(mesh, custom("by-http"))
    with provider.questions() as asked:
        answer = ask(mesh, "/admin/x?y=1", ALLOW, "x-user: ann", "x-other: no", more="PUT")
    (question,) = asked
    assert (question.method, question.path) == ("PUT", "/check/admin/x?y=1")
    assert question.headers["x-user"] == "ann"
    assert question.headers["x-added"] == "100%"
    assert "x-other" not in question.headers
    assert answer.headers["x-decided"] == "allowed"


@pytest.mark.parametrize(
    ("name", "status"), [("away", 503), ("nobody", 403), ("open", 200), ("unknown", 403)]
)
def test_where_no_provider_answers_it_says_what_becomes_of_requests(
    mesh: Mesh, name: str, status: int
) -> None:
    """One that nobody has set denies everything."""
    load(mesh, custom(name))
    assert ask(mesh, "/admin", ALLOW).status == status
    assert ask(mesh, "/free").status == (403 if name == "unknown" else 200)


def test_what_a_provider_allows_may_be_denied_all_the_same(mesh: Mesh) -> None:
    deny = "{action: DENY, rules: [{to: [{operation: {paths: [/admin/no]}}]}]}"
    allow = "{rules: [{to: [{operation: {paths: ['/admin*']}}]}]}"
    load(mesh, custom("by-grpc"), policy(deny, name="deny"), policy(allow, name="allow"))
    statuses = [ask(mesh, path, ALLOW).status for path in ("/admin", "/admin/no", "/free")]
    assert statuses == [200, 403, 403]
    assert ask(mesh, "/admin").status == 403


def test_of_two_providers_for_one_workload_neither_is_asked(mesh: Mesh, provider: Provider) -> None:
    load(mesh, custom("by-grpc"), custom("by-http"))
    with provider.questions() as asked:
        assert ask(mesh, "/free", ALLOW).status == 403
        assert asked == []


def test_a_change_holds_for_the_next_request(mesh: Mesh, provider: Provider) -> None:
    for policies, status in (((custom("by-grpc"),), 403), ((), 200), ((custom("by-http"),), 403)):
        load(mesh, *policies)
        assert ask(mesh, "/admin").status == status


def test_a_gateway_asks_in_its_own_name(mesh: Mesh, provider: Provider) -> None:
    load(mesh, custom("by-grpc", namespace="gateways"))
    with provider.questions() as asked:
        assert ask(mesh, "/admin", caller="edge").status == 403
        assert ask(mesh, "/admin", ALLOW, caller="edge").status == 200
        assert ask(mesh, "/free", caller="edge").status == 200
        assert ask(mesh, "/admin").status == 200
    assert [one.peer for one in asked] == [mesh.hosts["gateway"].address] * 2


def test_a_body_is_shown_where_that_is_set(mesh: Mesh, provider: Provider) -> None:
    shown = msgspec.structs.replace(GRPC, body=Body(8, partly=True))
    load(mesh, custom("by-grpc"), providers=(shown,))
    with provider.questions() as asked:
        body = "content-length: 12\n\nhello, world"
        answer = ask(mesh, "/admin", ALLOW, body, more="POST", caller="outside")
    assert answer.status == 200
    assert asked[0].body == "hello, w"


def test_connections_that_a_rule_fits_are_refused_since_nobody_is_asked(mesh: Mesh) -> None:
    load(mesh, custom("by-grpc", "rules: [{to: [{operation: {ports: ['9000']}}]}]"))
    assert first_words(mesh, "client") == b""
    assert ask(mesh, "/admin").status == 200
    load(mesh)
    eventually(lambda: first_words(mesh, "client") != b"", "all may speak again")
