"""What becomes of the pods' traffic while nobody is there to take it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterator

import pytest

from tests.host import listening
from tests.host.node import SETTINGS, Node
from tests.host.population import IMAGES, deployment
from tests.host.traffic import OFFERS, enrolled
from tests.waiting import eventually

SWITCH = "/run/meshd/testbed/switch"
PLAIN = b" HTTP/1.1"
EAGER = "[sh, -c, 'while :; do curl -s -m 2 -o /dev/null http://{address}:8080/; sleep 0.02; done']"
NO_PROXY = SETTINGS.replace("drain_time: 2s", "drain_time: 2s, binary: /bin/false")
INSIDE = "server.mesh.svc.cluster.local"
OUTSIDE = "outside.test"
WORLD = (
    *("systemd-run", "--quiet", "--unit=world", "dnsmasq", "--keep-in-foreground"),
    *("--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"),
    *("--listen-address=127.0.0.1", f"--address=/{OUTSIDE}/198.18.0.1"),
)
"""The resolver that this host asks where there is no mesh."""
KILLER = "while :; do systemctl kill -s KILL 'meshd-{name}-*.scope'; sleep 0.1; done"


def overheard(node: Node) -> contextlib.AbstractContextManager[list[bytes]]:
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


@pytest.fixture(scope="module")
def hosting(node: Node) -> Iterator[Node]:
    """With services of the host itself in the mesh."""
    node.get_well()
    offers = ("--service", "till", *OFFERS)
    with (
        enrolled(node.machine, "till", "server.py", *offers),
        enrolled(node.machine, "buyer"),
    ):
        yield node
    node.configure(SETTINGS)
    node.systemctl("restart", "meshd")


def as_buyer(node: Node, *command: str) -> str:
    """What a command prints that is run as the host's own service."""
    place = node.machine.ask("systemctl", "show", "--property=Slice", "--value", "buyer").strip()
    run = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--slice={place}")
    return node.machine.run(*run, *command).stdout


def buyer_is_told(node: Node, url: str) -> str:
    options = ("-s", "-o", "/dev/null", "-m", "20", "-w", "%{http_code}")
    return as_buyer(node, "curl", *options, url)


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
    assert well.status_of("http://server:8080/") == "200"
    eager = deployment("eager", EAGER.replace("{address}", service(well)))
    with overheard(well) as heard:
        command = ("meshctl", "testbed", "up", "-f", "-", "--images", IMAGES)
        well.machine.ask(*command, text=eager)
        well.get_well()
        end_everything(well)
        well.systemctl("start", "meshd")
        well.get_well()
    assert len(heard[0]) > 1000
    assert PLAIN not in heard[0]
    well.machine.ask("meshctl", "testbed", "down")
    well.up()


def test_open_traffic_passes_unprotected_and_everything_says_so(hosting: Node) -> None:
    well, server = hosting, address(hosting, "server")
    end_everything(well)
    well.configure(f"failure_policy: open\n{NO_PROXY}")
    well.systemctl("start", "meshd")
    try:
        eventually(
            lambda: all(
                row.unprotected and not row.captured and row.problem.startswith("UNPROTECTED")
                for row in well.statuses().workloads
            ),
            "all are opened",
        )
        for ask, url in (
            (well.status_of, f"http://{server}:8080/"),
            (well.status_of, f"http://{well.machine.address}:8080/"),
            (functools.partial(buyer_is_told, well), f"http://{server}:8080/"),
        ):
            with overheard(well) as heard:
                assert ask(url) == "200"
            assert PLAIN in heard[0]
        assert "MESHD" not in well.machine.ask("iptables-save")
        eventually(lambda: unprotected(well) == {1.0}, "the metric says so")
        wanted = {"mesh.client", "mesh.server", "mesh.buyer", "mesh.till"}
        eventually(lambda: told_of(well) == wanted, "the journal says so")
        shown = well.machine.run("meshctl", "status")
        assert shown.returncode == 1
        assert "UNPROTECTED" in shown.stderr
    finally:
        well.configure(f"failure_policy: open\n{SETTINGS}")
        well.systemctl("restart", "meshd")
    well.get_well()
    with overheard(well) as heard:
        assert well.status_of(f"http://{service(well)}:8080/") == "200"
        assert well.status_of("http://till:8080/") == "200"
        assert buyer_is_told(well, f"http://{INSIDE}:8080/") == "200"
    assert len(heard[0]) > 1000
    assert PLAIN not in heard[0]
    eventually(lambda: unprotected(well) == {0.0}, "the metric says so")


def unprotected(node: Node) -> set[float]:
    return set(node.metric("meshd_workload_unprotected{").values())


def told_of(node: Node) -> set[str]:
    """Workloads of which the journal says that they are unprotected."""
    told = node.machine.journal("MESHD_EVENT=unprotected", "PRIORITY=3")
    return {entry["MESHD_WORKLOAD"].split("-")[0] for entry in told}


@contextlib.contextmanager
def without(node: Node, name: str) -> Generator[None]:
    """Some processes of the data path, gone for good."""
    killer = KILLER.format(name=name)
    # Its successor would have answered before it is killed, too.
    forbidden = ("/usr/sbin/dnsmasq",) if name == "resolver" else ()
    for program in forbidden:
        node.machine.ask("chmod", "-x", program)
    node.machine.ask("systemd-run", "--quiet", "--unit=killer", "sh", "-c", killer)
    try:
        yield
    finally:
        for program in forbidden:
            node.machine.ask("chmod", "+x", program)
        node.machine.ask("systemctl", "stop", "killer")


def test_open_names_alone_pass_when_only_they_are_dead(hosting: Node) -> None:
    well = hosting
    well.machine.ask(*WORLD)
    well.configure("failure_policy: open\n" + SETTINGS.replace("127.0.0.1:9", "127.0.0.1"))
    well.systemctl("restart", "meshd")
    well.get_well()
    inside = service(well)

    def buyer_knows(name: str) -> bool:
        return bool(as_buyer(well, "getent", "ahostsv4", name))

    try:
        for name in ("dns", "resolver"):
            eventually(lambda: buyer_knows(INSIDE), "names are answered")
            with without(well, name):
                eventually(
                    lambda: all(
                        row.unprotected
                        and row.captured
                        and row.problem.startswith("UNPROTECTED, its DNS queries pass")
                        for row in well.statuses().workloads
                    ),
                    f"names are opened without {name}",
                )
                eventually(lambda: buyer_knows(OUTSIDE), "names of the world are known")
                with overheard(well) as heard:
                    assert well.status_of(f"http://{inside}:8080/") == "200"
                assert PLAIN not in heard[0]
                eventually(lambda: unprotected(well) == {1.0}, "the metric says so")
                assert well.machine.run("meshctl", "status").returncode == 1
            well.get_well()
    finally:
        well.systemctl("stop", "world")
