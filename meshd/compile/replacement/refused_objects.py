"""Objects of a snapshot that proxies would refuse, and with them what is beside them. Pure.

The checks refuse new objects with such a value, and say of each finding whether it is one. Objects
that were accepted before, by another version, are closed: nobody else's routes depend on them.

An AuthorizationPolicy or a RequestAuthentication is closed for any error: what is wrong in it could
open something.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping

import msgspec

from meshd.api.authorization_policy.types import AuthorizationPolicy, Rule
from meshd.api.base import Object
from meshd.api.dispatch import check_accepted, refused_by_proxies
from meshd.api.networking import DestinationRule
from meshd.api.read import Read
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.api.virtual_service.types import VirtualService
from meshd.api.yaml import Document
from meshd.compile.replacement.snapshots import NOTHING, Replaceable, Replacements
from meshd.model.closed_authentication import ClosedAuthentication
from meshd.model.closed_authorization import ClosedAuthorization
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.closed_rule import ClosedRule
from meshd.model.snapshot import Snapshot


class RefusedObjects:
    """Looks again only at what has changed.

    ``before``: those whose last look this one goes on from. They may be in use in another thread.
    """

    def __init__(self, before: RefusedObjects | None = None) -> None:
        self._given: tuple[tuple[Replaceable, ...], ...] = (), (), (), ()
        """The objects of each kind that were looked at last."""
        self._known: Mapping[int, tuple[Replaceable, str]] = before._known if before else {}
        """By its id each object, and what proxies would refuse of it. It is replaced, and never
        changed."""
        self._refused: dict[int, tuple[Replaceable, str]] = {}
        """Those of which proxies would refuse anything."""
        self._closed = NOTHING
        """Closed routes, rules and policies."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what is closed, with the reason."""
        return tuple(f"{one.key} is closed: {why}" for one, why in self._refused.values())

    def close(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with closed routes, rules and policies in place of what proxies
        refuse.

        Their hosts are not reached, nor are the workloads that these policies select; all others
        are.
        """
        routes, rules = snapshot.virtual_services, snapshot.destination_rules
        policies, tokens = snapshot.authorization_policies, snapshot.request_authentications
        given = routes, rules, policies, tokens
        if not all(map(operator.is_, given, self._given)):
            self._given = given
            self._look((*routes, *rules, *policies, *tokens))
            closed = {key: _closed(one) for key, (one, _) in self._refused.items()}
            self._closed = Replacements(snapshot, closed)
        return self._closed.put_into(snapshot)

    def _look(self, objects: tuple[Replaceable, ...]) -> None:
        before = self._known
        self._known = {id(one): before.get(id(one)) or (one, _refused(one)) for one in objects}
        self._refused = {key: one for key, one in self._known.items() if one[1]}


def _closed(found: Replaceable) -> Replaceable:
    match found:
        case VirtualService():
            return ClosedRoutes.of(found)
        case DestinationRule():
            return ClosedRule.of(found)
        case AuthorizationPolicy():
            return _denying(found)
        case RequestAuthentication():
            return ClosedAuthentication.of(found)


def closed_policy(found: AuthorizationPolicy) -> AuthorizationPolicy:
    """Return what is in force of a policy: where something is wrong in it, it denies everything."""
    return _denying(found) if _refused(found) else found


def _denying(found: AuthorizationPolicy) -> AuthorizationPolicy:
    spec = msgspec.structs.replace(found.spec, action="DENY", rules=(Rule(),), provider=None)
    return msgspec.structs.replace(found, spec=spec)


def _refused(found: Object) -> str:
    """Return what proxies would refuse of an object, or of a policy what else is wrong in it;
    empty: nothing."""
    match found:
        case ClosedRoutes() | ClosedRule() | ClosedAuthorization() | ClosedAuthentication():
            return ""
        case AuthorizationPolicy() | RequestAuthentication():
            return _wrong(found)
        case _:
            pass
    for field, message in refused_by_proxies(found):
        return (
            f"{field}: {message}. Proxies refuse it; correct it (until then its hosts are not"
            " reached)"
        )
    return ""


def _wrong(found: AuthorizationPolicy | RequestAuthentication) -> str:
    for finding in check_accepted(Read(found, Document("", 0, None, {}))):
        if finding.severity == "error" and finding.field.startswith("spec"):
            return (
                f"{finding.field}: {finding.message}. Correct it (until then everything is denied"
                " to the workloads that it selects)"
            )
    return ""
