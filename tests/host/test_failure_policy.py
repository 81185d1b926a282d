"""What becomes of the pods' traffic while nobody is there to take it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from tests.host import listening
from tests.host.machine import eventually
from tests.host.node import SETTINGS, Node
from tests.host.population import IMAGES, deployment

SWITCH = "/run/meshd/testbed/switch"
PLAIN = b" HTTP/1.1"
EAGER = "[sh, -c, 'while :; do curl -s -m 2 -o /dev/null http://{address}:8080/; sleep 0.02; done']"
NO_PROXY = SETTINGS.replace("drain_time: 2s", "drain_time: 2s, binary: /bin/false")


def overheard(node: Node) -> AbstractContextManager[list[bytes]]:
    """All TCP between pods, as it was on the wire; in the list after the block."""
    return listening.overheard(node.machine, "tcp", "nsenter", f"--net={SWITCH}")


def address(node: Node, name: str) -> str:
    rows = node.statuses().workloads
    return next(row.address for row in rows if row.workload.startswith(name))


def service(node: Node) -> str:
    """Its address, of which only the mesh knows."""
    return node.client("getent", "ahostsv4", "server").stdout.split()[0]


def end_everything(node: Node) -> None:
    node.systemctl("stop", "meshd")
    node.systemctl("stop", "meshd-proxies.slice")


def test_closed_nothing_passes_in_plain_not_even_while_everything_of_meshd_is_dead(
    well: Node,
) -> None:
    server, inside = address(well, "server"), service(well)
    with overheard(well) as heard:
        assert well.status_of(f"http://{inside}:8080/") == "200"
        end_everything(well)
        assert well.status_of(f"http://{inside}:8080/") == "000"
        assert well.status_of(f"http://{server}:8080/") == "000"
        into = well.machine.run("curl", "-s", "-m", "3", f"http://{server}:8080/")
        assert into.returncode != 0
        well.systemctl("start", "meshd")
        well.get_well()
        assert well.status_of(f"http://{inside}:8080/") == "200"
    assert len(heard[0]) > 1000
    assert PLAIN not in heard[0]


def test_closed_what_starts_after_boot_is_in_the_mesh_from_its_first_packet(well: Node) -> None:
    well.systemctl("enable", "meshd")
    well.machine.reboot()
    well.up()
    eager = deployment("eager", EAGER.replace("{address}", service(well)))
    with overheard(well) as heard:
        command = ("meshctl", "testbed", "up", "-f", "-", "--images", IMAGES)
        well.machine.ask(*command, text=eager, timeout=90)
        well.get_well()
        end_everything(well)
        well.systemctl("start", "meshd")
        well.get_well()
    assert len(heard[0]) > 1000
    assert PLAIN not in heard[0]
    well.machine.ask("meshctl", "testbed", "down")
    well.up()


def test_open_traffic_passes_unprotected_and_everything_says_so(well: Node) -> None:
    server = address(well, "server")
    end_everything(well)
    well.configure(f"failure_policy: open\n{NO_PROXY}")
    well.systemctl("start", "meshd")
    try:
        eventually(
            lambda: all(row.unprotected for row in well.statuses().workloads),
            "all pods are opened",
        )
        with overheard(well) as heard:
            assert well.status_of(f"http://{server}:8080/") == "200"
        assert PLAIN in heard[0]
        for row in well.statuses().workloads:
            assert not row.captured
            assert row.problem.startswith("UNPROTECTED")
        assert set(well.metric("meshd_workload_unprotected{").values()) == {1.0}
        told = well.machine.journal("MESHD_EVENT=unprotected", "PRIORITY=3")
        assert {entry["MESHD_WORKLOAD"].split("-")[0] for entry in told} == {
            "mesh.client",
            "mesh.server",
        }
        shown = well.machine.run("meshctl", "status")
        assert shown.returncode == 1
        assert "UNPROTECTED" in shown.stderr
    finally:
        well.configure(f"failure_policy: open\n{SETTINGS}")
        well.systemctl("restart", "meshd")
    well.get_well()
    with overheard(well) as heard:
        assert well.status_of(f"http://{service(well)}:8080/") == "200"
    assert PLAIN not in heard[0]
    assert set(well.metric("meshd_workload_unprotected{").values()) == {0.0}
    well.configure(SETTINGS)
    well.systemctl("reload", "meshd")
