"""The Debian package on a host that boots: installed, upgraded, downgraded, removed, purged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any, Final

import pytest

from meshd.proxy.machine import capacity_here
from meshd.settings import ProxySettings
from tests.host import packages
from tests.host.machine import Machine
from tests.host.traffic import OFFERS, enrolled, is_lossless, under_load_from
from tests.host.tree import base_tree
from tests.host.wires import Wires
from tests.waiting import eventually

THIS: Final = "/srv/this.deb"
NEXT: Final = "/srv/next.deb"
SETTINGS: Final = "/etc/meshd/meshd.yaml"
PROXIES: Final = capacity_here(ProxySettings()).size.members + 2
"""Those for traffic, and two for DNS."""
STORED: Final = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: kept, namespace: default}
spec: {host: kept}
"""
POD: Final = """\
ip netns add pod
ip -n pod link set lo up
ip -n pod link add eth0 type veth peer name other
ip -n pod address add 198.18.1.1/24 dev eth0
ip -n pod link set other up
ip -n pod link set eth0 up
ip -n pod route add default via 198.18.1.254
"""
LISTED: Final = (
    *("find", "/", "-xdev", "(", "-path", "/tmp", "-o", "-path", "/var/log", "-o"),
    *("-path", "/var/lib/systemd", "-o", "-path", "/var/backups", "-o", "-path", "/srv", ")"),
    *("-prune", "-o", "-printf", "%p %y %m %u %g %l\\n"),
)
"""All but what changes by itself."""
CHANGED_BY_DPKG: Final = {
    *("/var/lib/dpkg/status-old", "/var/lib/dpkg/triggers/Unincorp", "/var/lib/dpkg/triggers/Lock"),
    *("/var/lib/dpkg/lock", "/var/lib/dpkg/lock-frontend", "/var/cache/ldconfig/aux-cache"),
    *("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"),
    *("/etc/.pwd.lock", "/etc/subuid-", "/etc/subgid-"),
}
"""Written whenever a package is installed or a user made, whichever."""


def state(machine: Machine) -> dict[str, Any]:
    """Whatever a package could leave behind."""
    files = machine.ask(*LISTED).splitlines()
    return {
        "files": {line for line in files if line.split(" ")[0] not in CHANGED_BY_DPKG},
        "users": machine.ask("getent", "passwd"),
        "groups": machine.ask("getent", "group"),
        "run": machine.ask("sh", "-c", "ls -d /run/meshd* || true"),
        "units": machine.ask("sh", "-c", "ls /run/systemd/units | grep meshd || true"),
        "rules": machine.ask("iptables-save"),
        "migrates": migrates(machine),
        "processes": machine.ask("sh", "-c", "pgrep -a -f '/opt/[m]eshd' || true"),
    }


def migrates(machine: Machine) -> str:
    """Whether connections that wait for a proxy that ends go to another one."""
    return machine.ask("cat", "/proc/sys/net/ipv4/tcp_migrate_req").strip()


def dpkg(machine: Machine, *words: str) -> str:
    done = machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", *words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def install(machine: Machine, package: str) -> None:
    # Settings that people changed are kept.
    dpkg(machine, "--force-confold", "--install", package)


def is_well(machine: Machine) -> bool:
    """The daemon of whatever version runs, and its proxies have everything."""
    return machine.run("meshctl", "status").returncode == 0 and len(proxies(machine)) == PROXIES


def proxies(machine: Machine) -> set[str]:
    return set(machine.run("pgrep", "-u", "meshd-proxy", "-x", "envoy").stdout.split())


def daemon(machine: Machine) -> str:
    return machine.ask("systemctl", "show", "--value", "--property=MainPID", "meshd").strip()


def version(machine: Machine) -> str:
    """Of the daemon that runs, not of the files."""
    metrics = machine.ask("curl", "-sS", "--max-time", "20", "http://127.0.0.1:15020/metrics")
    (line,) = (line for line in metrics.splitlines() if line.startswith("meshd_build_info"))
    return line.split('"')[1]


@pytest.fixture(scope="module")
def machine(wires: Wires) -> Iterator[Machine]:
    """One host for all: a test finds meshd there or not."""
    machine = Machine("package", 199, base_tree(), wires)
    try:
        for target, package in zip((THIS, NEXT), packages.both(), strict=True):
            shutil.copy(package, machine.root / target.lstrip("/"))
        packages.write_faster(machine)
        machine.boot()
        yield machine
    finally:
        machine.close()


@pytest.fixture(scope="module")
def untouched(machine: Machine) -> dict[str, Any]:
    """What the host is like that never saw meshd."""
    return state(machine)


@pytest.fixture
def installed(machine: Machine, untouched: dict[str, Any]) -> Machine:
    """This version runs, however the test before left the host."""
    if not is_well(machine) or version(machine) == packages.NEXT:
        install(machine, THIS)
        eventually(lambda: is_well(machine), "meshd runs")
    return machine


def test_installing_it_is_all_that_has_to_be_done(installed: Machine) -> None:
    assert installed.ask("systemctl", "is-enabled", "meshd").strip() == "enabled"
    assert installed.ask("meshctl", "version").startswith("meshctl ")
    assert installed.ask("readlink", "/usr/bin/meshctl", "/usr/sbin/meshd").split() == [
        *("/opt/meshd/bin/meshctl", "/opt/meshd/bin/meshd")
    ]
    states = ("/var/lib/meshd", "/var/lib/meshd/identity")
    assert installed.ask("stat", "-c", "%U:%G %a", *states).splitlines() == [
        *("root:meshd 1771", "meshd-identity:meshd-identity 700")
    ]
    for page in ("man1/meshctl.1", "man5/meshd.yaml.5", "man8/meshd.8"):
        assert ".SH NAME" in installed.ask("zcat", f"/usr/share/man/{page}.gz")
    assert installed.ask("meshctl", "top", "--once") == "no workloads are registered\n"
    assert not installed.ask("dpkg", "--verify", "meshd")
    assert migrates(installed) == "1"


def test_its_shell_completion_knows_the_verbs(installed: Machine) -> None:
    script = (
        ". /usr/share/bash-completion/completions/meshctl;"
        "COMP_WORDS=(meshctl proxy); COMP_CWORD=1;_meshctl_completion meshctl; echo ${COMPREPLY[@]}"
    )
    assert installed.ask("bash", "-c", script).split() == ["proxy-config"]
    assert "#compdef meshctl" in installed.ask("cat", "/usr/share/zsh/vendor-completions/_meshctl")


def test_up_and_down_fail_nothing_and_keep_the_proxies_and_what_people_wrote(
    installed: Machine,
) -> None:
    """300 requests a second of one service of the host to another, and a connection that stays."""
    installed.ask("meshctl", "apply", "-f", "-", text=STORED)
    serving, first = proxies(installed), version(installed)
    with (
        enrolled(installed, "shop", "server.py", "--service", "shop", *OFFERS),
        enrolled(installed, "buyer"),
        under_load_from(installed, "buyer") as reports,
    ):
        replaced(installed, NEXT, packages.NEXT)
        assert installed.ask("cat", SETTINGS).endswith(packages.CHANGE)
        installed.ask("sh", "-c", f"echo 'log_level: debug' >> {SETTINGS}")
        edited = installed.ask("cat", SETTINGS)
        replaced(installed, THIS, first)
    is_lossless(*reports)
    assert installed.ask("cat", SETTINGS) == edited
    assert packages.CHANGE not in installed.ask("cat", f"{SETTINGS}.dpkg-dist")
    assert proxies(installed) == serving
    assert stored(installed) == ["kept"]


def replaced(machine: Machine, package: str, expected: str) -> None:
    """The daemon is another, of that version; what it finds is as it was left."""
    before, serving = daemon(machine), proxies(machine)
    install(machine, package)
    eventually(lambda: is_well(machine), f"{expected} runs")
    assert daemon(machine) != before
    assert version(machine) == expected
    assert proxies(machine) == serving


def test_a_service_that_was_disabled_stays_so(installed: Machine) -> None:
    installed.ask("systemctl", "disable", "--now", "meshd")
    try:
        # What an upgrade runs.
        script = ("/var/lib/dpkg/info/meshd.postinst", "configure", "0.0.1")
        installed.ask("env", "DPKG_MAINTSCRIPT_PACKAGE=meshd", *script)
        assert installed.run("systemctl", "is-enabled", "meshd").stdout.strip() == "disabled"
        assert daemon(installed) == "0"
    finally:
        installed.ask("systemctl", "enable", "--now", "meshd")
    eventually(lambda: is_well(installed), "meshd runs again")


def test_removal_releases_what_was_captured_and_keeps_what_was_made(
    installed: Machine, pod: str
) -> None:
    installed.ask("meshctl", "apply", "-f", "-", text=STORED)
    keys = fingerprints(installed)
    assert "MESHD_OUTPUT" in rules(installed, pod)
    dpkg(installed, "--remove", "meshd")
    assert "MESHD" not in rules(installed, pod)
    eventually(lambda: not proxies(installed), "the proxies end")
    assert installed.run("test", "-e", "/opt/meshd").returncode == 1
    assert installed.run("test", "-e", SETTINGS).returncode == 0
    install_stopped(installed)
    installed.ask("systemctl", "start", "meshd")
    eventually(lambda: is_well(installed), "meshd runs again")
    assert "MESHD_OUTPUT" in rules(installed, pod)
    assert stored(installed) == ["kept"]
    assert fingerprints(installed) == keys


@pytest.fixture
def pod(installed: Machine) -> Iterator[str]:
    """A namespace whose traffic is captured."""
    installed.ask("sh", "-ec", POD)
    try:
        one = "Workload(uid='pod', name='pod', namespace='default', netns='/run/netns/pod',"
        tell(installed, f"wire.Register(({one} addresses=('198.18.1.1',)),), wait=20.0)")
        yield "pod"
        tell(installed, "wire.Unregister(('pod',))")
    finally:
        installed.ask("ip", "netns", "del", "pod")


def tell(machine: Machine, request: str) -> None:
    """The mesh role, as a registrar does."""
    script = f"""
import asyncio
from pathlib import Path
from meshd.wire import channel; from meshd import wire
from meshd.model.workload import Workload
print(asyncio.run(channel.call(Path("/run/meshd/mesh.sock"), {request}, timeout=25)))
"""
    assert machine.ask("/opt/meshd/bin/python", "-c", script).startswith("Done")


def rules(machine: Machine, pod: str) -> str:
    return machine.ask("ip", "netns", "exec", pod, "iptables-save")


def install_stopped(machine: Machine) -> None:
    """Under a policy that forbids packages to start services, as images are built."""
    policy = "/usr/sbin/policy-rc.d"
    machine.ask("sh", "-c", f"printf '#!/bin/sh\\nexit 101\\n' > {policy}; chmod +x {policy}")
    try:
        install(machine, THIS)
        assert daemon(machine) == "0"
    finally:
        machine.ask("rm", policy)


def test_a_purge_leaves_nothing(installed: Machine, untouched: dict[str, Any]) -> None:
    installed.ask("meshctl", "apply", "-f", "-", text=STORED)
    installed.ask("meshctl", "enroll", "rsyslog.service", "--no-restart")
    dpkg(installed, "--purge", "meshd")
    eventually(lambda: not state(installed)["processes"], "the proxies end")
    after = state(installed)
    assert after["files"] - untouched["files"] == set()
    assert untouched["files"] - after["files"] == set()
    assert after == untouched


def fingerprints(machine: Machine) -> str:
    """Of the authority's keys and whatever else is beside them."""
    return machine.ask("sh", "-c", "sha256sum $(find /var/lib/meshd/identity -type f | sort)")


def stored(machine: Machine) -> list[str]:
    found = json.loads(machine.ask("meshctl", "get", "dr", "-o", "json"))
    return [one["metadata"]["name"] for one in found]
