"""kubernetes → mesh: what the API server of a cluster has."""

from __future__ import annotations

from typing import Annotated

import msgspec

from meshd.base.json_values import JsonObject
from meshd.model.listed import ListedEndpoint
from meshd.wire.message import Message

_Many = msgspec.Meta(max_length=100_000)


class Objects(Message, frozen=True, tag="ClusterObjects"):
    """Objects of one kind which are new or other ones."""

    kind: str
    changed: Annotated[tuple[JsonObject, ...], _Many] = ()
    removed: Annotated[tuple[str, ...], _Many] = ()
    """``NAMESPACE/NAME``, or ``NAME`` of what has no namespace."""
    whole: bool = False
    """Those that are not among ``changed`` do not exist."""


class Slices(Message, frozen=True, tag="ClusterSlices"):
    """The endpoints of slices, by the slices' ``NAMESPACE/NAME``, which are new or other ones."""

    changed: Annotated[dict[str, tuple[ListedEndpoint, ...]], _Many] = {}
    removed: Annotated[tuple[str, ...], _Many] = ()
    whole: bool = False


class Trouble(Message, frozen=True, tag="ClusterTrouble"):
    """Why what is known of the cluster may be old, a line each; none: it is not."""

    problems: Annotated[tuple[str, ...], msgspec.Meta(max_length=100)]


Messages = Objects | Slices | Trouble
