"""Writes meshd's own metrics from facts, in Prometheus' text format. Pure.

All their names begin with ``meshd_``. ``envoy_stats`` has the metrics of the proxies.
"""

from __future__ import annotations

import collections
import datetime
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import meshd
from meshd import wire
from meshd.model.workload import Identity
from meshd.telemetry.facts import Facts
from meshd.telemetry.processes import Cost
from meshd.telemetry.suppressed import Row


def render(
    facts: Facts, costs: Mapping[int, Cost], trust_domain: str, lost: Iterable[Row] = ()
) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Once((*_families(facts, costs, trust_domain), _suppressed(lost))))
    return generate_latest(registry)


class _Once(Collector):
    """Gives ready metric families to the library, which writes the text format."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(facts: Facts, costs: Mapping[int, Cost], trust_domain: str) -> Iterator[Metric]:
    build = GaugeMetricFamily(
        "meshd_build_info", "The running version of meshd.", labels=["version"]
    )
    build.add_metric([meshd.__version__], 1)
    yield build
    yield _workloads(facts.workloads)
    yield _proven(facts.workloads)
    yield _unprotected(facts.workloads)
    yield _proven_inbound(facts.workloads)
    yield from _interruptions(facts.workloads)
    yield _dropped(facts.workloads)
    yield _certificates(facts.workloads, trust_domain)
    yield from _proxies(facts.proxies)
    yield from _processes(facts.processes, costs)


def _suppressed(rows: Iterable[Row]) -> Metric:
    family = CounterMetricFamily(
        "meshd_log_suppressed",
        "Lines that were not written to the log.",
        labels=["by", "unit", "role", "workload", "reason"],
    )
    sums: collections.Counter[tuple[str, ...]] = collections.Counter()
    for row in rows:
        what = row.what
        sums[what.by, what.unit, what.role, what.workload, what.reason] += row.lines
    for labels, lines in sorted(sums.items()):
        family.add_metric(labels, lines)
    return family


def _workloads(rows: Iterable[wire.WorkloadStatus]) -> Metric:
    rows = tuple(rows)
    family = GaugeMetricFamily(
        "meshd_workloads", "Workloads of this node that have reached the state.", labels=["state"]
    )
    family.add_metric(["registered"], len(rows))
    family.add_metric(["captured"], sum(row.captured for row in rows))
    family.add_metric(["certified"], sum(row.certificate_expires is not None for row in rows))
    family.add_metric(["synced"], sum(row.synced for row in rows))
    family.add_metric(["proven"], sum(row.proven for row in rows))
    return family


def _proven(rows: Iterable[wire.WorkloadStatus]) -> Metric:
    family = GaugeMetricFamily(
        "meshd_workload_proven",
        "1 when a probe from inside the workload's namespace has reached the proxy.",
        labels=["namespace", "workload"],
    )
    for row in rows:
        family.add_metric([row.namespace, row.workload], int(row.proven))
    return family


def _proven_inbound(rows: Iterable[wire.WorkloadStatus]) -> Metric:
    family = GaugeMetricFamily(
        "meshd_workload_inbound_proven",
        "1 when a probe from the host has reached the workload's proxy; 0 otherwise, also if"
        " none can be sent.",
        labels=["namespace", "workload"],
    )
    for row in rows:
        family.add_metric([row.namespace, row.workload], int(row.proven and not row.unseen))
    return family


def _unprotected(rows: Iterable[wire.WorkloadStatus]) -> Metric:
    family = GaugeMetricFamily(
        "meshd_workload_unprotected",
        "1 when the workload's traffic bypasses the mesh (failure_policy: open).",
        labels=["namespace", "workload"],
    )
    for row in rows:
        family.add_metric([row.namespace, row.workload], int(row.unprotected))
    return family


def _interruptions(rows: Iterable[wire.WorkloadStatus]) -> Iterator[Metric]:
    times = CounterMetricFamily(
        "meshd_workload_interruptions",
        "Foreign changes of rules that took the workload out of the mesh, by program (empty if "
        "unknown).",
        labels=["namespace", "workload", "program"],
    )
    seconds = CounterMetricFamily(
        "meshd_workload_interrupted_seconds",
        "Total time from such changes to their repair.",
        labels=["namespace", "workload"],
    )
    for row in rows:
        own = [row.namespace, row.workload]
        seconds.add_metric(own, row.interruptions.seconds)
        for program, count in row.interruptions.counts.items():
            times.add_metric([*own, program], count)
    yield times
    yield seconds


def _dropped(rows: Iterable[wire.WorkloadStatus]) -> Metric:
    family = CounterMetricFamily(
        "meshd_workload_connections_dropped",
        "New connections above capture.connections_per_second whose first packets were dropped;"
        " direction: outbound, which the workload opened, or inbound, which it was sent.",
        labels=["namespace", "workload", "direction"],
    )
    for row in rows:
        own = (row.namespace, row.workload)
        family.add_metric([*own, "outbound"], row.dropped.opened)
        family.add_metric([*own, "inbound"], row.dropped.received)
    return family


def _certificates(rows: Iterable[wire.WorkloadStatus], trust_domain: str) -> Metric:
    family = GaugeMetricFamily(
        "meshd_certificate_expiry_timestamp_seconds",
        "When the certificate of an identity expires.",
        labels=["identity"],
    )
    expiries = {
        Identity(trust_domain, row.namespace, row.service_account).uri: row.certificate_expires
        for row in rows
        if row.certificate_expires
    }
    for uri, expires in sorted(expiries.items()):
        family.add_metric([uri], datetime.datetime.fromisoformat(expires).timestamp())
    return family


def _proxies(proxies: Iterable[wire.ProxyStatus]) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        "meshd_proxy_connected",
        "1 when the proxy is connected to the xDS server.",
        labels=["proxy"],
    )
    synced = GaugeMetricFamily(
        "meshd_proxy_synced",
        "1 when the proxy has accepted the newest configuration.",
        labels=["proxy"],
    )
    for proxy in proxies:
        connected.add_metric([proxy.name], int(proxy.connected))
        synced.add_metric([proxy.name], int(proxy.synced))
    yield connected
    yield synced


def _processes(processes: Iterable[wire.RoleStatus], costs: Mapping[int, Cost]) -> Iterator[Metric]:
    label = ["process"]
    running = GaugeMetricFamily("meshd_process_running", "1 when the process runs.", labels=label)
    restarts = CounterMetricFamily(
        "meshd_process_restarts", "Restarts of the process.", labels=label
    )
    started = GaugeMetricFamily(
        "meshd_process_start_time_seconds", "Time of the last start.", labels=label
    )
    resident = GaugeMetricFamily(
        "meshd_process_resident_memory_bytes", "Resident memory of the process.", labels=label
    )
    cpu = CounterMetricFamily("meshd_process_cpu_seconds", "CPU time of the process.", labels=label)
    for process in processes:
        cost = costs.get(process.pid)
        running.add_metric([process.name], int(cost is not None))
        restarts.add_metric([process.name], process.restarts)
        started.add_metric([process.name], process.since)
        if cost:
            resident.add_metric([process.name], cost.resident)
            cpu.add_metric([process.name], cost.cpu)
    yield from (running, restarts, started, resident, cpu)
