"""A supervisor whose proxies need no control plane: ``python pool_node.py ROLES LISTENERS``.

Both are JSON: commands by role, and what each member of the pool for traffic listens on.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from meshd.base.errors import MeshdError
from meshd.model.pool import Pool
from meshd.proxy.bootstrap import bootstrap
from meshd.proxy.machine import capacity_here
from meshd.proxy.pool import Member
from meshd.settings import Paths, Settings
from meshd.supervisor.start import supervise


def main() -> int:
    roles, listeners = (json.loads(argument) for argument in sys.argv[1:3])
    paths = Paths.from_environment()

    def alone(settings: Settings, member: Member) -> dict[str, Any]:
        made = bootstrap(settings, paths, member, capacity_here(settings.proxy))
        del made["dynamic_resources"]
        # Nobody tells it of limits.
        del made["layered_runtime"]["layers"][1:]
        own = listeners if member.pool is Pool.TRAFFIC else []
        return made | {"static_resources": {"listeners": own}}

    try:
        supervise(paths, lambda _: roles, alone)
    except MeshdError as error:
        print(f"meshd: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
