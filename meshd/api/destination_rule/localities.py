"""Validates localities, and how traffic is spread over them.

https://istio.io/latest/docs/reference/config/networking/destination-rule/#LocalityLoadBalancerSetting
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from meshd.api.checks import Report, check_labels
from meshd.api.decode import Path
from meshd.api.destination_rule.types import LocalityLbSetting, ZoneAwareLbSetting
from meshd.api.locality import REGION, SUBZONE, ZONE
from meshd.api.values import LOCALITY

_LOCALITY: Final = re.compile(LOCALITY)
_LONGEST: Final = 317
_PARTS: Final = 3
"""Of a locality; a pattern with more is refused."""


def check_locality_setting(
    report: Report, path: Path, setting: LocalityLbSetting, *, detects_outliers: bool
) -> None:
    if setting.distribute and (setting.failover or setting.failover_priority):
        other = "failover" if setting.failover else "failoverPriority"
        report.error(path, f"has distribute and {other}; only one of them is possible")
    _check_distribution(report, path, setting)
    check_failover(report, path, setting, detects_outliers=detects_outliers)


def check_failover(
    report: Report,
    path: Path,
    setting: LocalityLbSetting | ZoneAwareLbSetting,
    *,
    detects_outliers: bool,
) -> None:
    """Check where traffic goes when the endpoints nearby fail."""
    for index, failover in enumerate(setting.failover):
        place = (*path, "failover", index)
        for name, region in (("from", failover.from_), ("to", failover.to)):
            if not region:
                report.warning((*place, name), "is left out, so this has no effect")
            if "/" in region or "*" in region:
                report.error((*place, name), f'"{region}" is not a region; zones are no part of it')
        if failover.from_ == failover.to:
            report.error(place, f'"{failover.to}" cannot stand in for itself')
    for index, text in enumerate(setting.failover_priority):
        key, _, value = text.partition("=")
        place = (*path, "failoverPriority", index)
        check_labels(report, place, {key: value})
        if setting.failover and key in {REGION, ZONE, SUBZONE}:
            report.error(place, f'"{key}" and failover both say where to go next; remove one')
    ordered = setting.failover or setting.failover_priority
    if ordered and not detects_outliers and setting.enabled is not False:
        report.warning(
            path,
            "has no effect without outlierDetection beside it: endpoints that fail go unnoticed",
        )


def _check_distribution(report: Report, path: Path, setting: LocalityLbSetting) -> None:
    for index, one in enumerate(setting.distribute):
        place = (*path, "distribute", index)
        _check_pattern(report, (*place, "from"), one.from_)
        for pattern, weight in one.to.items():
            _check_pattern(report, (*place, "to", pattern), pattern)
            if not 1 <= weight <= 100:
                report.error((*place, "to", pattern), f"{weight} is not a weight from 1 to 100")
        if (total := sum(one.to.values())) != 100:
            report.error((*place, "to"), f"the weights come to {total}; they must to 100")
        _check_overlap(report, (*place, "to"), one.to)
    _check_overlap(report, (*path, "distribute"), (one.from_ for one in setting.distribute))


def _check_pattern(report: Report, path: Path, pattern: str) -> None:
    region, *rest = pattern.split("/")
    wild = [index for index, part in enumerate((region, *rest)) if "*" in part]
    if not pattern or len(rest) > 2 or not all((region, *rest)):
        report.error(path, f'"{pattern}" is not region, region/zone or region/zone/subzone')
    elif wild and (wild != [len(rest)] or (region, *rest)[-1] != "*"):
        report.error(path, f'"{pattern}": a wildcard stands alone, at the end')


def _check_overlap(report: Report, path: Path, patterns: Iterable[str]) -> None:
    """Check that no pattern covers another: each covers all that begins with its text before the
    wildcard."""
    known: dict[tuple[str, ...], str] = {}
    for pattern in sorted(patterns, key=_said):
        said = _said(pattern)
        # In this order, what covers a pattern comes before it.
        for length in range(len(said) + 1):
            if wider := known.get(said[:length]):
                report.error(path, f'"{wider}" and "{pattern}" have localities in common')
        known.setdefault(said, pattern)


def _said(pattern: str) -> tuple[str, ...]:
    return tuple(part for part in pattern.split("/")[:_PARTS] if part != "*")


def check_locality(report: Report, path: Path, locality: str | None) -> None:
    """Check ``region/zone/subzone``, or only its first parts."""
    if locality and (len(locality) > _LONGEST or not _LOCALITY.fullmatch(locality)):
        report.error(path, f'"{locality}" is not region, region/zone or region/zone/subzone')
