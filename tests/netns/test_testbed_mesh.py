"""What the testbed tells the mesh, and when. The mesh is a fake that notes what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import pytest

from meshd import wire
from meshd.base.errors import UnreachableError
from meshd.model.pod import PodState
from meshd.pods.client import Client
from meshd.pods.files import Home
from meshd.pods.images import Image, ImageMap
from meshd.settings import Paths
from meshd.wire import channel
from tests.network_lease import leased_network
from tests.waiting import PATIENCE

NETWORKS = [f"198.18.{third}.{last}/27" for third in range(64, 128) for last in range(0, 256, 32)]
IMAGES = ImageMap({"sh": Image()})
LABELS = "istio.io/dataplane-mode: ambient"
POD = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {LABELS}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  serviceAccountName: shop-web
  containers:
  - name: main
    image: sh
    command: [sleep, infinity]
    ports: [{name: http, containerPort: 80}]
    readinessProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}
"""


class FakeMesh:
    """Answers as the mesh role does; ``proves`` is when it says that a workload is proven."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[wire.AnyMessage] = []
        self.proves = asyncio.Event()
        self._sessions: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await channel.listen(self.path, wire.ANY, self._session, uids={0})

    async def stop(self) -> None:
        """As a process that is killed: its connections are gone, its socket file is left."""
        if self._server:
            self._server.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def _session(self, connection: channel.Connection[wire.AnyMessage]) -> None:
        own = asyncio.current_task()
        if own:
            self._sessions.add(own)
        await channel.answering(self._answer)(connection)

    async def _answer(self, request: wire.AnyMessage) -> wire.Message:
        self.told.append(request)
        match request:
            case wire.Get():
                return wire.Objects(())
            case wire.Apply():
                return wire.Changed(())
            case wire.Register() if request.wait:
                await self.proves.wait()
            case _:
                pass
        return wire.Done()

    def asked(self) -> list[wire.Register]:
        """The requests that wait until their workloads are proven."""
        return [told for told in self.told if isinstance(told, wire.Register) and told.wait]

    def registrations(self, *, ready: bool) -> list[wire.Register]:
        return [
            message
            for message in self.told
            if isinstance(message, wire.Register)
            and any(workload.ready is ready for workload in message.workloads)
        ]


class Bed:
    """A testbed, driven as meshctl does it."""

    def __init__(self, home: Path, cidr: str) -> None:
        self.paths = Paths(home / "etc", home / "lib", home / "run")
        self.client = Client(Home(self.paths))
        self.mesh = FakeMesh(self.paths.socket("mesh"))
        self._cidr = cidr

    async def up(self, labels: str = LABELS) -> None:
        sources = (("web.yaml", POD.replace("LABELS", labels)),)
        plan, cidr = await self.client.plan(sources, "default", IMAGES, self._cidr)
        await self.client.apply(sources, "default")
        await self.client.run(plan, cidr)

    async def pod(self) -> PodState:
        return (await self.client.pods()).pods[0]

    async def eventually(self, condition: Callable[[PodState], bool], what: str) -> PodState:
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition(pod := await self.pod()):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE:g} s: {what}") from None
        return pod


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="mtb-"))
    monkeypatch.setenv("MESHD_HOME", str(directory))
    (directory / "run").mkdir()
    yield directory
    shutil.rmtree(directory)


@contextlib.asynccontextmanager
async def running(home: Path) -> AsyncGenerator[Bed]:
    with leased_network(NETWORKS) as cidr:
        bed = Bed(home, cidr)
        await bed.mesh.start()
        try:
            yield bed
        finally:
            bed.mesh.proves.set()
            await bed.client.down()
            await bed.mesh.stop()


def main_pid(pod: PodState) -> int:
    return pod.containers[0].pid


def test_nothing_of_a_pod_runs_before_its_traffic_is_captured(home: Path) -> None:
    async def scenario() -> None:
        async with running(home) as bed:
            await bed.up()
            await bed.eventually(lambda _: bool(bed.mesh.asked()), "the mesh is asked")
            assert (await bed.pod()).state == "Joining"
            asked = bed.mesh.asked()[0]
            assert main_pid(await bed.pod()) == 0
            bed.mesh.proves.set()
            await bed.eventually(lambda pod: main_pid(pod) > 0, "it runs")
            workload = asked.workloads[0]
            assert (workload.uid, workload.service_account) == ("shop.web", "shop-web")
            assert workload.labels == {"app": "web"}
            assert [(port.name, port.number) for port in workload.ports] == [("http", 80)]
            assert workload.addresses[0].startswith("198.18.")
            assert workload.addresses[1].startswith("fd00:198::")
            assert not workload.ready
            assert not workload.enrolled  # only labels put a pod of a testbed into the mesh
            assert any(isinstance(message, wire.Apply) for message in bed.mesh.told)

    asyncio.run(scenario())


def test_the_mesh_hears_when_a_pod_becomes_ready(home: Path) -> None:
    async def scenario() -> None:
        async with running(home) as bed:
            bed.mesh.proves.set()
            await bed.up()
            pod = await bed.eventually(lambda pod: main_pid(pod) > 0, "it runs")
            assert bed.mesh.registrations(ready=True) == []
            Path(f"/proc/{main_pid(pod)}/root/tmp/up").touch()
            await bed.eventually(lambda pod: pod.ready, "it is ready")
            await bed.eventually(
                lambda _: bool(bed.mesh.registrations(ready=True)), "the mesh is told"
            )

    asyncio.run(scenario())


def test_a_mesh_that_comes_back_is_told_again(home: Path) -> None:
    async def scenario() -> None:
        async with running(home) as bed:
            bed.mesh.proves.set()
            await bed.up()
            before = main_pid(await bed.eventually(lambda pod: main_pid(pod) > 0, "it runs"))
            await bed.mesh.stop()
            bed.mesh = FakeMesh(bed.mesh.path)
            await bed.mesh.start()
            await bed.eventually(
                lambda _: bool(bed.mesh.registrations(ready=False)), "the mesh is told again"
            )
            assert main_pid(await bed.pod()) == before

    asyncio.run(scenario())


def test_joining_the_mesh_later_restarts_nothing(home: Path) -> None:
    async def scenario() -> None:
        async with running(home) as bed:
            await bed.up(labels="")
            before = main_pid(await bed.eventually(lambda pod: main_pid(pod) > 0, "it runs"))
            Path(f"/proc/{before}/root/tmp/up").touch()
            await bed.eventually(lambda pod: pod.ready, "it is ready outside the mesh")
            await bed.up()
            await bed.eventually(lambda pod: not pod.ready, "it is not ready until it is proven")
            bed.mesh.proves.set()
            pod = await bed.eventually(lambda pod: pod.ready, "it is ready inside the mesh")
            assert pod.plan.enrolled
            assert main_pid(pod) == before

    asyncio.run(scenario())


def test_pods_leave_the_mesh_before_they_end(home: Path) -> None:
    async def scenario() -> None:
        async with running(home) as bed:
            bed.mesh.proves.set()
            await bed.up()
            await bed.eventually(lambda pod: main_pid(pod) > 0, "it runs")
            assert await bed.client.down()
            last = bed.mesh.told[-1]
            assert isinstance(last, wire.Unregister)
            assert last.uids == ("shop.web",)
            assert not await bed.client.down()

    asyncio.run(scenario())


def test_a_testbed_that_is_not_there_is_unreachable(home: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(UnreachableError, match="no testbed is running"):
            await Client(Home(Paths.from_environment())).pods()

    asyncio.run(scenario())
    assert list((home / "run").iterdir()) == []
