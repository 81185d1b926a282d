"""What is to become of a workload: the steps of an enrollment, and those that take it back. Pure.

An intent is in the journal from before its first step until after its last. Each step can be
repeated, so that whoever finds an intent begins with the first of its steps, whatever has been
done. All that a step needs to know of the time before the first is therefore in the intent.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Annotated

import msgspec

from meshd.api.base import Seconds
from meshd.base.errors import InvalidInputError, NotReadyError
from meshd.model.workload import Workload, shown
from meshd.wire import OfferedPort


class Action(enum.StrEnum):
    ENROLL = "enroll"
    PREPARE = "prepare"
    """Of an enrolled workload, the unit."""
    UNDO = "undo"
    """An enrollment that cannot be finished."""
    UNENROLL = "unenroll"


class Step(enum.Enum):
    """The value is what users are told."""

    OFFER = "apply its Service"
    DISMISS = "release the namespace that was at this path before"
    PREPARE = "have systemd hold the unit before it starts"
    REGISTER = "register the workload"
    PROVE = "wait until its traffic is captured and proven"
    RESTART = "restart the unit"
    RESTORE = "take back the changes of the unit"
    REVERT = "take back the registration"
    RELEASE = "release its traffic"
    WITHDRAW = "take back its Service"
    LEAVE_SLICE = "restart the unit outside its slice"
    STOP_SLICE = "stop the slice of the unit"


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the journal."""

    number: Annotated[int, msgspec.Meta(ge=0)]
    """Of the request."""
    action: Action
    uid: str = ""
    """Empty: of a unit that is prepared for no workload."""
    unit: str = ""
    workload: Workload | None = None
    """As asked for; of one that leaves, as it was registered."""
    service: str = ""
    ports: tuple[OfferedPort, ...] = ()
    restart: bool = True
    run: str = ""
    timeout: Seconds = 0.0
    boot: str = ""
    """Of the machine: no network namespace outlives it."""
    registered: Workload | None = None
    """The workload as it was registered before; None: it was not."""
    prepared: bool = False
    """The unit was prepared before."""
    makes_service: bool = False
    """The Service was not there before."""
    service_before: str = ""
    """The Service that is given ports, as it was before, JSON."""
    reason: str = ""
    """Why it is undone."""

    @property
    def key(self) -> str:
        return self.uid or self.unit

    @property
    def is_on_host(self) -> bool:
        return self.workload is not None and self.workload.host is not None


def place(intent: Intent) -> str:
    """Return the unit, cgroup or path by which users know what is enrolled."""
    host = intent.workload.host if intent.workload else None
    netns = intent.workload.netns if intent.workload else ""
    return intent.unit or (host.cgroup if host else netns) or intent.uid


def what(intent: Intent) -> str:
    """Return what users call it."""
    is_end = intent.action in {Action.UNENROLL, Action.UNDO}
    return f"{'unenrollment' if is_end else 'enrollment'} of {place(intent)}"


def steps(intent: Intent) -> tuple[Step, ...]:
    """Return the steps in order. A service of the host is held before it is registered, and
    captured before it is restarted: in between it would be outside the mesh."""
    unit = bool(intent.unit)
    restart = unit and intent.restart
    match intent.action:
        case Action.ENROLL:
            wanted = {
                Step.OFFER: bool(intent.service),
                Step.DISMISS: is_another_namespace(intent),
                Step.PREPARE: unit,
                Step.REGISTER: True,
                Step.PROVE: True,
                Step.RESTART: restart,
            }
        case Action.PREPARE:
            wanted = {Step.PREPARE: unit, Step.RESTART: restart, Step.PROVE: True}
        case Action.UNDO:
            wanted = {
                Step.RESTORE: unit and not intent.prepared,
                Step.REVERT: True,
                Step.WITHDRAW: intent.makes_service or bool(intent.service_before),
                Step.STOP_SLICE: unit and not intent.prepared,
            }
        case Action.UNENROLL:
            wanted = {
                Step.RELEASE: bool(intent.uid),
                Step.WITHDRAW: bool(intent.uid),
                Step.RESTORE: unit,
                Step.LEAVE_SLICE: restart,
                Step.STOP_SLICE: restart,
            }
    return tuple(step for step, is_wanted in wanted.items() if is_wanted)


def is_another_namespace(intent: Intent) -> bool:
    """Return whether the workload is registered for a namespace that was at the path before."""
    before, now = intent.registered, intent.workload
    if before is None or now is None or not now.netns:
        return False
    return before.netns_cookie != now.netns_cookie


def is_undone_after(intent: Intent, step: Step) -> bool:
    """Return whether a failure of a step undoes the whole enrollment.

    A service of the host that is half enrolled would lose its network at its next restart. A
    network namespace may be proven later, and a unit that does not start is captured all the same.
    """
    if intent.action is not Action.ENROLL or step is Step.RESTART:
        return False
    return intent.is_on_host or step is not Step.PROVE


def is_failed_by(intent: Intent, step: Step) -> bool:
    """Return whether what was asked for fails with a step: that an enrolled workload is not proven
    yet is no fault of its unit's preparation, and its status says so."""
    return (intent.action, step) != (Action.PREPARE, Step.PROVE)


def is_best_effort(step: Step) -> bool:
    """Return whether a workload is out of the mesh even if the step fails for good."""
    return step in {Step.LEAVE_SLICE, Step.STOP_SLICE}


def undoing(intent: Intent, reason: str) -> Intent:
    return msgspec.structs.replace(intent, action=Action.UNDO, reason=reason)


def resumed(intent: Intent, boot: str) -> Intent:
    """Return an intent of the journal as it is to be carried out now.

    A namespace that the machine's last run had is gone, and so is who registered it.
    """
    if intent.action is Action.ENROLL and not intent.is_on_host and intent.boot != boot:
        gone = msgspec.structs.replace(intent, registered=None)
        return undoing(gone, "the host was restarted, and the network namespace is gone")
    return intent


def outcome(intent: Intent) -> str:
    """Return what users are told of an enrollment that was undone."""
    end = "stays enrolled as before" if intent.registered else "was not enrolled"
    return f"{intent.reason}; {place(intent)} {end}"


def claimed(intents: Iterable[Intent]) -> tuple[Workload, ...]:
    """Return the workloads of enrollments in work: as they are going to be, and as they were, which
    they are again if that fails."""
    enrollments = [one for one in intents if one.action in {Action.ENROLL, Action.UNDO}]
    after = (one.workload for one in enrollments if one.action is Action.ENROLL)
    return tuple(filter(None, (*after, *(one.registered for one in enrollments))))


def is_same(one: Intent, other: Intent) -> bool:
    """Return whether two requests are for the same."""
    return _asked(one) == _asked(other)


def _asked(intent: Intent) -> Intent:
    return msgspec.structs.replace(
        intent,
        number=0,
        run="",
        timeout=0.0,
        boot="",
        registered=None,
        prepared=False,
        makes_service=False,
        service_before="",
    )


def refuse_conflicts(intent: Intent, others: Iterable[Intent]) -> None:
    """Raises NotReadyError or InvalidInputError if what is in work contradicts a new intent."""
    for other in others:
        is_own = other.key == intent.key
        if not is_own and not (intent.unit and intent.unit == other.unit):
            continue
        if is_own and intent.action is Action.UNENROLL and other.action is not Action.UNENROLL:
            continue  # which ends the other
        if other.action in {Action.UNENROLL, Action.UNDO}:
            raise NotReadyError(
                f"{place(other)} is being unenrolled; try again when meshctl status does not name"
                " it any more"
            )
        raise InvalidInputError(
            f"{place(other)} is being enrolled as {shown(other.uid)}; meshctl unenroll it first"
        )
