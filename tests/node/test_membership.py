"""Who belongs to a server's mesh: what a node may run, and how it is put out and comes back."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from meshd import wire
from tests.node.test_two_nodes import address, is_connected, join, new_token, set_role, start_server
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.node.node import Node


@pytest.fixture(scope="module")
def server(make: Callable[..., Node]) -> Node:
    """What has to be gone at once must not wait for its grace."""
    return start_server(make, grace="600s")


@pytest.fixture(scope="module")
def agent(make: Callable[..., Node], server: Node) -> Node:
    """Bound to the namespace bank."""
    made = make()
    set_role(made, node="agent")
    made.start()
    assert join(made, address(server), new_token(server, "--namespace", "bank")) == (0, "")
    write = made.write
    spaces = [write.namespace(name, enrolled=True) for name in ("bank", "shop")]
    server.apply(write.dump(*spaces))
    made.eventually(lambda: made.meshctl("get", "ns", "shop").status == 0, "it is told")
    made.up(write.dump(write.deployment("till", "bank")))
    return made


@pytest.fixture(scope="module")
def thief(agent: Node) -> Iterator[Future[None]]:
    """A pod of another namespace: done when it is in the mesh."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(agent.up, agent.write.dump(agent.write.deployment("thief", "shop")))


def certified(agent: Node) -> dict[str, bool]:
    rows = agent.statuses().workloads
    return {row.namespace: row.certificate_expires is not None for row in rows}


def known(server: Node) -> set[str]:
    """Service accounts that the server takes to run on the agent."""
    answer = server.ask("server", wire.Nodes())
    assert isinstance(answer, wire.NodeStatuses)
    return {f"{one.name}:{one.workloads}" for one in answer.nodes}


def kept_out(agent: Node) -> tuple[str, ...]:
    control = agent.statuses().control
    return control.kept_out if control else ()


@pytest.mark.usefixtures("thief")
def test_a_node_is_taken_for_what_it_is_bound_to_only(server: Node, agent: Node) -> None:
    agent.eventually(lambda: certified(agent) == {"bank": True, "shop": False}, "one of two")
    server.eventually(lambda: known(server) == {"agent:1"}, "the server takes one of two")
    reason = "node agent is bound to bank, and this is shop/thief; on the server, meshctl node bind"
    refused = f"refused: spiffe://cluster.local/ns/shop/sa/thief: {reason}"
    for said in ("rejected workload shop/thief-", refused):
        agent.eventually(lambda said=said: said in agent.meshctl("status").errors, said)
    for said in ("does not take workload shop/thief-", f"sa/thief: {reason}"):
        agent.eventually(lambda said=said: said in agent.log, said)
        assert agent.log.count(said) == 1
    server.eventually(lambda: reason in server.meshctl("status").errors, "the server says so too")
    (row,) = json.loads(server.meshctl("node", "list", "-o", "json").output)
    assert (row["name"], row["namespaces"], row["connected"]) == ("agent", ["bank"], True)


def test_other_bounds_count_at_once(server: Node, agent: Node, thief: Future[None]) -> None:
    assert server.meshctl("node", "bind", "agent", "--any").status == 0
    thief.result(PATIENCE)
    agent.eventually(lambda: certified(agent) == {"bank": True, "shop": True}, "both")
    agent.eventually(lambda: not kept_out(agent), "it is not told off any more")
    server.eventually(lambda: known(server) == {"agent:2"}, "the server takes both")
    done = server.meshctl("node", "bind", "agent", "--namespace", "bank/till")
    assert done.output == "node agent is bound to bank/till\n"
    agent.eventually(lambda: kept_out(agent), "it is told")
    server.eventually(lambda: known(server) == {"agent:1"}, "the server takes one again")


@pytest.mark.usefixtures("thief")
def test_a_node_that_is_removed_is_out_at_once_and_comes_back_with_a_new_token_only(
    server: Node, agent: Node
) -> None:
    agent.eventually(lambda: is_connected(agent), "it is connected")
    assert server.meshctl("node", "remove", "agent").output == "node agent removed\n"
    server.eventually(lambda: known(server) == set(), "it is out")
    assert json.loads(server.meshctl("node", "list", "-o", "json").output) == []

    def is_refused() -> bool:
        return "it was removed; to come back it needs a new token" in agent.meshctl("status").errors

    agent.eventually(is_refused, "it is told why")
    port = address(server).rpartition(":")[2]
    settings = server.paths.settings
    settings.write_text(settings.read_text().replace('"port": 0', f'"port": {port}'))
    for role in ("identity", "server"):
        before = server.children()[role]
        os.kill(before.pid, signal.SIGKILL)
        server.eventually(
            lambda role=role, before=before: server.children().get(role, before) != before, "anew"
        )
    server.eventually(server.is_well, "the server is well again")
    agent.ask("supervisor", wire.RestartRoles(("mesh",)))
    agent.eventually(is_refused, "it is refused as before")
    assert certified(agent)["bank"], "what it has stays in force"
    assert server.meshctl("node", "remove", "agent").errors == (
        "there is no node agent: see meshctl node list\n"
    )
    assert join(agent, address(server), new_token(server)) == (0, "")
    agent.eventually(lambda: certified(agent) == {"bank": True, "shop": True}, "all of it again")


def test_an_agent_whose_clock_is_a_day_off_says_so_and_keeps_what_it_has(
    server: Node, agent: Node
) -> None:
    """The clock of its processes, that is: the machine's is not touched."""
    shift = "import time\nreal = time.time\ntime.time = lambda: real() + {}\n"
    customized = agent.home / "clock" / "sitecustomize.py"
    customized.parent.mkdir(mode=0o755)
    agent.prefix = ("env", f"PYTHONPATH={customized.parent}")
    leaves = agent.paths.lib / "identity" / "leaves"
    before = {path.name for path in leaves.iterdir()}
    for days, words in (
        (40, "this node's certificate ended on .* else set the clock"),
        (1.1, "this host's clock is 1 day ahead of that of server .*: set the clock that is wrong"),
        (-1, "this host's clock is 1 day before that: set the clock"),
    ):
        customized.write_text(shift.format(days * 86400))
        os.kill(agent.supervisor_pid, signal.SIGTERM)
        agent.wait_supervisor()
        began = len(agent.log)
        agent.launch()
        agent.eventually(
            lambda words=words: re.search(words, agent.meshctl("status").errors), words
        )
        agent.eventually(
            lambda words=words, began=began: re.search(words, agent.log[began:]), f"log: {words}"
        )
        assert len(re.findall(words, agent.log[began:])) <= 3, "once of each certificate and server"
        assert agent.eventually(lambda: certified(agent)["bank"], "what there is goes on")
    agent.prefix = ()
    os.kill(agent.supervisor_pid, signal.SIGTERM)
    agent.wait_supervisor()
    agent.start()
    assert {path.name for path in leaves.iterdir()} == before
    agent.eventually(lambda: is_connected(agent) and not agent.meshctl("status").errors, "mended")
    server.eventually(lambda: server.meshctl("status").status == 0, "the server is content")
