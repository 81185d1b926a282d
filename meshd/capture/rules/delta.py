"""Computes the smallest change from the present to the wanted rules. Pure.

Chains whose names begin with ``MESHD_`` are ours, and so are the jumps to them; nothing else is
ever in a change.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules.rule import Rule
from meshd.capture.rules.rules import GUARD_CHAIN, JUMPS, NEW_TABLE_CHAIN, TABLES, Ruleset, jump_to

PREFIX = "MESHD_"


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """A chain as iptables-save shows it. The policy of a chain that is not built in is ``-``."""

    policy: str = "-"
    rules: tuple[str, ...] = ()


Tables = Mapping[str, Mapping[str, Chain]]
"""What is there: table → chain. Tables that nobody has made are missing."""


class Action(enum.StrEnum):
    ADD_CHAIN = "add chain"
    FILL_CHAIN = "fill chain"
    ADD_JUMP = "add jump"
    DROP_JUMP = "drop jump"
    DROP_CHAIN = "drop chain"


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One step. ``rules``: what FILL_CHAIN fills with. ``builtin``: where a jump stands."""

    table: str
    action: Action
    chain: str
    builtin: str = ""
    rules: tuple[Rule, ...] = ()
    before: str = ""
    """Somebody else's rule that stood before a jump, and took packets away from it."""

    def __str__(self) -> str:
        where = f"{self.builtin} → {self.chain}" if self.builtin else self.chain
        why = f", before {self.builtin} {self.before}" if self.before else ""
        return f"{self.table}: {self.action} {where}{why}"


def parse_save(text: str) -> Tables:
    """Parse the output of iptables-save. Raises SystemRefusedError for a line that it never
    prints."""
    tables: dict[str, dict[str, Chain]] = {}
    for name, table in _sections(text):
        policies: dict[str, str] = {}
        rules: dict[str, list[str]] = {}
        for line in table:
            match line[0], line.split(" ", 2):
                case ":", [chain, policy, *_]:
                    policies[chain[1:]] = policy
                case "-", ["-A", chain, rule] if chain in policies:
                    rules.setdefault(chain, []).append(rule)
                case _:
                    raise SystemRefusedError(f"iptables-save: table {name}: {line[:80]!r}?")
        tables[name] = {
            chain: Chain(policy, tuple(rules.get(chain, ()))) for chain, policy in policies.items()
        }
    return tables


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each table with its lines of chains and rules."""
    name, lines = "", list[str]()
    for line in text.splitlines():
        if line.startswith("*"):
            name, lines = line[1:].strip(), []
        elif line == "COMMIT":
            yield name, lines
            name, lines = "", []
        elif line.startswith((":", "-A ")):
            lines.append(line)
    if lines:
        raise SystemRefusedError(f"iptables-save: table {name} has no end")


def is_captured(tables: Tables) -> bool:
    """Return whether any of our rules exist."""
    return any(chain.startswith(PREFIX) for chains in tables.values() for chain in chains)


def changes_to(tables: Tables, desired: Ruleset, *, mark_new_tables: bool) -> tuple[Change, ...]:
    """Return changes: chains are filled before anything jumps to them, and lose their jumps before
    they go.

    ``mark_new_tables``: leave the note by which ``emptied_tables`` finds what to remove.
    """
    order = TABLES if desired else tuple(reversed(TABLES))
    extra = sorted(set(tables) - set(TABLES))
    return tuple(
        change
        for table in (*order, *extra)
        for change in _table_changes(
            table,
            tables.get(table, {}),
            _with_note(table, tables, desired, mark_new_tables),
        )
    )


def guarded(
    changes: tuple[Change, ...], tables: Tables, guard: tuple[Rule, ...]
) -> tuple[Change, ...]:
    """Return the changes behind a guard that goes up first and comes down last.

    A guard that an interrupted run left up stays up until the end, too.
    """
    return behind(changes, tables, {GUARD_CHAIN: guard}, {})


def behind(
    changes: tuple[Change, ...],
    tables: Tables,
    raised: Mapping[str, tuple[Rule, ...]],
    left: Mapping[str, tuple[Rule, ...]],
) -> tuple[Change, ...]:
    """Return the changes between fillings of raw chains: with what is ``raised`` first, and what is
    ``left`` last."""
    chains = raised.keys() | left.keys()
    rest = tuple(c for c in changes if (c.table, c.chain) not in {("raw", one) for one in chains})
    if not rest:
        return changes
    raw = tables.get("raw", {})
    up = tuple(
        change
        for chain, rules in raised.items()
        for change in _chain_changes("raw", raw, chain, rules)
    )
    high = apply_changes(up, tables).get("raw", {})
    down = tuple(
        change
        for chain in (*left, *(one for one in raised if one not in left))
        for change in (
            _chain_changes("raw", high, chain, left[chain])
            if chain in left
            else _dropped("raw", high, chain)
        )
    )
    return (*up, *rest, *down)


def apply_changes(changes: Iterable[Change], tables: Tables) -> dict[str, dict[str, Chain]]:
    """Return the chains after the changes: the meaning that each writer gives to a change."""
    result = {table: dict(chains) for table, chains in tables.items()}
    for change in changes:
        _apply(change, result.setdefault(change.table, {}))
    return result


def emptied_tables(before: Tables, after: Tables) -> tuple[str, ...]:
    """Return the tables that we made and in which nothing is left."""
    return tuple(
        table
        for table, chains in before.items()
        if NEW_TABLE_CHAIN in chains and table in after and _is_empty(after[table])
    )


def _is_empty(chains: Mapping[str, Chain]) -> bool:
    return all(chain.policy == "ACCEPT" and not chain.rules for chain in chains.values())


def _with_note(
    table: str, tables: Tables, desired: Ruleset, mark_new_tables: bool
) -> Mapping[str, tuple[Rule, ...]]:
    chains = desired.get(table, {})
    noted = NEW_TABLE_CHAIN in tables.get(table, {})
    if chains and (noted or (mark_new_tables and table not in tables)):
        return {NEW_TABLE_CHAIN: (), **chains}
    return chains


def _table_changes(
    table: str, actual: Mapping[str, Chain], desired: Mapping[str, tuple[Rule, ...]]
) -> Iterator[Change]:
    for chain, rules in desired.items():
        yield from _chain_changes(table, actual, chain, rules)
    for chain in actual:
        if chain.startswith(PREFIX) and chain not in desired:
            yield from _dropped(table, actual, chain)


def _chain_changes(
    table: str, actual: Mapping[str, Chain], chain: str, rules: tuple[Rule, ...]
) -> Iterator[Change]:
    if chain not in actual:
        yield Change(table, Action.ADD_CHAIN, chain)
    if actual.get(chain, Chain()).rules != tuple(map(str, rules)):
        yield Change(table, Action.FILL_CHAIN, chain, rules=rules)
    wanted = JUMPS.get(chain, ())
    counts = dict(_jumps(actual, chain))
    strangers = {
        builtin: _stranger_before(actual.get(builtin, Chain()), chain) for builtin in wanted
    }
    # Of several the first would be dropped, and the one that is left stand anywhere.
    kept = {one for one in wanted if counts.get(one) == 1 and not strangers[one]}
    for builtin, count in counts.items():
        if builtin not in kept:
            yield from (Change(table, Action.DROP_JUMP, chain, builtin) for _ in range(count))
    for builtin in wanted:
        if builtin not in kept:
            yield Change(table, Action.ADD_JUMP, chain, builtin, before=strangers[builtin])


def _stranger_before(builtin: Chain, chain: str) -> str:
    """Return the first foreign rule before the jump: we never see what it decides."""
    line = str(jump_to(chain))
    if line not in builtin.rules:
        return ""
    ours = f"-j {PREFIX}"
    before = builtin.rules[: builtin.rules.index(line)]
    return next((rule for rule in before if not rule.startswith(ours)), "")


def _dropped(table: str, actual: Mapping[str, Chain], chain: str) -> tuple[Change, ...]:
    jumps = tuple(
        Change(table, Action.DROP_JUMP, chain, builtin)
        for builtin, count in _jumps(actual, chain)
        for _ in range(count)
    )
    return (*jumps, Change(table, Action.DROP_CHAIN, chain))


def _jumps(actual: Mapping[str, Chain], chain: str) -> Iterator[tuple[str, int]]:
    """Yield the places of plain jumps to our chains, outside our own chains."""
    line = str(jump_to(chain))
    for name, content in actual.items():
        if not name.startswith(PREFIX) and (count := content.rules.count(line)):
            yield name, count


def _apply(change: Change, chains: dict[str, Chain]) -> None:
    match change.action:
        case Action.ADD_CHAIN:
            chains[change.chain] = Chain()
        case Action.FILL_CHAIN:
            chains[change.chain] = Chain("-", tuple(map(str, change.rules)))
        case Action.DROP_CHAIN:
            del chains[change.chain]
        case Action.ADD_JUMP:
            builtin = chains.get(change.builtin, Chain("ACCEPT"))
            rules = (str(jump_to(change.chain)), *builtin.rules)
            chains[change.builtin] = dataclasses.replace(builtin, rules=rules)
        case Action.DROP_JUMP:
            builtin = chains[change.builtin]
            rules = list(builtin.rules)
            rules.remove(str(jump_to(change.chain)))
            chains[change.builtin] = dataclasses.replace(builtin, rules=tuple(rules))
