"""Builds the rules of a workload's namespace: ``CaptureOptions`` → rules by table. Pure.

The semantics are those of Istio's ambient mode, in-pod:
https://istio.io/latest/docs/ambient/architecture/traffic-redirection/. The proxy opens connections
to the application with the client's own address; answers find their way back as follows:

- the proxy's SYN carries SO_MARK 0x53a and loops over ``lo``, where mangle PREROUTING notes 0x111
  on the *connection*;
- the application's answer, addressed to the far client, carries 0x53a, too, where ``replies`` has
  seen to that, and is routed to ``lo``: ``fwmark 0x53a lookup 15100``, and table 15100 says that
  every address is local;
- an answer that would leave the namespace gets 0x111 in mangle OUTPUT and is routed again by it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshd.capture.rules.options import HIGHEST_RATE, CaptureOptions, Network, received_rate
from meshd.capture.rules.rule import Extension, Family, Option, Rule
from meshd.model import interception
from meshd.model.connection_rate import BURST
from meshd.model.interception import DNS_SERVICE_PORT, INBOUND_PORT, OUTBOUND_PORT

PREROUTING_CHAIN: Final = "MESHD_PREROUTING"
OUTPUT_CHAIN: Final = "MESHD_OUTPUT"
GUARD_CHAIN: Final = "MESHD_GUARD"
INPUT_CHAIN: Final = "MESHD_INPUT"
HOLD_IN_CHAIN: Final = "MESHD_HOLD_IN"
HOLD_OUT_CHAIN: Final = "MESHD_HOLD_OUT"
"""The chains that hold workloads in the host's own namespace. There are two, since a packet that
comes in has no cgroup yet, and iptables rejects rules there that match one."""
NEW_TABLE_CHAIN: Final = "MESHD_NEW_TABLE"
"""An empty chain: its presence shows that meshd made the table, so that removal deletes it."""

OUTBOUND_MARK: Final = f"{interception.PROXY_MARK:#x}/0xfff"
INBOUND_MARK: Final = f"{interception.PROXY_INBOUND_MARK:#x}/0xfff"
EITHER_MARK: Final = f"{interception.PROXY_MARK & ~3:#x}/0xffc"
"""Both marks of the proxy: they differ in their last two bits only."""
CONNMARK: Final = f"{interception.INBOUND_CONNMARK:#x}/0xfff"
DNS_ZONE: Final = "1"
APPLICATION_ZONE: Final = "2"
_SYN: Final = ("FIN,SYN,RST,ACK", "SYN")
_RESOLVED_STUB: Final = "127.0.0.53/32"
"""The address of systemd-resolved on the host. In another namespace nothing answers at it, but a
resolv.conf shared with the host contains it."""


Ruleset = Mapping[str, Mapping[str, tuple[Rule, ...]]]
"""Table → chain of meshd → its rules."""

JUMPS: Final[Mapping[str, tuple[str, ...]]] = {
    PREROUTING_CHAIN: ("PREROUTING",),
    OUTPUT_CHAIN: ("OUTPUT",),
    INPUT_CHAIN: ("INPUT",),
    GUARD_CHAIN: ("PREROUTING", "OUTPUT"),
    HOLD_IN_CHAIN: ("PREROUTING",),
    HOLD_OUT_CHAIN: ("OUTPUT",),
}
"""Chain of meshd → the built-in chains that jump to it."""

TABLES: Final = ("raw", "mangle", "nat")
"""The tables in the order in which they are written."""


def jump_to(chain: str) -> Rule:
    return Rule(target=Extension(chain))


def desired_rules(options: CaptureOptions, family: Family) -> Ruleset:
    """Return all rules of one family.

    IPv6 that is not captured is refused, because it would bypass all policies.
    """
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
                    out_interface="!lo",
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
    """Return the same rules, but redirecting to a port without a listener in place of the proxy."""
    to_nobody = redirect(interception.REFUSING_PORT)
    return tuple(
        dataclasses.replace(rule, target=to_nobody) if rule.target.name == to_nobody.name else rule
        for rule in rules
    )


def guard_rules(options: CaptureOptions) -> tuple[Rule, ...]:
    """Return rules that drop new connections while rules change.

    Open connections keep their address translation.
    """
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
    """Yield rules that keep other hosts from the proxy's own ports.

    The proxy would take connections to them for redirected ones.
    """
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
        # Such a connection from the workload itself would loop.
        yield Rule(protocol="tcp", out_interface="lo", matches=(new_connection(port),), target=DROP)
    # The proxy may happen to use the same port as the client uses towards the proxy. In a zone of
    # its own, this connection is not taken for the client's one, which is redirected.
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
    """Yield inbound rules. None exempts a source address: any host on the link can use any."""
    # Packets of a proxy come back on this interface only: on others, the mark is not a proxy's.
    yield Rule(protocol="tcp", in_interface="lo", matches=(marked(),), target=RETURN)
    for name in options.exclude_interfaces:
        yield Rule(in_interface=name, target=RETURN)
    yield from _to_inbound(options, Rule(protocol="tcp", target=RETURN))


def _to_inbound(options: CaptureOptions, base: Rule) -> Iterator[Rule]:
    """Yield the rules for packets that ``base`` matches: to the inbound listener, or excluded."""
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
    # A workload may call a service which it serves itself. The connection of its outbound proxy
    # never leaves the namespace, so it becomes inbound here.
    own = Rule(protocol="tcp", out_interface="lo", matches=(marked(OUTBOUND_MARK),), target=RETURN)
    yield from _to_inbound(options, own)
    yield Rule(matches=(marked(),), target=RETURN)
    for name in options.exclude_interfaces:
        yield Rule(out_interface=name, target=RETURN)
    if options.dns:
        yield from _dns(options, family)
    # This covers loopback and the workload's own addresses.
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
    """Yield rules for queries. Those over TCP go to the outbound listener, which knows the port."""
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
    """Yield ``query``, which redirects lookups, limited to ``rate`` a second (0: any number).

    Lookups above the rate are refused at once. This is decided at the first lookup of each socket;
    see ``limited_further`` for the rest.
    """
    if not rate:
        yield query
        return
    yield dataclasses.replace(query, matches=(*query.matches, _within(rate)))
    yield dataclasses.replace(query, target=redirect(interception.REFUSING_PORT))


def limited_further(query: Rule, rate: int) -> Iterator[Rule]:
    """Yield rules that drop lookups above the rate on sockets that have sent one before."""
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
    """Yield rules that drop new connections, redirected to these ports, above the workload's rate.

    Clients try again after one second, then three, as with a full backlog. Each drop is logged to
    the group with the number of the port, see ``nflog``. Probes are counted separately: a workload
    that opens too many connections is no less captured.
    """
    rate = options.connection_rate
    ours = Extension("conntrack", (Option("ctorigdst", (_PROBED[family],)),))
    ports = interception.INBOUND_PROBE_PORTS
    for port, most in ((outbound, rate), (inbound, received_rate(rate))) if rate else ():
        new = (new_connection(port), *marks)
        probes = (*new, ours) if port == outbound else (new_connection(port, ports), *marks)
        yield Rule(protocol="tcp", matches=(*probes, _within(_PROBES)), target=RETURN)
        yield Rule(protocol="tcp", matches=(*new, _within(most)), target=RETURN)
        if options.drops_logged:
            group = Option("nflog-group", (str(port),))
            yield Rule(protocol="tcp", matches=new, target=Extension("NFLOG", (group,)))
        yield Rule(protocol="tcp", matches=new, target=DROP)


def _within(rate: int) -> Extension:
    burst = min(BURST * rate, HIGHEST_RATE)
    counts = (Option("limit", (f"{rate}/sec",)), Option("limit-burst", (f"{burst}",)))
    return Extension("limit", counts)


def of_family(networks: tuple[Network, ...], family: Family) -> Iterator[Network]:
    return (network for network in networks if network.version == family.value)


def destination(network: Network) -> str:
    # iptables-save prints no range that contains all addresses.
    return str(network) if network.prefixlen else ""


def marked(mark: str = EITHER_MARK) -> Extension:
    return Extension("mark", (Option("mark", (mark,)),))


def _unmarked() -> Extension:
    return Extension("mark", (Option("mark", (EITHER_MARK,), inverted=True),))


def ports(protocol: str, port: int) -> Extension:
    return Extension(protocol, (Option("dport", (str(port),)),))


def new_connection(port: int = 0, sources: range | None = None) -> Extension:
    sport = (Option("sport", (f"{sources[0]}:{sources[-1]}",)),) if sources else ()
    dport = (Option("dport", (str(port),)),) if port else ()
    return Extension("tcp", (*sport, *dport, Option("tcp-flags", _SYN)))


def redirect(port: int) -> Extension:
    return Extension("REDIRECT", (Option("to-ports", (str(port),)),))


def zone(option: str, zone: str) -> Extension:
    return Extension("CT", (Option(option, (zone,)),))


RETURN: Final = Extension("RETURN")
TRACKED: Final = Extension("CT")
"""Makes packets tracked, since untracked ones are not redirected. Later NOTRACK rules of other
programs skip packets that are assigned already."""
DROP: Final = Extension("DROP")
RESTORE_MARK: Final = Extension(
    "CONNMARK",
    (Option("restore-mark", ()), Option("nfmask", ("0xfff",)), Option("ctmask", ("0xfff",))),
)
_QUERY: Final = Rule(
    protocol="udp", matches=(ports("udp", DNS_SERVICE_PORT), _unmarked()), target=RETURN
)
_ESTABLISHED: Final = Extension("conntrack", (Option("ctstate", ("ESTABLISHED",)),))
_PROBES: Final = 50
"""Probes a second that are not counted."""
_PROBED: Final = {
    Family.IPV4: interception.CAPTURE_PROBE_ADDRESS,
    Family.IPV6: interception.CAPTURE_PROBE_ADDRESS_V6,
}
_LISTENERS: Final = (OUTBOUND_PORT, INBOUND_PORT, interception.DNS_PORT)
