"""Checks Envoy, confines this process, and becomes Envoy: ``python -m meshd.proxy.launch BINARY
…``.

It runs with the proxies' few privileges already, so that a wrong binary gets no more than those.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from meshd.base.errors import MeshdError, SystemRefusedError
from meshd.proxy import binary, confinement, machine
from meshd.settings import ProxySettings


def command(python: str, proxy: ProxySettings, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the command line of this module."""
    return (python, "-m", "meshd.proxy.launch", proxy.binary, *arguments)


def main() -> int:
    configured, *arguments = sys.argv[1:]
    try:
        path = binary.find(ProxySettings(binary=configured))
        binary.check_version(path)
        confine()
        machine.raise_open_files()
        os.umask(0o007)
        os.execv(path, [str(path), *arguments])  # noqa: S606
    except MeshdError as error:
        print(f"meshd proxy: {error}", file=sys.stderr)
    except OSError as error:
        print(f"meshd proxy: {Path(configured or 'envoy')}: {error.strerror}", file=sys.stderr)
    return 1


def confine(*more: str) -> None:
    """Confine this process, see ``confinement``. Raises SystemRefusedError."""
    try:
        confinement.confine(*more)
    except OSError as error:
        raise SystemRefusedError(
            f"cannot deny system calls to this process: {error}; install the package libseccomp2"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
