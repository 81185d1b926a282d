"""AuthorizationPolicies that name an extension provider which there is not. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.model.extension_provider import AuthorizationProvider


def unasked(
    policies: Iterable[AuthorizationPolicy], providers: Iterable[AuthorizationProvider]
) -> Iterator[str]:
    """Yield a line for each policy that denies everything since nobody can be asked."""
    known = {one.name for one in providers}
    for policy in policies:
        name = policy.spec.provider.name if policy.spec.provider else ""
        if policy.spec.action == "CUSTOM" and name not in known:
            listed = ", ".join(sorted(known)) or "none"
            yield (
                f'{policy.key} denies everything to the workloads that it selects: "{name}" is'
                f" none of mesh.extension_providers (known: {listed}); add it to meshd.yaml"
            )
