"""What meshd does not carry out yet of AuthorizationPolicies. Pure.

It is refused when a policy is applied. A policy that came on another way denies all that it could
be about: a part of it that was left out could open something.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshd.api.authorization_policy.conditions import KNOWN, claim_of, header_of
from meshd.api.authorization_policy.types import AuthorizationPolicy, Rule
from meshd.api.decode import Path, nearest

_NO_TARGETS: Final = (
    "names by group, kind, name and namespace what a waypoint or a gateway of the Gateway API"
    " serves, and there are none: policies hold at workloads; choose those behind a Service by"
    " selector, with the labels that the Service selects"
)


def unsupported(found: AuthorizationPolicy) -> Iterator[tuple[Path, str]]:
    """Yield the fields of a policy that are not carried out, and why."""
    spec = found.spec
    for name, given in (("targetRef", spec.target_ref), ("targetRefs", spec.target_refs)):
        if given is not None:
            yield ("spec", name), _NO_TARGETS
    for index, rule in enumerate(spec.rules or ()):
        yield from _of_rule(("spec", "rules", index), rule)


def _of_rule(path: Path, rule: Rule) -> Iterator[tuple[Path, str]]:
    for index, condition in enumerate(rule.when or ()):
        key, at = condition.key, (*path, "when", index, "key")
        if key not in KNOWN and not header_of(key) and not claim_of(key):
            hint = nearest(key, [*KNOWN, "request.headers[NAME]", "request.auth.claims[NAME]"])
            yield at, f'"{key}" is no attribute that conditions have{hint}'
