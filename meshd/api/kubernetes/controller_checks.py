"""Validates controllers of pods.
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/"""

from __future__ import annotations

import re
from typing import Final

from meshd.api.checks import Report, check_labels, check_range
from meshd.api.decode import Path
from meshd.api.kubernetes.checks import check_pod_spec
from meshd.api.kubernetes.types import (
    DaemonSet,
    Deployment,
    Pod,
    PodsSpec,
    RollingUpdate,
    StatefulSet,
)

_PERCENT: Final = re.compile(r"\d{1,3}%", re.ASCII)
_STRATEGY: Final = ("spec", "strategy", "rollingUpdate")
_UPDATE_STRATEGY: Final = ("spec", "updateStrategy", "rollingUpdate")


def check_pod(report: Report, found: Pod) -> None:
    check_pod_spec(report, ("spec",), found.spec)


def check_deployment(report: Report, found: Deployment) -> None:
    spec = found.spec
    check_range(report, ("spec", "replicas"), spec.replicas, 0, 1000)
    _check_pods(report, spec)
    rolling = spec.strategy.rolling_update
    if spec.strategy.type == "Recreate" and rolling != RollingUpdate():
        report.error(_STRATEGY, "goes with type: RollingUpdate only")
    _check_rolling_update(report, _STRATEGY, rolling)
    both = (rolling.max_surge, rolling.max_unavailable)
    if all(value in {0, "0%"} for value in both):
        report.error((*_STRATEGY, "maxUnavailable"), "maxSurge is 0 as well: nothing could be done")


def check_stateful_set(report: Report, found: StatefulSet) -> None:
    spec = found.spec
    check_range(report, ("spec", "replicas"), spec.replicas, 0, 1000)
    _check_pods(report, spec)


def check_daemon_set(report: Report, found: DaemonSet) -> None:
    spec = found.spec
    _check_pods(report, spec)
    rolling = spec.update_strategy.rolling_update
    _check_rolling_update(report, _UPDATE_STRATEGY, rolling)


def _check_pods(report: Report, spec: PodsSpec) -> None:
    check_range(report, ("spec", "minReadySeconds"), spec.min_ready_seconds, 0)
    labels = spec.template.metadata.labels
    check_labels(report, ("spec", "template", "metadata", "labels"), labels)
    for key, value in spec.selector.match_labels.items():
        if labels.get(key) != value:
            report.error(
                ("spec", "selector", "matchLabels", key),
                f'"{value}" is not what spec.template.metadata.labels says ({labels.get(key)})',
            )
    check_pod_spec(report, ("spec", "template", "spec"), spec.template.spec)


def _check_rolling_update(report: Report, path: Path, rolling: RollingUpdate) -> None:
    fields = {"maxSurge": rolling.max_surge, "maxUnavailable": rolling.max_unavailable}
    for field, value in fields.items():
        if isinstance(value, str):
            if not _PERCENT.fullmatch(value):
                report.error((*path, field), f'"{value}" is neither a number nor a share (25%)')
        elif value is not None:
            check_range(report, (*path, field), value, 0)
    if isinstance(value := rolling.max_unavailable, str) and _PERCENT.fullmatch(value):
        check_range(report, (*path, "maxUnavailable"), int(value[:-1]), 0, 100)
