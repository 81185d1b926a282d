"""The scripts of vagrant/ as they are, on hosts that boot: three of them, Bookinfo across them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.host import packages
from tests.host.machine import Machine, eventually
from tests.host.tree import CHECKOUT, base_tree
from tests.host.wires import Wires

NAMES: Final = ("server", "agent-1", "agent-2")
PAGE: Final = """
import re, urllib.request
seen = set()
for _ in range(40):
    page = urllib.request.urlopen("http://productpage:9080/productpage", timeout=10).read().decode()
    assert "paperback" in page and "Error fetching" not in page
    seen |= set(re.findall("reviews-v[0-9]", page))
    stars = "glyphicon-star" in page
    seen |= {"stars"} if stars else set()
print(*sorted(seen))
"""
"""Details come from the one agent, reviews from the other, which asks the first for ratings."""


def script(machine: Machine, name: str, *arguments: str) -> str:
    environment = {"MESHD_DIST": "/srv/dist"}
    words = (f"{key}={value}" for key, value in environment.items())
    return machine.ask("env", *words, f"/srv/vagrant/{name}", *arguments, timeout=120)


@pytest.fixture(scope="module")
def machines(wires: Wires) -> Iterator[dict[str, Machine]]:
    """Provisioned as the Vagrantfile and join.sh do it."""
    made = {name: Machine(name, 190 + n, base_tree(), wires) for n, name in enumerate(NAMES)}
    nodes = tuple(f"{name}={machine.address}" for name, machine in made.items())
    package, _ = packages.both()
    try:
        for name, machine in made.items():
            shutil.copytree(CHECKOUT / "vagrant", machine.root / "srv/vagrant")
            (machine.root / "srv/dist").mkdir()
            shutil.copy(package, machine.root / "srv/dist")
            packages.write_faster(machine)
            machine.boot()
            script(machine, "install.sh", *nodes)
            if name == "server":
                script(machine, "server.sh", machine.address)
            else:
                _join(made["server"], machine)
            script(machine, "bookinfo.sh", name, *nodes)
        yield made
    finally:
        for machine in made.values():
            machine.close()


def _join(server: Machine, agent: Machine) -> None:
    token = server.ask("meshctl", "token", "create", "--node", agent.name, "--output", "name")
    began = time.monotonic()
    agent.ask("meshctl", "join", server.address, "--token", token.strip())
    assert time.monotonic() - began < 10


def test_bookinfo_is_one_application_on_three_hosts(machines: dict[str, Machine]) -> None:
    server = machines["server"]
    ask = ("meshctl", "testbed", "exec", "deploy/productpage-v1", "--", "python3", "-c", PAGE)

    def page() -> str:
        return server.run(*ask).stdout.strip()

    assert eventually(page, "the page is whole", 60.0) == "reviews-v1 reviews-v2 reviews-v3 stars"


def test_the_server_knows_the_nodes(machines: dict[str, Machine]) -> None:
    shown = machines["server"].ask("meshctl", "status")
    assert {"agent-1", "agent-2"} <= set(shown.split())


def test_an_agent_runs_its_part_again_after_a_boot(machines: dict[str, Machine]) -> None:
    agent = machines["agent-1"]
    agent.reboot()
    eventually(
        lambda: agent.run("systemctl", "is-active", "bookinfo").stdout.strip() == "active",
        "bookinfo runs again",
        60.0,
    )
    pods = agent.ask("meshctl", "testbed", "ps", "-o", "name").split()
    assert [pod.rpartition("/")[2].partition("-v1")[0] for pod in sorted(pods)] == [
        *("details", "ratings")
    ]


def test_the_vagrantfile_is_valid(tmp_path: Path) -> None:
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=CHECKOUT,
        env={**os.environ, "VAGRANT_HOME": str(tmp_path), "VAGRANT_CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
