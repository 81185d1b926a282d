"""Definitions of Istio's kinds that the API server takes, and that say what meshd reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from meshd.kubernetes.crds import definitions
from meshd.kubernetes.followed_kinds import KINDS, path_of

ALL: Any = {one["spec"]["names"]["kind"]: one for one in definitions()}  # type: ignore[index,call-overload]
_STRUCTURAL = {
    *("type", "properties", "required", "items", "additionalProperties", "nullable", "enum"),
    *("description", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
    *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"),
}


def schema(kind: str) -> Any:
    return ALL[kind]["spec"]["versions"][-1]["schema"]["openAPIV3Schema"]


def schemas(value: Any) -> Iterator[Any]:
    """A schema and all in it."""
    yield value
    for one in value.get("properties", {}).values():
        yield from schemas(one)
    for key in ("items", "additionalProperties"):
        if key in value:
            yield from schemas(value[key])


def test_each_kind_that_is_followed_and_not_kubernetes_own_is_defined() -> None:
    assert ALL.keys() == {name for name, kind in KINDS.items() if kind.GROUP}
    for name, one in ALL.items():
        spec = one["spec"]
        stored = [version["name"] for version in spec["versions"] if version["storage"]]
        path = f"/apis/{spec['group']}/{stored[0]}/{spec['names']['plural']}"
        assert [path] == [path_of(KINDS[name])]
        assert one["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"


@pytest.mark.parametrize("kind", ALL)
def test_schemas_are_structural(kind: str) -> None:
    for one in schemas(schema(kind)):
        assert one.keys() <= _STRUCTURAL
        has_type = "type" in one or "x-kubernetes-int-or-string" in one
        assert has_type or "x-kubernetes-preserve-unknown-fields" in one
        assert ("items" in one) == (one.get("type") == "array")
        assert not ("properties" in one and "additionalProperties" in one)


@pytest.mark.parametrize("kind", ALL)
def test_nothing_of_a_spec_is_left_open(kind: str) -> None:
    """But for its status, which meshd does not read."""
    for one in schemas(schema(kind)["properties"]["spec"]):
        assert "x-kubernetes-preserve-unknown-fields" not in one


def test_a_spec_says_its_fields_and_their_types() -> None:
    http = schema("VirtualService")["properties"]["spec"]["properties"]["http"]
    fields = http["items"]["properties"]
    assert fields["timeout"]["type"] == "string"
    assert fields["route"]["items"]["properties"]["weight"]["type"] == "integer"
    mode = schema("PeerAuthentication")["properties"]["spec"]["properties"]["mtls"]
    assert "STRICT" in mode["properties"]["mode"]["enum"]
