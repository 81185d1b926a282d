"""kubernetes → capture: where the pods are that run already."""

from __future__ import annotations

from typing import Annotated

import msgspec

from meshd.api.values import Path
from meshd.wire.message import Message

PodUid = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f-]{32,36}\Z")]


class Locate(Message, frozen=True):
    """Find the network namespaces of pods; of each, one of the addresses is to be in it."""

    pods: Annotated[dict[PodUid, tuple[str, ...]], msgspec.Meta(max_length=1024)]


class Place(msgspec.Struct, frozen=True):
    netns: Path
    cookie: int
    """See ``Workload.netns_cookie``."""


class Located(Message, frozen=True):
    """The namespaces of those that were found."""

    places: dict[str, Place]


Messages = Locate | Located
