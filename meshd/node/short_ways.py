"""How far the short way is in force on this node, as its publications and its proxies say."""

from __future__ import annotations

from meshd.compile.names import LOCAL
from meshd.compile.policy.short_way import reachable
from meshd.model.workload import Workload
from meshd.node.mesh import Mesh
from meshd.workloads import short_way
from meshd.workloads.lifecycle import Facts


class ShortWays:
    """A look at all workloads of the node; ``facts``: those of now."""

    def __init__(self, mesh: Mesh, facts: Facts) -> None:
        self._facts = facts
        self._certified = mesh.certificates.valid
        published = mesh.publishing.published
        self._served = published.served if published else {}
        self._told = published.seen.short_way.destinations if published else ()
        self._near = reachable(published.seen) if published else {}
        self._avoiding = mesh.xds.avoiding(LOCAL)

    def state(self, workload: Workload) -> str:
        """Return whether a workload is called by the short way, or why not."""
        seen = self._facts.observations.get(workload.uid)
        problem = short_way.closed(
            workload, self._served, seen, self._certified, self._facts.trust_domain
        )
        is_told = workload.uid in self._told
        if not problem and is_told and workload.uid not in self._near:
            return "a policy about it asks for connection.sni, and no TLS hello has one there"
        return problem or short_way.opened(self._avoiding, told=is_told)


def may_call(mesh: Mesh, uid: str) -> bool:
    """Return whether the proxies take a workload's connections by the short way, where the options
    allow any."""
    if not mesh.options.short_way:
        return True
    published = mesh.publishing.published
    if published is None or uid not in published.served:
        return False
    uri = short_way.uri_of(published.served[uid], mesh.options.trust_domain)
    return uri in published.seen.short_way.callers and LOCAL in mesh.xds.accepted_names()
