"""Finds rules of other programs that act on a packet before meshd's and may bypass the mesh. Pure.

Within a chain of iptables, meshd's jumps come first. A base chain of nf_tables has a priority of
its own, and any program can add one with a lower priority at any time: meshd cannot always be
first. So such rules are reported. A rule that only drops packets does not bypass the mesh, and a
rule for neither TCP nor DNS queries does not concern meshd.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from meshd.capture.rules.delta import PREFIX, Tables
from meshd.capture.rules.nftables import Chain, Expression, Rule, nested

_RAW, _MANGLE, _NAT = -300, -150, -100
_OURS: Final = {"raw": _RAW, "mangle": _MANGLE, "nat": _NAT, "filter": 0, "security": 50}
"""The tables of iptables and their priorities; ``delta`` keeps the order within these tables."""
_BUILT_IN: Final = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_INGRESS, _EGRESS = "ingress", "egress"
_PREROUTING, _INPUT, _OUTPUT = "prerouting", "input", "output"
_HOOKS: Final = {
    ("ip", 0): _PREROUTING,
    ("ip6", 0): _PREROUTING,
    ("inet", 0): _PREROUTING,
    ("ip", 3): _OUTPUT,
    ("ip6", 3): _OUTPUT,
    ("inet", 3): _OUTPUT,
    ("ip", 1): _INPUT,
    ("ip6", 1): _INPUT,
    ("inet", 1): _INPUT,
    ("inet", 5): _INGRESS,
    ("netdev", 0): _INGRESS,
    ("netdev", 1): _EGRESS,
}
_ANY: Final = 1 << 31
_LAST: Final[Mapping[str, int]] = {
    "notrack": _RAW,
    "nat": _NAT,
    "redir": _NAT,
    "queue": _NAT,
    "mark": _NAT,
    "payload": _ANY,
    "tproxy": _ANY,
    "fwd": _ANY,
}
"""What a rule does → the highest priority at which that happens before meshd's own rules."""

_META_PROTOCOL: Final = 16
_MARK_KEY: Final = {"meta": 3, "ct": 3}
_TCP, _UDP, _DNS = 6, 17, 53
_MARK_BITS: Final = 0xFFF
"""The bits that mark the proxies' packets; see ``rules``."""
_DREG, _KEY, _META_SREG, _CT_SREG, _PAYLOAD_SREG = 1, 2, 3, 4, 5
_NETWORK, _TRANSPORT = 1, 2
_PROTOCOLS_PLACE: Final = ((_NETWORK, 9, 1), (_NETWORK, 6, 1))
_DPORTS_PLACE: Final = (_TRANSPORT, 2, 2)


def chains_before(chains: Sequence[Chain], rules: Sequence[Rule]) -> Iterator[tuple[Chain, Rule]]:
    """Yield base chains of other programs, each with a reachable rule that may bypass the mesh."""
    by_chain: dict[tuple[str, str, str], list[Rule]] = {}
    for rule in rules:
        by_chain.setdefault((rule.family, rule.table, rule.chain), []).append(rule)
    for chain in chains:
        hook = hook_of(chain)
        if chain.hook is None or not hook or is_of_iptables(chain):
            continue
        for rule in _reached(chain, by_chain):
            if any(chain.hook.priority <= _LAST[one] for one in _effects(rule, hook)):
                yield chain, rule


def hook_of(chain: Chain) -> str:
    return _HOOKS.get((chain.family, chain.hook.number), "") if chain.hook else ""


def is_of_iptables(chain: Chain) -> bool:
    """Return whether the chain is a built-in chain of iptables."""
    priority = chain.hook.priority if chain.hook else None
    return (
        chain.family in ("ip", "ip6")
        and chain.name in _BUILT_IN
        and _OURS.get(chain.table) == priority
    )


def _reached(
    base: Chain, by_chain: Mapping[tuple[str, str, str], Sequence[Rule]]
) -> Iterator[Rule]:
    waiting, seen = [base.name], {base.name}
    while waiting:
        for rule in by_chain.get((base.family, base.table, waiting.pop()), ()):
            yield rule
            targets = set(_jumps(rule))
            if any(_is_verdict_map(one) for one in rule.expressions):
                targets |= {c for f, t, c in by_chain if (f, t) == (base.family, base.table)}
            waiting += sorted(targets - seen)
            seen |= targets


def _jumps(rule: Rule) -> Iterator[str]:
    """Yield the chains to which a rule jumps.

    These are in NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN.
    """
    for one in rule.expressions:
        if one.name == "immediate":
            verdict = nested(nested(one.attributes.get(2, b"")).get(2, b""))
            if name := verdict.get(2, b"").partition(b"\0")[0]:
                yield name.decode("utf-8", "replace")


def _is_verdict_map(one: Expression) -> bool:
    return one.name == "lookup" and one.number(3) == 0


def _effects(rule: Rule, hook: str) -> set[str]:
    if _is_about_others(rule.expressions):
        return set()
    found = {one.name for one in rule.expressions} & {"notrack", "nat", "redir", "queue", "tproxy"}
    if hook == _INGRESS:
        found |= {one.name for one in rule.expressions} & {"fwd"}
    if any(one.name == "payload" and one.number(_PAYLOAD_SREG) for one in rule.expressions):
        found.add("payload")
    if _touches_marks(rule.expressions):
        found.add("mark")
    # After meshd's redirection, only rewriting the packet leads it elsewhere.
    return found & {"payload"} if hook == _INPUT else found


def _is_about_others(expressions: Iterable[Expression]) -> bool:
    """Return whether a rule matches neither TCP nor DNS queries."""
    loaded: dict[int | None, object] = {}
    protocol = port = 0
    for one in expressions:
        if one.name == "meta":
            loaded[one.number(_DREG)] = "protocol" if one.number(_KEY) == _META_PROTOCOL else None
        elif one.name == "payload":
            loaded[one.number(_DREG)] = tuple(one.number(part) for part in (2, 3, 4))
        elif one.name == "cmp" and one.number(2) == 0:
            what = loaded.get(one.number(1))
            value = int.from_bytes(nested(one.attributes.get(3, b"")).get(1, b""))
            if what == "protocol" or what in _PROTOCOLS_PLACE:
                protocol = value
            elif what == _DPORTS_PLACE:
                port = value
    return protocol not in (0, _TCP, _UDP) or (protocol == _UDP and port not in (0, _DNS))


def _touches_marks(expressions: Iterable[Expression]) -> bool:
    """Return whether a rule sets bits of a packet's or connection's mark that meshd uses."""
    kept: dict[int | None, tuple[str, int | None]] = {}
    for one in expressions:
        if one.name in ("meta", "ct"):
            key, into = one.number(_KEY), one.number(_DREG)
            source = one.number(_META_SREG if one.name == "meta" else _CT_SREG)
            if into is not None:
                kept[into] = (one.name, key)
            elif key == _MARK_KEY[one.name] and kept.get(source) != (one.name, key):
                return True
        elif one.name == "bitwise":
            whole = kept.pop(one.number(1), None)
            if whole and _keeps_ours(one):
                kept[one.number(2)] = whole
        elif one.name in ("immediate", "lookup"):
            kept.pop(one.number(3 if one.name == "lookup" else 1), None)
    return False


def _keeps_ours(one: Expression) -> bool:
    """Return whether a bitwise expression keeps meshd's bits of a mark.

    NFTA_BITWISE_MASK and NFTA_BITWISE_XOR are in the byte order of this machine.
    """
    mask, other = (_native(nested(one.attributes.get(part, b"")).get(1)) for part in (4, 5))
    return mask & _MARK_BITS == _MARK_BITS and not other & _MARK_BITS


def _native(value: bytes | None) -> int:
    return int.from_bytes(value or b"", sys.byteorder)


def described(chain: Chain, rule: str) -> str:
    where = f"{hook_of(chain)}, priority {chain.hook.priority}" if chain.hook else ""
    return f"table {chain.family} {chain.table}, chain {chain.name} ({where}): {rule}"


def marks_in(tables: Tables) -> Iterator[str]:
    """Yield rules of other programs that act after meshd's jumps in tables of iptables.

    Such a rule changes bits of a mark that meshd uses, changes the packet itself, or leaves either
    to a program.
    """
    for name in ("raw", "mangle"):
        chains = tables.get(name, {})
        waiting = [one for one in ("PREROUTING", "OUTPUT") if one in chains]
        seen = set(waiting)
        while waiting:
            chain = waiting.pop()
            for rule in chains[chain].rules:
                target = _target(rule)
                if target in chains and not target.startswith(PREFIX) and target not in seen:
                    seen.add(target)
                    waiting.append(target)
                if _changes_marks(rule):
                    yield f"table {name}: -A {chain} {rule}"


def _target(rule: str) -> str:
    found = _TARGET.search(rule)
    return found[1] if found else ""


def _changes_marks(rule: str) -> bool:
    if _target(rule) in _WHATEVER:
        return True
    if _target(rule) not in ("MARK", "CONNMARK"):
        return False
    if found := _SET_MARK.search(rule):
        value, mask = int(found[1], 16), int(found[2] or "0xffffffff", 16)
        return bool((value | mask) & _MARK_BITS)
    for way, mask in (("--restore-mark", _NFMASK), ("--save-mark", _CTMASK)):
        if way in rule:
            found = mask.search(rule)
            return bool(int(found[1], 16) & _MARK_BITS) if found else True
    return False


_WHATEVER: Final = frozenset({"TPROXY", "NFQUEUE", "HMARK", "DNPT"})
_TARGET: Final = re.compile(r"(?:^| )-[jg] (\S+)")
_SET_MARK: Final = re.compile(r"--set-x?mark (0x[0-9a-f]+)(?:/(0x[0-9a-f]+))?")
_NFMASK: Final = re.compile(r"--nfmask (0x[0-9a-f]+)")
_CTMASK: Final = re.compile(r"--ctmask (0x[0-9a-f]+)")
