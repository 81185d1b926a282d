"""The ports of a service of the host, from ``--port``, and those of its Service. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

import typer

from meshd.base.errors import InvalidInputError

_PROTOCOLS = ("http", "http2", "grpc", "https", "tls", "tcp", "mongo", "mysql", "redis")


@dataclasses.dataclass(frozen=True, slots=True)
class PortWish:
    service_port: int
    port: int
    protocol: str

    @property
    def name(self) -> str:
        return f"{self.protocol}-{self.service_port}"


def parse_port(text: str) -> PortWish:
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
    return PortWish(outer, inner, protocol)


def new_service(
    name: str,
    namespace: str,
    wishes: tuple[PortWish, ...],
    selector: dict[str, str],
    annotations: dict[str, str],
) -> dict[str, Any]:
    """Raises InvalidInputError without ports."""
    if not wishes:
        raise InvalidInputError(f"Service {namespace}/{name} is new: give its ports with --port")
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {"selector": selector, "ports": [_port(wish) for wish in wishes]},
    }


def merged_service(stored: dict[str, Any], wishes: tuple[PortWish, ...]) -> dict[str, Any]:
    """Add the missing ports to a stored Service. Raises InvalidInputError if it has no selector."""
    spec: dict[str, Any] = stored["spec"]
    name = f"{stored['metadata'].get('namespace', 'default')}/{stored['metadata']['name']}"
    if not spec.get("selector"):
        raise InvalidInputError(f"Service {name} has no selector, so no workload can join it")
    known = {port["port"] for port in spec.get("ports", ())}
    missing = [_port(wish) for wish in wishes if wish.service_port not in known]
    if not missing:
        return stored
    return stored | {"spec": spec | {"ports": [*spec.get("ports", ()), *missing]}}


def _port(wish: PortWish) -> dict[str, Any]:
    return {"name": wish.name, "port": wish.service_port, "targetPort": wish.port}


def _number(text: str) -> int:
    number = int(text)
    if not 0 < number < 65536:
        raise ValueError(text)
    return number
