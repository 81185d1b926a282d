"""meshctl enroll, unenroll: what runs on this host joins the mesh, or leaves it without a trace.

What is done to systemd is done here, by root; the daemon is only told. Before the service starts in
its slice, the slice is captured: it never runs outside of the mesh in there.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from meshd import wire
from meshd.capture.host_rules import NEVER_INBOUND_PORTS
from meshd.capture.namespaces import Pins
from meshd.cli.arguments import (
    DEFAULT_TIMEOUT,
    NamespaceOption,
    Output,
    OutputOption,
    TimeoutOption,
)
from meshd.cli.daemon import Target
from meshd.cli.output import emit, is_for_scripts
from meshd.cli.place import Place, named
from meshd.cli.ports import PortWish, merged_service, new_service, parse_port
from meshd.discovery import units
from meshd.errors import InvalidInputError, MeshdError
from meshd.model.workload import NamedPort, Workload
from meshd.settings import Paths

_MADE_FOR: Final = "meshd.io/made-for"
"""Annotation of a Service that was made by ``enroll``: the workload that it was made for."""
_LEAVING: Final = 30.0
"""Seconds for a workload to be let go."""

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="UNIT|PATH",
        help="A systemd service, such as nginx.service, or a network namespace, such as"
        " /run/netns/web or a container's /proc/PID/ns/net.",
    ),
]
CgroupOption = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="Instead of these: a cgroup, below the root of the cgroup2 hierarchy.",
    ),
]
RestartOption = Annotated[
    bool, typer.Option(help="Restart the unit if it runs: that is what moves it.")
]


NameOption = Annotated[
    str, typer.Option(metavar="NAME", help="Of the workload. Default: from UNIT or PATH.")
]
ServiceOption = Annotated[
    str, typer.Option(metavar="NAME", help="The Service by which others reach it.")
]
PortOption = Annotated[
    list[PortWish] | None,
    typer.Option(
        metavar="[SERVICE_PORT:]PORT=PROTOCOL",
        parser=parse_port,
        help="What it serves, such as 80=http; of a unit no other is captured. May be repeated.",
    ),
]
AccountOption = Annotated[
    str, typer.Option(metavar="NAME", help="Its identity. Default: the workload's name.")
]
LabelOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")
]
AnnotationOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="As on a pod: traffic.sidecar.istio.io/excludeOutboundPorts=5432. May be repeated.",
    ),
]
AddressOption = Annotated[
    list[str] | None,
    typer.Option(metavar="IP", help="By which others reach it. May be repeated."),
]


def enroll(
    context: typer.Context,
    what: TargetArgument = "",
    namespace: NamespaceOption = "default",
    name: NameOption = "",
    service: ServiceOption = "",
    port: PortOption = None,
    service_account: AccountOption = "",
    label: LabelOption = None,
    annotation: AnnotationOption = None,
    address: AddressOption = None,
    cgroup: CgroupOption = "",
    restart: RestartOption = True,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give what runs on this host an identity, and put its traffic through the mesh."""
    _must_be_root("enroll")
    target: Target = context.obj
    place = named(what, cgroup)
    place.check()
    wishes = tuple(port or ())
    if place.host:
        _refuse_ports(wishes)
    known = place.known(_rows(target))
    if known and not (service or wishes):
        if place.unit:
            _prepare(place.unit, restart)
        _show(_row(target, known.uid), output)
        return
    name = name or place.workload_name
    uid = f"{namespace}.{name}"
    if known:
        _leave_if_stale(target, place, known, uid)
    workload = Workload(
        uid=uid,
        name=name,
        namespace=namespace,
        netns=place.netns,
        service_account=service_account or name,
        labels={"app": service or name} | dict(map(_key_and_value, label or ())),
        annotations=dict(map(_key_and_value, annotation or ())),
        addresses=tuple(address or place.addresses()),
        ports=tuple(NamedPort(wish.name, wish.port) for wish in wishes),
        host=place.host,
    )
    if service:
        workload = _offered(target, service, wishes, workload)
    was_prepared = bool(place.unit) and units.Systemd().is_prepared(place.unit)
    if place.unit:
        _prepare(place.unit, restart=False)
    try:
        target.ask(wire.Register((workload,), float(timeout)), wire.Done, wait=float(timeout))
    except MeshdError:
        if place.unit and not was_prepared and not place.known(_rows(target)):
            _undo_preparation(place.unit)  # it could not be recorded
        raise
    if place.unit and restart:
        units.Systemd().restart(place.unit)
    _show(_row(target, workload.uid), output)


def unenroll(
    context: typer.Context,
    what: TargetArgument = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAME", help="Default: any.")
    ] = "",
    cgroup: CgroupOption = "",
    all_: Annotated[
        bool, typer.Option("--all", help="All units and cgroups of this host.")
    ] = False,
    restart: RestartOption = True,
) -> None:
    """Let it leave the mesh. Nothing of meshd is left with it."""
    _must_be_root("unenroll")
    target: Target = context.obj
    if all_ and (what or cgroup):
        raise typer.BadParameter("--all is instead of a UNIT, a PATH or a --cgroup")
    place = None if all_ else named(what, cgroup)
    rows = _enrolled(target, place, namespace)
    if place and not rows:
        _undo(place.unit, restart)  # what a WorkloadEntry declared once
        print(f"{place} unenrolled")
        return
    if declared := [row for row in rows if row.declared]:
        raise InvalidInputError(
            f"WorkloadEntry {declared[0].namespace}/{declared[0].workload} declares"
            f" {declared[0].unit}; delete that first"
        )
    target.ask(wire.Unregister(tuple(row.uid for row in rows)), wire.Done, wait=_LEAVING)
    for row in rows:
        _take_back(target, row)
        if row.unit:
            _undo(row.unit, restart)
        print(f"{row.namespace}/{row.workload} unenrolled")


def _prepare(unit: str, restart: bool) -> None:
    systemd = units.Systemd()
    systemd.prepare(unit, _meshctl())
    if restart:
        systemd.restart(unit)


def _undo_preparation(unit: str) -> None:
    systemd = units.Systemd()
    systemd.undo(unit)
    systemd.stop_slice(unit)


def _undo(unit: str, restart: bool) -> None:
    systemd = units.Systemd()
    systemd.undo(unit)
    if restart:
        systemd.restart(unit)
        systemd.stop_slice(unit)


# ---- what is to be enrolled


def _must_be_root(verb: str) -> None:
    if os.geteuid() != 0:
        raise InvalidInputError(f"meshctl {verb} changes systemd's units; try again with sudo")


def _refuse_ports(wishes: tuple[PortWish, ...]) -> None:
    for wish in wishes:
        if wish.port in NEVER_INBOUND_PORTS:
            raise InvalidInputError(
                f"port {wish.port} is never captured on a host: it would be out of reach without"
                " the mesh"
            )


def _meshctl() -> str:
    """As systemd is to call it."""
    return str(Path(sys.argv[0]).absolute())


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise typer.BadParameter(f"{text!r} is not of the form KEY=VALUE")
    return key, value


# ---- the Service in front of it


def _offered(
    target: Target, service: str, wishes: tuple[PortWish, ...], workload: Workload
) -> Workload:
    """The workload with the labels by which the Service selects it."""
    namespace = workload.namespace
    stored = target.ask(wire.Get("Service", namespace=namespace), wire.Objects).objects
    before = next((one for one in stored if one["metadata"]["name"] == service), None)
    if before is None:
        note = {_MADE_FOR: workload.uid}
        after = new_service(service, namespace, wishes, {"app": service}, note)
    else:
        after = merged_service(before, wishes)
    if after != before:
        target.ask(wire.Apply((("enroll", json.dumps(after)),), namespace), wire.Changed)
    labels = workload.labels | after["spec"]["selector"]
    return msgspec.structs.replace(workload, labels=labels)


def _take_back(target: Target, row: wire.WorkloadStatus) -> None:
    """The Service that was made for it."""
    stored = target.ask(wire.Get("Service", namespace=row.namespace), wire.Objects).objects
    names = tuple(
        one["metadata"]["name"]
        for one in stored
        if one["metadata"].get("annotations", {}).get(_MADE_FOR) == row.uid
    )
    if names:
        target.ask(wire.DeleteNamed("Service", names, row.namespace), wire.Changed)


# ---- what is enrolled


def _leave_if_stale(target: Target, place: Place, known: wire.WorkloadStatus, uid: str) -> None:
    """A container that was started again comes with the same command as before; others do not."""
    if place.host or known.uid != uid:
        raise InvalidInputError(
            f"{place} is enrolled as {known.namespace}/{known.workload}; meshctl unenroll it"
            " first, or change the WorkloadEntry that declares it"
        )
    if place.is_another_than(Pins(Paths.from_environment().netns), uid):
        target.ask(wire.Unregister((uid,)), wire.Done, wait=_LEAVING)


def _enrolled(target: Target, place: Place | None, namespace: str) -> list[wire.WorkloadStatus]:
    """Without a place: all units and cgroups."""
    rows = [
        row
        for row in _rows(target)
        if namespace in {"", row.namespace} and (place.holds(row) if place else bool(row.cgroup))
    ]
    if place and not rows and not (place.unit and units.Systemd().is_prepared(place.unit)):
        raise InvalidInputError(f"{place} is not enrolled: see meshctl status")
    return rows


def _rows(target: Target) -> tuple[wire.WorkloadStatus, ...]:
    return target.ask(wire.Status(), wire.Statuses).workloads


def _row(target: Target, uid: str) -> wire.WorkloadStatus:
    return next(row for row in _rows(target) if row.uid == uid)


def _show(row: wire.WorkloadStatus, output: Output) -> None:
    if is_for_scripts(output):
        emit(row, output)
        return
    state = "captured and proven" if row.proven else row.problem or "not proven yet"
    print(f"{row.namespace}/{row.workload} enrolled as {row.service_account}: {state}")
