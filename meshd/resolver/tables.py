"""The mesh's names as dnsmasq(8) reads them. Pure.

A name in a hosts file is answered for the kinds of address that the file has, and asked outside for
others. So each name gets another line that keeps it here: names of the mesh are never asked
outside, for no address family.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from meshd.model.service import ServiceRecord


class Tables(NamedTuple):
    """The texts of the files."""

    hosts: str
    """Addresses and the names for each, hosts(5). Read again at SIGHUP."""
    servers: str
    """Who is asked for a name: nobody, for those of the mesh. Read again at SIGHUP."""
    wildcards: str
    """Options, since no other file may have wildcards. Read at the start only."""


def tables(
    services: Iterable[ServiceRecord],
    domain: str,
    wildcards_at: str,
    search: Sequence[str] = (),
    namespaces: Iterable[str] = (),
    *,
    overlaid: bool = False,
) -> Tables:
    """Return the tables of a resolver.

    ``wildcards_at``: the server that answers for wildcards. ``search``: domains that are tried
    behind names; ``namespaces``: in which there may be names, beside the services'. ``overlaid``:
    all other names are asked of another resolver of ours, also those below the mesh's domain.
    """
    hosts: list[str] = []
    servers = [] if overlaid else [f"server=/{domain}.{behind}/" for behind in search]
    known: set[str] = set()
    wildcards: list[str] = []
    for service in sorted(services, key=lambda service: (service.host, service.namespace)):
        if service.host.startswith("*."):
            addresses = [address for address in service.addresses if _is_address(address)]
            wildcards += (f"address=/{service.host}/{address}" for address in addresses)
            if addresses:
                wildcards.append(f"local=/{service.host}/")
                servers.append(f"server=/{service.host}/{wildcards_at}")
                known.add(service.host)
            continue
        named = names_of(service, domain)
        hosts += (f"{address} {' '.join(names)}" for address, names in named)
        kept = dict.fromkeys(name for _, names in named for name in names)
        servers += _kept_here(kept, "" if overlaid else domain)
        if named:
            known.add(service.host)
    servers += _searched(known, namespaces, domain, search)
    return Tables(_text(hosts), _text(servers), _text(wildcards))


def names_of(service: ServiceRecord, domain: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return a service's addresses, and the names of each of them."""
    if service.host == "*":
        return ()
    if not service.headless:
        forms = _forms(service.host, domain)
        return tuple((address, forms) for address in service.addresses if _is_address(address))
    return tuple(_headless(service, domain))


def _headless(service: ServiceRecord, domain: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield a headless service's endpoints: each has the service's name, and one of its own below
    it."""
    forms = _forms(service.host, domain)
    named: dict[str, dict[str, None]] = {}
    for end in service.endpoints:
        if end.ready and _is_address(end.address):
            named.setdefault(end.address, {})[end.name] = None
    for address, names in sorted(named.items()):
        own = (f"{name}.{form}" for name in names if name for form in forms)
        yield address, (*forms, *own)


def marked(told: Tables, domain: str, wildcards_at: str) -> tuple[tuple[str, ...], Tables]:
    """Return marks, which are names, and tables with them: a resolver that knows a mark has read
    them."""
    name = f"{_digest(*told)}.tables.{domain}"
    hosts = f"127.0.0.1 {name}\n{told.hosts}"
    if not told.wildcards:
        return (name,), told._replace(hosts=hosts)
    wild = f"{_digest(told.wildcards)}.wildcards.{domain}"
    servers = f"{told.servers}server=/{wild}/{wildcards_at}\n"
    wildcards = f"{told.wildcards}address=/{wild}/127.0.0.1\n"
    return (name, wild), Tables(hosts, servers, wildcards)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


def _forms(host: str, domain: str) -> tuple[str, ...]:
    """Return the forms of a name: ``NAME.NAMESPACE`` and ``NAME.NAMESPACE.svc`` are valid
    anywhere."""
    service = host.removesuffix(f".svc.{domain}")
    if service == host or service.count(".") != 1:
        return (host,)
    return (host, f"{service}.svc", service)


def _kept_here(names: Iterable[str], domain: str) -> Iterator[str]:
    """Yield lines that keep names here but forward the names below them, which may exist outside.

    What is below the mesh's domain, and below ``svc``, is kept here as a whole (``arguments``),
    unless there is no domain.
    """
    for name in names:
        if not (domain and name.endswith((f".{domain}", ".svc"))):
            yield f"server=/{name}/"
            yield f"server=/*.{name}/#"


def _searched(
    hosts: Collection[str], namespaces: Iterable[str], domain: str, search: Sequence[str]
) -> Iterator[str]:
    """Yield lines that deny names with a search domain behind them.

    What is below the mesh's domain, and below ``NAMESPACE.svc``, is denied as a whole.
    ``NAME.NAMESPACE`` with a domain behind it may well exist outside.
    """
    ours = f".svc.{domain}"
    own = {host.removesuffix(ours).rpartition(".")[2] for host in hosts if host.endswith(ours)}
    inside = (f"{namespace}.svc" for namespace in sorted({*own, *namespaces}))
    outside = sorted(host for host in hosts if not host.endswith(ours))
    for name in (*inside, *outside):
        yield from (f"server=/{name}.{behind}/" for behind in search)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
