"""Builds the rules for services of the host: all enrolled ones → one set of rules. Pure.

Many workloads share the host's namespace with processes that are not in the mesh. So each rule
names a cgroup, a port that a workload declares or a mark of the proxies, and carries the workload's
uid in its comment. ``capture.rules.rules`` explains what is the same in a namespace of a workload's
own.

All redirecting rules are in one table, which is replaced at once: a captured workload stays so
while the rules of other workloads come and go, and no guard is needed. A *held* workload is
enrolled but not captured yet; its connections are dropped until it is captured.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from meshd.capture.host.host_service import HostWorkload
from meshd.capture.host.rule_parts import (
    HERE,
    about,
    dports,
    never,
    ports_in_parts,
    sent_by,
    served_ports,
    with_cgroup,
)
from meshd.capture.pods.impostors import answers
from meshd.capture.rules.delta import Change, Tables, behind, changes_to
from meshd.capture.rules.rule import Extension, Family, Option, Rule
from meshd.capture.rules.rules import (
    APPLICATION_ZONE,
    CONNMARK,
    DNS_ZONE,
    DROP,
    EITHER_MARK,
    HOLD_IN_CHAIN,
    HOLD_OUT_CHAIN,
    INBOUND_MARK,
    INPUT_CHAIN,
    OUTBOUND_MARK,
    OUTPUT_CHAIN,
    PREROUTING_CHAIN,
    RESTORE_MARK,
    RETURN,
    TRACKED,
    Ruleset,
    destination,
    limited,
    limited_further,
    marked,
    new_connection,
    of_family,
    paced,
    ports,
    redirect,
    zone,
)
from meshd.model.interception import DNS_SERVICE_PORT, REFUSING_PORT

_COMMENT: Final = re.compile(r'--comment "(?P<uid>[^"@]+)@\d+"')


def desired_host_rules(workloads: Iterable[HostWorkload], family: Family) -> Ruleset:
    """Return all rules of one family for the host's namespace."""
    ours = sorted(
        (_in_family(one, family) for one in workloads),
        key=lambda one: one.uid,
    )
    captured = [one for one in ours if not one.held]
    held = [one for one in ours if one.held]
    wanted = {
        "raw": {
            PREROUTING_CHAIN: tuple(_tracked_in(captured)),
            OUTPUT_CHAIN: (*answers(captured, about), *_zones(captured), *_tracked_out(captured)),
            HOLD_OUT_CHAIN: tuple(_hold_out(held, family)),
            HOLD_IN_CHAIN: tuple(_hold_in(held)),
        },
        "mangle": {
            PREROUTING_CHAIN: tuple(_note_connections(captured)),
            OUTPUT_CHAIN: (*_mark_replies(captured), *_further_queries(captured)),
            INPUT_CHAIN: tuple(
                rule
                for one in captured
                for rule in paced(
                    one.outbound_port,
                    one.inbound_port,
                    one.options,
                    family,
                    about(one),
                )
            ),
        },
        "nat": {
            PREROUTING_CHAIN: tuple(_inbound(captured)),
            OUTPUT_CHAIN: tuple(_outbound(captured, family)),
        },
    }
    filled = {
        table: {chain: rules for chain, rules in chains.items() if rules}
        for table, chains in wanted.items()
    }
    return {table: chains for table, chains in filled.items() if chains}


def _in_family(one: HostWorkload, family: Family) -> HostWorkload:
    """Send IPv6 that is not captured to a port without a listener, as ``rules.refused`` does."""
    if family is Family.IPV4 or one.options.ipv6:
        return one
    return dataclasses.replace(one, outbound_port=REFUSING_PORT, inbound_port=REFUSING_PORT)


def host_changes(
    tables: Tables,
    workloads: Sequence[HostWorkload],
    family: Family,
    *,
    mark_new_tables: bool,
) -> tuple[Change, ...]:
    """Return the fewest changes needed. Holds are added first and removed last."""
    desired = desired_host_rules(workloads, family)
    changes = changes_to(tables, desired, mark_new_tables=mark_new_tables)
    held = held_workloads(tables)
    still = [dataclasses.replace(one, held=True) if one.uid in held else one for one in workloads]
    raised, wanted = holds(still, family), holds(workloads, family)
    return behind(changes, tables, raised, wanted)


def held_workloads(tables: Tables) -> frozenset[str]:
    """Return the uids of the workloads that are held now."""
    return frozenset(
        uid
        for chain in (HOLD_IN_CHAIN, HOLD_OUT_CHAIN)
        if (there := tables.get("raw", {}).get(chain))
        for line in there.rules
        if (uid := workload_in(line))
    )


def workload_in(line: str) -> str:
    """Return the uid of the workload that a rule is for; empty if for all workloads or for none."""
    found = _COMMENT.search(line)
    return found["uid"] if found else ""


def holds(workloads: Iterable[HostWorkload], family: Family) -> dict[str, tuple[Rule, ...]]:
    """Return the chains that hold workloads, with their rules."""
    raw = desired_host_rules(workloads, family).get("raw", {})
    return {chain: raw[chain] for chain in (HOLD_OUT_CHAIN, HOLD_IN_CHAIN) if chain in raw}


def is_captured_here(tables: Tables, one: HostWorkload, family: Family) -> bool:
    """Return whether rules bound to the workload's cgroup redirect both directions."""
    one = _in_family(one, family)
    wanted = {OUTPUT_CHAIN: _sent(one, family), PREROUTING_CHAIN: _inbound([one])}
    return all(
        set(map(str, rules)) <= set(_lines(tables, "nat", chain)) for chain, rules in wanted.items()
    )


def _lines(tables: Tables, table: str, chain: str) -> tuple[str, ...]:
    there = tables.get(table, {}).get(chain)
    return there.rules if there else ()


# ---- raw


def _zones(workloads: Sequence[HostWorkload]) -> Iterator[Rule]:
    """Put proxies' connections to services, and queries, in conntrack zones of their own.

    The zone applies to the original direction. Without it, a proxy that happens to use the client's
    port towards the same address would collide with the client's connection.
    """
    for one, port in served_ports(workloads):
        yield Rule(
            protocol="tcp",
            out_interface="lo",
            matches=(ports("tcp", port), marked(INBOUND_MARK), about(one)),
            target=zone("zone-orig", APPLICATION_ZONE),
        )
    for one in with_cgroup(workloads):
        if one.options.dns:
            yield Rule(
                protocol="udp",
                matches=(ports("udp", DNS_SERVICE_PORT), *sent_by(one)),
                target=zone("zone-orig", DNS_ZONE),
            )


def _tracked_in(workloads: Sequence[HostWorkload]) -> Iterator[Rule]:
    for one, port in served_ports(workloads):
        yield Rule(protocol="tcp", matches=(ports("tcp", port), about(one)), target=TRACKED)


def _tracked_out(workloads: Sequence[HostWorkload]) -> Iterator[Rule]:
    for one in with_cgroup(workloads):
        yield Rule(protocol="tcp", matches=sent_by(one), target=TRACKED)
        if one.options.dns:
            query = (ports("udp", DNS_SERVICE_PORT), *sent_by(one))
            yield Rule(protocol="udp", matches=query, target=TRACKED)


def _hold_out(workloads: Sequence[HostWorkload], family: Family) -> Iterator[Rule]:
    if workloads:
        yield from never(family)
    for one, port in served_ports(workloads):
        begins = (new_connection(port),)
        if one.cgroup_id:
            yield Rule(
                protocol="tcp", out_interface="lo", matches=(*begins, *sent_by(one)), target=RETURN
            )
        yield Rule(protocol="tcp", out_interface="lo", matches=(*begins, about(one)), target=DROP)
    for one in with_cgroup(workloads):
        yield Rule(
            protocol="tcp",
            out_interface="!lo",
            matches=(new_connection(), *sent_by(one)),
            target=DROP,
        )


def _hold_in(workloads: Sequence[HostWorkload]) -> Iterator[Rule]:
    for one, port in served_ports(workloads):
        yield Rule(
            protocol="tcp",
            in_interface="!lo",
            matches=(new_connection(port), HERE, about(one)),
            target=DROP,
        )


# ---- mangle


def _note_connections(workloads: Sequence[HostWorkload]) -> Iterator[Rule]:
    for one, port in served_ports(workloads):
        yield Rule(
            protocol="tcp",
            in_interface="lo",
            matches=(ports("tcp", port), marked(INBOUND_MARK), about(one)),
            target=Extension("CONNMARK", (Option("set-xmark", (CONNMARK,)),)),
        )


def _mark_replies(workloads: Sequence[HostWorkload]) -> Iterator[Rule]:
    for one, port in served_ports(workloads):
        yield Rule(
            protocol="tcp",
            matches=(
                Extension("tcp", (Option("sport", (str(port),)),)),
                Extension("connmark", (Option("mark", (CONNMARK,)),)),
                about(one),
            ),
            target=RESTORE_MARK,
        )


# ---- nat


def _inbound(workloads: Sequence[HostWorkload]) -> Iterator[Rule]:
    """Redirect connections to this host only: those that it forwards may have the same ports."""
    for one, port in served_ports(workloads):
        yield Rule(
            protocol="tcp",
            in_interface="!lo",
            matches=(ports("tcp", port), HERE, about(one)),
            target=redirect(one.inbound_port),
        )


def _outbound(workloads: Sequence[HostWorkload], family: Family) -> Iterator[Rule]:
    if not workloads:
        return
    served = tuple(served_ports(workloads))
    running = with_cgroup(workloads)
    for one, port in served:
        # The client is on this host too: the connection of its proxy never leaves the host.
        yield Rule(
            protocol="tcp",
            out_interface="lo",
            matches=(ports("tcp", port), marked(OUTBOUND_MARK), about(one)),
            target=redirect(one.inbound_port),
        )
    yield Rule(matches=(marked(EITHER_MARK),), target=RETURN)
    yield from _queries(running)
    for one, port in served_ports(running):
        # A service that connects to itself, such as for a health check.
        yield Rule(
            protocol="tcp",
            out_interface="lo",
            matches=(ports("tcp", port), *sent_by(one)),
            target=RETURN,
        )
    yield from _to_each_other(running, sorted({port for _, port in served}))
    for one, port in served:
        yield Rule(
            protocol="tcp",
            out_interface="lo",
            matches=(ports("tcp", port), about(one)),
            target=redirect(one.inbound_port),
        )
    yield Rule(out_interface="lo", target=RETURN)
    yield from never(family)
    for one in running:
        yield from _sent(one, family)


def _further_queries(workloads: Sequence[HostWorkload]) -> Iterator[Rule]:
    for one in with_cgroup(workloads):
        matches = (ports("udp", DNS_SERVICE_PORT), *sent_by(one))
        query = Rule(protocol="udp", matches=matches, target=RETURN)
        yield from limited_further(query, one.options.dns_rate if one.options.dns else 0)


def _queries(workloads: Sequence[HostWorkload]) -> Iterator[Rule]:
    """Redirect queries, also those to a resolver of the host, whose own ones are not captured."""
    for one in workloads:
        for protocol in ("udp", "tcp") if one.options.dns else ():
            query = Rule(
                protocol=protocol,
                matches=(ports(protocol, DNS_SERVICE_PORT), *sent_by(one)),
                target=redirect(one.outbound_port),
            )
            yield from limited(query, one.options.dns_rate if protocol == "udp" else 0)


def _to_each_other(workloads: Sequence[HostWorkload], served: Sequence[int]) -> Iterator[Rule]:
    """Redirect what one enrolled service sends to a port of another at an address of the host.

    The connection leaves through the client's proxy, so that the server sees the client's identity.
    """
    for one in workloads:
        for some in ports_in_parts(served):
            yield Rule(
                protocol="tcp",
                out_interface="lo",
                matches=(dports(some), *sent_by(one)),
                target=redirect(one.outbound_port),
            )


def _sent(one: HostWorkload, family: Family) -> Iterator[Rule]:
    options, sent, to_proxy = one.options, sent_by(one), redirect(one.outbound_port)
    for name in options.exclude_interfaces:
        yield Rule(out_interface=name, matches=sent, target=RETURN)
    for network in of_family(options.exclude_outbound, family):
        yield Rule(destination=destination(network), matches=sent, target=RETURN)
    for port in options.exclude_outbound_ports:
        yield Rule(protocol="tcp", matches=(ports("tcp", port), *sent), target=RETURN)
    for port in options.include_outbound_ports:
        yield Rule(protocol="tcp", matches=(ports("tcp", port), *sent), target=to_proxy)
    if options.include_outbound is None:
        yield Rule(protocol="tcp", matches=sent, target=to_proxy)
        return
    for network in of_family(options.include_outbound, family):
        yield Rule(protocol="tcp", destination=destination(network), matches=sent, target=to_proxy)


# ---- parts of rules
