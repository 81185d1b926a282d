"""``meshd``: the supervisor. ``meshd ROLE``: one of the processes that it keeps running."""

from __future__ import annotations

import os
import sys


def main() -> int:
    match sys.argv[1:]:
        case []:
            # asyncio would load OpenSSL, and does without it too: 4 MB that are never used here.
            sys.modules["ssl"] = None  # type: ignore[assignment]
            from meshd.supervisor.supervisor import main as supervise  # noqa: PLC0415

            return supervise()
        case [role] if not role.startswith("-"):
            from meshd.roles import main as run  # noqa: PLC0415 - the supervisor must not pay for it

            return run(role)
        case _:
            print("usage: meshd [ROLE]", file=sys.stderr)
            return os.EX_USAGE


if __name__ == "__main__":
    sys.exit(main())
