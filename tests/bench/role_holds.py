"""How long the steps of each role's event loop take in a whole mesh: a server and an agent.

The nodes are real ones, with their proxies and a pod each. All other workloads are reported by a
node that is away. ``watched/sitecustomize.py`` measures each role from inside, in CPU time of the
loop's own thread, and the pauses of the garbage collector in any thread.
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from meshd import wire
from meshd.api.write import to_json
from meshd.base.errors import NotReadyError
from tests.bench.changes import ENDPOINTS, objects_of, workload
from tests.bench.figures import Json
from tests.node.node import Node, make_node

_WATCHED: Final = Path(__file__).with_name("watched")
_SERVICES: Final = (1_000, 10_000)
_WORKLOADS: Final = 10_000
_CHANGES: Final = 10
"""One after the other; then a thousand at once."""
_AT_ONCE: Final = 1_000
_PATIENCE: Final = 300.0
_WANTED: Final = 0.05
"""Seconds."""


def measure(progress: Callable[[str], None], *, small: bool) -> list[Json]:
    """Measure meshes of ever more services."""
    rows: list[Json] = []
    for services in _SERVICES[: 1 if small else None]:
        progress(f"all loops among {services} services")
        with contextlib.ExitStack() as stack:
            rows.append(_Mesh(stack, services).measured())
    return rows


class _Mesh:
    """A server and an agent that has joined it."""

    def __init__(self, stack: contextlib.ExitStack, services: int) -> None:
        self._services = services
        control = {"address": "127.0.0.1", "port": 0, "disconnect_grace": "1h"}
        self._server = _node(stack, node="server", role="server", control=control)
        others = [
            workload(n, n // ENDPOINTS, "there", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
            for n in range(_WORKLOADS)
        ]
        lib = self._server.paths.lib
        lib.mkdir(parents=True, exist_ok=True)
        (lib / "elsewhere.json").write_bytes(msgspec.json.encode(others))
        self._agent = _node(stack, node="agent")
        self._objects = [to_json(one) for one in objects_of(services, services * 3 // 10)]

    def measured(self) -> Json:
        holds: dict[str, Json] = {}
        for name, step in self._steps():
            began = time.time()
            step()
            self._wait()
            holds[name] = dict(self._longest(began))
        return {
            "services": self._services,
            "workloads": _WORKLOADS,
            "wanted": _WANTED,
            "holds": holds,
        }

    def _steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "start and join", self._start
        yield "objects applied", lambda: self._apply(self._objects)
        yield "changes", self._change
        yield "changes at once", self._change_at_once
        yield "a file of objects", self._write_file
        yield "questions", self._ask

    def _start(self) -> None:
        server, agent = self._server, self._agent
        server.start()
        server.eventually(server.paths.control_port.exists, "the server listens")
        agent.start()
        port = server.paths.control_port.read_text(encoding="ascii").strip()
        made = json.loads(server.meshctl("token", "create", "-o", "json").output)
        joined = agent.meshctl("join", f"127.0.0.1:{port}", "--token", made["token"])
        if joined.status:
            raise NotReadyError(joined.errors)
        write = server.write
        server.up(write.dump(write.namespace("mesh", enrolled=True), write.deployment("alice")))
        agent.up(write.dump(write.deployment("bob")))

    def _apply(self, objects: list[Any]) -> None:
        text = "\n---\n".join(map(json.dumps, objects))
        answer = self._server.ask("mesh", wire.Apply((("-", text),), "n0"), _PATIENCE)
        if not isinstance(answer, wire.Changed):
            raise NotReadyError(f"the objects are not taken: {answer}")

    def _of_kind(self, kind: str) -> list[Any]:
        return [one for one in self._objects if one["kind"] == kind]

    def _change(self) -> None:
        for number, one in enumerate(self._of_kind("VirtualService")[:_CHANGES], 2):
            one["spec"]["http"][0]["timeout"] = f"{number}s"
            self._apply([one])

    def _change_at_once(self) -> None:
        changed = self._of_kind("Service")[:_AT_ONCE]
        for one in changed:
            one["metadata"]["labels"] = {"changed": "yes"}
        self._apply(changed)

    def _write_file(self) -> None:
        found = [
            one | {"metadata": one["metadata"] | {"name": f"f{one['metadata']['name']}"}}
            for one in self._of_kind("Service")
        ]
        text = "\n---\n".join(map(json.dumps, found))
        (self._server.paths.config_directory / "many.yaml").write_text(text, encoding="utf-8")
        name, namespace = (found[-1]["metadata"][key] for key in ("name", "namespace"))
        get = ("get", "svc", name, "-n", namespace)
        self._server.eventually(
            lambda: self._server.meshctl(*get).status == 0, "the file is read", _PATIENCE
        )

    def _ask(self) -> None:
        port = self._server.paths.telemetry_port.read_text(encoding="ascii").strip()
        for target in ("metrics", "api/state", ""):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{target}", timeout=30) as answer:
                answer.read()
        for verb in (("status",), ("get", "svc", "-A"), ("get", "vs", "-A", "-o", "json")):
            self._server.meshctl(*verb)

    def _wait(self) -> None:
        """Wait until the agent has all that the server has."""
        self._server.eventually(
            lambda: any(
                one.name == "agent" and one.synced for one in self._server.statuses().nodes
            ),
            "the agent is synced",
            _PATIENCE,
        )

    def _longest(self, since: float) -> Iterator[tuple[str, Json]]:
        """Yield the longest step of each role of each node."""
        for name, node in (("server", self._server), ("agent", self._agent)):
            for file in sorted((node.home / "holds").iterdir()):
                lines = [line.split(" ", 2) for line in file.read_text().splitlines()]
                steps = [(float(took), of) for at, took, of in lines if float(at) >= since]
                if steps:
                    seconds, of = max(steps)
                    yield f"{name}: {file.name}", {"seconds": seconds, "of": of}


def _node(stack: contextlib.ExitStack, **settings: Any) -> Node:
    node = make_node()
    stack.callback(node.close)
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
    node.paths.settings.write_text(node.paths.settings.read_text() + lines)
    holds = node.home / "holds"
    holds.mkdir()
    holds.chmod(0o1777)
    node.environment["PYTHONPATH"] = str(_WATCHED)
    return node
