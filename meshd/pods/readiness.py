"""Decides when a container is ready, and when it is restarted. Pure.

After https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/ and
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy, but quicker: users
of a testbed wait for it.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from meshd.api.kubernetes.types import Probe
from meshd.base.backoff import Backoff

_EAGER: Final = 0.2
"""Seconds between probes until the first one passes: nobody waits ten seconds for a start."""
_BACKOFF: Final = Backoff(0.5, 30.0)
_SETTLED: Final = 60.0
"""Seconds after which a process counts as having run well."""


@dataclasses.dataclass(frozen=True, slots=True)
class Readiness:
    """The result of the probes so far."""

    ready: bool = False
    begun: bool = False
    """Whether any probe has passed yet."""
    streak: int = 0
    """Probes in a row that spoke against ``ready``."""

    def after(self, passed: bool, probe: Probe) -> Readiness:
        begun = self.begun or passed
        if passed == self.ready:
            return Readiness(self.ready, begun)
        streak = self.streak + 1
        threshold = probe.success_threshold if passed else probe.failure_threshold
        if streak >= threshold:
            return Readiness(passed, begun)
        return Readiness(self.ready, begun, streak)

    def pause(self, probe: Probe) -> float:
        """Return the seconds until the next probe."""
        period = float(max(probe.period_seconds, 1))
        return period if self.begun else min(_EAGER, period)


@dataclasses.dataclass(frozen=True, slots=True)
class Restarts:
    """How often in a row a process has ended without having run well."""

    number: int = 0

    @property
    def pause(self) -> float:
        """Return the seconds before the process is restarted."""
        return _BACKOFF.pause(self.number)

    def after(self, lived: float) -> Restarts:
        """Count one more end; ``lived`` is how many seconds the process has run."""
        return Restarts(1 if lived >= _SETTLED else self.number + 1)
