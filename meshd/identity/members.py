"""The nodes that have joined, and by which certificates they are known. Pure.

Who is not listed is nobody, whatever certificate it shows: that is how a node is removed, and how
one that took another's name puts an end to the other's certificates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from meshd.errors import InvalidInputError
from meshd.model.base import UnixSeconds
from meshd.model.bounds import Bounds

SHOWN_AFTER_END: Final = 7 * 24 * 3600.0
"""Seconds for which a node is listed whose certificate has ended."""


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    joined: UnixSeconds
    """Unix seconds."""
    expires: UnixSeconds
    """When the newest of its certificates ends, in Unix seconds."""
    serials: tuple[str, ...]
    """Hexadecimal. What it proved itself with last, and what it was given then: whether that has
    arrived, it has yet to show."""
    bounds: Bounds = ()


Members = Mapping[str, Member]
"""By name."""


def admitted(members: Members, node: str, serial: str) -> Member:
    """``serial``: of the certificate that it shows. Raises InvalidInputError."""
    found = members.get(node)
    if found is None or serial not in found.serials:
        why = "it was removed" if found is None else "another node has joined by that name"
        raise InvalidInputError(
            f"node {node} does not belong to this mesh any more: {why}; to come back it needs a "
            f"new token: meshctl token create --node {node}"
        )
    return found


def renewed(member: Member, proof: str, serial: str, expires: float) -> Member:
    """``proof``: the serial of the certificate with which it asked for the new one."""
    return msgspec.structs.replace(member, serials=(proof, serial), expires=expires)


def living(members: Members, now: float) -> dict[str, Member]:
    """Without those that are of no use to anybody."""
    return {name: one for name, one in members.items() if now < one.expires + SHOWN_AFTER_END}
