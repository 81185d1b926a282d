"""The objects of the API that parts of the plan come from."""

from __future__ import annotations

from meshd.api.base import Key
from meshd.compile.plan.origin import Origin
from meshd.model.service import ServiceRecord


def of_service(service: ServiceRecord, field: str) -> Origin | None:
    """Return the field of a service's object; None: the object is not known."""
    kind, name = ("Service", service.name) if service.name else ("ServiceEntry", service.entry)
    return Origin(Key(kind, service.namespace, name), field) if name else None


def of_port(service: ServiceRecord, number: int) -> Origin | None:
    """Return the field that declares a service's port."""
    numbers = [port.number for port in service.ports]
    return of_service(service, f"spec.ports[{numbers.index(number)}]")
