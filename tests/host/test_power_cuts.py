"""The host's power is cut while meshd writes: it always comes up with what was once committed.

``MESHD_POWER_CUTS`` is how often.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshd import wire
from meshd.api.object_fields import name_of
from meshd.base.json_values import list_at, text_in
from meshd.wire import channel
from tests.host.machine import Machine
from tests.host.node import SETTINGS, Node
from tests.waiting import PATIENCE, eventually

CUTS = int(os.environ.get("MESHD_POWER_CUTS", "3"))
PAIR = ("left", "right")
ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: ["v{value}.{name}.test"]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: DNS
---
"""


@pytest.fixture(scope="module")
def victim(make_machine: Callable[[str], Machine]) -> Iterator[Node]:
    node = Node(make_machine("victim"), SETTINGS)
    yield node
    node.machine.close()


class Writer:
    """Applies pair after pair, each with the next number, until it is not answered any more."""

    def __init__(self, node: Node, first: int) -> None:
        self.committed = first
        self.tried = first
        self._node = node
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        with contextlib.suppress(Exception):
            while True:
                self.tried = self.committed + 1
                text = "".join(ENTRY.format(name=name, value=self.tried) for name in PAIR)
                answer = self._node.ask("mesh", wire.Apply((("-", text),)))
                assert isinstance(answer, wire.Changed), answer
                self.committed = self.tried

    def join(self) -> None:
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive()


def stored(node: Node) -> dict[str, int]:
    answer = node.ask("mesh", wire.Get("ServiceEntry"))
    assert isinstance(answer, wire.Objects)
    hosts = {name_of(one): text_in(list_at(one, "spec", "hosts")[0]) for one in answer.objects}
    return {name: int(host.split(".")[0][1:]) for name, host in hosts.items()}


def answers(node: Node) -> bool:
    path = f"/proc/{node.machine.leader}/root/run/meshd/mesh.sock"
    with contextlib.suppress(Exception):
        asyncio.run(channel.call(Path(path), wire.Status(), timeout=20))
        return True
    return False


def keys(node: Node) -> str:
    """Of the authority: their names, owners, modes and digests."""
    find = "find /var/lib/meshd -type f -name '*.pem' -path '*ca*' -exec sha256sum {} + | sort"
    return node.machine.ask("sh", "-c", find)


def readable(node: Node) -> str:
    """What of the state anybody but meshd could read, or owns, and what of the keys anybody but the
    identity role could."""
    top = node.machine.ask("stat", "-c", "%a %U %G", "/var/lib/meshd").strip()
    keys = node.machine.ask("stat", "-c", "%a %U", "/var/lib/meshd/identity").strip()
    strangers = ("-not", "-user", "meshd", "-not", "-user", "meshd-identity")
    find = ("find", "/var/lib/meshd", "-mindepth", "1", "(", *strangers, "-or", "-name", "*key*")
    loose = node.machine.ask(*find, "-perm", "/077", ")", "-ls")
    wanted = (top, keys) == ("1771 root meshd", "700 meshd-identity")
    return ("" if wanted else f"{top} {keys}") + loose


def test_whenever_the_power_is_cut_meshd_comes_up_with_a_state_that_was_committed(
    victim: Node,
) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311 - no secret
    chance = random.Random(seed)  # noqa: S311
    authority, committed = "", 0
    for cut in range(CUTS):
        what = f"seed {seed}, cut {cut}"
        victim.machine.boot()
        victim.systemctl("start", "--no-block", "meshd")
        if cut % 2 == 0:
            # At its start, when it makes or reads its keys.
            time.sleep(chance.uniform(0.1, 1.0))
            victim.machine.cut_power()
            victim.machine.boot()
            victim.systemctl("start", "--no-block", "meshd")
        eventually(lambda: answers(victim), f"{what}: meshd comes up")
        found = stored(victim)
        assert len(set(found.values())) <= 1, f"{what}: half of a change is there: {found}"
        assert not found or set(found) == set(PAIR), what
        value = next(iter(found.values()), 0)
        assert committed <= value, f"{what}: {committed} was committed, and {value} is there"
        eventually(lambda: keys(victim), f"{what}: there are keys")
        assert authority in {"", keys(victim)}, f"{what}: the authority is another"
        assert readable(victim) == "", what
        authority = keys(victim)
        writer = Writer(victim, value)
        time.sleep(chance.uniform(0.1, 1.0))
        victim.machine.cut_power()
        writer.join()
        committed = writer.committed
    victim.machine.boot()
    victim.systemctl("start", "meshd")
    eventually(lambda: answers(victim), "meshd comes up")
    assert set(stored(victim).values()) <= {committed, committed + 1}
