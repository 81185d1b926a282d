"""Finds the service, the address and the port of the destination that a client names. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final

import msgspec

from meshd.api.hosts import resolve
from meshd.api.protocol import DEFAULT_HTTP_PORT
from meshd.base.numbers import whole
from meshd.compile.traffic.opaque import destinations
from meshd.compile.visibility.view import View
from meshd.model.service import ServiceRecord

DEFAULT_PORTS: Final = {"http": DEFAULT_HTTP_PORT, "https": 443}
"""By scheme."""


class Wanted(msgspec.Struct, frozen=True):
    """A destination as the mesh knows it."""

    host: str
    """Full name, or the address."""
    port: int
    address: str
    """The address that the client connects to; empty: one that is no service's."""
    written: str
    """The host as the client writes it."""
    service: ServiceRecord | None
    """None: it is no service that the client sees."""
    endpoint: str = ""
    """Name of the one endpoint of a headless service; empty: the whole service is wanted."""

    @property
    def chosen(self) -> str:
        """Return ``ADDRESS:PORT`` that the client connects to, if no other address will do."""
        if not (self.endpoint or _parsed(self.written)):
            return ""
        return socket_text(self.address, self.port)

    def authority(self, scheme: str) -> str:
        """Return the host of the client's requests: with a port that is not the scheme's own."""
        named = f"[{self.written}]" if ":" in self.written else self.written
        return named if self.port == DEFAULT_PORTS[scheme] else f"{named}:{self.port}"


def wanted(view: View, written: str, namespace: str) -> Wanted:
    """Return the destination that a client of ``namespace`` writes so."""
    typed, port = split(written)
    typed = typed.lower().removesuffix(".")
    host = resolve(typed, namespace, view.options.domain, view.index.services)
    service = view.services.get(host) or _by_address(view, typed)
    address, endpoint = _address(service, typed), ""
    if service is None and (found := _endpoint(view, typed, namespace)):
        service, endpoint, address = found
    ports = service.ports if service else ()
    port = port or (ports[0].number if ports else DEFAULT_HTTP_PORT)
    return Wanted(host, port, address, typed, service, endpoint)


def _endpoint(view: View, host: str, namespace: str) -> tuple[ServiceRecord, str, str] | None:
    """Return the headless service, name and address of an endpoint that is called by its own
    name."""
    name, _, rest = host.partition(".")
    service = view.services.get(
        resolve(rest, namespace, view.options.domain, view.index.services) if rest else ""
    )
    if service is None or not service.headless:
        return None
    known = (each.address for each in service.endpoints if each.name == name)
    return next(((service, name, address) for address in known), None)


def _by_address(view: View, address: str) -> ServiceRecord | None:
    found = _parsed(address)
    if not found:
        return None
    services = view.services.values()
    # Not each of a service's addresses is that of a client's connection, as a network may be one.
    return next(
        (one for one in services if any(_parsed(text) == found for text in destinations(one))), None
    )


def _address(service: ServiceRecord | None, host: str) -> str:
    if address := _parsed(host):
        return address
    first = next(iter(destinations(service)), "") if service else ""
    return str(ipaddress.ip_network(first, strict=False)[0]) if first else ""


def _parsed(text: str) -> str:
    """Return an address as it is compared; empty for what is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def server_name_of(host: str) -> str:
    """Return the server name that a client of this host asks for; empty: none, for an address."""
    return "" if _parsed(host) else host


def socket_text(address: str, port: int) -> str:
    """Return an address and port as text; empty where no address is known."""
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}" if address else ""


def split(destination: str) -> tuple[str, int]:
    """Split HOST, HOST:PORT or [ADDRESS]:PORT; the default port is 0."""
    if destination.startswith("["):
        host, _, port = destination[1:].partition("]")
        port = port.removeprefix(":")
    elif destination.count(":") == 1:
        host, _, port = destination.partition(":")
    else:
        host, port = destination, ""
    return host, whole(port, 65535) or 0


def tell_name(found: Wanted, namespace: str) -> str:
    """Say which service a client means, and by which of its addresses."""
    service = found.service
    if service is None:
        return f"{found.host} is no service that {namespace} sees"
    if found.endpoint:
        return f"{found.host} is {found.address}, an endpoint of {service.host}"
    return f"{service.host} is {', '.join(destinations(service)) or 'no address of its own'}"
