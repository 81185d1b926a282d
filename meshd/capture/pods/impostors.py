"""Drops answers of others than the proxies at the ports that take a service's traffic. Pure.

Any user of the host may listen there while no proxy does, and nobody would notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from meshd.capture.host.host_service import HostWorkload
from meshd.capture.rules.rule import Extension, Option, Rule
from meshd.capture.rules.rules import DROP


def answers(
    workloads: Sequence[HostWorkload], note: Callable[[HostWorkload], Extension]
) -> Iterator[Rule]:
    """Yield rules; ``note`` returns the comment of a service's rule."""
    for one in workloads:
        if not one.proxy_user:
            continue
        others = Extension(
            "owner",
            (
                Option("socket-exists", ()),  # cookies of a flood of SYNs have none
                Option("uid-owner", (str(one.proxy_user),), inverted=True),
            ),
        )
        accepts = Option("tcp-flags", ("SYN,ACK", "SYN,ACK"))
        for port in (one.outbound_port, one.inbound_port):
            begins = Extension("tcp", (Option("sport", (str(port),)), accepts))
            yield Rule(protocol="tcp", matches=(begins, others, note(one)), target=DROP)
        if one.options.dns:
            answer = Extension("udp", (Option("sport", (str(one.outbound_port),)),))
            yield Rule(protocol="udp", matches=(answer, others, note(one)), target=DROP)
