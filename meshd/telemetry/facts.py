"""The present state of this node, from the roles that know it."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Final, TypeVar

from meshd import wire
from meshd.base.errors import MeshdError
from meshd.model.pool import Pool, lack
from meshd.settings import Paths
from meshd.wire import channel

T = TypeVar("T", bound=wire.Message)

_PATIENCE: Final = 3.0
"""Seconds. A scrape or a look at the page rather has a gap than a long wait."""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """The state; parts that did not answer are empty, and ``problems`` says so."""

    workloads: tuple[wire.WorkloadStatus, ...] = ()
    proxies: tuple[wire.ProxyStatus, ...] = ()
    processes: tuple[wire.RoleStatus, ...] = ()
    problems: tuple[str, ...] = ()


async def gather(paths: Paths) -> Facts:
    statuses, children = await asyncio.gather(
        _ask(paths.socket("mesh"), wire.Status(), wire.Statuses),
        _ask(paths.socket("supervisor"), wire.Children(), wire.ChildStates),
    )
    known = statuses if isinstance(statuses, wire.Statuses) else wire.Statuses(())
    return Facts(
        workloads=known.workloads,
        proxies=known.proxies,
        processes=children.children if isinstance(children, wire.ChildStates) else known.roles,
        problems=tuple(answer for answer in (statuses, children) if isinstance(answer, str)),
    )


async def _ask(socket: Path, request: wire.Message, expected: type[T]) -> T | str:
    """Return the answer, or why there is none."""
    try:
        answer = await channel.call(socket, request, timeout=_PATIENCE)
    except MeshdError as error:
        return str(error)
    if isinstance(answer, expected):
        return answer
    return answer.reason if isinstance(answer, wire.Failed) else f"{socket}: no {expected.__name__}"


def unready(facts: Facts) -> str:
    """Return why the node cannot serve its workloads; empty if it can. Pure."""
    if facts.problems:
        return facts.problems[0]
    for pool in Pool:
        of_pool = [one for one in facts.proxies if one.connected and pool is one.pool]
        if not of_pool:
            return lack(pool)
        # What a proxy refuses costs itself only.
        if not any(proxy.synced or proxy.rejected for proxy in of_pool):
            return f"no {pool} has the newest configuration"
    return ""
