"""What a workload that takes all that it can get costs its neighbour: errors and latency.

The neighbour's client and server are in namespaces of their own, and so are the hostile workload
and its server. Just before each attack the neighbour is measured undisturbed. Each attack is made a
second time outside the mesh, straight at the same server: that is what the machine costs the
neighbour, which has to share cores with the hostile workload, and not what the mesh does.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from meshd.base.errors import MeshdError
from tests.bench import server
from tests.bench.figures import Json
from tests.bench.ground import Ground
from tests.bench.load import quantile
from tests.bench.node import SPACE, Node, namespace, service, workload

KINDS: Final = ("kept", "new", "names")
"""Of what the neighbour does."""
WAYS: Final = ("mesh", "direct")
_RATIO_LIMIT: Final = 2.0
_NEIGHBOUR: Final = "198.19.0.20"
_VICTIM: Final = "198.19.0.21"
_PORTS: Final = {"http": 80, "tcp": 90}
_HOST: Final = f"quiet-server.{SPACE}.svc.cluster.local"
_HERE: Final = Path(__file__).parent
_QUIET_CORE: Final = 0
_HOSTILE_CORE: Final = 1
"""What the two run on. The proxies run on any."""
_RECOVERY: Final = 2.0
"""Seconds for the kernel and the proxies to close what a hostile workload has left."""
_PATIENCE: Final = 60.0
_RESOLVER: Final = (
    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv"),
    *("--user=root", "--address=/#/"),
)
"""Knows at once that there is no such name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Attack:
    name: str
    how: str
    """The program's word for it; empty: it is made by configuration."""
    count: int
    kind: str = "http"
    """What is spoken on the port that is attacked."""
    programs: int = 1
    """That share in it, where one may not open so many files."""


ATTACKS: Final = (
    Attack("500 downloads of 50 MB, never read", "unread", 500),
    Attack("20,000 idle connections", "idle", 20_000, programs=4),
    Attack("20,000 half headers", "halves", 20_000, programs=4),
    Attack("1,000 handshakes/s", "connections", 1000, "tcp"),
    Attack("4,000 DNS queries/s", "names", 4000),
    Attack("1,000 rule changes", "", 1000),
)


@contextmanager
def upstream(port: int) -> Generator[str]:
    """Whom the mesh asks for names that are not its own."""
    options = (f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces")
    program = subprocess.Popen(server.on_core(_HOSTILE_CORE, [*_RESOLVER, *options]))
    try:
        yield f"127.0.0.1:{port}"
    finally:
        program.terminate()
        program.wait()


class Scene:
    """The neighbour, and the hostile workload in the mesh and outside."""

    def __init__(self, ground: Ground, node: Node) -> None:
        self._ground, self._node = ground, node
        quiet = server.start(ground, "quiet-server", core=_QUIET_CORE)
        victim = server.start(ground, "victim", workers=4, core=_HOSTILE_CORE)
        outside = server.start(ground, "outside", workers=4, core=_HOSTILE_CORE)
        self._quiet, self._mallory = ground.add("quiet"), ground.add("mallory")
        self._stranger = ground.add("stranger")
        ports = {name: (number, server.PORTS[name]) for name, number in _PORTS.items()}
        node.apply(
            namespace(),
            service("quiet-server", _NEIGHBOUR, "quiet-server", ports),
            service("victim", _VICTIM, "victim", ports),
        )
        node.register(
            *(workload(host, host.name) for host in (quiet, victim, self._quiet, self._mallory))
        )
        self._targets = {
            "mesh": (self._mallory, _VICTIM, _PORTS | {"dns": 53}),
            "direct": (self._stranger, outside.address, server.PORTS | {"dns": 53}),
        }
        ground.start(outside, server.on_core(_HOSTILE_CORE, [*_RESOLVER]))

    def neighbour(self, seconds: float) -> Json:
        """By kind: how many, how many of them failed, and quantiles in seconds."""
        arguments = (_NEIGHBOUR, str(_PORTS["http"]), _HOST, str(seconds))
        command = [sys.executable, "-I", str(_HERE / "neighbour.py"), *arguments]
        text = self._quiet.run(server.on_core(_QUIET_CORE, command), timeout=seconds + _PATIENCE)
        return {kind: figures(**found) for kind, found in json.loads(text).items()}

    @contextmanager
    def under(self, attack: Attack, way: str) -> Generator[Json]:
        """Within the block the attack goes on; after it, there is what it got."""
        got: Json = {}
        if attack.how:
            with self._program(attack, way, got):
                yield got
        else:
            with self._changes(attack, got):
                yield got

    @contextmanager
    def _program(self, attack: Attack, way: str, got: Json) -> Generator[None]:
        host, address, ports = self._targets[way]
        port = ports["dns" if attack.how == "names" else attack.kind]
        arguments = (attack.how, address, str(port), str(attack.count // attack.programs))
        command = [sys.executable, "-I", str(_HERE / "hostile.py"), *arguments]
        programs = [
            subprocess.Popen(
                host.inside(server.on_core(_HOSTILE_CORE, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(attack.programs)
        ]
        try:
            yield
        finally:
            said = [program.communicate(timeout=_PATIENCE)[0] for program in programs]
        got.update(sum((Counter(json.loads(text)) for text in said), Counter[str]()))

    @contextmanager
    def _changes(self, attack: Attack, got: Json) -> Generator[None]:
        """In the hostile workload's own namespace."""
        over = threading.Event()

        def change() -> None:
            for number in range(attack.count):
                if over.is_set():
                    return
                try:
                    self._node.submit(_route(number))
                except MeshdError:
                    got["refused"] = got.get("refused", 0) + 1
                else:
                    got["made"] = got.get("made", 0) + 1

        changing = threading.Thread(target=change)
        changing.start()
        try:
            yield
        finally:
            over.set()
            changing.join()
            self._node.forget(_route(0))


def _route(number: int) -> Json:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "victim", "namespace": SPACE},
        "spec": {
            "hosts": ["victim"],
            "http": [{"timeout": f"{number + 1}s", "route": [{"destination": {"host": "victim"}}]}],
        },
    }


def figures(latencies: list[float], failures: list[str]) -> Json:
    ordered = sorted(latencies) or [float("inf")]
    return {
        "count": len(latencies) + len(failures),
        "failed": len(failures),
        "failures": sorted(set(failures)),
        "p50": quantile(ordered, 0.5),
        "p99": quantile(ordered, 0.99),
    }


def ratios(before: Json, during: Json) -> dict[str, float]:
    """Of the p99 of each kind."""
    return {kind: during[kind]["p99"] / before[kind]["p99"] for kind in before}


def holds(row: Json) -> bool:
    """The neighbour notices no more than that somebody else works, too."""
    return not row["failed"] and max(row["ratio"].values()) <= _RATIO_LIMIT


def measure(
    ground: Ground, node: Node, rounds: int, seconds: float, progress: Callable[[str], None]
) -> list[Json]:
    """A row for each attack and way. Raises MeshdError."""
    scene = Scene(ground, node)
    scene.neighbour(1)
    return [
        _row(attack, way, tuple(_rounds(scene, attack, way, rounds, seconds, progress)))
        for attack in ATTACKS
        for way in (WAYS if attack.how else WAYS[:1])
    ]


def _rounds(
    scene: Scene,
    attack: Attack,
    way: str,
    rounds: int,
    seconds: float,
    progress: Callable[[str], None],
) -> Iterator[Json]:
    for number in range(rounds):
        progress(f"{attack.name}, {way}, round {number + 1} of {rounds}")
        before = scene.neighbour(seconds)
        with scene.under(attack, way) as got:
            during = scene.neighbour(seconds)
        time.sleep(_RECOVERY)
        yield {"before": before, "during": during, "got": got, "ratios": ratios(before, during)}


def _row(attack: Attack, way: str, rounds: tuple[Json, ...]) -> Json:
    return {
        "attack": attack.name,
        "way": way,
        "rounds": list(rounds),
        "failed": sum(one["during"][kind]["failed"] for one in rounds for kind in KINDS),
        "count": sum(one["during"][kind]["count"] for one in rounds for kind in KINDS),
        "ratio": {
            kind: statistics.median([one["ratios"][kind] for one in rounds]) for kind in KINDS
        },
    }
