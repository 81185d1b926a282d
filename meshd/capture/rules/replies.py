"""Lets an application's replies carry the mark of the proxy's connection that they answer.

With ``net.ipv4.tcp_fwmark_accept`` (for both families) an accepted socket has the mark of its SYN,
and a routing rule for that mark leads the replies to the proxy at once. Otherwise they are routed
twice: the second time by the mark of the connection, see ``rules``. So no reply depends on anything
here, and whatever others undo costs time only.

The value of before is noted in the kernel: in the protocol of the routing rule, which is added
before the value is changed and removed after it was put back. The note outlives any process, and
not the namespace. Acts on the namespace in which the thread is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from meshd.capture.rules import inside, routing
from meshd.capture.rules.rule import Family

SYSCTL: Final = "net.ipv4.tcp_fwmark_accept"
_VALUE: Final = Path("/proc/sys/net/ipv4/tcp_fwmark_accept")
_UNSETTABLE: Final = f"{SYSCTL} cannot be set: /proc/sys is read-only, or the kernel lacks it"
_SET_BACK: Final = f"somebody has set {SYSCTL}=0"


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The present state of a namespace."""

    accepts: bool | None
    """Whether accepted sockets have the mark of their SYN. None: they have not, and cannot."""
    rules: Mapping[Family, bool]
    """The families with the routing rule, and whether it notes that the value was 0 before."""

    @property
    def is_noted(self) -> bool:
        return any(self.rules.values())


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One change: of the routing rule of a family, or, without a family, of the value."""

    add: bool
    family: Family | None = None
    notes: bool = False

    def __str__(self) -> str:
        if self.family is None:
            return f"set {SYSCTL}={int(self.add)}"
        return f"{'add' if self.add else 'drop'} {routing.reply_line()}"


def steps(found: Found, wanted: Collection[Family]) -> Iterator[Step]:
    """Yield what leads to marked replies in the ``wanted`` families, or, without any, back. Pure.

    A process may die between any two steps: the next one goes on from there. A value that somebody
    else has set is left as it is.
    """
    if not wanted or found.accepts is None:
        if found.is_noted and found.accepts:
            yield Step(add=False)
        yield from (Step(add=False, family=one) for one in found.rules)
        return
    ours = found.is_noted or (not found.rules and not found.accepts)
    for family in wanted:
        if family not in found.rules:
            yield Step(add=True, family=family, notes=ours)
    yield from (Step(add=False, family=one) for one in found.rules if one not in wanted)
    if ours and not found.accepts:
        yield Step(add=True)


def lack(found: Found, routed: Collection[Family], user: str) -> str:
    """Return why replies are routed twice; empty: they are not. Pure.

    ``user``: a foreign rule that uses marks.
    """
    if not routed:
        return ""
    if user:
        return f"the namespace has rules of its own that use marks: {user}"
    if found.accepts is None:
        return _UNSETTABLE
    return _SET_BACK if not found.accepts and found.rules and not found.is_noted else ""


def bring_about(
    shown: Mapping[Family, Sequence[Any]], routed: Collection[Family], user: str, *, act: bool
) -> tuple[tuple[Step, ...], str]:
    """Have replies marked in the families that are ``routed`` to the proxy, unless a ``user`` of
    marks is there. Return the steps, and why replies are not marked.

    ``shown`` are the routing rules, see ``routing.shown``. Raises SystemRefusedError.
    """
    found = _read(shown)
    taken = tuple(steps(found, () if user else routed))
    for step in taken if act else ():
        take(step)
    return taken, lack(found, routed, user)


def _read(shown: Mapping[Family, Sequence[Any]]) -> Found:
    noted = {family: routing.noted_reply_rule(rules) for family, rules in shown.items()}
    rules = {family: note for family, note in noted.items() if note is not None}
    return Found(_accepts(), rules)


def _accepts() -> bool | None:
    try:
        value = _VALUE.read_text(encoding="ascii").strip() != "0"
    except OSError:
        return None
    return True if value else (False if os.access(_VALUE, os.W_OK) else None)


def take(step: Step) -> None:
    """Take one step. Raises SystemRefusedError for a routing rule; a value that cannot be set any
    more stays, since nothing depends on it."""
    if step.family is not None:
        routing.change_reply_rule(step.family, add=step.add, notes=step.notes)
        return
    with contextlib.suppress(OSError):
        _VALUE.write_text(str(int(step.add)), encoding="ascii")


def set_back(namespace: Path) -> str:
    """Return that somebody has set the value back to 0 in a namespace where it was 1; else nothing.

    Raises NotReadyError if the namespace is gone.
    """
    with inside.entered(namespace):
        return "" if _accepts() else _SET_BACK
