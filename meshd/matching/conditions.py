"""The conditions of HTTP routes: what they ask of a request."""

from __future__ import annotations

from typing import Final, Literal

import msgspec


class TextMatch(msgspec.Struct, frozen=True):
    """A condition on a text. A regular expression must match the whole text."""

    kind: Literal["exact", "prefix", "regex"]
    value: str
    ignore_case: bool = False


EVERY_PATH: Final = TextMatch("prefix", "/")


class HeaderMatch(msgspec.Struct, frozen=True):
    """A condition on a header, or on what a request says in its first line (``:method``)."""

    name: str
    text: TextMatch | None = None
    """None: any value."""
    unwanted: bool = False
    """The header must be missing, or have another value. A missing one counts as empty."""


class QueryMatch(msgspec.Struct, frozen=True):
    """A condition on a parameter of the query."""

    name: str
    text: TextMatch | None = None
    """None: any value."""


class ClaimMatch(msgspec.Struct, frozen=True):
    """A condition on a claim of the request's token: a text, or a list of texts of which one
    fits."""

    names: tuple[str, ...]
    """Of the claim, and of those within it."""
    text: TextMatch | None = None
    """None: any value."""
    unwanted: bool = False
    """The claim must be missing, or have another value."""


class RouteMatch(msgspec.Struct, frozen=True):
    """The conditions on a request, all of which must hold."""

    path: TextMatch = EVERY_PATH
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()
    claims: tuple[ClaimMatch, ...] = ()
