"""Reads the conditions of an HTTPMatchRequest on a request itself.

The conditions on where requests enter (port, gateway, client's labels) are read by ``entrances``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshd.api.virtual_service.types import HTTPMatchRequest, StringMatch, claim_names, is_claim
from meshd.matching.conditions import (
    EVERY_PATH,
    ClaimMatch,
    HeaderMatch,
    QueryMatch,
    RouteMatch,
    TextMatch,
)

_PSEUDO_HEADERS: Final = frozenset({"uri", "scheme", "method", "authority"})
"""Header names that the API ignores in ``headers``: they have fields of their own."""


def route_match(match: HTTPMatchRequest | None) -> RouteMatch:
    """Return the conditions on a request itself."""
    if match is None:
        return RouteMatch()
    pseudo = (
        (":method", match.method),
        (":authority", match.authority),
        (":scheme", match.scheme),
    )
    wanted = (item for item in sorted(match.headers.items()) if _real(item[0]))
    unwanted = (item for item in sorted(match.without_headers.items()) if _real(item[0]))
    return RouteMatch(
        _path(match),
        (
            *(HeaderMatch(name, _value(text)) for name, text in wanted),
            *(HeaderMatch(name, _value(text), unwanted=True) for name, text in unwanted),
            *(
                HeaderMatch(name, _value(text, ignore_case=name == ":authority"))
                for name, text in pseudo
                if text and not _is_empty(text)
            ),
        ),
        tuple(QueryMatch(name, _value(text)) for name, text in sorted(match.query_params.items())),
        tuple(_claims(match)),
    )


def _claims(match: HTTPMatchRequest) -> Iterator[ClaimMatch]:
    for headers, unwanted in ((match.headers, False), (match.without_headers, True)):
        for name, text in sorted(headers.items()):
            if is_claim(name):
                # Of what is written otherwise, there is none.
                yield ClaimMatch(claim_names(name) or (name,), _value(text), unwanted)


def _path(match: HTTPMatchRequest) -> TextMatch:
    uri = match.uri or StringMatch()
    if uri.regex is not None:
        return TextMatch("regex", uri.regex)
    if uri.exact is not None:
        return TextMatch("exact", uri.exact, match.ignore_uri_case)
    if not uri.prefix and not match.ignore_uri_case:
        return EVERY_PATH
    return TextMatch("prefix", uri.prefix or "/", match.ignore_uri_case)


def text_match(match: StringMatch, *, ignore_case: bool = False) -> TextMatch:
    if match.regex is not None:
        return TextMatch("regex", match.regex)
    if match.prefix == "":
        return TextMatch("regex", ".*")
    if match.prefix is not None:
        return TextMatch("prefix", match.prefix, ignore_case)
    return TextMatch("exact", match.exact or "", ignore_case)


def _value(match: StringMatch, *, ignore_case: bool = False) -> TextMatch | None:
    """Return the condition on a value; None: any value will do."""
    if _is_empty(match) or match.regex in {"*", ".*"}:
        return None
    return text_match(match, ignore_case=ignore_case)


def _is_empty(match: StringMatch) -> bool:
    return match.exact is None and not match.prefix and match.regex is None


def _real(name: str) -> bool:
    """Return whether a header is neither a claim nor one with a field of its own."""
    return name.lower() not in _PSEUDO_HEADERS and not is_claim(name)
