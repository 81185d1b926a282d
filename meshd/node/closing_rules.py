"""Closes at workloads what AuthorizationPolicies close, before that is compiled. Pure.

Until a change is compiled, workloads take what both the rules that were compiled and those that are
wanted now allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.compile.policy.authorization import by_namespace
from meshd.compile.replacement.refused_objects import closed_policy
from meshd.compile.shortcuts.guarded import Guarded, Guards
from meshd.model.workload import Workload
from meshd.xds.resources import Resource, pack

Looked = Mapping[int, tuple[AuthorizationPolicy, AuthorizationPolicy]]
"""By its id each policy that was looked at, and what is in force of it."""


class Judging(msgspec.Struct, frozen=True):
    """What is to be closed by AuthorizationPolicies."""

    of: tuple[object, ...] = ()
    """What the rest follows from."""
    looked: Looked = {}
    guards: Guards = {}
    """The rules until the compilation, for workloads to which they allow less."""
    resources: tuple[Resource, ...] = ()
    """What proxies are told in place of what was compiled."""

    def followed(
        self,
        policies: tuple[AuthorizationPolicy, ...],
        members: tuple[Workload, ...],
        guarded: Guarded | None,
    ) -> Judging:
        """Return what is to be closed now of what was compiled."""
        of = policies, members, guarded
        if guarded is None or of == self.of:
            return self
        looked = dict(_looked(policies, self.looked))
        in_force = by_namespace(one for _, one in looked.values())
        guards = guarded.stricter(in_force, members)
        made = (pack(name, one) for name, one in guarded.under(guards))
        return Judging(of, looked, guards, tuple(made))


def _looked(
    policies: Iterable[AuthorizationPolicy], before: Looked
) -> Iterator[tuple[int, tuple[AuthorizationPolicy, AuthorizationPolicy]]]:
    for one in policies:
        yield id(one), before.get(id(one)) or (one, closed_policy(one))
