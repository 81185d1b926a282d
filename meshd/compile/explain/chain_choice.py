"""Chooses the filter chain of a connection at a listener of the plan, as the proxy would. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from meshd.compile.explain.authorization import Facts, judge
from meshd.compile.plan.chains import Chain, Tcp
from meshd.compile.plan.choices import (
    ByAddress,
    ByBeginning,
    ByHttp,
    ByMeshTls,
    ByNetwork,
    ByOtherPort,
    ByPort,
    ByRequests,
    ByReturn,
    ByRules,
    ByServerName,
    ByTls,
    ByWorkload,
    To,
    Way,
)
from meshd.compile.plan.listeners import Listener
from meshd.compile.plan.origin import Origin
from meshd.model.short_way import Requests


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a connection at which listeners look."""

    address: str = ""
    """That the client wanted; empty: none of any service."""
    port: int
    workload: str = ""
    """uid of the workload whose it is."""
    begins_as: Literal["tls", "http", "http/1.0", "other"] = "other"
    """What its first bytes are, where the listener inspects them."""
    server_name: str = ""
    """In the TLS hello; empty: there is none."""
    offers_mesh_tls: bool = False
    peer: str = ""
    """SPIFFE URI of the client whose mutual TLS ended here; empty: there was none."""
    client: str = ""
    """Address of the client; empty: it is not known."""
    now: float = 0
    """Unix time; 0: that of tokens is not looked at."""

    @property
    def facts(self) -> Facts:
        """Return what the connection is judged by."""
        return Facts(
            peer=self.peer,
            client=self.client,
            server=self.address,
            port=self.port,
            server_name=self.server_name,
        )

    requests: Requests = ""
    """What comes by the short way."""
    returned: bool = False
    """It comes back from the listener to which this one has led it."""


class Chosen(msgspec.Struct, frozen=True):
    """The chain that a connection gets at a listener."""

    listener: Listener
    chain: Chain
    origin: Origin | None
    """The object and field that lead there; None: no object does."""


def follow(
    start: Listener, further: Iterable[Listener], connection: Connection
) -> Iterator[Chosen]:
    """Yield the chain of each listener that a connection comes through.

    ``further``: the internal listeners to which a chain may hand it over.
    """
    chosen = chosen_at(start, connection)
    while chosen is not None:
        yield chosen
        target = chosen.chain.target
        if not chosen.chain.hands_over or not isinstance(target, Tcp):
            return
        upstream = target.upstreams[0][0]
        after = next(one for one in (start, *further) if one.name == upstream)
        returned = chosen.chain.leads_back
        chosen = chosen_at(after, msgspec.structs.replace(connection, returned=returned))


def chosen_at(listener: Listener, connection: Connection) -> Chosen | None:
    """Return the chain that a connection gets; None: the listener has none for it."""
    to = choose(listener.choice, _seen(listener, connection))
    chain = listener.chain(to.chain) if to else listener.default
    return chain and Chosen(listener, chain, to and to.origin)


def _seen(listener: Listener, connection: Connection) -> Connection:
    """Return what a listener knows of a connection: no first bytes but those that it inspects."""
    is_tls = connection.begins_as == "tls"
    if listener.inspects_tls if is_tls else listener.inspects_http:
        return connection
    return msgspec.structs.replace(
        connection, begins_as="other", server_name="", offers_mesh_tls=False
    )


def choose(way: Way | None, connection: Connection) -> To | None:
    """Return the chain; None: the listener's default one."""
    if way is None or isinstance(way, To):
        return way
    for further in _further(way, connection):
        if (found := choose(further, connection)) is not None:
            return found
    return None


def _further(way: Way, connection: Connection) -> Iterator[Way | None]:
    """Yield where a question leads, in order: the answer that fits, then what else there is."""
    match way:
        case To():
            yield way
        case ByPort(ways, otherwise):
            yield ways.get(connection.port)
            yield otherwise
        case ByAddress(ways, otherwise):
            yield ways.get(connection.address)
            yield otherwise
        case ByNetwork(ways, otherwise):
            yield from (ways[network] for network in _containing(connection.address, ways))
            yield otherwise
        case ByBeginning(beginnings, then):
            yield then if connection.address.startswith(beginnings) else None
        case ByWorkload(ways, otherwise):
            yield ways.get(connection.workload)
            yield otherwise
        case ByRules(rules, allowed, refused):
            verdict = judge(rules, connection.facts)
            rule = verdict.rule
            yield allowed if verdict.allowed else To(refused, rule.origin if rule else None)
        case ByOtherPort() | ByRequests() | ByReturn() | ByTls():
            yield _one_of_two(way, connection)
        case ByServerName(ways, suffixes, otherwise):
            yield ways.get(connection.server_name)
            yield from (to for suffix, to in suffixes if connection.server_name.endswith(suffix))
            yield otherwise
        case ByHttp(http, otherwise, http10):
            known = {"http", "http/1.0"} if http10 else {"http"}
            yield http if connection.begins_as in known else None
            yield otherwise
        case ByMeshTls(offered, otherwise):
            yield offered if connection.offers_mesh_tls else None
            yield otherwise


def _one_of_two(
    way: ByOtherPort | ByRequests | ByReturn | ByTls, connection: Connection
) -> Way | None:
    """Return where a question leads that has two answers, one of which always fits."""
    match way:
        case ByOtherPort(ports, others, these):
            return these if connection.port in ports else others
        case ByRequests(version, then, otherwise):
            return then if connection.requests == version else otherwise
        case ByReturn(returned, otherwise):
            return returned if connection.returned else otherwise
        case ByTls(tls, plain):
            return tls if connection.begins_as == "tls" else plain


def _containing(address: str, networks: Iterable[str]) -> list[str]:
    """Return the networks that an address is in, the smallest first."""
    try:
        wanted = ipaddress.ip_address(address)
    except ValueError:
        return []
    parsed = ((ipaddress.ip_network(network), network) for network in networks)
    found = [(known.prefixlen, network) for known, network in parsed if wanted in known]
    return [network for _, network in sorted(found, reverse=True)]
