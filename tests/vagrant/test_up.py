"""`vagrant up` as a user runs it, on virtual machines with kernels of their own: the Vagrantfile as
it is, Bookinfo across three machines, and what only such a machine can show.

Takes a quarter of an hour and more, and is no part of `make test`: see `make vagrant-test`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.host.test_vagrant import NAMES
from tests.host.wires import Wires
from tests.vagrant.hypervisor import Hypervisor

PLAIN: Final = b" HTTP/1.1"
TLS: Final = b"\x16\x03"
AGENT: Final = "agent-1"
OUTSIDE: Final = "192.168.56.1"
"""The hypervisor's own address in the network of the machines."""
EAGER: Final = f"""\
[Service]
TimeoutStartSec=infinity
ExecStart=/bin/sh -c 'while :; do curl -s -o /dev/null -m 2 http://{OUTSIDE}:9000/; \
echo >>/var/tmp/tries; sleep 0.1; done'
[Install]
WantedBy=multi-user.target
"""
LISTENER: Final = """\
import socket
server = socket.create_server(("", 9000))
while True:
    client, _ = server.accept()
    client.recv(9999)
    client.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    client.close()
"""
RULES: Final = "nsenter --net --target=$(pgrep -f reviews.py | head -1) {}-save | grep -c MESHD_"
PAGES: Final = """
import re, urllib.request
url, seen = "http://productpage:9080/productpage", set()
while len(seen) < 4:
    try:
        page = urllib.request.urlopen(url, timeout=60).read().decode()
    except OSError:
        continue
    if "paperback" in page and "Error fetching" not in page:
        seen |= set(re.findall("reviews-v[0-9]", page))
        seen |= {"stars"} if "glyphicon-star" in page else set()
print(*sorted(seen))
"""
"""Some are not whole: Bookinfo's services wait for each other as long as on a real processor."""


@pytest.fixture(scope="module")
def hypervisor() -> Iterator[Hypervisor]:
    with contextlib.ExitStack() as stack:
        wires = Wires(f"mv{os.getpid()}")
        stack.callback(wires.remove)
        wires.create()
        made = Hypervisor(wires)
        stack.callback(made.close)
        made.boot()
        made.vagrant("up")
        yield made


def is_whole(hypervisor: Hypervisor) -> None:
    """Details come from the one agent, reviews from the other, which asks the first for ratings."""
    ask = "meshctl testbed exec deploy/productpage-v1 -- python3 -"
    printed = hypervisor.on("server", f"{ask} <<'END'\n{PAGES}\nEND")
    assert "reviews-v1 reviews-v2 reviews-v3 stars" in printed


def test_bookinfo_is_one_application_and_the_wire_carries_tls_only(hypervisor: Hypervisor) -> None:
    with hypervisor.overheard() as heard:
        is_whole(hypervisor)
    assert TLS in heard[0]
    assert PLAIN not in heard[0]


def test_nothing_of_an_enrolled_service_passes_in_plain_while_its_machine_boots(
    hypervisor: Hypervisor,
) -> None:
    """Its destination is one that the mesh does not know, and passes nothing on to."""
    hypervisor.machine.write("/srv/listener.py", LISTENER)
    hypervisor.machine.ask("systemd-run", "--unit=listener", "python3", "/srv/listener.py")
    with hypervisor.overheard() as heard:
        hypervisor.on(
            AGENT,
            f"cat >/etc/systemd/system/eager.service <<'END'\n{EAGER}END\n"
            "systemctl daemon-reload; systemctl enable --now eager\n"
            "until [ -s /var/tmp/tries ]; do sleep 0.2; done",
        )
    assert PLAIN in heard[0]
    assert hypervisor.packets("tcp port 9000")
    hypervisor.on(
        AGENT,
        "echo 'mesh: {outbound_policy: REGISTRY_ONLY}' >>/etc/meshd/meshd.yaml\n"
        "systemctl restart meshd\n"
        "until meshctl enroll eager.service -n mesh; do sleep 1; done",
    )
    with hypervisor.overheard() as heard:
        hypervisor.reboot(AGENT)
        hypervisor.on(
            AGENT,
            "rm -f /var/tmp/tries; until [ -s /var/tmp/tries ]; do sleep 0.2; done\n"
            "until systemctl is-active --quiet bookinfo; do sleep 0.2; done",
        )
        is_whole(hypervisor)
    assert PLAIN not in heard[0]
    assert TLS in heard[0]
    assert not hypervisor.packets("tcp port 9000")


def test_a_machine_that_booted_has_its_modules_and_its_journal(hypervisor: Hypervisor) -> None:
    modules = hypervisor.on(AGENT, "cut -d' ' -f1 /proc/modules").split()
    assert {"nf_tables", "ip_tables", "ip6_tables", "xt_cgroup"} <= set(modules)
    assert hypervisor.on(AGENT, "cat /sys/module/apparmor/parameters/enabled").strip() == "Y"
    assert "MESHD_ROLE=mesh" in hypervisor.on(
        AGENT, "journalctl --unit=meshd --boot=-1 --output=export MESHD_ROLE=mesh"
    )


def test_ssh_and_dhcp_go_on_while_everything_of_meshd_is_dead(hypervisor: Hypervisor) -> None:
    said = hypervisor.on(
        AGENT,
        "systemctl stop meshd meshd-proxies.slice\n"
        # Names that AppArmor's profile of it allows.
        "trial='-pf /run/dhclient.trial.pid -lf /var/lib/dhcp/dhclient.trial.leases'\n"
        "dhclient -1 -v $trial eth0 2>&1; kill $(cat /run/dhclient.trial.pid)",
    )
    assert re.search(r"DHCPACK of [0-9.]+ from", said)
    hypervisor.on(AGENT, "systemctl start meshd")


def test_the_legacy_tables_are_loaded_for_whoever_wants_them(hypervisor: Hypervisor) -> None:
    hypervisor.on(
        "agent-2",
        "echo 'capture: {backend: legacy}' >>/etc/meshd/meshd.yaml\n"
        "systemctl stop bookinfo; systemctl restart meshd; systemctl start bookinfo",
    )
    is_whole(hypervisor)
    for program in ("iptables-legacy", "ip6tables-legacy"):
        assert int(hypervisor.on("agent-2", RULES.format(program))) > 0
    assert int(hypervisor.on("agent-2", f"{RULES.format('iptables-nft')} || true")) == 0


def test_nothing_is_left_of_machines_that_are_destroyed(hypervisor: Hypervisor) -> None:
    hypervisor.vagrant("destroy", "--force")
    listed = hypervisor.machine.ask("virsh", "-c", "qemu:///system", "list", "--all", "--name")
    assert not listed.split()
    disks = hypervisor.machine.ask("ls", "/var/lib/libvirt/images")
    assert not [name for name in NAMES if name in disks]
