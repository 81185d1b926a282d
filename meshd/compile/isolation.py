"""A compiler that goes on without the objects that it cannot compile, and names them.

Validation refuses what cannot be compiled; this is for what it has missed, so that one object
costs itself and never the node. What is left out never opens anything: authentication policies are
not left out (the caller keeps the configuration before), and a DestinationRule takes the services
of its own namespace that it is about with it (in the root namespace, of all), because without its
TLS settings they would be spoken to in plaintext.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from meshd.api.traffic import DestinationRule, Gateway, VirtualService
from meshd.base.errors import InvalidInputError
from meshd.compile.compiler import Compiled
from meshd.compile.heavy import Weighing
from meshd.compile.hosts import covers, resolve
from meshd.model.pool import Pool
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
"""What protobuf and our own code raise for a value that no message can hold."""
_MOST: Final = 32
"""Objects left out at once, above which the fault is not in the objects."""
_FIELDS: Final = {
    DestinationRule: "destination_rules",
    Gateway: "gateways",
    VirtualService: "virtual_services",
}
_LISTS: Final = tuple(_FIELDS.values())
_TABLES: Final = ("workloads", "services", "secrets")


class Compiles(Protocol):
    def compile(self, snapshot: Snapshot, serving: Iterable[str]) -> Mapping[Pool, Compiled]: ...


class Part(msgspec.Struct, frozen=True):
    """One object of a snapshot."""

    field: str
    key: str
    """Within the field; what people call it."""
    value: object

    @classmethod
    def of(cls, value: VirtualService | DestinationRule) -> Part:
        """Return the part for an object that is in one of the lists."""
        return cls(_FIELDS[type(value)], str(value.key), value)

    def __str__(self) -> str:
        kind = getattr(self.value, "KIND", "")
        return self.key if kind else f"{self.field.removesuffix('s')} {self.key}"


class Isolating:
    """``fresh`` gives a compiler that remembers nothing, for trials."""

    def __init__(self, compiler: Compiles, fresh: Callable[[], Compiles]) -> None:
        self._compiler = compiler
        self._fresh = fresh
        self._left_out: list[tuple[Part, str]] = []
        self._weighing = Weighing()
        self._too_heavy: list[tuple[Part, str]] = []

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(
            f"{part} is left out, because it cannot be compiled: {why}; correct or delete it"
            for part, why in (*self._too_heavy, *self._left_out)
        )

    def compile(self, snapshot: Snapshot, serving: Iterable[str]) -> Mapping[Pool, Compiled]:
        """Raises InvalidInputError when it cannot be told which object is at fault."""
        uids = tuple(serving)
        there = {(part.field, part.key): part.value for part in parts(snapshot)}
        self._left_out = [
            (part, why)
            for part, why in self._left_out
            if there.get((part.field, part.key)) == part.value
        ]
        self._too_heavy = [
            (Part.of(value), why) for value, why in self._weighing.too_heavy(snapshot)
        ]
        snapshot = without(snapshot, [part for part, _ in self._too_heavy])
        while True:
            left = without(snapshot, [part for part, _ in self._left_out])
            try:
                return self._compiler.compile(left, uids)
            except FAULTS as error:
                self._left_out.append((self._culprit(left, uids, error), _said(error)))

    def _culprit(self, snapshot: Snapshot, serving: Sequence[str], error: Exception) -> Part:
        listed = list(parts(snapshot))
        bare = without(snapshot, listed)

        def fails(count: int) -> bool:
            """With the first ``count`` objects only."""
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


def _fails(compiler: Compiles, snapshot: Snapshot) -> bool:
    try:
        compiler.compile(snapshot, ())
    except FAULTS:
        return True
    return False


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def parts(snapshot: Snapshot) -> Iterator[Part]:
    """The objects that may be left out, those that others need first."""
    for field in _TABLES:
        for key, value in sorted(getattr(snapshot, field).items()):
            yield Part(field, key, value)
    for field in _LISTS:
        for value in getattr(snapshot, field):
            yield Part(field, str(value.key), value)


def without(snapshot: Snapshot, left_out: Iterable[Part]) -> Snapshot:
    gone = {(part.field, part.key) for part in left_out}
    if not gone:
        return snapshot
    gone |= {("services", host) for host in _spoken_to(snapshot, gone)}
    fields: dict[str, object] = {
        field: {
            key: value
            for key, value in getattr(snapshot, field).items()
            if (field, key) not in gone
        }
        for field in _TABLES
    }
    for field in _LISTS:
        fields[field] = tuple(
            value for value in getattr(snapshot, field) if (field, str(value.key)) not in gone
        )
    return msgspec.structs.replace(snapshot, **fields)


def closed(snapshot: Snapshot, rules: Iterable[tuple[str, str]]) -> Snapshot:
    """Without the services that DestinationRules are about which are not in it: ``rules`` has
    their namespaces and hosts."""
    gone = {known for namespace, host in rules for known in _about(snapshot, namespace, host)}
    if not gone:
        return snapshot
    services = {known: one for known, one in snapshot.services.items() if known not in gone}
    return msgspec.structs.replace(snapshot, services=services)


def _spoken_to(snapshot: Snapshot, gone: set[tuple[str, str]]) -> Iterator[str]:
    """Hosts of the services that DestinationRules which are left out are about."""
    for rule in snapshot.destination_rules:
        if ("destination_rules", str(rule.key)) in gone:
            yield from _about(snapshot, rule.metadata.namespace, rule.spec.host)


def _about(snapshot: Snapshot, namespace: str, host: str) -> Iterator[str]:
    """Yield services of the rule's own namespace only, unless that is the root namespace: nobody
    closes what belongs to others."""
    options = snapshot.options
    whole = resolve(host, namespace, options.domain, snapshot.services)
    return (
        known
        for known, service in snapshot.services.items()
        if namespace in (service.namespace, options.root_namespace) and covers(whole, service.host)
    )
