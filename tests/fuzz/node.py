"""The mesh role's work with what it has let in, up to the proxies' resources, without a process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from meshd.api.base import Key, Object
from meshd.api.write import to_json
from meshd.compile.compiler import Compiler
from meshd.compile.replacement.isolation import Isolating
from meshd.compile.trial import trial_clients
from meshd.fleet.server.private import needed_secrets
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.node.packing import Packer
from meshd.registry.addresses import allocate
from meshd.registry.registry import build_snapshot, declared_addresses, hosts_without_address
from meshd.resolver.tables import tables
from meshd.workloads import groups
from meshd.xds.resources import Resources
from tests.message_rules import Rules, message_of

_CIDR: Final = "198.19.0.0/16"
_ROUNDS: Final = 500
"""Compilations after which all is compiled anew, as at a start."""
_MOST_SEEN: Final = 2_000_000
"""Digests that are kept."""


class Node:
    """Goes from one input to the next as a node does from change to change, which is much faster
    than a start for each. Inputs that come to the same objects are put in force once."""

    def __init__(
        self,
        objects: Mapping[Key, Object],
        workloads: Sequence[Workload],
        options: MeshOptions,
    ) -> None:
        self._objects = objects
        self._workloads = workloads
        self._options = options
        self._seen: set[int] = set()
        self._rounds = 0
        self._start()

    def _start(self) -> None:
        self._compiler = Compiler()
        self._isolating = Isolating(self._compiler, Compiler)
        self._packer = Packer()
        self._checked: set[tuple[str, str]] = set()
        self._rules = Rules()

    def put_in_force(self, objects: Iterable[Object], elsewhere: Iterable[Workload] = ()) -> None:
        """Raises whatever the compiler raises, also what a node would set aside: all that is let in
        can be compiled."""
        changed = {one.key: one for one in objects}
        values, others = [to_json(one) for one in changed.values()], tuple(elsewhere)
        digest = hash(msgspec.msgpack.encode((values, others)))
        if digest in self._seen:
            return
        if len(self._seen) < _MOST_SEEN:
            self._seen.add(digest)
        self._rounds += 1
        if self._rounds % _ROUNDS == 0:
            self._start()
        try:
            self._compile(changed, others)
        except BaseException:
            self._start()
            raise
        needed_secrets(values, self._workloads)

    def _compile(self, changed: Mapping[Key, Object], elsewhere: Sequence[Workload]) -> None:
        after: dict[Key, Object] = {**self._objects, **changed}
        hosts = hosts_without_address(after.values(), self._options)
        declared = declared_addresses(after.values())
        given = allocate({}, hosts, _CIDR, declared).addresses
        members = [groups.as_member(one, after, lambda _: True) for one in self._workloads]
        snapshot = build_snapshot(
            after.values(), members, self._options, given, elsewhere=elsewhere
        )
        clients = dict(trial_clients(snapshot, list(changed))) | {one.uid: one for one in members}
        served = msgspec.structs.replace(snapshot, workloads=clients)
        packed = self._packer.pack(self._isolating.compile(served, clients))
        left_out = [one for one in self._isolating.problems if " is left out" in one]
        fault = self._compiler._fault  # pyright: ignore[reportPrivateUsage]
        assert not fault, fault
        assert not left_out, left_out[0]
        self._check(packed.values())
        tables(snapshot.services.values(), self._options.domain, "127.0.0.1#5")

    def _check(self, packed: Iterable[Resources]) -> None:
        """Hold what is new against Envoy's own rules for its messages."""
        for resources in packed:
            for url, named in resources.by_type.items():
                for one in named.values():
                    if (url, one.version) not in self._checked:
                        rules = self._rules.broken(message_of(one))
                        assert not (first := next(rules, "")), first
                        self._checked.add((url, one.version))
