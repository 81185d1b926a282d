"""Names as a workload asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from meshd import settings, wire
from meshd.model.workload import Workload
from meshd.resolver import files
from meshd.resolver.asking import knows
from tests.node.manifests import Write
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Any

    from tests.node.node import Node

QUERY = """
import json, socket, struct, sys
name, kind, *rest = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
edns = bytes([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]) * ("edns" in rest)
resolver, tcp = (*rest, "198.19.0.10")[0], "tcp" in rest
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
s.settimeout(30)
labels = b"".join(bytes([len(p)]) + p.encode() for p in name.split("."))
head = struct.pack(">6H", 7, 0x100, 1, 0, 0, bool(edns))
query = head + labels + bytes(1) + struct.pack(">2H", kind, 1) + edns
s.connect((resolver, 53))
s.sendall(struct.pack(">H", len(query)) * tcp + query)
got = struct.unpack(">6H", s.recv(4096)[2 * tcp :][:12])
print(json.dumps([got[1] & 15, got[3], bool(got[1] & 0x200)]))
"""
LOOK_UP = """
import json, socket, sys
print(json.dumps(sorted({found[4][0] for found in socket.getaddrinfo(sys.argv[1], 80)})))
"""
A, AAAA, MX, TXT = 1, 28, 15, 16
NO_ERROR, NO_SUCH_NAME, REFUSED = 0, 3, 5


def look_up(node: Node, name: str, client: str = "alice") -> list[str]:
    done = node.exec(client, sys.executable, "-c", LOOK_UP, name)
    return json.loads(done.output) if done.status == 0 else []


def query(node: Node, name: str, kind: int) -> tuple[int, int]:
    """Its response code, and how many answers there were."""
    done = node.exec("alice", sys.executable, "-c", QUERY, name, str(kind))
    assert done.status == 0, done.errors
    code, answers, _ = json.loads(done.output)
    return code, answers


def test_a_service_has_the_same_address_under_all_its_names(node: Node) -> None:
    forms = (
        "server",
        "server.mesh",
        "server.mesh.svc",
        "server.mesh.svc.cluster.local",
        "server.mesh.svc.cluster.local.",
    )
    (address,) = look_up(node, forms[0])
    assert address.startswith("198.19.")
    assert [look_up(node, form) for form in forms] == [[address]] * len(forms)


def test_a_headless_service_is_its_pods(node: Node) -> None:
    assert look_up(node, "bare") == [node.pod("server").plan.address]


def test_each_pod_of_a_headless_service_has_a_name(node: Node) -> None:
    pod = node.pod("server").plan
    for form in ("bare", "bare.mesh", "bare.mesh.svc", "bare.mesh.svc.cluster.local"):
        assert look_up(node, f"{pod.name}.{form}") == [pod.address]
        assert look_up(node, f"nosuch.{form}") == []
        done = node.curl("alice", f"http://{pod.name}.{form}:8080/who")
        assert "spiffe://cluster.local/ns/mesh/sa/alice" in done.output, form


def entries(count: int, app: str) -> list[dict[str, Any]]:
    """So many workloads that nothing runs behind."""
    return [
        Write.manifest(
            "WorkloadEntry",
            f"{app}-{number}",
            "mesh",
            apiVersion="networking.istio.io/v1",
            spec={"address": f"198.19.210.{number}", "labels": {"app": app}},
        )
        for number in range(1, count + 1)
    ]


def test_a_name_may_have_more_addresses_than_fit_into_a_datagram(node: Node) -> None:
    """The client's own resolver asks again over TCP, as it must."""
    many = node.write.service("many", headless=True)
    with node.applied(node.write.dump(many, *entries(200, "many"))):
        assert len(look_up(node, "many")) == 200
        short = node.exec("alice", sys.executable, "-c", QUERY, "many.mesh.svc", str(A)).json()
        assert short[2], "it is truncated, and says so"
    with node.applied(node.write.dump(many, *entries(60, "many"))):
        asked = ("alice", sys.executable, "-c", QUERY, "many.mesh.svc", str(A))
        whole = node.exec(*asked, "198.19.0.10", "edns").json()
        assert whole == [NO_ERROR, 60, False], "who takes longer datagrams is sent them"


@pytest.mark.parametrize("resolver", ["198.19.0.10", "198.18.0.250", "127.0.0.53"])
def test_names_are_answered_over_tcp_too(node: Node, resolver: str) -> None:
    """Whatever resolver the client asks."""
    for name, expected in (("server.mesh.svc", [0, 1]), ("nosuch.mesh.svc", [3, 0])):
        asked = ("alice", sys.executable, "-c", QUERY, name, str(A), resolver, "tcp")
        assert node.exec(*asked).json()[:2] == expected, name


def test_a_service_has_addresses_and_nothing_else(node: Node) -> None:
    """Also of IPv6: who asks for both must not think that there is no such name."""
    for kind in (AAAA, MX, TXT):
        for name in ("server.mesh.svc.cluster.local", "server.mesh.svc", "server.mesh"):
            assert query(node, name, kind) == (NO_ERROR, 0), (name, kind)


def test_upper_and_lower_case_are_the_same(node: Node) -> None:
    assert query(node, "Server.MESH.svc.Cluster.local", A) == (NO_ERROR, 1)


def test_a_removed_service_is_gone(node: Node) -> None:
    name = "fleeting.mesh.svc.cluster.local"
    with node.applied(node.write.dump(node.write.service("fleeting", app="server"))):
        node.eventually(lambda: query(node, name, A) == (NO_ERROR, 1), "it is known")
    node.eventually(lambda: query(node, name, A) == (NO_SUCH_NAME, 0), "it is forgotten")


def test_a_resolver_that_was_killed_comes_back_with_all_names(node: Node) -> None:
    before = node.children()["resolver"].pid
    os.kill(before, signal.SIGKILL)
    node.eventually(
        lambda: (found := node.children().get("resolver")) and found.pid != before, "it is back"
    )
    node.eventually(lambda: look_up(node, "server"), "it answers")


def test_names_of_the_world_fail_at_once_where_nobody_outside_takes_queries(node: Node) -> None:
    """As it is with this node's resolver, where nothing listens; with a domain behind a name of the
    mesh of which nobody has told the node, too."""
    node.eventually((node.paths.resolver_run / files.NOBODY).exists, "it is known")
    node.eventually(lambda: query(node, "public.test", A) == (REFUSED, 0), "it is said")
    assert query(node, "server.mesh.svc", A) == (NO_ERROR, 1)
    # Nor does the client's own resolver wait for an answer that does not come.
    waiting = f"RES_OPTIONS=ndots:5 attempts:1 timeout:{2 * PATIENCE:.0f}"
    searching = ("LOCALDOMAIN=unknown.test", waiting, sys.executable, "-c", LOOK_UP)
    name = "server.mesh.svc.cluster.local"
    assert node.exec("alice", "env", *searching, name, timeout=PATIENCE).json()


MANY = """
import json, socket, sys, threading
found = []
def ask():
    try:
        found.append(len(socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)))
    except OSError as error:
        found.append(str(error))
threads = [threading.Thread(target=ask) for _ in range(240)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(found))
"""


def test_many_look_ups_at_once_all_have_their_answer(node: Node) -> None:
    done = node.exec("alice", sys.executable, "-c", MANY, "server.mesh.svc.cluster.local")
    assert done.json() == [1] * 240


# ---- names outside the mesh

RESOLVER = '''
"""Knows one name, and names that begin with an address; counts what it is asked for others, and
takes its time for slow ones."""
import socket, struct, threading
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    query, client = server.recvfrom(4096)
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
    name, question = ".".join(labels), query[12 : at + 5]
    print(kind, name, flush=True)
    addressed = name.endswith(".addressed")
    told = labels[0].replace("-", ".") if addressed else "198.18.250.250"
    known = name == "public.test" or addressed
    data = {1: socket.inet_aton(told), 15: bytes([0, 5, 1, 109, 0]), 16: b"\\x02hi"}
    answers = 1 if known and kind in data else 0
    head = query[:2] + struct.pack(">5H", 0x8180 | (0 if known else 3), 1, answers, 0, 0)
    value = data.get(kind, b"")
    record = struct.pack(">3HIH", 0xC00C, kind, 1, 60, len(value)) + value
    answer = (head + question + record * answers, client)
    threading.Timer(0.7 if name.startswith("slow") else 0, server.sendto, answer).start()
'''


@pytest.fixture(scope="module")
def resolving(make: Callable[..., Node]) -> Iterator[Node]:
    """A node whose resolver is a pod outside the mesh: the first pod has the tenth address."""
    from_cidr: list[str] = []
    node = make(capture={"dns_queries_per_second": 0})  # some tests ask without a pause
    from_cidr.append(node.cidr.replace(".0/24", ".10"))
    node.write_settings(mesh={"dns_upstreams": from_cidr, "search_domains": ["corp.test"]})
    (node.images / "resolver.py").write_text(RESOLVER)
    node.start()
    write = node.write
    node.up(
        write.dump(
            write.namespace("mesh", enrolled=True),
            write.namespace("outside", enrolled=False),
            write.namespace("office", enrolled=True),
            write.deployment("resolver", "outside", program="resolver.py"),
            write.deployment("far", "outside", program="server.py", ready=8080),
            write.deployment("alice"),
            write.deployment("dora", "office"),
        )
    )
    assert node.pod("resolver.outside").plan.address == from_cidr[0]
    yield node
    node.close()


LOOKING_UP = """
import collections, itertools, json, socket, struct, sys, threading
went, numbers, stop = collections.Counter(), itertools.count(), threading.Event()
def ask(form):
    while not stop.is_set():
        name = form % next(numbers)
        labels = b"".join(bytes([len(p)]) + p.encode() for p in name.split("."))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(float(sys.argv[1]))
            s.connect(("198.19.0.10", 53))
            try:
                s.send(struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + bytes(1)
                       + struct.pack(">2H", 1, 1))
                code = s.recv(4096)[3] & 15
                known = "kept" in form
                went["answered" if code == (0 if known else 3) else f"code {code}: {form}"] += 1
            except OSError as error:
                went[str(error)] += 1
forms = sys.argv[2:] or ["slow%d.test"] * 8 + ["quick%d.mesh.svc"] * 2
threads = [threading.Thread(target=ask, args=(form,)) for form in forms]
[thread.start() for thread in threads]
print("begun", flush=True)
sys.stdin.read()
stop.set()
[thread.join() for thread in threads]
print(json.dumps(went))
"""
ASKING = 10
"""So many queries are under way at any time."""


@contextlib.contextmanager
def queries(node: Node, *forms: str, patience: float = 30) -> Generator[dict[str, int]]:
    """Within the block; how they went is in the value after it. ``patience``: seconds after which a
    query counts as lost."""
    running = node.begin("alice", sys.executable, "-c", LOOKING_UP, str(patience), *forms)
    assert running.stdout
    assert running.stdout.readline() == "begun\n"
    went: dict[str, int] = {}
    try:
        yield went
    except BaseException:
        running.kill()
        raise
    went.update(node.finish(running, ""))


def asked(node: Node) -> str:
    return node.meshctl("testbed", "logs", "-n", "outside", "deploy/resolver").output


def test_other_names_are_the_resolvers(resolving: Node) -> None:
    assert look_up(resolving, "public.test") == ["198.18.250.250"]
    assert query(resolving, "public.test", A) == (NO_ERROR, 1)
    assert query(resolving, "nosuch.test", A) == (NO_SUCH_NAME, 0)
    assert "nosuch.test" in asked(resolving)


def test_other_types_are_asked_as_they_are(resolving: Node) -> None:
    for kind in (MX, TXT):
        assert query(resolving, "public.test", kind) == (NO_ERROR, 1)
    assert query(resolving, "public.test", AAAA) == (NO_ERROR, 0)


def test_nothing_of_the_mesh_is_ever_asked_outside(resolving: Node) -> None:
    """Neither what it does not know, nor what a resolver makes of a name of the world."""
    unknown = ("nosuch.mesh.svc.cluster.local", "public.test.cluster.local", "nosuch.mesh.svc")
    for name in (*unknown, *(f"{name}.corp.test" for name in unknown if "mesh.svc" in name)):
        for kind in (A, AAAA, TXT):
            assert query(resolving, name, kind) == (NO_SUCH_NAME, 0), name
    known = ("server.mesh.svc.cluster.local", "server.mesh.svc", "server.mesh")
    with resolving.applied(resolving.write.dump(resolving.write.service("server", app="alice"))):
        for name in known:
            resolving.eventually(
                lambda: query(resolving, name, A) == (NO_ERROR, 1),  # noqa: B023
                f"{name} is known",
            )
            assert query(resolving, name, AAAA) == (NO_ERROR, 0)
            searching = ("env", "LOCALDOMAIN=corp.test", "RES_OPTIONS=ndots:5", sys.executable)
            if name != "server.mesh":  # which may be a name of the world with a domain behind it
                assert resolving.exec("alice", *searching, "-c", LOOK_UP, name).json()
    # After all these: what is asked later is logged later.
    assert query(resolving, "last.test", A) == (NO_SUCH_NAME, 0)
    log = resolving.eventually(
        lambda: "last.test" in (got := asked(resolving)) and got, "it is asked"
    )
    assert not [line for line in log.splitlines() if "mesh" in line or "cluster.local" in line]


def test_a_service_entrys_host_has_its_address(resolving: Node) -> None:
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: named, namespace: mesh}
spec:
  hosts: [shop.test]
  addresses: [198.19.201.7]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 198.18.0.9}]
"""
    assert look_up(resolving, "shop.test") == []
    with resolving.applied(entry):
        resolving.eventually(
            lambda: look_up(resolving, "shop.test") == ["198.19.201.7"], "it is known"
        )
        assert query(resolving, "shop.test", AAAA) == (NO_ERROR, 0)
    resolving.eventually(lambda: look_up(resolving, "shop.test") == [], "it is forgotten")


HOLDING = """
import socket, sys, threading
held = []
for _ in range(400):
    one = socket.create_connection(("198.19.0.10", 53), timeout=20)
    one.settimeout(None)
    held.append(one)
print("begun", flush=True)
done = threading.Event()
def drip():
    while not done.wait(1):
        for one in held:
            try:
                one.send(bytes(1))
            except OSError:
                pass
threading.Thread(target=drip, daemon=True).start()
sys.stdin.read()
done.set()
print("{}")
"""
"""Begins many queries over TCP, each of which is never done."""


def test_clients_of_one_namespace_leave_the_resolver_to_others(resolving: Node) -> None:
    running = resolving.begin("alice", sys.executable, "-c", HOLDING)
    assert running.stdout
    assert running.stdout.readline() == "begun\n"
    name, server = "nosuch.mesh.svc", "198.19.0.10"
    asked = ("dora.office", sys.executable, "-c", QUERY, name, str(A), server, "tcp")
    try:
        for _ in range(5):
            assert resolving.exec(*asked).json()[:2] == [NO_SUCH_NAME, 0]
    finally:
        resolving.finish(running, "")


CALLING = """
import collections, http.client, itertools, json, sys, threading
went, stop = collections.Counter(), threading.Event()
def call(hosts):
    for host in itertools.cycle(hosts):
        if stop.is_set():
            return
        try:
            connection = http.client.HTTPConnection(host, 8080, timeout=20)
            connection.request("GET", "/")
            went[str(connection.getresponse().status)] += 1
        except OSError as error:
            went[f"{host}: {error!r}"] += 1
threads = [threading.Thread(target=call, args=(sys.argv[1:],)) for _ in range(4)]
[thread.start() for thread in threads]
print("begun", flush=True)
sys.stdin.read()
stop.set()
[thread.join() for thread in threads]
print(json.dumps(went))
"""


def test_a_host_is_reached_while_a_service_entry_comes_to_be_about_it(resolving: Node) -> None:
    """Its name leads to a virtual address from then on, which proxies have to know by then."""
    far = resolving.pod("far.outside").plan.address
    hosts = [f"{far.replace('.', '-')}.n{number}.addressed" for number in range(8)]
    entries = [
        f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: far{number}, namespace: mesh}}
spec:
  hosts: [{host}]
  resolution: STATIC
  ports: [{{number: 8080, name: http, protocol: HTTP}}]
  endpoints: [{{address: {far}}}]
"""
        for number, host in enumerate(hosts)
    ]
    running = resolving.begin("alice", sys.executable, "-c", CALLING, *hosts)
    assert running.stdout
    assert running.stdout.readline() == "begun\n"
    with contextlib.ExitStack() as applied:
        for entry in entries:
            applied.enter_context(resolving.applied(entry))
        assert all(look_up(resolving, host) != [far] for host in hosts)
        went = resolving.finish(running, "")
    assert went.keys() == {"200"}, went


def test_a_short_name_is_of_the_clients_own_namespace(resolving: Node) -> None:
    write = resolving.write
    with resolving.applied(write.dump(write.service("external", "outside", app="alice"))):
        resolving.eventually(lambda: look_up(resolving, "external.outside"), "it is known")
        assert look_up(resolving, "external") == []


def declared(host: str, address: str, namespace: str, export_to: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {namespace}, namespace: {namespace}}}
spec:
  hosts: ["{host}"]
  addresses: [{address}]
  resolution: STATIC
  exportTo: ["{export_to}"]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: 198.18.0.9}}]
---
"""


@pytest.mark.parametrize("pattern", ["public.test", "*.public.test"])
def test_a_host_is_what_the_clients_namespace_says(resolving: Node, pattern: str) -> None:
    """A private one is the world's to everybody else, here a name that the world has, too."""
    name = pattern.replace("*", "a")
    outside = look_up(resolving, name)
    with resolving.applied(declared(pattern, "198.19.201.1", "office", ".")):
        assert look_up(resolving, name, "dora.office") == ["198.19.201.1"]
        assert look_up(resolving, name) == outside
        assert look_up(resolving, "server", "dora.office") == []
        with resolving.applied(declared(pattern, "198.19.201.2", "mesh", "*")):
            assert look_up(resolving, name, "dora.office") == ["198.19.201.1"]
            assert look_up(resolving, name) == ["198.19.201.2"]
    resolving.eventually(
        lambda: look_up(resolving, name, "dora.office") == look_up(resolving, name) == outside,
        "both are forgotten",
    )


def test_a_private_service_has_its_name_in_its_namespace_only(resolving: Node) -> None:
    service = resolving.write.service("hidden", app="alice")
    service["metadata"]["annotations"] = {"networking.istio.io/exportTo": "."}
    with resolving.applied(resolving.write.dump(service)):
        (address,) = look_up(resolving, "hidden.mesh.svc.cluster.local")
        assert address.startswith("198.19.")
        assert query(resolving, "hidden.mesh.svc.cluster.local", AAAA) == (NO_ERROR, 0)
        for form in ("hidden.mesh", "hidden.mesh.svc", "hidden.mesh.svc.cluster.local"):
            assert look_up(resolving, form) == [address]
            assert look_up(resolving, form, "dora.office") == []
        asked = (
            "alice",
            sys.executable,
            "-c",
            QUERY,
            "hidden.mesh.svc",
            str(A),
            "198.18.0.250",
            "tcp",
        )
        assert resolving.exec(*asked).json()[:2] == [NO_ERROR, 1]


def test_names_of_endpoints_are_asked_at_the_same_resolvers(resolving: Node) -> None:
    """By the proxies, of whom only traffic knows the endpoints."""
    entry = declared("by-name.test", "198.19.201.3", "mesh", "*")
    entry = entry.replace("STATIC", "DNS").replace("198.18.0.9", "endpoint.test")
    with resolving.applied(entry):
        asked_for = " endpoint.test\n"
        resolving.eventually(lambda: asked_for in asked(resolving), "its resolver is asked")


def wildcard(name: str, address: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: mesh}}
spec:
  hosts: ["*.{name}.test"]
  addresses: [{address}]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
"""


def test_a_wildcard_has_its_address_below_it(resolving: Node) -> None:
    with resolving.applied(wildcard("wild", "198.19.201.8")):
        resolving.eventually(
            lambda: look_up(resolving, "a.wild.test") == ["198.19.201.8"], "it is known"
        )
        assert query(resolving, "a.wild.test", AAAA) == (NO_ERROR, 0)
    resolving.eventually(lambda: query(resolving, "a.wild.test", A)[1] == 0, "it is forgotten")


def test_wildcards_that_come_and_go_cost_no_query(resolving: Node) -> None:
    """Neither of other names, of the mesh or the world, nor of what another wildcard stands for."""
    forms = ("x%d.kept.test",) * 4 + ("world%d.test",) * 2 + ("quick%d.mesh.svc",) * 2
    with resolving.applied(wildcard("kept", "198.19.201.9")):
        before = resolving.children()
        with queries(resolving, *forms) as went:
            for number in range(3):
                with resolving.applied(wildcard(f"brief{number}", "198.19.201.10")):
                    assert look_up(resolving, f"a.brief{number}.test") == ["198.19.201.10"]
        assert went.pop("answered") > 100
        assert went == {}
        after = resolving.children()
        assert after["resolver"].pid == before["resolver"].pid
        assert after["resolver-wildcards"].pid != before["resolver-wildcards"].pid


def test_a_service_resolves_as_soon_as_apply_wait_returns(node: Node) -> None:
    """Of a service, and of a host of the world with a wildcard, for which a dnsmasq starts anew."""
    port = settings.load(node.paths.settings).mesh.dns_port
    for number in range(3):
        service = node.write.service(f"fresh{number}", app="server")
        entry = wildcard(f"fresh{number}", f"198.19.77.{number + 1}")
        with node.applied(node.write.dump(service)):
            assert asyncio.run(knows(port, f"fresh{number}.mesh.svc.cluster.local"))
        with node.applied(entry):
            assert asyncio.run(knows(port, f"a.fresh{number}.test"))


# ---- what carries the queries


LINKS = """\
link set lo up
link add eth0 type veth peer name eth1
link set eth0 up
link set eth1 up
address add 198.18.254.2/24 dev eth0
route add default dev eth0
"""


def test_no_query_is_lost_when_other_workloads_come_and_go(resolving: Node) -> None:
    names = [f"mnd{resolving.supervisor_pid}-{number}" for number in range(3)]
    others = [
        Workload(uid=f"mesh.{name}", name=name, namespace="mesh", netns=f"/run/netns/{name}")
        for name in names
    ]
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run(["ip", "-n", name, "-batch", "-"], input=LINKS, text=True, check=True)
    try:
        with queries(resolving) as went:
            for other in others:
                assert resolving.ask("mesh", wire.Register((other,), wait=PATIENCE)) == wire.Done()
            for other in others:
                assert resolving.ask("mesh", wire.Unregister((other.uid,))) == wire.Done()
    finally:
        resolving.ask("mesh", wire.Unregister(tuple(other.uid for other in others)))
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=True)
    assert went.pop("answered") > 3 * ASKING
    assert went == {}


def test_no_query_is_lost_when_the_proxies_are_replaced(resolving: Node) -> None:
    before = {proxy.pid for proxy in resolving.proxies()}
    with queries(resolving) as went:
        assert resolving.ask("supervisor", wire.ReplacePool(), 2 * PATIENCE) == wire.Done()
    assert not before & {proxy.pid for proxy in resolving.proxies()}
    assert went.pop("answered") > 3 * ASKING
    assert went == {}
    resolving.eventually(resolving.is_well, "the new proxies have everything")


def test_a_proxy_that_is_killed_loses_what_it_had_in_hand_and_no_more(resolving: Node) -> None:
    victim = next(proxy for proxy in resolving.proxies() if proxy.name.startswith("dns-0"))
    with queries(resolving, patience=10) as before:  # what is lost is waited for as long
        os.kill(victim.pid, signal.SIGKILL)
        resolving.eventually(
            lambda: (one := resolving.children().get(victim.name)) and one.pid != victim.pid,
            "it has ended, and is started again",
        )
        with queries(resolving) as after:
            resolving.eventually(resolving.is_well, "it has everything")
    assert before.keys() <= {"answered", "timed out"}
    assert before.get("timed out", 0) <= ASKING
    assert after.pop("answered") > 0
    assert after == {}
