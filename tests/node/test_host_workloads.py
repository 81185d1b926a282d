"""Plain services of a host in the mesh: each its own identity, all in one network namespace.

The host is a namespace in which a whole node runs; its services are processes in cgroups of their
own. Beside it is another machine, at the other end of a wire.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from meshd import wire
from meshd.base.errors import MeshdError
from meshd.capture.host import cgroups
from meshd.model.workload import HostService, NamedPort, Workload, shown
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.node.node import Node

ADDRESS, ELSEWHERE = "198.18.72.2", "198.18.72.1"
ADDRESS6, ELSEWHERE6 = "fd00:198::72:2", "fd00:198::72:1"
CIDRS = "198.19.0.0/16,fd00:198:19:1::/64"
TIMED_OUT = 28
"""curl's exit status."""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: mesh}
spec: {mtls: {mode: STRICT}}
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=PATIENCE)


class Machine:
    """A host, its services and its node."""

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name
        self.netns = f"{name}h"
        self.elsewhere = f"{name}e"
        self.cgroup = cgroups.root() / name
        self.running: list[subprocess.Popen[bytes]] = []

    def build(self) -> None:
        for netns in (self.netns, self.elsewhere):
            ip("netns", "add", netns)
            ip("-n", netns, "link", "set", "lo", "up")
        ends = ("type", "veth", "peer", "eth0", "netns", self.elsewhere)
        ip("-n", self.netns, "link", "add", "eth0", *ends)
        for netns, v4, v6 in (
            (self.netns, ADDRESS, ADDRESS6),
            (self.elsewhere, ELSEWHERE, ELSEWHERE6),
        ):
            ip("-n", netns, "link", "set", "eth0", "up")
            ip("-n", netns, "address", "add", f"{v4}/24", "dev", "eth0")
            ip("-n", netns, "address", "add", f"{v6}/112", "dev", "eth0", "nodad")
        ip("-n", self.netns, "route", "add", "default", "via", ELSEWHERE)
        ip("-n", self.netns, "-6", "route", "add", "default", "via", ELSEWHERE6)
        self.node.prefix = ("nsenter", f"--net=/run/netns/{self.netns}")

    def destroy(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()
        if self.node.home.exists():
            self.node.close()
        for netns in (self.netns, self.elsewhere):
            subprocess.run(["ip", "netns", "del", netns], check=False, capture_output=True)
        for inner in sorted(self.cgroup.glob("**/"), reverse=True):
            inner.rmdir()

    # ---- processes

    def inside(self, place: str, *command: str) -> list[str]:
        """A command line: on the host, in the cgroup of a service, of the unenrolled ones
        (``""``), or on the other machine (``elsewhere``)."""
        netns = self.elsewhere if place == "elsewhere" else self.netns
        cgroup = self.make_cgroup(place or "others")
        script = 'echo 0 > "$0/cgroup.procs" && exec "$@"'
        return ["nsenter", f"--net=/run/netns/{netns}", "sh", "-c", script, str(cgroup), *command]

    def make_cgroup(self, name: str) -> Path:
        path = self.cgroup / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def serve(self, name: str, port: int) -> subprocess.Popen[bytes]:
        program = str(self.node.images / "service.py")
        line = self.inside(name, sys.executable, program, name, str(port))
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        self.running.append(process)
        self.node.eventually(lambda: self.listens(port), f"{name} listens")
        return process

    def listens(self, port: int) -> bool:
        return bool(self.on_host("ss", "-Hltn", f"sport = :{port}"))

    def curl(self, place: str, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        line = self.inside(place, "curl", "-sS", "-g", "--max-time", "20", *arguments, url)
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE)

    def get(self, place: str, url: str) -> dict[str, Any]:
        done = self.curl(place, url)
        assert done.returncode == 0, f"{url} from {place}: {done.stdout} {done.stderr}"
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"{url} from {place}: {done.stdout!r}") from None

    def is_refused(self, place: str, url: str) -> bool:
        """Nobody answered with anything."""
        return self.curl(place, url).returncode in {52, 56}  # empty reply, connection reset

    def start_elsewhere(self, port: int) -> subprocess.Popen[bytes]:
        program = str(self.node.images / "service.py")
        line = self.inside("elsewhere", sys.executable, program, "elsewhere", str(port))
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        self.running.append(process)
        url = f"http://{ELSEWHERE}:{port}/"
        self.node.eventually(lambda: self.curl("", url).returncode == 0, "it listens elsewhere")
        return process

    def power_off(self) -> None:
        """The node's processes, what it holds in the kernel and in the run directory."""
        for pid in (self.node.supervisor_pid, *self.node.processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.node.wait_supervisor()
        for program in ("iptables", "ip6tables"):
            for table in ("raw", "mangle", "nat"):
                self.on_host(program, "-t", table, "-F")
                self.on_host(program, "-t", table, "-X")
        shutil.rmtree(self.node.paths.run)

    def on_host(self, *command: str) -> str:
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.netns}", *command],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        return done.stdout

    # ---- the mesh

    def is_proven(self) -> bool:
        """Both of the services."""
        try:
            rows = self.node.statuses().workloads
        except MeshdError:
            return False
        return sum(row.proven for row in rows) == 2

    def workload(self, name: str, port: int) -> Workload:
        return Workload(
            uid=f"mesh.{name}",
            name=name,
            namespace="mesh",
            netns="",
            service_account=name,
            labels={"app": name},
            addresses=(ADDRESS, ADDRESS6),
            ports=(NamedPort("http", port),),
            host=HostService(cgroup=f"{self.name}/{name}"),
        )

    def rules(self) -> str:
        saved = "".join(
            self.on_host(*command)
            for command in (
                ["iptables-save"],
                ["ip6tables-save"],
                ["ip", "rule"],
                ["ip", "-6", "rule"],
                ["ip", "route", "show", "table", "all"],
            )
        )
        # The kernel adds these by itself, some seconds after an interface came.
        by_itself = re.compile(r"#|(local |multicast |anycast )?(fe80:|ff00:)")
        lines = [line for line in saved.splitlines() if not by_itself.match(line)]
        return re.sub(r"\[\d+:\d+\]", "", "\n".join(lines))


def caller(answer: dict[str, Any]) -> str:
    """The account that the one x-forwarded-client-cert names; none: it came without mutual TLS."""
    if not answer["xfcc"]:
        return ""
    (value,) = answer["xfcc"]
    return re.findall(r"URI=spiffe://cluster.local/ns/mesh/sa/([^;,]+)", value)[0]


@pytest.fixture(scope="module")
def machine(make: Callable[..., Node]) -> Iterator[Machine]:
    made = Machine(make(mesh={"service_cidr": CIDRS}), f"mhw{os.getpid()}")
    try:
        made.build()
        made.node.start()
        for name, port in (("web", 8081), ("shop", 8082)):
            made.serve(name, port)
        made.serve("plain", 8083)
        services = [
            made.node.write.service(name, ports=(("http", 80, port),))
            for name, port in (("web", 8081), ("shop", 8082))
        ]
        made.node.apply(made.node.write.dump(made.node.write.namespace("mesh", enrolled=True)))
        made.node.apply(made.node.write.dump(*services))
        found = (made.workload("web", 8081), made.workload("shop", 8082))
        answer = made.node.ask("mesh", wire.Register(found, wait=PATIENCE), 2 * PATIENCE)
        assert isinstance(answer, wire.Done), f"{answer}\n{made.node.log[-3000:]}\n{made.rules()}"
        yield made
    finally:
        made.destroy()


WEB, SHOP = "http://web.mesh.svc.cluster.local/", "http://shop.mesh.svc.cluster.local/"


def test_two_services_of_one_host_call_each_other_under_their_own_identities(
    machine: Machine,
) -> None:
    for client, url, server in (("web", SHOP, "shop"), ("shop", WEB, "web")):
        answer = machine.get(client, url)
        assert (answer["name"], caller(answer), answer["peer"]) == (server, client, ADDRESS)


def test_a_service_is_reached_at_an_address_of_each_family(machine: Machine) -> None:
    stored = machine.node.meshctl("get", "service", "shop", "-n", "mesh", "-o", "json").output
    (shown,) = json.loads(stored)
    four, six = shown["spec"]["clusterIPs"]
    assert four.startswith("198.19.")
    assert six.startswith("fd00:198:19:1:")
    for way, url in (
        ("-4", SHOP),
        ("-6", SHOP),
        ("-4", f"http://{four}/"),
        ("-6", f"http://[{six}]/"),
    ):
        answer = machine.curl("web", url, way).stdout
        assert (json.loads(answer)["name"], caller(json.loads(answer))) == ("shop", "web"), answer
    assert machine.is_refused("web", f"http://[{six}]:81/"), "a port that it does not have"
    nobody = ("http://198.19.255.77/", "http://[fd00:198:19:1::77]/")
    shown = [machine.curl("web", url, "-w", "%{http_code}").stdout for url in nobody]
    assert shown[0] == shown[1] == "502"


def test_every_way_to_another_service_of_the_host_leads_through_the_mesh(machine: Machine) -> None:
    """By its address, as clients of headless services have it; it is no service of the mesh then,
    so that it goes in clear text, but past both proxies."""
    for url in (f"http://{ADDRESS}:8082/", f"http://[{ADDRESS6}]:8082/", "http://127.0.0.1:8082/"):
        assert machine.get("web", url)["name"] == "shop"
    with machine.node.applied(STRICT):
        for url in (
            f"http://{ADDRESS}:8082/",
            f"http://[{ADDRESS6}]:8082/",
            "http://127.0.0.1:8082/",
            "http://[::1]:8082/",
        ):
            assert machine.is_refused("web", url)


@pytest.mark.parametrize("place", ["", "elsewhere"])
def test_a_service_outside_the_mesh_reaches_only_permissive_services(
    machine: Machine, place: str
) -> None:
    urls = [f"http://{ADDRESS}:8081/", f"http://[{ADDRESS6}]:8081/"]
    if not place:
        urls += ["http://127.0.0.1:8081/", "http://[::1]:8081/"]
    for url in urls:
        answer = machine.get(place, url)
        assert answer["name"] == "web"
        assert caller(answer) == ""
        if place:
            assert answer["peer"] in {ELSEWHERE, ELSEWHERE6}
    with machine.node.applied(STRICT):
        for url in urls:
            assert machine.is_refused(place, url)
        answer = machine.get("web", SHOP)
        assert (answer["name"], caller(answer)) == ("shop", "web")


def test_a_service_reaches_its_own_port_without_a_detour(machine: Machine) -> None:
    with machine.node.applied(STRICT):
        assert machine.get("web", "http://127.0.0.1:8081/")["name"] == "web"
        assert caller(machine.get("web", WEB)) == "web"


def test_traffic_of_a_service_outside_the_mesh_is_left_alone(machine: Machine) -> None:
    with machine.node.applied(STRICT):
        for place in ("", "elsewhere", "web"):
            answer = machine.get(place, f"http://{ADDRESS}:8083/")
            assert answer["name"] == "plain"
            assert caller(answer) == ""


def test_the_proxies_own_ports_are_no_way_in(machine: Machine) -> None:
    for port in range(15101, 15105):
        assert machine.curl("", f"http://127.0.0.1:{port}/").returncode in {52, 56}
        assert machine.curl("elsewhere", f"http://{ADDRESS}:{port}/").returncode in {7, 52, 56}


def test_what_goes_wrong_is_logged_as_the_services_own(machine: Machine) -> None:
    nobody = machine.node.write.service("nobody", ports=(("http", 80, 1),))
    with machine.node.applied(machine.node.write.dump(nobody)):
        answer = machine.curl("shop", "http://nobody.mesh.svc.cluster.local/", "-w", "%{http_code}")
        assert answer.stdout.endswith("503")

    def logged() -> list[str]:
        return [line for line in machine.node.log.splitlines() if "nobody.mesh" in line]

    (line,) = machine.node.eventually(logged, "it is logged")
    assert line.endswith("(workload=mesh.shop)")


def test_a_service_that_restarts_in_a_new_cgroup_is_captured_again(machine: Machine) -> None:
    process = machine.running.pop(1)
    process.kill()
    process.wait()
    place = machine.cgroup / "shop"
    before = place.stat().st_ino
    machine.node.eventually(lambda: removed(place), "the cgroup is empty")
    machine.serve("shop", 8082)
    now = place.stat().st_ino
    assert now != before
    machine.node.eventually(lambda: f"mesh.shop@{now}" in machine.rules(), "it is captured again")
    machine.node.eventually(machine.is_proven, "it is proven")
    assert caller(machine.get("shop", WEB)) == "shop"


def removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except OSError:
        return False
    return True


def test_an_address_that_nobody_asked_for_is_followed(machine: Machine) -> None:
    """As DHCP changes it, and as IPv6 brings one some time after all else is there."""
    node = machine.node
    address, address6 = "198.18.72.9", "fd00:198::72:9"
    machine.serve("moving", 8085)
    workload = msgspec.structs.replace(machine.workload("moving", 8085), addresses=())
    service = node.write.dump(node.write.service("moving", ports=(("http", 80, 8085),)))

    def told() -> str:
        try:
            rows = node.statuses().workloads
        except MeshdError:
            return ""
        return next((row.address for row in rows if row.workload == "moving"), "")

    try:
        assert isinstance(
            node.ask("mesh", wire.Register((workload,), wait=PATIENCE), 2 * PATIENCE), wire.Done
        )
        assert told() == ADDRESS
        ip("-n", machine.netns, "address", "add", f"{address}/24", "dev", "eth0")
        way = ("default", "via", ELSEWHERE)
        ip("-n", machine.netns, "route", "replace", *way, "src", address)
        node.eventually(lambda: told() == address, "it is told to others")
        with node.applied(service):
            answer = machine.get("web", "http://moving.mesh.svc.cluster.local/")
            assert (answer["name"], caller(answer)) == ("moving", "web")
        ip("-n", machine.netns, "address", "add", f"{address6}/112", "dev", "eth0", "nodad")
        assert machine.get("elsewhere", f"http://[{address6}]:8085/")["name"] == "moving"
        before = node.children()["mesh"].pid
        os.kill(before, signal.SIGKILL)
        node.eventually(
            lambda: (found := node.children().get("mesh")) and found.pid != before,
            "the mesh role is another",
        )
        node.eventually(lambda: told() == address, "it is no other after a restart")
        ip("-n", machine.netns, "route", "replace", *way)
        ip("-n", machine.netns, "address", "del", f"{address}/24", "dev", "eth0")
        node.eventually(lambda: told() == ADDRESS, "it is told to others")
    finally:
        ip("-n", machine.netns, "address", "flush", "dev", "eth0", "to", address)
        ip("-n", machine.netns, "address", "flush", "dev", "eth0", "to", address6)
        ip("-n", machine.netns, "route", "replace", "default", "via", ELSEWHERE)
        node.ask("mesh", wire.Unregister((workload.uid,)))
        end(machine.running.pop())


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_the_daemon_comes_back_to_what_was_enrolled(machine: Machine) -> None:
    supervisor = machine.node.supervisor_pid
    os.kill(supervisor, signal.SIGKILL)
    machine.node.wait_supervisor()
    assert caller(machine.get("web", SHOP)) == "web"
    machine.node.start()
    machine.node.eventually(machine.is_proven, "both are proven")
    assert caller(machine.get("web", SHOP)) == "web"


def test_after_a_reboot_no_plain_packet_comes_before_the_mesh(machine: Machine) -> None:
    """What was in memory is gone: rules and the run directory."""
    machine.power_off()
    elsewhere = machine.start_elsewhere(9000)
    assert machine.get("web", f"http://{ELSEWHERE}:9000/")["name"] == "elsewhere"
    assert machine.get("elsewhere", f"http://{ADDRESS}:8081/")["name"] == "web"
    for uid in ("mesh.web", "mesh.shop"):
        held = machine.node.meshctl("capture", "hold", uid)
        assert held.output == f"{shown(uid)}: held until its traffic is captured\n", held.errors
    for place, url in (
        ("web", f"http://{ELSEWHERE}:9000/"),
        ("shop", f"http://{ADDRESS}:8081/"),
        ("elsewhere", f"http://{ADDRESS}:8081/"),
        ("", f"http://{ADDRESS}:8082/"),
        ("", "http://127.0.0.1:8082/"),
    ):
        assert machine.curl(place, url, "--max-time", "0.5").returncode == TIMED_OUT
    for place, url, name in (
        ("", f"http://{ELSEWHERE}:9000/", "elsewhere"),
        ("", f"http://{ADDRESS}:8083/", "plain"),
        ("elsewhere", f"http://{ADDRESS}:8083/", "plain"),
        ("web", "http://127.0.0.1:8081/", "web"),
    ):
        assert machine.get(place, url)["name"] == name
    machine.node.start()
    machine.node.eventually(machine.is_proven, "both are proven")
    assert "MESHD_HOLD" not in machine.rules()
    assert caller(machine.get("web", SHOP)) == "web"
    assert machine.get("web", f"http://{ELSEWHERE}:9000/")["name"] == "elsewhere"
    again = machine.node.meshctl("capture", "hold", "mesh.web")
    assert (again.status, again.output) == (0, "")
    elsewhere.kill()


def test_unenrolment_leaves_no_trace_and_the_others_alone(machine: Machine) -> None:
    before = machine.rules()
    extra = machine.workload("late", 8084)
    machine.serve("late", 8084)
    answer = machine.node.ask("mesh", wire.Register((extra,), wait=PATIENCE), 2 * PATIENCE)
    assert isinstance(answer, wire.Done), answer
    assert machine.rules() != before
    answer = machine.node.ask("mesh", wire.Unregister(("mesh.late",)))
    assert isinstance(answer, wire.Done), answer
    assert machine.rules() == before


def test_meshctl_enrols_a_cgroup_with_a_service_in_front_and_undoes_it(machine: Machine) -> None:
    machine.serve("last", 8086)
    before = machine.rules()
    enrolled = machine.node.meshctl(
        *("enroll", "--cgroup", f"/{machine.name}/last", "-n", "mesh", "--service", "front"),
        *("--port", "80:8086=http", "--port", "9999=tcp"),
        *("--service-account", "latecomer"),
    )
    assert enrolled.status == 0, enrolled.errors
    assert enrolled.output == "mesh/last enrolled as latecomer: captured and proven\n"
    answer = machine.get("web", "http://front.mesh.svc.cluster.local/")
    assert (answer["name"], caller(answer)) == ("last", "web")
    assert caller(machine.get("last", WEB)) == "latecomer"
    stored = machine.node.meshctl("get", "service", "front", "-n", "mesh", "-o", "json").output
    assert [port["port"] for port in json.loads(stored)[0]["spec"]["ports"]] == [80, 9999]
    undone = machine.node.meshctl("unenroll", "--cgroup", f"{machine.name}/last")
    assert (undone.status, undone.output) == (0, "mesh/last unenrolled\n"), undone.errors
    assert machine.rules() == before
    assert machine.node.meshctl("get", "service", "front", "-n", "mesh").status == 1


def test_a_service_that_exists_is_joined(machine: Machine) -> None:
    machine.serve("second", 8085)
    enrolled = machine.node.meshctl(
        *("enroll", "--cgroup", f"{machine.name}/second", "-n", "mesh", "--service", "shop"),
        *("--port", "81:8085=http"),
    )
    assert enrolled.status == 0, enrolled.errors
    url = "http://shop.mesh.svc.cluster.local:81/"
    machine.node.eventually(
        lambda: json.loads(machine.curl("web", url).stdout or "{}").get("name") == "second",
        "it serves the new port",
    )
    assert machine.node.meshctl("unenroll", "--cgroup", f"{machine.name}/second").status == 0
    assert machine.get("web", SHOP)["name"] == "shop"


def test_units_that_cannot_be_enrolled_are_refused_with_one_line(machine: Machine) -> None:
    for arguments, reason in (
        (("ssh",), "ssh.service is never captured"),
        (("--cgroup", machine.name, "--port", "22=tcp"), "port 22 is never captured on a host"),
        (("--cgroup", machine.name, "--service", "y"), "Service default/y is new"),
        (("--cgroup", "no/such"), "there is no cgroup no/such below /"),
        # Nothing of it stays: see the number of workloads below.
        (("--cgroup", machine.name, "--port", "15101"), "15101 is not a port that it could serve;"),
    ):
        refused = machine.node.meshctl("enroll", *arguments, "--timeout", "1s")
        assert refused.status == 1
        assert reason in refused.errors
        assert refused.errors.count("\n") == 1
    assert len(machine.node.statuses().workloads) == 2


DECLARED = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: db, namespace: mesh, annotations: {meshd.io/unit: postgresql.service}}
spec: {address: %s, labels: {app: db}, serviceAccount: db, ports: {tcp-db: 5432}}
"""


def test_a_service_can_be_declared(machine: Machine) -> None:
    def row() -> Any:
        rows = machine.node.statuses().workloads
        return next((row for row in rows if row.uid == "mesh.db"), None)

    with machine.node.applied(DECLARED % ADDRESS):
        found = machine.node.eventually(row, "it is registered")
        assert (found.unit, found.service_account) == ("postgresql.service", "db")
        machine.node.eventually(
            lambda: "meshd_services.slice" in row().problem, "what is missing is said"
        )
    machine.node.eventually(lambda: row() is None, "it is let go")
    with machine.node.applied(DECLARED % ELSEWHERE):
        assert row() is None
