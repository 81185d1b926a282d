"""mesh → capture, one connection for as long as both live: the placement of workloads."""

from __future__ import annotations

from meshd.model.workload import Observation, Placement
from meshd.wire.message import Message


class Place(Message, frozen=True):
    """All placements that are wanted. A workload that is not listed is released."""

    placements: tuple[Placement, ...]
    host: bool = True
    """Whether services of the host are among them; False: they stay as they are, because it is not
    known which there are."""


class Observed(Message, frozen=True):
    """All observations, sent back at each change."""

    observations: tuple[Observation, ...]


Messages = Place | Observed
