"""``meshctl token`` manages the tokens that nodes join with."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer

from meshd import wire
from meshd.api.base import Duration
from meshd.base.json_values import JsonObject
from meshd.base.moments import age, rfc3339
from meshd.cli.arguments import BoundsOption, Output, OutputOption, duration_option
from meshd.cli.daemon import Target
from meshd.cli.output import Table, emit, is_for_scripts, show, tell
from meshd.model import bounds
from meshd.settings import Paths, load
from meshd.wire.tokens import TokenState

_TTL: Final = Duration(3600)

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Manage the tokens with which nodes join."
)


def _identity(context: typer.Context) -> Target:
    """Return the identity role, which holds the authority."""
    target: Target = context.obj
    return target.beside("identity")


@app.command()
def create(
    context: typer.Context,
    ttl: Annotated[Duration, duration_option("Validity.", "1h")] = _TTL,
    node: Annotated[
        str, typer.Option(metavar="NAME", help="The only node that may use it. Default: any.")
    ] = "",
    uses: Annotated[int, typer.Option(metavar="N", help="Number of nodes that may use it.")] = 1,
    namespace: BoundsOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a token. It is shown once: the server keeps only a hash."""
    within = bounds.checked(namespace or ())
    request = wire.CreateToken(float(ttl), node, uses, within)
    answer = _identity(context).ask(request, wire.TokenCreated)
    settings = load(Paths.from_environment().settings)
    server = settings.control.advertise or settings.node_name
    if ":" not in server and settings.control.port not in {0, 15012}:
        server = f"{server}:{settings.control.port}"
    command = f"meshctl join {server} --token {answer.token}"
    if is_for_scripts(output):
        emit({"token": answer.token, "command": command, **_row(answer.kept)}, output)
    elif output is Output.NAME:
        print(answer.token)
    else:
        tell(f"{answer.token}\n\nOn the node that is to join, as root:\n\n  {command}")
        which = f"these namespaces: {bounds.show(within)}" if within else "any namespace"
        tell(f"\nIts workloads may be in {which}")


@app.command("list")
def list_(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List tokens; expired ones are shown for a week."""
    tokens = _identity(context).ask(wire.ListTokens(), wire.TokenStates).tokens
    if is_for_scripts(output):
        emit([_row(one) for one in tokens], output)
    elif output is Output.NAME:
        for one in tokens:
            print(one.id)
    else:
        now = time.time()
        show(
            Table(
                ("ID", "STATE", "NODE", "NAMESPACES", "EXPIRES IN", "USES", "USED BY"),
                tuple(
                    (
                        one.id,
                        one.state,
                        one.node or "any",
                        bounds.show(one.bounds),
                        age(one.expires - now) if one.expires > now else "",
                        f"{len(one.used_by)}/{one.uses}",
                        ", ".join(one.used_by),
                    )
                    for one in tokens
                ),
            )
        )


@app.command()
def delete(context: typer.Context, id_: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Make a token useless. Nodes that have joined with it stay."""
    _identity(context).ask(wire.DeleteToken(id_), wire.Done)
    tell(f"token {id_} deleted")


def _row(state: TokenState) -> JsonObject:
    """Return a token in the form that scripts get."""
    return {
        "id": state.id,
        "node": state.node,
        "namespaces": list(state.bounds),
        "created": rfc3339(state.created),
        "expires": rfc3339(state.expires),
        "uses": state.uses,
        "used_by": list(state.used_by),
        "state": state.state,
    }
