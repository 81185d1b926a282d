"""What a runtime has attached with the plugin, and not detached yet: a record that outlives the
role, and not a reboot. Its entries are kept by the runtime's own names: a runtime may detach what
came before under the same name of a pod late, or several times."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from meshd.base.disk import replace
from meshd.base.errors import UNDECODABLE
from meshd.model.workload import Workload


class Sandbox(msgspec.Struct, frozen=True):
    """A container, or the sandbox of a pod."""

    container: str
    workload: Workload
    order: int = 0
    """The higher is the newer."""


class Sandboxes(msgspec.Struct, frozen=True):
    """All of them, by the runtime's names."""

    attached: Mapping[str, Sandbox] = {}
    leaving: tuple[str, ...] = ()
    """Uids of the workloads that have ended, and of which the mesh has not been told yet."""

    def with_one(self, container: str, workload: Workload) -> Sandboxes:
        before = self.without([container])
        order = max((one.order for one in before.attached.values()), default=0) + 1
        attached = {**before.attached, container: Sandbox(container, workload, order)}
        return Sandboxes(attached, tuple(uid for uid in before.leaving if uid != workload.uid))

    def without(self, containers: Collection[str]) -> Sandboxes:
        """Return the record after some have ended, whose workloads leave unless they have another
        sandbox."""
        after = Sandboxes({key: one for key, one in self.attached.items() if key not in containers})
        gone = self.newest.keys() - after.newest.keys()
        return Sandboxes(after.attached, tuple(sorted({*self.leaving, *gone})))

    def updated(self, workload: Workload) -> Sandboxes:
        """Return the record with a workload as it is now, in its newest sandbox."""
        newest = max(
            (one for one in self.attached.values() if one.workload.uid == workload.uid),
            key=lambda one: one.order,
        )
        now = Sandbox(newest.container, workload, newest.order)
        return Sandboxes({**self.attached, newest.container: now}, self.leaving)

    def left(self, uid: str) -> Sandboxes:
        return Sandboxes(self.attached, tuple(one for one in self.leaving if one != uid))

    @property
    def newest(self) -> dict[str, Workload]:
        """Return the workload of the newest sandbox of each uid."""
        ordered = sorted(self.attached.values(), key=lambda one: one.order)
        return {one.workload.uid: one.workload for one in ordered}


def load(path: Path) -> Sandboxes:
    """Return the record; an empty one if there is none, or it cannot be used: a pod is detached
    all the same, since it ends in the API server, too."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sandboxes)
    except (OSError, *UNDECODABLE):
        return Sandboxes()


def save(path: Path, sandboxes: Sandboxes) -> None:
    """Raises SystemRefusedError."""
    replace(path, msgspec.json.encode(sandboxes), durable=False)


def vanished(sandboxes: Sandboxes) -> Iterator[str]:
    """Yield the containers whose namespaces are gone, which nobody detaches any more."""
    for container, one in sandboxes.attached.items():
        if _is_gone(one.workload.netns):
            yield container


def _is_gone(path: str) -> bool:
    try:
        Path(path).stat()
    except FileNotFoundError:
        return True
    except OSError:  # that of a process of others, which is there
        return False
    return False
