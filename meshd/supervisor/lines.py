"""The level and the workload of a line that a proxy wrote. Pure."""

from __future__ import annotations

import logging
import re
from typing import Final, NamedTuple

ACCESS: Final = "meshd-access "
"""Access log lines begin with it and the workload's uid; the rest is for people. Put there by
``compile.telemetry.access_log``."""
_LEVELS: Final = {
    "[trace]": logging.DEBUG,
    "[debug]": logging.DEBUG,
    "[info]": logging.INFO,
    "[warning]": logging.WARNING,
    "[error]": logging.ERROR,
    "[critical]": logging.CRITICAL,
}
_PIN: Final = "@"
"""Between a workload's uid and what makes its pin unique; see ``capture.pods.namespaces``."""
_RULE: Final = r"ns\[([^]]+)\]-policy\[([^]]+)\]-rule\[(\d+)\]"
"""Istio's name of a rule; ``compile.envoy.authorization`` writes it."""
_OUTCOME: Final = re.compile(
    rf'" (\d+) (\S+)(?:(?: -)? rbac_access_denied_matched_policy\[{_RULE}\]'
    r"| jwt_authn_access_denied\{([^}]*)\})?"
)
"""The status, the flags, and the rule that denies, or what is wrong with the token."""
_NOTED: Final = re.compile(
    rf'" \d+ \S+ policies audited=(?:{_RULE}|\S+) would_deny=(?:{_RULE}|\S+) would_allow=(\S+)'
)
"""The rules that audit and would deny, and whether rules that would allow do."""


class Line(NamedTuple):
    """One line; cheap to create, since there may be a hundred thousand a second."""

    level: int
    text: str
    workload: str = ""
    event: str = ""
    kind: str = ""
    """What it is counted as when it is not written."""


def read(line: str) -> Line:
    if line.startswith(ACCESS):
        return _access(line)
    mark, _, text = line.partition(" ")
    level = _LEVELS.get(mark)
    # Without a mark it is of what starts the proxy, or its last words.
    return Line(logging.WARNING, line) if level is None else Line(level, text)


def _access(line: str) -> Line:
    _, path, text = (*line.split(" ", 2), "", "")[:3]
    workload = path.rpartition("/")[2].partition(_PIN)[0]
    if noted := _NOTED.search(text):
        kind = f"access log {_noted(noted)}"
    else:
        outcome = _OUTCOME.search(text)
        kind = f"access log {_told(outcome)}" if outcome else "access log"
    return Line(logging.INFO, text, "" if workload == "-" else workload, "access", kind)


def _told(outcome: re.Match[str]) -> str:
    status, flags, namespace, policy, rule, token = outcome.groups()
    if token:
        return f"token refused: {token.replace('_', ' ')}"
    return f"denied by {namespace}/{policy} rule {rule}" if policy else f"{status} {flags}"


def _noted(found: re.Match[str]) -> str:
    auditor, denier = found.groups()[:3], found.groups()[3:6]
    for word, (namespace, policy, rule) in (("audited", auditor), ("would be denied", denier)):
        if policy:
            return f"{word} by {namespace}/{policy} rule {rule}"
    return "would be denied: no rule on trial allows it"
