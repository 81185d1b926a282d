"""Every field of every kind has an effect on what proxies are told, or a reason why it has none.

Each field of the objects of two meshes is altered alone, and what is compiled has to differ.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest

from meshd.api.authorization_policy.types import (
    TargetReference,
)
from meshd.api.base import Object, ObjectMeta
from meshd.api.destination_rule.types import (
    HTTPSettings,
    OutlierDetection,
    RetryBudget,
    ZoneAwareLbSetting,
)
from meshd.api.dispatch import check_fields
from meshd.api.gateway.types import GatewayPort, Server
from meshd.api.kubernetes.types import Secret, ServiceAccount, ServicePort
from meshd.api.read import Read, read_sources
from meshd.api.request_authentication.types import JWTRule
from meshd.api.service_entry.types import WorkloadEntry, WorkloadGroup
from meshd.api.virtual_service.types import (
    CorsPolicy,
    FaultAbort,
    FaultDelay,
    HTTPRoute,
    L4MatchAttributes,
)
from meshd.compile.compiled import Compiled
from meshd.compile.compiler import Compiler
from meshd.model.extension_provider import AuthorizationProvider
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot, hosts_without_address
from tests.every_field import Field, altered, every_field, left_out_or_other, without
from tests.pem import certificate_pem, key_pem, new_key
from tests.unit.compile.messages import as_messages

OWN: Final = Path(__file__).parent / "fields.yaml"
MESHES: Final = (OWN, Path(__file__).parents[2] / "fuzz" / "mesh.yaml")
ASKED: Final = AuthorizationProvider(
    name="asked", host="web.shop.svc.cluster.local", port=80, speaks="grpc"
)
OPTIONS: Final = MeshOptions(node="here", locality="region/zone/sub", providers=(ASKED,))

TOLD: Final = "what is written there is refused, or a warning says that it is ignored"
NO_EFFECT: Final[Mapping[Field, str]] = {
    (ServiceAccount, "metadata"): "an account needs no object: workloads name it",
    (ObjectMeta, "resource_version"): "the store leaves it out",
    (ObjectMeta, "generate_name"): "the store refuses an object without a name",
    (ServicePort, "node_port"): "it is for clients outside of the mesh",
    (Server, "name"): "people tell servers apart by it",
    (Secret, "type"): "the check of its content reads it",
    (ZoneAwareLbSetting, "min_cluster_size"): TOLD,
    (OutlierDetection, "outlier_detection_http_error_codes"): TOLD,
    (RetryBudget, "budget_interval"): TOLD,
    (GatewayPort, "target_port"): TOLD,
    (Server, "bind"): TOLD,
    (Server, "default_endpoint"): TOLD,
    (FaultDelay, "exponential_delay"): TOLD,
    (FaultAbort, "http2_error"): TOLD,
    (L4MatchAttributes, "source_subnet"): TOLD,
    (JWTRule, "jwks_uri"): "what is fetched from there is a part of the snapshot",
    (JWTRule, "timeout"): "it is for whoever fetches the keys",
    **{(TargetReference, name): TOLD for name in ("group", "kind", "name", "namespace")},
}
"""Fields that proxies are told nothing of, and why."""
OF_HOSTS: Final = every_field([WorkloadGroup]).keys() - every_field([WorkloadEntry]).keys()
"""A group's workloads are enrolled and probed on their hosts, and are then as others are."""


def workload(
    uid: str,
    number: int,
    app: str = "web",
    version: str = "",
    *,
    namespace: str = "shop",
    locality: str = "",
    is_ready: bool = True,
) -> Workload:
    return Workload(
        uid=uid,
        name=uid,
        namespace=namespace,
        netns=f"/run/netns/{uid}",
        labels={"app": app} | ({"version": version} if version else {}),
        addresses=(f"198.18.1.{number}",),
        service_account="web",
        locality=locality,
        ready=is_ready,
    )


WORKLOADS: Final = (
    workload("one", 1, version="v1", locality="region/zone/sub"),
    workload("two", 2, version="v2", locality="region/zone2/sub"),
    workload("far", 3, version="v1", locality="there/z/s"),
    workload("farther", 4, locality="elsewhere/z/s"),
    workload("late", 5, "late", is_ready=False),
    workload("edge", 6, "edge"),
    workload("files", 7, "edge2"),
    workload("client", 8, "client", namespace="other"),
    workload("apart", 9, namespace="apart"),
)
SERVED: Final = ("one", "edge", "files", "client", "apart")
ELSEWHERE: Final = (msgspec.structs.replace(workload("there", 10), node="there"),)


def mesh(path: Path) -> tuple[Read, ...]:
    reading = read_sources([(path.name, path.read_text(encoding="utf-8"))], "shop")
    assert not reading.errors
    return tuple(_with_certificate(read) for read in reading.objects)


def _with_certificate(read: Read) -> Read:
    """A Secret has an effect if what it holds is good."""
    if not isinstance(read.object, Secret):
        return read
    chain, key = _pair()
    encoded = {"ca.crt": base64.b64encode(chain.encode()).decode()}
    values = {"tls.crt": chain, "tls.key": key}
    secret = msgspec.structs.replace(read.object, data=encoded, string_data=values)
    return Read(secret, read.document, read.at)


@functools.cache
def _pair() -> tuple[str, str]:
    key = new_key()
    return certificate_pem(key, "root", ca=True).decode(), key_pem(key).decode()


Seen = Callable[[Sequence[Object]], Sequence[Object]]


class Effects:
    """Notices whether objects of a mesh are compiled to something else than before."""

    def __init__(self, objects: Sequence[Object], seen: Seen) -> None:
        self._objects = objects
        self._seen = seen
        self._compiler = Compiler()
        self._before = self._compiled(objects)

    def _compiled(self, objects: Sequence[Object]) -> Mapping[Pool, Compiled]:
        known = self._seen(objects)
        hosts = hosts_without_address(known, OPTIONS)
        addresses = {host: (f"198.19.0.{number}",) for number, host in enumerate(hosts, 1)}
        snapshot = build_snapshot(known, WORKLOADS, OPTIONS, addresses, elsewhere=ELSEWHERE)
        return as_messages(self._compiler.compile(snapshot, SERVED))

    def of(self, at: int, other: Object) -> bool:
        """Return whether there is one if this object stands at that place."""
        try:
            now = self._compiled([*self._objects[:at], other, *self._objects[at + 1 :]])
        except ValueError:
            return True  # a value that there is no word for at Envoy: somebody has read it
        return now != self._before


def effective(
    paths: Sequence[Path], seen: Seen = list, only: Callable[[Field], bool] = lambda _: True
) -> set[Field]:
    """Return the fields with an effect; ``seen``: the objects as the compiler sees them."""
    found: set[Field] = set()
    for path in paths:
        objects = [read.object for read in mesh(path)]
        effects = Effects(objects, seen)
        for at, known in enumerate(objects):
            for chain, other in altered(known, left_out_or_other):
                if only(chain[-1]) and not found.issuperset(chain) and effects.of(at, other):
                    found.update(chain)
    return found


def test_every_field_has_an_effect_or_a_reason_why_it_has_none() -> None:
    found = effective(MESHES, only=lambda field: field not in OF_HOSTS)

    forgotten = every_field().keys() - found - NO_EFFECT.keys() - OF_HOSTS
    assert sorted(map(_shown, forgotten)) == []
    assert sorted(map(_shown, NO_EFFECT.keys() & found)) == []


@pytest.mark.parametrize(
    "field",
    [(HTTPRoute, "timeout"), (CorsPolicy, "max_age"), (HTTPSettings, "max_retries")],
)
def test_a_field_that_nobody_reads_is_noticed(field: Field) -> None:
    def seen(objects: Sequence[Object]) -> Sequence[Object]:
        return [without(known, field) for known in objects]

    assert field in effective(MESHES[1:], only=lambda one: one == field)
    assert field not in effective(MESHES[1:], seen, only=lambda one: one == field)


def test_fields_without_effect_are_reported() -> None:
    told = {finding.field.rpartition(".")[2].lower() for finding in check_fields(mesh(OWN))}
    text = " ".join(finding.message for finding in check_fields(mesh(OWN))).lower()
    for (_, name), reason in NO_EFFECT.items():
        camel = name.replace("_", "")
        assert reason != TOLD or camel in told or camel in text, name


def _shown(field: Field) -> str:
    return f"{field[0].__name__}.{field[1]}"
