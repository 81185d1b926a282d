"""How often rules of AuthorizationPolicies have fitted, by the proxies' own counts."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from meshd.base.errors import MeshdError
from meshd.proxy.admin import Admin
from meshd.proxy.bootstrap import member_name

_PATTERN: Final = "(rbac.policy|^tcp.denied)"
_REQUESTS: Final = re.compile(r"\.rbac\.policy\.(.+)\.((?:shadow_)?(?:allowed|denied))$")
_CONNECTIONS: Final = re.compile(r"^tcp\.denied\.(.+)\.downstream_cx_total$")
RuleCounts = Mapping[tuple[str, str], int]
"""By Istio's name of the rule, and what became of what it fitted: ``denied``, ``allowed``, or, of
rules that decide nothing, ``shadow_denied`` and ``shadow_allowed``."""


async def rule_counts(admin_run: Path, names: Iterable[str]) -> RuleCounts | None:
    """Return the sums of some proxies since each began; None: none of them answers."""
    admins = [Admin(admin_run / f"{member_name(name)}.sock") for name in names]
    answers = await asyncio.gather(*map(_asked, admins))
    found = [one for one in answers if one is not None]
    if not found:
        return None
    total: Counter[tuple[str, str]] = Counter()
    for one in found:
        total.update(one)
    return total


async def _asked(admin: Admin) -> Counter[tuple[str, str]] | None:
    try:
        return counted(await admin.stats(_PATTERN))
    except MeshdError:
        return None


def counted(statistics: Mapping[str, int]) -> Counter[tuple[str, str]]:
    """Return the counts of rules among statistics by their names. Pure."""
    found: Counter[tuple[str, str]] = Counter()
    for name, value in statistics.items():
        if match := _REQUESTS.search(name):
            found[match[1], match[2]] += value
        elif match := _CONNECTIONS.search(name):
            found[match[1], "denied"] += value
    return found
