"""HTTP routes of a VirtualService: what they match, and what they do with a request."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from meshd.config.validate.fields import (
    Report,
    check_duration,
    check_header_names,
    check_host,
    check_labels,
    check_port,
    check_range,
    check_regex,
    check_string_match,
)
from meshd.decoding import Path, nearest
from meshd.model.routes import (
    CorsPolicy,
    FaultAbort,
    FaultDelay,
    Headers,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRoute,
)

_METHODS: Final = {
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*",
}  # fmt: skip
_RETRY_ON: Final = {
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited",
    "retriable-4xx", "refused-stream", "retriable-status-codes", "retriable-headers",
    "http3-post-connect-failure", "cancelled", "deadline-exceeded", "internal",
    "resource-exhausted", "unavailable",
}  # fmt: skip
"""https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter"""
_GRPC_STATUS: Final = {
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}  # fmt: skip


def check_http_route(
    report: Report, path: Path, route: HTTPRoute, gateways: tuple[str, ...]
) -> None:
    """All but the destinations, which TCP has too. ``gateways`` are the VirtualService's."""
    _check_action(report, path, route)
    for index, match in enumerate(route.match):
        _check_match(report, (*path, "match", index), match, gateways)
    check_duration(report, (*path, "timeout"), route.timeout, zero=True)
    if route.redirect:
        _check_redirect(report, (*path, "redirect"), route.redirect)
    if route.direct_response:
        _check_direct_response(report, (*path, "directResponse"), route.direct_response)
    if route.rewrite:
        _check_rewrite(report, (*path, "rewrite"), route.rewrite)
    if route.retries:
        _check_retries(report, (*path, "retries"), route.retries)
    if route.fault:
        _check_fault(report, (*path, "fault"), route.fault)
    if route.cors_policy:
        _check_cors(report, (*path, "corsPolicy"), route.cors_policy)
    _check_mirrors(report, path, route)
    _check_headers(report, (*path, "headers"), route.headers)
    for index, destination in enumerate(route.route):
        _check_headers(report, (*path, "route", index, "headers"), destination.headers)


def check_delegated_matches(report: Report, path: Path, route: HTTPRoute) -> None:
    """Of a route that delegates, or is a delegate's: what cannot be compared cannot be merged."""
    for index, match in enumerate(route.match):
        for name, pattern in (
            ("uri", match.uri),
            ("scheme", match.scheme),
            ("method", match.method),
            ("authority", match.authority),
            *((f"headers.{key}", one) for key, one in match.headers.items()),
            *((f"withoutHeaders.{key}", one) for key, one in match.without_headers.items()),
            *((f"queryParams.{key}", one) for key, one in match.query_params.items()),
        ):
            if pattern and pattern.regex is not None:
                field, _, key = name.partition(".")
                report.error(
                    (*path, "match", index, field, *([key] if key else []), "regex"),
                    "is not possible where one VirtualService delegates to another",
                )


def is_catch_all(route: HTTPRoute) -> bool:
    """Whether it takes every request, so that what follows it is in vain."""
    return not route.match or any(_matches_all(match) for match in route.match)


def _matches_all(match: HTTPMatchRequest) -> bool:
    uri = match.uri is None or match.uri.prefix == "/" or match.uri.regex in {"*", ".*"}
    rest = (
        match.scheme,
        match.method,
        match.authority,
        match.headers,
        match.without_headers,
        match.query_params,
        match.port,
        match.source_labels,
        match.source_namespace,
        match.gateways,
    )
    return uri and not any(rest)


def _check_action(report: Report, path: Path, route: HTTPRoute) -> None:
    actions = [
        name
        for name, given in (
            ("route", route.route),
            ("redirect", route.redirect),
            ("directResponse", route.direct_response),
            ("delegate", route.delegate),
        )
        if given is not None and given != ()
    ]
    if not actions:
        report.error(
            path, "does nothing: it needs one of route, redirect, directResponse, delegate"
        )
    if len(actions) > 1:
        report.error(path, f"has {' and '.join(actions)}; only one of them is possible")
    if actions and actions[0] in {"redirect", "directResponse"}:
        for name, given in (
            ("rewrite", route.rewrite),
            ("retries", route.retries),
            ("mirror", route.mirror),
            ("mirrors", route.mirrors),
            ("timeout", route.timeout),
        ):
            if given:
                report.error((*path, name), f"has no meaning beside {actions[0]}; remove it")


def _check_match(
    report: Report, path: Path, match: HTTPMatchRequest, gateways: tuple[str, ...]
) -> None:
    for name, pattern in (
        ("uri", match.uri),
        ("scheme", match.scheme),
        ("method", match.method),
        ("authority", match.authority),
    ):
        check_string_match(report, (*path, name), pattern)
    for field, patterns in (
        ("headers", match.headers),
        ("withoutHeaders", match.without_headers),
        ("queryParams", match.query_params),
    ):
        for name, pattern in patterns.items():
            check_string_match(report, (*path, field, name), pattern, may_be_empty=True)
            if field != "queryParams":
                check_header_names(report, (*path, field, name), [name])
    check_port(report, (*path, "port"), match.port)
    check_labels(report, (*path, "sourceLabels"), match.source_labels)
    for index, name in enumerate(match.gateways):
        if name not in gateways:
            report.error(
                (*path, "gateways", index),
                f'"{name}" is not among spec.gateways ({", ".join(gateways)}), so nothing matches',
            )


def _check_redirect(report: Report, path: Path, redirect: HTTPRedirect) -> None:
    parts = (redirect.uri, redirect.authority, redirect.port, redirect.scheme, redirect.derive_port)
    if not any(parts):
        report.error(path, "changes nothing: it needs one of uri, authority, port, scheme")
    if redirect.port is not None and redirect.derive_port is not None:
        report.error(path, "has port and derivePort; only one of them is possible")
    check_port(report, (*path, "port"), redirect.port)
    if redirect.redirect_code not in {None, 301, 302, 303, 307, 308}:
        report.error(
            (*path, "redirectCode"),
            f"{redirect.redirect_code} is not one of 301, 302, 303, 307, 308",
        )
    if redirect.scheme not in {None, "http", "https"}:
        report.error((*path, "scheme"), f'"{redirect.scheme}" is not http or https')


def _check_direct_response(report: Report, path: Path, response: HTTPDirectResponse) -> None:
    check_range(report, (*path, "status"), response.status, 200, 599)
    body = response.body
    if body is None:
        return
    if (body.string is None) == (body.bytes is None):
        report.error((*path, "body"), "needs exactly one of string, bytes")
    if body.bytes is not None:
        try:
            base64.b64decode(body.bytes, validate=True)
        except (binascii.Error, ValueError):
            report.error((*path, "body", "bytes"), "is not base64")
    if len(body.string or body.bytes or "") > 1024 * 1024:
        report.error((*path, "body"), "is longer than 1 MiB")


def _check_rewrite(report: Report, path: Path, rewrite: HTTPRewrite) -> None:
    if not (rewrite.uri or rewrite.authority or rewrite.uri_regex_rewrite):
        report.error(path, "changes nothing: it needs one of uri, authority, uriRegexRewrite")
    if rewrite.uri and rewrite.uri_regex_rewrite:
        report.error(path, "has uri and uriRegexRewrite; only one of them is possible")
    if rewrite.uri_regex_rewrite:
        pattern = rewrite.uri_regex_rewrite.match
        check_regex(report, (*path, "uriRegexRewrite", "match"), pattern)


def _check_retries(report: Report, path: Path, retries: HTTPRetry) -> None:
    check_range(report, (*path, "attempts"), retries.attempts, 0, 2**31 - 1)
    check_duration(report, (*path, "perTryTimeout"), retries.per_try_timeout, zero=True)
    check_duration(report, (*path, "backoff"), retries.backoff)
    if retries.attempts == 0 and (retries.retry_on or retries.per_try_timeout or retries.backoff):
        message = "attempts is 0, so retryOn, perTryTimeout and backoff have no meaning"
        report.error(path, message)
    for written in (retries.retry_on or "").split(","):
        condition = written.strip()
        if condition and condition not in _RETRY_ON and not _is_status(condition):
            hint = nearest(condition, _RETRY_ON)
            report.error((*path, "retryOn"), f'"{condition}" is not a condition{hint}')


def _is_status(text: str) -> bool:
    return text.isascii() and text.isdigit() and 100 <= int(text[:4]) <= 599


def _check_fault(report: Report, path: Path, fault: HTTPFaultInjection) -> None:
    if not (fault.delay or fault.abort):
        report.error(path, "injects nothing: it needs one of delay, abort")
    if fault.delay:
        if fault.delay.exponential_delay is not None:
            report.error((*path, "delay", "exponentialDelay"), "is not supported; use fixedDelay")
        elif fault.delay.fixed_delay is None:
            report.error((*path, "delay", "fixedDelay"), "is required")
        check_duration(report, (*path, "delay", "fixedDelay"), fault.delay.fixed_delay)
        _check_share(report, (*path, "delay"), fault.delay)
    if fault.abort:
        _check_abort(report, (*path, "abort"), fault.abort)


def _check_abort(report: Report, path: Path, abort: FaultAbort) -> None:
    if abort.http2_error is not None:
        report.error((*path, "http2Error"), "is not supported; use httpStatus or grpcStatus")
    elif (abort.http_status is None) == (abort.grpc_status is None):
        report.error(path, "needs exactly one of httpStatus, grpcStatus")
    check_range(report, (*path, "httpStatus"), abort.http_status, 200, 599)
    if abort.grpc_status is not None and abort.grpc_status.upper() not in _GRPC_STATUS:
        hint = nearest(abort.grpc_status.upper(), _GRPC_STATUS)
        report.error((*path, "grpcStatus"), f'"{abort.grpc_status}" is not a gRPC status{hint}')
    _check_share(report, path, abort)


def _check_share(report: Report, path: Path, fault: FaultDelay | FaultAbort) -> None:
    check_range(report, (*path, "percent"), fault.percent, 0, 100)
    if fault.percentage:
        check_range(report, (*path, "percentage", "value"), fault.percentage.value, 0, 100)


def _check_mirrors(report: Report, path: Path, route: HTTPRoute) -> None:
    if route.mirror and route.mirrors:
        report.error(path, "has mirror and mirrors; only one of them is possible")
    if route.mirror is None:
        for name, given in (
            ("mirrorPercentage", route.mirror_percentage),
            ("mirrorPercent", route.mirror_percent),
        ):
            if given is not None:
                report.error((*path, name), "has no meaning without mirror")
    check_range(report, (*path, "mirrorPercent"), route.mirror_percent, 0, 100)
    if route.mirror_percentage:
        value = route.mirror_percentage.value
        check_range(report, (*path, "mirrorPercentage", "value"), value, 0, 100)
    for index, mirror in enumerate(route.mirrors):
        if mirror.percentage:
            place = (*path, "mirrors", index, "percentage", "value")
            check_range(report, place, mirror.percentage.value, 0, 100)


def _check_cors(report: Report, path: Path, cors: CorsPolicy) -> None:
    if cors.allow_origin and cors.allow_origins:
        report.error(path, "has allowOrigin and allowOrigins; write allowOrigins only")
    for index, origin in enumerate(cors.allow_origins):
        check_string_match(report, (*path, "allowOrigins", index), origin)
    for index, method in enumerate(cors.allow_methods):
        if method not in _METHODS:
            place = (*path, "allowMethods", index)
            report.error(place, f'"{method}" is not a method{nearest(method.upper(), _METHODS)}')
    for field, names in (
        ("allowHeaders", cors.allow_headers),
        ("exposeHeaders", cors.expose_headers),
    ):
        for index, name in enumerate(names):
            check_header_names(report, (*path, field, index), [name])
    check_duration(report, (*path, "maxAge"), cors.max_age, zero=True)


def _check_headers(report: Report, path: Path, headers: Headers | None) -> None:
    if headers is None:
        return
    for field, operations in (("request", headers.request), ("response", headers.response)):
        if operations is None:
            continue
        for verb, names in (
            ("set", operations.set),
            ("add", operations.add),
            ("remove", operations.remove),
        ):
            check_header_names(report, (*path, field, verb), names)
            changed = [name for name in names if name.startswith(":") and name != ":authority"]
            if changed:
                report.error((*path, field, verb), f'"{changed[0]}" cannot be changed')
        authority = operations.set.get("host") or operations.set.get(":authority")
        if field == "request" and authority and "%" not in authority:
            check_host(report, (*path, field, "set"), authority.partition(":")[0])
