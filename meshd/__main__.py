"""The program ``meshd``: without an argument the supervisor, with a ROLE one of its processes.

``meshd --check`` only checks the settings; ``systemctl reload`` runs it first.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Final

_SPEAKING_TLS: Final = frozenset({"server", "kubernetes"})
"""Roles that do so by asyncio."""


def main() -> int:
    match sys.argv[1:]:
        case []:
            _leave_openssl_out()
            from meshd.supervisor.start import main as supervise  # noqa: PLC0415

            return supervise()
        case ["--check"]:
            return _check()
        case [role] if not role.startswith("-"):
            if role not in _SPEAKING_TLS:
                _leave_openssl_out()
            from meshd.roles import main as run  # noqa: PLC0415 - the supervisor must not pay for it

            return run(role)
        case _:
            print("usage: meshd [--check | ROLE]", file=sys.stderr)
            return os.EX_USAGE


def _check() -> int:
    from meshd.base.errors import MeshdError  # noqa: PLC0415
    from meshd.settings import Paths, load  # noqa: PLC0415
    from meshd.supervisor.limits import warnings  # noqa: PLC0415

    try:
        settings = load(Paths.from_environment().settings)
    except MeshdError as error:
        print(f"meshd: {error}", file=sys.stderr)
        return 1
    for warning in warnings(settings.proxy):
        print(f"meshd: warning: {warning}", file=sys.stderr)
    return 0


def _leave_openssl_out() -> None:
    """Keep asyncio and hashlib from loading OpenSSL, 5 MB in each process.

    Our TLS is gRPC's, our certificates are cryptography's, and both bring libraries of their own;
    only some roles have asyncio speak TLS. ``ssl`` can be imported where a rare case needs it.
    """
    missing: dict[str, Any] = {"ssl": None, "_hashlib": None}
    sys.modules.update(missing)
    importlib.import_module("asyncio")
    del sys.modules["ssl"]


if __name__ == "__main__":
    sys.exit(main())
