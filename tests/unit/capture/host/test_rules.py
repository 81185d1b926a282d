from __future__ import annotations

import dataclasses
import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.capture.host.rules import (
    HostWorkload,
    desired_host_rules,
    held_workloads,
    host_changes,
    is_captured_here,
    workload_in,
)
from meshd.capture.rules.delta import Change, Tables, apply_changes, parse_save
from meshd.capture.rules.never_captured import METADATA_ADDRESSES
from meshd.capture.rules.options import CaptureOptions, parse_network
from meshd.capture.rules.rule import Family
from meshd.capture.rules.rules import HOLD_IN_CHAIN, HOLD_OUT_CHAIN

WEB = HostWorkload(
    uid="mesh.web",
    cgroup="s.slice/s-web.slice",
    cgroup_id=7,
    outbound_port=15101,
    inbound_port=15102,
    ports=(80,),
    options=CaptureOptions(),
    proxy_user=991,
)
SHOP = dataclasses.replace(
    WEB,
    uid="mesh.shop",
    cgroup="s.slice/s-shop.slice",
    cgroup_id=9,
    outbound_port=15103,
    inbound_port=15104,
    ports=(8080, 8443),
)
WEB_CGROUP = '-m cgroup --path "s.slice/s-web.slice" -m comment --comment "mesh.web@7"'
NO_PROXY = "-m owner --socket-exists ! --uid-owner 991"
FOR_WEB = '-m comment --comment "mesh.web@7"'

RULES = {
    "raw": {
        "MESHD_OUTPUT": f"""
            -p tcp -m tcp --sport 15101 --tcp-flags SYN,ACK SYN,ACK {NO_PROXY} {FOR_WEB} -j DROP
            -p tcp -m tcp --sport 15102 --tcp-flags SYN,ACK SYN,ACK {NO_PROXY} {FOR_WEB} -j DROP
            -p udp -m udp --sport 15101 {NO_PROXY} {FOR_WEB} -j DROP
            -o lo -p tcp -m tcp --dport 80 -m mark --mark 0x53a/0xfff {FOR_WEB} -j CT --zone-orig 2
            -p udp -m udp --dport 53 {WEB_CGROUP} -j CT --zone-orig 1
            -p tcp {WEB_CGROUP} -j CT
            -p udp -m udp --dport 53 {WEB_CGROUP} -j CT""",
        "MESHD_PREROUTING": f"""
            -p tcp -m tcp --dport 80 {FOR_WEB} -j CT""",
    },
    "mangle": {
        "MESHD_PREROUTING": f"""
            -i lo -p tcp -m tcp --dport 80 -m mark --mark 0x53a/0xfff {FOR_WEB}
              -j CONNMARK --set-xmark 0x111/0xfff""",
        "MESHD_OUTPUT": f"""
            -p tcp -m tcp --sport 80 -m connmark --mark 0x111/0xfff {FOR_WEB}
              -j CONNMARK --restore-mark --nfmask 0xfff --ctmask 0xfff""",
    },
    "nat": {
        "MESHD_PREROUTING": f"""
            ! -i lo -p tcp -m tcp --dport 80 -m addrtype --dst-type LOCAL {FOR_WEB}
              -j REDIRECT --to-ports 15102""",
        "MESHD_OUTPUT": f"""
            -o lo -p tcp -m tcp --dport 80 -m mark --mark 0x539/0xfff {FOR_WEB}
              -j REDIRECT --to-ports 15102
            -m mark --mark 0x538/0xffc -j RETURN
            -p udp -m udp --dport 53 {WEB_CGROUP} -j REDIRECT --to-ports 15101
            -p tcp -m tcp --dport 53 {WEB_CGROUP} -j REDIRECT --to-ports 15101
            -o lo -p tcp -m tcp --dport 80 {WEB_CGROUP} -j RETURN
            -o lo -p tcp -m multiport --dports 80 {WEB_CGROUP} -j REDIRECT --to-ports 15101
            -o lo -p tcp -m tcp --dport 80 {FOR_WEB} -j REDIRECT --to-ports 15102
            -o lo -j RETURN
            -d 169.254.169.254/32 -j RETURN
            -p tcp -m multiport --dports 22,15012,15014,15020,15021 -j RETURN
            -p tcp {WEB_CGROUP} -j REDIRECT --to-ports 15101""",
    },
}


@pytest.mark.parametrize(
    ("table", "chain"), [(table, chain) for table, chains in RULES.items() for chain in chains]
)
def test_the_rules_of_one_service(table: str, chain: str) -> None:
    text = re.sub(r"\n +(?=-j)", " ", RULES[table][chain])
    expected = [line.strip() for line in text.strip().splitlines()]
    desired = desired_host_rules([WEB], Family.IPV4)
    assert [str(rule) for rule in desired[table][chain]] == expected


def test_new_connections_above_the_share_of_a_service_wait() -> None:
    limited = dataclasses.replace(WEB, options=CaptureOptions(connection_rate=100))
    new = "--tcp-flags FIN,SYN,RST,ACK SYN " + FOR_WEB
    rules = desired_host_rules([limited, SHOP], Family.IPV4)["mangle"]["MESHD_INPUT"]
    assert [str(rule) for rule in rules] == [
        f"-p tcp -m tcp --dport 15101 {new} -m conntrack --ctorigdst 169.254.7.126"
        " -m limit --limit 50/sec --limit-burst 100 -j RETURN",
        f"-p tcp -m tcp --dport 15101 {new} -m limit --limit 100/sec --limit-burst 200 -j RETURN",
        f"-p tcp -m tcp --dport 15101 {new} -j NFLOG --nflog-group 15101",
        f"-p tcp -m tcp --dport 15101 {new} -j DROP",
        f"-p tcp -m tcp --sport 61000:61999 --dport 15102 {new}"
        " -m limit --limit 50/sec --limit-burst 100 -j RETURN",
        f"-p tcp -m tcp --dport 15102 {new} -m limit --limit 200/sec --limit-burst 400 -j RETURN",
        f"-p tcp -m tcp --dport 15102 {new} -j NFLOG --nflog-group 15102",
        f"-p tcp -m tcp --dport 15102 {new} -j DROP",
    ]


def test_there_is_nothing_without_services() -> None:
    for family in Family:
        assert desired_host_rules([], family) == {}


def test_ipv6_that_is_not_captured_goes_to_a_port_where_nobody_listens() -> None:
    without = dataclasses.replace(WEB, options=CaptureOptions(ipv6=False))
    lines = all_lines([without, SHOP], Family.IPV6)
    assert {workload_in(line) for line in lines} == {"", "mesh.web", "mesh.shop"}
    assert "169.254" not in "\n".join(lines)
    for line in lines:
        if "REDIRECT" in line:
            assert ("15054" in line) is (workload_in(line) == "mesh.web")


def test_a_service_that_does_not_run_is_still_protected() -> None:
    """Its cgroup is not there to be named, but its ports are."""
    stopped = dataclasses.replace(WEB, cgroup_id=0)
    lines = all_lines([stopped], Family.IPV4)
    assert not any("cgroup" in line for line in lines)
    assert any("--to-ports 15102" in line and "LOCAL" in line for line in lines)


def test_wishes_are_of_the_one_that_has_them() -> None:
    options = CaptureOptions(
        dns=False,
        exclude_outbound=(parse_network("10.0.0.0/8"), parse_network("fd00::/8")),
        exclude_outbound_ports=(5432,),
        exclude_interfaces=("eth1",),
        include_outbound=(parse_network("198.18.0.0/15"),),
        include_outbound_ports=(443,),
    )
    web = dataclasses.replace(WEB, options=options)
    shown = [str(rule) for rule in desired_host_rules([web], Family.IPV4)["nat"]["MESHD_OUTPUT"]]
    assert shown[-5:] == [
        f"-o eth1 {WEB_CGROUP} -j RETURN",
        f"-d 10.0.0.0/8 {WEB_CGROUP} -j RETURN",
        f"-p tcp -m tcp --dport 5432 {WEB_CGROUP} -j RETURN",
        f"-p tcp -m tcp --dport 443 {WEB_CGROUP} -j REDIRECT --to-ports 15101",
        f"-d 198.18.0.0/15 -p tcp {WEB_CGROUP} -j REDIRECT --to-ports 15101",
    ]
    assert not any("udp" in line for line in all_lines([web], Family.IPV4))


# ---- any number of services


def _options() -> st.SearchStrategy[CaptureOptions]:
    return st.builds(
        CaptureOptions,
        dns=st.booleans(),
        ipv6=st.booleans(),
        exclude_outbound_ports=st.lists(st.integers(1, 65535), max_size=2).map(tuple),
    )


@st.composite
def hosts(draw: st.DrawFn) -> list[HostWorkload]:
    count = draw(st.integers(1, 6))
    declared = draw(st.lists(st.integers(1024, 15000), unique=True, max_size=20))
    return [
        HostWorkload(
            uid=f"ns.w{index}",
            cgroup=f"s.slice/w{index}",
            cgroup_id=draw(st.integers(0, 3)),
            outbound_port=15101 + 2 * index,
            inbound_port=15102 + 2 * index,
            ports=tuple(sorted(declared[index::count])),
            options=draw(_options()),
            held=draw(st.booleans()),
        )
        for index in range(count)
    ]


def all_lines(workloads: list[HostWorkload], family: Family) -> list[str]:
    desired = desired_host_rules(workloads, family)
    return [str(rule) for chains in desired.values() for rules in chains.values() for rule in rules]


def own_lines(workloads: list[HostWorkload], family: Family, uid: str) -> list[str]:
    """Those of one service, but for the way to the others, which names all ports."""
    return [
        line
        for line in all_lines(workloads, family)
        if workload_in(line) == uid and "multiport" not in line
    ]


def written(changes: tuple[Change, ...], tables: Tables) -> Tables:
    return apply_changes(changes, tables)


@given(hosts(), st.sampled_from(Family), st.data())
def test_the_rules_of_one_do_not_depend_on_the_others(
    workloads: list[HostWorkload], family: Family, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(workloads))
    left = [one for one in workloads if one is not gone]
    for one in left:
        assert own_lines(left, family, one.uid) == own_lines(workloads, family, one.uid)
    assert not any(workload_in(line) == gone.uid for line in all_lines(left, family))


@given(hosts(), st.sampled_from(Family))
def test_every_rule_that_acts_names_a_cgroup_a_declared_port_or_a_mark(
    workloads: list[HostWorkload], family: Family
) -> None:
    """So that it is about nobody else of the host."""
    declared = {str(port) for one in workloads for port in one.ports}
    for line in all_lines(workloads, family):
        if line.endswith("-j RETURN"):
            continue
        ports = set(re.findall(r"--[ds]port (\d+)", line))
        assert "--path" in line or "--mark" in line or ports & declared, line
        assert workload_in(line), line


@given(hosts(), hosts(), st.sampled_from(Family), st.booleans())
def test_a_second_comparison_after_writing_finds_no_changes(
    before: list[HostWorkload], after: list[HostWorkload], family: Family, mark: bool
) -> None:
    there: Tables = {}
    for workloads in (before, after, []):
        changes = host_changes(there, workloads, family, mark_new_tables=mark)
        there = written(changes, there)
        ours = {
            (table, name): chain.rules
            for table, chains in there.items()
            for name, chain in chains.items()
            if name.startswith("MESHD_") and name != "MESHD_NEW_TABLE"
        }
        assert ours == {
            (table, name): tuple(map(str, rules))
            for table, chains in desired_host_rules(workloads, family).items()
            for name, rules in chains.items()
        }
        assert not host_changes(there, workloads, family, mark_new_tables=mark)
    assert not any(chain.rules for chains in there.values() for chain in chains.values())


@given(hosts(), hosts(), st.sampled_from(Family))
def test_a_held_workload_stays_held_until_all_other_rules_are_written(
    before: list[HostWorkload], after: list[HostWorkload], family: Family
) -> None:
    there = written(host_changes({}, before, family, mark_new_tables=False), {})
    held = held_workloads(there)
    changes = host_changes(there, after, family, mark_new_tables=False)
    rest = [i for i, c in enumerate(changes) if c.chain not in {HOLD_IN_CHAIN, HOLD_OUT_CHAIN}]
    wanted = {one.uid for one in after if one.uid in held and _can_be_held(one)}
    for index in rest:
        assert wanted <= held_workloads(written(changes[: index + 1], there))
    still = {one.uid for one in after if one.held and _can_be_held(one)}
    assert held_workloads(written(changes, there)) == still


def _can_be_held(one: HostWorkload) -> bool:
    return bool(one.cgroup_id or one.ports)


@given(hosts(), st.sampled_from(Family))
def test_a_service_knows_whether_it_is_captured(
    workloads: list[HostWorkload], family: Family
) -> None:
    there = written(host_changes({}, workloads, family, mark_new_tables=False), {})
    for one in workloads:
        again = dataclasses.replace(one, held=False)
        running = family is Family.IPV4 or one.options.ipv6
        if one.cgroup_id and running:
            assert is_captured_here(there, again, family) == (not one.held)
            renewed = dataclasses.replace(again, cgroup_id=99)
            assert not is_captured_here(there, renewed, family)


@given(hosts())
def test_the_metadata_service_is_never_taken_away(workloads: list[HostWorkload]) -> None:
    """No rule that redirects or drops what goes out comes before the one that lets it pass, but
    for queries: clouds have a resolver at that address."""
    target = ipaddress.ip_network(METADATA_ADDRESSES[Family.IPV4])
    desired = desired_host_rules(workloads, Family.IPV4)
    for table, chain in (("nat", "MESHD_OUTPUT"), ("raw", HOLD_OUT_CHAIN)):
        for rule in desired.get(table, {}).get(chain, ()):
            if rule.destination == str(target):
                break
            passes = rule.target.name == "RETURN" or rule.out_interface == "lo"
            assert passes or "--dport 53 " in str(rule)
        else:
            assert not desired.get(table, {}).get(chain)


def test_output_of_iptables_save_is_understood() -> None:
    text = "*raw\n:MESHD_HOLD_IN - [0:0]\n-A MESHD_HOLD_IN -p tcp " + FOR_WEB + " -j DROP\nCOMMIT\n"
    assert held_workloads(parse_save(text)) == {"mesh.web"}
