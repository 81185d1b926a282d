from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules.delta import (
    Action,
    Chain,
    Tables,
    apply_changes,
    changes_to,
    emptied_tables,
    guarded,
    is_captured,
    parse_save,
)
from meshd.capture.rules.options import CaptureOptions
from meshd.capture.rules.rule import Family
from meshd.capture.rules.rules import (
    GUARD_CHAIN,
    JUMPS,
    NEW_TABLE_CHAIN,
    Ruleset,
    desired_rules,
    guard_rules,
    jump_to,
)
from meshd.capture.rules.tables import restore_text

FOREIGN_RULES = (
    "-p tcp -j ACCEPT",
    "-p udp -m udp --dport 9 -j DROP",
    "-j THEIRS",
    "-i lo -p tcp -j MESHD_OUTPUT_BUT_NOT_OURS",
)
OWN_RULES = ("-p tcp -j RETURN", "-p tcp -j REDIRECT --to-ports 15001")
OWN_CHAINS = (*JUMPS, NEW_TABLE_CHAIN, "MESHD_OF_ANOTHER_VERSION")

options = st.builds(
    CaptureOptions,
    dns=st.booleans(),
    ipv6=st.just(True),
    exclude_outbound_ports=st.lists(st.integers(1, 5), max_size=3, unique=True).map(tuple),
    exclude_inbound_ports=st.lists(st.integers(1, 5), max_size=3, unique=True).map(tuple),
)
desired = st.one_of(st.just({}), options.map(lambda o: desired_rules(o, Family.IPV4)))


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    """Whatever we, another version of us, an interrupted run and others may have left."""
    return {
        name: draw(table())
        for name in draw(st.sets(st.sampled_from(("raw", "mangle", "nat", "filter"))))
    }


@st.composite
def table(draw: st.DrawFn) -> Mapping[str, Chain]:
    own = draw(st.sets(st.sampled_from(OWN_CHAINS)))
    jumps = [str(jump_to(chain)) for chain in own]
    in_foreign = st.lists(st.sampled_from((*FOREIGN_RULES, *jumps)), max_size=6).map(tuple)
    chains = {name: Chain("ACCEPT", draw(in_foreign)) for name in ("PREROUTING", "OUTPUT")}
    chains["THEIRS"] = Chain("-", draw(in_foreign))
    for name in own:
        rules = st.lists(st.sampled_from(OWN_RULES), max_size=2).map(tuple)
        chains[name] = Chain("-", draw(rules))
    return chains


def without_ours(there: Tables) -> dict[str, dict[str, Chain]]:
    """What is left when our chains, and the plain jumps to them, are overlooked."""
    ours = {str(jump_to(chain)) for chain in OWN_CHAINS}
    return {
        name: {
            chain: Chain(content.policy, tuple(r for r in content.rules if r not in ours))
            for chain, content in chains.items()
            if chain not in OWN_CHAINS
        }
        for name, chains in there.items()
    }


def own_rules(there: Tables) -> dict[tuple[str, str], tuple[str, ...]]:
    return {
        (name, chain): content.rules
        for name, chains in there.items()
        for chain, content in chains.items()
        if chain in OWN_CHAINS and chain != NEW_TABLE_CHAIN
    }


def wanted_rules(wanted: Ruleset) -> dict[tuple[str, str], tuple[str, ...]]:
    return {
        (name, chain): tuple(map(str, rules))
        for name, chains in wanted.items()
        for chain, rules in chains.items()
    }


@given(tables(), desired)
def test_the_changes_lead_to_what_is_wanted(there: Tables, wanted: Ruleset) -> None:
    after = apply_changes(changes_to(there, wanted, mark_new_tables=True), there)
    assert own_rules(after) == wanted_rules(wanted)
    for (name, chain), _ in own_rules(after).items():
        for builtin in JUMPS[chain]:
            assert after[name][builtin].rules.count(str(jump_to(chain))) == 1


@given(tables(), desired)
def test_tables_that_are_as_wanted_are_not_changed_again(there: Tables, wanted: Ruleset) -> None:
    after = apply_changes(changes_to(there, wanted, mark_new_tables=True), there)
    assert changes_to(after, wanted, mark_new_tables=True) == ()


@given(tables(), desired, options)
def test_rules_of_others_keep_their_place(
    there: Tables, wanted: Ruleset, guard_options: CaptureOptions
) -> None:
    changes = changes_to(there, wanted, mark_new_tables=True)
    for some in (changes, guarded(changes, there, guard_rules(guard_options))):
        after = without_ours(apply_changes(some, there))
        assert {name: chains for name, chains in after.items() if name in there} == without_ours(
            there
        )


@given(tables(), options, options)
def test_the_guard_is_up_before_the_first_change_and_down_after_the_last(
    there: Tables, now: CaptureOptions, guard_options: CaptureOptions
) -> None:
    wanted = desired_rules(now, Family.IPV4)
    changes = changes_to(there, wanted, mark_new_tables=True)
    some = guarded(changes, there, guard_rules(guard_options))
    rest = [i for i, c in enumerate(some) if (c.table, c.chain) != ("raw", GUARD_CHAIN)]
    if not rest:
        assert some == changes
        return
    during = apply_changes(some[: rest[0]], there)["raw"]
    assert during[GUARD_CHAIN].rules == tuple(map(str, guard_rules(guard_options)))
    assert all(str(jump_to(GUARD_CHAIN)) in during[b].rules for b in ("PREROUTING", "OUTPUT"))
    assert own_rules(apply_changes(some, there)) == wanted_rules(wanted)


@given(tables(), desired, st.data())
def test_an_interrupted_run_is_completed_by_the_next(
    there: Tables, wanted: Ruleset, data: st.DataObject
) -> None:
    changes = guarded(
        changes_to(there, wanted, mark_new_tables=True), there, guard_rules(CaptureOptions())
    )
    cut = data.draw(st.integers(0, len(changes)))
    left = apply_changes(changes[:cut], there)
    after = apply_changes(changes_to(left, wanted, mark_new_tables=True), left)
    assert own_rules(after) == wanted_rules(wanted)


@given(tables(), desired)
def test_printing_and_reading_tables_gives_the_same(there: Tables, wanted: Ruleset) -> None:
    there = apply_changes(changes_to(there, wanted, mark_new_tables=True), there)
    lines: list[str] = ["# Generated by iptables-save"]
    for name, chains in there.items():
        lines.append(f"*{name}")
        lines += [f":{chain} {content.policy} [0:0]" for chain, content in chains.items()]
        lines += [f"-A {chain} {rule}" for chain, c in chains.items() for rule in c.rules]
        lines.append("COMMIT")
    assert parse_save("\n".join(lines)) == there


def test_only_the_chain_that_differs_is_written() -> None:
    there = apply_changes(
        changes_to({}, desired_rules(CaptureOptions(), Family.IPV4), mark_new_tables=True), {}
    )
    wanted = desired_rules(CaptureOptions(exclude_inbound_ports=(80,)), Family.IPV4)
    changes = changes_to(there, wanted, mark_new_tables=True)
    assert [(c.table, c.action, c.chain) for c in changes] == [
        ("nat", Action.FILL_CHAIN, "MESHD_PREROUTING"),
        ("nat", Action.FILL_CHAIN, "MESHD_OUTPUT"),
    ]


def test_tables_that_we_made_are_known_and_given_up_when_others_use_them() -> None:
    wanted = desired_rules(CaptureOptions(), Family.IPV4)
    theirs = {"nat": {"OUTPUT": Chain("ACCEPT")}}
    there = apply_changes(changes_to(theirs, wanted, mark_new_tables=True), theirs)
    assert is_captured(there)
    after = apply_changes(changes_to(there, {}, mark_new_tables=True), there)
    assert not is_captured(after)
    assert emptied_tables(there, after) == ("raw", "mangle")
    there["raw"]["OUTPUT"] = Chain("ACCEPT", (*there["raw"]["OUTPUT"].rules, "-j ACCEPT"))
    after = apply_changes(changes_to(there, {}, mark_new_tables=True), there)
    assert emptied_tables(there, after) == ("mangle",)


def test_each_table_is_one_batch_and_the_guard_frames_them() -> None:
    there = apply_changes(
        changes_to({}, desired_rules(CaptureOptions(), Family.IPV4), mark_new_tables=True), {}
    )
    wanted = desired_rules(CaptureOptions(dns=False), Family.IPV4)
    changes = guarded(
        changes_to(there, wanted, mark_new_tables=True), there, guard_rules(CaptureOptions())
    )
    text = restore_text(changes)
    assert [line for line in text.splitlines() if line.startswith("*")] == ["*raw", "*nat", "*raw"]
    assert text.count("COMMIT") == 3
    first, _, last = text.split("COMMIT\n")[:3]
    assert "-I OUTPUT 1 -j MESHD_GUARD" in first
    assert "-X MESHD_GUARD" in last


@pytest.mark.parametrize("stranger", ["-p tcp -j ACCEPT", "-j OTHER", "-j KUBE-SERVICES"])
def test_a_jump_behind_somebody_elses_rule_is_put_before_it(stranger: str) -> None:
    wanted = desired_rules(CaptureOptions(), Family.IPV4)
    there = apply_changes(changes_to({}, wanted, mark_new_tables=False), {})
    output = there["nat"]["OUTPUT"]
    there["nat"]["OUTPUT"] = dataclasses.replace(output, rules=(stranger, *output.rules))
    changes = changes_to(there, wanted, mark_new_tables=False)
    assert [change.action for change in changes] == [Action.DROP_JUMP, Action.ADD_JUMP]
    assert stranger in str(changes[-1])
    after = apply_changes(changes, there)
    assert after["nat"]["OUTPUT"].rules == (*output.rules, stranger)
    assert changes_to(after, wanted, mark_new_tables=False) == ()


def test_jumps_of_ours_may_stand_before_one_another() -> None:
    wanted = desired_rules(CaptureOptions(), Family.IPV4)
    there = apply_changes(changes_to({}, wanted, mark_new_tables=False), {})
    guard = apply_changes(
        changes_to(
            there, {**wanted, "raw": {**wanted["raw"], GUARD_CHAIN: ()}}, mark_new_tables=False
        ),
        there,
    )
    both = {**wanted, "raw": {**wanted["raw"], GUARD_CHAIN: ()}}
    assert changes_to(guard, both, mark_new_tables=False) == ()


@pytest.mark.parametrize(
    "text",
    ["*nat\n:A\nCOMMIT", "*nat\n-A A -j B\nCOMMIT", "*nat\n:A -\n-A A\nCOMMIT", "*nat\n:A - [0"],
)
def test_tables_that_are_cut_off_are_not_taken_for_what_is_there(text: str) -> None:
    with pytest.raises(SystemRefusedError, match="iptables-save: table nat"):
        parse_save(text)
