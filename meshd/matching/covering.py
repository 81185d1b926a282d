"""Decides whether one match takes all that another takes.

The answer is no where that is hard to decide: for two different regular expressions, for example.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Final

import re2

from meshd.matching.conditions import EVERY_PATH, HeaderMatch, QueryMatch, RouteMatch, TextMatch
from meshd.matching.fitting import text_fits

_EVERY_REQUEST: Final = RouteMatch()
_ALWAYS_THERE: Final = frozenset({":method", ":scheme"})
_SPECIAL: Final = frozenset(r"\.+*?()|[]{}^$")
"""Characters of a regular expression that do not stand for themselves."""


def is_unconditional(match: RouteMatch) -> bool:
    """Return whether a match holds for each request, so that routes after it are never reached."""
    return covers(match, _EVERY_REQUEST)


def covers(wide: RouteMatch, narrow: RouteMatch) -> bool:
    """Return whether each request that fits ``narrow`` fits ``wide``."""
    return (
        covers_path(wide.path, narrow.path)
        and all(_is_implied(wanted, narrow.headers) for wanted in wide.headers)
        and all(_is_asked(wanted, narrow.query) for wanted in wide.query)
        and all(wanted in narrow.claims for wanted in wide.claims)
    )


def covers_path(wide: TextMatch, narrow: TextMatch) -> bool:
    """Return whether a condition on paths, which all begin with a slash, covers another."""
    return _takes_every_path(wide) or covers_text(wide, narrow)


def _takes_every_path(match: TextMatch) -> bool:
    return _takes_every_text(match) or (
        match.value == EVERY_PATH.value
        if match.kind == "prefix"
        else match.kind == "regex" and _bare(match.value) == "/.*"
    )


def covers_text(wide: TextMatch | None, narrow: TextMatch | None) -> bool:
    """Return whether each text that fits ``narrow`` fits ``wide``; None takes any text."""
    if wide is None or wide == narrow or _takes_every_text(wide):
        return True
    if narrow is None or narrow.kind == "regex":
        return False
    if wide.kind == "regex":
        return _covers_literal(wide, narrow)
    if wide.kind == "exact" and narrow.kind == "prefix":
        return False
    beginning = narrow.value[: len(wide.value)] if wide.kind == "prefix" else narrow.value
    if wide.ignore_case:
        return beginning.lower() == wide.value.lower()
    return beginning == wide.value and not (narrow.ignore_case and _has_case(beginning))


def _takes_every_text(match: TextMatch) -> bool:
    return _bare(match.value) == ".*" if match.kind == "regex" else match == TextMatch("prefix", "")


def _bare(pattern: str) -> str:
    """Return a regular expression without anchors, which change nothing: the whole text must fit.

    A dollar sign after a backslash is no anchor.
    """
    pattern = pattern.removeprefix("^")
    return pattern if pattern.endswith("\\$") else pattern.removesuffix("$")


def _covers_literal(wide: TextMatch, narrow: TextMatch) -> bool:
    """Return whether a regular expression covers a text or a beginning."""
    if narrow.ignore_case and _has_case(narrow.value):
        return False
    if narrow.kind == "exact":
        return _fits(wide.value, narrow.value)
    literal, any_rest = _bare(wide.value)[:-2], _bare(wide.value).endswith(".*")
    return any_rest and not _SPECIAL & set(literal) and narrow.value.startswith(literal)


@functools.lru_cache(maxsize=4096)
def _fits(pattern: str, text: str) -> bool:
    """Return whether a text fits; none fits an invalid regular expression."""
    try:
        return text_fits(TextMatch("regex", pattern), text)
    except re2.error:
        return False


def _has_case(text: str) -> bool:
    return text.lower() != text.upper()


def _is_implied(wanted: HeaderMatch, given: Iterable[HeaderMatch]) -> bool:
    """Return whether a condition on a header holds wherever the given ones do."""
    if wanted.name in _ALWAYS_THERE and not wanted.unwanted and covers_text(wanted.text, None):
        return True
    name = wanted.name.lower()
    return any(each.name.lower() == name and _implies(each, wanted) for each in given)


def _implies(given: HeaderMatch, wanted: HeaderMatch) -> bool:
    if given.unwanted != wanted.unwanted:
        return False
    if not wanted.unwanted:
        return covers_text(wanted.text, given.text)
    if wanted.text is None or given.text is None:
        # A header that is missing counts as empty.
        missing = given.text is None
        return missing and (wanted.text is None or not _may_be_empty(wanted.text))
    return covers_text(given.text, wanted.text)


def _may_be_empty(match: TextMatch) -> bool:
    return match.kind == "regex" or not match.value


def _is_asked(wanted: QueryMatch, given: Iterable[QueryMatch]) -> bool:
    return any(each.name == wanted.name and covers_text(wanted.text, each.text) for each in given)
