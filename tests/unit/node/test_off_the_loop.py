"""What takes longer in a larger mesh is never done by the thread of the mesh role's loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
import pytest

from meshd import wire
from meshd.analysis import validate
from meshd.api import counts
from meshd.base.errors import MeshdError
from meshd.base.json_values import JsonObject
from meshd.compile.explain import request as explain
from meshd.compile.replacement.isolation import Isolating
from meshd.config import accepted_before, applied, requests
from meshd.config import files as config_files
from meshd.config.store import Store
from meshd.model.workload import Workload
from meshd.node import changing, in_work, publishing
from meshd.node.api import Control
from meshd.node.changing import Changing
from meshd.node.mesh import Mesh
from meshd.node.offers import Offers
from meshd.registry import snapshots
from meshd.resolver import files
from meshd.roles.mesh import assembled
from meshd.settings import Paths, Settings
from tests.waiting import PATIENCE, eventually

WEB = Workload(uid="shop.web", name="web", namespace="shop", netns="/netns", enrolled=True)
OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: shop}
spec: {host: db}
"""
SERVICE: JsonObject = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "made", "namespace": "shop"},
    "spec": {"selector": {"app": "made"}, "ports": [{"name": "http", "port": 80}]},
}
SOURCES = (("objects.yaml", OBJECTS),)
EXPENSIVE: tuple[tuple[Any, str], ...] = (
    (applied.AppliedFile, "replace"),
    (changing, "dry_run"),
    (accepted_before, "too_many"),
    (counts, "too_many"),
    (explain, "explain"),
    (files, "write"),
    (in_work, "_fingerprint"),
    (in_work, "new_among"),
    (config_files, "read_sources"),
    (Isolating, "compile"),
    (publishing, "build_snapshot"),
    (requests, "get"),
    (requests, "judged"),
    (requests, "judged_deletion"),
    (requests, "read_sources"),
    (snapshots, "take"),
    (Store, "write"),
    (validate, "check_fields"),
    (validate, "check_references"),
)
RULES = (wire.Named("dr", ("db",)),)
VERBS: dict[str, tuple[wire.Message, ...]] = {
    "apply": (wire.Apply(SOURCES),),
    "apply and wait": (wire.Apply(SOURCES, wait=0.1),),
    "apply, dry": (wire.Apply(SOURCES, dry_run=True),),
    "delete": (wire.Apply(SOURCES), wire.DeleteNamed(RULES, "shop")),
    "delete, dry": (wire.Apply(SOURCES), wire.DeleteNamed(RULES, "shop", dry_run=True)),
    "delete -f": (wire.Apply(SOURCES), wire.Apply(SOURCES, delete=True)),
    "get": (wire.Apply(SOURCES), wire.Get("service"), wire.Get("dr", "db", "shop")),
    "status": (wire.Status(),),
    "explain": (wire.Apply(SOURCES), wire.Explain("web", "db", namespace="shop")),
    "register": (wire.Register((WEB,)), wire.Unregister((WEB.uid,))),
}


@pytest.fixture
def on_the_loop(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> tuple[Mesh, list[str], set[str]]:
    """Return the mesh role's parts; the names of what its loop has done; and of all that was
    done."""
    mesh, wrong, done = assembled(Settings(), paths), list[str](), set[str]()
    mesh.reconciler.observed(())
    mesh.reconciler.register((WEB,))

    def seen(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            done.add(name)
            if threading.current_thread() is threading.main_thread():
                wrong.append(name)
            return work(*arguments, **named)

        return called

    for owner, name in EXPENSIVE:
        monkeypatch.setattr(owner, name, seen(name, getattr(owner, name)))
    return mesh, wrong, done


@contextlib.asynccontextmanager
async def running(mesh: Mesh) -> AsyncGenerator[None]:
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        started = [
            tasks.create_task(mesh.publishing.run()),
            tasks.create_task(mesh.resolving.run()),
            tasks.create_task(mesh.settling.run(mesh.reconciler.settle, mesh.work)),
        ]
        yield
        # No round of settling follows the last job: nothing tells that it has ended.
        while mesh.settling.is_due or mesh.publishing.busy:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for task in started:
            task.cancel()


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_does_work_that_grows_with_the_mesh_on_the_event_loop(
    on_the_loop: tuple[Mesh, list[str], set[str]], paths: Paths, verb: str
) -> None:
    mesh, wrong, done = on_the_loop

    async def ask() -> None:
        control = Control(mesh, Settings(), paths)
        async with running(mesh):
            for request in VERBS[verb]:
                with contextlib.suppress(MeshdError):
                    await control.handle(request)  # type: ignore[arg-type]

    asyncio.run(ask())
    assert {"take", "compile"} <= done
    assert wrong == []


def test_no_enrollment_does_work_that_grows_with_the_mesh_on_the_event_loop(
    on_the_loop: tuple[Mesh, list[str], set[str]],
) -> None:
    mesh, wrong, done = on_the_loop

    async def offer() -> None:
        offers = Offers(mesh, Changing(mesh), is_own=True)
        async with running(mesh):
            await offers.apply(SERVICE)
            await offers.delete("shop", ("made",))

    asyncio.run(offer())
    assert {"judged", "judged_deletion", "replace"} <= done
    assert wrong == []


def test_no_file_is_read_on_the_event_loop(
    on_the_loop: tuple[Mesh, list[str], set[str]], paths: Paths
) -> None:
    mesh, wrong, done = on_the_loop

    async def change() -> None:
        async with running(mesh), asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(mesh.store.watch(0.0))
            paths.config_directory.mkdir(parents=True, exist_ok=True)
            (paths.config_directory / "a.yaml").write_text(OBJECTS)
            await mesh.settling.wait(lambda: bool(mesh.store.objects), PATIENCE)
            watching.cancel()

    asyncio.run(change())
    assert {"read_sources", "_fingerprint"} <= done
    assert wrong == []


def test_workloads_of_other_nodes_are_not_noted_on_the_event_loop(
    on_the_loop: tuple[Mesh, list[str], set[str]],
) -> None:
    mesh, wrong, done = on_the_loop
    told = [msgspec.structs.replace(WEB, uid=f"shop.w{one}", node="there") for one in range(3)]

    async def hear() -> None:
        async with running(mesh):
            await mesh.hear_of_many(told)

    asyncio.run(hear())
    assert mesh.elsewhere == tuple(told)
    assert not mesh.work.attempts.in_hand
    assert "new_among" in done
    assert wrong == []


def test_workloads_that_are_noted_when_a_session_ends_are_not_in_force(
    on_the_loop: tuple[Mesh, list[str], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, _, _ = on_the_loop
    begun, may_end, note = threading.Event(), threading.Event(), in_work.new_among
    told = [msgspec.structs.replace(WEB, uid="shop.w", node="there")]

    def waits(*given: Any) -> list[Workload]:
        begun.set()
        may_end.wait(PATIENCE)
        return note(*given)

    async def hear() -> None:
        hearing = asyncio.create_task(mesh.hear_of_many(told))
        await asyncio.to_thread(begun.wait, PATIENCE)
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        may_end.set()
        attempts = mesh.work.attempts
        name = "workload there/shop.w"
        await asyncio.to_thread(
            eventually,
            lambda: name in dict(attempts.working) and not attempts.in_hand,
            "the thread has ended",
        )

    monkeypatch.setattr(in_work, "new_among", waits)
    asyncio.run(hear())
    assert mesh.elsewhere == ()


_ENDLESS = """
import asyncio, os, signal, sys
from meshd.node.background import Background

def begin():
    def work():
        os.write(1, b"begun\\n")
        while True:
            sum(range(1000))
    return work

async def main():
    task = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    background = Background("working", begin, print)
    background.ask()
    await background.run()

try:
    asyncio.run(main())
except asyncio.CancelledError:
    sys.exit(7)
"""


def test_a_process_ends_while_a_job_runs() -> None:
    with subprocess.Popen([sys.executable, "-c", _ENDLESS], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"begun\n"
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(PATIENCE) == 7
        finally:
            process.kill()
