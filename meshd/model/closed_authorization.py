"""AuthorizationPolicies that are not in force, but without which no workload must be reached."""

from __future__ import annotations

from meshd.api.authorization_policy.types import (
    AuthorizationPolicy,
    AuthorizationPolicySpec,
    Rule,
)
from meshd.api.base import Key, ObjectMeta

_NOTHING = AuthorizationPolicySpec(action="DENY", rules=(Rule(),))


class ClosedAuthorization(AuthorizationPolicy, frozen=True):
    """A policy that cannot be used.

    Nobody knows for which workloads it was, nor what it denied: nothing is accepted in its
    namespace; in the root namespace, nothing in the whole mesh.
    """

    @classmethod
    def named(cls, namespace: str, name: str) -> ClosedAuthorization:
        """Return the replacement of the policy with a name."""
        return cls(metadata=ObjectMeta(name=name, namespace=namespace), spec=_NOTHING)

    @classmethod
    def of(cls, key: Key) -> ClosedAuthorization:
        """Return the replacement of the policy of a key."""
        return cls.named(key.namespace, key.name)
