"""Coming and going: again is no change, and what goes leaves nothing."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import msgspec

from meshd import wire
from meshd.model.workload import Workload

if TYPE_CHECKING:
    from tests.node.node import Node


def rules(netns: str) -> str:
    """All tables of a namespace in the kernel's order, without dates and counters."""
    saved = ""
    for program in (
        "iptables-nft-save",
        "iptables-legacy-save",
        "ip6tables-nft-save",
        "ip6tables-legacy-save",
    ):
        done = subprocess.run(
            ["nsenter", f"--net={netns}", program], capture_output=True, text=True, check=True
        )
        saved += done.stdout
    lines = [line for line in saved.splitlines() if not line.startswith("#")]
    return re.sub(r"\[\d+:\d+\]", "", "\n".join(lines))


def policy_routes(netns: str) -> str:
    done = subprocess.run(
        ["nsenter", f"--net={netns}", "sh", "-c", "ip rule; ip -6 rule; ip route show table all"],
        capture_output=True,
        text=True,
        check=True,
    )
    # The kernel adds a link's own IPv6 addresses when it finds the time.
    return "\n".join(line for line in done.stdout.splitlines() if "fe80:" not in line)


def test_up_again_changes_nothing_for_a_live_workload(node: Node) -> None:
    before = {pod: node.pod(pod) for pod in ("server", "alice")}
    saved = {pod: rules(state.netns) for pod, state in before.items()}
    pids = {name: child.pid for name, child in node.children().items()}
    write = node.write
    node.up(
        write.dump(
            write.namespace("mesh", enrolled=True),
            write.deployment("server", program="server.py", ready=8080),
            write.deployment("alice"),
        )
    )
    for pod, state in before.items():
        now = node.pod(pod)
        assert [each.pid for each in now.containers] == [each.pid for each in state.containers]
        assert rules(now.netns) == saved[pod]
    assert {name: child.pid for name, child in node.children().items()} == pids


def test_apply_again_changes_nothing(node: Node) -> None:
    service = node.write.dump(node.write.service("server"))
    done = node.meshctl("apply", "-f", "-", "-n", "mesh", text=service)
    assert "unchanged" in done.output
    pod = node.pod("server")
    for _ in range(2):
        done = node.meshctl("capture", "check", "--netns", pod.netns)
        assert done.status == 0, done.output + done.errors


def test_a_pod_that_leaves_the_mesh_is_as_it_was_and_keeps_its_own_rules(node: Node) -> None:
    write = node.write
    pod = write.deployment("guest", "guests")

    def up(enrolled: bool) -> str:
        node.up(write.dump(write.namespace("guests", enrolled=enrolled), pod))
        return node.pod("guest.guests").netns

    netns = up(False)
    for command in (
        "iptables-nft -t nat -N OWN",
        "iptables-nft -t nat -A OUTPUT -p udp -j OWN",
        "iptables-nft -A INPUT -p tcp --dport 7 -j DROP",
        "ip6tables-nft -A INPUT -p udp -j ACCEPT",
        "ip rule add from 198.18.0.99 lookup 77",
    ):
        subprocess.run(["nsenter", f"--net={netns}", *command.split()], check=True)
    before, routes = rules(netns), policy_routes(netns)
    try:
        assert up(True) == netns
        assert len(node.answers("guest.guests", "http", "server.mesh:80", 1)) == 1
        inside = rules(netns)
        assert "MESHD_OUTPUT" in inside
        assert all(line in inside.splitlines() for line in before.splitlines())
        up(False)
        # Nobody waits for the last of it: the pod runs on.
        node.eventually(
            lambda: (rules(netns), policy_routes(netns)) == (before, routes),
            "its rules and routes are as they were",
        )
    finally:
        node.up(write.dump(pod | {"spec": pod["spec"] | {"replicas": 0}}))


def test_a_pod_that_ends_leaves_nothing(node: Node) -> None:
    write = node.write
    pod = write.deployment("brief")
    node.up(write.dump(pod))
    state = node.pod("brief")
    assert len(node.answers("brief", "http", "server:80", 1)) == 1
    node.up(write.dump(pod | {"spec": pod["spec"] | {"replicas": 0}}))

    def traces() -> list[str]:
        uid = state.plan.uid
        found = [row.workload for row in node.statuses().workloads if row.workload in uid]
        found += [str(path) for path in node.paths.netns.glob(f"{uid}*")]
        found += [mounted for mounted in node.mounts() if uid in mounted]
        listeners = node.ask("mesh", wire.ProxyConfig("listeners"))
        assert isinstance(listeners, wire.Objects)
        found += [str(each["name"]) for each in listeners.objects if uid in str(each)]
        return found

    node.eventually(lambda: not traces(), "nothing is left of it")


def test_a_namespace_that_vanishes_while_it_joins_hurts_nobody_else(node: Node) -> None:
    name = f"mnv{node.supervisor_pid}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    workload = Workload(
        uid="mesh.gone",
        name="gone",
        namespace="mesh",
        netns=f"/run/netns/{name}",
        service_account="gone",
        addresses=("198.18.255.250",),
    )
    try:
        assert node.ask("mesh", wire.Register((workload,))) == wire.Done()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    never = wire.Register(
        (msgspec.structs.replace(workload, uid="mesh.never", netns="/run/netns/mn-never"),),
        wait=1.0,
    )
    answer = node.ask("mesh", never)
    assert isinstance(answer, wire.Failed)
    assert "mesh/never" in answer.reason
    assert "\n" not in answer.reason
    assert len(node.answers("alice", "http", "server:80", 1)) == 1
    assert node.ask("mesh", wire.Unregister(("mesh.gone", "mesh.never"))) == wire.Done()
    node.eventually(node.is_well, "all is well")
