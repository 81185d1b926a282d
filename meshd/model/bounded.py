"""VirtualServices and DestinationRules that hold for less than they name.

With all of it they would make too much of what other namespaces declare (``meshd.model.excess``).
"""

from __future__ import annotations

import msgspec

from meshd.api.destination_rule.types import DestinationRule
from meshd.api.virtual_service.types import VirtualService
from meshd.model.closed_routes import closed_route
from meshd.model.excess import Excess


class BoundedRoutes(VirtualService, frozen=True):
    """Routes that are closed at some ports and Gateways.

    Requests at those places are refused rather than served without these routes, which may lead
    through an egress gateway, for example.
    """

    closed_ports: frozenset[tuple[str, str, int]] = frozenset()
    """Namespace and host of a service, and the port."""
    closed_gateways: frozenset[str] = frozenset()
    """``NAMESPACE/NAME`` of each."""

    @classmethod
    def of(cls, routes: VirtualService, excess: Excess) -> BoundedRoutes:
        """Return routes without what is too much of them."""
        namespace = routes.metadata.namespace
        http = tuple(
            closed_route(route)
            if (named := route.delegate)
            and (named.namespace or namespace, named.name) in excess.delegates
            else route
            for route in routes.spec.http
        )
        return cls(
            metadata=routes.metadata,
            spec=msgspec.structs.replace(routes.spec, http=http),
            closed_ports=excess.ports,
            closed_gateways=excess.gateways,
        )


class BoundedRule(DestinationRule, frozen=True):
    """A rule whose subsets are not made for some services."""

    without_subsets: frozenset[tuple[str, str]] = frozenset()
    """Namespace and host of each service."""

    @classmethod
    def of(cls, rule: DestinationRule, excess: Excess) -> BoundedRule:
        """Return a rule without what is too much of it."""
        return cls(metadata=rule.metadata, spec=rule.spec, without_subsets=excess.services)

    def without(self) -> DestinationRule:
        """Return the rule as it holds for those services."""
        spec = msgspec.structs.replace(self.spec, subsets=())
        return DestinationRule(metadata=self.metadata, spec=spec)
