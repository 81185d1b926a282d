"""The Services of the configuration, as enrollments change them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from meshd import wire
from meshd.api.base import Key
from meshd.api.kubernetes.types import Service
from meshd.api.object_fields import name_of
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject, text_at
from meshd.config import requests
from meshd.node.changing import Changing
from meshd.node.mesh import Mesh


class Offers:
    """The Services that are stored. ``is_own``: none of them comes from a server."""

    def __init__(self, mesh: Mesh, changing: Changing, *, is_own: bool) -> None:
        self._mesh = mesh
        self._changing = changing
        self.is_own = is_own

    def of(self, namespace: str) -> Iterable[JsonObject]:
        return requests.get(
            self._mesh.store.moment, wire.Get("Service", namespace=namespace)
        ).objects

    async def apply(self, service: JsonObject) -> None:
        """Raises InvalidInputError, SystemRefusedError, NotReadyError.

        A Service that is not in force is not among those from which ``service`` was made.
        """
        store, namespace = self._mesh.store, text_at(service, "metadata", "namespace")
        key = Key(Service.KIND, namespace, name_of(service))
        if key not in store.objects and store.moment.has(key):
            raise InvalidInputError(f"{key} is not in force (see meshctl status); correct it first")
        request = wire.Apply((("enroll", json.dumps(service)),), namespace)
        answer = await self._changing.change(request)
        if isinstance(answer, wire.Rejected):
            raise InvalidInputError("; ".join(str(one) for one in answer.findings))

    async def delete(self, namespace: str, names: tuple[str, ...]) -> None:
        """Raises SystemRefusedError, or InvalidInputError for what is in a file of people."""
        if self.is_own:
            request = wire.DeleteNamed(
                (wire.Named("Service", names),), namespace, ignore_missing=True
            )
            await self._changing.change(request)
