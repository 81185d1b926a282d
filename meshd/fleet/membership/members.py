"""The nodes that have joined, and the certificates by which they are known. Pure.

A node that is not listed is rejected, whatever certificate it shows: that is how a node is removed,
and how a node that took another's name ends the other's certificates. Each renewal comes with a new
key, so that a machine and its clone part at the first one: only one of them is known from then on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import msgspec

from meshd.api.base import UnixSeconds
from meshd.base.errors import InvalidInputError
from meshd.model.bounds import Bounds

SHOWN_AFTER_END: Final = 7 * 24 * 3600.0
"""Seconds for which a node is listed whose certificate has ended."""
OVERLAP: Final = 60.0
"""Seconds for which connections that began before a renewal may still show the earlier one."""


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    joined: UnixSeconds
    """Unix seconds."""
    expires: UnixSeconds
    """When the newest of its certificates ends, in Unix seconds."""
    serials: tuple[str, ...]
    """Hexadecimal. What it proved itself with last, and what it was given then: whether that has
    arrived, it has yet to show."""
    bounds: Bounds = ()
    shown: UnixSeconds = 0.0
    """When the newest was shown first; 0: it has not been."""
    machine: str = ""
    """Which machine it is, as it said first. What it did not say then is taken later."""


Members = Mapping[str, Member]
"""By name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Attendance:
    """The new record of a node that has connected, and what the server reports of it."""

    member: Member
    conflict: str = ""


class RivalError(InvalidInputError):
    """The name belongs to another machine; ``conflict`` is the server's report."""

    def __init__(self, reason: str, conflict: str) -> None:
        super().__init__(reason)
        self.conflict = conflict


def admitted(members: Members, node: str, serial: str) -> Member:
    """Return the member that shows a certificate with this ``serial``. Raises InvalidInputError."""
    found = members.get(node)
    if found is None:
        raise InvalidInputError(
            f"node {node} does not belong to this mesh any more: it was removed; to come back it "
            f"needs a new token: meshctl token create --node {node}"
        )
    if serial not in found.serials:
        raise RivalError(
            f"node {node}: another machine has joined or has had its certificate renewed by that "
            f"name since this one did: {_ways_out(node)}",
            f"a machine with an earlier certificate of it was refused: {_causes(node)}",
        )
    return found


def attended(members: Members, node: str, serial: str, machine: str, now: float) -> Attendance:
    """Return the new record of a node that connects from ``machine``. Raises InvalidInputError."""
    found = admitted(members, node, serial)
    if not _agree(found.machine, machine):
        raise RivalError(
            f"node {node}: this is not the machine that joined by that name, but has its key: "
            f"{_ways_out(node)}",
            "a machine with its certificate, but another machine-id or hardware, was refused: "
            f"{_causes(node)}",
        )
    known = msgspec.structs.replace(found, machine=_together(found.machine, machine))
    if serial == found.serials[-1]:
        return Attendance(msgspec.structs.replace(known, shown=found.shown or now))
    if not found.shown or now <= found.shown + OVERLAP:
        return Attendance(known)
    return Attendance(
        known,
        "it came with an earlier certificate than it had shown before, which is taken once: "
        f"{_causes(node)}",
    )


def _agree(before: str, now: str) -> bool:
    pairs = zip(before.split("."), now.split("."), strict=False)
    return all(one == other for one, other in pairs if one and other)


def _together(before: str, now: str) -> str:
    if not before or not now:
        return before or now
    pairs = zip(before.split("."), now.split("."), strict=False)
    return ".".join(one or other for one, other in pairs)


def _ways_out(node: str) -> str:
    return (
        "if this is a clone, set another name here (node: NAME in meshd.yaml) and run meshctl join "
        "with a new token; if it is the node itself, perhaps put back to an earlier state, make a "
        f"token on the server with: meshctl token create --node {node}, and run meshctl join here"
    )


def _causes(node: str) -> str:
    return (
        "there is a clone of it, which needs another name (node: NAME in meshd.yaml) and meshctl "
        "join; or the node itself was put back to an earlier state (a snapshot, a backup), and "
        f"joins again once it is refused, with: meshctl token create --node {node}; or its key "
        f"was stolen: meshctl node remove {node}"
    )


def renewed(member: Member, proof: str, serial: str, expires: float) -> Member:
    """Return the record after a renewal; ``proof`` is the serial of the certificate that was
    shown."""
    return msgspec.structs.replace(member, serials=(proof, serial), expires=expires, shown=0.0)


def living(members: Members, now: float) -> dict[str, Member]:
    """Return the members without those whose certificates have all ended."""
    return {name: one for name, one in members.items() if now < one.expires + SHOWN_AFTER_END}
