"""Delegation: a route of one VirtualService that leaves the rest to another, and their merger.
Pure.

After https://istio.io/latest/docs/reference/config/networking/virtual-service/#Delegate: the
delegate's matches must be subsets of the root's, or its route has no effect; what a delegate's
route leaves out it takes from the root's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from meshd.api.base import Key, Object, exported
from meshd.api.gateway.types import gateway_name
from meshd.api.virtual_service.types import (
    Delegate,
    HTTPMatchRequest,
    HTTPRoute,
    StringMatch,
    VirtualService,
)

_INHERITED: Final = (
    "rewrite",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirror_percent",
    "mirror_percentage",
    "mirrors",
    "cors_policy",
    "headers",
)
Route = TypeVar("Route", bound=HTTPRoute)
Match = TypeVar("Match", bound=HTTPMatchRequest)
_PATTERNS: Final = ("uri", "scheme", "method", "authority")


def merge_route(root: HTTPRoute, route: Route) -> Route | None:
    """Return a delegate's route under the root's; None if their matches conflict.

    The result still names the delegate (``delegate``), and is of the delegate's own type.
    """
    matches = _merge_matches(root.match, route.match)
    if matches is None:
        return None
    inherited = {name: getattr(root, name) for name in _INHERITED if not getattr(route, name)}
    return msgspec.structs.replace(
        route,
        name=_joined(root.name, route.name),
        match=matches,
        delegate=root.delegate,
        **inherited,
    )


def why_not(delegate: Object | None, key: Key, client: str) -> str:
    """Return why a root of namespace ``client`` has no routes of the delegate that it names with
    ``key``; empty: it has them."""
    if not isinstance(delegate, VirtualService):
        return f"{key} not found"
    if not delegate.is_delegate:
        return f"{key} has hosts, so it is not a delegate"
    if not exported(delegate.spec.export_to, key.namespace, client):
        return f"{key} is not exported to {client}"
    return ""


def delegate_key(delegate: Delegate, client: str) -> Key:
    """Return the key of the delegate that a root of namespace ``client`` names."""
    return Key(VirtualService.KIND, delegate.namespace or client, delegate.name)


def with_full_gateways(match: Match, owner: str) -> Match:
    """Return a match with full names of gateways, which would otherwise be read as the root's."""
    gateways = tuple(gateway_name(name, owner) for name in match.gateways)
    return msgspec.structs.replace(match, gateways=gateways)


def _joined(root: str | None, leaf: str | None) -> str | None:
    return f"{root}-{leaf}" if root and leaf else leaf or root


def _merge_matches(
    root: tuple[HTTPMatchRequest, ...], leaf: tuple[HTTPMatchRequest, ...]
) -> tuple[HTTPMatchRequest, ...] | None:
    """Return each match of the delegate with each match of the root of which it is a subset."""
    if not root or not leaf:
        return root or leaf
    merged: list[HTTPMatchRequest] = []
    for narrow in leaf:
        found = [_merge_match(wide, narrow) for wide in root if _is_subset(narrow, wide)]
        if not found:
            return None
        merged += found
    return tuple(merged)


def _merge_match(wide: HTTPMatchRequest, narrow: HTTPMatchRequest) -> HTTPMatchRequest:
    taken = {
        name: getattr(narrow, name) or getattr(wide, name)
        for name in (*_PATTERNS, "port", "source_namespace", "gateways", "stat_prefix")
    }
    return msgspec.structs.replace(
        narrow,
        name=_joined(wide.name, narrow.name),
        headers={**wide.headers, **narrow.headers},
        without_headers={**wide.without_headers, **narrow.without_headers},
        query_params={**wide.query_params, **narrow.query_params},
        source_labels={**wide.source_labels, **narrow.source_labels},
        **taken,
    )


def _is_subset(narrow: HTTPMatchRequest, wide: HTTPMatchRequest) -> bool:
    """Return whether the matches combine: the narrower nowhere asks for what the wider excludes."""
    patterns = (
        *((getattr(narrow, name), getattr(wide, name)) for name in _PATTERNS),
        *_both(narrow.headers, wide.headers),
        # What the root asks to be there, the delegate cannot ask to be absent.
        *_both(narrow.without_headers, wide.headers),
        *_both(narrow.query_params, wide.query_params),
    )
    return (
        all(fits(leaf, root) for leaf, root in patterns)
        and narrow.ignore_uri_case == wide.ignore_uri_case
        and _same_or_open(narrow.port, wide.port)
        and _same_or_open(narrow.source_namespace, wide.source_namespace)
        and all(
            wide.source_labels.get(key, value) == value
            for key, value in narrow.source_labels.items()
        )
        and (not wide.gateways or set(narrow.gateways) <= set(wide.gateways))
    )


def _same_or_open(narrow: int | str | None, wide: int | str | None) -> bool:
    return not narrow or not wide or narrow == wide


def _both(
    narrow: Mapping[str, StringMatch], wide: Mapping[str, StringMatch]
) -> list[tuple[StringMatch | None, StringMatch | None]]:
    return [(pattern, wide.get(name)) for name, pattern in narrow.items()]


def fits(narrow: StringMatch | None, wide: StringMatch | None) -> bool:
    """Return whether one pattern fits another; regular expressions cannot be compared and never
    do."""
    if narrow is None or wide is None:
        return True
    if narrow.regex is not None or wide.regex is not None:
        return False
    if wide.exact is not None:
        return narrow.exact == wide.exact
    text = narrow.exact if narrow.exact is not None else narrow.prefix
    return text is not None and wide.prefix is not None and text.startswith(wide.prefix)
