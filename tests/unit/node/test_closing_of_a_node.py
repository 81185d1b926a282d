"""A policy that becomes stricter is in force while a compilation from before still runs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from envoy.config.listener.v3 import listener_pb2

from meshd.api.read import read_objects
from meshd.base.errors import InvalidInputError
from meshd.compile.names import listener_name
from meshd.compile.replacement.isolation import Isolating
from meshd.config.store import Store
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.node import closing
from meshd.node.publishing import Inputs, Publishing
from meshd.node.stages import Step
from meshd.xds.resources import LISTENER, ROUTES
from tests.unit import storing
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from pathlib import Path

    from meshd.xds.resources import Resource, Resources

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, name: http}]}
"""
POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: NAME, namespace: NAMESPACE}
spec: SPEC
"""
STRICT = "{mtls: {mode: STRICT}}"
OWN = "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}"
EXCEPTION = (
    "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT},"
    " portLevelMtls: {80: {mode: PERMISSIVE}}}"
)
FOR_CLOSED = "{selector: {matchLabels: {app: closed}}, mtls: {mode: STRICT}}"
WEB = Workload(
    uid="shop.web",
    name="web",
    namespace="shop",
    netns="/run/netns/web",
    labels={"app": "web"},
    addresses=("198.18.0.1",),
    enrolled=True,
)


def policy(spec: str, namespace: str = "shop", name: str = "policy") -> str:
    text = POLICY.replace("NAMESPACE", namespace).replace("NAME", name)
    return text.replace("SPEC", spec)


class Mesh:
    """A node with one workload, of which one compilation has ended. The next one runs from
    ``compile`` to ``end``."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory / "config.d", directory / "lib")
        self.member = WEB
        self.told: list[Mapping[str, Resource]] = []
        self.published: list[Resources] = []
        self.steps: list[Step] = []
        self.publishing = Publishing(
            self.store, MeshOptions(), "198.19.0.0/16", self._told, step=self.steps.append
        )
        self.store.subscribe(self.retake)
        self.retake()

    def _told(self, resources: Mapping[Pool, Resources]) -> None:
        self.told.append(resources[Pool.TRAFFIC].of_type(LISTENER))
        self.published.append(resources[Pool.TRAFFIC])

    def retake(self) -> None:
        self.publishing.retake(lambda: Inputs((self.member,)))

    def apply(self, *texts: str) -> None:
        found = [read.object for text in texts for read in read_objects(text, "a.yaml")]
        storing.put(self.store, found)

    def read(self) -> None:
        """Have all that is known read, and asked to be compiled."""
        self.publishing.finish_snapshot()
        self.publish()

    def settle(self) -> None:
        self.read()
        self.publishing.finish_publication()

    def publish(self) -> None:
        assert self.publishing.snapshot
        self.publishing.publish(self.publishing.snapshot, {self.member.uid: self.member}, {})

    @property
    def listener(self) -> Resource:
        return self.told[-1][listener_name(WEB.uid, "inbound")]

    @property
    def takes_plaintext(self) -> bool:
        listener = listener_pb2.Listener.FromString(self.listener.body)
        return "plain" in {chain.name for chain in listener.filter_chains}


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    (tmp_path / "lib").mkdir()
    mesh = Mesh(tmp_path)
    mesh.apply(SERVICE, policy(FOR_CLOSED, name="a"))
    mesh.settle()
    assert mesh.takes_plaintext
    mesh.apply(SERVICE.replace("name: web", "name: other"))
    mesh.read()  # its compilation is the one that runs
    return mesh


DENYING = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: policy, namespace: shop}
spec: SPEC
"""
ALL = "{action: DENY, rules: [{}]}"
ADMIN = "{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}"
NAMED = "{action: DENY, rules: [{when: [{key: connection.sni, values: [a.test]}]}]}"


def denying(spec: str) -> str:
    return DENYING.replace("SPEC", spec)


def judging(mesh: Mesh) -> bytes:
    """The table of requests to the workload."""
    return mesh.published[-1].of_type(ROUTES)["plain|inbound|80||"].body


@pytest.mark.parametrize("spec", [ALL, ADMIN, "{}", NAMED])
def test_who_is_denied_by_a_policy_is_denied_while_a_compilation_runs(
    mesh: Mesh, spec: str
) -> None:
    compiled, before = mesh.publishing.compiled, judging(mesh)
    mesh.apply(denying(spec))
    mesh.publishing.finish_closing()
    closed = judging(mesh)
    assert closed != before
    assert mesh.publishing.compiled == compiled
    mesh.publishing.finish_publication()  # of what was read before
    assert judging(mesh) == closed
    listener = mesh.listener
    mesh.settle()
    assert (judging(mesh), mesh.listener) == (closed, listener)


def test_a_policy_that_is_not_in_force_any_more_denies_while_a_compilation_runs(
    mesh: Mesh,
) -> None:
    mesh.apply(denying("{rules: [{}]}"))
    mesh.settle()
    before = judging(mesh)
    mesh.store.withhold(lambda one: "it kills" if one.KIND == "AuthorizationPolicy" else "")
    mesh.retake()
    mesh.publishing.finish_closing()
    closed = judging(mesh)
    assert closed != before
    mesh.settle()
    assert judging(mesh) != before


def test_who_is_allowed_by_a_policy_waits_until_it_is_compiled(mesh: Mesh) -> None:
    mesh.apply(denying(ALL))
    mesh.settle()
    publications, closed = len(mesh.told), judging(mesh)
    mesh.apply(denying("{rules: [{}]}"))
    mesh.publishing.finish_closing()
    assert len(mesh.told) == publications
    mesh.settle()
    assert judging(mesh) != closed


def lose(mesh: Mesh) -> None:
    mesh.store.lost = ("applied.json",)
    mesh.retake()


def damage(mesh: Mesh) -> None:
    mesh.apply(policy("{mtls: {mode: PERMISSIVE}}"))
    mesh.store.withhold(lambda one: "it kills" if one.KIND == "PeerAuthentication" else "")
    mesh.retake()


def relabel(mesh: Mesh) -> None:
    mesh.member = msgspec.structs.replace(WEB, labels={"app": "closed"})
    mesh.retake()


def close(spec: str, namespace: str = "shop") -> Callable[[Mesh], None]:
    return lambda mesh: mesh.apply(policy(spec, namespace))


CLOSINGS = {
    "a policy of the workload": close(OWN),
    "a policy of its namespace": close(STRICT),
    "a policy of the mesh": close(STRICT, "istio-system"),
    "a policy that is not in force any more": damage,
    "lost configuration": lose,
    "another label": relabel,
}


@pytest.mark.parametrize("closes", CLOSINGS.values(), ids=CLOSINGS)
def test_a_stricter_policy_is_in_force_while_a_compilation_runs(
    mesh: Mesh, closes: Callable[[Mesh], None]
) -> None:
    compiled = mesh.publishing.compiled
    closes(mesh)
    mesh.publishing.finish_closing()
    assert not mesh.takes_plaintext
    assert mesh.publishing.compiled == compiled
    assert mesh.publishing.busy
    mesh.publishing.finish_publication()  # of what was read before
    assert not mesh.takes_plaintext
    closed = mesh.listener
    mesh.settle()
    assert mesh.listener == closed  # so that proxies have no second listener to take


def test_an_exception_for_a_port_that_is_deleted_is_closed_at_once(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    mesh = Mesh(tmp_path)
    mesh.apply(SERVICE, policy(EXCEPTION))
    mesh.settle()
    assert mesh.takes_plaintext
    mesh.apply(policy(STRICT))
    mesh.publishing.finish_closing()
    assert not mesh.takes_plaintext
    closed = mesh.listener
    mesh.settle()
    assert mesh.listener == closed


def test_a_more_open_policy_waits_until_it_is_compiled(mesh: Mesh) -> None:
    mesh.apply(policy(STRICT))
    mesh.settle()
    assert not mesh.takes_plaintext
    mesh.apply(policy("{mtls: {mode: PERMISSIVE}}"))
    publications = len(mesh.told)
    mesh.publishing.finish_closing()
    assert len(mesh.told) == publications
    mesh.settle()
    assert mesh.takes_plaintext


def test_what_was_closed_for_a_moment_is_open_again_without_another_compilation(
    mesh: Mesh,
) -> None:
    mesh.settle()
    compiled = mesh.publishing.compilation
    relabel(mesh)
    mesh.publishing.finish_closing()
    mesh.member = WEB
    mesh.retake()
    mesh.publishing.finish_closing()
    assert not mesh.takes_plaintext
    mesh.settle()
    assert mesh.takes_plaintext
    assert mesh.publishing.compilation == compiled


def test_closed_listeners_stay_closed_when_nothing_can_be_compiled(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise InvalidInputError("no")

    monkeypatch.setattr(Isolating, "compile", fails)
    mesh.apply(policy(STRICT))
    mesh.settle()
    assert not mesh.takes_plaintext


def test_a_listener_that_leaves_is_not_brought_back_by_what_closes_it(mesh: Mesh) -> None:
    mesh.apply(policy(STRICT))
    mesh.publishing.finish_closing()
    assert mesh.publishing.snapshot
    mesh.publishing.publish(mesh.publishing.snapshot, {}, {})
    mesh.apply(policy(STRICT, "istio-system", "wide"))
    mesh.publishing.finish_closing()
    assert listener_name(WEB.uid, "inbound") not in mesh.told[-1]


def test_steps_tell_when_policies_are_looked_at(mesh: Mesh) -> None:
    mesh.steps.clear()
    mesh.apply(policy(STRICT))
    mesh.publishing.finish_closing()
    assert mesh.steps == [Step.CLOSING, Step.CLOSED]


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for comes from a thread
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(mesh: Mesh) -> AsyncGenerator[None]:
    task = asyncio.create_task(mesh.publishing.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def test_a_policy_does_not_wait_for_a_thread_that_compiles(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, let = threading.Event(), threading.Event()
    compiles = Isolating.compile

    def compile_when_let(*given: Any) -> Any:
        begun.set()
        assert let.wait(PATIENCE)
        return compiles(*given)

    async def check() -> None:
        async with running(mesh):
            await eventually(begun.is_set)
            mesh.apply(policy(STRICT))
            await eventually(lambda: not mesh.takes_plaintext)
            assert not let.is_set()
            let.set()
            await eventually(lambda: mesh.publishing.compiled == 2)
            assert not mesh.takes_plaintext

    monkeypatch.setattr(Isolating, "compile", compile_when_let)
    try:
        asyncio.run(check())
    finally:
        let.set()


def test_nothing_from_before_is_published_while_it_cannot_be_told_what_to_close(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("oh")

    async def check() -> None:
        async with running(mesh):
            await eventually(lambda: bool(mesh.publishing.faults))
            await eventually(lambda: {Step.COMPILED, Step.READ} <= set(mesh.steps))
            assert len(mesh.told) == 1
            assert mesh.publishing.progress.compiles
            mesh.publish()
            await eventually(lambda: len(mesh.told) > 1)
            assert not mesh.takes_plaintext

    monkeypatch.setattr(closing, "closing", fails)
    mesh.steps.clear()
    mesh.apply(policy(STRICT))
    asyncio.run(check())
