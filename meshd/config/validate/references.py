"""What objects say of one another. All warnings: the other object may be applied a moment later,
and the order of applying must not matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from meshd.config.read import Read
from meshd.decoding import Path
from meshd.model.base import Key, Object, exported
from meshd.model.delegation import merge_route
from meshd.model.destinations import DestinationRule
from meshd.model.entries import ServiceEntry
from meshd.model.finding import Finding
from meshd.model.gateways import Gateway
from meshd.model.kubernetes import Service
from meshd.model.routes import Destination, VirtualService
from meshd.model.security import PeerAuthentication


def check_references(
    reads: Iterable[Read], known: Mapping[Key, Object], domain: str = "cluster.local"
) -> tuple[Finding, ...]:
    """``known`` are the objects in force; those of ``reads`` replace them."""
    reads = tuple(reads)
    world = _World({**known, **{read.object.key: read.object for read in reads}}, domain)
    findings: list[Finding] = []
    for read in reads:
        match read.object:
            case VirtualService() as found:
                said = _of_virtual_service(found, world)
            case Gateway() as found:
                said = _of_gateway(found, world)
            case PeerAuthentication() as found:
                said = _of_peer_authentication(found, world)
            case _:
                continue
        findings += (read.finding(path, message, "warning") for path, message in said)
    return tuple(findings)


_Said = Iterator[tuple[Path, str]]


class _World:
    """All objects as they will be, and what can be looked up in them."""

    def __init__(self, objects: Mapping[Key, Object], domain: str) -> None:
        self._domain = domain
        self.objects = objects
        self.subsets: dict[str, set[str]] = defaultdict(set)
        self.hosts: set[str] = set()
        self.owners: dict[str, list[VirtualService]] = defaultdict(list)
        for found in objects.values():
            match found:
                case DestinationRule():
                    host = self.full(found.spec.host, found)
                    self.subsets[host] |= {subset.name for subset in found.spec.subsets}
                case Service():
                    self.hosts.add(self.full(found.metadata.name, found))
                case ServiceEntry():
                    self.hosts |= set(found.spec.hosts)
                case VirtualService() if "mesh" in (found.spec.gateways or ("mesh",)):
                    for host in found.spec.hosts:
                        self.owners[self.full(host, found)].append(found)
                case _:
                    pass

    def full(self, host: str, owner: Object) -> str:
        """A name without dots is one of the owner's namespace."""
        if "." in host or host == "*":
            return host
        return f"{host}.{owner.metadata.namespace}.svc.{self._domain}"

    def subsets_of(self, host: str) -> set[str]:
        return {
            subset
            for rule, subsets in self.subsets.items()
            if rule == host or _covers(rule, host)
            for subset in subsets
        }

    def is_host(self, host: str) -> bool:
        return host in self.hosts or any(_covers(wild, host) for wild in self.hosts)


def _covers(wildcard: str, host: str) -> bool:
    return wildcard.startswith("*.") and host.endswith(wildcard[1:])


def _of_virtual_service(found: VirtualService, world: _World) -> _Said:
    for index, name in enumerate(found.spec.gateways):
        namespace, _, short = name.rpartition("/")
        key = Key("Gateway", namespace or found.metadata.namespace, short)
        if name != "mesh" and key not in world.objects:
            yield ("spec", "gateways", index), f"{key} is not there"
    for path, destination in _destinations(found):
        host = world.full(destination.host, found)
        if not world.is_host(host):
            yield (*path, "host"), f'"{destination.host}" is no Service or ServiceEntry ({host})'
        if destination.subset and destination.subset not in (names := world.subsets_of(host)):
            listed = f" (known: {', '.join(sorted(names))})" if names else ""
            yield (
                (*path, "subset"),
                f'"{destination.subset}" is in no DestinationRule for host '
                f"{destination.host}{listed}",
            )
    yield from _of_delegations(found, world)
    if "mesh" in (found.spec.gateways or ("mesh",)):
        for index, host in enumerate(found.spec.hosts):
            others = [one.key for one in world.owners[world.full(host, found)]]
            if rivals := [str(key) for key in others if key != found.key]:
                message = f'"{host}" is also in {rivals[0]}; in the mesh only the older counts'
                yield ("spec", "hosts", index), message


def _of_delegations(found: VirtualService, world: _World) -> _Said:
    here = found.metadata.namespace
    for index, route in enumerate(found.spec.http):
        if route.delegate is None:
            continue
        path: Path = ("spec", "http", index, "delegate")
        key = Key("VirtualService", route.delegate.namespace or here, route.delegate.name)
        delegate = world.objects.get(key)
        if not isinstance(delegate, VirtualService):
            yield path, f"{key} is not there; requests skip this route until it is"
        elif not delegate.is_delegate:
            yield path, f"{key} has hosts, so it is no delegate; requests skip this route"
        elif not exported(delegate.spec.export_to, key.namespace, here):
            yield path, f"{key} is not exported to {here}; requests skip this route"
        else:
            for number, one in enumerate(delegate.spec.http):
                if merge_route(route, one) is None:
                    text = f"{key}: http[{number}] has no effect: its match is no subset of this"
                    yield (*path[:-1], "match"), text


def _destinations(found: VirtualService) -> Iterator[tuple[Path, Destination]]:
    for protocol, routes in (
        ("http", found.spec.http),
        ("tls", found.spec.tls),
        ("tcp", found.spec.tcp),
    ):
        for index, route in enumerate(routes):
            for number, one in enumerate(route.route):
                path: Path = ("spec", protocol, index, "route", number, "destination")
                yield path, one.destination
    for index, route in enumerate(found.spec.http):
        if route.mirror:
            yield ("spec", "http", index, "mirror"), route.mirror
        for number, mirror in enumerate(route.mirrors):
            yield ("spec", "http", index, "mirrors", number, "destination"), mirror.destination


def _of_gateway(found: Gateway, world: _World) -> _Said:
    # The Secret is looked up where the gateway's workload runs, which is not known here.
    secrets = {key.name for key in world.objects if key.kind == "Secret"}
    for index, server in enumerate(found.spec.servers):
        if server.tls is None:
            continue
        for place, name in (
            (("credentialName",), server.tls.credential_name),
            (("caCertCredentialName",), server.tls.ca_cert_credential_name),
            *((("credentialNames", at), one) for at, one in enumerate(server.tls.credential_names)),
        ):
            if name and name not in secrets:
                path: Path = ("spec", "servers", index, "tls", *place)
                yield path, f'there is no Secret "{name}"; clients are refused until there is'


def _of_peer_authentication(found: PeerAuthentication, world: _World) -> _Said:
    if found.spec.selector and found.spec.selector.match_labels:
        return
    for key, other in world.objects.items():
        if (
            isinstance(other, PeerAuthentication)
            and key != found.key
            and key.namespace == found.metadata.namespace
            and not (other.spec.selector and other.spec.selector.match_labels)
        ):
            yield ("spec",), f"{key} is for the whole namespace too; only the oldest counts"
            return
