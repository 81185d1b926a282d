"""``meshctl enroll`` and ``unenroll`` put what runs on this host into the mesh, or remove it.

systemd is changed here, by root; the daemon only gets the registration. The slice of a service is
captured before the service starts in it, so the service never runs outside the mesh there.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated, Final

import typer

from meshd import wire
from meshd.api import checked
from meshd.api.base import Duration
from meshd.api.read import label_problem, subdomain_problem
from meshd.base.errors import InvalidInputError, SystemRefusedError
from meshd.capture.pods.namespaces import Pins
from meshd.capture.rules.never_captured import NEVER_INBOUND_PORTS
from meshd.cli import firewall, services
from meshd.cli.arguments import (
    DEFAULT_TIMEOUT,
    NamespaceOption,
    Output,
    OutputOption,
    duration_option,
)
from meshd.cli.daemon import RefusedError, Target
from meshd.cli.offer import offered, take_back
from meshd.cli.output import emit, is_for_scripts, tell, warn
from meshd.cli.place import Place, named
from meshd.cli.ports import PortWish, parse_port
from meshd.cli.preparing import prepare
from meshd.model.workload import NamedPort, Workload
from meshd.settings import Paths
from meshd.workloads.host.firewall import saved
from meshd.workloads.host.systemd import Systemd

_LEAVING: Final = 30.0
"""Seconds for a workload to be let go."""
_LOOK: Final = 0.1

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
        help="In place of a unit or path: a cgroup, below the root of the cgroup2 hierarchy.",
    ),
]
TimeoutOption = Annotated[Duration, duration_option("Time limit.", "30s")]
RestartOption = Annotated[
    bool, typer.Option(help="Restart the unit if it runs. It is captured from its next start.")
]


NameOption = Annotated[
    str, typer.Option(metavar="NAME", help="Name of the workload. Default: from UNIT or PATH.")
]
ServiceOption = Annotated[
    str, typer.Option(metavar="NAME", help="Service by which others reach the workload.")
]
PortOption = Annotated[
    list[PortWish] | None,
    typer.Option(
        metavar="[SERVICE_PORT:]PORT=PROTOCOL",
        parser=parse_port,
        help=(
            "Port it serves, e.g. 80=http. Only listed ports of a unit are captured. May be "
            "repeated."
        ),
    ),
]
AccountOption = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Service account of its identity. Default: the workload's name."
    ),
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
    typer.Option(metavar="IP", help="Address by which others reach it. May be repeated."),
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
    """Give a service, namespace or cgroup an identity, and put its traffic through the mesh."""
    _must_be_root("enroll")
    target: Target = context.obj
    place = named(what, cgroup)
    place.check()
    wishes = tuple(port or ())
    if place.is_on_host:
        _refuse_ports(wishes)
    _check_names(namespace, name, service_account)
    known = place.known(_rows(target))
    place = place.as_in(known) if known else place
    changes = service or wishes or label or annotation or address
    if known and not changes and place.is_still(_pins(), known.uid):
        given = namespace if _is_given(context, "namespace") else ""
        _must_be(place, known, given, name, service_account)
        if place.unit:
            _prepare(place.unit, restart)
        _show(_proven_row(target, known.uid, float(timeout)), place, output)
        return
    name = name or place.workload_name
    uid = f"{namespace}.{name}"
    if known:
        _leave_if_stale(target, place, known, uid)
    workload = checked.build(
        Workload,
        uid=uid,
        name=name,
        namespace=namespace,
        netns=place.netns,
        netns_cookie=place.cookie,
        service_account=service_account or name,
        labels={"app": service or name} | dict(map(_key_and_value, label or ())),
        annotations=dict(map(_key_and_value, annotation or ())),
        addresses=tuple(address or ()),
        ports=tuple(NamedPort(wish.name, wish.port) for wish in wishes),
        host=place.host(address_asked=bool(address)),
    )
    warn(_doubts(place, wishes, address_asked=bool(address)))
    if service:
        workload = offered(target, service, wishes, workload)
    _register(target, place, workload, float(timeout))
    if place.unit and restart:
        Systemd().restart(place.unit)
    _show(_row(target, workload.uid), place, output)


def _doubts(place: Place, wishes: tuple[PortWish, ...], *, address_asked: bool) -> tuple[str, ...]:
    filtered = firewall.remarks([wish.port for wish in wishes]) if place.is_on_host else ()
    return (*place.doubts(address_asked=address_asked), *filtered)


def _is_given(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


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
    """Remove it from the mesh, without a trace."""
    _must_be_root("unenroll")
    target: Target = context.obj
    if all_ and (what or cgroup):
        raise typer.BadParameter("give --all or a UNIT, a PATH or a --cgroup, not both")
    place = None if all_ else named(what, cgroup)
    rows = _enrolled(target, place, namespace)
    if place and not rows:
        _undo(place.unit, restart)  # what a WorkloadEntry declared once
        tell(f"{place} unenrolled")
        return
    if declared := [row for row in rows if row.declared]:
        raise InvalidInputError(
            f"WorkloadEntry {declared[0].namespace}/{declared[0].workload} declares "
            f"{declared[0].unit}; delete the WorkloadEntry first"
        )
    target.ask(wire.Unregister(tuple(row.uid for row in rows)), wire.Done, wait=_LEAVING)
    problems = list(filter(None, (_leave(target, row, restart) for row in rows)))
    warn((*problems, *saved()))
    if problems:
        raise typer.Exit(1)


def _leave(target: Target, row: wire.WorkloadStatus, restart: bool) -> str:
    """Unenroll one workload; return what could not be done, so that the others still leave."""
    take_back(target, row.namespace, row.uid)
    try:
        if row.unit:
            _undo(row.unit, restart)
    except SystemRefusedError as error:
        return f"{row.namespace}/{row.workload} unenrolled, but: {error}"
    tell(f"{row.namespace}/{row.workload} unenrolled")
    return ""


def _register(target: Target, place: Place, workload: Workload, timeout: float) -> None:
    """Register a workload and wait until a service of the host is captured, or undo everything.

    Raises RefusedError. A service that is half enrolled would lose its network at its next restart.
    """
    was_prepared = bool(place.unit) and Systemd().is_prepared(place.unit)
    if place.unit:
        _prepare(place.unit, restart=False)
    try:
        target.ask(wire.Register((workload,), timeout), wire.Done, wait=timeout)
    except RefusedError as error:
        if not place.is_on_host:
            raise
        if place.unit and not was_prepared:
            _undo_preparation(place.unit)
        target.ask(wire.Unregister((workload.uid,)), wire.Done, wait=_LEAVING)
        take_back(target, workload.namespace, workload.uid)
        raise RefusedError(f"{error}; {place} was not enrolled", error.code) from None


def _prepare(unit: str, restart: bool) -> None:
    warn(prepare(unit))
    if restart:
        Systemd().restart(unit)


def _undo_preparation(unit: str) -> None:
    systemd = Systemd()
    systemd.undo(unit)
    systemd.stop_slice(unit)


def _undo(unit: str, restart: bool) -> None:
    systemd = Systemd()
    systemd.undo(unit)
    if restart:
        if systemd.look(unit).exists:  # nobody restarts a unit whose file is gone
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
                f"port {wish.port} is never captured on a host: it must stay reachable "
                "without the mesh"
            )


def _check_names(namespace: str, name: str, account: str) -> None:
    for option, text, problem in (
        ("--namespace", namespace, label_problem),
        ("--name", name, subdomain_problem),
        ("--service-account", account, subdomain_problem),
    ):
        if text and (wrong := problem(text)):
            raise typer.BadParameter(f"{option}: {wrong}")


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise typer.BadParameter(f"{text!r} is not of the form KEY=VALUE")
    return key, value


# ---- what is enrolled


def _must_be(
    place: Place, known: wire.WorkloadStatus, namespace: str, name: str, account: str
) -> None:
    """Raise InvalidInputError if the enrolled workload differs from what was asked for."""
    asked = (namespace, name, account)
    has = (known.namespace, known.workload, known.service_account)
    if any(wanted not in {"", found} for wanted, found in zip(asked, has, strict=True)):
        raise _enrolled_already(place, known)


def _enrolled_already(place: Place, known: wire.WorkloadStatus) -> InvalidInputError:
    who = f"{known.namespace}/{known.workload}"
    what = f"{place} is enrolled as {who} (service account {known.service_account})"
    if known.declared:
        return InvalidInputError(f"{what}; change the WorkloadEntry {who}, which declares it")
    return InvalidInputError(f"{what}; meshctl unenroll it first")


def _leave_if_stale(target: Target, place: Place, known: wire.WorkloadStatus, uid: str) -> None:
    """Unenroll a workload whose container was restarted, since the same command enrolls the new
    one."""
    if place.is_on_host or known.uid != uid:
        raise _enrolled_already(place, known)
    if not place.is_still(_pins(), uid):
        target.ask(wire.Unregister((uid,)), wire.Done, wait=_LEAVING)


def _pins() -> Pins:
    return Pins(Paths.from_environment().netns)


def _enrolled(target: Target, place: Place | None, namespace: str) -> list[wire.WorkloadStatus]:
    """Return the enrolled workloads of a place; without a place, all units and cgroups."""
    rows = [
        row
        for row in _rows(target)
        if namespace in {"", row.namespace} and (place.holds(row) if place else bool(row.cgroup))
    ]
    if place and not rows and not (place.unit and Systemd().is_prepared(place.unit)):
        raise InvalidInputError(f"{place} is not enrolled: see meshctl status")
    return rows


def _rows(target: Target) -> tuple[wire.WorkloadStatus, ...]:
    return target.ask(wire.Status(), wire.Statuses).workloads


def _row(target: Target, uid: str) -> wire.WorkloadStatus:
    return next(row for row in _rows(target) if row.uid == uid)


def _proven_row(target: Target, uid: str, timeout: float) -> wire.WorkloadStatus:
    """Return the workload's status as soon as it is proven, or after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (row := _row(target, uid)).proven and time.monotonic() < deadline:
        time.sleep(_LOOK)
    return row


def _show(row: wire.WorkloadStatus, place: Place, output: Output) -> None:
    if is_for_scripts(output):
        emit(row, output)
    else:
        state = "captured and proven" if row.proven else row.problem or "not proven yet"
        tell(f"{row.namespace}/{row.workload} enrolled as {row.service_account}: {state}")
    if place.unit:
        sys.stdout.flush()
        warn(services.remarks(row, Systemd().look(place.unit)))
    if not row.proven:
        raise typer.Exit(1)
