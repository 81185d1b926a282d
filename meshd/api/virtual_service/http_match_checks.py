"""Validates the matches of HTTP routes."""

from __future__ import annotations

from typing import Final

from meshd.api.checks import Report, check_header_names, check_labels, check_port
from meshd.api.decode import Path
from meshd.api.gateway.types import MESH
from meshd.api.patterns import check_string_match
from meshd.api.virtual_service.l4_match_checks import check_match_gateways, check_source_namespace
from meshd.api.virtual_service.types import HTTPMatchRequest, claim_names, is_claim

_ANY: Final = "*"
"""As a header's regular expression, it asks that the header is there."""
_LONGEST_PARAMETER: Final = 1024
"""Bytes of a query parameter's name: Envoy refuses more."""


def check_http_match(
    report: Report, path: Path, match: HTTPMatchRequest, gateways: tuple[str, ...]
) -> None:
    for name, pattern in (
        ("uri", match.uri),
        ("scheme", match.scheme),
        ("method", match.method),
        ("authority", match.authority),
    ):
        every = name == "uri" and pattern is not None and pattern.prefix == ""
        check_string_match(report, (*path, name), None if every else pattern)
    for field, patterns in (
        ("headers", match.headers),
        ("withoutHeaders", match.without_headers),
        ("queryParams", match.query_params),
    ):
        for name, pattern in patterns.items():
            if pattern.regex != _ANY or field == "queryParams":
                check_string_match(report, (*path, field, name), pattern, may_be_empty=True)
            if field == "queryParams":
                _check_parameter(report, (*path, field), name)
            else:
                _check_matched_header(report, (*path, field, name), name, gateways)
    if match.uri and match.uri.prefix == "":
        report.warning((*path, "uri", "prefix"), "matches every path; leave it out")
    check_port(report, (*path, "port"), match.port or None)
    check_labels(report, (*path, "sourceLabels"), match.source_labels)
    check_source_namespace(report, (*path, "sourceNamespace"), match.source_namespace)
    check_match_gateways(report, (*path, "gateways"), match.gateways, gateways)


def _check_parameter(report: Report, path: Path, name: str) -> None:
    if not name:
        report.refused(path, "a parameter needs a name")
    elif len(name.encode()) > _LONGEST_PARAMETER:
        report.refused(path, f"a parameter's name is at most {_LONGEST_PARAMETER} bytes long")


def _check_matched_header(report: Report, path: Path, name: str, gateways: tuple[str, ...]) -> None:
    if not name:
        report.refused(path, "a header needs a name")
    elif not is_claim(name):
        check_header_names(report, path, [name])
    elif MESH in gateways:
        report.error(path, "claims of tokens can be matched at gateways only; name one")
    elif not claim_names(name):
        report.error(path, f'"{name}" is no claim such as @request.auth.claims.group, or …[a][b]')
