"""API objects come out of MCP over xDS as they went in."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from google.protobuf import any_pb2, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.base import ObjectMeta
from meshd.api.kubernetes.types import Namespace
from meshd.api.write import from_json, to_json
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.fleet.server import mcp
from meshd.protos import mcp_resource_pb2

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
scalars = st.none() | st.booleans() | texts | st.integers(-(2**53) + 1, 2**53 - 1) | st.just(0.5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
specs = st.dictionaries(texts, values, max_size=4)
labels = st.dictionaries(texts, texts, max_size=2)


def virtual_service(spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "v", "namespace": "n"} | metadata,
        "spec": spec,
    }


@given(specs, labels, labels)
def test_istio_objects_go_through_whole(
    spec: dict[str, Any], some: dict[str, str], others: dict[str, str]
) -> None:
    parts = {"labels": some, "annotations": others}
    value = virtual_service(spec, **{key: part for key, part in parts.items() if part})
    resource = mcp.encode(value)
    assert (resource.type_url, resource.name) == ("networking.istio.io/v1/VirtualService", "n/v")
    assert mcp.decode(resource.type_url, resource.body) == value


@given(specs)
def test_versions_are_equal_exactly_when_objects_are(spec: dict[str, Any]) -> None:
    first, second = (mcp.encode(virtual_service(spec)) for _ in range(2))
    assert first == second
    other = mcp.encode(virtual_service(spec, labels={"a": "b"}))
    assert other.version != first.version


def test_kubernetes_objects_have_all_their_parts() -> None:
    secret: JsonObject = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "n", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": "aGk="},
    }
    resource = mcp.encode(secret)
    assert resource.type_url == "core/v1/Secret"
    assert mcp.decode(resource.type_url, resource.body) == secret


def test_objects_without_a_namespace_or_parts() -> None:
    value = to_json(Namespace(metadata=ObjectMeta(name="n", labels={"a": "b"})))
    resource = mcp.encode(value)
    assert resource.name == "n"
    assert from_json(mcp.decode(resource.type_url, resource.body)) == from_json(value)


@given(specs)
def test_bodies_go_through_whole(body: dict[str, Any]) -> None:
    resource = mcp.encode_body(mcp.WORKLOAD, "node/uid", body)
    assert mcp.decode_body(resource.body) == body


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_in_our_words(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        mcp.decode("networking.istio.io/v1/VirtualService", data)


def test_a_body_of_another_type_is_refused_by_its_name() -> None:
    body = any_pb2.Any(type_url="type.googleapis.com/istio.networking.v1alpha3.VirtualService")
    tagged = b"\x12" + bytes([len(body.SerializeToString())]) + body.SerializeToString()
    with pytest.raises(InvalidInputError, match=r"istio\.networking\.v1alpha3\.VirtualService"):
        mcp.decode("networking.istio.io/v1/VirtualService", tagged)


def _body(**fields: Any) -> Any:
    struct = struct_pb2.Struct()
    for name, value in fields.items():
        struct.fields[name].number_value = value
    return struct


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_has_not_is_refused(number: float) -> None:
    message = mcp_resource_pb2.Resource()
    message.metadata.name = "n/v"
    message.body.Pack(_body(timeout=number))
    with pytest.raises(InvalidInputError):
        mcp.decode("networking.istio.io/v1/VirtualService", message.SerializeToString())


@pytest.mark.parametrize(("seconds", "nanos"), [(2**62, 0), (-(2**62), 0), (0, -5), (0, 2**31 - 1)])
def test_a_creation_time_that_is_none_is_refused(seconds: int, nanos: int) -> None:
    message = mcp_resource_pb2.Resource()
    message.metadata.name = "n/v"
    message.metadata.create_time.seconds = seconds
    message.metadata.create_time.nanos = nanos
    message.body.Pack(_body())
    with pytest.raises(InvalidInputError):
        mcp.decode("networking.istio.io/v1/VirtualService", message.SerializeToString())


@given(st.binary(max_size=300))
def test_whatever_a_server_sends_is_a_resource_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        mcp.decode("networking.istio.io/v1/VirtualService", data)
    with contextlib.suppress(InvalidInputError):
        mcp.decode_body(data)


def test_an_object_whose_spec_is_all_defaults_arrives() -> None:
    policy: JsonObject = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "shop"},
    }
    resource = mcp.encode(policy)
    assert mcp.decode(resource.type_url, resource.body) == policy | {"spec": {}}


@pytest.mark.parametrize(
    "metadata",
    [
        {"creationTimestamp": "yesterday"},
        {"creationTimestamp": "10000-01-01T00:00:00Z"},
        {"annotations": {"a": "\ud800"}},
        {"labels": {"a": 5}},
    ],
)
def test_values_that_no_message_can_hold_are_refused_by_name(metadata: dict[str, Any]) -> None:
    whole: JsonObject = {"name": "shop", **metadata}
    value: JsonObject = {"apiVersion": "v1", "kind": "Namespace", "metadata": whole}
    with pytest.raises(InvalidInputError, match="Namespace shop"):
        mcp.encode(value)


def test_a_number_that_no_message_can_hold_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="a/b"):
        mcp.encode_body(mcp.WORKLOAD, "a/b", {"count": 10**400})
