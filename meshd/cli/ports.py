"""The ports of a service of the host, from ``--port``. Pure."""

from __future__ import annotations

import typer

from meshd.wire import OfferedPort

_PROTOCOLS = ("http", "http2", "grpc", "https", "tls", "tcp", "mongo", "mysql", "redis")


def parse_port(text: str) -> OfferedPort:
    """Parse ``[SERVICE_PORT:]PORT[=PROTOCOL]``; the default protocol is tcp. Raises
    BadParameter."""
    numbers, _, protocol = text.partition("=")
    front, colon, back = numbers.partition(":")
    try:
        outer, inner = _number(front), _number(back if colon else front)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not of the form [SERVICE_PORT:]PORT=PROTOCOL, such as 80=http"
        ) from None
    protocol = (protocol or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise typer.BadParameter(
            f"{text!r}: {protocol!r} is not a known protocol ({', '.join(_PROTOCOLS)})"
        )
    return OfferedPort(outer, inner, protocol)


def _number(text: str) -> int:
    number = int(text)
    if not 0 < number < 65536:
        raise ValueError(text)
    return number
