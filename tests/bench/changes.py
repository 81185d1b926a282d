"""The mesh role's work for a whole configuration, and for one change of it, in this process.

From the registered workloads and the objects to the resources that differ for the proxies: the
snapshot, the compilation, the packing and the comparison. Sockets and disks are no part of it.
"""

from __future__ import annotations

import gc
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from meshd.api.base import Key, Object
from meshd.api.read import read_objects
from meshd.base.garbage import bound_pauses
from meshd.config.store import Store
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.node.publishing import Inputs, Publishing
from meshd.xds.resources import EMPTY, Resources, difference
from tests.bench.figures import Json

CIDR: Final = "198.19.0.0/16"
CLIENTS: Final = 20
ENDPOINTS: Final = 10
_ROUNDS: Final = 5
_MIB: Final = 1024 * 1024
_WANTED: Final = {
    1_000: {
        "whole": 1.5,
        "readiness": 0.01,
        "workload_elsewhere": 0.01,
        "own_workload": 0.03,
        "namespace": 0.05,
        "service": 0.05,
        "virtual_service": 0.03,
        "destination_rule": 0.05,
        "gateway": 0.05,
        "resident": 150 * _MIB,
    },
    10_000: {
        "whole": 15.0,
        "readiness": 0.03,
        "workload_elsewhere": 0.03,
        "own_workload": 0.1,
        "namespace": 0.5,
        "service": 0.5,
        "virtual_service": 0.06,
        "destination_rule": 0.5,
        "gateway": 0.5,
        "resident": 600 * _MIB,
    },
}
"""By the number of services: seconds, bytes."""
_SERVICE: Final = """\
apiVersion: v1
kind: Service
metadata: {name: s0, namespace: n0}
spec: {selector: {app: s0}, ports: [{port: 80, name: http}]}
"""
_ROUTES: Final = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s0, namespace: n0}
spec:
  hosts: [s0]
  http:
  - match: [{uri: {prefix: /one}}]
    timeout: 1s
    route: [{destination: {host: s0}}]
  - route: [{destination: {host: s0}}]
"""
_RULE: Final = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s0, namespace: n0}
spec:
  host: s0
  subsets: [{name: v1, labels: {version: v1}}]
"""
_GATEWAY: Final = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: n0}
spec:
  selector: {app: s0}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 8080, name: http-more, protocol: HTTP}, hosts: ["*"]}
"""
_ENTRANCE: Final = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: n0}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: s0}}]}]}
"""


def _object(text: str) -> Object:
    return read_objects(text, "bench.yaml")[0].object


def named(one: Any, number: int, **spec: Any) -> Any:
    meta = msgspec.structs.replace(
        one.metadata, name=f"s{number}", namespace=f"n{number % CLIENTS}"
    )
    return msgspec.structs.replace(
        one, metadata=meta, spec=msgspec.structs.replace(one.spec, **spec)
    )


def objects_of(services: int, routes: int) -> Iterator[Object]:
    service, routing = _object(_SERVICE), _object(_ROUTES)
    for number in range(services):
        yield named(service, number, selector={"app": f"s{number}"})
    for number in range(routes):
        yield named(routing, number, hosts=(f"s{number}",))


def workload(number: int, service: int, node: str, address: str) -> Workload:
    namespace = f"n{service % CLIENTS}"
    return Workload(
        uid=f"{namespace}.w{number}",
        name=f"w{number}",
        namespace=namespace,
        netns=f"/run/netns/w{number}",
        labels={"app": f"s{service}"},
        addresses=(address,),
        node=node,
    )


class Mesh:
    """A mesh of so many services, with one client in each of some namespaces."""

    def __init__(self, directory: Path, services: int, routes: int) -> None:
        self._objects: dict[Key, Object] = {one.key: one for one in objects_of(services, routes)}
        self._own = tuple(workload(n, n, "", f"198.18.0.{n + 1}") for n in range(CLIENTS))
        self._others = [
            workload(n, n // ENDPOINTS, "there", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
            for n in range(services * ENDPOINTS)
        ]
        self._store = Store(directory / "config.d", directory / "lib")
        self._store.follow(dict(self._objects))
        self._publishing = Publishing(self._store, MeshOptions(), CIDR, self._take)
        self._published: Mapping[Pool, Resources] = {}
        self.differing = 0
        """Resources that the last change made other ones for the proxies."""

    def _take(self, resources: Mapping[Pool, Resources]) -> None:
        before, self._published = self._published, resources
        self.differing = sum(
            len(names)
            for pool, found in resources.items()
            for names in difference(before.get(pool, EMPTY), found).values()
        )

    def publish(self) -> None:
        publishing = self._publishing
        publishing.retake(lambda: Inputs(self._own, tuple(self._others)))
        publishing.finish_snapshot()
        assert publishing.snapshot
        publishing.publish(publishing.snapshot, {one.uid: one for one in self._own}, {})
        publishing.finish_publication()

    def turn(self, number: int) -> None:
        """Have an endpoint become ready, or not ready any more."""
        one = self._others[number]
        self._others[number] = msgspec.structs.replace(one, ready=not one.ready)

    def come(self, number: int) -> None:
        """Have a workload of another node come, and the next time go again."""
        if number % 2:
            self._others = self._others[:-1]
        else:
            one = workload(len(self._others), number, "there", "10.255.0.1")
            self._others = [*self._others, one]

    def own(self, number: int) -> None:
        """Have a workload of this node come, and the next time go again."""
        one = workload(len(self._others) + number, number, "", "198.18.1.1")
        self._turn_own(one, come=not number % 2)

    def namespace(self, number: int) -> None:
        """Have the first workload of a namespace come to this node, and the next time go again."""
        one = msgspec.structs.replace(
            workload(number, number, "", "198.18.1.2"), uid="new.w", namespace="new"
        )
        self._turn_own(one, come=not number % 2)

    def _turn_own(self, one: Workload, *, come: bool) -> None:
        self._own = (*self._own, one) if come else self._own[:-1]

    def service(self, number: int) -> None:
        """Have a Service come, and the next time go again."""
        one = named(_object(_SERVICE), len(self._others), selector={"app": "new"})
        if number % 2:
            del self._objects[one.key]
        else:
            self._objects[one.key] = one
        self._store.follow(dict(self._objects))

    def route(self, number: int) -> None:
        """Change a VirtualService."""
        key = Key("VirtualService", f"n{number % CLIENTS}", f"s{number}")
        changed: Any = self._objects[key]
        first, *others = changed.spec.http
        first = msgspec.structs.replace(first, timeout=2.0 if first.timeout != 2.0 else 3.0)
        self._objects[key] = named(changed, number, http=(first, *others))
        self._store.follow(dict(self._objects))

    def rule(self, number: int) -> None:
        """Have a DestinationRule come, and the next time go again."""
        one = _object(_RULE)
        if number % 2:
            self._objects.pop(one.key, None)
        else:
            self._objects[one.key] = one
        self._store.follow(dict(self._objects))

    def enter(self) -> None:
        """Have a Gateway at a workload of this node."""
        for one in map(_object, (_GATEWAY, _ENTRANCE)):
            self._objects[one.key] = one
        self._store.follow(dict(self._objects))

    def gateway(self, number: int) -> None:
        """Have the second server of the Gateway go, and the next time come again."""
        gateway: Any = _object(_GATEWAY)
        servers = gateway.spec.servers[: 1 + number % 2]
        spec = msgspec.structs.replace(gateway.spec, servers=servers)
        self._objects[gateway.key] = msgspec.structs.replace(gateway, spec=spec)
        self._store.follow(dict(self._objects))


def _seconds(work: Callable[[], None]) -> float:
    """Return the CPU time of the work, which other programs on the machine do not lengthen."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _each(mesh: Mesh, change: Callable[[int], None]) -> list[float]:
    found: list[float] = []
    for number in range(_ROUNDS):
        change(number * 7)
        found.append(_seconds(mesh.publish))
        if not mesh.differing:
            raise RuntimeError("a change was measured that has changed nothing")
    return found


def _resident() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kib,) = re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(kib) * 1024


def measure(progress: Callable[[str], None], *, small: bool) -> list[Json]:
    """Measure meshes of ever more services, each with three VirtualServices for ten of them."""
    rows: list[Json] = []
    bound_pauses()
    for services in list(_WANTED)[: 1 if small else None]:
        progress(f"changes among {services} services")
        rows.append(measure_one(services, services * 3 // 10))
    return rows


def measure_one(services: int, routes: int) -> Json:
    """Measure a mesh of so many services and VirtualServices."""
    with tempfile.TemporaryDirectory() as directory:
        mesh = Mesh(Path(directory), services, routes)
        whole = _seconds(mesh.publish)
        gc.collect()
        gc.freeze()
        changes = {
            "readiness": mesh.turn,
            "workload_elsewhere": mesh.come,
            "own_workload": mesh.own,
            "namespace": mesh.namespace,
            "service": mesh.service,
            "virtual_service": mesh.route,
            "destination_rule": mesh.rule,
        }
        medians = {name: statistics.median(_each(mesh, change)) for name, change in changes.items()}
        mesh.enter()
        mesh.publish()
        medians["gateway"] = statistics.median(_each(mesh, mesh.gateway))
        gc.unfreeze()
    return {
        "services": services,
        "virtual_services": routes,
        "whole": whole,
        **medians,
        "resident": _resident(),
        "wanted": _WANTED[services],
    }
