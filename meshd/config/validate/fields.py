"""Checks of the values that many kinds share: hosts, ports, durations, labels, patterns."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

import re2

from meshd.config.read import Read, label_problem, subdomain_problem
from meshd.decoding import Path
from meshd.model.base import Duration
from meshd.model.finding import Finding
from meshd.model.routes import MAX_REGEX_PROGRAM, StringMatch
from meshd.model.secret_files import SYSTEM, path_problem

_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_HOST_PART: Final = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?")
_HEADER: Final = re.compile(r":?[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.1; the colon is for HTTP/2's pseudo headers."""
_QUIET: Final = re2.Options()
_QUIET.log_errors = False


class Report:
    """Collects what is wrong with one object."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.findings: list[Finding] = []

    def error(self, path: Path, message: str) -> None:
        self.findings.append(self._read.finding(path, message))

    def warning(self, path: Path, message: str) -> None:
        self.findings.append(self._read.finding(path, message, severity="warning"))


def check_port(report: Report, path: Path, port: int | None) -> None:
    if port is not None and not 1 <= port <= 65535:
        report.error(path, f"{port} is not a port; ports are 1 to 65535")


def check_range(
    report: Report, path: Path, value: float | None, low: float, high: float = math.inf
) -> None:
    """Also refuses what is not a number at all (NaN)."""
    if value is None or low <= value <= high:
        return
    limits = f"{low:.12g} or more" if high == math.inf else f"from {low:.12g} to {high:.12g}"
    report.error(path, f"{value:.12g} is out of range; it must be {limits}")


def check_duration(
    report: Report, path: Path, duration: Duration | None, *, zero: bool = False
) -> None:
    """At least a millisecond, the least that a proxy's timers can do; ``zero`` means never."""
    if duration is None or duration >= 0.001 or (zero and duration == 0):
        return
    or_zero = ", or 0s for none" if zero else ""
    report.error(path, f"must be 1ms or more{or_zero}")


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_network(text: str) -> bool:
    """An address, or a CIDR (its host bits may be set)."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def host_problem(host: str, *, wildcard: bool) -> str:
    """Why it is no host name; empty when it is one."""
    if not host:
        return "an empty host"
    name = host
    if "*" in host:
        if not wildcard:
            return f'"{host}" has a wildcard, which is not allowed here'
        if host == "*":
            return ""
        if not host.startswith("*.") or "*" in host[1:]:
            return f'"{host}": a wildcard stands alone on the left, as in *.example.com'
        name = host[2:]
    parts = name.removesuffix(".").split(".")
    if len(name) > 255 or any(len(part) > 63 or not _HOST_PART.fullmatch(part) for part in parts):
        return f'"{host}" is not a host name'
    return ""


def check_port_name(report: Report, path: Path, name: str) -> None:
    if problem := label_problem(name.lower()):
        report.error(path, problem)


def check_service_account(report: Report, path: Path, name: str | None) -> None:
    """It is part of an identity."""
    if name and (problem := subdomain_problem(name)):
        report.error(path, problem)


def check_path(report: Report, path: Path, file: str | None) -> None:
    """Of a file that the identity role is to read."""
    if file and file != SYSTEM and (problem := path_problem(file)):
        report.error(path, problem)


def check_host(report: Report, path: Path, host: str, *, wildcard: bool = False) -> None:
    if problem := host_problem(host, wildcard=wildcard):
        report.error(path, problem)


def check_hosts(
    report: Report, path: Path, hosts: Iterable[str], *, addresses: bool = False
) -> None:
    """Several hosts, wildcards allowed, none written twice; also IP addresses if so said."""
    seen: set[str] = set()
    for index, host in enumerate(hosts):
        if not (addresses and is_address(host)):
            check_host(report, (*path, index), host, wildcard=True)
        if host in seen:
            report.error((*path, index), f'"{host}" is written twice')
        seen.add(host)


def check_label_names(report: Report, path: Path, names: Iterable[str]) -> None:
    """Annotations are named as labels are."""
    for key in names:
        prefix, slash, name = key.rpartition("/")
        if not _is_label_name(name) or (slash and host_problem(prefix, wildcard=False)):
            report.error((*path, key), f'"{key}" is not a label\'s name')


def check_labels(report: Report, path: Path, labels: Mapping[str, str]) -> None:
    """https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"""
    check_label_names(report, path, labels)
    for key, value in labels.items():
        if value and not _is_label_name(value):
            report.error(
                (*path, key),
                f'"{value}" is not a label\'s value: at most 63 of letters, digits, "-", "_", "."',
            )


def _is_label_name(text: str) -> bool:
    return len(text) <= 63 and bool(_LABEL_NAME.fullmatch(text))


def check_export_to(report: Report, path: Path, export_to: tuple[str, ...]) -> None:
    for index, namespace in enumerate(export_to):
        if namespace not in {".", "*", "~"} and (problem := label_problem(namespace)):
            report.error((*path, index), f'{problem} (or "." for this namespace, "*" for all)')
    if "*" in export_to and len(export_to) > 1:
        report.error(path, '"*" is all namespaces already; it stands alone')


def check_header_names(report: Report, path: Path, names: Iterable[str]) -> None:
    for name in names:
        if not _HEADER.fullmatch(name):
            report.error(path, f'"{name}" is not a header\'s name')


def regex_problem(pattern: str) -> str:
    """Why Envoy would not take it; empty when it would. It is asked of RE2 itself.

    https://github.com/google/re2/wiki/Syntax
    """
    if not pattern:
        return "an empty regular expression"
    try:
        compiled = re2.compile(pattern, _QUIET)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace")
        return f'"{pattern}" is not an RE2 regular expression: {reason}'
    if compiled.programsize > MAX_REGEX_PROGRAM:
        return f'"{pattern}" is too large a regular expression; repeat less in it'
    return ""


def check_regex(report: Report, path: Path, pattern: str) -> None:
    if problem := regex_problem(pattern):
        report.error(path, problem)


def check_string_match(
    report: Report, path: Path, match: StringMatch | None, *, may_be_empty: bool = False
) -> None:
    """``may_be_empty``: a match without any pattern asks only that the value is there."""
    if match is None:
        return
    given = [
        name
        for name, value in (
            ("exact", match.exact),
            ("prefix", match.prefix),
            ("regex", match.regex),
        )
        if value is not None
    ]
    if len(given) > 1 or not (given or may_be_empty):
        found = " and ".join(given) or "none of them"
        report.error(path, f"needs exactly one of exact, prefix, regex; it has {found}")
    if match.regex is not None:
        check_regex(report, (*path, "regex"), match.regex)
    if match.prefix == "":
        report.error((*path, "prefix"), "an empty prefix matches all; leave it out")
