"""The writer of the legacy tables: the only place that knows python-iptables.

Lives in a short-lived child only (see ``tables``). A commit replaces the whole table at once, and
fails with EAGAIN when somebody else replaced it in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import iptc

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules import xtables_lock
from meshd.capture.rules.delta import Action, Change
from meshd.capture.rules.rule import Extension, Family, Rule
from meshd.capture.rules.rules import TABLES, jump_to

_RETRIES: Final = 5

_TABLE: Final[dict[Family, type[iptc.Table]]] = {Family.IPV4: iptc.Table, Family.IPV6: iptc.Table6}
_RULE: Final[dict[Family, type[iptc.Rule]]] = {Family.IPV4: iptc.Rule, Family.IPV6: iptc.Rule6}

# A rule's construction looks for its target among the chains of every table, and opening a table
# makes it: look in those only that are ours anyway.
for _class in (iptc.Table, iptc.Table6):
    _class.existing_table_names = {name: name in TABLES for name in _class.ALL}


def commit_all(family: Family, batches: Iterable[tuple[str, Sequence[Change]]]) -> None:
    """Commit each batch at once, or not at all. Raises SystemRefusedError."""
    with xtables_lock.held():
        for table, changes in batches:
            _commit_again(family, table, changes)


def _commit_again(family: Family, table: str, changes: Sequence[Change]) -> None:
    for attempt in range(_RETRIES):
        try:
            _commit(family, table, changes)
            return
        except (iptc.IPTCError, iptc.XTablesError) as error:
            if "temporarily unavailable" not in str(error) or attempt == _RETRIES - 1:
                raise SystemRefusedError(f"{family.label}, legacy table {table}: {error}") from None


def _commit(family: Family, name: str, changes: Sequence[Change]) -> None:
    table = _TABLE[family](name, autocommit=False)
    table.autocommit = False
    table.refresh()
    for change in changes:
        _STEP[change.action](family, table, change)
    table.commit()
    table.autocommit = True


def _add_chain(family: Family, table: iptc.Table, change: Change) -> None:
    del family
    table.create_chain(change.chain)


def _fill_chain(family: Family, table: iptc.Table, change: Change) -> None:
    chain = iptc.Chain(table, change.chain)
    chain.flush()
    for rule in change.rules:
        chain.append_rule(rule_of(family, chain, rule))


def _add_jump(family: Family, table: iptc.Table, change: Change) -> None:
    chain = iptc.Chain(table, change.builtin)
    chain.insert_rule(rule_of(family, chain, jump_to(change.chain)), position=0)


def _drop_jump(family: Family, table: iptc.Table, change: Change) -> None:
    chain = iptc.Chain(table, change.builtin)
    chain.delete_rule(rule_of(family, chain, jump_to(change.chain)))


def _drop_chain(family: Family, table: iptc.Table, change: Change) -> None:
    del family
    chain = iptc.Chain(table, change.chain)
    chain.flush()
    table.delete_chain(chain)


_STEP: Final[dict[Action, Callable[[Family, iptc.Table, Change], None]]] = {
    Action.ADD_CHAIN: _add_chain,
    Action.FILL_CHAIN: _fill_chain,
    Action.ADD_JUMP: _add_jump,
    Action.DROP_JUMP: _drop_jump,
    Action.DROP_CHAIN: _drop_chain,
}


def rule_of(family: Family, chain: iptc.Chain, rule: Rule) -> iptc.Rule:
    result = _RULE[family](chain=chain)
    for attribute, value in (
        ("protocol", rule.protocol),
        ("src", rule.source),
        ("dst", rule.destination),
        ("in_interface", rule.in_interface),
        ("out_interface", rule.out_interface),
    ):
        if value:
            setattr(result, attribute, value)
    for match in rule.matches:
        _configure(result.create_match(match.name), match)
    _configure(result.create_target(rule.target.name), rule.target)
    return result


def _configure(module: iptc.Match | iptc.Target, extension: Extension) -> None:
    for option in extension.options:
        first, *rest = option.values or ("",)
        value = ("!" if option.inverted else "") + first
        module.set_parameter(option.name, [value, *rest] if rest else value)
