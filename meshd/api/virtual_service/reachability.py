"""Finds routes and matches that no request or connection reaches, since an earlier one takes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from meshd.api.checks import Report
from meshd.api.decode import Path
from meshd.api.virtual_service.delegation import fits
from meshd.api.virtual_service.types import (
    HTTPMatchRequest,
    HTTPRoute,
    StringMatch,
    TCPRoute,
    TLSRoute,
    VirtualServiceSpec,
)

_Routes = Sequence[HTTPRoute] | Sequence[TLSRoute] | Sequence[TCPRoute]
_Place = tuple[int, int]
"""Index of the route, and of the match in it."""
_MOST_COMPARED: Final = 20_000
"""Pairs of prefixes of one object: a tenth of a second. Objects with more are looked at in part."""


def check_reachable(report: Report, spec: VirtualServiceSpec) -> None:
    for kind, routes in (("http", spec.http), ("tls", spec.tls), ("tcp", spec.tcp)):
        _check_catch_all(report, kind, routes)
        _check_repeated(report, kind, routes)
    _check_overlaps(report, spec.http)


def _check_catch_all(report: Report, kind: str, routes: _Routes) -> None:
    for index, route in enumerate(routes[:-1]):
        if _is_catch_all(route):
            what = "request" if kind == "http" else "connection"
            report.warning(
                ("spec", kind, index + 1),
                f"is never reached: {kind}[{index}] takes every {what}; put that one last",
            )
            return


def _is_catch_all(route: HTTPRoute | TLSRoute | TCPRoute) -> bool:
    if not route.match:
        return True
    return isinstance(route, HTTPRoute) and any(map(_takes_all, route.match))


def _takes_all(match: HTTPMatchRequest) -> bool:
    uri = match.uri
    every = uri is None or uri.prefix in {"", "/"} or uri.regex in {"*", ".*"}
    bare = _unnamed(msgspec.structs.replace(match, uri=None, ignore_uri_case=False))
    return every and bare == HTTPMatchRequest()


def _unnamed(match: HTTPMatchRequest) -> HTTPMatchRequest:
    return msgspec.structs.replace(match, name=None, stat_prefix=None)


def _check_repeated(report: Report, kind: str, routes: _Routes) -> None:
    first: dict[bytes, _Place] = {}
    for index, route in enumerate(routes):
        for number, match in enumerate(route.match):
            bare = _unnamed(match) if isinstance(match, HTTPMatchRequest) else match
            key = msgspec.json.encode(bare, enc_hook=str, order="deterministic")
            before = first.setdefault(key, (index, number))
            if before != (index, number):
                path: Path = ("spec", kind, index, "match", number)
                report.warning(path, f"has no effect: {_name(kind, before)} is the same")


def _name(kind: str, place: _Place) -> str:
    return f"{kind}[{place[0]}].match[{place[1]}]"


def _check_overlaps(report: Report, routes: Sequence[HTTPRoute]) -> None:
    """Report prefixes of paths that an earlier and shorter prefix takes."""
    earlier: dict[str, list[tuple[_Place, HTTPMatchRequest]]] = defaultdict(list)
    sizes: set[int] = set()
    left = iter(range(_MOST_COMPARED))
    for index, route in enumerate(routes):
        for number, match in enumerate(route.match):
            if not (match.uri and match.uri.prefix):
                continue
            prefix = match.uri.prefix
            shorter = (prefix[:size] for size in sorted(sizes) if size < len(prefix))
            candidates = (one for start in shorter for one in earlier.get(start, ()))
            compared = zip(candidates, left, strict=False)
            wider = (place for (place, one), _ in compared if _is_within(match, one))
            if (place := next(wider, None)) is not None:
                path: Path = ("spec", "http", index, "match", number)
                message = f"has no effect: {_name('http', place)} takes what begins with less"
                report.warning(path, message)
            earlier[prefix].append(((index, number), match))
            sizes.add(len(prefix))


def _is_within(narrow: HTTPMatchRequest, wide: HTTPMatchRequest) -> bool:
    """Return whether all requests of ``narrow`` are requests of ``wide``, as far as is simple to
    tell.

    A prefix is within another that begins it.
    """
    return (
        wide.ignore_uri_case >= narrow.ignore_uri_case
        and all(
            _covers(getattr(wide, name), getattr(narrow, name))
            for name in ("scheme", "method", "authority")
        )
        and all(
            name in getattr(narrow, field) and _covers(pattern, getattr(narrow, field)[name])
            for field in ("headers", "query_params")
            for name, pattern in getattr(wide, field).items()
        )
        and wide.without_headers.items() <= narrow.without_headers.items()
        and wide.source_labels.items() <= narrow.source_labels.items()
        and wide.port in {None, 0, narrow.port}
        and wide.source_namespace in {None, "", narrow.source_namespace}
        and (not wide.gateways or set() < set(narrow.gateways) <= set(wide.gateways))
    )


def _covers(wide: StringMatch | None, narrow: StringMatch | None) -> bool:
    """Return whether a pattern covers another; no pattern covers all, and is covered by no
    pattern."""
    return wide is None or wide == narrow or (narrow is not None and fits(narrow, wide))
