"""Carries out the steps of an enrollment, one at a time. Each does nothing where it was done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from meshd import wire
from meshd.api.object_fields import name_of
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.model.workload import Workload
from meshd.workloads import offer
from meshd.workloads.intent import Action, Intent, Step


class Registrations(Protocol):
    """The workloads of this node."""

    @property
    def registered(self) -> Mapping[str, Workload]: ...

    def register(self, workloads: Sequence[Workload]) -> None:
        """Raises MeshdError: then nothing has changed."""
        ...

    async def prove(self, uids: Sequence[str], seconds: float) -> None:
        """Raises NotReadyError."""
        ...

    async def unregister(self, uids: Sequence[str]) -> None:
        """Raises MeshdError."""
        ...


class Services(Protocol):
    """The Services of the configuration, as JSON values."""

    def of(self, namespace: str) -> Iterable[JsonObject]: ...

    async def apply(self, service: JsonObject) -> None:
        """Raises MeshdError."""
        ...

    async def delete(self, namespace: str, names: tuple[str, ...]) -> None:
        """Raises MeshdError; InvalidInputError if it can never be."""
        ...


class Units(Protocol):
    """The units of systemd."""

    def is_prepared(self, unit: str) -> bool: ...

    async def change(self, request: wire.UnitRequest) -> tuple[str, ...]:
        """Return what is to be known of the change, a line each.

        Raises SystemRefusedError, or UnreachableError when whoever does it is not there.
        """
        ...


class Steps:
    """The steps, by way of what they change."""

    def __init__(self, registrations: Registrations, services: Services, units: Units) -> None:
        self.registrations = registrations
        self.services = services
        self.units = units

    def find(self, namespace: str, name: str) -> JsonObject | None:
        """Return a Service."""
        all_ = self.services.of(namespace)
        return next((one for one in all_ if name_of(one) == name), None)

    async def carry_out(self, step: Step, intent: Intent, seconds: float) -> tuple[str, ...]:
        """Return what is to be known of it; ``seconds``: how long it may wait to be proven. Raises
        MeshdError."""
        unit, run = intent.unit, intent.run
        match step:
            case Step.OFFER:
                await self._offer(intent)
            case Step.DISMISS | Step.RELEASE:
                await self._dismiss(intent, step)
            case Step.PREPARE:
                return await self.units.change(wire.PrepareUnit(unit))
            case Step.REGISTER if intent.workload:
                self._register(intent.workload)
            case Step.REGISTER:
                pass
            case Step.PROVE:
                await self.registrations.prove((intent.uid,), seconds)
            case Step.RESTART | Step.LEAVE_SLICE:
                inside = step is Step.RESTART
                request = wire.RestartUnit(unit=unit, run=run, inside=inside)
                return await self.units.change(request)
            case Step.RESTORE:
                return await self.units.change(wire.RestoreUnit(unit))
            case Step.REVERT:
                await self._revert(intent)
            case Step.WITHDRAW:
                return await self._withdraw(intent)
            case Step.STOP_SLICE:
                return await self.units.change(wire.StopSlice(unit))
        return ()

    async def _offer(self, intent: Intent) -> None:
        if intent.workload is None:
            return
        namespace = intent.workload.namespace
        before = self.find(namespace, intent.service)
        after = offer.wanted(before, intent.service, namespace, intent.ports, intent.uid)
        if after != before:
            await self.services.apply(after)

    def _register(self, wanted: Workload) -> None:
        if not is_registered(wanted, self.registrations.registered.get(wanted.uid)):
            self.registrations.register((wanted,))

    async def _dismiss(self, intent: Intent, step: Step) -> None:
        known = self.registrations.registered.get(intent.uid)
        if step is Step.DISMISS and known and known == intent.workload:
            return  # which the step after this one has registered
        await self.registrations.unregister((intent.uid,))

    async def _revert(self, intent: Intent) -> None:
        if intent.registered:
            self._register(intent.registered)
        else:
            await self.registrations.unregister((intent.uid,))

    async def _withdraw(self, intent: Intent) -> tuple[str, ...]:
        """Return why Services stay. Raises MeshdError if it is to be tried again."""
        if intent.workload is None:
            return ()
        namespace = intent.workload.namespace
        if intent.action is Action.UNENROLL or intent.makes_service:
            made = offer.made_for(self.services.of(namespace), intent.uid)
            is_end = intent.action is Action.UNENROLL
            names = [one for one in made if is_end or one == intent.service]
            remarks = [await self._delete(namespace, name) for name in names]
            return tuple(filter(None, remarks))
        before = msgspec.json.decode(intent.service_before)
        now = self.find(namespace, intent.service)
        if now is not None and offer.is_as_merged(now, before, intent.ports):
            try:
                await self.services.apply(before)
            except InvalidInputError as error:
                return (f"Service {namespace}/{intent.service} keeps its ports: {error}",)
        return ()

    async def _delete(self, namespace: str, name: str) -> str:
        """Return why a Service stays; empty: it is gone."""
        try:
            await self.services.delete(namespace, (name,))
        except InvalidInputError as error:
            return f"Service {namespace}/{name} stays: {error}"
        return ""


def is_registered(wanted: Workload, known: Workload | None) -> bool:
    """Return whether a workload is registered as it is wanted, whatever ports of the host it was
    given."""
    return known is not None and _without_ports(known) == _without_ports(wanted)


def _without_ports(workload: Workload) -> Workload:
    if workload.host is None:
        return workload
    host = msgspec.structs.replace(workload.host, outbound_port=0, inbound_port=0)
    return msgspec.structs.replace(workload, host=host)
