"""RequestAuthentications that are not in force, but without which no request must be taken."""

from __future__ import annotations

from meshd.api.base import ObjectMeta
from meshd.api.request_authentication.types import (
    RequestAuthentication,
    RequestAuthenticationSpec,
)


class ClosedAuthentication(RequestAuthentication, frozen=True):
    """A policy that cannot be used.

    Nobody knows which tokens it did not believe: no request is taken in its namespace; in the root
    namespace, none in the whole mesh.
    """

    @classmethod
    def named(cls, namespace: str, name: str) -> ClosedAuthentication:
        """Return the replacement of the policy with a name."""
        return cls(metadata=ObjectMeta(name=name, namespace=namespace))

    @classmethod
    def of(cls, found: RequestAuthentication) -> ClosedAuthentication:
        """Return the replacement of a policy of which it is known which workloads it selects."""
        spec = RequestAuthenticationSpec(selector=found.spec.selector)
        return cls(metadata=found.metadata, spec=spec)
