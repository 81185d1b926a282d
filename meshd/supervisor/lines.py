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
_OUTCOME: Final = re.compile(
    r'" (\d+) (\S+)'
    r"(?: rbac_access_denied_matched_policy\[ns\[([^]]+)\]-policy\[([^]]+)\]-rule\[(\d+)\]\])?"
)
"""The status, the flags, and Istio's name of the rule that denies; ``compile.envoy.authorization``
writes it."""


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
    outcome = _OUTCOME.search(text)
    kind = f"access log {_told(outcome)}" if outcome else "access log"
    return Line(logging.INFO, text, "" if workload == "-" else workload, "access", kind)


def _told(outcome: re.Match[str]) -> str:
    status, flags, namespace, policy, rule = outcome.groups()
    return f"denied by {namespace}/{policy} rule {rule}" if policy else f"{status} {flags}"
