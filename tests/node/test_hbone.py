"""Two nodes whose workloads reach each other by tunnels. Clients, servers and what is said of them
are in namespaces of their own."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.node.test_two_nodes import address, join, new_token, set_role, switches_joined

if TYPE_CHECKING:
    from tests.node.node import Node

ON = {"hbone": True}
STRICT = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default", "namespace": "istio-system"},
    "spec": {"mtls": {"mode": "STRICT"}},
}


@pytest.fixture(scope="module")
def server(make: Callable[..., Node]) -> Node:
    made = make(proxy=ON)
    set_role(made, node="server", role="server", control={"address": "127.0.0.1", "port": 0})
    made.start()
    made.eventually(made.paths.control_port.exists, "the server listens")
    return made


@pytest.fixture(scope="module")
def agent(make: Callable[..., Node], server: Node) -> Iterator[Node]:
    made = make(proxy=ON)
    set_role(made, node="agent")
    made.start()
    assert join(made, address(server), new_token(server)) == (0, "")
    write, agents = made.write, ("client", "far")
    spaces = [write.namespace(name, enrolled=True) for name in ("front", "back")]
    suited = {"meshd.io/tunnels": "true"}
    objects = [write.service(name, "back", annotations=suited) for name in ("near", "far")]
    server.up(
        write.dump(
            *spaces,
            *objects,
            write.deployment("near", "back", program="server.py", ready=8080),
            write.deployment("caller", "front"),
        )
    )
    made.eventually(lambda: made.meshctl("get", "svc/far", "-n", "back").status == 0, "services")
    made.up(
        write.dump(
            write.deployment(agents[0], "front"),
            write.deployment(agents[1], "back", program="server.py", ready=8080),
        )
    )
    switches_joined(server, made)
    made.eventually(made.is_well, "the agent is well")
    with server.applied(write.dump(STRICT)):
        yield made


def way(node: Node, client: str, host: str) -> str:
    done = node.meshctl("explain", client, f"{host}.back:91", "-n", "front", "-o", "json")
    stages = json.loads(done.output)["stages"]
    ends = [one["detail"] for one in stages if one["stage"] == "endpoint"]
    tunneled = ["(tunnel, to spiffe://" in end for end in ends]
    return "tunnel" if tunneled == [True] else f"mutual TLS: {ends}"


def takes(server: Node, agent: Node, expected: str) -> None:
    """Both ways, between the nodes."""
    for node, client, host in ((server, "caller", "far"), (agent, "client", "near")):
        node.eventually(
            lambda node=node, client=client, host=host: way(node, client, host).startswith(
                expected
            ),
            expected,
        )
        answers = node.answers(f"{client}.front", "tcp", f"{host}.back:91", 10, 4)
        assert len(answers) == 40
        for answer in answers:
            assert answer["echoed"]
            assert node.pod(f"{client}.front").plan.address in str(answer["peer"])
        assert node.status_of(f"{client}.front", f"http://{host}.back/") == "200"


def test_workloads_of_two_nodes_reach_each_other_by_tunnels(server: Node, agent: Node) -> None:
    takes(server, agent, "tunnel")
    (row,) = [one for one in agent.statuses().workloads if one.workload.startswith("far")]
    assert row.hbone == "open"


def test_a_node_that_knows_nothing_of_tunnels_is_spoken_to_as_before(
    server: Node, agent: Node
) -> None:
    os.kill(agent.supervisor_pid, signal.SIGTERM)
    agent.wait_supervisor()
    settings = agent.paths.settings
    turned_off = re.sub(r'(hbone"?: )true', r"\1false", settings.read_text())
    assert "false" in turned_off
    settings.write_text(turned_off)
    agent.start()
    agent.eventually(agent.is_well, "the agent is well")
    takes(server, agent, "mutual TLS")
