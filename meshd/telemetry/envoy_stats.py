"""The proxies' own metrics: many expositions merged into one, each sample labelled with its proxy.

Envoy writes Prometheus' text format itself; this module puts the same family of several proxies
together, as the format demands, and adds a label to each line.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from meshd.base import http
from meshd.base.errors import UnreachableError

_PATIENCE: Final = 3.0
"""Seconds for one proxy to tell everything."""
_TARGET: Final = "/stats/prometheus?usedonly"
"""Only what was counted at least once: a mesh has far more counters that never moved."""


class Merged:
    """Families of metrics, in the order in which they were first seen."""

    def __init__(self) -> None:
        self._families: dict[bytes, bytearray] = {}

    def add(self, proxy: str, lines: list[bytes], family: bytes) -> bytes:
        """Take lines of one proxy; returns the family that the next line belongs to."""
        label = b'proxy="' + proxy.encode() + b'"'
        for line in lines:
            if line.startswith(b"# TYPE "):
                family = line.split(b" ", 3)[2]
                self._families.setdefault(family, bytearray(line + b"\n"))
            elif line and not line.startswith(b"#"):
                self._families.setdefault(family, bytearray()).extend(_labelled(line, label))
        return family

    def render(self) -> bytes:
        return b"".join(self._families.values())


def _labelled(line: bytes, label: bytes) -> bytes:
    """Return ``name{a="b"} 1`` or ``name 1`` with one more label."""
    name, brace, rest = line.partition(b"{")
    if brace:
        comma = b"" if rest.startswith(b"}") else b","
        return name + b"{" + label + comma + rest + b"\n"
    name, _, rest = line.partition(b" ")
    return name + b"{" + label + b"} " + rest + b"\n"


async def collect(sockets: Mapping[str, Path]) -> bytes:
    """Collect the metrics of each proxy's admin socket, by name. One that does not answer is left
    out."""
    merged = Merged()
    await asyncio.gather(*(_collect(merged, name, path) for name, path in sockets.items()))
    return merged.render()


async def _collect(merged: Merged, proxy: str, socket: Path) -> None:
    rest, family = b"", b""

    def take(status: int, part: bytes) -> None:
        nonlocal rest, family
        if status == 200:
            *lines, rest = (rest + part).split(b"\n")
            family = merged.add(proxy, lines, family)

    with contextlib.suppress(UnreachableError):  # meshd_proxy_connected tells
        await http.ask(socket, "GET", _TARGET, take, timeout=_PATIENCE)
