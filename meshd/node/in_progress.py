"""How far one request about enrollment is, as users are told. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from meshd import wire
from meshd.workloads import intent as intents
from meshd.workloads.intent import Action, Intent, Step


class InProgress:
    """One request. ``since``: Unix seconds."""

    def __init__(self, intent: Intent, since: float) -> None:
        self.intent = intent
        self.progress = wire.Progress(number=intent.number)
        self.is_over = False
        """All is done, so that it need not be in the journal."""
        self._since = since

    def begin(self, step: Step) -> None:
        self._become(doing=step.value, problem="")

    def meet(self, problem: str) -> None:
        """Note why the present step is not done yet."""
        self._become(problem=problem)

    def remark(self, remarks: Iterable[str]) -> None:
        """Note what is to be known of what was done."""
        if new := [one for one in remarks if one not in self.progress.remarks]:
            self._become(remarks=(*self.progress.remarks, *new))

    def conclude(self) -> None:
        """Note that all is done."""
        self.is_over = True
        self._become(doing="record that all is done", problem="")

    def end(self, failure: str = "") -> None:
        """Note that nothing will change any more; ``failure``: why what was asked for is not so."""
        self._become(doing="", problem=failure, finished=True)

    def _become(self, **changes: object) -> None:
        state = self.progress.state + 1
        self.progress = msgspec.structs.replace(self.progress, state=state, **changes)

    @property
    def status(self) -> wire.EnrollmentStatus:
        intent, workload = self.intent, self.intent.workload
        host = workload.host if workload else None
        reason = intent.reason if intent.action is Action.UNDO else ""
        return wire.EnrollmentStatus(
            what=intents.what(intent),
            uid=intent.uid,
            unit=intent.unit,
            cgroup=host.cgroup if host else "",
            netns=workload.netns if workload else "",
            doing=self.progress.doing,
            problem="; ".join(filter(None, (reason, self.progress.problem))),
            since=self._since,
        )
