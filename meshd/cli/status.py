"""``meshctl status`` shows whether every workload is in the mesh, and proven."""

from __future__ import annotations

import sys
import time
from typing import Final

import typer

from meshd import wire
from meshd.base.moments import age
from meshd.cli import nodes, services
from meshd.cli.arguments import Output, OutputOption
from meshd.cli.daemon import Target
from meshd.cli.output import Table, emit, is_for_scripts, show, tell, warn, yes_no

_RUNNING: Final = "running"
_SILENT: Final = "silent"
_COLUMNS: Final = (
    "NAMESPACE",
    "WORKLOAD",
    "ADDRESS",
    "ACCOUNT",
    "CAPTURED",
    "CERTIFICATE",
    "SYNCED",
    "PROVEN",
    "PROBLEM",
)
_MORE_COLUMNS: Final = (
    "NODE",
    "PROXY",
    "NETNS",
    "SHORT WAY",
    "TUNNELS",
    "LAST INTERRUPTION",
    "INBOUND NOT PROVEN",
    "REPLIES ROUTED TWICE",
)
_ONE_DIRECTION: Final = "outbound"


def status(
    context: typer.Context,
    namespace: str = typer.Option(
        "", "--namespace", "-n", metavar="NAME", help="Only this namespace."
    ),
    output: OutputOption = Output.TABLE,
) -> None:
    """Show every workload's state, then the proxies and the roles; fail if one is not well."""
    target: Target = context.obj
    answer = target.ask(wire.Status(), wire.Statuses)
    rows = [row for row in answer.workloads if namespace in {"", row.namespace}]
    found = services.states(rows)
    rows = services.with_bypasses(rows, found)
    rows = services.with_strays(rows, found)
    rows = services.with_gaps(rows, found)
    shown = services.with_rests(rows, found)
    if is_for_scripts(output):
        emit(shown, output)
    elif output is Output.NAME:
        for row in rows:
            tell(f"{row.namespace}/{row.workload}")
    else:
        _show(shown, answer, output is Output.WIDE)
    sys.stdout.flush()
    problems = [
        *(line for row in rows if (line := trouble(row))),
        *(line for proxy in answer.proxies if (line := proxy_trouble(proxy))),
        *(line for role in answer.roles if (line := role_trouble(role))),
        *nodes.troubles(answer, time.time()),
        *(enrollment_trouble(one) for one in answer.enrollments),
        *answer.problems,
    ]
    if problems:
        warn(problems)
        raise typer.Exit(1)


def trouble(row: wire.WorkloadStatus) -> str:
    """Return what a workload lacks; empty if it is proven, or meant to be outside the mesh."""
    lacks = [
        word
        for word, has in (
            ("captured", row.captured),
            ("certified", row.certificate_expires is not None),
            ("synced", row.synced),
            ("proven", row.proven),
        )
        if not has
    ]
    if not row.enrolled or not (lacks or row.problem):
        return ""
    what = f"not {', not '.join(lacks)}" if lacks else "has a problem"
    reason = f": {row.problem}" if row.problem else ""
    return f"workload {row.namespace}/{row.workload}: {what}{reason}"


def enrollment_trouble(one: wire.EnrollmentStatus) -> str:
    doing = f" ({one.doing})" if one.doing else ""
    reason = f": {one.problem}" if one.problem else ""
    return f"{one.what} is not finished{doing}{reason}"


def proxy_trouble(proxy: wire.ProxyStatus) -> str:
    if not proxy.connected:
        return f"proxy {proxy.name}: not connected to the daemon"
    rejected = f": {proxy.rejected[-1]}" if proxy.rejected else ""
    if not proxy.synced or rejected:
        has_it = "refused" if rejected else "lacks"
        return f"proxy {proxy.name}: {has_it} the newest configuration{rejected}"
    return ""


def role_trouble(role: wire.RoleStatus) -> str:
    if role.state == _RUNNING:  # why it was restarted is in the table
        return ""
    own = not role.pid or role.state == _SILENT
    before = f" (previous process: {role.problem})" if role.problem and not own else ""
    reason = f": {role.problem}" if role.problem and own else ""
    return f"role {role.name}: {role.state}{before}{reason}"


def _show(rows: list[wire.WorkloadStatus], answer: wire.Statuses, wide: bool) -> None:
    if rows:
        show(workload_table(rows, wide))
    else:
        print("no workloads are registered")
    if answer.proxies:
        print()
        show(proxy_table(answer.proxies))
    if answer.capacity:
        print()
        print(f"capacity: {answer.capacity}")
    for table in nodes.tables(answer, time.time()):
        print()
        show(table)
    if answer.roles:
        print()
        show(role_table(answer.roles, time.time()))


def workload_table(rows: list[wire.WorkloadStatus], wide: bool) -> Table:
    return Table(
        (*_COLUMNS, *(_MORE_COLUMNS if wide else ())),
        tuple(
            (
                row.namespace,
                row.workload,
                row.address,
                row.service_account,
                yes_no(row.captured),
                row.certificate_expires or "no",
                yes_no(row.synced),
                _ONE_DIRECTION if row.unseen else yes_no(row.proven),
                row.problem,
                *((row.node, row.proxy, row.netns, *_notes(row)) if wide else ()),
            )
            for row in rows
        ),
    )


def _notes(row: wire.WorkloadStatus) -> tuple[str, ...]:
    return row.short_way, row.hbone, row.interruptions.last, row.unseen, row.slower


def proxy_table(proxies: tuple[wire.ProxyStatus, ...]) -> Table:
    return Table(
        ("PROXY", "CONNECTED", "SYNCED", "REFUSED"),
        tuple(
            (
                proxy.name,
                yes_no(proxy.connected),
                yes_no(proxy.synced),
                proxy.rejected[-1] if proxy.rejected else "",
            )
            for proxy in proxies
        ),
    )


def role_table(roles: tuple[wire.RoleStatus, ...], now: float) -> Table:
    return Table(
        ("ROLE", "PID", "STATE", "RESTARTS", "UP", "PROBLEM"),
        tuple(
            (
                role.name,
                str(role.pid or ""),
                role.state,
                str(role.restarts),
                age(now - role.since) if role.pid else "",
                role.problem,
            )
            for role in roles
        ),
    )
