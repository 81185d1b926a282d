"""Whether a workload has brought it about itself that its probes are not answered.

Where the policy is to fail open, what nobody answers passes outside the mesh. A workload must not
get there by using up its own share of new connections, or of those that are open: the proxies live.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from meshd.capture.probes.outbound import is_refused, is_silence
from meshd.capture.rules import tables
from meshd.capture.rules.rules import INPUT_CHAIN

_DROPPED: Final = re.compile(
    rf"^\[(?P<packets>\d+):\d+\] -A {INPUT_CHAIN} .*--dport (?P<port>\d+)\b.* -j DROP$",
    re.MULTILINE,
)

TOO_MANY: Final = (
    "it opens more connections than its share (capture.connections_per_second), and its probe is"
    " lost among them"
)
ALIVE: Final = "; a proxy lives, so its traffic is not let past (failure_policy: open)"


def dropped(port: int) -> int:
    """Return how many connections to a proxy's port were above the share here. Blocks."""
    return sum_of(tables.counted("mangle"), port)


def sum_of(texts: Iterable[str], port: int) -> int:
    """Return the sum of counters in ``texts``, which iptables-save printed. Pure."""
    return sum(
        int(found["packets"])
        for text in texts
        for found in _DROPPED.finditer(text)
        if int(found["port"]) == port
    )


async def own_doing(
    problem: str, ask: Callable[[], Awaitable[str]], count: Callable[[], Awaitable[int]]
) -> str:
    """Return a message in place of ``problem`` for a workload that stays captured; else empty.

    Empty means that no proxy serves it. ``ask`` probes once more, ``count`` is ``dropped``.
    """
    if is_refused(problem):
        return ""
    if not is_silence(problem):
        return problem + ALIVE
    before = await count()
    if not is_silence(problem := await ask()):
        return "" if is_refused(problem) else (problem or TOO_MANY) + ALIVE
    return TOO_MANY + ALIVE if await count() > before else ""
