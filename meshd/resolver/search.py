"""Search domains: workloads' resolvers try them behind a name before the name, resolv.conf(5).

Names of the mesh are not asked outside with such a domain behind them either: that would disclose
them, and costs seconds where nobody answers. Workloads mostly have the search domains of their
host; the settings name others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_HOST: Final = Path("/etc/resolv.conf")
_NAMESPACES: Final = Path("/etc/netns")
"""ip-netns(8): a directory for each, with what is seen in its place."""
_DOMAIN: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_MOST: Final = 6
"""Of one file; as many as resolvers take."""


def domains(
    domain: str, named: Iterable[str], namespaces: Iterable[str], host: Path = _HOST
) -> tuple[str, ...]:
    """Return the search domains of the settings, the host and network namespaces, given by their
    paths.

    Those below the mesh's ``domain`` are never asked outside and are left out.
    """
    known = namespaces if _NAMESPACES.is_dir() else ()
    paths = [host, *(_NAMESPACES / Path(path).name / _HOST.name for path in known if path)]
    found = {*named, *(one for path in dict.fromkeys(paths) for one in _searched(path))}
    return tuple(sorted(one for one in found if not f".{one}".endswith(f".{domain}")))


def _searched(path: Path) -> list[str]:
    """Return the domains of a file, of which the last line counts; none if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    listed = [words[1:] for line in lines if (words := line.split()) and words[0] in _OPTIONS]
    written = (word.rstrip(".").lower() for word in (listed[-1] if listed else ()))
    return [word for word in written if _DOMAIN.fullmatch(word)][:_MOST]


_OPTIONS: Final = frozenset({"search", "domain"})
