"""A request that verbs ask about: its arguments and options, and the question made of them."""

from __future__ import annotations

import base64
import enum
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
import typer

from meshd import wire
from meshd.api.checks import is_address


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
ClientArgument = Annotated[str, typer.Argument(metavar="SRC", help="The client workload.")]
RequestedArgument = Annotated[
    str, typer.Argument(metavar="DST[:PORT]", help="The requested host, address or URL.")
]
PathOption = Annotated[str, typer.Option(metavar="PATH", help="Path of the request. Default: /.")]
MethodOption = Annotated[str, typer.Option(metavar="METHOD", help="Method of the request.")]
HeaderOption = Annotated[
    list[str] | None, typer.Option(metavar="K=V", help="A header. May be repeated.")
]
SpeaksOption = Annotated[
    Speaks | None,
    typer.Option("--as", help="What the client speaks. Default: what the port is for."),
]
TokenOption = Annotated[
    str,
    typer.Option(
        metavar="TOKEN|CLAIMS",
        help="The bearer token of the request, or the claims of one, as JSON. Signatures are not"
        " checked.",
    ),
]
ServerNameOption = Annotated[
    str, typer.Option(metavar="NAME", help="Server name of TLS (SNI). Default: the host.")
]
FromOutsideOption = Annotated[
    bool,
    typer.Option(
        "--from-outside",
        help="The client is outside the mesh, and SRC the gateway it enters by.",
    ),
]
ClientAddressOption = Annotated[
    str,
    typer.Option(
        "--client",
        metavar="ADDRESS",
        help="With --from-outside, the client's address. Default: one that no policy names.",
    ),
]


def asked(
    source: str,
    destination: str,
    namespace: str,
    *,
    path: str,
    method: str,
    headers: Sequence[str] | None,
    token: str = "",
    speaks: Speaks | None,
    server_name: str,
    from_outside: bool,
    client: str,
) -> wire.Explain:
    """Return the question for a request. Raises typer.BadParameter."""
    if client and not from_outside:
        raise typer.BadParameter("--client needs --from-outside; SRC's own address is known")
    host, url_path = _parts(destination)
    return wire.Explain(
        source=source,
        destination=host,
        namespace=namespace,
        path=path or url_path,
        method=method,
        headers=(*map(_header, headers or ()), *_bearer(token)),
        begins_as=_BEGINS_AS[speaks] if speaks else "",
        server_name=server_name,
        from_outside=from_outside,
        client=_address(client),
    )


def _address(text: str) -> str:
    if text and not is_address(text):
        raise typer.BadParameter(f'--client "{text}" is not an address')
    return text


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


def _bearer(token: str) -> Iterator[tuple[str, str]]:
    """Yield the header that bears a token, if there is one. Raises typer.BadParameter."""
    if token.startswith("{"):
        try:
            claims = msgspec.json.decode(token, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise typer.BadParameter(f"--token has claims that are no JSON: {error}") from None
        parts = (msgspec.json.encode(one) for one in ({"alg": "ES256"}, claims))
        encoded = [base64.urlsafe_b64encode(one).rstrip(b"=").decode() for one in parts]
        token = ".".join((*encoded, "unsigned"))
    if token:
        yield "authorization", f"Bearer {token}"


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f'--header "{text}" is not K=V')
    return name.strip(), value.strip()
