"""Refuses texts with control characters, wherever they stand in an object of Istio's.

Proxies refuse a route or a cluster with one in most places, and with it all that they are told at
once: one object would cost the others' changes. Nobody writes them on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from meshd.api.base import Object
from meshd.api.checks import Report
from meshd.api.decode import Path
from meshd.api.write import to_json
from meshd.api.yaml import show_path
from meshd.base.json_values import Json

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LINES: Final = (
    ("body", "string"),
    ("body", "bytes"),
    ("exec", "command"),
    ("metadata", "annotations"),
)
"""Where texts may have several lines: answers of the proxy, commands, people's notes."""
_PATTERNS: Final = frozenset({"exact", "prefix", "regex"})
"""What is compared with a request: it may be any text, and one with such a character never fits."""
_SENT: Final = frozenset(
    {"consistentHash", "headers", "host", "hosts", "redirect", "rewrite", "withoutHeaders"}
)
"""Parts of objects whose texts stand in requests and answers, or name headers or hosts. Proxies
take any text elsewhere."""


def check_texts(report: Report, found: Object) -> None:
    """Check what no other check has complained of already."""
    known = {finding.field for finding in report.findings}
    for path, message in controlled(found):
        if show_path(path) not in known:
            report.error(path, message)


def controlled(found: Object) -> Iterator[tuple[Path, str]]:
    """Return the places of texts with control characters, and what is wrong with each."""
    if found.GROUP.endswith(".istio.io"):
        for path in _controlled(to_json(found).get("spec"), ("spec",)):
            yield path, "has control characters, such as the end of a line"


def sent(found: Object) -> Iterator[tuple[Path, str]]:
    """Return those of these places for which proxies refuse also what is beside the object."""
    for path, message in controlled(found):
        if is_sent(path):
            yield path, message


def is_sent(path: Path) -> bool:
    """Return whether proxies refuse a text with control characters at a place."""
    return not _SENT.isdisjoint(path)


def _controlled(value: Json, path: Path) -> Iterator[Path]:
    if path[-2:] in _LINES:
        return
    if isinstance(value, str):
        if _CONTROL.search(value) and path[-1] not in _PATTERNS:
            yield path
    elif isinstance(value, dict):
        for key, part in value.items():
            if _CONTROL.search(key):
                yield path
            yield from _controlled(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _controlled(part, (*path, index))
