"""Decides whether a request fits a match, as the proxy does.

The proxy compares parameters of the query as they are written, and the lines of a repeated header
one by one.
"""

from __future__ import annotations

from collections.abc import Iterable

import re2

from meshd.base.json_values import value_at
from meshd.matching.conditions import ClaimMatch, HeaderMatch, QueryMatch, RouteMatch, TextMatch
from meshd.matching.request import Request


def fits(match: RouteMatch, request: Request) -> bool:
    """Return whether a request, as the proxy reads it, is one that the match takes."""
    path, _, query = request.path.partition("?")
    return (
        text_fits(match.path, path)
        and all(_header_matches(wanted, request) for wanted in match.headers)
        and _query_matches(match.query, query)
        and all(_claim_matches(wanted, request) for wanted in match.claims)
    )


def _claim_matches(wanted: ClaimMatch, request: Request) -> bool:
    value = value_at(request.claims, *wanted.names)
    text = wanted.text
    if text is None:
        return (value is not None) != wanted.unwanted
    given = value if isinstance(value, list) else [value]
    return any(isinstance(one, str) and text_fits(text, one) for one in given) != wanted.unwanted


def _header_matches(wanted: HeaderMatch, request: Request) -> bool:
    """Return whether one of the values fits, or none where the header is unwanted."""
    values = request.values(wanted.name)
    if wanted.text is None:
        return bool(values) != wanted.unwanted
    if wanted.unwanted and not values:
        values = ("",)
    text = wanted.text
    return any(text_fits(text, value) for value in values) != wanted.unwanted


def _query_matches(wanted: Iterable[QueryMatch], query: str) -> bool:
    """Return whether the parameters fit, as they are written; of repeated ones the first counts."""
    values: dict[str, str] = {}
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        values.setdefault(name, value)
    return all(
        parameter.name in values
        and (parameter.text is None or text_fits(parameter.text, values[parameter.name]))
        for parameter in wanted
    )


def text_fits(match: TextMatch, text: str) -> bool:
    """Return whether a text meets a condition."""
    if match.kind == "regex":
        return re2.fullmatch(match.value, text) is not None
    wanted = match.value
    if match.ignore_case:
        wanted, text = wanted.lower(), text.lower()
    return text == wanted if match.kind == "exact" else text.startswith(wanted)
