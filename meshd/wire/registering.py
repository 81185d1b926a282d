"""registrars → mesh: which workloads this node has."""

from __future__ import annotations

from meshd.model.base import Seconds
from meshd.model.workload import Workload
from meshd.wire.message import Message


class Register(Message, frozen=True):
    """These workloads exist on this node. An equal uid replaces."""

    workloads: tuple[Workload, ...]
    wait: Seconds = 0.0
    """Seconds to wait until all of them are proven; 0: answer as soon as they are recorded."""


class Unregister(Message, frozen=True):
    """These workloads are gone. Answered when nothing of them is left in the kernel."""

    uids: tuple[str, ...]


Messages = Register | Unregister
