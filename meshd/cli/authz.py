"""``meshctl authz`` shows who may send what to a workload, and why."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import typer

from meshd import wire
from meshd.cli.arguments import NamespaceOption, Output, OutputOption
from meshd.cli.daemon import Target
from meshd.cli.output import Table, emit, is_for_scripts, show, tell
from meshd.cli.request import (
    ClientAddressOption,
    ClientArgument,
    FromOutsideOption,
    HeaderOption,
    MethodOption,
    PathOption,
    RequestedArgument,
    ServerNameOption,
    SpeaksOption,
    TokenOption,
    asked,
)

app: Final = typer.Typer(no_args_is_help=True, help="Show who may send what, and why.")
_STAGES: Final = ("token", "authorization", wire.ASKED_STAGE)
_ROUTED: Final = "routed"
"""The verdict on what arrives at a workload."""


@app.command()
def check(
    context: typer.Context,
    workload: Annotated[str, typer.Argument(metavar="WORKLOAD", help="The called workload.")],
    namespace: NamespaceOption = "default",
    output: OutputOption = Output.TABLE,
) -> None:
    """List the rules about a workload, in the order in which they count.

    COUNT: how often a rule has fitted a request, or denied a connection, on this node since the
    proxies began, whichever workload it was to.
    """
    target: Target = context.obj
    found = target.ask(wire.AboutWorkload(workload, namespace), wire.Judging)
    if is_for_scripts(output):
        value: dict[str, object] = msgspec.to_builtins(found)
        value.pop("type")  # the message's tag
        emit(value, output)
        return
    rows = tuple(
        (
            *(one.action, one.policy, one.field, "-" if one.count is None else str(one.count)),
            one.fits + (f" ({one.place})" if one.place else ""),
        )
        for one in found.rules
    )
    if rows:
        show(Table(("ACTION", "POLICY", "RULE", "COUNT", "FITS"), rows))
        print()
    else:
        tell(f"no AuthorizationPolicy is about {found.workload}")
    tell(f"otherwise: {found.otherwise}")


@app.command(name="try")
def try_(
    context: typer.Context,
    source: ClientArgument,
    destination: RequestedArgument,
    namespace: NamespaceOption = "default",
    path: PathOption = "",
    method: MethodOption = "GET",
    header: HeaderOption = None,
    token: TokenOption = "",
    speaks: SpeaksOption = None,
    server_name: ServerNameOption = "",
    from_outside: FromOutsideOption = False,
    client: ClientAddressOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whether a request would be allowed, and why. Exit with 1 if it would not.

    Where an extension provider is asked, nobody knows here what it says: `allowed` is null then.
    """
    target: Target = context.obj
    request = asked(
        source,
        destination,
        namespace,
        path=path,
        method=method,
        headers=header,
        token=token,
        speaks=speaks,
        server_name=server_name,
        from_outside=from_outside,
        client=client,
    )
    found = target.ask(request, wire.Explanation)
    reasons = [step.detail for step in found.stages if step.stage in _STAGES]
    denied = found.verdict.startswith("denied")
    asks = any(step.stage == wire.ASKED_STAGE for step in found.stages)
    if is_for_scripts(output):
        allowed = None if asks and not denied else not denied
        emit({"allowed": allowed, "verdict": found.verdict, "reasons": reasons}, output)
    else:
        nothing = "no AuthorizationPolicy is about it"
        if found.verdict != _ROUTED:
            nothing = "no AuthorizationPolicy was asked; meshctl explain shows why"
        for reason in reasons or [nothing]:
            tell(reason)
        condition = ", if the extension provider allows it" if asks and not denied else ""
        tell(f"verdict: {found.verdict}{condition}")
    if denied:
        raise typer.Exit(1)
