"""Reads the chains and rules of nf_tables in this namespace, whichever program made them.

The numbers come from ``linux/netfilter/nf_tables.h``.
"""

from __future__ import annotations

import dataclasses
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from meshd.capture.rules import nfnetlink

_GETCHAIN: Final = 4
_GETRULE: Final = 7
_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_DROP: Final = 0
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 2, 3, 4
_ELEMENT: Final = 1
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2

FAMILIES: Final = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
Attributes = Mapping[int, bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Hook:
    """The hook at which packets enter a base chain."""

    number: int
    priority: int


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    family: str
    table: str
    name: str
    hook: Hook | None = None
    drops: bool = False
    """Whether a base chain drops the packets that no rule has decided."""


@dataclasses.dataclass(frozen=True, slots=True)
class Expression:
    """One step of a rule: a match or an action."""

    name: str
    attributes: Attributes

    def number(self, attribute: int) -> int | None:
        value = self.attributes.get(attribute)
        return None if value is None else int.from_bytes(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    family: str
    table: str
    chain: str
    handle: int
    expressions: tuple[Expression, ...]


def chains() -> tuple[Chain, ...]:
    """Return all chains. Raises SystemRefusedError."""
    return tuple(_chain(family, found) for family, found in nfnetlink.dump(_GETCHAIN))


def rules() -> tuple[Rule, ...]:
    """Return all rules. Raises SystemRefusedError."""
    return tuple(_rule(family, found) for family, found in nfnetlink.dump(_GETRULE))


def texts_of(rules: Sequence[Rule]) -> Iterator[str]:
    """Yield each rule as ``nft`` shows it, else its handle. Each chain is listed only once."""
    listed: dict[tuple[str, str, str], dict[str, str]] = {}
    for rule in rules:
        chain = rule.family, rule.table, rule.chain
        if chain not in listed:
            listed[chain] = dict(_by_handle(*chain))
        yield listed[chain].get(str(rule.handle)) or f"the rule with handle {rule.handle}"


def _by_handle(*chain: str) -> Iterator[tuple[str, str]]:
    if not shutil.which("nft"):
        return
    command = ("nft", "-a", "list", "chain", *chain)
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for line in text.splitlines():
        shown, found, handle = line.rpartition("# handle ")
        if found:
            yield handle, shown.strip()


def nested(value: bytes) -> dict[int, bytes]:
    return dict(nfnetlink.attributes(value))


def _chain(family: int, found: Attributes) -> Chain:
    hook = None
    if _CHAIN_HOOK in found:
        where = nested(found[_CHAIN_HOOK])
        (priority,) = struct.unpack(">i", where.get(_HOOK_PRIORITY, b"\0\0\0\0"))
        hook = Hook(int.from_bytes(where.get(_HOOK_NUMBER, b"")), priority)
    policy = found.get(_CHAIN_POLICY)
    drops = policy is not None and int.from_bytes(policy) == _DROP
    return Chain(_family(family), _text(found, _TABLE), _text(found, _CHAIN_NAME), hook, drops)


def _rule(family: int, found: Attributes) -> Rule:
    return Rule(
        family=_family(family),
        table=_text(found, _TABLE),
        chain=_text(found, _RULE_CHAIN),
        handle=int.from_bytes(found.get(_RULE_HANDLE, b"")),
        expressions=tuple(_expressions(found.get(_RULE_EXPRESSIONS, b""))),
    )


def _expressions(listed: bytes) -> Iterator[Expression]:
    for kind, value in nfnetlink.attributes(listed):
        if kind == _ELEMENT:
            found = nested(value)
            data = nested(found.get(_EXPRESSION_DATA, b""))
            yield Expression(_text(found, _EXPRESSION_NAME), data)


def _family(number: int) -> str:
    return FAMILIES.get(number, str(number))


def _text(found: Attributes, kind: int) -> str:
    return found.get(kind, b"").partition(b"\0")[0].decode("utf-8", "replace")
