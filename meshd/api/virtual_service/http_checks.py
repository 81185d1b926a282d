"""Validates HTTP routes of a VirtualService: their matches and actions."""

from __future__ import annotations

import base64
import http
from typing import Final

from meshd.api.checks import Report, check_duration, check_header_names, check_port, check_range
from meshd.api.decode import Path, nearest
from meshd.api.patterns import (
    accepts,
    check_regex,
    check_string_match,
    known_part,
    substitution_problem,
)
from meshd.api.virtual_service.header_checks import check_authority, check_headers
from meshd.api.virtual_service.http_match_checks import check_http_match
from meshd.api.virtual_service.types import (
    REDIRECT_CODES,
    CorsPolicy,
    FaultAbort,
    FaultDelay,
    HTTPDirectResponse,
    HTTPFaultInjection,
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
_STATUSES: Final = frozenset(int(status) for status in http.HTTPStatus)
_LARGEST_BODY: Final = 1024 * 1024
_LARGE_BODY: Final = 100 * 1024
"""Bytes."""
_EVERY_TEXT: Final = {".*", ".+"}
_LEAST_SHARE: Final = 0.0001
"""Per cent: proxies count in millionths."""
_GRPC_STATUS: Final = {
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}  # fmt: skip


def check_http_route(
    report: Report, path: Path, route: HTTPRoute, gateways: tuple[str, ...]
) -> None:
    """Check all but the destinations, which TCP has too; ``gateways`` are the VirtualService's."""
    _check_action(report, path, route)
    for index, match in enumerate(route.match):
        check_http_match(report, (*path, "match", index), match, gateways)
    check_duration(report, (*path, "timeout"), route.timeout)
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
    check_headers(report, (*path, "headers"), route.headers)
    check_authority(report, path, route)
    for index, destination in enumerate(route.route):
        check_headers(report, (*path, "route", index, "headers"), destination.headers)


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
        for name, given, refused in (
            ("rewrite", route.rewrite, True),
            ("fault", route.fault, True),
            ("retries", route.retries, False),
            ("mirror", route.mirror, False),
            ("mirrors", route.mirrors, False),
            ("timeout", route.timeout, False),
            ("corsPolicy", route.cors_policy, False),
        ):
            if given:
                say = report.error if refused else report.warning
                say((*path, name), f"has no meaning beside {actions[0]}; remove it")


def _check_redirect(report: Report, path: Path, redirect: HTTPRedirect) -> None:
    if not any((redirect.uri, redirect.prefix_rewrite, redirect.authority, redirect.scheme)) and (
        redirect.port is None and redirect.derive_port is None
    ):
        message = "changes nothing: it needs one of uri, prefixRewrite, authority, port, scheme"
        report.error(path, message)
    for one, other, both in (
        ("port", "derivePort", redirect.port is not None and redirect.derive_port is not None),
        ("uri", "prefixRewrite", redirect.uri and redirect.prefix_rewrite),
    ):
        if both:
            report.error(path, f"has {one} and {other}; only one of them is possible")
    check_port(report, (*path, "port"), redirect.port or None)
    code = redirect.redirect_code or None
    check_range(report, (*path, "redirectCode"), code, 300, 399)
    if code is not None and 300 <= code <= 399 and code not in REDIRECT_CODES:
        known = ", ".join(map(str, REDIRECT_CODES))
        report.warning((*path, "redirectCode"), f"{code} cannot be sent (only {known}): 301 is")
    if redirect.scheme not in {None, "", "http", "https"}:
        report.error((*path, "scheme"), f'"{redirect.scheme}" is not http or https')


def _check_direct_response(report: Report, path: Path, response: HTTPDirectResponse) -> None:
    check_range(report, (*path, "status"), response.status, 200, 599, by_proxies=True)
    body = response.body
    if body is None:
        return
    if body.string is not None and body.bytes is not None:
        report.error((*path, "body"), "has string and bytes; only one of them is possible")
    if body.bytes is not None:
        try:
            base64.b64decode(body.bytes, validate=True)
        except ValueError:
            report.error((*path, "body", "bytes"), "is not base64")
    size = len((body.string or body.bytes or "").encode())
    if size > _LARGEST_BODY:
        report.refused((*path, "body"), "is longer than 1 MiB")
    elif size > _LARGE_BODY:
        message = f"is {size // 1024} KiB long, and each proxy holds a copy; serve it from a server"
        report.warning((*path, "body"), message)


def _check_rewrite(report: Report, path: Path, rewrite: HTTPRewrite) -> None:
    if not (rewrite.uri or rewrite.authority or rewrite.uri_regex_rewrite):
        report.error(path, "changes nothing: it needs one of uri, authority, uriRegexRewrite")
    if rewrite.uri and rewrite.uri_regex_rewrite:
        report.error(path, "has uri and uriRegexRewrite; only one of them is possible")
    if rewrite.uri_regex_rewrite:
        pattern = rewrite.uri_regex_rewrite.match
        check_regex(report, (*path, "uriRegexRewrite", "match"), pattern)
        place, written = (*path, "uriRegexRewrite", "rewrite"), rewrite.uri_regex_rewrite.rewrite
        if problem := substitution_problem(pattern, written):
            report.warning(place, problem)
        elif unknown := written.removeprefix(known_part(written)):
            message = (
                rf'"{unknown[:2]}" stands for nothing (\0 to \9 and \\ do): "{unknown}" is lost'
            )
            report.warning(place, message)


def _check_retries(report: Report, path: Path, retries: HTTPRetry) -> None:
    check_range(report, (*path, "attempts"), retries.attempts, 0, 2**31 - 1)
    check_duration(report, (*path, "perTryTimeout"), retries.per_try_timeout)
    check_duration(report, (*path, "backoff"), retries.backoff)
    for name, given in (
        ("retryOn", retries.retry_on),
        ("perTryTimeout", retries.per_try_timeout is not None),
        ("retryRemoteLocalities", retries.retry_remote_localities is not None),
    ):
        if retries.attempts == 0 and given:
            report.error((*path, name), "has no meaning while attempts is 0 (or left out)")
    for condition in (retries.retry_on or "").split(",") if retries.retry_on else ():
        if condition not in _RETRY_ON and not _is_status(condition):
            hint = nearest(condition, _RETRY_ON)
            report.error((*path, "retryOn"), f'"{condition}" is not a condition{hint}')


def _is_status(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) == 3 and int(text) in _STATUSES


def _check_fault(report: Report, path: Path, fault: HTTPFaultInjection) -> None:
    if not (fault.delay or fault.abort):
        report.error(path, "injects nothing: it needs one of delay, abort")
    if fault.delay:
        if fault.delay.exponential_delay is not None:
            report.error((*path, "delay", "exponentialDelay"), "is not supported; use fixedDelay")
        elif fault.delay.fixed_delay is None:
            report.warning((*path, "delay"), "delays nothing without fixedDelay")
        check_duration(report, (*path, "delay", "fixedDelay"), fault.delay.fixed_delay)
        _check_share(report, (*path, "delay"), fault.delay)
    if fault.abort:
        _check_abort(report, (*path, "abort"), fault.abort)


def _check_abort(report: Report, path: Path, abort: FaultAbort) -> None:
    if abort.http2_error is not None:
        report.error((*path, "http2Error"), "is not supported; use httpStatus or grpcStatus")
    elif abort.http_status is not None and abort.grpc_status is not None:
        report.error(path, "has httpStatus and grpcStatus; only one of them is possible")
    elif abort.http_status is None and abort.grpc_status is None:
        report.warning(path, "aborts nothing: it needs one of httpStatus, grpcStatus")
    check_range(report, (*path, "httpStatus"), abort.http_status, 200, 599, by_proxies=True)
    if abort.grpc_status is not None and abort.grpc_status not in _GRPC_STATUS:
        hint = nearest(abort.grpc_status.upper(), _GRPC_STATUS)
        report.error((*path, "grpcStatus"), f'"{abort.grpc_status}" is not a gRPC status{hint}')
    _check_share(report, path, abort)


def _check_share(report: Report, path: Path, fault: FaultDelay | FaultAbort) -> None:
    check_range(report, (*path, "percent"), fault.percent, 0, 100)
    if fault.percentage:
        value = fault.percentage.value
        check_range(
            report, (*path, "percentage", "value"), value, _LEAST_SHARE if value else 0, 100
        )


def _check_mirrors(report: Report, path: Path, route: HTTPRoute) -> None:
    if route.mirror and route.mirrors:
        report.error(path, "has mirror and mirrors; only one of them is possible")
    if route.mirror is None:
        for name, given in (
            ("mirrorPercentage", route.mirror_percentage),
            ("mirrorPercent", route.mirror_percent),
        ):
            if given is not None:
                report.warning((*path, name), "has no effect without mirror")
    if route.mirror_percent is not None:
        report.warning((*path, "mirrorPercent"), "is deprecated; write mirrorPercentage")
    check_range(report, (*path, "mirrorPercent"), route.mirror_percent, 0, 100)
    if route.mirror_percentage:
        place: Path = (*path, "mirrorPercentage", "value")
        _check_copied(report, place, route.mirror_percentage.value)
    for index, mirror in enumerate(route.mirrors):
        if mirror.percentage:
            place = (*path, "mirrors", index, "percentage", "value")
            _check_copied(report, place, mirror.percentage.value)


def _check_copied(report: Report, path: Path, value: float) -> None:
    check_range(report, path, value, 0, 100)
    if 0 < value < _LEAST_SHARE:
        report.warning(path, f"is below {_LEAST_SHARE:g}, the least share: nothing is copied")


def _check_cors(report: Report, path: Path, cors: CorsPolicy) -> None:
    if cors.allow_origin and cors.allow_origins:
        report.error(path, "has allowOrigin and allowOrigins; write allowOrigins only")
    for index, origin in enumerate(cors.allow_origins):
        check_string_match(report, (*path, "allowOrigins", index), origin)
        if not (origin.exact or origin.prefix or origin.regex):
            report.error((*path, "allowOrigins", index), "needs one of exact, prefix, regex")
        elif origin.regex and origin.regex not in _EVERY_TEXT and accepts(origin.regex, "*"):
            message = f'"{origin.regex}" matches "*", and therefore allows every origin'
            report.warning((*path, "allowOrigins", index, "regex"), message)
    for index, method in enumerate(cors.allow_methods):
        if method not in _METHODS:
            place = (*path, "allowMethods", index)
            report.error(place, f'"{method}" is not a method{nearest(method.upper(), _METHODS)}')
    for field, names in (
        ("allowHeaders", cors.allow_headers),
        ("exposeHeaders", cors.expose_headers),
    ):
        for index, name in enumerate(names):
            if name != "*":
                check_header_names(report, (*path, field, index), [name])
    check_duration(report, (*path, "maxAge"), cors.max_age)
    if cors.max_age is not None and cors.max_age % 1:
        report.error((*path, "maxAge"), "must be whole seconds")
