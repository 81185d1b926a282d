"""Probes a service of the host from inside its cgroup, where its rules hold."""

from __future__ import annotations

from meshd.base.errors import MeshdError
from meshd.capture.host import cgroups
from meshd.capture.host.rules import HostWorkload
from meshd.capture.probes.outbound import probe_here
from meshd.capture.rules import inside


async def probe(one: HostWorkload) -> str:
    """Return what is wrong with the redirection of a service's traffic; empty if nothing is."""
    if not one.cgroup_id:
        return f"cgroup {one.cgroup} not found: the service does not run"

    def ask() -> str:
        with cgroups.visited(one.cgroup):
            return probe_here(one.uid, ipv6=one.options.ipv6)

    try:
        return await inside.run_in_host(ask)
    except MeshdError as error:
        return str(error)
    finally:
        cgroups.sweep(one.cgroup)
