"""Which packets go where: ``CaptureOptions`` → the rules of each table. Pure.

The semantics are those of Istio's ambient mode, in-pod:
https://istio.io/latest/docs/ambient/architecture/traffic-redirection/. How a connection that the
proxy opens to the application with the client's own address finds its way back:

- the proxy's SYN carries SO_MARK 0x53a and loops over ``lo``, where mangle PREROUTING notes 0x111
  on the *connection*;
- the application's answer, addressed to the far client, gets that mark in mangle OUTPUT and is
  routed again: ``fwmark 0x111 lookup 100``, and table 100 says that every address is local.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshd.capture.rules.options import HIGHEST_RATE, CaptureOptions, Network, received_rate
from meshd.capture.rules.rule import Extension, Family, Option, Rule
from meshd.model import interception
from meshd.model.interception import DNS_SERVICE_PORT, INBOUND_PORT, OUTBOUND_PORT

PREROUTING_CHAIN: Final = "MESHD_PREROUTING"
OUTPUT_CHAIN: Final = "MESHD_OUTPUT"
GUARD_CHAIN: Final = "MESHD_GUARD"
INPUT_CHAIN: Final = "MESHD_INPUT"
HOLD_IN_CHAIN: Final = "MESHD_HOLD_IN"
HOLD_OUT_CHAIN: Final = "MESHD_HOLD_OUT"
"""In the host's own namespace. Two of them: a packet that comes in has no cgroup yet, and iptables
refuses to ask for it."""
NEW_TABLE_CHAIN: Final = "MESHD_NEW_TABLE"
"""Empty; its presence says that the table did not exist before us, so removal takes it away."""

OUTBOUND_MARK: Final = f"{interception.PROXY_MARK:#x}/0xfff"
INBOUND_MARK: Final = f"{interception.PROXY_INBOUND_MARK:#x}/0xfff"
EITHER_MARK: Final = f"{interception.PROXY_MARK & ~3:#x}/0xffc"
"""Both marks of the proxy: they differ in their last two bits only."""
CONNMARK: Final = f"{interception.INBOUND_CONNMARK:#x}/0xfff"
DNS_ZONE: Final = "1"
APPLICATION_ZONE: Final = "2"
_SYN: Final = ("FIN,SYN,RST,ACK", "SYN")
_RESOLVED_STUB: Final = "127.0.0.53/32"
"""systemd-resolved's address on the host: in a namespace of its own nobody answers there, but a
resolv.conf shared with the host names it."""


Ruleset = Mapping[str, Mapping[str, tuple[Rule, ...]]]
"""Table → chain of ours → its rules."""

JUMPS: Final[Mapping[str, tuple[str, ...]]] = {
    PREROUTING_CHAIN: ("PREROUTING",),
    OUTPUT_CHAIN: ("OUTPUT",),
    INPUT_CHAIN: ("INPUT",),
    GUARD_CHAIN: ("PREROUTING", "OUTPUT"),
    HOLD_IN_CHAIN: ("PREROUTING",),
    HOLD_OUT_CHAIN: ("OUTPUT",),
}
"""Chain of ours → the built-in chains that jump to it."""

TABLES: Final = ("raw", "mangle", "nat")
"""In the order in which they are written."""


def jump_to(chain: str) -> Rule:
    return Rule(target=Extension(chain))


def desired_rules(options: CaptureOptions, family: Family) -> Ruleset:
    """All that is wanted of one family. IPv6 that is not captured is refused: what passed would
    pass by all policies."""
    to_refuse = family is Family.IPV6 and not options.ipv6
    nat = refused if to_refuse else tuple
    return {
        "raw": {
            PREROUTING_CHAIN: tuple(_raw_prerouting(options)),
            OUTPUT_CHAIN: tuple(_raw_output(options)),
        },
        "mangle": {
            PREROUTING_CHAIN: (
                Rule(
                    protocol="tcp",
                    in_interface="lo",
                    matches=(marked(INBOUND_MARK),),
                    target=Extension("CONNMARK", (Option("set-xmark", (CONNMARK,)),)),
                ),
            ),
            OUTPUT_CHAIN: (
                Rule(
                    protocol="tcp",
                    matches=(Extension("connmark", (Option("mark", (CONNMARK,)),)),),
                    target=RESTORE_MARK,
                ),
                *(limited_further(_QUERY, options.dns_rate) if options.dns else ()),
            ),
            **_paced_here(options, family),
        },
        "nat": {
            PREROUTING_CHAIN: nat(_inbound(options)),
            OUTPUT_CHAIN: nat(_outbound(options, family)),
        },
    }


def refused(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same, but what went to a proxy goes where nobody listens."""
    to_nobody = redirect(interception.REFUSING_PORT)
    return tuple(
        dataclasses.replace(rule, target=to_nobody) if rule.target.name == to_nobody.name else rule
        for rule in rules
    )


def guard_rules(options: CaptureOptions) -> tuple[Rule, ...]:
    """No new connection while rules change. What is open already keeps its own translation."""
    rules = [
        Rule(in_interface="lo", target=RETURN),
        Rule(out_interface="lo", target=RETURN),
        Rule(matches=(marked(),), target=RETURN),
        Rule(protocol="tcp", matches=(new_connection(),), target=DROP),
    ]
    if options.dns:
        query = ports("udp", DNS_SERVICE_PORT)
        rules.append(Rule(protocol="udp", matches=(query,), target=DROP))
    return tuple(rules)


def _raw_prerouting(options: CaptureOptions) -> Iterator[Rule]:
    """The proxy's own ports are not for others: it would take them for redirected ones."""
    for port in _LISTENERS:
        yield Rule(protocol="tcp", in_interface="!lo", matches=(new_connection(port),), target=DROP)
    if options.dns:
        yield Rule(
            protocol="udp",
            in_interface="!lo",
            matches=(ports("udp", interception.DNS_PORT),),
            target=DROP,
        )
        yield Rule(
            protocol="udp",
            matches=(
                Extension("udp", (Option("sport", (str(DNS_SERVICE_PORT),)),)),
                _unmarked(),
            ),
            target=zone("zone", DNS_ZONE),
        )
    yield Rule(protocol="tcp", target=TRACKED)


def _raw_output(options: CaptureOptions) -> Iterator[Rule]:
    for port in (OUTBOUND_PORT, INBOUND_PORT):
        # From the workload itself such a connection would go round in circles.
        yield Rule(protocol="tcp", out_interface="lo", matches=(new_connection(port),), target=DROP)
    # The proxy may come to use the very port that the client uses towards it: in a zone of its
    # own the connection is not taken for the client's one, which is redirected.
    yield Rule(
        protocol="tcp",
        out_interface="lo",
        matches=(marked(INBOUND_MARK),),
        target=zone("zone-orig", APPLICATION_ZONE),
    )
    if options.dns:
        yield Rule(
            protocol="udp",
            matches=(ports("udp", DNS_SERVICE_PORT), marked()),
            target=zone("zone", DNS_ZONE),
        )
        query = ports("udp", DNS_SERVICE_PORT)
        yield Rule(protocol="udp", matches=(query,), target=TRACKED)
    yield Rule(protocol="tcp", target=TRACKED)


def _inbound(options: CaptureOptions) -> Iterator[Rule]:
    """No source address is let past: whoever is on the same link can take any."""
    # What a proxy sends comes back on this interface only: elsewhere somebody else set the mark.
    yield Rule(protocol="tcp", in_interface="lo", matches=(marked(),), target=RETURN)
    for name in options.exclude_interfaces:
        yield Rule(in_interface=name, target=RETURN)
    yield from _to_inbound(options, Rule(protocol="tcp", target=RETURN))


def _to_inbound(options: CaptureOptions, base: Rule) -> Iterator[Rule]:
    """What of the packets that ``base`` matches goes to the inbound listener."""
    for port in options.exclude_inbound_ports:
        yield _with(base, RETURN, port)
    to_proxy = redirect(INBOUND_PORT)
    if options.include_inbound_ports is None:
        yield dataclasses.replace(base, target=to_proxy)
    else:
        yield from (_with(base, to_proxy, port) for port in options.include_inbound_ports)


def _with(base: Rule, target: Extension, port: int) -> Rule:
    return dataclasses.replace(base, target=target, matches=(ports("tcp", port), *base.matches))


def _outbound(options: CaptureOptions, family: Family) -> Iterator[Rule]:
    to_proxy = redirect(OUTBOUND_PORT)
    # A workload that calls a service which it serves itself: its outbound proxy's connection
    # never leaves, so this is where it comes in.
    own = Rule(protocol="tcp", out_interface="lo", matches=(marked(OUTBOUND_MARK),), target=RETURN)
    yield from _to_inbound(options, own)
    yield Rule(matches=(marked(),), target=RETURN)
    for name in options.exclude_interfaces:
        yield Rule(out_interface=name, target=RETURN)
    if options.dns:
        yield from _dns(options, family)
    # Loopback, and the workload's own addresses too.
    yield Rule(out_interface="lo", target=RETURN)
    for network in of_family(options.exclude_outbound, family):
        yield Rule(destination=destination(network), target=RETURN)
    for port in options.exclude_outbound_ports:
        yield Rule(protocol="tcp", matches=(ports("tcp", port),), target=RETURN)
    for port in options.include_outbound_ports:
        yield Rule(protocol="tcp", matches=(ports("tcp", port),), target=to_proxy)
    if options.include_outbound is None:
        yield Rule(protocol="tcp", target=to_proxy)
        return
    for network in of_family(options.include_outbound, family):
        yield Rule(protocol="tcp", destination=destination(network), target=to_proxy)


def _dns(options: CaptureOptions, family: Family) -> Iterator[Rule]:
    """Queries. Those over TCP go to the outbound listener, which knows them by their port."""
    for protocol, port in (("udp", interception.DNS_PORT), ("tcp", OUTBOUND_PORT)):
        query = Rule(
            protocol=protocol,
            matches=(ports(protocol, DNS_SERVICE_PORT),),
            target=redirect(port),
        )
        rate = options.dns_rate if protocol == "udp" else 0
        if family is Family.IPV4:
            yield from limited(dataclasses.replace(query, destination=_RESOLVED_STUB), rate)
        yield from limited(dataclasses.replace(query, out_interface="!lo"), rate)


def limited(query: Rule, rate: int) -> Iterator[Rule]:
    """``query`` redirects lookups. Of what is above ``rate`` a second (0: any number) whoever asks
    is told at once. That is decided for each new socket, see ``limited_further``."""
    if not rate:
        yield query
        return
    yield dataclasses.replace(query, matches=(*query.matches, _within(rate)))
    yield dataclasses.replace(query, target=redirect(interception.REFUSING_PORT))


def limited_further(query: Rule, rate: int) -> Iterator[Rule]:
    """What is too much of those that go on asking on a socket is dropped."""
    if not rate:
        return
    following = (*query.matches, _ESTABLISHED)
    yield dataclasses.replace(query, matches=(*following, _within(rate)), target=RETURN)
    yield dataclasses.replace(query, matches=following, target=DROP)


def _paced_here(options: CaptureOptions, family: Family) -> Mapping[str, tuple[Rule, ...]]:
    rules = tuple(paced(OUTBOUND_PORT, INBOUND_PORT, options, family))
    return {INPUT_CHAIN: rules} if rules else {}


def paced(
    outbound: int, inbound: int, options: CaptureOptions, family: Family, *marks: Extension
) -> Iterator[Rule]:
    """Of the new connections that were redirected to these ports of a proxy, those above the
    workload's rate are dropped: clients try again after a second, then three, as where a backlog is
    full. Each is logged to the group with the number of the port, see ``nflog``. Probes count
    apart: a workload that opens too many is no less captured."""
    rate = options.connection_rate
    probes = Extension("conntrack", (Option("ctorigdst", (_PROBED[family],)),))
    for port, most in ((outbound, rate), (inbound, received_rate(rate))) if rate else ():
        new = (new_connection(port), *marks)
        if port == outbound:
            yield Rule(protocol="tcp", matches=(*new, probes, _within(_PROBES)), target=RETURN)
        yield Rule(protocol="tcp", matches=(*new, _within(most)), target=RETURN)
        if options.drops_logged:
            group = Option("nflog-group", (str(port),))
            yield Rule(protocol="tcp", matches=new, target=Extension("NFLOG", (group,)))
        yield Rule(protocol="tcp", matches=new, target=DROP)


def _within(rate: int) -> Extension:
    burst = min(_BURST * rate, HIGHEST_RATE)
    counts = (Option("limit", (f"{rate}/sec",)), Option("limit-burst", (f"{burst}",)))
    return Extension("limit", counts)


def of_family(networks: tuple[Network, ...], family: Family) -> Iterator[Network]:
    return (network for network in networks if network.version == family.value)


def destination(network: Network) -> str:
    # iptables-save says nothing of a range that is everything.
    return str(network) if network.prefixlen else ""


def marked(mark: str = EITHER_MARK) -> Extension:
    return Extension("mark", (Option("mark", (mark,)),))


def _unmarked() -> Extension:
    return Extension("mark", (Option("mark", (EITHER_MARK,), inverted=True),))


def ports(protocol: str, port: int) -> Extension:
    return Extension(protocol, (Option("dport", (str(port),)),))


def new_connection(port: int = 0) -> Extension:
    dport = (Option("dport", (str(port),)),) if port else ()
    return Extension("tcp", (*dport, Option("tcp-flags", _SYN)))


def redirect(port: int) -> Extension:
    return Extension("REDIRECT", (Option("to-ports", (str(port),)),))


def zone(option: str, zone: str) -> Extension:
    return Extension("CT", (Option(option, (zone,)),))


RETURN: Final = Extension("RETURN")
TRACKED: Final = Extension("CT")
"""What is not tracked is not redirected. A packet that has been through here is, whatever rules of
others with the target NOTRACK are behind: they pass over what is assigned already."""
DROP: Final = Extension("DROP")
RESTORE_MARK: Final = Extension(
    "CONNMARK",
    (Option("restore-mark", ()), Option("nfmask", ("0xfff",)), Option("ctmask", ("0xfff",))),
)
_QUERY: Final = Rule(
    protocol="udp", matches=(ports("udp", DNS_SERVICE_PORT), _unmarked()), target=RETURN
)
_ESTABLISHED: Final = Extension("conntrack", (Option("ctstate", ("ESTABLISHED",)),))
_BURST: Final = 2
"""Seconds whose queries or connections may come at once."""
_PROBES: Final = 50
"""A second."""
_PROBED: Final = {
    Family.IPV4: interception.CAPTURE_PROBE_ADDRESS,
    Family.IPV6: interception.CAPTURE_PROBE_ADDRESS_V6,
}
_LISTENERS: Final = (OUTBOUND_PORT, INBOUND_PORT, interception.DNS_PORT)
