"""``meshctl explain`` shows how a request would travel."""

from __future__ import annotations

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


def explain(
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
    """Show how a request would travel: each stage from the redirecting rule to the endpoint."""
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
    target: Target = context.obj
    answer = target.ask(request, wire.Explanation)
    if is_for_scripts(output):
        value: dict[str, object] = msgspec.to_builtins(answer)
        value.pop("type")  # the message's tag
        emit(value, output)
        return
    show(Table(("STAGE", "DETAIL"), tuple((step.stage, step.detail) for step in answer.stages)))
    print()
    tell(f"verdict:   {answer.verdict}")
    for name, said in (
        ("cluster", answer.cluster),
        ("endpoints", ", ".join(answer.endpoints)),
        ("identity", answer.identity),
    ):
        if said:
            tell(f"{name + ':':<10} {said}")
