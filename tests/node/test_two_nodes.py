"""A server and an agent, with pods on each: joining, configuration, identities, and being alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshd import settings, wire
from meshd.base.errors import MeshdError
from meshd.fleet.membership import tokens
from tests.node.endpoints import endpoints
from tests.node.loads import load
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.node.node import Node

TRUST = "spiffe://cluster.local/ns/mesh/sa"
CONFIG = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: far, namespace: mesh}
spec:
  hosts: [far]
  http:
  - headers: {response: {add: {x-told-by: server}}}
    route: [{destination: {host: far}}]
"""


def set_role(of: Node, **values: Any) -> None:
    """Top-level settings: the fixture writes sections only."""
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())
    of.paths.settings.write_text(of.paths.settings.read_text() + lines)


def address(server: Node) -> str:
    return f"127.0.0.1:{server.paths.control_port.read_text().strip()}"


def new_token(server: Node, *options: str) -> str:
    done = server.meshctl("token", "create", "-o", "json", *options)
    assert done.status == 0, done.errors
    return json.loads(done.output)["token"]


def state_of(server: Node, token: str) -> str:
    listed = json.loads(server.meshctl("token", "list", "-o", "json").output)
    (state,) = [one["state"] for one in listed if one["id"] == tokens.parse(token).id]
    return state


def join(node: Node, server: str, token: str, *more: str) -> tuple[int, str]:
    done = node.meshctl("join", server, "--token", token, *more)
    assert "Traceback" not in done.errors
    return done.status, done.errors.strip()


def switches_joined(first: Node, second: Node) -> None:
    """A wire between the two pods' networks, and a route over it from each to the other."""
    name = f"mn{os.getpid()}"
    ends = (
        (first, f"{name}a", "198.18.128.1", second),
        (second, f"{name}b", "198.18.128.2", first),
    )
    switch = {node: node.paths.run / "testbed" / "switch" for node in (first, second)}
    _inside(switch[first], "link", "add", ends[0][1], "type", "veth", "peer", "name", ends[1][1])
    with switch[second].open() as target:
        _inside(
            switch[first],
            *("link", "set", ends[1][1], "netns", f"/proc/self/fd/{target.fileno()}"),
            fds=(target.fileno(),),
        )
    for node, link, own, _ in ends:
        _inside(switch[node], "address", "add", f"{own}/30", "dev", link)
        _inside(switch[node], "link", "set", link, "up")
    for node, link, own, other in ends:
        via = "198.18.128.2" if own.endswith(".1") else "198.18.128.1"
        _inside(switch[node], "route", "add", other.cidr, "via", via, "dev", link)
        command = ["nsenter", f"--net={switch[node]}", "sysctl", "-q", "net.ipv4.ip_forward=1"]
        subprocess.run(command, check=True, timeout=PATIENCE)


def _inside(netns: Path, *arguments: str, fds: tuple[int, ...] = ()) -> None:
    command = ["nsenter", f"--net={netns}", "ip", *arguments]
    subprocess.run(command, check=True, timeout=PATIENCE, pass_fds=fds)


def start_server(make: Callable[..., Node], grace: str, **sections: Any) -> Node:
    """``grace``: for how long a node that is away is not taken for gone."""
    made = make(**sections)
    set_role(
        made,
        node="server",
        role="server",
        control={"address": "127.0.0.1", "port": 0, "disconnect_grace": grace},
    )
    made.start()
    made.eventually(made.paths.control_port.exists, "the server listens")
    return made


@pytest.fixture(scope="module")
def server(make: Callable[..., Node]) -> Node:
    # An agent tries every three seconds or so to reach a server that was away for longer.
    return start_server(make, grace="5s", mesh={"gateway_selection": "own-namespace"})


def start_agent(make: Callable[..., Node], server: Node) -> Node:
    made = make()
    set_role(made, node="agent")
    made.start()
    assert join(made, address(server), new_token(server)) == (0, "")
    return made


@pytest.fixture(scope="module")
def agent(make: Callable[..., Node], server: Node) -> Node:
    return start_agent(make, server)


@pytest.fixture(scope="module")
def pods(server: Node, agent: Node) -> None:
    """alice and near run on the server, bob and far on the agent."""
    write = server.write
    near, far = (write.deployment(n, program="server.py", ready=8080) for n in ("near", "far"))
    services = (write.service("near"), write.service("far"))
    space = write.namespace("mesh", enrolled=True)
    server.up(write.dump(space, *services, write.deployment("alice"), near))
    agent.eventually(lambda: agent.meshctl("get", "svc/far", "-n", "mesh").status == 0, "services")
    agent.up(write.dump(write.deployment("bob"), far))
    switches_joined(server, agent)
    agent.eventually(agent.is_well, "the agent is well")


def ask(node: Node, pod: str, host: str) -> dict[str, Any]:
    """What the host's server saw of a request that the pod made, and what came back."""
    done = node.curl(pod, "-i", "--retry", "3", "--retry-all-errors", f"http://{host}.mesh/")
    head, _, body = done.output.rpartition("\n\n")
    assert " 200 " in head.partition("\n")[0], f"{done}\n{endpoints(node, host)}"
    return {"head": head, **json.loads(body)}


def peers(answer: dict[str, Any]) -> tuple[str, str]:
    """Client and server, as their certificates name them."""
    (xfcc,) = answer["xfcc"]
    found = dict(part.split("=", 1) for part in xfcc.split(";"))
    return found["URI"], found["By"]


@pytest.mark.usefixtures("pods")
def test_pods_of_two_nodes_talk_over_mutual_tls_under_their_own_identities(
    server: Node, agent: Node
) -> None:
    assert peers(ask(agent, "bob", "near")) == (f"{TRUST}/bob", f"{TRUST}/near")
    assert peers(ask(server, "alice", "far")) == (f"{TRUST}/alice", f"{TRUST}/far")
    assert peers(ask(agent, "bob", "far")) == (f"{TRUST}/bob", f"{TRUST}/far")


@pytest.mark.usefixtures("pods")
def test_an_object_applied_on_the_server_is_in_force_on_the_agent(
    server: Node, agent: Node
) -> None:
    with server.applied(CONFIG):
        agent.eventually(lambda: "x-told-by: server" in ask(agent, "bob", "far")["head"], "header")
    agent.eventually(lambda: "x-told-by" not in ask(agent, "bob", "far")["head"], "no header")


@pytest.mark.usefixtures("pods")
def test_an_agent_refuses_to_change_the_configuration_and_names_its_server(
    server: Node, agent: Node
) -> None:
    for arguments, text in (
        (("apply", "-f", "-"), CONFIG),
        (("delete", "svc", "far", "-n", "mesh"), ""),
    ):
        done = agent.meshctl(*arguments, text=text)
        assert done.status == 1
        assert done.errors == (
            "this node is an agent: its configuration comes from "
            f"{address(server)}; run meshctl there\n"
        )
    same = server.meshctl("get", "svc/far", "-n", "mesh", "-o", "yaml").output
    assert "clusterIP:" in same
    for node in (agent, server):
        done = node.meshctl("apply", "-f", "-", text=same)
        assert (done.status, done.output.split()[-1]) == (0, "unchanged"), done


def _ways(held: str) -> Iterator[str]:
    """How each endpoint is reached that a proxy holds."""
    for one in filter(None, held.split(", ")):
        yield "short way" if one.startswith("local/") else "network"


@pytest.mark.usefixtures("pods")
def test_no_request_is_lost_while_a_pod_moves_to_the_clients_node_and_away(
    server: Node, agent: Node
) -> None:
    """There it is reached by the short way, and elsewhere over the network."""
    write = server.write

    def run(node: Node, count: int) -> None:
        node.up(
            write.dump(write.deployment("moving", program="server.py", ready=8080, replicas=count))
        )

    def is_told(*ways: str) -> bool:
        """Whether each of the client's proxies has these endpoints."""
        held = re.findall(r"outbound\|80\|\|moving\.[^[]*\[([^]]*)]", endpoints(server, "moving"))
        return len(held) == 2 and all(sorted(_ways(one)) == list(ways) for one in held)

    server.up(write.dump(write.service("moving")))
    run(agent, 1)
    server.eventually(lambda: is_told("network"), "it is known elsewhere")
    with load(server, "moving.mesh:80") as went:
        run(server, 1)
        server.eventually(lambda: is_told("network", "short way"), "it is known here, too")
        run(agent, 0)
        server.eventually(lambda: is_told("short way"), "it has moved")
        run(agent, 1)
        server.eventually(lambda: is_told("network", "short way"), "it is back")
        run(server, 0)
        server.eventually(lambda: is_told("network"), "it has moved away")
    run(agent, 0)
    server.meshctl("delete", "-n", "mesh", "service", "moving")
    assert went[0]["ok"] > 0
    assert went[0]["failures"] == []


def test_status_shows_both_ends(server: Node, agent: Node) -> None:
    agent.eventually(lambda: is_connected(agent), "it is connected")
    server.eventually(lambda: any(n.connected for n in server.statuses().nodes), "it knows")
    (node,) = server.statuses().nodes
    assert (node.name, node.connected) == ("agent", True)
    control = agent.statuses().control
    assert control
    assert (control.server, control.connected, control.problem) == (address(server), True, "")
    assert control.ends_at
    assert "differ from those of server" not in str(agent.statuses().problems)
    assert "FIRST CERTIFICATE EXPIRES" in agent.meshctl("status").output
    assert "WORKLOADS" in server.meshctl("status").output


def test_a_node_that_does_not_run_yet_joins_and_then_starts_as_an_agent(
    server: Node, make: Callable[..., Node]
) -> None:
    late = make()
    token = new_token(server, "--node", "late")
    done = late.meshctl("join", address(server), "--token", token, "--node", "late")
    assert (done.status, "start it" in done.output) == (0, True), done.errors
    taken_over = settings.load(late.paths.settings).mesh.gateway_selection
    assert taken_over == "own-namespace"
    again = late.meshctl("join", address(server), "--token", new_token(server), "--node", "late")
    assert "a node late has joined already" in again.errors
    path = late.paths.settings
    path.write_text(path.read_text().replace(taken_over, "any-namespace"))
    late.start()
    late.eventually(lambda: is_connected(late), "it is connected")
    late.eventually(
        lambda: "gateway_selection is any-namespace, not own" in str(late.statuses().problems),
        "it says which settings are not the server's",
    )
    late.close()
    server.eventually(lambda: "late" not in str(server.statuses().nodes), "it is forgotten")


def test_only_the_hash_of_a_token_is_kept(server: Node) -> None:
    token = tokens.parse(new_token(server))
    kept = (server.paths.lib / "identity" / "tokens.json").read_bytes()
    assert token.id.encode() in kept
    for form in (token.secret, token.secret.hex().encode(), token.text[7:].encode()):
        assert form not in kept


@pytest.fixture
def stranger(make: Callable[..., Node]) -> Iterator[Node]:
    """Not joined, and not running: settings and keys are all that a join changes."""
    made = make()
    set_role(made, node="stranger")
    before = made.paths.settings.read_text()
    yield made
    assert made.paths.settings.read_text() == before
    assert not (made.paths.node_file).exists()
    made.close()


def test_wrong_tokens_are_refused_each_with_one_clear_line(server: Node, stranger: Node) -> None:
    at = address(server)
    good = new_token(server)
    assert join(stranger, at, "hello") == (
        1,
        'not a join token (tokens begin with "meshd1."); make one on the server with: '
        "meshctl token create",
    )
    status, error = join(stranger, at, good[:-5])
    assert (status, error) == (1, "the token is incomplete: 85 characters, not 90; copy all of it")
    mistaken = good[:40] + ("A" if good[40] != "A" else "B") + good[41:]
    assert join(stranger, at, mistaken) == (
        1,
        "the token is damaged: copy it again",
    )
    pin = tokens.parse(good).pin
    forged = tokens.make(os.urandom(tokens.RANDOM_BYTES), pin).text
    status, error = join(stranger, at, forged)
    assert status == 1
    assert error.startswith(f"server {at} refused: the server does not know this token")
    status, error = join(stranger, at, tokens.make(os.urandom(26), b"x" * 32).text)
    assert status == 1
    assert "has another certificate authority than the one that the token names" in error


def test_expired_reused_and_other_nodes_tokens_say_so(server: Node, stranger: Node) -> None:
    at = address(server)
    short = new_token(server, "--ttl", "1s")
    stranger.eventually(lambda: state_of(server, short) == "expired", "it expires")
    assert "expired on" in join(stranger, at, short)[1]
    bound = new_token(server, "--node", "somebody")
    status, error = join(stranger, at, bound)
    assert status == 1
    assert "is for node somebody, and this is node stranger" in error
    deleted = new_token(server)
    assert server.meshctl("token", "delete", tokens.parse(deleted).id).status == 0
    assert "does not know this token" in join(stranger, at, deleted)[1]


def test_servers_that_are_none_are_told_apart(server: Node, stranger: Node) -> None:
    token = new_token(server)
    status, error = join(stranger, "127.0.0.1:9", token)
    assert status == 3
    assert error.startswith("server 127.0.0.1:9 cannot be reached: ")
    port = server.paths.telemetry_port.read_text().strip()
    status, error = join(stranger, f"127.0.0.1:{port}", token)
    assert status == 3
    assert "is not a meshd server that nodes can join" in error
    assert join(stranger, "127.0.0.1:x", token)[0] == 1
    # None of it has used up the token.
    assert state_of(server, token) == "valid"


def test_strangers_get_nothing_but_the_root_certificate(server: Node) -> None:
    host, _, port = address(server).partition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as raw,
        contextlib.suppress(ssl.SSLError, ConnectionError),
        context.wrap_socket(raw) as tls,
    ):
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        assert tls.recv(1) == b""


# ---- groups

GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {{name: vms, namespace: mesh}}
spec:
  metadata: {{labels: {{group: vm}}}}
  template: {{serviceAccount: vm-account}}
  probe: {{periodSeconds: 1, failureThreshold: 1, exec: {{command: [test, -e, {healthy}]}}}}
---
"""


def entry_health(server: Node) -> list[str]:
    """Of the WorkloadEntries that were made for members of the group."""
    done = server.meshctl("get", "we", "-n", "mesh", "-o", "json")
    return [
        found["metadata"]["annotations"]["meshd.io/healthy"]
        for found in json.loads(done.output)
        if found["metadata"]["name"].startswith("vms-198.18.")
    ]


@pytest.mark.usefixtures("pods")
def test_a_member_of_a_group_is_an_endpoint_while_it_is_healthy(server: Node, agent: Node) -> None:
    # Not below pytest's own directory: each pytest that starts closes it to meshd's user.
    healthy = agent.home / "healthy"
    write = server.write
    service = write.service("vm")
    service["spec"]["selector"] = {"group": "vm"}
    group = GROUP.format(healthy=healthy) + write.dump(service)
    member = write.deployment("any", program="server.py", ready=8080)
    pod = member["spec"]["template"]["metadata"]
    pod["annotations"] = {"meshd.io/workload-group": "vms"}
    with server.applied(group):
        agent.eventually(lambda: agent.meshctl("get", "wg/vms", "-n", "mesh").status == 0, "group")
        agent.up(write.dump(member))
        server.eventually(lambda: entry_health(server) == ["false"], "it is registered")
        assert server.status_of("alice", "http://vm.mesh/") == "503"
        healthy.touch()
        server.eventually(lambda: entry_health(server) == ["true"], "it is healthy")
        assert peers(ask(server, "alice", "vm")) == (f"{TRUST}/alice", f"{TRUST}/vm-account")
        agent.ask("supervisor", wire.RestartRoles(("mesh",)))
        agent.eventually(lambda: is_connected(agent), "connected again")
        server.eventually(lambda: entry_health(server) == ["true"], "it is healthy as before")
        healthy.unlink()
        server.eventually(lambda: entry_health(server) == ["false"], "it is not")
        server.eventually(
            lambda: server.status_of("alice", "http://vm.mesh/") == "503", "it is out"
        )
    # Without its group the pod has another identity, whose certificate only the server signs.
    agent.eventually(agent.is_well, "the former member has its own certificate")


# ---- the server is gone: these come last, each but the last leaves both nodes as they were


@contextlib.contextmanager
def without(server: Node, agent: Node) -> Generator[None]:
    """The server's daemon is killed, and is back, where it was, after the block."""
    port = address(server).rpartition(":")[2]
    settings = server.paths.settings
    settings.write_text(settings.read_text().replace('"port": 0', f'"port": {port}'))
    os.kill(server.supervisor_pid, signal.SIGKILL)
    server.wait_supervisor()
    for pid in list(roles(server)):
        os.kill(pid, signal.SIGKILL)
    try:
        yield
    finally:
        server.start()
        agent.eventually(lambda: is_connected(agent), "the agent is connected again")
        server.eventually(lambda: any(n.connected for n in server.statuses().nodes), "it knows")


def roles(node: Node) -> Iterator[int]:
    """Their processes; proxies and pods are none."""
    for pid in node.processes():
        with contextlib.suppress(OSError):
            if b"\0-m\0meshd\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield pid


def is_connected(agent: Node) -> bool:
    try:
        control = agent.statuses().control
    except MeshdError:
        return False
    return control is not None and control.connected


@pytest.mark.usefixtures("pods")
def test_without_the_server_traffic_goes_on_and_after_restarts_too(
    server: Node, agent: Node
) -> None:
    both = ((f"{TRUST}/bob", f"{TRUST}/near"), (f"{TRUST}/bob", f"{TRUST}/far"))
    with without(server, agent):
        agent.eventually(lambda: not is_connected(agent), "the agent has noticed")
        assert (peers(ask(agent, "bob", "near")), peers(ask(agent, "bob", "far"))) == both
        done = agent.meshctl("status")
        assert done.status == 1
        assert re.search(
            r"^server \S+: not connected: its last configuration, .* old", done.errors, re.M
        )
        agent.ask("supervisor", wire.RestartRoles(("identity", "mesh", "capture")))
        agent.eventually(agent.is_well, "well after its roles have begun anew")
        assert (peers(ask(agent, "bob", "near")), peers(ask(agent, "bob", "far"))) == both
        # All of meshd, its proxies too: every certificate and all configuration is from disk.
        os.kill(agent.supervisor_pid, signal.SIGTERM)
        agent.wait_supervisor()
        agent.start()
        assert (peers(ask(agent, "bob", "near")), peers(ask(agent, "bob", "far"))) == both
        assert not is_connected(agent)
    assert peers(ask(server, "alice", "far")) == (f"{TRUST}/alice", f"{TRUST}/far")


@pytest.mark.usefixtures("pods")
def test_no_request_fails_when_the_server_is_killed_and_comes_back(
    server: Node, agent: Node
) -> None:
    loads = [
        agent.asking("bob", "load", "near.mesh:80", 2),
        server.asking("alice", "load", "far.mesh:80", 2),
    ]
    for one in loads:
        assert one.stdout
        assert one.stdout.readline() == "begun\n"
    with without(server, agent):
        agent.eventually(lambda: not is_connected(agent), "the agent has noticed")
    for one in loads:
        output, errors = one.communicate("", timeout=2 * PATIENCE)
        result = json.loads(output.splitlines()[-1])
        assert result["failures"] == [], errors
        assert result["ok"] > 10


@pytest.mark.usefixtures("pods")
def test_the_endpoints_of_an_agent_that_stays_away_are_taken_out_and_come_back(
    server: Node, agent: Node
) -> None:
    def known() -> str:
        return server.meshctl("explain", "alice", "far.mesh:80", "-n", "mesh", "-o", "json").output

    far = agent.pod("far").plan.address
    assert far in known()
    os.kill(agent.supervisor_pid, signal.SIGTERM)
    agent.wait_supervisor()
    server.eventually(lambda: far not in known(), "its workloads are taken out")
    agent.start()
    server.eventually(lambda: far in known(), "they are back")
    served = ("alice", "http://far.mesh/")
    server.eventually(lambda: server.status_of(*served) == "200", "the proxies have them, too")
    assert peers(ask(server, "alice", "far")) == (f"{TRUST}/alice", f"{TRUST}/far")


@pytest.mark.usefixtures("pods")
def test_a_workload_that_waits_for_its_certificate_holds_up_no_proxy(
    server: Node, agent: Node
) -> None:
    def certified(name: str) -> bool:
        rows = agent.statuses().workloads
        return any(row.certificate_expires for row in rows if row.service_account == name)

    def is_replaced(pid: int) -> bool:
        now = agent.children().get("proxy-0")
        return now is not None and now.pid != pid and now.state == "running"

    with without(server, agent):
        agent.eventually(lambda: not is_connected(agent), "the agent has noticed")
        agent.up(agent.write.dump(agent.write.deployment("late", program="server.py", ready=8080)))
        told, pid = len(agent.log), agent.children()["proxy-0"].pid
        os.kill(pid, signal.SIGKILL)
        agent.eventually(lambda: is_replaced(pid), "a new proxy is live")
        assert "initial fetch timed out" not in agent.log[told:]
        assert peers(ask(agent, "bob", "far")) == (f"{TRUST}/bob", f"{TRUST}/far")
        assert not certified("late")
    agent.eventually(agent.is_well, "all have certificates")
    assert certified("late")
