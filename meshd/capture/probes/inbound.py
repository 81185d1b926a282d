"""Probes whether connections to a workload reach the proxy, by beginning some.

The probe sends a SYN from this host to the workload's ports, over the link on which other traffic
arrives, and nothing after it: the connection is never established, so neither the application nor
the proxy accepts one. The namespace's connection tracking shows where the SYN went: the answer
comes from the port of the inbound listener, or from elsewhere, past the proxy. A connection that is
answered without being tracked went past the proxy, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from meshd.base import own_addresses
from meshd.base.errors import MeshdError
from meshd.capture.host.host_service import HostWorkload
from meshd.capture.probes import listening, reach
from meshd.capture.probes.conntrack import Connections, End, Flow
from meshd.capture.probes.outpost import SOURCES, Outpost
from meshd.capture.rules import inside
from meshd.capture.rules.options import CaptureOptions
from meshd.model.interception import (
    DNS_PORT,
    INBOUND_PORT,
    INBOUND_PROBE_PORTS,
    OUTBOUND_PORT,
    REFUSING_PORT,
)

_WAITS: Final = (0.0, 0.002, 0.01, 0.05, 0.2)
"""Seconds before each look for the result, which mostly exists once the SYN has been sent."""
_TRIES: Final = 2
"""How often a SYN is sent: one may be lost, or dropped as above the rate of the probes."""
_ASKED: Final = (0.005, 0.02, 0.1, 0.3)
"""Seconds before each look for the neighbour that has an address."""
_MOST_PORTS: Final = 32
"""The most ports to try that are listened on without being declared."""
_MOST_OTHERS: Final = 8
"""The most addresses of other interfaces: a workload may give itself any number."""
_MOST_SEGMENTS: Final = 256
"""The most segments read at once, so that a flood of them cannot occupy the process."""
_MOST_BUSY: Final = 16
"""Busy source ports that are tried before the probe is given up."""
_SEGMENT: Final = 128
"""Bytes, with headers."""
_OURS: Final = frozenset({OUTBOUND_PORT, INBOUND_PORT, DNS_PORT, REFUSING_PORT})
_ANY_PORTS: Final = range(16_000, 32_000)
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_HEADER: Final = struct.Struct(">HHIIBBHHH")  # RFC 9293, 3.1
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """The result of an inbound probe; both fields empty: the inbound direction is captured."""

    problem: str = ""
    """Connections reach the workload past the proxy, or reach no proxy."""
    unseen: str = ""
    """Why the probe has shown nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """The source address of a probe, and the workload's address that it goes to."""

    source: str
    address: str

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4


async def probe(
    namespace: Path, known_by: Sequence[str], declared: Iterable[int], options: CaptureOptions
) -> Verdict:
    """Probe a workload that has a network namespace of its own.

    ``known_by`` are the addresses by which others reach the workload. Those of its other interfaces
    are tried, too, but need not be reachable from here. Raises NotReadyError if the namespace is
    gone.
    """
    with inside.entered(namespace):
        interfaces, heard = reach.interfaces(), listening.ports()
        others = [one for one in own_addresses.of_each_interface() if one not in known_by]
        del others[_MOST_OTHERS:]
        connections = Connections()
    with contextlib.closing(connections):
        ports = ports_to_try(frozenset(declared), heard, options)
        if not known_by:
            return Verdict(unseen="it has no address")
        if not ports:
            return Verdict(unseen="none of its ports is captured")
        asked = [
            await _ask(address, ports, interfaces, connections, options)
            for address in (*known_by, *others)
        ]
    bare = [dataclasses.replace(one, unseen="") for one in asked[len(known_by) :]]
    return combined([*asked[: len(known_by)], *bare])


async def probe_service(outpost: Outpost, known_by: Sequence[str], one: HostWorkload) -> Verdict:
    """Probe a service of the host as ``probe`` does: only its declared ports are captured."""
    if not one.ports:
        return Verdict()
    try:
        outpost.open()
        connections = Connections()
    except (MeshdError, OSError) as error:
        return Verdict(unseen=f"it cannot be probed from outside: {error}")
    with contextlib.closing(connections):
        verdicts = [await _ask_host(outpost, one, way, connections) for way in _ways(known_by)]
    return combined(verdicts) if verdicts else Verdict(unseen="the host has no address")


def _ways(addresses: Sequence[str]) -> list[Way]:
    return [Way(SOURCES[6 if ":" in address else 4], address) for address in addresses]


async def _ask_host(
    outpost: Outpost, one: HostWorkload, way: Way, connections: Connections
) -> Verdict:
    if lack := outpost.lack(way.version):
        return Verdict(unseen=f"{way.address} cannot be probed from outside: {lack}")
    refused = way.version == 6 and not one.options.ipv6
    expected = REFUSING_PORT if refused else one.inbound_port
    try:
        return await _try(way, one.ports, connections, expected, outpost.entered)
    except (MeshdError, OSError) as error:
        outpost.is_doubted = outpost.is_doubted or isinstance(error, OSError)
        return Verdict(unseen=f"{way.address} cannot be probed from outside: {error}")


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Combine verdicts: an unproven one hides no problem that another has shown. Pure."""
    problem, unseen = (
        "; ".join(dict.fromkeys(filter(None, texts)))
        for texts in (
            [one.problem for one in verdicts],
            [one.unseen for one in verdicts],
        )
    )
    return Verdict(problem, unseen)


def ports_to_try(
    declared: frozenset[int], heard: frozenset[int], options: CaptureOptions
) -> tuple[int, ...]:
    """Choose the ports to try: at random if too many listen, any one if none does.

    Pure but for the random choice.
    """
    others = sorted(heard - declared)
    found = declared | set(random.sample(others, min(_MOST_PORTS, len(others))))
    if options.include_inbound_ports is not None:
        found &= set(options.include_inbound_ports)
    found -= _OURS | set(options.exclude_inbound_ports)
    if not found and options.include_inbound_ports is None:
        return (random.choice(_ANY_PORTS),)  # noqa: S311 - not a secret
    return tuple(sorted(found))


async def _ask(
    address: str,
    ports: Sequence[int],
    interfaces: Sequence[reach.Interface],
    connections: Connections,
    options: CaptureOptions,
) -> Verdict:
    try:
        way = await _way_to(address, interfaces, options)
        if isinstance(way, Verdict):
            return way
        expected = INBOUND_PORT if options.ipv6 or way.version == 4 else REFUSING_PORT
        return await _try(way, ports, connections, expected)
    except (MeshdError, OSError) as error:
        return Verdict(unseen=f"{address} cannot be probed: {error}")


async def _way_to(
    address: str, interfaces: Sequence[reach.Interface], options: CaptureOptions
) -> Way | Verdict:
    neighbour = reach.neighbour(address)
    if neighbour is None:
        return Verdict(unseen=f"no wire leads from the host to {address}")
    for wait in (0.0, *_ASKED):
        await asyncio.sleep(wait)
        if hardware := reach.hardware_of(neighbour):
            break
        reach.find_out(neighbour)
    else:
        return Verdict(unseen=f"{address} does not say on the host's wire where it is")
    other = reach.other_end(neighbour.interface)
    names = reach.arriving(interfaces, hardware, neighbour, other)
    if not names:
        return Verdict(unseen=f"for the host {address} is somewhere else")
    if excluded := names & set(options.exclude_interfaces):
        captured = ", ".join(sorted(names - excluded))
        text = f"{address} may be reached by {', '.join(sorted(excluded))}, or by {captured}"
        return Verdict(unseen=f"{text}, which is captured" if captured else "")
    with socket.socket(_FAMILY[6 if ":" in address else 4], socket.SOCK_DGRAM) as looking:
        looking.connect((address, 9))  # sends nothing
        return Way(looking.getsockname()[0], address)


async def _try(
    way: Way,
    ports: Sequence[int],
    connections: Connections,
    expected: int,
    place: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Verdict:
    """Probe ports by one way. ``place`` enters the namespace to send from; by default this one."""
    known: dict[int, Verdict] = {}
    for _ in range(_TRIES):
        with place():
            opened = _Sender(way)
        with opened as sender:
            for port in (waiting := [port for port in ports if port not in known]):
                sender.send(port)
            for wait in _WAITS:
                await asyncio.sleep(wait)
                sender.receive()
                known |= await _judge(
                    sender, [port for port in waiting if port not in known], connections, expected
                )
                if len(known) == len(ports):
                    return combined([known[port] for port in ports])
        if others := [port for port in sorted(sender.answers) if port not in ports]:
            return combined([*known.values(), *(_elsewhere(way, port) for port in others)])
    silent = ", ".join(str(port) for port in ports if port not in known)
    unseen = f"{way.address} does not answer on {silent}; a rule of others may drop what comes"
    return combined([*known.values(), Verdict(unseen=unseen)])


def _elsewhere(way: Way, port: int) -> Verdict:
    """Return the verdict on a SYN rewritten before tracking: its answers are not changed back."""
    to = End(way.address, port)
    return Verdict(f"inbound probe: connections to {way.address} are taken past the proxy, to {to}")


async def _judge(
    sender: _Sender, ports: Sequence[int], connections: Connections, expected: int
) -> dict[int, Verdict]:
    """Return the verdicts on those of these ports that are known by now."""
    flows = {port: sender.flow(port) for port in ports}
    answerers = {port: connections.answerer(flow) for port, flow in flows.items()}
    for port, flow in flows.items():
        if answerers[port] is None and sender.answers.get(port, 0) & _SYN:
            # This reads all tracked connections, of which there may be a million.
            found = await asyncio.to_thread(connections.answerers_from, flow)
            answerers[port] = next(iter(found), None)
    asked = {port: (flows[port].destination, answerers[port]) for port in ports}
    found = {
        port: judged(*ends, sender.answers.get(port, 0), expected) for port, ends in asked.items()
    }
    return {port: verdict for port, verdict in found.items() if verdict}


def judged(asked: End, answerer: End | None, answer: int, expected: int) -> Verdict | None:
    """Return the verdict on one port, or None if nothing is known yet. Pure.

    ``answer`` has the flags of the segment that came back, 0 if none did. A connection that is
    refused at once is not tracked any more, whatever refuses it.
    """
    past = f"inbound probe: connections to {asked} are taken past the proxy"
    if answerer and answerer.port == expected:
        return Verdict()
    if answerer:
        return Verdict(f"{past}, to {answerer}")
    if answer & _SYN:
        return Verdict(f"{past}, untracked")
    if answer & _RST:
        if expected == REFUSING_PORT:
            return Verdict()
        return Verdict(unseen=f"{asked} refuses connections: no proxy listens, or a rule refuses")
    return None


def _bind(reserved: socket.socket, source: str) -> int:
    """Bind to a free source port of the inbound probe and return it. Raises OSError."""
    ports = random.sample(INBOUND_PROBE_PORTS, _MOST_BUSY)
    for port in ports[:-1]:
        with contextlib.suppress(OSError):
            reserved.bind((source, port))
            return port
    reserved.bind((source, ports[-1]))
    return ports[-1]


class _Sender:
    """A port of this host from which connections begin that are never established.

    The kernel resets them when an answer comes, since it knows of no such connections.
    """

    def __init__(self, way: Way) -> None:
        self.way = way
        self.answers: dict[int, int] = {}
        """TCP flags by the port that answered."""
        family = _FAMILY[way.version]
        self._opened = contextlib.ExitStack()
        # This keeps other programs from using the port meanwhile.
        reserved = self._opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
        self._raw = self._opened.enter_context(
            socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
        )
        try:
            self.port = _bind(reserved, way.source)
            self._raw.bind((way.source, 0))
            self._raw.connect((way.address, 0))
        except OSError:
            self._opened.close()
            raise

    def __enter__(self) -> _Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def flow(self, port: int) -> Flow:
        """Return the connection that a SYN to a port begins."""
        return Flow(End(self.way.source, self.port), End(self.way.address, port))

    def send(self, port: int) -> None:
        number = random.getrandbits(32)
        fields = (self.port, port, number, 0, _HEADER.size << 2, _SYN, 0xFFFF)
        pseudo = _pseudo_header(self.way)
        summed = checksum(pseudo + _HEADER.pack(*fields, 0, 0))
        for _ in range(2):
            # The error may be of an earlier segment; a segment that is not sent is not answered.
            with contextlib.suppress(OSError):
                self._raw.send(_HEADER.pack(*fields, summed, 0))
                return

    def receive(self) -> None:
        for _ in range(_MOST_SEGMENTS):
            try:
                part = self._raw.recv(_SEGMENT)
            except BlockingIOError:
                return
            except OSError:  # an ICMP message about one of the segments
                continue
            if not part:
                continue
            segment = part[(part[0] & 0xF) * 4 :] if self.way.version == 4 else part
            if len(segment) >= _HEADER.size:
                source, destination, _, _, _, flags, *_ = _HEADER.unpack_from(segment)
                if destination == self.port and flags & (_SYN | _RST):
                    self.answers[source] = flags


def _pseudo_header(way: Way) -> bytes:
    """Return the header for checksums by RFC 9293, 3.1, and RFC 8200, 8.1."""
    family = _FAMILY[way.version]
    ends = socket.inet_pton(family, way.source) + socket.inet_pton(family, way.address)
    layout = ">xBH" if way.version == 4 else ">I3xB"
    rest = (socket.IPPROTO_TCP, _HEADER.size)
    return ends + struct.pack(layout, *(rest if way.version == 4 else reversed(rest)))


def checksum(data: bytes) -> int:
    """Return the checksum by RFC 1071 of an even number of bytes. Pure."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
