"""Decides which workloads of this node others are told to reach by tunnels."""

from __future__ import annotations

from collections.abc import Container, Mapping

from meshd.base.errors import InvalidInputError
from meshd.capture.rules.options import CaptureOptions, options_for
from meshd.model.hbone import obstacle
from meshd.model.interception import HBONE_PORT
from meshd.model.workload import Placement, Stage, Workload
from meshd.settings import CaptureSettings
from meshd.workloads.lifecycle import Life, Phase


class Tunneled:
    """The workloads that others are told to reach by tunnels, where the settings allow it.

    A workload is one of them once it is captured and the proxies have its listener, and stays one
    while it is captured: a listener that changes afterwards takes tunnels all the time.
    """

    def __init__(self, settings: CaptureSettings, *, allowed: bool) -> None:
        self._settings = settings
        self._allowed = allowed
        self.told: frozenset[str] = frozenset()
        """Their uids, as they were told last."""

    def of(
        self,
        inside: Mapping[str, Workload],
        lives: Mapping[str, Life],
        accepted: Container[str],
    ) -> frozenset[str]:
        """Return the uids. ``inside``: the workloads in the mesh; ``accepted``: those of which all
        proxies have the listeners."""
        self.told = frozenset(
            uid
            for uid, one in inside.items()
            if (uid in self.told or uid in accepted) and not self.obstacle(one, lives.get(uid))
        )
        return self.told

    def obstacle(self, workload: Workload, life: Life | None) -> str:
        """Return why nobody reaches a workload by tunnels; empty: nothing of its own prevents
        that."""
        if not self._allowed:
            return "the setting proxy.hbone is off"
        if problem := obstacle(workload):
            return problem
        if life is None or life.phase is not Phase.CAPTURED:
            return "it is not captured"
        try:
            options = options_for(Placement(workload, Stage.CAPTURED), self._settings)
        except InvalidInputError as error:
            return str(error)
        return "" if _is_captured(options) else f"port {HBONE_PORT} is kept from capture"


def _is_captured(options: CaptureOptions) -> bool:
    """Return whether all that is sent to the port of tunnels is captured."""
    included = options.include_inbound_ports
    return (
        (included is None or HBONE_PORT in included)
        and HBONE_PORT not in options.exclude_inbound_ports
        and not options.exclude_interfaces
    )
