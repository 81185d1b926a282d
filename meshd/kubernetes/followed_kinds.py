"""The kinds of objects that are taken from the API server as they are. Pure."""

from __future__ import annotations

from typing import Final

from meshd.api import kinds
from meshd.api.base import Object
from meshd.api.kubernetes.types import Secret, ServiceAccount
from meshd.api.write import api_version

_LEFT: Final = (Secret, ServiceAccount)
"""The first is asked for by nobody who need not; the second says no more than its name."""
KINDS: Final[dict[str, type[Object]]] = {
    kind.KIND: kind for kind in kinds.STORED if kind not in _LEFT
}


def path_of(kind: type[Object]) -> str:
    """Return the path of all objects of a kind in the API server."""
    version = api_version(kind)
    return f"/{'apis' if kind.GROUP else 'api'}/{version}/{kind.PLURALS[0]}"


def is_custom(kind: type[Object]) -> bool:
    """Return whether the API server has the kind only if somebody has defined it."""
    return bool(kind.GROUP)
