"""What differs when systemd runs us."""

from __future__ import annotations

from meshd.supervisor.service import proxy_slice, scoped


def test_a_proxy_gets_a_scope_of_its_own_each_time_it_is_started() -> None:
    first, second = (scoped("a.slice", "proxy-0", ("envoy", "-x")) for _ in range(2))
    assert first[0] == "systemd-run"
    assert {"--scope", "--slice=a.slice"} < set(first)
    assert first[-3:] == ("--", "envoy", "-x")
    units = [
        next(word for word in words if word.startswith("--unit=")) for words in (first, second)
    ]
    assert units[0] != units[1]
    assert units[0].startswith("--unit=meshd-proxy-0-")


def test_without_a_slice_proxies_end_with_the_supervisor() -> None:
    assert proxy_slice({}) == ""
    assert proxy_slice({"MESHD_PROXY_SLICE": "a.slice"}) == "a.slice"
