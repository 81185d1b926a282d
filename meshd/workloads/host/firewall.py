"""Conflicts between the host's packet filter and the mesh. Pure, but for ``saved``.

The filter sees connections to and from the proxy in place of the service's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from meshd.base.printable import printable

_OURS: Final = "MESHD_"
_SAVED: Final = tuple(
    Path(path)
    for path in (
        "/etc/iptables/rules.v4",
        "/etc/iptables/rules.v6",
        "/etc/iptables/iptables.rules",
        "/etc/iptables/ip6tables.rules",
        "/etc/iptables.rules",
        "/etc/sysconfig/iptables",
        "/etc/sysconfig/ip6tables",
    )
)
"""Where distributions restore rules from at boot."""
_LONGEST: Final = 1 << 22
_PORTS: Final = re.compile(r"--dports? (\S+)")
_OWNER: Final = re.compile(r"--(?:uid|gid)-owner \S+")
_REFUSES: Final = re.compile(r"-j (DROP|REJECT)\b")
_ALL: Final = re.compile(r"(-j (DROP|REJECT)\b.*)")
"""A rule that matches whatever comes to it."""


def remarks(chains: Iterable[tuple[str, str, Iterable[str]]], ports: Collection[int]) -> list[str]:
    """Return a remark for each rule that the mesh affects.

    ``chains``: of the host's tables, each with its name, its policy and its rules as iptables-save
    shows them; ``ports``: those that the service declares.
    """
    found: dict[str, None] = {}
    for name, policy, rules in chains:
        if name.startswith(_OURS):
            continue
        for rule in rules:
            found |= dict.fromkeys(_of_rule(f"{name} {rule}", rule, ports))
        closed = policy == "DROP" or any(_ALL.fullmatch(rule) for rule in rules)
        if name == "INPUT" and closed and ports:
            found[
                "the host's firewall lets in what it knows only: what is sent to a declared port "
                "arrives at a port of the proxy, so let that in by where it was sent to: -m "
                f"conntrack --ctorigdstport {min(ports)}"
            ] = None
    return list(found)


def _of_rule(shown: str, rule: str, ports: Collection[int]) -> Iterator[str]:
    if _REFUSES.search(rule) and (hit := sorted(_ports(rule) & set(ports))):
        yield (
            f"firewall rule {printable(shown)}: it does not keep callers from port {hit[0]} that "
            "the proxy serves; use policies of the mesh instead"
        )
    if _OWNER.search(rule):
        yield (
            f"firewall rule {printable(shown)}: of an enrolled service it sees the connections to "
            "the proxy, not where they lead; use outbound_policy instead"
        )


def _ports(rule: str) -> set[int]:
    found: set[int] = set()
    for listed in _PORTS.findall(rule):
        for part in listed.split(","):
            first, _, last = part.partition(":")
            if first.isdigit() and (not last or last.isdigit()):
                found |= set(range(int(first), int(last or first) + 1))
    return found


def saved(paths: Iterable[Path] = _SAVED) -> tuple[str, ...]:
    """Say of each file of saved rules that has ours that it cannot always be restored."""
    lines: list[str] = []
    for path in paths:
        with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
            if _OURS in file.read(_LONGEST):
                lines.append(
                    f"{path} has rules of meshd, and iptables-restore refuses all of it when the "
                    "service that one names is gone: save without them: iptables-save | grep -v "
                    f"{_OURS} >{path} (ip6tables-save for IPv6)"
                )
    return tuple(lines)
