"""Applying, removing, being interrupted: the tables themselves, with both writers."""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from meshd.base.errors import InvalidInputError, NotReadyError, SystemRefusedError
from meshd.capture.rules import apply, inside
from meshd.capture.rules.delta import Change, changes_to, guarded, is_captured
from meshd.capture.rules.options import CaptureOptions
from meshd.capture.rules.rule import Family, Rule
from meshd.capture.rules.rules import GUARD_CHAIN, desired_rules, guard_rules
from meshd.capture.rules.tables import LegacyTables, NftTables
from meshd.capture.rules.xtables_lock import LOCK
from meshd.model.interception import OUTBOUND_PORT

BACKENDS = {"nft": NftTables, "legacy": LegacyTables}
FOREIGN = """*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:THEIRS - [0:0]
-A OUTPUT -p tcp -m tcp --dport 7001 -j THEIRS
-A OUTPUT -p udp -j ACCEPT
-A THEIRS -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A INPUT -p tcp -m tcp --dport 7002 -j DROP
-A INPUT -i lo -j ACCEPT
COMMIT
"""


def _load_foreign(host: Any, backend: str) -> None:
    path = Path(f"/run/netns/{host.name}.rules")
    try:
        path.write_text(FOREIGN)
        for program in ("iptables", "ip6tables"):
            host.run(f"{program}-{backend}-restore", "--noflush", str(path))
    finally:
        path.unlink()


def _make_tables(host: Any, backend: str) -> None:
    # Legacy tables cannot be taken away again by anybody, so they shall be there before.
    if backend == "legacy":
        for program in ("iptables-legacy", "ip6tables-legacy"):
            for table in ("raw", "mangle", "nat"):
                host.run(program, "-t", table, "-S")


def _routing(host: Any) -> list[str]:
    """Rules, and routes of our table; link-local routes of others come when they like."""
    lines: list[str] = []
    for version in ("-4", "-6"):
        lines += host.run("ip", version, "rule").splitlines()
        routes = host.run("ip", version, "route", "show", "table", "all").splitlines()
        lines += [line for line in routes if "table 15100 " in line]
    return lines


@pytest.mark.parametrize("foreign", [False, True], ids=["empty", "foreign rules"])
def test_removal_leaves_the_tables_byte_for_byte_as_they_were(
    network: Any, backend: str, foreign: bool
) -> None:
    host = network.workload
    _make_tables(host, backend)
    if foreign:
        _load_foreign(host, backend)
    tables, routing = host.save(), _routing(host)
    network.apply(CaptureOptions(backend=backend, connection_rate=100))
    assert host.save() != tables
    assert len(_routing(host)) == len(routing) + 6
    network.apply(CaptureOptions(backend=backend, connection_rate=100, exclude_outbound_ports=(1,)))
    network.inside(apply.remove)
    assert host.save() == tables
    assert _routing(host) == routing


def test_foreign_rules_keep_their_place_and_order(network: Any, backend: str) -> None:
    host = network.workload
    _load_foreign(host, backend)
    before = host.save().splitlines()
    network.apply(CaptureOptions(backend=backend))
    after = host.save().splitlines()
    assert [line for line in after if line in before and line.startswith("-A")] == [
        line for line in before if line.startswith("-A")
    ]


def test_tables_that_only_others_use_stay_when_we_go(network: Any) -> None:
    """Somebody put a rule into a table that we made."""
    host = network.workload
    network.apply(CaptureOptions(backend="nft"))
    host.run("iptables-nft", "-t", "nat", "-A", "OUTPUT", "-p", "udp", "-j", "ACCEPT")
    network.inside(apply.remove)
    assert host.run("iptables-nft", "-t", "nat", "-S", "OUTPUT").splitlines() == [
        "-P OUTPUT ACCEPT",
        "-A OUTPUT -p udp -j ACCEPT",
    ]
    assert "MESHD" not in host.save()


def test_applying_twice_changes_nothing(network: Any, backend: str) -> None:
    options = CaptureOptions(
        backend=backend, exclude_outbound_ports=(22, 5432), exclude_interfaces=("eth1",)
    )
    assert network.apply(options).steps
    written = network.workload.save()
    again = network.apply(options)
    assert again.steps == ()
    assert network.workload.save() == written


def test_what_an_earlier_version_has_put_into_another_routing_table_is_removed(
    network: Any,
) -> None:
    former = ("fwmark", "0x111/0xfff", "lookup", "100", "priority", "0")
    route = ("local", "default", "dev", "lo", "table", "100")
    network.workload.run("ip", "route", "add", *route)
    network.apply(CaptureOptions())
    assert "local default" in network.workload.run("ip", "route", "show", "table", "100")

    network.workload.run("ip", "rule", "add", *former)
    network.workload.run("ip", "rule", "del", "fwmark", "0x111/0xfff", "lookup", "15100")
    network.apply(CaptureOptions())

    assert "lookup 100\n" not in network.workload.run("ip", "rule").replace(" \n", "\n")
    assert "table 100 " not in network.workload.run("ip", "route", "show", "table", "all")


def test_rules_that_others_broke_are_repaired(network: Any, backend: str) -> None:
    options = CaptureOptions(backend=backend)
    network.apply(options)
    written = network.workload.save()
    network.workload.run(f"iptables-{backend}", "-t", "nat", "-F", "OUTPUT")
    network.workload.run(f"ip6tables-{backend}", "-t", "raw", "-F", "MESHD_OUTPUT")
    network.workload.run("ip", "rule", "del", "fwmark", "0x111/0xfff")
    mended = network.apply(options)
    assert network.workload.save() == written
    assert [step.change for step in mended.steps if "GUARD" not in step.change] == [
        "nat: add jump OUTPUT → MESHD_OUTPUT",
        "raw: fill chain MESHD_OUTPUT",
        "add rule fwmark 0x111/0xfff lookup 15100",
    ]


def test_the_kernel_moves_waiting_connections_between_proxies(network: Any) -> None:
    network.apply(CaptureOptions())
    assert network.workload.run("sysctl", "-n", "net.ipv4.tcp_migrate_req").strip() == "1"


def test_a_namespace_with_ipv6_switched_off_is_captured(network: Any, backend: str) -> None:
    network.workload.run("sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1")
    network.workload.run("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=1")
    options = CaptureOptions(backend=backend)
    assert network.apply(options).steps
    assert network.apply(options).steps == ()


@pytest.mark.parametrize(("foreign", "chosen"), [("", "nft"), ("nft", "nft"), ("legacy", "legacy")])
def test_the_kind_of_tables_that_is_in_use_is_chosen(
    network: Any, foreign: str, chosen: str
) -> None:
    if foreign:
        _load_foreign(network.workload, foreign)
    outcome = network.apply(CaptureOptions())
    assert {step.backend for step in outcome.steps} == {chosen, "routing", "replies"}
    # And it stays where it is, whatever the others do from now on.
    _load_foreign(network.workload, "legacy")
    assert network.apply(CaptureOptions()).steps == ()


def test_another_kind_of_tables_can_be_asked_for(network: Any) -> None:
    network.apply(CaptureOptions(backend="nft"))
    network.apply(CaptureOptions(backend="legacy"))
    assert "MESHD" not in network.workload.run("iptables-nft-save")
    assert "MESHD" not in network.workload.run("ip6tables-nft-save")
    assert "MESHD_OUTPUT" in network.workload.run("ip6tables-legacy-save")


def test_a_kernel_that_cannot_log_limits_connections_all_the_same(network: Any) -> None:
    limited = CaptureOptions(backend="legacy", connection_rate=10)

    def without_the_target() -> apply.Outcome:
        import iptc

        from meshd.capture.rules import legacy

        make = legacy.rule_of

        def refuse(family: Family, chain: Any, rule: Rule) -> Any:
            if rule.target.name == "NFLOG":
                raise iptc.IPTCError("can't commit: No chain/target/match by that name")
            return make(family, chain, rule)

        legacy.rule_of = refuse
        return apply.apply(limited)

    outcome = network.inside(without_the_target)
    assert "No chain/target/match" in outcome.unlogged
    saved = network.workload.run("iptables-legacy-save", "-t", "mangle")
    assert "NFLOG" not in saved
    assert "--limit 10/sec" in saved
    assert "-j DROP" in saved
    silent = dataclasses.replace(limited, drops_logged=False)
    assert network.apply(silent).steps == ()


def test_another_refusal_than_that_of_the_log_is_not_taken_for_it(network: Any) -> None:
    """A lock that is held for one moment, and one that is held all the time."""
    limited = CaptureOptions(backend="legacy", connection_rate=10)

    def while_refused(times: int) -> apply.Outcome:
        refusals = iter(range(times))

        def begin(action: Any, doing: str) -> None:
            if next(refusals, None) is not None:
                raise SystemRefusedError("another program holds /run/xtables.lock")
            isolated(action, doing)

        isolated, inside.isolated = inside.isolated, begin
        return apply.apply(limited)

    with pytest.raises(SystemRefusedError, match="another program holds"):
        network.inside(functools.partial(while_refused, 100))
    outcome = network.inside(functools.partial(while_refused, 1))
    assert outcome.unlogged == ""
    assert "NFLOG" in network.workload.run("iptables-legacy-save", "-t", "mangle")
    assert network.apply(limited).steps == ()


def _changes(tables: Any, options: CaptureOptions, family: Family, backend: str) -> Any:
    changes = changes_to(
        tables[family], desired_rules(options, family), mark_new_tables=backend == "nft"
    )
    if not is_captured(tables[family]):
        return changes
    return guarded(changes, tables[family], guard_rules(options))


def _write_some_and_die(backend: str, options: CaptureOptions, count: int) -> None:
    tables = BACKENDS[backend]()
    there = tables.read(Family)
    changes: dict[Family, tuple[Change, ...]] = {
        family: _changes(there, options, family, backend)[:count] for family in Family
    }
    tables.write(changes, there)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("count", [1, 5, 9, 14])
def test_being_killed_at_any_change_is_made_good_by_the_next_run(
    network: Any, backend: str, count: int
) -> None:
    host = network.workload
    _make_tables(host, backend)
    before = host.save()
    first, second = (CaptureOptions(backend=backend, exclude_outbound_ports=(n,)) for n in (1, 2))
    for options in (first, second):
        with pytest.raises(SystemRefusedError, match="SIGKILL"):
            network.inside(functools.partial(_write_some_and_die, backend, options, count))
        network.apply(options)
        assert network.inside(functools.partial(apply.plan, options)).steps == ()
        assert GUARD_CHAIN not in host.save()
    network.inside(apply.remove)
    assert host.save() == before


def test_while_rules_change_new_connections_are_dropped_and_open_ones_go_on(
    network: Any, backend: str, addresses: dict[str, str]
) -> None:
    first, second = (
        CaptureOptions(backend=backend, exclude_outbound_ports=(n,)) for n in (1, 8080)
    )
    network.apply(first)
    with (
        network.workload.listen(addresses["any"], OUTBOUND_PORT) as proxy,
        network.peer.listen(addresses["elsewhere"], 8080),
        network.workload.connect(addresses["elsewhere"], 8080) as client,
        proxy.accept() as accepted,
    ):
        with pytest.raises(SystemRefusedError, match="SIGKILL"):
            # Up to the guard, and not the rules behind it.
            network.inside(functools.partial(_write_some_and_die, backend, second, 4))
        assert not network.workload.can_connect(addresses["elsewhere"], 8080)
        client.sendall(b"still here")
        assert accepted.socket.recv(64) == b"still here"
        network.apply(second)
        assert network.workload.can_connect(addresses["elsewhere"], 8080)


def test_the_first_capture_and_fail_open_need_no_guard(network: Any, backend: str) -> None:
    first = network.apply(CaptureOptions(backend=backend, fail_open=True))
    second = network.apply(CaptureOptions(backend=backend, fail_open=True, dns=False))
    guarded_change = network.apply(CaptureOptions(backend=backend))
    assert not any(GUARD_CHAIN in step.change for step in (*first.steps, *second.steps))
    assert any(GUARD_CHAIN in step.change for step in guarded_change.steps)


def test_a_namespace_that_is_gone_is_one_clear_line(network: Any) -> None:
    gone = Path(f"/run/netns/{network.workload.name}x")
    with (
        pytest.raises(NotReadyError, match=r"network namespace .*x not found") as caught,
        inside.entered(gone),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_namespace_that_vanishes_while_it_is_worked_on_does_no_harm(network: Any) -> None:
    def vanish_then_apply() -> apply.Outcome:
        _detach(network.workload.netns)
        return apply.apply(CaptureOptions())

    assert network.inside(vanish_then_apply).steps
    with pytest.raises((NotReadyError, InvalidInputError)):
        network.inside(apply.remove)


def _detach(path: Path) -> None:
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_the_hosts_own_namespace_is_never_touched() -> None:
    with (
        pytest.raises(InvalidInputError, match="the host's own network namespace"),
        inside.entered(Path("/proc/self/ns/net")),
    ):
        pass


def test_a_path_without_a_network_namespace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", Path("/proc/self/ns/mnt"), tmp_path):
        with (
            pytest.raises(InvalidInputError, match="is not a network namespace"),
            inside.entered(path),
        ):
            pass


def test_a_lock_that_somebody_holds_for_ever_is_named(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.capture.rules.xtables_lock.LOCK_WAIT", 0.05)
    with LOCK.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SystemRefusedError, match=r"holds /run/xtables\.lock"):
            network.apply(CaptureOptions(backend="legacy"))


def test_a_crash_of_the_child_is_told_and_does_not_spread(network: Any) -> None:
    with pytest.raises(SystemRefusedError, match="ended by SIGABRT while it changed the rules"):
        network.inside(os.abort)
    assert network.apply(CaptureOptions()).steps


def test_sockets_stay_in_the_namespace_and_the_thread_returns(network: Any) -> None:
    own = Path("/proc/thread-self/ns/net").stat().st_ino
    with network.workload.socket(socket.AF_INET) as opened:
        opened.bind(("198.18.71.2", 0))
    assert Path("/proc/thread-self/ns/net").stat().st_ino == own
