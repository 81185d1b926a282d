"""The answer to a node's report of its workloads."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from meshd.api.base import UnixSeconds
from meshd.fleet.joining.facts import MeshFacts


class Taken(msgspec.Struct, frozen=True):
    refused: Mapping[str, str]
    """What the node may not have: why, by uid."""
    now: UnixSeconds
    """What the server's clock says, in Unix seconds."""
    facts: MeshFacts | None = None
    """Settings of the server that are to be the node's, too; None: its version does not say."""
