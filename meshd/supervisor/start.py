"""The start of the supervisor: its prerequisites, and the processes that it has."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from meshd.base import hardware, journal
from meshd.base.budget import Limits
from meshd.base.errors import MeshdError
from meshd.proxy.machine import raise_open_files, sized
from meshd.resolver.command import NAMES as RESOLVERS
from meshd.settings import Paths, load
from meshd.supervisor import directories, upgrade
from meshd.supervisor import home as houses
from meshd.supervisor.home import Home
from meshd.supervisor.member import Bootstrap
from meshd.supervisor.privileges import Role, Users, role_command
from meshd.supervisor.service import rejoin_proxies
from meshd.supervisor.supervisor import Supervisor

_ANSWERING: Final = frozenset({"capture", "identity", "mesh"})
"""Roles that have a socket, by which registrars and meshctl need them."""
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "TZ", "MESHD_HOME", "PYTHONPATH")
"""Environment variables that children see. Whatever else is in ours is none of their business."""


def main() -> int:
    """Run the supervisor; if it cannot begin, one line says why."""
    try:
        supervise(Paths.from_environment(), usual_roles)
    except MeshdError as error:
        print(f"meshd: {error}", file=sys.stderr)
        return 1
    return 0


def supervise(
    paths: Paths,
    roles: Callable[[Users], Mapping[str, Sequence[str]]],
    make_bootstrap: Bootstrap | None = None,
) -> None:
    """Run until SIGTERM or SIGINT. Raises MeshdError when it cannot begin."""
    houses.check_machine()
    # All that is started inherits it.
    raise_open_files()
    home = Home(paths)
    rejoin_proxies(home)
    settings = sized(load(paths.settings))
    limits = Limits(settings.log.lines_per_second, settings.log.bytes_per_second)
    journal.setup("supervisor", settings.log_level, limits=limits)
    users = houses.find_users(settings)
    directories.make(paths, users)
    upgrade.take_over(paths, users)

    async def live() -> None:
        offered = roles(users)
        supervisor = Supervisor(
            settings,
            home,
            users,
            offered,
            make_bootstrap,
            environment={**child_environment(os.environ), **hardware.environment()},
            answers=offered.keys() & _ANSWERING,
        )
        await supervisor.live()

    with houses.only_one(home):
        asyncio.run(live())


def usual_roles(users: Users) -> dict[str, Sequence[str]]:
    # -P: what lies in the working directory is not imported.
    python = (sys.executable, "-P", "-m", "meshd")
    ours = {role.value: role_command(role, users, (*python, role.value)) for role in Role}
    return {**ours, **dict.fromkeys(sorted(RESOLVERS), ())}


def child_environment(ours: Mapping[str, str]) -> dict[str, str]:
    return {name: ours[name] for name in _PASSED_ON if name in ours}
