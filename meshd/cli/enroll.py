"""``meshctl enroll`` and ``unenroll`` put what runs on this host into the mesh, or remove it.

What is asked for is checked here, against what root sees of the host, and is one request to the
daemon then, which does all of it, whether or not anybody waits.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import msgspec
import typer

from meshd import wire
from meshd.api import checked
from meshd.api.base import Duration
from meshd.api.read import label_problem, subdomain_problem
from meshd.base.errors import InvalidInputError, SystemRefusedError
from meshd.capture.pods.namespaces import Pins
from meshd.capture.rules.never_captured import NEVER_INBOUND_PORTS
from meshd.cli import firewall, offer, services
from meshd.cli.arguments import (
    DEFAULT_TIMEOUT,
    NamespaceOption,
    Output,
    OutputOption,
    duration_option,
)
from meshd.cli.carrying_out import carry_out
from meshd.cli.daemon import RefusedError, Target
from meshd.cli.output import emit, is_for_scripts, tell, warn
from meshd.cli.place import Place, named
from meshd.cli.ports import parse_port
from meshd.model.workload import NamedPort, Workload, shown
from meshd.settings import Paths
from meshd.workloads.host.firewall import saved
from meshd.workloads.host.systemd import Systemd

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
        help="In place of a unit or path: a cgroup, below the root of the cgroup2 hierarchy.",
    ),
]
TimeoutOption = Annotated[Duration, duration_option("Time limit.", "30s")]
RestartOption = Annotated[
    bool, typer.Option(help="Restart the unit if it runs; otherwise it moves at its next start.")
]


NameOption = Annotated[
    str, typer.Option(metavar="NAME", help="Name of the workload. Default: from UNIT or PATH.")
]
ServiceOption = Annotated[
    str, typer.Option(metavar="NAME", help="Service by which others reach the workload.")
]
PortOption = Annotated[
    list[wire.OfferedPort] | None,
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
    run = place.check()
    ports = tuple(port or ())
    if place.is_on_host:
        _refuse_ports(ports)
    _check_names(namespace, name, service_account)
    known = _known(target, place)
    place = place.as_in(known) if known else place
    changes = service or ports or label or annotation or address
    seconds = float(timeout)
    if known and not changes and place.is_still(_pins(), known.uid):
        given = namespace if _is_given(context, "namespace") else ""
        _must_be(place, known, given, name, service_account)
        again = wire.EnrollAgain(uid=known.uid, restart=restart, run=run, timeout=seconds)
        _carry_out(target, again, known.uid, place, output)
        return
    name = name or place.workload_name
    uid = f"{namespace}.{name}"
    if known and (place.is_on_host or known.uid != uid):
        raise _enrolled_already(place, known)
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
        ports=tuple(NamedPort(one.name, one.port) for one in ports),
        host=place.host(address_asked=bool(address)),
    )
    warn(_doubts(place, ports, address_asked=bool(address)))
    if service:
        offer.check(target, service, namespace, ports)
    wanted = wire.Enroll(
        workload=workload, service=service, ports=ports, restart=restart, run=run, timeout=seconds
    )
    _carry_out(target, wanted, uid, place, output)


def _carry_out(
    target: Target,
    request: wire.Enroll | wire.EnrollAgain,
    uid: str,
    place: Place,
    output: Output,
) -> None:
    carry_out(target, request, request.timeout)
    _show(_row(target, uid), place, output)


def _doubts(
    place: Place, ports: tuple[wire.OfferedPort, ...], *, address_asked: bool
) -> tuple[str, ...]:
    filtered = firewall.remarks([one.port for one in ports]) if place.is_on_host else ()
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
    leaving = _leaving(target, place, namespace)
    if not leaving and place:
        leaving = {str(place): wire.Unenroll(unit=place.unit)}
    failed = [name for name, one in leaving.items() if not _leave(target, name, one, restart)]
    warn(saved())
    if failed:
        raise typer.Exit(1)


def _leave(target: Target, name: str, one: wire.Unenroll, restart: bool) -> bool:
    """Unenroll one workload; return whether all of it was done, so that the others still leave."""
    run = _run_of(one.unit)
    request = msgspec.structs.replace(one, restart=restart, run=run)
    try:
        carry_out(target, request, _LEAVING)
    except RefusedError as error:
        warn([f"{name}: {error}"])
        return False
    tell(f"{name} unenrolled")
    return True


def _run_of(unit: str) -> str:
    """Return the run of a unit that is to end; nothing if systemd does not answer."""
    try:
        return Systemd().look(unit).run if unit else ""
    except SystemRefusedError:
        return ""


def _leaving(target: Target, place: Place | None, namespace: str) -> dict[str, wire.Unenroll]:
    """Return what to ask for each workload of a place, by its name; without a place, for all units
    and cgroups. One whose enrollment has not ended counts."""
    answer = target.ask(wire.Status(), wire.Statuses)
    found = {
        f"{row.namespace}/{row.workload}": wire.Unenroll(uid=row.uid, unit=row.unit)
        for row in answer.workloads
        if namespace in {"", row.namespace} and (place.holds(row) if place else bool(row.cgroup))
    }
    uids = {one.uid for one in found.values()}
    for begun in answer.enrollments:
        is_meant = place.holds(begun) if place else bool(begun.unit or begun.cgroup)
        if is_meant and begun.uid not in uids:
            found[shown(begun.uid) or begun.unit] = wire.Unenroll(uid=begun.uid, unit=begun.unit)
    if place and not found and not (place.unit and Systemd().has_traces(place.unit)):
        raise InvalidInputError(f"{place} is not enrolled: see meshctl status")
    return found


# ---- what is to be enrolled


def _must_be_root(verb: str) -> None:
    if os.geteuid() != 0:
        raise InvalidInputError(f"meshctl {verb} changes systemd's units; try again with sudo")


def _refuse_ports(ports: tuple[wire.OfferedPort, ...]) -> None:
    for one in ports:
        if one.port in NEVER_INBOUND_PORTS:
            raise InvalidInputError(
                f"port {one.port} is never captured on a host: it must stay reachable "
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


def _pins() -> Pins:
    return Pins(Paths.from_environment().netns)


def _rows(target: Target) -> tuple[wire.WorkloadStatus, ...]:
    return target.ask(wire.Status(), wire.Statuses).workloads


def _known(target: Target, place: Place) -> wire.WorkloadStatus | None:
    """Return the enrolled workload of a place; None while its enrollment is in work, since whoever
    asks for the same again waits for that."""
    answer = target.ask(wire.Status(), wire.Statuses)
    if any(place.holds(begun) for begun in answer.enrollments):
        return None
    return place.known(answer.workloads)


def _row(target: Target, uid: str) -> wire.WorkloadStatus:
    """Raises RefusedError when the workload is not there: nobody could tell how it has ended."""
    if row := next((row for row in _rows(target) if row.uid == uid), None):
        return row
    raise RefusedError(
        f"{shown(uid)} was not enrolled: see journalctl -u meshd MESHD_EVENT=enrollment", 1
    )


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
