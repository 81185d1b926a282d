"""The scripts of vagrant/ as they are, on hosts that boot: three of them, Bookinfo across them."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.host import packages
from tests.host.machine import Machine
from tests.host.traffic import OFFERS, enrolled, is_lossless, under_load_from
from tests.host.tree import CHECKOUT, base_tree
from tests.host.wires import Wires
from tests.waiting import PATIENCE, eventually

NAMES: Final = ("server", "agent-1", "agent-2")
PAGE: Final = """
import re, urllib.request
seen = set()
for _ in range(40):
    page = urllib.request.urlopen("http://productpage:9080/productpage", timeout=30).read().decode()
    assert "paperback" in page and "Error fetching" not in page
    seen |= set(re.findall("reviews-v[0-9]", page))
    stars = "glyphicon-star" in page
    seen |= {"stars"} if stars else set()
print(*sorted(seen))
"""
"""Details come from the one agent, reviews from the other, which asks the first for ratings."""


@pytest.fixture(scope="module")
def machines(
    wires: Wires, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Machine]]:
    """Provisioned as the Vagrantfile does it."""
    made = {name: Machine(name, 190 + n, base_tree(), wires) for n, name in enumerate(NAMES)}
    nodes = tuple(f"{name}={machine.address}" for name, machine in made.items())
    try:
        with ThreadPoolExecutor(len(made)) as threads:
            list(threads.map(functools.partial(_provision, nodes), made.values()))
        server, *agents = made.values()
        server.ask("/vagrant/vagrant/server.sh", server.address)
        server.ask("/vagrant/vagrant/bookinfo.sh", server.name, *nodes)
        path = _stand_in(made, tmp_path_factory.mktemp("bin"))
        for agent in agents:
            subprocess.run(
                [CHECKOUT / "vagrant/join.sh", agent.name, server.address, *nodes],
                env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}"},
                check=True,
                timeout=5 * PATIENCE,
            )
        yield made
    finally:
        with ThreadPoolExecutor(len(made)) as threads:
            list(threads.map(Machine.close, made.values()))


def _provision(nodes: tuple[str, ...], machine: Machine) -> None:
    _fill(machine)
    machine.boot()
    machine.ask("/vagrant/vagrant/install.sh", *nodes)


def _fill(machine: Machine) -> None:
    """What a box and its synced folder have."""
    package, _ = packages.both()
    shutil.copytree(CHECKOUT / "vagrant", machine.root / "vagrant/vagrant")
    (machine.root / "vagrant/dist").mkdir()
    shutil.copy(package, machine.root / "vagrant/dist")
    machine.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n')
    (machine.root / "usr/local/bin/sudo").chmod(0o755)
    packages.write_faster(machine)


def _stand_in(machines: dict[str, Machine], directory: Path) -> Path:
    """A directory with a ``vagrant`` that knows one thing: ssh NAME --command COMMAND."""
    cases = "".join(
        f'{name}) exec {shlex.join(machine.inside("sh", "-c"))} "$4" ;;\n'
        for name, machine in machines.items()
    )
    program = directory / "vagrant"
    program.write_text(f'#!/bin/sh\nset -eu\ncd /\ncase "$2" in\n{cases}esac\n')
    program.chmod(0o755)
    return directory


def test_the_vagrantfile_is_valid(tmp_path: Path) -> None:
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=CHECKOUT,
        env={**os.environ, "VAGRANT_HOME": str(tmp_path), "VAGRANT_CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_bookinfo_is_one_application_on_three_hosts(machines: dict[str, Machine]) -> None:
    server = machines["server"]
    ask = ("meshctl", "testbed", "exec", "deploy/productpage-v1", "--", "python3", "-c", PAGE)

    def page() -> str:
        return server.run(*ask).stdout.strip()

    assert eventually(page, "the page is whole") == "reviews-v1 reviews-v2 reviews-v3 stars"


def test_the_server_knows_the_nodes(machines: dict[str, Machine]) -> None:
    shown = machines["server"].ask("meshctl", "status")
    assert {"agent-1", "agent-2"} <= set(shown.split())


def test_an_agent_runs_its_part_again_after_a_boot(machines: dict[str, Machine]) -> None:
    agent = machines["agent-1"]
    agent.reboot()
    eventually(
        lambda: agent.run("systemctl", "is-active", "bookinfo").stdout.strip() == "active",
        "bookinfo runs again",
    )
    pods = agent.ask("meshctl", "testbed", "ps", "-o", "name").split()
    assert [pod.rpartition("/")[2].partition("-v1")[0] for pod in sorted(pods)] == [
        *("details", "ratings")
    ]


SHOP: Final = """\
apiVersion: v1
kind: Namespace
metadata: {name: mesh}
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: mesh}
spec:
  selector: {app: shop}
  ports: [{name: http, port: 8080}, {name: tcp, port: 9000}]
"""


CLOCK: Final = """\
import time
real = time.time
time.time = lambda: real() + 1.1 * 86400
"""
AHEAD: Final = "this host's clock is 1 day ahead of that of server"
JOURNAL: Final = ("journalctl", "--unit=meshd", "--boot", "--output=cat")
DROP_IN: Final = "/etc/systemd/system/meshd.service.d/clock.conf"


@pytest.fixture(scope="module")
def shopping(machines: dict[str, Machine]) -> Iterator[tuple[Machine, Machine, Machine]]:
    """A service of the one agent that a service of the other one asks."""
    server, first, second = machines.values()
    server.ask("meshctl", "apply", "-f", "-", text=SHOP)
    with enrolled(first, "shop", "server.py", *OFFERS), enrolled(second, "buyer"):
        eventually(lambda: has(second, "svc/shop"), "the agent knows the service")
        yield server, first, second


def is_well(machine: Machine) -> bool:
    return machine.run("meshctl", "status").returncode == 0


def test_nothing_fails_between_agents_while_the_server_is_booted_again(
    shopping: tuple[Machine, Machine, Machine],
) -> None:
    """300 requests a second, and a connection that stays, until both have found it again."""
    server, first, second = shopping
    with under_load_from(second, "buyer") as reports:
        server.reboot()
        for agent in (first, second):
            eventually(lambda agent=agent: is_well(agent), f"{agent.name} is connected again")
    is_lossless(*reports)


def test_nothing_fails_on_an_agent_whose_clock_is_off_and_it_says_so(
    shopping: tuple[Machine, Machine, Machine],
) -> None:
    """The clock of meshd's own processes, that is."""
    _, _, agent = shopping
    agent.write("/srv/clock/sitecustomize.py", CLOCK)
    agent.write(DROP_IN, "[Service]\nEnvironment=PYTHONPATH=/srv/clock\n")
    with under_load_from(agent, "buyer") as reports:
        try:
            agent.ask("systemctl", "daemon-reload")
            agent.ask("systemctl", "restart", "meshd")
            eventually(lambda: AHEAD in agent.run("meshctl", "status").stderr, "status says so")
            eventually(lambda: AHEAD in agent.ask(*JOURNAL), "so does the journal")
        finally:
            agent.ask("rm", DROP_IN)
            agent.ask("systemctl", "daemon-reload")
            agent.ask("systemctl", "restart", "meshd")
        eventually(lambda: is_well(agent), "it is well again")
    is_lossless(*reports)


def has(agent: Machine, what: str) -> bool:
    return agent.run("meshctl", "get", what, "-n", "mesh").returncode == 0
