"""``meshctl node`` shows and changes which nodes belong to a server's mesh, and what they may
run."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from meshd import wire
from meshd.base.json_values import JsonObject
from meshd.base.moments import age, rfc3339
from meshd.cli.arguments import BoundsOption, Output, OutputOption
from meshd.cli.daemon import Target
from meshd.cli.output import Table, emit, is_for_scripts, show, tell, yes_no
from meshd.model import bounds
from meshd.wire.nodes import MemberState

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Nodes of this server.")
NodeArgument = Annotated[str, typer.Argument(metavar="NAME")]


def _beside(context: typer.Context, role: str) -> Target:
    """Return another process than the one that most verbs talk to."""
    target: Target = context.obj
    return target.beside(role)


@app.command("list")
def list_(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List the nodes that have joined, connected or not."""
    members = _beside(context, "identity").ask(wire.ListNodes(), wire.MemberStates).nodes
    seen = _beside(context, "server").ask(wire.Nodes(), wire.NodeStatuses).nodes
    statuses = {one.name: one for one in seen}
    rows = [_row(one, statuses.get(one.name)) for one in members]
    if is_for_scripts(output):
        emit(rows, output)
    elif output is Output.NAME:
        for row in rows:
            print(row["name"])
    else:
        _show(rows, members, time.time())


def _row(member: MemberState, status: wire.NodeStatus | None) -> JsonObject:
    """Return a node in the form that scripts get."""
    return {
        "name": member.name,
        "namespaces": list(member.bounds),
        "joined": rfc3339(member.joined),
        "certificate_expires": rfc3339(member.expires),
        "connected": status is not None and status.connected,
        "workloads": status.workloads if status else 0,
    }


def _show(rows: list[JsonObject], members: tuple[MemberState, ...], now: float) -> None:
    show(
        Table(
            ("NAME", "NAMESPACES", "CONNECTED", "WORKLOADS", "JOINED", "CERTIFICATE EXPIRES IN"),
            tuple(
                (
                    one.name,
                    bounds.show(one.bounds),
                    yes_no(bool(row["connected"])),
                    str(row["workloads"]),
                    age(now - one.joined),
                    age(one.expires - now) if now < one.expires else "ended",
                )
                for row, one in zip(rows, members, strict=True)
            ),
        )
    )


@app.command()
def remove(context: typer.Context, name: NodeArgument) -> None:
    """Put a node out of the mesh, at once and for good: to come back it needs a new token.

    It is hung up on, what runs there is no endpoint any more, and none of its certificates is
    renewed. Those that its workloads have are good until they end.
    """
    _beside(context, "server").ask(wire.RemoveNode(name), wire.Done)
    tell(f"node {name} removed")


@app.command()
def bind(
    context: typer.Context,
    name: NodeArgument,
    namespace: BoundsOption = None,
    anything: Annotated[bool, typer.Option("--any", help="Allow any namespace.")] = False,
) -> None:
    """Say which identities the workloads of a node may have, in place of what was said before."""
    if bool(namespace) == anything:
        raise typer.BadParameter("give --namespace (may be repeated) or --any")
    within = bounds.checked(namespace or ())
    _beside(context, "server").ask(wire.BindNode(name, within), wire.Done)
    tell(f"node {name} is bound to {bounds.show(within) if within else 'nothing'}")
