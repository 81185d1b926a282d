"""The headers in which a request that proxies send by themselves says where it goes and whose it
is, on its way to the listener behind which they become filter state again."""

from __future__ import annotations

from typing import Final

from meshd.compile.envoy.wellknown import (
    CALLER_STATE,
    HOST_STATE,
    NETNS_STATE,
    SECRET_STATE,
    SOURCE_STATE,
    WORKLOAD_STATE,
)

DESTINATION: Final = "x-meshd-copy-to"
PROVIDER: Final = "x-meshd-copy-provider"
LOOKED_UP: Final = "x-meshd-copy-looked-up"
IDENTITY: Final = "x-meshd-copy-identity"
NETNS: Final = "x-meshd-copy-netns"
HOST: Final = "x-meshd-copy-host"
STATES: Final = {
    SECRET_STATE: IDENTITY,
    NETNS_STATE: NETNS,
    HOST_STATE: HOST,
    WORKLOAD_STATE: "x-meshd-copy-workload",
    CALLER_STATE: "x-meshd-copy-caller",
    SOURCE_STATE: "x-meshd-copy-source",
}
"""Filter state that goes along, and the header that has it meanwhile."""
HEADERS: Final = (DESTINATION, PROVIDER, LOOKED_UP, *STATES.values())
