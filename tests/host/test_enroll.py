"""systemd services of a host that really boots, enrolled: restarts, reloads, reboots, and back out.

The mesh knows no service outside of the hosts, and passes on nothing to what it does not know: so
any connection of an enrolled service that arrives out there has bypassed the mesh.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import pytest

from meshd import wire
from meshd.capture.rules import inside
from meshd.wire import channel
from tests.host.machine import Machine
from tests.host.wires import Wires
from tests.waiting import PATIENCE, eventually

OUTSIDE: Final = "198.18.243.254"
SERVICE: Final = Path(__file__).parents[1] / "node" / "apps" / "service.py"
SETTINGS: Final = """\
mesh: {service_cidr: 198.19.0.0/16, outbound_policy: REGISTRY_ONLY}
capture: {probe_interval: 1s}
"""
UNIT: Final = """\
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/usr/bin/python3 /srv/service.py %p {port}
[Install]
WantedBy=multi-user.target
"""
EAGER: Final = """\
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/usr/bin/perl /srv/eager.pl
[Install]
WantedBy=multi-user.target
"""
TRIES: Final = """\
use Socket;
open(my $tries, ">>", "/srv/tries") or die;
my $outside = pack_sockaddr_in(9000, inet_aton("198.18.243.254"));
$SIG{ALRM} = sub { die };
$SIG{PIPE} = "IGNORE";
while (1) {
    socket(my $try, PF_INET, SOCK_STREAM, 0) or die;
    eval {
        alarm(1);
        connect($try, $outside) and syswrite($try, "GET / HTTP/1.0\\r\\n\\r\\n");
        alarm(0);
    };
    close($try);
    syswrite($tries, "\\n");
    select(undef, undef, undef, 0.02);
}
"""
"""Connects from its first milliseconds on; one process, which leaves others the processor."""
NEEDY: Final = """\
[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=3
ExecStart=/bin/sh -c 'until curl -sf -o /dev/null -m 1 http://shop.mesh.svc.cluster.local/;\
 do sleep 0.1; done'
"""
"""It does not start without its peer."""
ACTIVATED: Final = """\
import os, socket
listening = socket.socket(fileno=3)
while True:
    connection, _ = listening.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello")
"""
"""Takes its socket from systemd."""
HOSTILE: Final = """\
[Service]
User=nobody
EnvironmentFile=/srv/hostile/environment
ExecStart=/bin/sleep infinity
"""
ENVIRONMENT: Final = """\
LD_DEBUG=files
LD_DEBUG_OUTPUT=/srv/hostile/loaded
PATH=/srv/hostile
PYTHONPATH=/srv/hostile
MESHD_HOME=/srv/hostile
"""
"""Each program that is loaded with it leaves a file."""
JAILED: Final = """\
[Service]
RootDirectory=/srv/jail
BindReadOnlyPaths=/usr /lib /lib64 /bin
ExecStart=/bin/sleep infinity
StandardOutput=file:/srv/jailed.out
MemoryMax=8M
TimeoutStartSec=1
"""
RESTORING: Final = """\
[Unit]
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'iptables-restore </etc/iptables/rules.v4'
[Install]
WantedBy=multi-user.target
"""
OFF: Final = "/etc/systemd/system/meshd.service.d/off.conf"
STRICT: Final = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: mesh}
spec: {mtls: {mode: STRICT}}
"""


class Outside:
    """Notes the clients that connect."""

    def __init__(self, wires: Wires) -> None:
        self._place = wires.path
        with inside.entered(self._place):
            self._socket = socket.create_server((OUTSIDE, 9000))
        self._accepted: list[str] = []
        self._own: set[str] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, (address, port) = self._socket.accept()
            except OSError:
                return
            self._accepted.append(f"{address}:{port} at {time.time():.3f}")
            accepted.close()

    def seen(self) -> list[str]:
        """Return the clients that are connected, with the time: they are before a connection of our
        own in the queue."""
        with inside.entered(self._place):
            own = socket.create_connection((OUTSIDE, 9000))
        with own:
            self._own.add("{}:{}".format(*own.getsockname()))
            own.recv(1)
        return [one for one in self._accepted if one.partition(" ")[0] not in self._own]

    def count(self) -> int:
        return len(self.seen())

    def half_open(self) -> str:
        """Return connections that may still be accepted though their clients have ended."""
        with inside.entered(self._place):
            line = ("ss", "-Htn", "state", "syn-recv", "sport = :9000")
            return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def outside(wires: Wires) -> Iterator[Outside]:
    made = Outside(wires)
    yield made
    made.close()


@pytest.fixture(scope="module")
def machine(make_machine: Callable[[str], Machine], outside: Outside) -> Iterator[Machine]:
    made = make_machine("plain")
    made.write("/etc/meshd/meshd.yaml", SETTINGS)
    made.write("/srv/service.py", SERVICE.read_text())
    for name, port in (("web", 8081), ("shop", 8082), ("plain", 8083)):
        made.write(f"/etc/systemd/system/{name}.service", UNIT.format(port=port))
    made.write("/etc/systemd/system/eager.service", EAGER)
    made.write("/srv/eager.pl", TRIES)
    made.write("/etc/systemd/system/needy.service", NEEDY)
    made.write("/srv/activated.py", ACTIVATED)
    service = "[Service]\nExecStart=/usr/bin/python3 /srv/activated.py\n"
    made.write("/etc/systemd/system/activated.service", service)
    socket_ = "[Socket]\nListenStream=8084\n[Install]\nWantedBy=sockets.target\n"
    made.write("/etc/systemd/system/activated.socket", socket_)
    made.write("/srv/hostile/environment", ENVIRONMENT)
    made.write("/etc/systemd/system/hostile.service", HOSTILE)
    (made.root / "srv/hostile").chmod(0o777)
    (made.root / "srv/jail").mkdir()
    made.write("/etc/systemd/system/jailed.service", JAILED)
    made.boot()
    names = ("meshd", "web", "shop", "plain", "eager", "activated.socket")
    made.ask("systemctl", "enable", "--now", *names)
    eventually(lambda: made.run("meshctl", "status").returncode == 0, "meshd answers")
    for name, port in (("web", 8081), ("shop", 8082)):
        service = ("--service", name, "--port", f"80:{port}=http")
        told = made.ask("meshctl", "enroll", name, "-n", "mesh", *service)
        assert told == f"mesh/{name} enrolled as {name}: captured and proven\n"
        eventually(lambda port=port: listens(made, port), f"{name} has restarted")
    yield made
    made.close()  # what is eager on it would slow down all that comes after


def listens(machine: Machine, port: int) -> bool:
    return bool(machine.run("ss", "-Hltn", f"sport = :{port}").stdout)


def slice_of(machine: Machine, unit: str) -> str:
    return machine.ask("systemctl", "show", "--property=Slice", "--value", unit).strip()


def curl_as(machine: Machine, unit: str, url: str) -> Any:
    """From inside the unit's slice; none: of no unit that is enrolled."""
    place = (f"--slice={slice_of(machine, unit)}",) if unit else ()
    line = (
        "systemd-run",
        "--quiet",
        "--wait",
        "--pipe",
        "--collect",
        *place,
        "curl",
        "-sSf",
        "-m20",
    )
    done = machine.run(*line, url)
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout else None


def curl_status(machine: Machine, unit: str, url: str) -> str:
    place = f"--slice={slice_of(machine, unit)}"
    line = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", place, "curl", "-s", "-m20")
    return machine.run(*line, "-o", "/dev/null", "-w", "%{http_code}", url).stdout


def caller(answer: Any) -> str:
    (value,) = answer["xfcc"]
    return re.findall(r"URI=spiffe://cluster.local/ns/mesh/sa/([^;,]+)", value)[0]


def rules(machine: Machine) -> str:
    saved = machine.ask("iptables-save") + machine.ask("ip6tables-save")
    lines = [line for line in saved.splitlines() if not line.startswith("#")]
    return re.sub(r"\[\d+:\d+\]", "", "\n".join(lines))


SHOP = "http://shop.mesh.svc.cluster.local/"


def calls(machine: Machine) -> bool:
    answer = curl_as(machine, "web", SHOP)
    return bool(answer) and (answer["name"], caller(answer)) == ("shop", "web")


def test_two_units_call_each_other_under_their_own_identities(machine: Machine) -> None:
    machine.ask("meshctl", "apply", "-f", "-", "--wait", text=STRICT)
    assert calls(machine)
    assert curl_as(machine, "", f"http://{machine.address}:8082/") is None
    assert curl_as(machine, "web", f"http://{machine.address}:8083/")["name"] == "plain"


def test_they_are_captured_however_they_are_restarted(machine: Machine) -> None:
    for command in (
        ("restart", "web", "shop"),
        ("daemon-reload",),
        ("kill", "-s", "KILL", "shop"),
        ("restart", "meshd"),
    ):
        machine.ask("systemctl", *command)
        if command[0] == "kill":
            machine.ask("systemctl", "start", "shop")
        eventually(lambda: listens(machine, 8082), "shop listens")
        eventually(lambda: calls(machine), f"they are captured after {command}")


def test_an_eager_service_has_no_moment_outside_of_the_mesh(
    machine: Machine, outside: Outside
) -> None:
    def tries() -> int:
        return machine.ask("cat", "/srv/tries").count("\n")

    eventually(lambda: outside.count() > 5, "it reaches the outside before it is enrolled")
    machine.ask("meshctl", "enroll", "eager", "-n", "mesh")
    machine.ask("systemctl", "restart", "eager")  # what it began before that ends with it
    eventually(lambda: not outside.half_open(), "all that it began has ended")
    since = len(outside.seen())
    for act in (
        lambda: machine.ask("systemctl", "restart", "eager"),
        lambda: machine.ask("systemctl", "restart", "meshd"),
        machine.reboot,
    ):
        begun = time.time()
        act()
        before = tries()
        eventually(lambda before=before: tries() > before + 10, "it tries")
        eventually(lambda: '"proven": true' in status(machine, "eager"), "it is proven")
        log = machine.ask("journalctl", "--lines=60", "--output=short-unix", "--no-pager")
        assert outside.seen()[since:] == [], f"begun at {begun:.3f}\n{log}"
    eventually(lambda: calls(machine), "the others are captured as before")
    assert curl_as(machine, "", f"http://{OUTSIDE}:9000/") is None
    assert outside.count() == since + 1


def status(machine: Machine, name: str) -> str:
    done = machine.run("meshctl", "status", "-o", "json")
    rows = json.loads(done.stdout) if done.stdout else []
    return json.dumps(next((row for row in rows if row["workload"] == name), {}))


def test_without_meshd_what_is_enrolled_is_held_and_the_rest_goes_on(
    machine: Machine, outside: Outside
) -> None:
    """Also if all rules were saved, ours too, and are restored at boot as Debian does it."""
    machine.ask("meshctl", "enroll", "eager", "-n", "mesh")  # where no test has done so before
    machine.ask("iptables", "-A", "INPUT", "-s", "198.18.99.99", "-j", "DROP")
    machine.ask("sh", "-c", "mkdir -p /etc/iptables; iptables-save >/etc/iptables/rules.v4")
    machine.write("/etc/systemd/system/netfilter-persistent.service", RESTORING)
    machine.ask("systemctl", "enable", "netfilter-persistent.service")
    machine.write(OFF, "[Unit]\nConditionPathExists=/nowhere\n")
    machine.reboot()
    assert "-A INPUT -s 198.18.99.99/32 -j DROP" in machine.ask("iptables-save")
    machine.ask("systemctl", "disable", "netfilter-persistent.service")
    eventually(lambda: listens(machine, 8082), "shop listens")
    since = outside.count()
    assert curl_as(machine, "", f"http://{machine.address}:8082/") is None
    assert curl_as(machine, "", f"http://{machine.address}:8083/")["name"] == "plain"
    assert outside.count() == since
    machine.ask("rm", OFF)
    machine.ask("systemctl", "daemon-reload")
    machine.ask("systemctl", "start", "meshd")
    eventually(lambda: calls(machine), "they are captured again")
    # Until it is unenrolled, as nobody needs it.
    machine.ask("systemctl", "disable", "--now", "eager")


def test_a_service_held_while_meshd_was_dead_is_started_once_it_is_back(
    machine: Machine,
) -> None:
    machine.ask("meshctl", "enroll", "needy", "-n", "mesh")
    settings = "/etc/meshd/meshd.yaml"
    for is_captured in (True, False):
        machine.ask("systemctl", "stop", "needy", "meshd", "meshd-proxies.slice")
        if not is_captured:
            machine.ask("meshctl", "capture", "release")
        # It must be held all the same.
        machine.write(settings, SETTINGS + "log_levle: debug\n")
        assert machine.run("systemctl", "start", "needy").returncode != 0
        told = machine.ask("systemctl", "show", "--property=ActiveState,Result", "needy")
        assert told == "Result=timeout\nActiveState=failed\n"
        assert "mesh.needy@" in rules(machine)
        machine.write(settings, SETTINGS)
        # systemd may just be starting a meshd again that has read the mistake.
        for said, command in (
            ("meshd starts", ("systemctl", "start", "meshd")),
            ("needy is started", ("systemctl", "is-active", "--quiet", "needy")),
        ):
            eventually(lambda command=command: machine.run(*command).returncode == 0, said)
    machine.ask("systemctl", "stop", "needy")
    machine.ask("meshctl", "unenroll", "needy")


class Knocking:
    """Asks the host's service in plain, from another machine, as often as it is answered or not."""

    def __init__(self, wires: Wires, machine: Machine, port: int) -> None:
        self._place, self._address = wires.path, (machine.address, port)
        self._ended = threading.Event()
        self.knocked = 0
        self.answers = 0
        self._thread = threading.Thread(target=self._knock, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _knock(self) -> None:
        while not self._ended.wait(0.02):
            with inside.entered(self._place):
                asking = socket.socket()
            asking.settimeout(0.3)
            self.knocked += 1
            with asking, contextlib.suppress(OSError):
                asking.connect(self._address)
                asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
                self.answers += asking.recv(1 << 16) != b""


def test_a_socket_that_starts_a_service_is_held_with_it(machine: Machine, wires: Wires) -> None:
    machine.ask("meshctl", "apply", "-f", "-", "--wait", text=STRICT)
    with Knocking(wires, machine, 8084) as before:
        eventually(lambda: before.answers, "it answers in plain while it is not enrolled")
    service = ("--service", "activated", "--port", "80:8084=http")
    machine.ask("meshctl", "enroll", "activated", "-n", "mesh", *service)
    url = "http://activated.mesh.svc.cluster.local/"
    with Knocking(wires, machine, 8084) as after:
        machine.reboot()
        known = after.knocked
        eventually(lambda: '"proven": true' in status(machine, "activated"), "it is proven")
        eventually(lambda: after.knocked > known + 5, "it is asked again")
    assert not after.answers
    eventually(lambda: curl_status(machine, "web", url) == "200", "the mesh reaches it")
    assert machine.ask("meshctl", "unenroll", "activated") == "mesh/activated unenrolled\n"
    left = machine.ask("sh", "-c", "ls -d /etc/systemd/system/*activated*")
    assert "meshd" not in left
    assert "activated.socket.d" not in left


def test_what_runs_as_root_before_a_service_has_nothing_of_what_the_service_controls(
    machine: Machine,
) -> None:
    names = ("hostile", "jailed")
    for name in names:
        machine.ask("meshctl", "enroll", name, "-n", "mesh")
    machine.ask("systemctl", "mask", "--runtime", "meshd")
    machine.ask("systemctl", "stop", "meshd", "meshd-proxies.slice")
    machine.ask("meshctl", "capture", "release")
    try:
        machine.ask("systemctl", "start", *names)
        held = rules(machine)
    finally:
        machine.ask("systemctl", "unmask", "--runtime", "meshd")
        machine.ask("systemctl", "start", "meshd")
    for name in names:
        assert f"mesh.{name}@" in held
        eventually(lambda name=name: '"proven": true' in status(machine, name), "it is proven")
        machine.ask("meshctl", "unenroll", name)
        machine.ask("systemctl", "stop", name)
    loaded = [path.stat().st_uid for path in (machine.root / "srv/hostile").glob("loaded.*")]
    assert loaded
    assert 0 not in loaded
    assert not (machine.root / "srv/jailed.out").read_text()


DECLARED: Final = """\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: plain, namespace: mesh, annotations: {{meshd.io/unit: plain.service}}}}
spec:
  {{address: {address}, labels: {{app: plain}}, serviceAccount: declared, ports: {{http: 8083}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: plain, namespace: mesh}}
spec: {{selector: {{app: plain}}, ports: [{{name: http, port: 80, targetPort: 8083}}]}}
"""


def test_a_unit_can_be_declared(machine: Machine) -> None:
    file = "/etc/meshd/config.d/plain.yaml"
    machine.write(file, DECLARED.format(address=machine.address))
    eventually(lambda: "plain.service" in status(machine, "plain"), "it is known")
    assert machine.ask("meshctl", "enroll", "plain").startswith("mesh/plain enrolled as declared")
    eventually(lambda: '"proven": true' in status(machine, "plain"), "it is proven")
    eventually(lambda: listens(machine, 8083), "it has restarted")
    plain = "http://plain.mesh.svc.cluster.local/"
    answer = eventually(lambda: curl_as(machine, "web", plain), "the mesh reaches it")
    assert (answer["name"], caller(answer)) == ("plain", "web")
    assert caller(curl_as(machine, "plain", SHOP)) == "declared"
    refused = machine.run("meshctl", "unenroll", "plain")
    assert "WorkloadEntry mesh/plain declares plain.service" in refused.stderr
    machine.ask("rm", file)
    eventually(lambda: status(machine, "plain") == "{}", "it is let go")
    assert machine.ask("meshctl", "unenroll", "plain") == "plain.service unenrolled\n"
    assert slice_of(machine, "plain") == "system.slice"


def test_an_enrollment_survives_kills_of_all_that_carry_it_out(machine: Machine) -> None:
    machine.write("/etc/systemd/system/late.service", UNIT.format(port=8085))
    machine.ask("systemctl", "daemon-reload")
    machine.ask("systemctl", "start", "late")
    kill_in_the_middle(machine, "enroll late -n mesh --service late --port 80:8085=http")
    eventually(lambda: '"proven": true' in status(machine, "late"), "it is proven")
    assert slice_of(machine, "late") == "meshd_services-late.slice"
    late = "http://late.mesh.svc.cluster.local/"
    answer = eventually(lambda: curl_as(machine, "web", late), "the mesh reaches it")
    assert (answer["name"], caller(answer)) == ("late", "web")
    assert machine.ask("meshctl", "unenroll", "late") == "mesh/late unenrolled\n"
    assert slice_of(machine, "late") == "system.slice"
    assert "late" not in machine.ask("meshctl", "get", "services", "-n", "mesh")
    left = machine.ask("find", "/etc/systemd", "-name", "*late*", "!", "-name", "late.service")
    assert left == ""


def kill_in_the_middle(machine: Machine, words: str) -> None:
    """Kill both roles that carry out a command, and meshctl, while it is in the journal; wait until
    the next processes have finished it."""
    journal = "/var/lib/meshd/enrollments.json"
    machine.ask("kill", "-STOP", role(machine, "capture"))
    machine.ask("sh", "-c", f"meshctl {words} >/dev/null 2>&1 & echo $! >/srv/pid")
    begun = ("grep", "-qs", "late.service", journal)
    eventually(lambda: machine.run(*begun).returncode == 0, "it is in the journal")
    asking = machine.ask("cat", "/srv/pid").strip()
    roles = (role(machine, "mesh"), role(machine, "capture"))
    machine.ask("kill", "-KILL", asking, *roles)
    eventually(lambda: machine.ask("cat", journal) == "{}", "it is finished")


def role(machine: Machine, name: str) -> str:
    """Return the pid of a role on the machine."""
    path = Path(f"/proc/{machine.leader}/root/run/meshd/supervisor.sock")
    answer = asyncio.run(channel.call(path, wire.Children(), timeout=PATIENCE))
    assert isinstance(answer, wire.ChildStates)
    return next(str(child.pid) for child in answer.children if child.name == name)


def test_unenrolment_leaves_no_trace(machine: Machine, outside: Outside) -> None:
    machine.ask("systemctl", "enable", "--now", "eager")
    machine.ask("meshctl", "enroll", "eager", "-n", "mesh")
    for name in ("web", "shop", "eager"):
        assert machine.ask("meshctl", "unenroll", name) == f"mesh/{name} unenrolled\n"
    assert "MESHD" not in rules(machine)
    assert "lookup 15100" not in machine.ask("ip", "rule")
    left = machine.run("sh", "-c", "find /etc/systemd /run/systemd/system -name 50-meshd.conf")
    assert left.stdout == ""
    slices = ("systemctl", "list-units", "--all", "*.slice")
    eventually(lambda: "meshd_services" not in machine.ask(*slices), "its slices are gone")
    for unit in ("web", "shop", "eager"):
        assert slice_of(machine, unit) == "system.slice"
    since = outside.count()
    eventually(lambda: outside.count() > since, "it reaches the outside again")
