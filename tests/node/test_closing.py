"""What closes does not wait for a compilation of thousands of services, nor for a server that
cannot tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.node.test_crashes import kill
from tests.node.test_killing_records import mortal_node
from tests.node.test_two_nodes import set_role, start_agent, start_server
from tests.ports import free_port
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.node.node import Node

POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: guard, namespace: shop}
spec: {mtls: {mode: MODE}}
"""
DENYING = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [clients]}}]}]}
"""
WELL, REFUSED, DENIED = "200", "000", "403"
SERVICES = 2000
PORT = (("http", 80, 8080),)

_HELD = """
import sys, time
from pathlib import Path
if sys.orig_argv[-1] == "mesh":
    from meshd.node.publishing import Publishing
    compiles, hold = Publishing._compile, Path(__file__).with_name("hold")
    def held(self, *given):
        made = compiles(self, *given)
        if hold.exists():
            print("a compilation is held", file=sys.stderr, flush=True)
            while hold.exists():
                time.sleep(0.05)
            print("a compilation is let go", file=sys.stderr, flush=True)
        return made
    Publishing._compile = held
"""
"""A compilation ends only when it is let: what is seen until then does not depend on how long it
takes."""


def policy(mode: str) -> str:
    return POLICY.replace("MODE", mode)


def population(place: Node) -> tuple[str, str]:
    """The namespaces and services, and the pods: servers, clients and strangers each in a namespace
    of their own."""
    write = place.write
    objects = (
        write.namespace("shop", enrolled=True),
        write.namespace("clients", enrolled=True),
        write.namespace("outside", enrolled=False),
        write.service("server", "shop"),
    )
    pods = (
        write.deployment("server", "shop", program="server.py", ready=8080),
        write.deployment("alice", "clients"),
        write.deployment("stranger", "outside"),
    )
    return write.dump(*objects), write.dump(*pods)


def from_outside(place: Node) -> str:
    address = place.pod("server.shop").plan.address
    return place.status_of("stranger.outside", f"http://{address}:8080/who")


def from_a_client(place: Node) -> str:
    return place.status_of("alice.clients", "http://server.shop/who")


def certificates(place: Node) -> list[str]:
    """Those that the server is shown by its client of the mesh."""
    (answer,) = place.answers("alice.clients", "http", "server.shop:80", 1)
    return answer["xfcc"]


def many_services(place: Node) -> str:
    write = place.write
    return write.dump(
        *(write.service(f"filler-{number}", "shop", ports=PORT) for number in range(SERVICES))
    )


def test_a_stricter_policy_is_in_force_before_the_compilation_of_thousands_of_services_ends(
    make: Callable[..., Node],
) -> None:
    place = mortal_node(make, _HELD)
    hold: Path = place.home / "hold"
    place.start()
    place.up("---\n".join(population(place)))
    place.apply(policy("DISABLE"))
    place.eventually(place.is_well, "all is well")
    place.eventually(lambda: certificates(place) == [], "the server is spoken to in plaintext")
    assert from_outside(place) == WELL
    hold.touch()
    (place.paths.config_directory / "many.yaml").write_text(many_services(place))
    place.eventually(lambda: "a compilation is held" in place.log, "it is compiled", 2 * PATIENCE)
    done = place.meshctl("apply", "-f", "-", text=policy("STRICT"))
    assert done.status == 0, done.errors
    place.eventually(lambda: from_outside(place) == REFUSED, "plaintext is refused")
    place.eventually(lambda: from_a_client(place) == WELL, "a client of the mesh is served")
    place.eventually(lambda: certificates(place), "it shows its certificate")
    assert "filler-0.shop" not in place.meshctl("proxy-config", "clusters").output
    done = place.meshctl("apply", "-f", "-", text=DENYING)
    assert done.status == 0, done.errors
    place.eventually(lambda: from_a_client(place) == DENIED, "the client is denied")
    assert "a compilation is let go" not in place.log
    assert from_outside(place) == REFUSED
    hold.unlink()
    place.eventually(
        lambda: "filler-0.shop" in place.meshctl("proxy-config", "clusters").output,
        "all is compiled",
        2 * PATIENCE,
    )
    assert (from_outside(place), from_a_client(place)) == (REFUSED, DENIED)
    done = place.meshctl("delete", "-f", "-", text=DENYING)
    assert done.status == 0, done.errors
    place.eventually(lambda: from_a_client(place) == WELL, "the client is served again")
    assert certificates(place)
    place.close()


_CANNOT_TELL = """
import os, signal, sys
if sys.orig_argv[-1] == "server":
    from meshd.fleet.server import mcp
    encode = mcp.encode
    def deadly(value):
        spec = value.get("spec") or {}
        if value["metadata"]["name"] == "guard" and spec == {"mtls": {"mode": "STRICT"}}:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(value)
    mcp.encode = deadly
"""
"""The server can tell a policy, and cannot any more when it has become stricter."""


def test_an_agent_closes_a_policy_whose_change_its_server_cannot_tell(
    make: Callable[..., Node],
) -> None:
    server = mortal_node(make, _CANNOT_TELL)
    control = {"address": "127.0.0.1", "port": free_port(), "disconnect_grace": "600s"}
    set_role(server, node="server", role="server", control=control)  # at the same port again
    server.start()
    server.eventually(server.paths.control_port.exists, "the server listens")
    objects, pods = population(server)
    server.apply(objects + "---\n" + policy("PERMISSIVE"))
    agent = start_agent(make, server)
    agent.eventually(lambda: agent.meshctl("get", "svc/server", "-n", "shop").status == 0, "told")
    agent.up(pods)
    agent.eventually(agent.is_well, "the agent is well")
    agent.eventually(lambda: from_outside(agent) == WELL, "plaintext is accepted")
    done = server.meshctl("apply", "-f", "-", text=policy("STRICT"))
    assert done.status == 0, done.errors
    agent.eventually(lambda: from_outside(agent) == REFUSED, "it is closed", 3 * PATIENCE)
    agent.eventually(lambda: from_a_client(agent) == WELL, "a client of the mesh is served")
    status = agent.meshctl("status")
    assert "PeerAuthentication shop/guard" in status.output + status.errors
    server.apply(policy("PERMISSIVE"))
    agent.eventually(lambda: from_outside(agent) == WELL, "what can be told is in force again")
    agent.close()
    server.close()


def test_what_a_server_has_lost_closes_the_way_out_of_its_agents_before_that_is_compiled(
    make: Callable[..., Node],
) -> None:
    server = start_server(make, grace="600s")
    objects, pods = population(server)
    server.apply(objects)
    agent = start_agent(lambda: mortal_node(make, _HELD), server)
    agent.eventually(lambda: agent.meshctl("get", "svc/server", "-n", "shop").status == 0, "told")
    write = agent.write
    external = write.deployment("external", "outside", program="server.py", ready=8080)
    agent.up(pods + "---\n" + write.dump(external))
    agent.eventually(agent.is_well, "the agent is well")
    far = f"http://{agent.pod('external.outside').plan.address}:8080/who"

    def gets_out() -> bool:
        return agent.status_of("alice.clients", far) == WELL

    agent.eventually(gets_out, "what is not in the mesh is reached")
    hold: Path = agent.home / "hold"
    hold.touch()
    (server.paths.lib / "applied.json").write_text("{")
    kill(server, "mesh")
    agent.eventually(lambda: not gets_out(), "nothing leaves the mesh", 2 * PATIENCE)
    agent.eventually(lambda: from_outside(agent) == REFUSED, "plaintext is refused")
    assert from_a_client(agent) == WELL
    agent.eventually(lambda: "a compilation is held" in agent.log, "it is compiled", 2 * PATIENCE)
    assert "a compilation is let go" not in agent.log
    hold.unlink()
    agent.eventually(lambda: "a compilation is let go" in agent.log, "its compilation ends")
    agent.eventually(agent.is_well, "all is in force", 2 * PATIENCE)
    assert not gets_out()
    assert (from_outside(agent), from_a_client(agent)) == (REFUSED, WELL)
    agent.close()
    server.close()
