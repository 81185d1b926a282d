"""AuthorizationPolicies hold for whoever calls, on whatever way: over mutual TLS, in plaintext, by
the short way where the options allow it, and through a gateway.

Clients, server and gateway are in namespaces of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd import wire
from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.read import read_objects
from meshd.capture.pods import open_connections
from meshd.capture.pods.namespaces import Pins
from meshd.compile.explain.denied import Change, Rules, denied, peers
from meshd.compile.policy.authorization import authorization, by_namespace
from meshd.compile.policy.served import Spoken
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.supervisor.lines import read
from tests.envoy.between import http2
from tests.envoy.between.application import BANNER, Application
from tests.envoy.between.manifests import (
    ADDRESS,
    AT_80,
    HTTP,
    SNIFFED,
    TCP,
    gateway,
    route,
    routes,
    server,
)
from tests.envoy.between.mesh import BRIDGE, Mesh, answer
from tests.waiting import eventually

SERVER = Workload(
    uid="servers.server", name="server", namespace="servers", netns="/n", labels={"app": "server"}
)
NAMES = ("client", "other", "server", "gateway")
MANIFEST = (
    server(HTTP, TCP, SNIFFED)
    + gateway("gateways", AT_80)
    + routes("edge", "gateways", "*", f"  http: [{{{route(8080)}}}]", at_gateway=True)
)
REQUEST = "GET {} HTTP/1.1\nhost: server.test"


def policy(spec: str, namespace: str = "servers", name: str = "p") -> str:
    """A policy by its specification in flow style."""
    return f"""
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""


def load(mesh: Mesh, *policies: str, short_way: bool = True) -> None:
    mesh.load(
        MANIFEST + "".join(policies),
        mesh.workload("client"),
        mesh.workload("other"),
        mesh.workload("server"),
        mesh.workload("gateway", role="edge"),
        options=MeshOptions(short_way=short_way),
    )


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("authorization"), NAMES) as made:
        load(made)
        for name in ("client", "other", "server"):
            made.capture(name)
        yield made


@pytest.fixture(scope="module", autouse=True)
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080, 7000), (9000, 7001))
    yield made
    made.close()


@pytest.fixture(scope="module")
def pins(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pins]:
    """The server's namespace is pinned."""
    made = Pins(tmp_path_factory.mktemp("pins"))
    made.pin(SERVER.uid, Path(mesh.hosts["server"].netns))
    yield made
    made.unpin(SERVER.uid)


def status(mesh: Mesh, caller: str, path: str = "/", port: int = 8080) -> int:
    """``outside``: a client without a certificate; ``edge``: it comes through the gateway."""
    if caller == "edge":
        return mesh.outside.ask(mesh.hosts["gateway"].address, 80, REQUEST.format(path)).status
    if caller == "outside":
        return mesh.outside.ask(mesh.hosts["server"].address, port, REQUEST.format(path)).status
    return mesh.hosts[caller].ask(ADDRESS, port, REQUEST.format(path)).status


def first_words(mesh: Mesh, caller: str, port: int = 9000) -> bytes:
    """What the application says without being asked; nothing if it is not reached."""
    host, address = (
        (mesh.outside, mesh.hosts["server"].address)
        if caller == "outside"
        else (mesh.hosts[caller], ADDRESS if port == 9000 else mesh.hosts["server"].address)
    )
    with contextlib.suppress(ConnectionError), host.connect(address, port) as connection:
        return connection.makefile("rb").readline()
    return b""


CALLERS = ("client", "other", "edge", "outside")


@pytest.mark.parametrize("short_way", [False, True])
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{}", ()),
        ("{rules: [{}]}", CALLERS),
        ("{action: DENY, rules: [{}]}", ()),
        ("{rules: [{from: [{source: {namespaces: [clients]}}]}]}", ("client", "other")),
        ("{rules: [{from: [{source: {notNamespaces: [clients]}}]}]}", ("edge", "outside")),
        (
            "{rules: [{from: [{source: {principals: [cluster.local/ns/clients/sa/other]}}]}]}",
            ("other",),
        ),
        ('{rules: [{from: [{source: {principals: ["*"]}}]}]}', ("client", "other", "edge")),
        ("{rules: [{from: [{source: {serviceAccounts: [gateways/gateway]}}]}]}", ("edge",)),
        (f"{{rules: [{{from: [{{source: {{ipBlocks: [{BRIDGE}]}}}}]}}]}}", ("outside",)),
        (
            "{action: DENY, rules: [{from: [{source: {namespaces: [c*]}}]}]}",
            ("edge", "outside"),
        ),
        ("{selector: {matchLabels: {app: else}}, action: DENY, rules: [{}]}", CALLERS),
        ("{selector: {matchLabels: {app: server}}, action: DENY, rules: [{}]}", ()),
        ("{rules: [{when: [{key: destination.port, values: ['8080']}]}]}", CALLERS),
        ("{rules: [{when: [{key: 'request.headers[x-none]', values: ['*']}]}]}", ()),
    ],
)
def test_a_policy_holds_on_every_way(
    mesh: Mesh, spec: str, expected: tuple[str, ...], short_way: bool
) -> None:
    load(mesh, policy(spec), short_way=short_way)
    statuses = {caller: status(mesh, caller) for caller in CALLERS}
    assert statuses == {caller: 200 if caller in expected else 403 for caller in CALLERS}


@pytest.mark.parametrize("short_way", [False, True])
@pytest.mark.parametrize("port", [9000, 7001])
def test_a_connection_that_is_refused_is_not_told_anything(
    mesh: Mesh, port: int, short_way: bool
) -> None:
    """Also where the application speaks first, and where no service names the port."""
    sources = f"[{{source: {{ipBlocks: [{mesh.hosts['client'].address}]}}}}]"
    load(mesh, policy(f"{{rules: [{{from: {sources}}}]}}"), short_way=short_way)
    said = {caller: first_words(mesh, caller, port) for caller in ("client", "other", "outside")}
    assert said == {"client": BANNER, "other": b"", "outside": b""}


def test_what_only_requests_have_allows_no_other_connection_and_denies_all(mesh: Mesh) -> None:
    load(mesh, policy("{rules: [{to: [{operation: {methods: [GET]}}]}]}"))
    assert (status(mesh, "client"), first_words(mesh, "client")) == (200, b"")
    load(mesh, policy("{action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}"))
    assert (status(mesh, "client"), first_words(mesh, "client")) == (200, b"")
    load(mesh, policy("{action: DENY, rules: [{to: [{operation: {ports: ['9000']}}]}]}"))
    assert (status(mesh, "client"), first_words(mesh, "client")) == (200, b"")
    load(mesh, policy("{action: DENY, rules: [{to: [{operation: {ports: ['8080']}}]}]}"))
    assert (status(mesh, "client"), first_words(mesh, "client")) == (403, BANNER)


def test_a_port_whose_protocol_is_detected_is_judged_as_what_it_speaks(mesh: Mesh) -> None:
    load(mesh, policy("{rules: [{to: [{operation: {paths: [/yes]}}]}]}"))
    assert status(mesh, "client", "/yes", 7000) == 200
    assert status(mesh, "client", "/no", 7000) == 403
    with mesh.hosts["client"].connect(ADDRESS, 7000) as connection:
        connection.sendall(b"\x01\x02 no HTTP\r\n" * 10)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100) == b""


def test_the_root_namespace_is_for_all_and_what_one_denies_is_denied(mesh: Mesh) -> None:
    everything = policy("{rules: [{}]}")
    load(mesh, everything, policy("{action: DENY, rules: [{}]}", "istio-system"))
    assert [status(mesh, caller) for caller in CALLERS] == [403] * 4
    load(mesh, everything, policy("{}", "istio-system", "none"))
    assert status(mesh, "client") == 200


def test_a_change_holds_for_the_next_request_of_a_connection_that_is_open(mesh: Mesh) -> None:
    load(mesh)
    with mesh.hosts["client"].connect(ADDRESS, 8080) as connection:
        for spec, expected in (
            (None, 200),
            ("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}", 403),
            ("{rules: [{from: [{source: {principals: ['*/sa/client']}}]}]}", 200),
            ("{}", 403),
            (None, 200),
        ):
            load(mesh, *([policy(spec)] if spec else []))
            assert answer(connection, REQUEST.format("/")).status == expected


def test_gateways_have_policies_of_their_own(mesh: Mesh) -> None:
    load(
        mesh,
        policy(
            "{selector: {matchLabels: {role: edge}}, action: DENY,"
            " rules: [{to: [{operation: {paths: [/admin*]}}]}]}",
            "gateways",
        ),
    )
    assert (status(mesh, "edge", "/admin/x"), status(mesh, "edge", "/x")) == (403, 200)
    assert status(mesh, "client", "/admin/x") == 200
    for field, expected in (("ipBlocks", 200), ("notIpBlocks", 403)):
        sources = f"[{{source: {{{field}: [{BRIDGE}]}}}}]"
        load(mesh, policy(f"{{rules: [{{from: {sources}}}]}}", "gateways"))
        assert status(mesh, "edge") == expected


@pytest.mark.parametrize("namespace", ["gateways", "istio-system"])
def test_a_change_leaves_the_connections_through_a_gateway_open(mesh: Mesh, namespace: str) -> None:
    """The proxy would announce in an answer that it closes the connection."""
    load(mesh)
    with mesh.outside.connect(mesh.hosts["gateway"].address, 80) as connection:
        for spec, expected in (
            (None, 200),
            ("{selector: {matchLabels: {role: edge}}, action: DENY, rules: [{}]}", 403),
            ("{selector: {matchLabels: {role: edge}}, rules: [{}]}", 200),
            (
                "{selector: {matchLabels: {role: edge}},"
                " rules: [{to: [{operation: {hosts: [server.test]}}]}]}",
                200,
            ),
            ("{selector: {matchLabels: {role: edge}}}", 403),
            (None, 200),
        ):
            load(mesh, *([policy(spec, namespace)] if spec else []))
            found = answer(connection, REQUEST.format("/"))
            assert (found.status, found.headers.get("connection")) == (expected, None), spec


WITHOUT_ROUTES = """
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: bare, namespace: gateways}
spec:
  selector: {role: edge}
  servers: [{port: {number: 81, name: http, protocol: HTTP}, hosts: [unrouted.test]}]
"""


def test_a_gateway_refuses_those_whom_it_denies_also_where_nothing_is(mesh: Mesh) -> None:
    def at(name: str) -> int:
        return mesh.outside.ask(
            mesh.hosts["gateway"].address, 81, f"GET / HTTP/1.1\nhost: {name}"
        ).status

    names = ("unrouted.test", "unknown.test")
    load(mesh, WITHOUT_ROUTES)
    assert [at(name) for name in names] == [404, 404]
    load(mesh, WITHOUT_ROUTES, policy("{action: DENY, rules: [{}]}", "gateways"))
    assert [at(name) for name in names] == [403, 403]
    load(mesh, WITHOUT_ROUTES, policy("{rules: [{}]}", "gateways"))
    assert [at(name) for name in names] == [404, 404]


def rules_of(spec: str) -> Rules:
    """Those about the server."""
    objects = [one.object for one in read_objects(policy(spec), "test.yaml")]
    found = by_namespace(one for one in objects if isinstance(one, AuthorizationPolicy))
    return authorization(found, SERVER, MeshOptions())


def end_denied(mesh: Mesh, pins: Pins, before: Rules, now: Rules) -> set[str]:
    """As the mesh role and the capture role do it; the clients whose connections have ended."""
    server = mesh.workload("server")
    known = peers([mesh.workload(name) for name in NAMES], "cluster.local")
    change = Change(server, {8080: Spoken.HTTP, 9000: Spoken.OPAQUE}, (before,), now)
    found = asyncio.run(open_connections.answer(pins, wire.ListConnections(server.uid)))
    assert isinstance(found, wire.OpenConnections)
    those = tuple(denied(change, found.connections, known))
    done = asyncio.run(open_connections.answer(pins, wire.EndConnections(server.uid, those)))
    assert done == wire.Ended(len(those))
    return {one.client for one in those}


def is_open(connection: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    return False


@pytest.mark.parametrize("short_way", [False, True])
@pytest.mark.parametrize("port", [9000, 7001])
@pytest.mark.parametrize(
    ("spec", "left"),
    [
        (
            "{action: DENY, rules: [{from: [{source: {principals: ['*/sa/client']}}]}]}",
            ("other", "outside"),
        ),
        ("{rules: [{from: [{source: {principals: ['*/sa/client']}}]}]}", ("client",)),
        ("{}", ()),
        ("{rules: [{}]}", ("client", "other", "outside")),
    ],
)
def test_open_connections_that_are_denied_end_and_all_others_stay(
    mesh: Mesh, pins: Pins, spec: str, left: tuple[str, ...], port: int, short_way: bool
) -> None:
    load(mesh, short_way=short_way)
    address = mesh.hosts["server"].address
    callers = {name: mesh.hosts[name] for name in ("client", "other")} | {"outside": mesh.outside}
    with contextlib.ExitStack() as stack:
        held = {
            name: stack.enter_context(
                host.connect(address if port == 7001 or name == "outside" else ADDRESS, port)
            )
            for name, host in callers.items()
        }
        for connection in held.values():
            assert connection.makefile("rb").readline() == BANNER
        load(mesh, policy(spec), short_way=short_way)
        with mesh.hosts["client"].connect(ADDRESS, 8080) as requests:
            expected = answer(requests, REQUEST.format("/")).status
            ended = end_denied(mesh, pins, None, rules_of(spec))
            assert ended == {host.address for name, host in callers.items() if name not in left}
            assert {name for name, one in held.items() if is_open(one)} == set(left)
            assert answer(requests, REQUEST.format("/")).status == expected


def test_denials_are_logged_with_their_rule(mesh: Mesh) -> None:
    """Nothing else that is forbidden is, nor what is allowed."""
    deny = "{action: DENY, rules: [{to: [{operation: {paths: [/never]}}]}, PATH]}"
    path = "{to: [{operation: {paths: [/logged]}}]}"
    load(
        mesh,
        policy(deny.replace("PATH", path)),
        policy("{rules: [{to: [{operation: {methods: [GET]}}]}]}", name="q"),
    )
    assert status(mesh, "client", "/fine") == 200
    assert status(mesh, "client", "/logged") == 403
    with mesh.hosts["client"].connect(ADDRESS, 8080) as client:
        assert raw(client, "PUT /unmatched HTTP/1.1\nhost: server.test\ncontent-length: 0") == 403
    eventually(lambda: '"PUT /unmatched' in mesh.log.read_text(), "both lines are written")
    lines = [read(line) for line in mesh.log.read_text().splitlines() if "HTTP/1.1" in line]
    kinds = {line.text.split('"')[1].split(" ")[1]: line.kind for line in lines}
    assert kinds["/logged"] == "access log denied by servers/p rule 1"
    assert kinds["/unmatched"] == "access log 403 -"
    assert "/fine" not in kinds


@pytest.mark.parametrize("short_way", [False, True])
def test_a_connection_that_is_denied_is_logged(mesh: Mesh, short_way: bool) -> None:
    """Not by its rule, since a chain for each would change listeners with the rules."""
    deny = "{action: DENY, rules: [{from: [{source: {namespaces: [clients]}}]}]}"
    name = f"tcp-{short_way}".lower()
    load(mesh, policy(deny, name=name), policy("{}", name="allow"), short_way=short_way)
    before = len(mesh.log.read_text().splitlines())
    for caller in ("client", "other", "outside"):
        assert first_words(mesh, caller) == b""

    def kinds() -> list[str]:
        lines = [read(line) for line in mesh.log.read_text().splitlines()[before:]]
        denied = (line for line in lines if "rbac_access_denied" in line.text)
        return [line.kind for line in denied if line.workload == "servers.server"]

    # A client's proxy that is refused inside itself knows it at once, and tries again.
    denials = 2 * (3 if short_way else 1) + 1
    eventually(lambda: kinds() == ["access log 0 UH"] * denials, "all are logged")


def on_trial(spec: str, namespace: str, name: str) -> str:
    text = policy(spec, namespace, name)
    return text.replace("}\nspec", ", annotations: {istio.io/dry-run: 'true'}}\nspec")


def noted(mesh: Mesh, path: str) -> set[str]:
    """What the log counts lines of policies about requests to a path as, by workload."""
    lines = [read(line) for line in mesh.log.read_text().splitlines()]
    return {
        f"{line.workload} {line.kind.removeprefix('access log ')}"
        for line in lines
        if " policies " in line.text and f" {path} " in line.text
    }


@pytest.mark.parametrize("namespace", ["servers", "gateways"])
def test_what_is_audited_or_on_trial_is_served_and_noted(mesh: Mesh, namespace: str) -> None:
    """By the destination or by the gateway, whichever the policies are about."""
    only = "rules: [{to: [{operation: {paths: [PATH]}}]}]"
    uid = "servers.server" if namespace == "servers" else "gateways.gateway"
    at = f"/{namespace}"
    rules = {name: only.replace("PATH", f"{at}/{name}") for name in ("audited", "no", "yes")}
    load(
        mesh,
        policy(f"{{action: AUDIT, {rules['audited']}}}", namespace, "audit"),
        on_trial(f"{{action: DENY, {rules['no']}}}", namespace, "deny"),
        on_trial(f"{{{rules['yes']}}}", namespace, "allow"),
    )
    paths = [f"{at}/{name}" for name in ("audited", "no", "yes", "other")]
    assert [status(mesh, "edge", path) for path in paths] == [200] * 4
    nothing = f"{uid} would be denied: no rule on trial allows it"
    audited, no, yes, other = paths
    eventually(lambda: noted(mesh, other) == {nothing}, "what nothing would allow is logged")
    assert noted(mesh, audited) == {f"{uid} audited by {namespace}/audit rule 0"}
    assert noted(mesh, no) == {f"{uid} would be denied by {namespace}/deny rule 0"}
    assert noted(mesh, yes) == set()
    load(mesh, policy(f"{{action: DENY, {rules['audited']}}}", namespace, "deny"))
    assert [status(mesh, "edge", path) for path in paths] == [403, 200, 200, 200]


def raw(client: socket.socket, head: str) -> int:
    return answer(client, head).status


DENIED = [
    "/admin",
    "/./admin",
    "/%2e/admin",
    "/x/../admin",
    "/x/%2e%2e/admin",
    "/x\\..\\admin",
    "/%61dmin",
    "/admin?x=/ok",
    "/admin/",
    "/admin;x",
    "/admin%2Fx",
    "http://server.test/admin",
    "http://server.test/x/../admin",
]
NOT_DENIED = ["//admin", "/Admin", "/%2Fadmin", "/ok?/admin"]
"""Other paths, to Istio, too, unless applications take them for the same."""


def test_a_path_is_judged_in_its_normal_form(mesh: Mesh) -> None:
    load(mesh, policy('{action: DENY, rules: [{to: [{operation: {paths: ["/admin*"]}}]}]}'))
    for paths, expected in ((DENIED, 403), (NOT_DENIED, 200)):
        found = {path: status(mesh, "client", path) for path in paths}
        assert found == dict.fromkeys(paths, expected)
    assert status(mesh, "client", "/ok#/admin") == 400


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("secret.test", 403),
        ("SECRET.test", 403),
        ("secret.test.", 403),
        ("secret.test:8080", 403),
        ("secret.test.:8080", 403),
        ("other.test", 200),
    ],
)
def test_a_host_is_judged_whatever_its_case_dot_and_port(
    mesh: Mesh, host: str, expected: int
) -> None:
    hosts = "[{operation: {hosts: [secret.test, 'secret.test:*']}}]"
    load(mesh, policy(f"{{action: DENY, rules: [{{to: {hosts}}}]}}"))
    with mesh.hosts["client"].connect(mesh.hosts["server"].address, 8080) as client:
        assert raw(client, f"GET / HTTP/1.1\nhost: {host}") == expected
    with mesh.hosts["client"].connect(mesh.hosts["server"].address, 8080) as client:
        assert raw(client, f"GET http://{host}/ HTTP/1.1\nhost: other.test") == expected


def test_http2_is_judged_as_well(mesh: Mesh) -> None:
    load(mesh, policy("{rules: [{to: [{operation: {paths: [/yes]}}]}]}"))
    for path, word in ((b"/yes", b"GET /yes"), (b"/no", b"RBAC: access denied")):
        with mesh.hosts["client"].connect(ADDRESS, 8080) as connection:
            connection.sendall(http2.request(path))
            data = b""
            while word not in data:
                more = connection.recv(65536)
                assert more, data
                data += more


def test_a_caller_cannot_say_who_it_is(mesh: Mesh) -> None:
    load(mesh, policy("{rules: [{from: [{source: {principals: ['*/sa/client']}}]}]}"))
    claim = "x-forwarded-client-cert: By=x;URI=spiffe://cluster.local/ns/clients/sa/client"
    for host in (mesh.outside, mesh.hosts["other"]):
        with host.connect(mesh.hosts["server"].address, 8080) as client:
            assert raw(client, f"GET / HTTP/1.1\nhost: server.test\n{claim}") == 403
