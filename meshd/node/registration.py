"""Registers workloads with the reconciler, and waits for what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from meshd.base import journal
from meshd.base.errors import InvalidInputError, NotReadyError
from meshd.model.workload import LONGEST_PINNED, Workload, shown
from meshd.node.reconciler import Reconciler
from meshd.node.settling import Settling
from meshd.workloads.host import host_services
from meshd.workloads.lifecycle import Phase

GONE_TIMEOUT: Final = 30.0
"""Seconds for a workload to leave the kernel."""
_CALLERS_TIMEOUT: Final = 5.0
"""Seconds for proxies to know workloads as callers."""
_log: Final = logging.getLogger(__name__)


class Registration:
    """``problem_of`` returns why a workload is not proven, and ``may_call`` whether proxies know
    its identity as that of a caller; ``fails_open``: it may go on without being proven."""

    def __init__(
        self,
        reconciler: Reconciler,
        settling: Settling,
        problem_of: Callable[[str], str],
        may_call: Callable[[str], bool] = lambda _: True,
        *,
        fails_open: bool,
    ) -> None:
        self._reconciler = reconciler
        self._settling = settling
        self._problem_of = problem_of
        self._may_call = may_call
        self._fails_open = fails_open

    @property
    def registered(self) -> Mapping[str, Workload]:
        return self._reconciler.known.registered

    def register(self, workloads: Sequence[Workload]) -> None:
        """Raises MeshdError when that cannot be, or cannot be recorded: nothing has changed."""
        for workload in workloads:
            _refuse_long(workload)
            host_services.refuse_taken(workload, self.registered.values())
        self._reconciler.register(workloads)

    async def prove(self, uids: Sequence[str], seconds: float) -> None:
        """Wait until those of the workloads that are in the mesh are proven. Raises NotReadyError.

        Their certificates, which each connection would wait for, are waited for a little longer.
        """

        def unproven() -> list[str]:
            inside = self._reconciler.inside()
            return [uid for uid in uids if uid in inside and not self.is_proven(uid)]

        def are_known() -> bool:
            inside = self._reconciler.inside()
            return all(self._may_call(uid) for uid in uids if uid in inside)

        if await self._settling.wait(lambda: not unproven(), seconds):
            await self._settling.wait(are_known, _CALLERS_TIMEOUT)
            return
        late = unproven()
        reasons = "; ".join(
            f"{shown(uid)}: {self._problem_of(uid) or 'no reason yet'}" for uid in late
        )
        told = f"not in the mesh after {seconds:g} s: {reasons}"
        if not self._fails_open:
            raise NotReadyError(told)
        text = "%s; started UNPROTECTED (failure_policy: open)"
        for uid in late:
            journal.event(_log, logging.ERROR, "unprotected", text, told, workload=uid)

    def is_proven(self, uid: str) -> bool:
        known = self._reconciler.known
        life, seen = known.lives.get(uid), known.observations.get(uid)
        return bool(life and life.phase is Phase.CAPTURED and seen and seen.proven)

    async def unregister(self, uids: Sequence[str]) -> None:
        """Wait until nothing of the workloads is left in the kernel.

        Raises SystemRefusedError when that cannot be recorded, NotReadyError when it takes longer.
        """
        self._reconciler.unregister(uids)

        def left() -> list[str]:
            return [uid for uid in uids if uid in self._reconciler.known.lives]

        if not await self._settling.wait(lambda: not left(), GONE_TIMEOUT):
            lives = self._reconciler.known.lives
            waits = ", ".join(f"{shown(uid)} ({lives[uid].phase})" for uid in left())
            raise NotReadyError(f"still being let go after {GONE_TIMEOUT:g} s: {waits}")


def _refuse_long(workload: Workload) -> None:
    """Raises InvalidInputError if the workload's namespace could never be pinned."""
    uid = workload.uid
    if workload.netns and len(uid) > LONGEST_PINNED:
        raise InvalidInputError(
            f"{shown(uid)[:64]}…: the uid has {len(uid)} characters, and at most {LONGEST_PINNED}"
            " for a network namespace; choose a shorter name"
        )
