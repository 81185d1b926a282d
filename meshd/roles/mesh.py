"""The mesh role: configuration and workloads in, Envoy's configuration and placements out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

from meshd import wire
from meshd.base import accounts
from meshd.base.errors import SystemRefusedError
from meshd.base.garbage import bound_pauses
from meshd.config.policies_in_use import PoliciesInUse
from meshd.config.store import Store
from meshd.model.workload import Observation
from meshd.node import probing
from meshd.node.api import Control
from meshd.node.declarations import Declarations
from meshd.node.ending import Connections, Ending
from meshd.node.in_work import InWork
from meshd.node.mesh import Mesh
from meshd.node.own_addresses import OwnAddresses
from meshd.node.ports import Ports
from meshd.node.processes import Capture, Certificates, Proxies
from meshd.node.publishing import Publishing
from meshd.node.reconciler import Reconciler
from meshd.node.records import Records
from meshd.node.resolving import Resolving
from meshd.node.settling import Settling
from meshd.node.sharing import Sharing
from meshd.node.state_directory import StateDirectory
from meshd.node.token_keys import TokenKeys, fetching
from meshd.node.tunneled import Tunneled
from meshd.proxy.machine import capacity_here
from meshd.settings import Paths, Settings
from meshd.wire import channel, cluster
from meshd.workloads.health import Checker
from meshd.xds.server import Server

if TYPE_CHECKING:
    from meshd.node.agent import Agent


async def run(settings: Settings, paths: Paths) -> None:
    """Run until cancelled."""
    bound_pauses()
    mesh = assembled(settings, paths)
    state = StateDirectory(paths.lib)
    policies = PoliciesInUse(paths.lib / "policies.json", mesh.store, mesh.settling.touch)
    mesh.further_problems.extend((state.look, lambda: policies.problem))
    await mesh.xds.start(paths.plane)
    agent = _agent(mesh, settings, paths) if settings.role == "agent" else None
    control = Control(mesh, settings, paths, agent)
    ending = Ending(mesh, Connections(paths.socket("capture")), settings.proxy.end_denied)
    sharing = (
        Sharing(mesh, settings.node_name, paths.lib / "elsewhere.json", control.handle)
        if settings.role == "server"
        else None
    )
    socket, only = paths.socket("mesh"), _asking(settings)
    uids = {0, *only}
    if sharing:
        await channel.listen(socket, wire.MESH_OF_SERVER, sharing.session, uids=uids, only=only)
    else:
        session = channel.answering_who_waits(control.handle)
        await channel.listen(socket, wire.MESH, session, uids=uids, only=only)
    try:
        async with asyncio.TaskGroup() as tasks:
            control.enrolling.resume()
            tasks.create_task(mesh.publishing.run())
            tasks.create_task(
                mesh.settling.run(
                    mesh.reconciler.settle, mesh.work, lambda: mesh.publishing.progress
                )
            )
            tasks.create_task(mesh.own.run())
            tasks.create_task(mesh.capture.run())
            tasks.create_task(mesh.certificates.run())
            tasks.create_task(mesh.resolving.run())
            tasks.create_task(mesh.token_keys.run())
            tasks.create_task(mesh.store.watch())
            tasks.create_task(ending.run())
            tasks.create_task(policies.run())
            tasks.create_task(state.watch())
            tasks.create_task(control.cluster.kept.run())
            tasks.create_task(Declarations(mesh, control.enrolling.intents).run())
            if sharing:
                tasks.create_task(sharing.kept.run())
            if agent:
                tasks.create_task(agent.run())
    except asyncio.CancelledError:
        _ended(mesh)
        raise
    finally:
        await control.enrolling.close()
        await mesh.checker.close()
        await mesh.xds.stop()


def _ended(mesh: Mesh) -> None:
    """Leave the files of a role that ends as it was told to."""
    mesh.work.ended()
    with contextlib.suppress(SystemRefusedError):  # nothing is lost
        mesh.store.settle()


def _asking(settings: Settings) -> dict[int, tuple[type[wire.Message], ...]]:
    """Return what each of the other roles may ask, by uid. Raises InvalidInputError."""
    asking = {
        "server": (wire.Follow,),
        "telemetry": (wire.Status,),
        "kubernetes": (wire.Register, wire.Unregister, *get_args(cluster.Messages)),
    }
    return {accounts.uid_of(role, settings.user): asked for role, asked in asking.items()}


def assembled(settings: Settings, paths: Paths) -> Mesh:
    """Connect the parts of the role; each tells the others what has changed."""
    settling = Settling()
    store = _store(settings, paths)
    work = InWork(paths.lib / "attempts.json", store, own=settings.role != "agent")
    capacity = capacity_here(settings.proxy)
    options = settings.mesh_options(capacity)
    xds = Server(settling.touch, drain_time=settings.proxy.drain_time)
    publishing = Publishing(
        store, options, settings.mesh.service_cidr, xds.publish, settling.touch, step=work.step
    )

    def observed(seen: tuple[Observation, ...]) -> None:
        reconciler.observed(seen)

    def inputs_changed() -> None:
        reconciler.inputs_changed()

    capture = Capture(paths.socket("capture"), observed)
    certificates = Certificates(paths.socket("identity"), settling.touch)
    resolving = Resolving(paths, settings.mesh, settling.touch)
    own = OwnAddresses()
    checker = Checker(
        paths.healthy,
        inputs_changed,
        functools.partial(probing.run, paths.socket("supervisor")),
    )
    token_keys = _token_keys(settings, paths, store, inputs_changed)
    ports = Ports(
        objects=store,
        records=Records(paths),
        publisher=publishing,
        proxies=Proxies(xds),
        capture=capture,
        certificates=certificates,
        resolver=resolving,
        health=checker,
        own=own,
        issuers=token_keys,
    )
    reconciler = Reconciler(ports, options, settling.touch)
    own.subscribe(reconciler.addresses_changed)
    store.subscribe(reconciler.inputs_changed)
    return Mesh(
        options=options,
        capacity=capacity,
        store=store,
        xds=xds,
        publishing=publishing,
        reconciler=reconciler,
        settling=settling,
        capture=capture,
        certificates=certificates,
        resolving=resolving,
        own=own,
        checker=checker,
        token_keys=token_keys,
        work=work,
        tunneled=Tunneled(settings.capture, allowed=settings.proxy.hbone),
    )


def _store(settings: Settings, paths: Paths) -> Store:
    mesh = settings.mesh
    return Store(
        paths.config_directory,
        paths.lib,
        root_namespace=mesh.root_namespace,
        gateway_selection=mesh.gateway_selection,
    )


def _token_keys(
    settings: Settings, paths: Paths, store: Store, changed: Callable[[], None]
) -> TokenKeys:
    made = TokenKeys(
        paths.lib / "token_keys.json",
        lambda: tuple(store.objects.values()),
        fetching(paths.socket("supervisor")),
        changed,
        settings.issuers.refresh,
    )
    store.subscribe(made.look)
    return made


def _agent(mesh: Mesh, settings: Settings, paths: Paths) -> Agent:
    # Certificates' library and its ten megabytes are for those that need them.
    from meshd.node.agent import Agent  # noqa: PLC0415

    return Agent(mesh, settings, paths)
