"""The keys of conditions of AuthorizationPolicies. Pure.

https://istio.io/latest/docs/reference/config/security/conditions/
"""

from __future__ import annotations

import re
from typing import Final

_HEADER: Final = re.compile(r"request\.headers\[(.+)\]")
OF_NETWORKS: Final = frozenset({"source.ip", "remote.ip", "destination.ip"})
OF_PORTS: Final = frozenset({"destination.port"})
OF_TEXTS: Final = frozenset({"source.namespace", "source.principal", "connection.sni"})
KNOWN: Final = OF_NETWORKS | OF_PORTS | OF_TEXTS
OF_TOKENS: Final = "request.auth."
"""How keys begin that are about tokens, which nothing checks yet."""


def header_of(key: str) -> str:
    """Return the header, in small letters, that a key is about; empty: it is about none."""
    found = _HEADER.fullmatch(key)
    return found[1].lower() if found else ""
