"""Finds rules of other programs that use marks of packets or connections. Pure.

Where there are any, the marks of accepted sockets are left alone: with the mark of their SYN, which
such a rule may have set, replies could be routed or dropped as nobody intended (TPROXY is such).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from meshd.capture.rules.delta import PREFIX, Tables
from meshd.capture.rules.nftables import Expression, Rule

_IN_TEXT: Final = re.compile(r"-m (?:conn)?mark |-[jg] (?:CONN)?MARK |-j (?:TPROXY|HMARK)|-skmark")
_MARK_KEY: Final = {"meta": (2, 3), "ct": (2, 3), "socket": (1, 1)}
"""Expression → the attribute that has its key, and the key of marks: linux/netfilter/nf_tables.h,
NFT_META_MARK, NFT_CT_MARK, NFT_SOCKET_MARK."""


def first(tables: Iterable[Tables], rules: Sequence[Rule]) -> str:
    """Return the first such rule in tables of iptables or ``rules`` of nf_tables; empty: none."""
    for chains in tables:
        for table, by_name in chains.items():
            for name, chain in by_name.items():
                for rule in () if name.startswith(PREFIX) else chain.rules:
                    if _IN_TEXT.search(rule):
                        return f"table {table}: -A {name} {rule}"
    for rule in rules:
        if not rule.chain.startswith(PREFIX) and any(map(_uses_mark, rule.expressions)):
            return f"a rule in table {rule.family} {rule.table}, chain {rule.chain}"
    return ""


def _uses_mark(one: Expression) -> bool:
    if one.name == "tproxy":
        return True
    attribute, key = _MARK_KEY.get(one.name, (0, -1))
    return one.number(attribute) == key
