"""What nodes are told in place of an object that they cannot be told of. Pure.

If nothing were told of it, nodes would take it for deleted: a policy would close nothing any more,
and hosts would be reached past their routes and TLS settings. Of most kinds, a form is told that no
node takes: a node that has a version from before keeps that one, and any other node closes what the
object is about, as far as the form tells that. Of a policy, a node keeps its version only if that
has the digest that each form carries: one that has changed may be stricter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from meshd.api.gateway.types import Gateway
from meshd.api.kubernetes.types import Namespace
from meshd.api.object_fields import kind_of
from meshd.api.service_entry.types import WorkloadGroup
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject, mapping_at
from meshd.config import withheld
from meshd.config.policy_digest import DIGEST, NOT_IN_FORCE, digest_of
from meshd.config.withheld import unusable_json

Form: TypeAlias = Callable[[JsonObject], JsonObject]
_KEPT: Final = frozenset({*withheld.POLICIES, *withheld.WITH_PLACES})
"""The kinds of which absence opens something."""
_REFUSED: Final = _KEPT | {Gateway.KIND, WorkloadGroup.KIND}
"""The kinds whose specification has no unknown field: no node takes them with one."""
_NAME: Final = ("name", "namespace")


def closed(value: JsonObject) -> JsonObject:
    """Return an object that is closed. Raises InvalidInputError if there is none."""
    key = withheld.key_of(value)
    if key and (policy := withheld.in_place_of(key.kind, key.namespace, key.name)):
        return unusable_json(policy, digest_of(value))
    if found := withheld.closed_value(value):
        return unusable_json(found)
    raise InvalidInputError("nothing stands for it")


def without_metadata(value: JsonObject) -> JsonObject:
    """Return the same of an object of which no more metadata is read than its name; of a namespace
    its labels, which tell whether workloads are in the mesh. Raises InvalidInputError."""
    fields = ("name", "namespace", "labels") if kind_of(value) == Namespace.KIND else _NAME
    metadata = mapping_at(value, "metadata")
    known = {name: metadata[name] for name in fields if name in metadata}
    rest: JsonObject = {**value, "metadata": known}
    return rest if kind_of(value) == Namespace.KIND else closed(rest)


def named(value: JsonObject) -> JsonObject:
    """Return an object that tells nothing but its name, so that it is lost for a node that has no
    version from before. Raises InvalidInputError if nodes might take it."""
    if kind_of(value) not in _REFUSED:
        raise InvalidInputError("nothing stands for it")
    metadata = mapping_at(value, "metadata")
    is_policy = kind_of(value) in withheld.POLICIES
    digest: JsonObject = {DIGEST: digest_of(value)} if is_policy else {}
    return {
        "apiVersion": value["apiVersion"],
        "kind": kind_of(value),
        "metadata": {name: metadata[name] for name in _NAME if name in metadata},
        # Neither hosts nor ports can be read from it: they may have been any.
        "spec": {NOT_IN_FORCE: True, "hosts": True, "ports": True, **digest},
    }


def opens_if_absent(value: JsonObject) -> bool:
    """Return whether a node that was never told of an object may reach more, or be reached by more,
    than with it."""
    return kind_of(value) in _KEPT


FORMS: Final[tuple[tuple[str, Form], ...]] = (
    ("what stands for", closed),
    ("what stands, without its metadata, for", without_metadata),
    ("the name of", named),
)
"""Names and makers of the forms. Each tells less than the one before, and may be told where that
one cannot."""
