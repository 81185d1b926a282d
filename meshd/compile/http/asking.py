"""Questions to extension providers (``ext_authz``), which a proxy asks by itself.

As copies of requests, they would go without the filter state of the connection that the request
came by. So they go to an internal listener like that of copies, with headers that say in whose name
they are. Which provider is meant, is in a header, too: behind the listener, a route for each leads
to the provider's service, as the root namespace sees it.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshd.compile.names import ASKING
from meshd.compile.plan.chains import Chain, Copies
from meshd.compile.plan.listeners import Listener
from meshd.compile.plan.upstreams import Http, HttpVersion, InternalListener, Settings, Upstream
from meshd.compile.visibility.view import View
from meshd.model.extension_provider import AuthorizationProvider
from meshd.model.snapshot import MeshOptions


def asking_upstream() -> Upstream:
    """Return the upstream of all questions."""
    return Upstream(ASKING, InternalListener(ASKING), Settings(http=Http(HttpVersion.HTTP2)))


def asking_listener(options: MeshOptions) -> Listener:
    target = Copies(ASKING, options.access_log, routes=ASKING)
    return Listener(name=ASKING, chains=(Chain(name=ASKING, target=target),))


def destinations(
    providers: Iterable[AuthorizationProvider], view: View
) -> tuple[tuple[str, str], ...]:
    """Return the upstream of each provider, by its name; ``view``: of the root namespace's copies.
    One that does not exist gives no answer."""
    return tuple((one.name, str(view.cluster(one.host, one.port))) for one in providers)


def hosts_asked(providers: Iterable[AuthorizationProvider], view: View) -> list[str]:
    """Return the hosts of providers that there are."""
    return sorted(view.services.keys() & {one.host for one in providers})
