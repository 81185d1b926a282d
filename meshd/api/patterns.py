"""Validates regular expressions, as RE2 judges them, and matches of strings."""

from __future__ import annotations

import contextlib
import functools
import re
from typing import Final

import re2

from meshd.api.checks import Report
from meshd.api.decode import Path
from meshd.api.virtual_service.types import MAX_REGEX_PROGRAM, StringMatch

_LONGEST_REGEX: Final = 1024
"""Characters. Istio's limit."""


_MOST_INSTRUCTIONS: Final = 8 * MAX_REGEX_PROGRAM
"""Instructions of RE2 in all regular expressions of one object: each costs time here, and memory in
proxies."""


_QUIET: Final = re2.Options()


_QUIET.log_errors = False


_QUIET.max_mem = 1024 * 1024
"""Bytes: enough for a third more than ``MAX_REGEX_PROGRAM``; larger expressions fail sooner."""


_OF_BYTES: Final = re2.Options()


_OF_BYTES.log_errors = False


_OF_BYTES.encoding = re2.Options.Encoding.LATIN1
"""Envoy compares bytes, so that the number of a character is at most ``\\xff``."""


_NUMBERED: Final = re.compile(r"\\[x0-9]")


def regex_problem(pattern: str) -> str:
    """Return why Envoy would refuse a pattern; empty if it would not."""
    return _judged(pattern)[0]


def accepts(pattern: str, text: str) -> bool:
    """Return whether a pattern that Envoy takes matches the whole text."""
    return not regex_problem(pattern) and re2.compile(pattern, _QUIET).fullmatch(text) is not None


@functools.lru_cache(maxsize=1024)
def _judged(pattern: str) -> tuple[str, int]:
    """Return why Envoy would refuse a pattern, if it would, and its number of instructions.

    RE2, which Envoy uses, decides: https://github.com/google/re2/wiki/Syntax
    """
    if not pattern:
        return "an empty regular expression", 0
    if len(pattern) > _LONGEST_REGEX:
        return f"a regular expression is at most {_LONGEST_REGEX} characters long", 0
    try:
        compiled = re2.compile(pattern, _QUIET)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace")
        problem = f'"{pattern}" is not an RE2 regular expression: {reason}'
        # An expression that RE2 finds too large has taken as long as the largest valid expression.
        return problem, MAX_REGEX_PROGRAM if "too large" in reason else 0
    if _NUMBERED.search(pattern) and not _is_of_bytes(pattern):
        problem = (
            f'"{pattern}" has a character above \\xff by its number, and proxies compare bytes;'
            " write its bytes in UTF-8, such as \\xc4\\x80"
        )
        return problem, compiled.programsize
    if compiled.programsize > MAX_REGEX_PROGRAM:
        problem = f'"{pattern}" is too large a regular expression; repeat less in it'
        return problem, compiled.programsize
    return "", compiled.programsize


def _is_of_bytes(pattern: str) -> bool:
    """Return whether a valid pattern is also one for bytes."""
    with contextlib.suppress(re2.error):
        re2.compile(pattern.encode(), _OF_BYTES)
        return True
    return False


def substitution_problem(pattern: str, substitution: str) -> str:
    """Return why a substitution for what a valid pattern matches changes nothing."""
    asked = max(map(int, re.findall(r"\\([0-9])", substitution.replace("\\\\", ""))), default=0)
    if asked == 0 or regex_problem(pattern):
        return ""
    groups = re2.compile(pattern, _QUIET).groups
    if asked <= groups:
        return ""
    return f"names the group \\{asked}, and match has {groups}: no path is changed"


def known_part(substitution: str) -> str:
    """Return what proxies use of a substitution: all before a backslash that stands for nothing."""
    found = re.match(r"(?:[^\\]|\\[0-9\\])*", substitution)
    return found[0] if found else ""


def check_regex(report: Report, path: Path, pattern: str) -> None:
    if report.instructions > _MOST_INSTRUCTIONS:
        message = (
            f"all regular expressions before this one take {report.instructions} instructions of"
            f" RE2, and at most {_MOST_INSTRUCTIONS} are taken; repeat less in them"
        )
        report.refused(path, message)  # which nobody has judged
        return
    problem, instructions = _judged(pattern)
    report.instructions += instructions
    if problem:
        report.refused(path, problem)


def check_string_match(
    report: Report, path: Path, match: StringMatch | None, *, may_be_empty: bool = False
) -> None:
    """Check a match of a string.

    ``may_be_empty`` allows a match without a pattern, which only asks whether the value exists.
    """
    if match is None:
        return
    given = [
        name
        for name, value in (
            ("exact", match.exact),
            ("prefix", match.prefix),
            ("regex", match.regex),
        )
        if value is not None
    ]
    if len(given) > 1:
        report.error(
            path, f"has {' and '.join(given)}; only one of exact, prefix, regex is possible"
        )
    elif not given and not may_be_empty:
        report.warning(path, "has no effect: it has none of exact, prefix, regex")
    if match.regex is not None:
        check_regex(report, (*path, "regex"), match.regex)
    if match.prefix == "":
        report.error((*path, "prefix"), "an empty prefix matches all; leave it out")
