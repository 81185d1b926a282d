"""The workload of a container that a runtime starts without Kubernetes. Pure."""

from __future__ import annotations

import re
from typing import Final

from meshd.cni import request as requests
from meshd.cni.request import CniError, Request
from meshd.model.workload import Workload

_UNFIT: Final = re.compile(r"[^a-z0-9-]+")
_LONGEST: Final = 63


def of_container(request: Request, namespace: str) -> Workload:
    """Return the workload, which is in the mesh if its namespace is, and which Services select by
    the label ``app``, its name. Raises CniError."""
    name = _UNFIT.sub("-", request.container.lower())[:_LONGEST].strip("-")
    if not name:
        reason = f"container {request.container} gives no name for a workload"
        raise CniError(requests.ENVIRONMENT, reason, "name it with letters or digits")
    return Workload(
        uid=f"{namespace}.{name}",
        name=name,
        namespace=namespace,
        netns=request.netns,
        addresses=request.addresses,
        labels={"app": name},
        enrolled=False,
    )
