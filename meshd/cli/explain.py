"""``meshctl explain`` shows how a request would travel."""

from __future__ import annotations

import enum
import urllib.parse
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
import typer

from meshd import wire
from meshd.cli.arguments import NamespaceOption, Output, OutputOption
from meshd.cli.daemon import Target
from meshd.cli.output import Table, emit, is_for_scripts, show, tell


class Speaks(enum.StrEnum):
    """What a client may speak."""

    HTTP = "http"
    TLS = "tls"
    TCP = "tcp"


_BEGINS_AS: Final[dict[Speaks, Literal["http", "tls", "other"]]] = {
    Speaks.HTTP: "http",
    Speaks.TLS: "tls",
    Speaks.TCP: "other",
}


def explain(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SRC", help="The client workload.")],
    destination: Annotated[
        str, typer.Argument(metavar="DST[:PORT]", help="The requested host, address or URL.")
    ],
    namespace: NamespaceOption = "default",
    path: Annotated[
        str, typer.Option(metavar="PATH", help="Path of the request. Default: /.")
    ] = "",
    method: Annotated[str, typer.Option(metavar="METHOD", help="Method of the request.")] = "GET",
    header: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A header. May be repeated.")
    ] = None,
    speaks: Annotated[
        Speaks | None,
        typer.Option("--as", help="What the client speaks. Default: what the port is for."),
    ] = None,
    server_name: Annotated[
        str, typer.Option(metavar="NAME", help="Server name of TLS (SNI). Default: the host.")
    ] = "",
    from_outside: Annotated[
        bool,
        typer.Option(
            "--from-outside",
            help="The client is outside the mesh, and SRC the gateway it enters by.",
        ),
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show how a request would travel: each stage from the redirecting rule to the endpoint."""
    request = msgspec.structs.replace(
        asked(source, destination, namespace, path, method, header or []),
        begins_as=_BEGINS_AS[speaks] if speaks else "",
        server_name=server_name,
        from_outside=from_outside,
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


def asked(
    source: str,
    destination: str,
    namespace: str,
    path: str,
    method: str,
    headers: Sequence[str],
) -> wire.Explain:
    """Return the question for a request. Raises typer.BadParameter."""
    host, url_path = _parts(destination)
    return wire.Explain(
        source=source,
        destination=host,
        namespace=namespace,
        path=path or url_path,
        method=method,
        headers=tuple(map(_header, headers)),
    )


def _parts(destination: str) -> tuple[str, str]:
    """Split a destination or URL into ``HOST[:PORT]`` and path; a URL's scheme implies its port."""
    if "://" not in destination:
        return destination, "/"
    try:
        url = urllib.parse.urlsplit(destination)
        port = url.port
    except ValueError as error:
        raise typer.BadParameter(f'"{destination}" is not a URL: {error}') from None
    known = {"http": 80, "https": 443, "grpc": 80}
    if url.scheme not in known or not url.hostname:
        raise typer.BadParameter(
            f'"{destination}" is not a URL with http, https or grpc and a host'
        )
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    query = f"?{url.query}" if url.query else ""
    return f"{host}:{port or known[url.scheme]}", (url.path or "/") + query


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f'--header "{text}" is not K=V')
    return name.strip(), value.strip()
