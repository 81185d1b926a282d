"""Makes remarks about rules of nf_tables itself, such as firewalld's, that the mesh affects. Pure.

``firewall`` does the same for rules of iptables.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from meshd.base.printable import printable
from meshd.model.interception import HOST_PORTS

_PORTS: Final = re.compile(r"\b(?:tcp|th) dport (?P<listed>\{[^}]*\}|[\w-]+)(?P<rest>.*)")
_NAMED: Final = re.compile(r"\b(?:tcp|th) dport (?:vmap )?@\w+")
_REFUSES: Final = re.compile(r"\b(?:drop|reject)\b")
_VERDICTS: Final = re.compile(r"\b(?:tcp|th) dport vmap \{(?P<listed>[^}]*)\}")
_OWNER: Final = re.compile(r"\b(?:meta )?sk[ug]id\b|\bsocket cgroupv2\b|\bmeta cgroup\b")
_ALL: Final = re.compile(r"(?:counter(?: packets \d+ bytes \d+)? )?(?:drop|reject\b.*)")
"""Matches a rule that drops or rejects every packet that reaches it."""
_INPUT: Final = "input"
_NAMES: Final = {"http": 80, "https": 443, "ssh": 22, "domain": 53}
"""Ports by name; nft shows numbers unless its options ask for names."""


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """One chain, and its rules as ``nft`` shows them."""

    name: str
    """The name with its family and table."""
    rules: tuple[str, ...]
    hook: str = ""
    """The hook of a base chain; empty for other chains."""
    drops: bool = False
    """Whether a base chain drops the packets that no rule has decided."""


def remarks(chains: Iterable[Chain], ports: Collection[int]) -> list[str]:
    """Return a line for each remark; ``ports`` are those that the service declares."""
    found: dict[str, None] = {}
    for chain in chains:
        for rule in chain.rules:
            found |= dict.fromkeys(_of_rule(chain, rule, ports))
        if ports and _is_closed(chain):
            found[
                f"chain {printable(chain.name)} lets in what it knows only: what is sent to a "
                "declared port arrives at a port of the proxy, so let that in by where it was sent "
                f"to: ct original proto-dst {min(ports)} accept (firewalld, which cannot say that: "
                f"firewall-cmd --add-port={HOST_PORTS[0]}-{HOST_PORTS[-1]}/tcp, where nobody but "
                "the proxies answers)"
            ] = None
    return list(found)


def _is_closed(chain: Chain) -> bool:
    return chain.hook == _INPUT and (
        chain.drops or any(_ALL.fullmatch(rule.strip()) for rule in chain.rules)
    )


def _of_rule(chain: Chain, rule: str, ports: Collection[int]) -> Iterator[str]:
    shown = f"firewall rule {printable(f'{chain.name}: {rule}')}"
    if hit := sorted(_refused(rule) & set(ports)):
        yield (
            f"{shown}: it does not keep callers from port {hit[0]} that the proxy serves; say by "
            "policies of the mesh who may reach it"
        )
    elif ports and _NAMED.search(rule) and (_REFUSES.search(rule) or "vmap" in rule):
        yield (
            f"{shown}: if its set has a declared port, it does not keep callers from it that the "
            "proxy serves; say by policies of the mesh who may reach it"
        )
    if _OWNER.search(rule):
        yield (
            f"{shown}: of an enrolled service it sees the connections to the proxy, not where they "
            "lead; say by policies of the mesh whom it may reach"
        )


def _refused(rule: str) -> set[int]:
    """Return the ports that a rule drops or rejects."""
    refused: set[int] = set()
    for found in _VERDICTS.finditer(rule):
        for part in found["listed"].split(","):
            listed, _, verdict = part.rpartition(":")
            if _REFUSES.search(verdict):
                refused |= _numbers(listed)
    for found in _PORTS.finditer(rule):
        if found["listed"] != "vmap" and _REFUSES.search(found["rest"]):
            refused |= _numbers(found["listed"])
    return refused


def _numbers(listed: str) -> set[int]:
    numbers: set[int] = set()
    for part in listed.strip("{} ").split(","):
        first, _, last = part.strip().partition("-")
        begin, end = _number(first), _number(last or first)
        if begin and end:
            numbers |= set(range(begin, end + 1))
    return numbers


def _number(text: str) -> int:
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 6:
        return int(text)
    return _NAMES.get(text, 0)
