"""What would take long to decode is refused before it is decoded, and all else is not."""

from __future__ import annotations

import contextlib

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from meshd.xds.bounded import MOST_FIELDS, check_fields


def request(names: int, versions: int) -> bytes:
    return discovery_pb2.DeltaDiscoveryRequest(
        type_url="a",
        resource_names_subscribe=[f"n{number}" for number in range(names)],
        initial_resource_versions={f"n{number}": "v" for number in range(versions)},
    ).SerializeToString()


@pytest.mark.parametrize(("names", "versions"), [(0, 0), (3, 2), (0, 150_000), (150_000, 0)])
def test_what_a_large_mesh_needs_is_taken(names: int, versions: int) -> None:
    check_fields(request(names, versions))


@pytest.mark.parametrize(
    "message",
    [
        request(0, MOST_FIELDS),
        request(2 * MOST_FIELDS, 0),
        b"\x1a\x00" * 2_000_000,
        b"\x2a\x00" * 2_000_000,
        b"\x08\x01" * 2_000_000,
    ],
)
def test_more_than_that_is_not(message: bytes) -> None:
    with pytest.raises(ValueError, match="more than 200000"):
        check_fields(message)


def test_other_fields_are_bounded_in_total() -> None:
    node = b"\x0a\x80\x80\x20" + b"a" * (512 * 1024)
    check_fields(node * 2)
    with pytest.raises(ValueError, match="bytes beside"):
        check_fields(node * 5)


@given(st.binary(max_size=100))
def test_whatever_comes_ends(message: bytes) -> None:
    with contextlib.suppress(ValueError):
        check_fields(message * (MOST_FIELDS // 4))
