"""registrars → mesh: the workloads of this node."""

from __future__ import annotations

from meshd.api.base import Seconds
from meshd.model.workload import Workload
from meshd.wire.message import Message


class Register(Message, frozen=True):
    """Workloads that exist on this node. One with the same uid is replaced."""

    workloads: tuple[Workload, ...]
    wait: Seconds = 0.0
    """Seconds to wait until all of them are proven; 0: answer as soon as they are recorded."""


class Unregister(Message, frozen=True):
    """Workloads that are gone. Answered when nothing of them is left in the kernel."""

    uids: tuple[str, ...]


Messages = Register | Unregister
