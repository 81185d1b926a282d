"""The input of the rules of one enrolled service of the host."""

from __future__ import annotations

import dataclasses

from meshd.capture.rules.options import CaptureOptions


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostWorkload:
    """One enrolled service of the host."""

    uid: str
    cgroup: str
    cgroup_id: int
    """A rule is bound to one cgroup; when the service gets another one, the rules must change. 0:
    it does not run, so that there is nothing to be said of what it sends."""
    outbound_port: int
    inbound_port: int
    ports: tuple[int, ...]
    """Declared: inbound, these are captured."""
    options: CaptureOptions
    held: bool = False
    """Enrolled, but not to be redirected yet: nothing may pass."""
    proxy_user: int = 0
    """The uid of the proxies, who alone may answer at its ports; 0: it is not known."""
