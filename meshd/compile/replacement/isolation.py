"""Compiles without the objects that cannot be compiled, and names them.

Validation refuses what cannot be compiled. This module is for objects that validation has missed:
such an object affects only itself and never the rest of the node. Leaving an object out never opens
anything:

- Authentication policies are not left out: the caller keeps the previous configuration.
- A service, a VirtualService or a DestinationRule is replaced by a closed one, whose hosts are
  refused; otherwise they would be reached in plaintext, or without their egress gateway.
- Without a workload or a Gateway, there are no listeners for it.
- Without a secret, handshakes fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from meshd.api.networking import DestinationRule, VirtualService
from meshd.base.errors import InvalidInputError
from meshd.compile.changes.readiness import is_the_same
from meshd.compile.replacement.heavy import Weighing
from meshd.compile.replacement.refused_objects import RefusedObjects
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.closed_rule import ClosedRule
from meshd.model.closed_services import closed_record
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import Snapshot

FAULTS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""The exceptions that protobuf and meshd raise for a value that no message can hold."""
_MOST: Final = 32
"""Objects that are left out at most; with more, the fault is not in the objects."""
_LISTS: Final = ("destination_rules", "gateways", "virtual_services")
_TABLES: Final = ("workloads", "services", "secrets")


_Result_co = TypeVar("_Result_co", covariant=True)


class Compiles(Protocol[_Result_co]):
    def compile(self, snapshot: Snapshot, serving: Iterable[str]) -> _Result_co: ...


class Part(msgspec.Struct, frozen=True):
    """One object of a snapshot."""

    field: str
    key: str
    """The key within the field, as people know the object."""
    value: object

    def __str__(self) -> str:
        kind = getattr(self.value, "KIND", "")
        return self.key if kind else f"{self.field.removesuffix('s')} {self.key}"


class Isolating(Generic[_Result_co]):
    """A compiler that leaves objects out.

    ``fresh`` returns a compiler without memory, for trials. ``before``: one that has judged most
    of the objects already; it may be in use in another thread.
    """

    def __init__(
        self,
        compiler: Compiles[_Result_co],
        fresh: Callable[[], Compiles[_Result_co]],
        before: Isolating[_Result_co] | None = None,
    ) -> None:
        self._compiler = compiler
        self._fresh = fresh
        self._left_out: list[tuple[Part, str]] = []
        self._weighing = Weighing()
        self.compiled: Snapshot | None = None
        """The snapshot that was compiled last, without what was left out; None: there was none."""
        self._refused = RefusedObjects(before and before._refused)

    @property
    def problems(self) -> tuple[str, ...]:
        closed = " (until then its hosts are not reached)"
        left_out = (
            f"{part} is left out, because it cannot be compiled: {why}; correct or delete it"
            + (closed if _stands_for(part) else "")
            for part, why in self._left_out
        )
        return (*self._refused.problems, *self._weighing.problems, *left_out)

    def compile(self, snapshot: Snapshot, serving: Iterable[str]) -> _Result_co:
        """Return the compiler's result, without the objects that cannot be compiled.

        Raises InvalidInputError if it cannot be told which object is at fault.
        """
        uids = tuple(serving)
        self._left_out = list(self._still_left_out(snapshot))
        snapshot = self._weighing.lighten(self._refused.close(snapshot))
        while True:
            left = without(snapshot, [part for part, _ in self._left_out])
            try:
                compiled = self._compiler.compile(left, uids)
            except FAULTS as error:
                self._left_out.append((self._culprit(left, uids, error), _said(error)))
            else:
                self.compiled = left
                return compiled

    def _still_left_out(self, snapshot: Snapshot) -> Iterator[tuple[Part, str]]:
        """Yield the parts that have not changed since they were left out.

        Changes of readiness, which are frequent, do not count: readiness is no reason to leave a
        part out.
        """
        if not self._left_out:
            return
        there = {(part.field, part.key): part.value for part in parts(snapshot)}
        for part, why in self._left_out:
            if is_the_same(part.value, there.get((part.field, part.key))):
                yield part, why

    def _culprit(self, snapshot: Snapshot, serving: Sequence[str], error: Exception) -> Part:
        listed = list(parts(snapshot))
        bare = without(snapshot, listed)

        def fails(count: int) -> bool:
            """Return whether the first ``count`` objects alone cannot be compiled."""
            try:
                self._fresh().compile(without(snapshot, listed[count:]), serving)
            except FAULTS:
                return True
            return False

        if len(self._left_out) >= _MOST or not fails(len(listed)) or _fails(self._fresh(), bare):
            reason = (
                f"the configuration cannot be compiled, so the one before stays: {_said(error)}"
            )
            raise InvalidInputError(reason) from error
        low, high = 0, len(listed)  # fails(high), and not fails(low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fails(middle) else (middle, high)
        return listed[high - 1]


def _fails(compiler: Compiles[object], snapshot: Snapshot) -> bool:
    try:
        compiler.compile(snapshot, ())
    except FAULTS:
        return True
    return False


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def parts(snapshot: Snapshot) -> Iterator[Part]:
    """Yield the objects that may be left out; those that other objects need come first."""
    for field in _TABLES:
        for key, value in sorted(getattr(snapshot, field).items()):
            yield Part(field, key, value)
    for field in _LISTS:
        for value in getattr(snapshot, field):
            yield Part(field, str(value.key), value)


def without(snapshot: Snapshot, left_out: Iterable[Part]) -> Snapshot:
    """Return the snapshot without parts; closed objects replace those that have hosts."""
    return _replaced(snapshot, {(part.field, part.key): _stands_for(part) for part in left_out})


def _stands_for(part: Part) -> tuple[object, ...]:
    """Return the replacement of a part that is left out; empty: there is none."""
    match part.value:
        case DestinationRule():
            return (ClosedRule.of(part.value),)
        case VirtualService():
            return (ClosedRoutes.of(part.value),)
        case ServiceRecord():
            return (closed_record(part.value),)
        case _:
            return ()


def _replaced(
    snapshot: Snapshot, instead: Mapping[tuple[str, str], tuple[object, ...]]
) -> Snapshot:
    """Return the snapshot with replacements for some parts, by field and key."""
    if not instead:
        return snapshot
    fields: dict[str, object] = {
        field: {
            key: left
            for key, value in getattr(snapshot, field).items()
            for left in instead.get((field, key), (value,))
        }
        for field in _TABLES
    }
    for field in _LISTS:
        fields[field] = tuple(
            left
            for value in getattr(snapshot, field)
            for left in instead.get((field, str(value.key)), (value,))
        )
    return msgspec.structs.replace(snapshot, **fields)
