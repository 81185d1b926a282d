"""mesh → capture, one connection for as long as both live: where workloads are placed."""

from __future__ import annotations

from meshd.model.workload import Observation, Placement
from meshd.wire.message import Message


class Place(Message, frozen=True):
    """The whole of what is wanted. A workload that is not listed is to be let go."""

    placements: tuple[Placement, ...]
    host: bool = True
    """Whether services of the host are among them; False: they stay as they are, because it is not
    known which there are."""


class Observed(Message, frozen=True):
    """The whole of what is so, sent back at each change."""

    observations: tuple[Observation, ...]


Messages = Place | Observed
