"""Validates values that many kinds share: hosts, ports, durations, labels, patterns."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from meshd.api.base import Duration
from meshd.api.decode import Path
from meshd.api.finding import Finding
from meshd.api.read import Read, label_problem, subdomain_problem
from meshd.api.secret_files import SYSTEM, path_problem

_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_HOST_PART: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.1."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_VARIABLE: Final = re.compile(r"%%|%[^%(]+%|%[^%(]+\((\\.|[^\\)])*\) *%")
"""An escaped %, or a variable of Envoy's format strings, with or without arguments."""


class Report:
    """Collects the findings about one object."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.namespace = read.object.metadata.namespace
        self.findings: list[Finding] = []
        self.refused_by_proxies: list[Finding] = []
        """Those of the findings for which proxies would refuse also what is beside the object."""
        self.instructions = 0
        """The number of RE2's instructions in the regular expressions that were checked so far."""

    def error(self, path: Path, message: str) -> None:
        self.findings.append(self._read.finding(path, message))

    def refused(self, path: Path, message: str) -> None:
        """Report an error that proxies do not bear: they would refuse all routes of a port, or
        settings of a service, for it.

        What was stored with it is closed, so that it costs nobody else.
        """
        self.error(path, message)
        self.refused_by_proxies.append(self.findings[-1])

    def warning(self, path: Path, message: str) -> None:
        self.findings.append(self._read.finding(path, message, severity="warning"))


def check_port(report: Report, path: Path, port: int | None) -> None:
    if port is not None and not 1 <= port <= 65535:
        report.error(path, f"{port} is not a port; ports are 1 to 65535")


def check_range(
    report: Report,
    path: Path,
    value: float | None,
    low: float,
    high: float = math.inf,
    *,
    by_proxies: bool = False,
) -> None:
    """Check that a value is in a range; NaN is in none. ``by_proxies``: proxies refuse any
    other."""
    if value is None or low <= value <= high:
        return
    limits = f"{low:.12g} or more" if high == math.inf else f"from {low:.12g} to {high:.12g}"
    say = report.refused if by_proxies else report.error
    say(path, f"{value:.12g} is out of range; it must be {limits}")


def check_duration(
    report: Report,
    path: Path,
    duration: Duration | None,
    *,
    zero: bool = False,
    by_proxies: bool = False,
) -> None:
    """Check that a duration is in whole milliseconds, the resolution of a proxy's timers.

    ``zero`` allows 0, which means never. ``by_proxies``: proxies refuse less than a millisecond.
    """
    if duration is None or (zero and duration == 0):
        return
    milliseconds = duration * 1000
    if duration < 0.001:
        or_zero = ", or 0s for none" if zero else ""
        say = report.refused if by_proxies else report.error
        say(path, f"must be 1ms or more{or_zero}")
    elif not math.isclose(milliseconds, round(milliseconds), rel_tol=1e-12):
        report.error(path, "must be whole milliseconds, such as 1500ms")


def is_address(text: str) -> bool:
    if ":" not in text and not text[-1:].isdigit():
        return False  # most host names: parsing them would take long
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_network(text: str) -> bool:
    """Return whether a text is an IP address or a CIDR, whose host bits may be set."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def host_problem(host: str, *, wildcard: bool) -> str:
    """Return why a text is not a host name; empty if it is one."""
    if not host:
        return "an empty host"
    if host == "*" and wildcard:
        return ""
    name = host
    if "*" in host:
        if not wildcard:
            return f'"{host}" has a wildcard, which is not allowed here'
        name = re.sub(r"\*[-.]?", "", host, count=1)
        if not host.startswith("*") or "*" in name:
            return f'"{host}": a wildcard stands on the left, as in *.example.com'
    elif not wildcard and host.removesuffix(".").isdigit():
        return f'"{host}" is a number, not a host name'
    return _name_problem(host, name)


def _name_problem(host: str, name: str) -> str:
    """Return why a name is invalid; ``name`` is the host without its wildcard."""
    parts = name.removesuffix(".").split(".")
    if len(name) > 255 or any(len(part) > 63 or not _HOST_PART.fullmatch(part) for part in parts):
        return f'"{host}" is not a host name'
    if len(parts) > 1 and parts[-1].isdigit():
        return f'"{host}" is not a host name: its last part is a number'
    return ""


def is_partial_wildcard(host: str) -> bool:
    """Return whether a wildcard replaces a part of a label, as in ``*foo.example.com``."""
    return host.startswith("*") and host != "*" and not host.startswith("*.")


def check_port_name(report: Report, path: Path, name: str) -> None:
    if problem := label_problem(name.lower()):
        report.error(path, problem)


def check_service_account(report: Report, path: Path, name: str | None) -> None:
    """Check a service account, which is part of an identity."""
    if name and (problem := subdomain_problem(name)):
        report.error(path, problem)


def check_path(report: Report, path: Path, file: str | None) -> None:
    """Check the path of a file that the identity role is to read."""
    if file and file != SYSTEM and (problem := path_problem(file)):
        report.error(path, problem)


def check_host(report: Report, path: Path, host: str, *, wildcard: bool = False) -> None:
    if problem := host_problem(host, wildcard=wildcard):
        report.error(path, problem)


def check_hosts(
    report: Report,
    path: Path,
    hosts: Iterable[str],
    *,
    addresses: bool = False,
    once: bool = True,
) -> None:
    """Check several hosts; wildcards are allowed.

    ``addresses`` allows IP addresses. A host that is written twice is an error, or only a warning
    without ``once``.
    """
    seen: set[str] = set()
    for index, host in enumerate(hosts):
        if not (addresses and is_address(host)):
            check_host(report, (*path, index), host, wildcard=True)
        if host in seen:
            say = report.error if once else report.warning
            say((*path, index), f'"{host}" is written twice')
        seen.add(host)


def check_label_names(report: Report, path: Path, names: Iterable[str]) -> None:
    """Check the names of labels or annotations."""
    for key in names:
        prefix, slash, name = key.rpartition("/")
        if not _is_label_name(name) or (slash and host_problem(prefix, wildcard=False)):
            report.error((*path, key), f'"{key}" is not a label\'s name')


def check_labels(report: Report, path: Path, labels: Mapping[str, str]) -> None:
    """Check labels. https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"""
    check_label_names(report, path, labels)
    for key, value in labels.items():
        if value and not _is_label_name(value):
            report.error(
                (*path, key),
                f'"{value}" is not a label\'s value: at most 63 of letters, digits, "-", "_", "."',
            )


def check_selector(report: Report, path: Path, labels: Mapping[str, str]) -> None:
    """Check the labels of a selector that is given."""
    if not labels:
        report.warning(path, "has no labels: it selects everything")


def _is_label_name(text: str) -> bool:
    return len(text) <= 63 and bool(_LABEL_NAME.fullmatch(text))


def check_export_to(
    report: Report, path: Path, export_to: tuple[str, ...], *, hidden: bool = False
) -> None:
    """Check the namespaces of ``exportTo``; ``hidden`` allows ``~``, which means no namespace."""
    seen: set[str] = set()
    for index, written in enumerate(export_to):
        namespace = report.namespace if written == "." else written
        if namespace in seen:
            report.error((*path, index), f'"{written}" is written twice')
        seen.add(namespace)
        if written == "~" and not hidden:
            report.error((*path, index), '"~" is for ServiceEntries only')
        elif written not in {".", "*", "~"} and (problem := label_problem(written.lower())):
            report.error((*path, index), f'{problem} (or "." for this namespace, "*" for all)')
    for alone, what in (("*", "all namespaces"), ("~", "no namespace")):
        if alone in export_to and len(export_to) > 1:
            report.error(path, f'"{alone}" is {what}; it must be the only entry')


def check_header_names(report: Report, path: Path, names: Iterable[str]) -> None:
    """Check names of headers; the leading colon of HTTP/2's pseudo-headers is allowed."""
    for name in names:
        if problem := header_problem(name.removeprefix(":")):
            report.error(path, problem)


def header_problem(name: str) -> str:
    """Return why a text is not a header's name; empty if it is one."""
    return "" if _HEADER.fullmatch(name) else f'"{name}" is not a header\'s name'


def header_value_problem(value: str) -> str:
    """Return why Envoy would refuse a header's format string; empty if it would not.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers
    """
    if _CONTROL.search(value):
        return "has control characters"
    if "%" in _VARIABLE.sub("", value):
        return f'"{value}" has a % that begins no variable such as %HOSTNAME%; write %% for a %'
    return ""
