"""Makes intents of what people ask, or says why that cannot be before anything is done."""

from __future__ import annotations

import json
import time

import msgspec

from meshd import wire
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject, texts_at
from meshd.model.workload import Workload, shown
from meshd.node.enrolling import Enrolling
from meshd.node.enrollment_steps import Steps
from meshd.workloads import offer
from meshd.workloads.host import host_services
from meshd.workloads.host.units import unit_name
from meshd.workloads.intent import Action, Intent, claimed


class EnrollmentRequests:
    """The requests. ``server``: where the Services come from, if not from here; ``boot``: the
    present run of the machine."""

    def __init__(self, enrolling: Enrolling, steps: Steps, *, server: str, boot: str) -> None:
        self._enrolling = enrolling
        self._steps = steps
        self._server = server
        self._boot = boot
        self._number = 0

    async def answer(
        self, request: wire.Enroll | wire.EnrollAgain | wire.Unenroll | wire.Await
    ) -> wire.Progress:
        """Begin with what is asked for, or tell how far that is. Raises MeshdError: then nothing
        has changed."""
        match request:
            case wire.Enroll():
                intent = self._enrollment(request)
            case wire.EnrollAgain():
                intent = self._preparation(request)
            case wire.Unenroll():
                intent = self._end(request)
            case wire.Await():
                return await self._enrolling.progress(request)
        return await self._enrolling.request(intent)

    def _enrollment(self, request: wire.Enroll) -> Intent:
        """Raises InvalidInputError."""
        workload = request.workload
        self._refuse_taken(workload)
        unit = workload.host.unit if workload.host else ""
        intent = Intent(
            number=self._next(),
            action=Action.ENROLL,
            uid=workload.uid,
            unit=unit,
            workload=workload,
            service=request.service,
            ports=request.ports,
            restart=request.restart,
            run=request.run,
            timeout=request.timeout,
            boot=self._boot,
            registered=self._registered(workload.uid),
            prepared=bool(unit) and self._steps.units.is_prepared(_checked(unit)),
        )
        return self._offering(intent, workload)

    def _preparation(self, request: wire.EnrollAgain) -> Intent:
        """Raises InvalidInputError."""
        if (known := self._registered(request.uid)) is None:
            raise InvalidInputError(f"{shown(request.uid)} is not enrolled: see meshctl status")
        return Intent(
            number=self._next(),
            action=Action.PREPARE,
            uid=known.uid,
            unit=_checked(known.host.unit) if known.host and known.host.unit else "",
            workload=known,
            restart=request.restart,
            run=request.run,
            timeout=request.timeout,
            registered=known,
        )

    def _end(self, request: wire.Unenroll) -> Intent:
        """Raises InvalidInputError."""
        begun = self._enrolling.intents().get(request.uid)
        known = self._registered(request.uid) or (begun.workload if begun else None)
        if known and known.host and known.host.declared:
            raise InvalidInputError(
                f"WorkloadEntry {known.namespace}/{known.name} declares {known.host.unit}; delete"
                " the WorkloadEntry first"
            )
        unit = known.host.unit if known and known.host else request.unit
        if not (known or unit):
            raise InvalidInputError(f"{shown(request.uid)} is not enrolled: see meshctl status")
        return Intent(
            number=self._next(),
            action=Action.UNENROLL,
            uid=request.uid if known else "",
            unit=_checked(unit) if unit else "",
            workload=known,
            restart=request.restart,
            run=request.run,
        )

    def _registered(self, uid: str) -> Workload | None:
        return self._steps.registrations.registered.get(uid)

    def _next(self) -> int:
        """Return a number that no request had, nor one of a process before this one."""
        self._number = max(self._number + 1, time.time_ns())
        return self._number

    def _refuse_taken(self, workload: Workload) -> None:
        """Raises InvalidInputError for what is another workload's, or is going to be."""
        own = self._registered(workload.uid)
        if own and own.host and own.host.declared:
            raise InvalidInputError(f"WorkloadEntry {own.namespace}/{own.name} declares it")
        begun = self._enrolling.intents().values()
        registered = self._steps.registrations.registered.values()
        host_services.refuse_taken(workload, (*registered, *claimed(begun)))

    def _offering(self, intent: Intent, workload: Workload) -> Intent:
        """Return an intent with the labels by which its Service selects the workload. Raises
        InvalidInputError if the Service cannot be made here."""
        if not intent.service:
            return intent
        before = self._steps.find(workload.namespace, intent.service)
        after = offer.wanted(before, intent.service, workload.namespace, intent.ports, workload.uid)
        is_changed = after != before
        if is_changed and self._server:
            raise InvalidInputError(
                f"Service {workload.namespace}/{intent.service} comes from {self._server}, and has"
                " to be applied there first"
            )
        return msgspec.structs.replace(
            intent,
            workload=_selected(workload, after),
            service="" if self._server else intent.service,
            makes_service=before is None,
            service_before=json.dumps(before) if is_changed and before is not None else "",
        )


def _selected(workload: Workload, service: JsonObject) -> Workload:
    labels = {**workload.labels, **texts_at(service, "spec", "selector")}
    return msgspec.structs.replace(workload, labels=labels)


def _checked(unit: str) -> str:
    """Raises InvalidInputError unless it is the full name of a unit that can be enrolled."""
    if unit_name(unit) != unit:
        raise InvalidInputError(f"{unit!r} is not the full name of a systemd service")
    return unit
