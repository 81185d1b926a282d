"""meshd's own metrics, read back as Prometheus reads them."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import meshd
from meshd import wire
from meshd.model.pool import Pool
from meshd.model.workload import DroppedConnections, Interruptions
from meshd.telemetry.facts import Facts, unready
from meshd.telemetry.metrics import render
from meshd.telemetry.processes import Cost


def row(workload: str, **changed: Any) -> wire.WorkloadStatus:
    usual: dict[str, Any] = {
        "workload": workload,
        "namespace": "default",
        "service_account": "web",
        "node": "one",
        "address": "198.18.0.7",
        "netns": "/run/netns/x",
        "proxy": "proxy-0",
        "captured": True,
        "certificate_expires": "2030-01-01T00:00:00Z",
        "synced": True,
        "proven": True,
        "problem": "",
    }
    return wire.WorkloadStatus(**(usual | changed))


INTERRUPTED = Interruptions(1.5, {"nft": 2, "": 1}, "2030-01-01T00:00:00Z: nft changed its rules")
FACTS = Facts(
    workloads=(
        row("a", interruptions=INTERRUPTED, dropped=DroppedConnections(7, 2, "it opens more")),
        row("b", proven=False),
        row("c", certificate_expires=None, unseen="no wire leads there"),
    ),
    proxies=(
        wire.ProxyStatus("dns-0", True, True, pool=Pool.DNS),
        wire.ProxyStatus("proxy-0", True, True),
        wire.ProxyStatus("proxy-1", True, False),
    ),
    processes=(
        wire.RoleStatus("capture", 42, "running", 2, 1000.0),
        wire.RoleStatus("mesh", 0, "waiting", 3, 0.0),
    ),
)


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(name: str, **labels: str) -> float | None:
    found = samples(render(FACTS, {42: Cost(1024, 1.5)}, "cluster.local"))
    return found.get((name, frozenset(labels.items())))


@pytest.mark.parametrize(
    ("state", "count"),
    [("registered", 3), ("captured", 3), ("certified", 2), ("synced", 3), ("proven", 2)],
)
def test_workloads_are_counted_by_how_far_they_are(state: str, count: int) -> None:
    assert value("meshd_workloads", state=state) == count


def test_each_workload_says_whether_it_is_proven() -> None:
    assert value("meshd_workload_proven", namespace="default", workload="a") == 1
    assert value("meshd_workload_proven", namespace="default", workload="b") == 0


def test_each_workload_says_whether_what_it_is_sent_has_been_seen_to_reach_the_proxy() -> None:
    for name, proven in {"a": 1, "b": 0, "c": 0}.items():
        labels = {"namespace": "default", "workload": name}
        assert value("meshd_workload_inbound_proven", **labels) == proven


def test_what_took_a_workload_out_of_the_mesh_is_counted_with_the_program_and_the_seconds() -> None:
    own = {"namespace": "default", "workload": "a"}
    assert value("meshd_workload_interruptions_total", **own, program="nft") == 2
    assert value("meshd_workload_interruptions_total", **own, program="") == 1
    assert value("meshd_workload_interrupted_seconds_total", **own) == 1.5


def test_connections_above_a_workloads_limit_are_counted_by_direction() -> None:
    own = {"namespace": "default", "workload": "a"}
    name = "meshd_workload_connections_dropped_total"
    assert value(name, **own, direction="outbound") == 7
    assert value(name, **own, direction="inbound") == 2


def test_a_certificates_expiry_is_a_time() -> None:
    uri = "spiffe://cluster.local/ns/default/sa/web"
    assert value("meshd_certificate_expiry_timestamp_seconds", identity=uri) == 1893456000


def test_proxies_tell_whether_they_have_the_configuration() -> None:
    assert value("meshd_proxy_connected", proxy="proxy-1") == 1
    assert value("meshd_proxy_synced", proxy="proxy-1") == 0


def test_processes_tell_what_they_cost() -> None:
    assert value("meshd_process_resident_memory_bytes", process="capture") == 1024
    assert value("meshd_process_cpu_seconds_total", process="capture") == 1.5
    assert value("meshd_process_restarts_total", process="mesh") == 3


def test_a_process_that_does_not_run_costs_nothing() -> None:
    assert value("meshd_process_running", process="mesh") == 0
    assert value("meshd_process_resident_memory_bytes", process="mesh") is None


def test_without_any_facts_there_is_still_the_version() -> None:
    found = samples(render(Facts(), {}, "cluster.local"))
    assert found["meshd_build_info", frozenset({("version", meshd.__version__)})] == 1


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (FACTS, ""),
        (Facts(), "no proxy is connected"),
        (Facts(proxies=(wire.ProxyStatus("p", False, True),)), "no proxy is connected"),
        (
            Facts(proxies=(wire.ProxyStatus("p", True, False),)),
            "no proxy has the newest configuration",
        ),
        (Facts(proxies=FACTS.proxies[1:]), "no dns proxy is connected"),
        (Facts(proxies=FACTS.proxies, problems=("mesh is gone",)), "mesh is gone"),
    ],
)
def test_readiness_has_a_reason(facts: Facts, reason: str) -> None:
    assert unready(facts) == reason
