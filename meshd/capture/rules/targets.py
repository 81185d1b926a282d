"""The wanted states of a namespace: one workload's own, or the host's."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from meshd.capture.host.rules import HostWorkload, held_workloads, host_changes
from meshd.capture.rules import routing
from meshd.capture.rules.delta import Change, Tables, changes_to, guarded, is_captured
from meshd.capture.rules.options import CaptureOptions
from meshd.capture.rules.rule import Family
from meshd.capture.rules.rules import Ruleset, desired_rules, guard_rules
from meshd.capture.rules.tables import Backend
from meshd.model.interception import INBOUND_ROUTE_TABLE


@dataclasses.dataclass(frozen=True, slots=True)
class HostCapture:
    """The wanted state of the host's own namespace; empty without workloads."""

    workloads: tuple[HostWorkload, ...] = ()
    waiting: tuple[HostWorkload, ...] = ()
    """Not to be captured yet. Those that are held stay so."""
    backend: str = "auto"
    ipv6: bool = True


class Target(Protocol):
    """The wanted state of a namespace. An empty one removes all of our rules."""

    @property
    def backend(self) -> str: ...

    @property
    def route_table(self) -> int: ...

    @property
    def marks_replies(self) -> bool:
        """Return whether the namespace's sysctls are ours to change, see ``replies``."""
        ...

    def is_routed(self, family: Family) -> bool:
        """Return whether replies need the routing rule."""
        ...

    def changes(self, backend: Backend, tables: Tables, family: Family) -> tuple[Change, ...]: ...

    def finish(self) -> None:
        """Do what else there is to do in a captured namespace."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class WorkloadTarget:
    """A namespace that is one workload's own; None: it is to be left alone."""

    options: CaptureOptions | None
    route_table: int = INBOUND_ROUTE_TABLE
    marks_replies: bool = True

    @property
    def backend(self) -> str:
        return self.options.backend if self.options else "auto"

    def is_routed(self, family: Family) -> bool:
        return self.options is not None and (family is Family.IPV4 or self.options.ipv6)

    def changes(self, backend: Backend, tables: Tables, family: Family) -> tuple[Change, ...]:
        options = self.options
        desired: Ruleset = desired_rules(options, family) if options else {}
        changes = changes_to(tables, desired, mark_new_tables=backend.remembers_new_tables)
        # Before the first time traffic passes anyway, and when capture ends it shall pass.
        if options and desired and not options.fail_open and is_captured(tables):
            return guarded(changes, tables, guard_rules(options))
        return changes

    def finish(self) -> None:
        if self.options:
            routing.migrate_requests()


@dataclasses.dataclass(frozen=True, slots=True)
class HostTarget:
    capture: HostCapture
    route_table: int = INBOUND_ROUTE_TABLE
    marks_replies: bool = False

    @property
    def backend(self) -> str:
        return self.capture.backend

    def is_routed(self, family: Family) -> bool:
        return bool(self.capture.workloads) and (family is Family.IPV4 or self.capture.ipv6)

    def changes(self, backend: Backend, tables: Tables, family: Family) -> tuple[Change, ...]:
        held = held_workloads(tables)
        waiting = [
            dataclasses.replace(one, held=True) for one in self.capture.waiting if one.uid in held
        ]
        wanted = (*self.capture.workloads, *waiting)
        mark = backend.remembers_new_tables
        return host_changes(tables, wanted, family, mark_new_tables=mark)

    def finish(self) -> None:
        """Do nothing: sysctls of the host are not ours; systemd/sysctl.d has the one that
        matters."""
